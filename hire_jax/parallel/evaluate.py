"""The logits of many nodes by sampling, and what they score."""

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax import metrics as scores
from hire_jax.sampling import BatchSource
from hire_jax.supervised import cross_entropy


def scores_of(logits: np.ndarray, labels: np.ndarray, *, num_classes: int) -> dict[str, float]:
    """{"loss", "accuracy", "macro_f1", "micro_f1"} of logits [n, C] and labels int[n] or multi-hot [n, C]."""
    taken: tuple[jax.Array, jax.Array] = jnp.asarray(logits), jnp.asarray(labels)
    predictions = scores.predict(taken[0], multilabel=labels.ndim == 2)
    values = {"loss": cross_entropy(*taken), "accuracy": scores.accuracy(predictions, taken[1]),
              "macro_f1": scores.macro_f1(predictions, taken[1], num_classes=num_classes),
              "micro_f1": scores.micro_f1(predictions, taken[1], num_classes=num_classes)}
    return {name: float(value) for name, value in values.items()}


def labels_of(source: BatchSource) -> np.ndarray:
    """The labels of an epoch's nodes in their order, which must be the same in every epoch."""
    assert source.labels is not None
    return source.labels[source.nodes]
