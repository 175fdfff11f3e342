"""What a student is trained on: supervised loss plus weighted distillation terms."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from hire_jax import losses

EdgeType = tuple[str, str, str]
Edges = Mapping[EdgeType, tuple[jax.Array, jax.Array]]


def cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0,
                  where: jax.Array | None = None) -> jax.Array:
    """Supervised loss of labelled rows: mean over rows, sum over classes, in nats.

    Single-label (labels int[N]): -sum_c y_c log softmax(z)_c with y = (1 - e) onehot + e / C.
    Multi-label (labels [N, C] of 0 and 1): binary cross-entropy of sigmoid(z) against (1 - e) y + e / 2.

    Args:
      logits: float[N, C].
      labels: int[N] or int[N, C]; negative means unlabelled, such rows are left out.
      label_smoothing: e in [0, 1).
      where: bool[N], rows to count. No row at all gives 0.

    Raises:
      ValueError: labels that fit neither form.
    """
    if labels.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(f"labels must be {logits.shape[:1]} or {logits.shape} to fit the logits, got {labels.shape}")
    labelled = labels >= 0 if labels.ndim == 1 else jnp.all(labels >= 0, axis=1)
    rows = labelled if where is None else labelled & where
    logits = jnp.where(rows[:, None], logits, 0)  # what other rows hold, NaN included, has no influence
    known = jnp.maximum(labels, 0)
    if labels.ndim == 1:
        targets = optax.smooth_labels(jax.nn.one_hot(known, logits.shape[1]), label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets)
    else:
        targets = (1 - label_smoothing) * known + label_smoothing / 2
        loss = optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=1)
    return jnp.sum(jnp.where(rows, loss, 0.0)) / jnp.maximum(jnp.sum(rows), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """L = supervised CE + soft_target_kl L_node + type_pair_correlation L_relation (HIRE, arXiv 2207.11887).

    Our reading of the paper, after its abstract's description: L_node is the softened Kullback-Leibler
    divergence of the logits over all target nodes (per-class Bernoulli where labels are multi-label),
    L_relation the difference of type-pair correlations of hidden embeddings, averaged over the layers.
    Terms of weight zero are not computed.

    Args:
      supervised: weight of the cross-entropy on training labels.
      soft_target_kl: weight alpha of the node-level term.
      type_pair_correlation: weight beta of the relation-level term.
      temperature: T of the node-level term.
      label_smoothing: of the cross-entropy.
      variant: of `losses.type_pair_correlation`: "all_pairs", "prototype" or "edges".
      layers: indices into `ModelOutput.hidden` (0 is the input projection) the relation-level term matches,
        or None for all layers between input projection and last. The last layer knows the target type only.
      distil_rows: "all" target nodes (transductive) or "train" nodes only, for the node-level term.
    """

    supervised: float = 1.0
    soft_target_kl: float = 0.0
    type_pair_correlation: float = 0.0
    temperature: float = 1.0
    label_smoothing: float = 0.0
    variant: Literal["all_pairs", "prototype", "edges"] = "all_pairs"
    layers: tuple[int, ...] | None = None
    distil_rows: Literal["all", "train"] = "all"

    def __post_init__(self) -> None:
        for name in ("supervised", "soft_target_kl", "type_pair_correlation"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is the weight of a term and must be >= 0, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.variant not in ("all_pairs", "prototype", "edges"):
            raise ValueError(f"variant must be 'all_pairs', 'prototype' or 'edges', got {self.variant!r}")
        if self.distil_rows not in ("all", "train"):
            raise ValueError(f"distil_rows must be 'all' or 'train', got {self.distil_rows!r}")

    @property
    def needs_teacher(self) -> bool:
        """Whether any distillation term has a weight."""
        return self.soft_target_kl > 0 or self.type_pair_correlation > 0

    def __call__(self, student: Any, labels: jax.Array, *, teacher: Any = None, where: jax.Array | None = None,
                 edges: Edges | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The total and its unweighted terms.

        Args:
          student: a `ModelOutput`, or anything with its `logits` [N, C] and `hidden`.
          labels: int[N], or int[N, C] for multi-label; negative is unlabelled.
          teacher: the same of the teacher; its arrays are constants. Needed when a distillation term is on.
          where: bool[N], the training nodes.
          edges: {edge type: (senders, receivers)}, needed by variant "edges".

        Returns:
          scalar, {"supervised" | "soft_target_kl" | "type_pair_correlation": scalar}.

        Raises:
          ValueError: no teacher for a term that needs one, or no layer two node types of both can be matched at.
        """
        if self.needs_teacher and teacher is None:
            raise ValueError("soft_target_kl or type_pair_correlation has a weight, but no teacher is given")
        terms = {}
        if self.supervised > 0:
            terms["supervised"] = cross_entropy(student.logits, labels, label_smoothing=self.label_smoothing,
                                                where=where)
        if self.soft_target_kl > 0:
            divergence = losses.soft_target_kl if labels.ndim == 1 else losses.bernoulli_kl
            terms["soft_target_kl"] = divergence(student.logits, teacher.logits, temperature=self.temperature,
                                                 where=where if self.distil_rows == "train" else None)
        if self.type_pair_correlation > 0:
            values = [losses.type_pair_correlation(s, t, variant=self.variant, edges=self._edges_within(edges, s))
                      for s, t in self._matched_layers(student.hidden, teacher.hidden)]
            terms["type_pair_correlation"] = sum(values, jnp.zeros(())) / len(values)
        total = sum((getattr(self, name) * value for name, value in terms.items()), jnp.zeros(()))
        return total, terms

    def _edges_within(self, edges: Edges | None, layer: dict) -> Edges | None:
        if self.variant != "edges" or edges is None:
            return None
        return {edge_type: ends for edge_type, ends in edges.items() if edge_type[0] in layer and edge_type[2] in layer}

    def _matched_layers(self, student: Any, teacher: Any) -> list[tuple[dict, dict]]:
        """[(student layer, teacher layer)], both cut to the node types they share."""
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
