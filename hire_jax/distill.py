"""What a student is trained on: supervised loss plus weighted distillation terms."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hire_jax import losses
from hire_jax.supervised import cross_entropy

EdgeType = tuple[str, str, str]
Edges = Mapping[EdgeType, tuple[jax.Array, jax.Array]]
Weight = float | Callable[[jax.Array], Any]  # a number, or an optax schedule over epochs
TERMS = ("supervised", "soft_target_kl", "type_pair_correlation", "attention_map_kl")
LATER: Any = {"omit_default": True}  # settings added later: left out of a cell's key while they are the default


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The supervised loss and weighted distillation terms (HIRE, arXiv 2207.11887; GKEDM, arXiv 2403.15419).

      L = supervised CE + soft_target_kl L_node + type_pair_correlation L_relation + attention_map_kl L_attention

    Our reading of the papers, after their abstracts' descriptions: L_node is the softened Kullback-Leibler
    divergence of the logits over all target nodes (per-class Bernoulli where labels are multi-label),
    L_relation the difference of type-pair correlations of hidden embeddings, averaged over the layers, L_attention
    the divergence of the last layer's attention maps. Terms of weight zero are not computed.

    Args:
      supervised: weight of the cross-entropy on training labels. This and the next three are numbers, or functions
        of the epoch (from 0) such as optax schedules; a function has no place in a cell's key of experiments.
      soft_target_kl: weight alpha of the node-level term.
      type_pair_correlation: weight beta of the relation-level term.
      attention_map_kl: weight of the attention term: maps of the last layer that has some, over all edges into the
        target, a node's own included, before attention dropout.
      temperature: T of the node-level term.
      label_smoothing: of the cross-entropy.
      variant: of `losses.type_pair_correlation`: "all_pairs", "prototype" or "edges".
      layers: indices into `ModelOutput.hidden` (0 is the input projection) the relation-level term matches,
        or None for all layers between input projection and last. The last layer knows the target type only.
      distil_rows: "all" target nodes (transductive) or "train" nodes only, for the node-level term.
      attention_heads: which heads are compared: `heads` of `losses.attention_map_kl`.
      attention_weights: weighs each node of the attention term by how sharp the teacher's attention is ("entropy":
        `losses.attention_reliability`) or by its number of edges ("degree").
      reliability: weighs each node of the node-level term by the teacher's certainty ("entropy") or by whether it
        is right on the training labels ("correctness", other nodes 1): `losses.entropy_reliability`,
        `losses.correctness_reliability`.
      group_weights: of the relation-level term, {node type: weight}, or {edge type: weight} with variant "edges".
      uncertainty: learns a log variance s_k a term beside the student: the sum over terms of
        (exp(-s_k) w_k L_k + s_k) / 2 (arXiv 1705.07115). A term that can reach 0 drives its own weight up. `fit`'s
        weight decay pulls s towards 0 as it does parameters.
      pcgrad: where the gradients of two weighted terms point against each other, takes from each what opposes the
        other (arXiv 2001.06782, `hire_jax.pcgrad`); one backward pass a term. For `fit`; the loss is the same. What
        `uncertainty` learns is left out of it.
    """

    supervised: Weight = 1.0
    soft_target_kl: Weight = 0.0
    type_pair_correlation: Weight = 0.0
    attention_map_kl: Weight = dataclasses.field(default=0.0, metadata=LATER)
    temperature: float = 1.0
    label_smoothing: float = 0.0
    variant: Literal["all_pairs", "prototype", "edges"] = "all_pairs"
    layers: tuple[int, ...] | None = None
    distil_rows: Literal["all", "train"] = "all"
    attention_heads: Literal["index", "mean", "assign"] = dataclasses.field(default="index", metadata=LATER)
    attention_weights: Literal["entropy", "degree"] | None = dataclasses.field(default=None, metadata=LATER)
    reliability: Literal["entropy", "correctness"] | None = dataclasses.field(default=None, metadata=LATER)
    group_weights: Mapping[Any, float] | tuple[tuple[Any, float], ...] = dataclasses.field(default=(), metadata=LATER)
    uncertainty: bool = dataclasses.field(default=False, metadata=LATER)
    pcgrad: bool = dataclasses.field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        for name in TERMS:
            weight = getattr(self, name)
            if not callable(weight) and not weight >= 0:
                raise ValueError(f"{name} is the weight of a term and must be >= 0, got {weight}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        for name, allowed in (("variant", ("all_pairs", "prototype", "edges")), ("distil_rows", ("all", "train")),
                              ("attention_heads", ("index", "mean", "assign")),
                              ("attention_weights", ("entropy", "degree", None)),
                              ("reliability", ("entropy", "correctness", None))):
            if getattr(self, name) not in allowed:
                listed = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
                raise ValueError(f"{name} must be {listed}, got {getattr(self, name)!r}")
        object.__setattr__(self, "group_weights", tuple(sorted(dict(self.group_weights).items(), key=repr)))  # hashable
        idle = {"attention_weights": self.attention_weights is not None and "attention_map_kl" not in self.terms,
                "reliability": self.reliability is not None and "soft_target_kl" not in self.terms,
                "group_weights": bool(self.group_weights) and "type_pair_correlation" not in self.terms,
                "pcgrad": self.pcgrad and not self.terms}
        for name in (name for name, nothing in idle.items() if nothing):
            raise ValueError(f"{name} is given, but no term that it acts on has a weight")
        for group, weight in self.group_weights:
            if not weight >= 0:
                raise ValueError(f"group_weights of {group!r} must be >= 0, got {weight}")

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that are computed."""
        return tuple(name for name in TERMS if callable(getattr(self, name)) or getattr(self, name) > 0)

    @property
    def needs_teacher(self) -> bool:
        """Whether any distillation term has a weight."""
        return any(name != "supervised" for name in self.terms)

    def init(self) -> dict[str, jax.Array]:
        """What the objective itself learns: {term: log variance} with `uncertainty`, else {}."""
        return {name: jnp.zeros(()) for name in self.terms} if self.uncertainty else {}

    def __call__(self, student: Any, labels: jax.Array, *, teacher: Any = None, where: jax.Array | None = None,
                 edges: Edges | None = None, epoch: jax.Array | int = 0,
                 log_variances: Mapping[str, jax.Array] | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The total and its unweighted terms.

        Args:
          student: a `ModelOutput`, or anything with its `logits` [N, C] and `hidden`.
          labels: int[N], or int[N, C] for multi-label; negative is unlabelled.
          teacher: the same of the teacher; its arrays are constants. Needed when a distillation term is on.
          where: bool[N], the training nodes.
          edges: {edge type: (senders, receivers)}, needed by variant "edges" and by attention_map_kl; the key
            (target, "self", target) stands for a node's attention to itself and is not looked up.
          epoch: from 0, for weights that are schedules.
          log_variances: of `init()`, or what became of them; needed with `uncertainty`.

        Returns:
          scalar, {"supervised" | "soft_target_kl" | "type_pair_correlation" | "attention_map_kl": scalar}.

        Raises:
          ValueError: no teacher for a term that needs one, no layer two node types of both can be matched at, a
            group weight for a type or relation that no matched layer has.
        """
        terms = self.unweighted(student, labels, teacher=teacher, where=where, edges=edges)
        weighted = self.weighted(terms, epoch=epoch, log_variances=log_variances)
        return sum(weighted.values(), jnp.zeros(())), terms

    def weighted(self, terms: Mapping[str, jax.Array], *, epoch: jax.Array | int = 0,
                 log_variances: Mapping[str, jax.Array] | None = None) -> dict[str, jax.Array]:
        """What each term adds to the total: its weight at `epoch` times its value, learned weights included."""
        added = {}
        for name, value in terms.items():
            weight = getattr(self, name)
            weight = weight(jnp.asarray(epoch)) if callable(weight) else weight
            on = jnp.asarray(weight) != 0  # a schedule may be at 0: then nothing is added, and nothing learned
            value = weight * jnp.where(on, value, 0)
            if self.uncertainty:
                if log_variances is None:
                    raise ValueError("log_variances must be given with uncertainty=True; init() makes them")
                value = 0.5 * (jnp.exp(-log_variances[name]) * value + jnp.where(on, log_variances[name], 0))
            added[name] = value
        return added

    def unweighted(self, student: Any, labels: jax.Array, *, teacher: Any = None, where: jax.Array | None = None,
                   edges: Edges | None = None) -> dict[str, jax.Array]:
        """{term: value}; the arguments are those of a call."""
        if self.needs_teacher and teacher is None:
            named = ", ".join(name for name in self.terms if name != "supervised")
            raise ValueError(f"terms that need a teacher have a weight ({named}), but no teacher is given")
        values = {}
        for name in self.terms:
            if name == "supervised":
                values[name] = cross_entropy(student.logits, labels, label_smoothing=self.label_smoothing, where=where)
            elif name == "soft_target_kl":
                divergence = losses.soft_target_kl if labels.ndim == 1 else losses.bernoulli_kl
                values[name] = divergence(student.logits, teacher.logits, temperature=self.temperature,
                                          where=where if self.distil_rows == "train" else None,
                                          weights=self._reliability(teacher.logits, labels, where))
            elif name == "type_pair_correlation":
                values[name] = self._relation(student.hidden, teacher.hidden, edges)
            else:
                values[name] = self._attention(student, teacher, edges)
        return values

    def _reliability(self, logits: jax.Array, labels: jax.Array, where: jax.Array | None) -> jax.Array | None:
        if self.reliability == "entropy":
            return losses.entropy_reliability(logits, temperature=self.temperature, multilabel=labels.ndim == 2)
        if self.reliability == "correctness":
            if where is not None:  # the labels of other nodes are not to be seen
                labels = jnp.where(where if labels.ndim == 1 else where[:, None], labels, -1)
            return losses.correctness_reliability(logits, labels)
        return None

    def _relation(self, student: Any, teacher: Any, edges: Edges | None) -> jax.Array:
        """The relation-level term: mean over the matched layers."""
        weights, values, known = dict(self.group_weights), [], set()
        for s, t in self._matched_layers(student, teacher):
            within = self._edges_within(edges, s)
            groups = [e for e in within if e[0] != e[2]] if within is not None else list(s)
            known |= set(groups)
            values.append(losses.type_pair_correlation(s, t, variant=self.variant, edges=within,
                                                       weights={g: w for g, w in weights.items() if g in groups}))
        unknown = sorted(set(weights) - known, key=repr)
        if unknown:
            listed = sorted(known, key=repr)
            raise ValueError(f"group_weights names {unknown[0]!r}, but the matched layers have {listed}")
        return sum(values, jnp.zeros(())) / len(values)

    def _attention(self, student: Any, teacher: Any, edges: Edges | None) -> jax.Array:
        """The attention term, on the last layer with attention of each."""
        maps: list[dict] = [next((layer for layer in reversed(side.attention) if layer), {})
                            for side in (student, teacher)]
        if not maps[0] or set(maps[0]) != set(maps[1]):
            raise ValueError("attention_map_kl compares attention over the same relations, but the last layers with "
                             f"attention have {sorted(maps[0])} in the student and {sorted(maps[1])} in the teacher")
        nodes = student.logits.shape[0]
        known, receivers = edges or {}, []
        for edge_type, weights in maps[0].items():
            own = edge_type[0] == edge_type[2] and edge_type[1] == "self"
            if not own and edge_type not in known:
                raise ValueError(f"attention_map_kl needs edges[{edge_type}], got edges of {sorted(known)}")
            receivers.append(jnp.arange(weights.shape[0]) if own else known[edge_type][1])
        to = jnp.concatenate(receivers)
        s, t = (jnp.concatenate([side[edge_type] for edge_type in maps[0]]) for side in maps)
        importance = None
        if self.attention_weights == "entropy":
            importance = losses.attention_reliability(t, to, nodes)
        elif self.attention_weights == "degree":
            importance = jnp.zeros(nodes).at[to].add(1.0)
        return losses.attention_map_kl(s, t, to, nodes, heads=self.attention_heads, weights=importance)

    def _edges_within(self, edges: Edges | None, layer: dict) -> Edges | None:
        if self.variant != "edges" or edges is None:
            return None
        return {edge_type: ends for edge_type, ends in edges.items() if edge_type[0] in layer and edge_type[2] in layer}

    def _matched_layers(self, student: Any, teacher: Any) -> list[tuple[dict, dict]]:
        """[(student layer, teacher layer)], both cut to the node types they share."""
        if not len(teacher):
            raise ValueError("the teacher has no hidden embeddings for type_pair_correlation to match; a mean_teacher "
                             "has some with hidden_of=, a RandomTeacher where all its teachers have one form")
        if self.layers is None and len(student) != len(teacher):
            raise ValueError(f"student and teacher have {len(student)} and {len(teacher)} hidden layers; "
                             "name the layers to match with layers=")
        chosen = range(1, len(student) - 1) if self.layers is None else self.layers
        pairs = []
        for layer in chosen:
            if not -min(len(student), len(teacher)) <= layer < min(len(student), len(teacher)):
                raise ValueError(f"layers names hidden layer {layer}, but student and teacher have {len(student)} "
                                 f"and {len(teacher)}")
            shared = [name for name in student[layer] if name in teacher[layer]]
            if len(shared) < 2:
                raise ValueError(f"hidden layer {layer} has only the node types {shared} in student and teacher, and "
                                 "a correlation needs two; where the graph has more, match a layer further from "
                                 "the output")
            pairs.append(({name: student[layer][name] for name in shared},
                          {name: teacher[layer][name] for name in shared}))
        if not pairs:
            raise ValueError(f"a model with {len(student) - 1} layers has none between input projection and output; "
                             "match the input projection with layers=(0,)")
        return pairs
