"""How far each row of a teacher is to be trusted: for `weights=` of the losses."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import xlogy
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_rows, check_temperature, real_array
from hire_jax.losses._divergence import kl_last_axis
from hire_jax.losses._edges import checked_receivers
from hire_jax.losses._reduce import working_dtype


def entropy_reliability(
    teacher_logits: ArrayLike, *, temperature: ArrayLike = 1.0, multilabel: bool = False
) -> jax.Array:
    """1 where the teacher is sure of one class, 0 where it takes all for equally likely.

    With `p = softmax(z / T)` over C classes::

        1 + sum_c p_vc log p_vc / log C

    Where a node has several labels, the mean over classes of the same with the two answers (p, 1 - p),
    `p = sigmoid(z / T)`, and log 2.

    Cost: O(N C) time and memory.
    Use: as `weights` of a loss, where a teacher's unsure rows are to teach less and few rows have labels.
    Pitfalls: being sure is not being right: a teacher that is sure of wrong classes is trusted too;
      `correctness_reliability` looks at the labels, where there are any. A higher `temperature` brings all rows nearer
      to 0.

    Args:
      teacher_logits: [N, C], any real dtype, C of at least 2.
      temperature: T > 0, without unit; a number or a scalar array.
      multilabel: whether each class is a question of its own.

    Returns:
      [N] from 0 to 1, float32 (float64 where the input is). A constant: no gradient flows into it.

    Raises:
      ValueError: logits that are not [N, C] with C of at least 2, a temperature that is not a positive scalar.

    References:
      Kwon, Na, Lee, Kim: Adaptive Knowledge Distillation Based on Entropy, ICASSP 2020, weighs several teachers so;
        no arXiv id found.
    """
    logits = _checked(teacher_logits)
    check_temperature(temperature)
    if multilabel:
        two = jnp.stack([jnp.minimum(logits, 0), -jnp.maximum(logits, 0)], axis=-1).reshape(-1, 2)
        return jnp.mean(entropy_reliability(two, temperature=temperature).reshape(logits.shape), axis=-1)
    # 1 - H / log C is the divergence from the uniform distribution over log C: no subtraction of near numbers.
    divergence = kl_last_axis(jnp.zeros_like(logits), logits, jnp.asarray(temperature, logits.dtype))
    return jnp.minimum(divergence / math.log(logits.shape[1]), 1)


def correctness_reliability(
    teacher_logits: ArrayLike, labels: ArrayLike, *, wrong: ArrayLike = 0.0, unlabelled: ArrayLike = 1.0
) -> jax.Array:
    """1 where the teacher's most probable class is the label, `wrong` where it is not.

    For several labels a node, [N, C] of 0 and 1, the share of classes whose logit has the right sign takes the place
    of right or wrong. With r_v in [0, 1] how right the teacher is at node v::

        wrong + (1 - wrong) r_v;     unlabelled  where v has no label

    Cost: O(N C) time and memory.
    Use: as `weights` of a loss, to keep a teacher's known errors from the student.
    Pitfalls: only nodes whose labels may be known are to have one in `labels`: those of validation and test nodes are
      to be negative, or the student sees them through its weights.

    Args:
      teacher_logits: [N, C], any real dtype, C of at least 2.
      labels: int [N], or [N, C] of 0 and 1 for several labels a node. Negative means unlabelled.
      wrong: reliability of a wrong row, 0 or more.
      unlabelled: reliability of a row without a label, 0 or more.

    Returns:
      [N], float32 (float64 where the logits are). A constant.

    Raises:
      ValueError: logits that are not [N, C] with C of at least 2, labels that are neither int [N] nor int [N, C], a
        reliability below 0.

    References:
      Our reading of reliability by correctness; as a filter of teachers' errors it is old; no arXiv id, there being
        no one paper.
    """
    logits = _checked(teacher_logits)
    known = jnp.asarray(labels)
    if known.shape not in (logits.shape[:1], logits.shape) or not jnp.issubdtype(known.dtype, jnp.integer):
        raise ValueError(
            f"labels: expected int {logits.shape[:1]} or {logits.shape}, got {known.dtype} {known.shape}"
        )
    for name, value in (("wrong", wrong), ("unlabelled", unlabelled)):
        if isinstance(value, int | float) and not value >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
    if known.ndim == 1:
        right, labelled = (jnp.argmax(logits, axis=-1) == known).astype(logits.dtype), known >= 0
    else:
        right = jnp.mean((logits > 0) == (known > 0), axis=-1, dtype=logits.dtype)
        labelled = jnp.all(known >= 0, axis=-1)
    return jnp.where(labelled, jnp.asarray(wrong) + (1 - jnp.asarray(wrong)) * right, unlabelled).astype(logits.dtype)


def attention_reliability(teacher_attention: ArrayLike, receivers: ArrayLike, num_receivers: int) -> jax.Array:
    """1 where the teacher attends to one neighbour, 0 where it attends to all alike.

    With a_e the attention weights of the d_i edges into node i, the mean over heads of::

        1 + sum_{e into i} a_e log a_e / log d_i

    and 0 where d_i < 2: such a node has no choice.

    Cost: O(N + E H) time and memory.
    Use: as `weights` of `attention_map_kl`, where attention that says nothing is not to be taught.
    Pitfalls: a teacher that has not learned to choose gives weights near 0 everywhere; only their proportions count
      in a mean.

    Args:
      teacher_attention: [E, H], weights that sum to 1 over the edges into a node.
      receivers: int [E], each edge's destination, in any order.
      num_receivers: number of destinations, a Python integer.

    Returns:
      [num_receivers] from 0 to 1, float32 (float64 where the input is). A constant: no gradient flows into it. An
      index outside raises where indices are known, and makes all NaN under `jax.jit`.

    Raises:
      ValueError: weights that are not [E, H], num_receivers that is no number of rows, receivers that are not int [E]
        within [0, num_receivers).

    References:
      Our reading of weighting by the entropy of a teacher's answer, applied to attention; no arXiv id, there being no
        one paper.
    """
    attention = lax.stop_gradient(real_array("teacher_attention", teacher_attention))
    check_rows("[E, H]", teacher_attention=attention)
    attention = attention.astype(working_dtype(attention))
    index, size = checked_receivers(receivers, num_receivers, teacher_attention=attention)
    degree = jax.ops.segment_sum(jnp.ones(len(index), attention.dtype), index, size)
    information = jax.ops.segment_sum(jnp.sum(xlogy(attention, attention), axis=1), index, size)
    log_degree = jnp.log(jnp.maximum(degree, 2))
    weights = jnp.where(degree < 2, 0, jnp.clip(1 + information / (attention.shape[1] * log_degree), 0, 1))
    return jnp.where(jnp.any((index < 0) | (index >= size)), jnp.nan, weights)


def _checked(teacher_logits: ArrayLike) -> jax.Array:
    logits = lax.stop_gradient(real_array("teacher_logits", teacher_logits))
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"teacher_logits: expected shape [N, C] with C of at least 2, got {logits.shape}")
    return logits.astype(working_dtype(logits))
