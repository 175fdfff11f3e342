"""How one sparse product runs: on a CPU, elsewhere, and under `jax.vmap`.

On a CPU the product reaches jaxlib's threaded CSR kernel, which vanishes under `jax.vmap`. So the batching is given
here: a mapped axis becomes either wider features or a block-diagonal pattern, never a loop unless int32 cannot
count its entries. On every other platform the same product is a sorted `segment_sum`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCSR

from hire_jax.sparse.csr import INDEX_LIMIT

Array = jax.Array

# Under vmap a narrow operand is folded into one wider row: the pattern is then read once for the whole batch.
# Wider operands become a block-diagonal product, which needs no transposition. docs/performance.md has the
# measurement that set the bound.
_FOLD_BELOW = 32


@jax.custom_batching.custom_vmap
def product(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    """[E], [E], [n + 1], [E] or [E, H], [m, d] or [m, H, d] -> [n, d] or [n, H, d], by the fastest means."""
    if cols.shape[0] == 0 or x.size == 0:
        return jnp.zeros((indptr.shape[0] - 1, *x.shape[1:]), x.dtype)
    if weights.ndim == 2:  # the kernel knows no heads, and one product a head costs more than the plain form
        return _segment_form(rows, cols, indptr, weights, x)
    return jax.lax.platform_dependent(rows, cols, indptr, weights, x, cpu=_csr_kernel, default=_segment_form)


def _csr_kernel(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    return BCSR((weights, cols, indptr), shape=(indptr.shape[0] - 1, x.shape[0])) @ x


def _segment_form(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    # Rows are gathered flat, heads and all: one contiguous copy an entry.
    flat = flatten_after(1, x)
    scale = jnp.repeat(weights, x.shape[-1], axis=1) if weights.ndim == 2 else weights[:, None]
    messages = scale * take(flat, cols)
    y = jax.ops.segment_sum(messages, rows, indptr.shape[0] - 1, indices_are_sorted=True)
    return y.reshape(indptr.shape[0] - 1, *x.shape[1:])


@product.def_vmap
def _product_batched(axis_size: int, in_batched: Sequence[bool], rows: Array, cols: Array, indptr: Array,
                     weights: Array, x: Array) -> tuple[Array, bool]:
    num_rows, num_entries = indptr.shape[-1] - 1, cols.shape[-1]
    num_cols, trailing = x.shape[1 if in_batched[4] else 0], x.shape[2 if in_batched[4] else 1:]
    only_x = list(in_batched) == [False, False, False, False, True]
    if only_x and weights.ndim == 1 and trailing[0] < _FOLD_BELOW:
        folded = x.transpose(1, 0, 2).reshape(num_cols, axis_size * trailing[0])
        y = product(rows, cols, indptr, weights, folded)
        return y.reshape(num_rows, axis_size, *trailing).transpose(1, 0, 2), True
    if axis_size * max(num_rows, num_cols, num_entries) > INDEX_LIMIT:
        operands = _broadcast_batch(axis_size, in_batched, (rows, cols, indptr, weights, x))
        return jax.lax.map(lambda operand: product(*operand), operands), True

    # One block-diagonal product: the k-th problem's rows, columns and entries follow those of the one before.
    block = jnp.arange(axis_size, dtype=jnp.int32)[:, None]
    column_step = num_cols if in_batched[4] else 0  # an x that all share is read in place
    rows = (rows + num_rows * block).reshape(-1)
    cols = (cols + column_step * block).reshape(-1)
    starts = jnp.broadcast_to(indptr[..., 1:], (axis_size, num_rows)) + num_entries * block
    indptr = jnp.concatenate([jnp.zeros(1, jnp.int32), starts.reshape(-1)])
    heads = weights.shape[2 if in_batched[3] else 1:]
    weights = jnp.broadcast_to(weights, (axis_size, num_entries, *heads)).reshape(-1, *heads)
    y = product(rows, cols, indptr, weights, x.reshape(-1, *trailing))
    return y.reshape(axis_size, num_rows, *trailing), True


def _broadcast_batch(axis_size: int, in_batched: Sequence[bool], operands: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
                 for x, batched in zip(operands, in_batched, strict=True))


def flatten_after(axes: int, x: Array) -> Array:
    """x with all axes after the first `axes` made one; -1 would not do where a type has no nodes."""
    return x.reshape(*x.shape[:axes], math.prod(x.shape[axes:]))


def take(x: Array, index: Array) -> Array:
    """x[index] for indices checked when the pattern was built."""
    return jnp.asarray(x).at[index].get(mode="promise_in_bounds")
