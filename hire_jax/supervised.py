"""The loss of labels."""

import jax
import jax.numpy as jnp
import optax


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
