"""What a student is trained on: supervised loss plus weighted distillation terms."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hire_jax import terms
from hire_jax.identity import LATER
from hire_jax.supervised import cross_entropy
from hire_jax.terms import Edges

Weight = float | Callable[[jax.Array], Any]  # a number, or an optax schedule over epochs
TERMS = ("supervised", "soft_target_kl", "type_pair_correlation", "attention_map_kl")


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
      others: {name: weight} of losses of other papers, to compare with or to add: reverse_kl, jensen_shannon, dist,
        logit_mse on logits; attention_transfer, linear_cka, rkd_distance, similarity_preserving on the target's rows
        that the classifier reads; typed_local_structure and class_prototype_correlation on the layers of the
        relation-level term, the latter with the teacher's class probabilities, carried from the target along the edges.
        `losses` has each.
      temperature: T of the node-level term, and of others that have one.
      label_smoothing: of the cross-entropy.
      variant: of `losses.type_pair_correlation`: "all_pairs", "prototype" or "edges".
      layers: indices into `ModelOutput.hidden` (0 is the input projection) the relation-level term matches,
        or None for all layers between input projection and last. The last layer knows the target type only.
      distil_rows: "all" target nodes (transductive) or "train" nodes only, for the node-level term and the others
        but typed_local_structure and class_prototype_correlation, which compare nodes of every type.
      attention_heads: which heads are compared: `heads` of `losses.attention_map_kl`.
      attention_weights: weighs each node of the attention term by how sharp the teacher's attention is ("entropy":
        `losses.attention_reliability`) or by its number of edges ("degree").
      reliability: weighs each node of the node-level term by the teacher's certainty ("entropy") or by whether it
        is right on the training labels ("correctness", other nodes 1): `losses.entropy_reliability`,
        `losses.correctness_reliability`.
      group_weights: of the relation-level term, {node type: weight}, or {edge type: weight} with variant "edges".
      centred: of the relation-level term, whether rows are taken about their type's mean: `losses.
        type_pair_correlation`. Not with variant "prototype". In batches the mean is that of the batch's rows.
      hubs: "degree" weighs each node of the relation-level term by 1 / max(1, its number of edges), over all relations
        given and at either end, so that a node of many edges counts less than one of few. A relation and its reverse
        both count.
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
    others: Mapping[str, Weight] | tuple[tuple[str, Weight], ...] = dataclasses.field(default=(), metadata=LATER)
    centred: bool = dataclasses.field(default=False, metadata=LATER)
    hubs: Literal["degree"] | None = dataclasses.field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        object.__setattr__(self, "others", tuple(sorted(dict(self.others).items())))  # hashable
        for name in dict(self.others):
            if name not in terms.OTHERS:
                raise ValueError(f"others names {name!r}; it takes {', '.join(terms.OTHERS)}")
        for name in self._names:
            weight = self.weight(name)
            if not callable(weight) and not weight >= 0:
                raise ValueError(f"{name} is the weight of a term and must be >= 0, got {weight}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        for name, allowed in (("variant", ("all_pairs", "prototype", "edges")), ("distil_rows", ("all", "train")),
                              ("attention_heads", ("index", "mean", "assign")),
                              ("attention_weights", ("entropy", "degree", None)),
                              ("reliability", ("entropy", "correctness", None)), ("hubs", ("degree", None))):
            if getattr(self, name) not in allowed:
                listed = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
                raise ValueError(f"{name} must be {listed}, got {getattr(self, name)!r}")
        object.__setattr__(self, "group_weights", tuple(sorted(dict(self.group_weights).items(), key=repr)))  # hashable
        idle = {"attention_weights": self.attention_weights is not None and "attention_map_kl" not in self.terms,
                "reliability": self.reliability is not None and "soft_target_kl" not in self.terms,
                "group_weights": bool(self.group_weights) and "type_pair_correlation" not in self.terms,
                "centred": self.centred and "type_pair_correlation" not in self.terms,
                "hubs": self.hubs is not None and "type_pair_correlation" not in self.terms,
                "pcgrad": self.pcgrad and not self.terms}
        for name in (name for name, nothing in idle.items() if nothing):
            raise ValueError(f"{name} is given, but no term that it acts on has a weight")
        if self.centred and self.variant == "prototype":
            raise ValueError("centred is given with variant 'prototype', which compares the means that it takes away")
        for group, weight in self.group_weights:
            if not weight >= 0:
                raise ValueError(f"group_weights of {group!r} must be >= 0, got {weight}")

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that are computed."""
        weights = {name: self.weight(name) for name in self._names}
        return tuple(name for name, weight in weights.items() if callable(weight) or weight > 0)

    @property
    def _names(self) -> tuple[str, ...]:
        return (*TERMS, *dict(self.others))

    def weight(self, term: str) -> Weight:
        """The weight of a term: a number, or a function of the epoch."""
        return dict(self.others)[term] if term not in TERMS else getattr(self, term)

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
          edges: {edge type: (senders, receivers)}, needed by variant "edges", `hubs`, attention_map_kl,
            typed_local_structure and class_prototype_correlation; the key (target, "self", target) stands for a node's
            attention to itself and need not be there.
          epoch: from 0, for weights that are schedules.
          log_variances: of `init()`, or what became of them; needed with `uncertainty`.

        Returns:
          scalar, {"supervised" | "soft_target_kl" | "type_pair_correlation" | "attention_map_kl" | of others: scalar}.

        Raises:
          ValueError: no teacher for a term that needs one, no layer two node types of both can be matched at, a
            group weight for a type or relation that no matched layer has, attention over other relations or none, edges
            that a term needs and are not given.
        """
        values = self.unweighted(student, labels, teacher=teacher, where=where, edges=edges)
        weighted = self.weighted(values, epoch=epoch, log_variances=log_variances)
        return sum(weighted.values(), jnp.zeros(())), values

    def weighted(self, values: Mapping[str, jax.Array], *, epoch: jax.Array | int = 0,
                 log_variances: Mapping[str, jax.Array] | None = None) -> dict[str, jax.Array]:
        """What each term adds to the total: its weight at `epoch` times its value, learned weights included."""
        added = {}
        for name, value in values.items():
            weight = self.weight(name)
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
                   edges: Edges | None = None, only: Collection[str] | None = None) -> dict[str, jax.Array]:
        """{term: value}; the arguments are those of a call, and `only` some of `terms`, where not all are wanted."""
        wanted = [name for name in self.terms if only is None or name in only]
        if teacher is None and (needing := ", ".join(name for name in wanted if name != "supervised")):
            raise ValueError(f"terms that need a teacher have a weight ({needing}), but no teacher is given")
        values, rows = {}, where if self.distil_rows == "train" else None
        for name in wanted:
            if name == "supervised":
                values[name] = cross_entropy(student.logits, labels, label_smoothing=self.label_smoothing, where=where)
            elif name == "soft_target_kl":
                values[name] = terms.node_level(student, teacher, labels, temperature=self.temperature, where=rows,
                                                reliability=self.reliability, known=where)
            elif name == "type_pair_correlation":
                values[name] = terms.relation_level(student, teacher, layers=self.layers, variant=self.variant,
                                                    edges=edges, group_weights=dict(self.group_weights),
                                                    centred=self.centred, hubs=self.hubs)
            elif name == "attention_map_kl":
                values[name] = terms.attention_maps(student, teacher, edges=edges, heads=self.attention_heads,
                                                    weighing=self.attention_weights)
            else:
                values[name] = terms.other(name, student, teacher, labels, temperature=self.temperature, where=rows,
                                           layers=self.layers, edges=edges)
        return values
