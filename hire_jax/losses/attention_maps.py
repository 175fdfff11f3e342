"""Losses between attention maps, weights of the edges into each node."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_rows, check_where, real_array
from hire_jax.losses._edges import checked_index, locate
from hire_jax.losses._reduce import not_folded, row_count, working_dtype, zero_rows


def attention_map_kl(
    student_attention: ArrayLike,
    teacher_attention: ArrayLike,
    receivers: ArrayLike,
    num_receivers: int,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The student's attention over each node's incoming edges follows the teacher's.

    With a_e the attention weight of edge e, which sums to 1 over the edges into a node, per head h::

        mean_i  mean_h  sum_{e into i}  a_eh^t (log a_eh^t - log a_eh^s)

    with the mean over receivers i that have an edge. Where the two have different numbers of heads, each side's
    weights are first averaged over its heads. This is our reading of GKEDM's attention distillation.

    Cost: O(N + E (H_s + H_t)) time and memory, N = `num_receivers`.
    Use: where both are attention models on the same edges, and the teacher's choice of neighbours is to be kept.
    Pitfalls: that weights sum to 1 over the edges into a node is not looked at; scores before the softmax give a number
      without meaning. With equal numbers of heads, head h is compared with head h, though heads have no order.

    Args:
      student_attention: [E, H_s] weights of at least 0, any real dtype. Half precision is raised to float32. Before
        the logarithm they are raised to the smallest normal number, below which there is no gradient.
      teacher_attention: [E, H_t]. A constant: no gradient flows into it. A weight of 0 adds 0, whatever the
        student's.
      receivers: int [E], each edge's destination, in any order.
      num_receivers: number of destinations, a Python integer.
      where: bool [num_receivers], the destinations that count; all where None. What edges into others hold, NaN
        included, has no influence.

    Returns:
      A scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is left, and
      exactly 0 for equal weights. Not negative but for rounding, given weights that sum to 1. An index outside
      [0, num_receivers) raises where indices are known, and makes the loss NaN under `jax.jit`.

    Raises:
      ValueError: weights that are not [E, H] of one E, receivers that are not int [E] within [0, num_receivers), a
        number of receivers that is no integer of at least 0, a mask that is not bool [num_receivers].

    References:
      Wu: Attention is all you need for boosting graph convolutional neural network, 2024, which names it GKEDM.
        arXiv:2403.15419
    """
    student = real_array("student_attention", student_attention)
    teacher = lax.stop_gradient(real_array("teacher_attention", teacher_attention))
    check_rows("[E, H]", student_attention=student, teacher_attention=teacher)
    try:
        size = operator.index(num_receivers)
    except TypeError:
        size = -1
    if size < 0:
        raise ValueError(f"num_receivers: expected an integer of at least 0, got {num_receivers!r}")
    index = checked_index("receivers", receivers, size)
    if len(index) != len(student):
        raise ValueError(
            f"receivers, student_attention: expected one receiver an edge, got {index.shape} and {student.shape}"
        )
    return _attention_map_kl(student, teacher, index, check_where(where, size), size=size)


@partial(jax.jit, static_argnames="size")
def _attention_map_kl(
    student: jax.Array, teacher: jax.Array, receivers: jax.Array, where: jax.Array | None, *, size: int
) -> jax.Array:
    dtype = working_dtype(student, teacher)
    if not (len(receivers) and size):  # an edge into none of 0 receivers is outside
        return jnp.full((), jnp.nan if len(receivers) else 0, dtype)
    to, counted, outside = locate(receivers, where, size)
    q, p = (zero_rows(side, counted).astype(dtype) for side in (student, not_folded(teacher)))
    if q.shape != p.shape:
        q, p = (jnp.mean(side, axis=-1, keepdims=True) for side in (q, p))
    tiny = jnp.finfo(dtype).tiny
    support = ~(p < tiny)  # NaN is to be seen
    log_q = jnp.log(jnp.maximum(jnp.where(support, q, 1), tiny))
    by_edge = jnp.mean(jnp.where(support, p * (jnp.log(jnp.where(support, p, 1)) - log_q), 0), axis=-1)
    linked = jax.ops.segment_max(counted.astype(jnp.int32), to, size) > 0
    mean = jnp.sum(by_edge) / jnp.maximum(row_count(size, linked, dtype), 1)
    return jnp.where(jnp.any(outside), jnp.nan, mean)
