"""Losses between attention maps, weights of the edges into each node."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.special import xlogy
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_rows, check_weights, check_where, real_array
from hire_jax.losses._edges import checked_receivers, locate
from hire_jax.losses._reduce import HIGHEST, not_folded, working_dtype, zero_rows


def attention_map_kl(
    student_attention: ArrayLike,
    teacher_attention: ArrayLike,
    receivers: ArrayLike,
    num_receivers: int,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    heads: Literal["index", "mean", "assign"] = "index",
) -> jax.Array:
    """The student's attention over each node's incoming edges follows the teacher's.

    With a_e the attention weight of edge e, which sums to 1 over the edges into a node, per head h::

        mean_i  mean_h  sum_{e into i}  a_eh^t (log a_eh^t - log a_eh^s)

    with the mean over receivers i that have an edge, weighted by w_i where `weights` are given. By `heads`:

      index   head h is compared with head h; with different numbers of heads as "mean"
      mean    each side's weights are first averaged over its heads
      assign  each head of the side with fewer is compared with one of the other, no two with the same, so that the
              loss is least; the mean is over these pairs

    This is our reading of GKEDM's attention distillation.

    Cost: O(N + E (H_s + H_t)) time and memory, N = `num_receivers`; "assign" takes O(E H_s H_t) time.
    Use: where both are attention models on the same edges, and the teacher's choice of neighbours is to be kept.
    Pitfalls: that weights sum to 1 over the edges into a node is not looked at; scores before the softmax give a number
      without meaning. Heads have no order: "index" compares what two trainings happened to number alike. Maps that
      agree leave the values free, which can undo them: `GKEDMLayer(value_weighted=True)` gives maps in which values
      count.

    Args:
      student_attention: [E, H_s] weights of at least 0, any real dtype. Half precision is raised to float32. Before
        the logarithm they are raised to the smallest normal number, below which there is no gradient.
      teacher_attention: [E, H_t]. A constant: no gradient flows into it. A weight of 0 adds 0, whatever the
        student's.
      receivers: int [E], each edge's destination, in any order.
      num_receivers: number of destinations, a Python integer.
      where: bool [num_receivers], the destinations that count; all where None. What edges into others hold, NaN
        included, has no influence.
      weights: float [num_receivers] of at least 0, each destination's weight in the mean; all 1 where None. Constants,
        such as `attention_reliability` gives.
      heads: "index", "mean" or "assign".

    Returns:
      A scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is left, and
      exactly 0 for equal weights. Not negative but for rounding, given weights that sum to 1. An index outside
      [0, num_receivers) raises where indices are known, and makes the loss NaN under `jax.jit`.

    Raises:
      ValueError: weights that are not [E, H] of one E, receivers that are not int [E] within [0, num_receivers), a
        number of receivers that is no integer of at least 0, a mask that is not bool [num_receivers],
        weights that are not [num_receivers] or below 0, another `heads`.

    References:
      Wu: Attention is all you need for boosting graph convolutional neural network, 2024, which names it GKEDM.
        arXiv:2403.15419
    """
    student = real_array("student_attention", student_attention)
    teacher = lax.stop_gradient(real_array("teacher_attention", teacher_attention))
    check_rows("[E, H]", student_attention=student, teacher_attention=teacher)
    index, size = checked_receivers(receivers, num_receivers, student_attention=student)
    if heads not in ("index", "mean", "assign"):
        raise ValueError(f"heads: expected 'index', 'mean' or 'assign', got {heads!r}")
    mask, importance = check_weights(weights, check_where(where, size), size)
    return _attention_map_kl(student, teacher, index, mask, importance, size=size, heads=heads)


@partial(jax.jit, static_argnames=("size", "heads"))
def _attention_map_kl(
    student: jax.Array, teacher: jax.Array, receivers: jax.Array, where: jax.Array | None,
    weights: jax.Array | None, *, size: int, heads: str
) -> jax.Array:
    dtype = working_dtype(student, teacher)
    if not (len(receivers) and size):  # an edge into none of 0 receivers is outside
        return jnp.full((), jnp.nan if len(receivers) else 0, dtype)
    to, counted, outside = locate(receivers, where, size)
    q, p = (zero_rows(side, counted).astype(dtype) for side in (student, not_folded(teacher)))
    if heads == "mean" or (heads == "index" and q.shape != p.shape):
        q, p = (jnp.mean(side, axis=-1, keepdims=True) for side in (q, p))
    shares = _shares(to, counted, weights, size, dtype)
    if heads == "assign":
        of_teacher, of_student = optax.assignment.hungarian_algorithm(_all_divergences(shares, q, p))
        q, p = q[:, of_student], p[:, of_teacher]
    value = jnp.mean(jax.vmap(partial(_divergence, shares), (1, 1))(q, p))
    return jnp.where(jnp.any(outside), jnp.nan, value)


def _shares(
    to: jax.Array, counted: jax.Array, weights: jax.Array | None, size: int, dtype: np.dtype
) -> jax.Array:
    """What each edge's term adds to the mean over receivers that have an edge, [E]; 0 for edges that do not count."""
    linked = jax.ops.segment_max(counted.astype(jnp.int32), to, size) > 0
    share = linked.astype(dtype) if weights is None else jnp.where(linked, weights.astype(dtype), 0)
    total = jnp.sum(share)
    return (share / jnp.where(total == 0, 1, total))[to] * counted


def _divergence(shares: jax.Array, q: jax.Array, p: jax.Array) -> jax.Array:
    """sum_e share_e p_e (log p_e - log q_e) of one head of either side, [E]."""
    tiny = jnp.finfo(p.dtype).tiny
    support = ~(p < tiny)  # NaN is to be seen
    log_q = jnp.log(jnp.maximum(jnp.where(support, q, 1), tiny))
    return jnp.sum(jnp.where(support, shares * p * (jnp.log(jnp.where(support, p, 1)) - log_q), 0))


def _all_divergences(shares: jax.Array, q: jax.Array, p: jax.Array) -> jax.Array:
    """The same of all pairs of heads by one product, [H_t, H_s], a constant: good enough to choose by."""
    q, p = lax.stop_gradient((q, p))
    shared = shares[:, None] * p
    log_q = jnp.log(jnp.maximum(q, jnp.finfo(p.dtype).tiny))
    return jnp.sum(shares[:, None] * xlogy(p, p), axis=0)[:, None] - jnp.matmul(shared.T, log_q, precision=HIGHEST)
