"""Every node of one type against every node of another, without ever forming that matrix.

For unit rows A_t, A_s of type a and B_t, B_s of type b (teacher and student) the loss needs ||M||² and its
gradient for M = A_t B_t' - A_s B_s'. Expanding the square into teacher and student Gram matrices subtracts
numbers near each other, and no digit is left once the two sides are alike. With half sum and difference,
S = (A_t + A_s) / 2 and D = A_t - A_s, there is

    M = D_a S_b' + S_a D_b'  (+ R_a R_b'  or  - R_a R_b'),

where R holds the columns by which the wider side, teacher (+) or student (-), exceeds the narrower one. So
with W = [S, D, R], of width d_t + d_s, M = W_a J W_b' for one fixed signed permutation J, and

    ||M||² = <G_a, J G_b J>,   G = W'W;        d||M||²/dA_s = -2 W_a J G_b E,   B_s = W_b E.

Near sides then give small factors instead of a small difference, and equal ones nothing but rounding's
square. One Gram matrix a type serves all its pairs. Both passes over the rows run in blocks that recompute
unit rows, so that nothing of an embedding's size is kept but the gradient. Where row u weighs w_u, M is weighed by
sqrt(w_u w_v), and it is G = W' diag(w) W and dL/dW = diag(w) W X.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from hire_jax.losses._checks import Masks, Rows
from hire_jax.losses._reduce import (
    HIGHEST,
    not_folded,
    unit_rows,
    unit_rows_and_inverse_norms,
    working_dtype,
    zero_rows,
)
from hire_jax.losses._row_weights import RowWeights, total_weight, weighted_rows

# Rows normalised and multiplied at a time. On a CPU 4096 to 16384 rows of width 64 differ little and longer
# blocks leave the cache; on a GPU shorter ones would mean more launches.
BLOCK_ROWS = 8192


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def all_pairs(
    student: Rows,
    teacher: Rows,
    where: Masks,
    importance: jax.Array,
    row_weights: RowWeights,
    block_rows: int = BLOCK_ROWS,
) -> jax.Array:
    """Mean over pairs of types, weighted by both their `importance`, of the mean squared difference of all cosines.

    `student` {type: [N, d_s]}, `teacher` {type: [N, d_t]}, `where` {type: bool [N] or None}, `importance` [types] and
    `row_weights` {type: [N], or None for 1 everywhere} come checked. One type alone is paired with itself. The
    derivative is with respect to `student` only.
    """
    return _value_and_weights(student, teacher, where, importance, row_weights, block_rows=block_rows)[0]


def _all_pairs_jvp(block_rows: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    student, teacher, where, importance, row_weights = primals
    value, weights = _value_and_weights(student, teacher, where, importance, row_weights, block_rows=block_rows)
    change = jnp.zeros_like(value)
    for weight, (t, tangent) in zip(weights, tangents[0].items(), strict=True):
        if not isinstance(tangent, SymbolicZero):
            gradient = _row_gradient(student[t], teacher[t], where[t], row_weights[t], weight, block_rows=block_rows)
            change += jnp.sum(gradient * tangent, dtype=value.dtype)
    return value, change


all_pairs.defjvp(_all_pairs_jvp, symbolic_zeros=True)


@partial(jax.jit, static_argnames="block_rows")  # one compilation, also where the caller runs op by op
def _value_and_weights(
    student: Rows, teacher: Rows, where: Masks, importance: jax.Array, row_weights: RowWeights, *, block_rows: int
) -> tuple[jax.Array, jax.Array]:
    """The loss, and for each type the matrix X [types, w, w] of dL/dW = W X."""
    dtype = working_dtype(*student.values(), *teacher.values())
    counts = jnp.stack([total_weight(len(rows), where[t], row_weights[t], dtype) for t, rows in student.items()])
    counted = jnp.maximum(counts, 1)[:, None, None]  # of weights the largest is 1: their sum is no less
    sums = [_gram(student[t], teacher[t], where[t], row_weights[t], dtype, block_rows) for t in student]
    grams = jnp.stack(sums) / counted

    present = counts > 0
    pairs = present[:, None] & present
    if len(student) > 1:
        pairs &= ~jnp.eye(len(student), dtype=bool)
    shares = jnp.where(pairs, jnp.outer(importance, importance), 0).astype(dtype)
    shares += shares.T * jnp.eye(len(student), dtype=dtype)  # a pair is met from both its ends
    total = 0.5 * jnp.sum(shares)
    shares = shares / jnp.where(total == 0, 1, total)

    d_s, d_t = (next(iter(side.values())).shape[1] for side in (student, teacher))
    k, w = min(d_s, d_t), d_s + d_t
    order = np.concatenate([np.arange(k, 2 * k), np.arange(k), np.arange(2 * k, w)])
    sign = np.where((np.arange(w) >= 2 * k) & (d_s > d_t), -1, 1)
    flipped = grams[:, order][:, :, order] * np.outer(sign, sign).astype(dtype)  # J G J
    partners = jnp.einsum("ab,bij->aij", shares, flipped, precision=HIGHEST)

    # Rounding can leave the last digits of a sum of squares negative.
    return jnp.maximum(0.5 * jnp.sum(grams * partners), 0), 2 * partners / counted


def _gram(
    student: jax.Array,
    teacher: jax.Array,
    where: jax.Array | None,
    weights: jax.Array | None,
    dtype: np.dtype,
    block_rows: int,
) -> jax.Array:
    """G = W' diag(weights) W over the rows inside `where`, [w, w]."""
    width = student.shape[1] + teacher.shape[1]

    def add(start: jax.Array | int, size: int, fresh: jax.Array | None, total: jax.Array) -> jax.Array:
        s, t = (_block(side, start, size, fresh, where).astype(dtype) for side in (student, teacher))
        stack = _stack(unit_rows(s), unit_rows(not_folded(t)))
        weighted = weighted_rows(stack, _weights_of(weights, start, size))
        return total + jnp.matmul(stack.T, weighted, precision=HIGHEST)

    return _over_blocks(len(student), block_rows, add, jnp.zeros((width, width), dtype))


@partial(jax.jit, static_argnames="block_rows")
def _row_gradient(
    student: jax.Array,
    teacher: jax.Array,
    where: jax.Array | None,
    row_weights: jax.Array | None,
    weight: jax.Array,
    *,
    block_rows: int,
) -> jax.Array:
    """Gradient [N, d_s] with respect to the student's rows where dL/dW = diag(row_weights) W `weight`, [w, w]."""
    k = min(student.shape[1], teacher.shape[1])
    # The student's unit rows enter W through S (factor 1/2), D (-1) and, where it is the wider side, R (1).
    to_units = 0.5 * weight[:, :k] - weight[:, k : 2 * k]
    if student.shape[1] > teacher.shape[1]:
        to_units = jnp.concatenate([to_units, weight[:, 2 * k :]], axis=1)

    def write(start: jax.Array | int, size: int, fresh: jax.Array | None, gradient: jax.Array) -> jax.Array:
        # Rows that two blocks share are written twice with the same numbers, so `fresh` has no part here.
        s, t = (_block(side, start, size, None, where).astype(weight.dtype) for side in (student, teacher))
        units, inverse_norms = unit_rows_and_inverse_norms(s)
        slopes = jnp.matmul(_stack(units, unit_rows(not_folded(t))), to_units, precision=HIGHEST)
        along = jnp.sum(slopes * units, axis=-1, keepdims=True)  # a longer row has the same cosines
        block = weighted_rows(inverse_norms * (slopes - along * units), _weights_of(row_weights, start, size))
        return lax.dynamic_update_slice_in_dim(gradient, block.astype(gradient.dtype), start, axis=0)

    return _over_blocks(len(student), block_rows, write, jnp.zeros_like(student))


def _stack(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """W = [S, D, R] of unit rows, [rows, d_t + d_s]."""
    k = min(student.shape[1], teacher.shape[1])
    s, t = student[:, :k], teacher[:, :k]
    return jnp.concatenate([0.5 * (t + s), t - s, teacher[:, k:], student[:, k:]], axis=1)


def _block(
    rows: jax.Array, start: jax.Array | int, size: int, fresh: jax.Array | None, where: jax.Array | None
) -> jax.Array:
    """`size` rows from `start`, zero outside `where` and where not `fresh`."""
    block = lax.dynamic_slice_in_dim(rows, start, size)
    if where is not None:
        block = zero_rows(block, lax.dynamic_slice_in_dim(where, start, size))
    return zero_rows(block, fresh)


def _weights_of(weights: jax.Array | None, start: jax.Array | int, size: int) -> jax.Array | None:
    """The weights of `size` rows from `start`."""
    return None if weights is None else lax.dynamic_slice_in_dim(weights, start, size)


def _over_blocks(rows: int, block_rows: int, step: Callable[..., jax.Array], carry: jax.Array) -> jax.Array:
    """carry = step(start, size, fresh, carry) over blocks of one size, without a loop where one is enough.

    Blocks are made equal and the last is moved back to end with the last row, so that no padded copy is
    needed; `fresh` (bool [size]) is False on rows that the block before has seen.
    """
    if rows <= block_rows:
        return step(0, rows, None, carry)
    blocks = -(-rows // block_rows)
    size = -(-rows // blocks)

    def body(index: jax.Array, carry: jax.Array) -> jax.Array:
        start = jnp.minimum(index * size, rows - size)
        return step(start, size, start + jnp.arange(size) >= index * size, carry)

    return lax.fori_loop(0, blocks, body, carry)
