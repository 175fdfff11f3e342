"""Accuracy and F1 as pure JAX functions, so that early stopping can read them inside a compiled loop.

Two label layouts, told apart by rank:

- single label: predictions and labels int [N], classes 0 .. num_classes - 1;
- multi-label: predictions and labels multi-hot [N, C], bool or 0/1 integers.

A row whose label is negative (in the multi-label layout: any negative entry) is unlabelled and never
counted; `where`, a bool [N] mask, leaves out further rows. Values are fractions in [0, 1], float32 scalars.
Where no row is left the value is 0, not nan: a nan would poison every mean over seeds, and the caller knows
its own masks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

__all__ = ["accuracy", "macro_f1", "micro_f1", "predict"]


def predict(logits: ArrayLike, multilabel: bool = False) -> jax.Array:
    """Turn logits [..., C] into predictions the metrics accept.

    Single label: the class of the largest logit (on a tie the first), int32 [...]. Multi-label: logit > 0,
    that is probability > 1/2 under a sigmoid, bool [..., C]. Raises ValueError for a scalar.
    """
    logits = jnp.asarray(logits)
    if logits.ndim == 0:
        raise ValueError("logits: expected [..., classes], got a scalar")
    return logits > 0 if multilabel else jnp.argmax(logits, axis=-1).astype(jnp.int32)


def accuracy(predictions: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """Fraction of counted rows predicted right: mean_i [prediction_i == label_i].

    Multi-label rows are right only when all C entries are (subset accuracy), as in scikit-learn.
    Shapes, masks and the value for no rows: see the module. Raises ValueError for shapes or dtypes that do
    not fit.
    """
    predictions, labels, counted = _checked(predictions, labels, where)
    right = predictions == labels
    if right.ndim == 2:
        right = right.all(axis=-1)
    return _ratio(jnp.sum(right & counted), jnp.sum(counted))


def macro_f1(
    predictions: ArrayLike, labels: ArrayLike, *, num_classes: int, where: ArrayLike | None = None
) -> jax.Array:
    """Mean over classes of F1_c = 2 TP_c / (2 TP_c + FP_c + FN_c), equal to scikit-learn's "macro".

    Single label: the mean is over the classes that occur in the counted labels or predictions; a class in
    neither is left out. Multi-label: over all C columns; a column with neither a positive label nor a
    positive prediction counts as 0. `num_classes` is static under jit. Raises ValueError for shapes or dtypes
    that do not fit, and, where values can be read (not traced), for a label or prediction >= num_classes.
    """
    true_positive, predicted, actual = _counts(predictions, labels, num_classes, where)
    f1 = _ratio(2 * true_positive, predicted + actual)
    if jnp.ndim(labels) == 2:
        return jnp.mean(f1)
    return _ratio(jnp.sum(f1), jnp.sum(predicted + actual > 0))


def micro_f1(
    predictions: ArrayLike, labels: ArrayLike, *, num_classes: int, where: ArrayLike | None = None
) -> jax.Array:
    """F1 of the pooled counts, 2 sum TP / (2 sum TP + sum FP + sum FN), equal to scikit-learn's "micro".

    For single labels every wrong row is one false positive and one false negative, so this equals `accuracy`
    (a prediction that is no class at all, such as -1, is a false negative only).
    Multi-label data without any positive label or prediction gives 0. Raises as `macro_f1` does.
    """
    true_positive, predicted, actual = _counts(predictions, labels, num_classes, where)
    return _ratio(2 * jnp.sum(true_positive), jnp.sum(predicted + actual))


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator in float32, 0 where the denominator is 0. Counts stay integers until here."""
    return numerator.astype(jnp.float32) / jnp.maximum(denominator, 1).astype(jnp.float32)


def _counts(
    predictions: ArrayLike, labels: ArrayLike, num_classes: int, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """True positives, positive predictions and positive labels per class, int32 [C], over counted rows."""
    predictions, labels, counted = _checked(predictions, labels, where)
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise ValueError(f"labels: expected num_classes={num_classes} columns, got shape {labels.shape}")
        chosen, true = predictions & counted[:, None], labels & counted[:, None]
        both = jnp.sum(chosen & true, axis=0, dtype=jnp.int32)
        return both, jnp.sum(chosen, axis=0, dtype=jnp.int32), jnp.sum(true, axis=0, dtype=jnp.int32)
    for name, classes in (("predictions", predictions), ("labels", labels)):
        # Read through numpy: a jnp operation would be staged under jit, even for a constant.
        if not isinstance(classes, jax.core.Tracer) and classes.is_fully_addressable and classes.size:
            if (largest := int(np.max(np.asarray(classes)))) >= num_classes:
                raise ValueError(f"{name}: expected classes below num_classes={num_classes}, got {largest}")

    def count(classes: jax.Array, rows: jax.Array) -> jax.Array:
        # Rows that do not count go to one class too many, cut off below: O(N + C) memory, no one-hot [N, C].
        # A prediction outside the classes (an abstention of -1) goes there too: it misses its label only.
        inside = rows & (classes >= 0) & (classes < num_classes)
        bins = jnp.where(inside, classes, num_classes)
        return jnp.zeros(num_classes + 1, jnp.int32).at[bins].add(1)[:num_classes]

    hits = count(labels, counted & (predictions == labels))
    return hits, count(predictions, counted), count(labels, counted)


def _checked(
    predictions: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Predictions, labels (bool in the multi-label layout) and the bool [N] mask of rows that count."""
    predictions, labels = jnp.asarray(predictions), jnp.asarray(labels)
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels: expected [N] or multi-hot [N, C], got shape {labels.shape}")
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions: expected the labels' shape {labels.shape}, got {predictions.shape}")
    for name, array in (("predictions", predictions), ("labels", labels)):
        integral = jnp.issubdtype(array.dtype, jnp.integer)
        if not integral and not (labels.ndim == 2 and array.dtype == bool):
            kind = "integers" if labels.ndim == 1 else "integers or bools"
            raise ValueError(f"{name}: expected {kind}, got {array.dtype} (predict() makes them of logits)")
    if labels.ndim == 2:
        counted = (labels >= 0).all(axis=-1)
        predictions, labels = predictions > 0, labels > 0
    else:
        predictions, labels = predictions.astype(jnp.int32), labels.astype(jnp.int32)
        counted = labels >= 0
    if where is not None:
        where = jnp.asarray(where)
        if where.dtype != bool or where.shape != counted.shape:
            raise ValueError(f"where: expected bool {counted.shape}, got {where.dtype} {where.shape}")
        counted = counted & where
    return predictions, labels, counted
