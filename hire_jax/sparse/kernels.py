"""How one sparse product runs: on a CPU, elsewhere, and under `jax.vmap`.

On a CPU the product reaches jaxlib's threaded CSR kernel, which vanishes under `jax.vmap`. So the batching is given
here: a mapped axis becomes either wider features or a block-diagonal pattern, never a loop unless int32 cannot
count its entries. On every other platform the same product is a sorted `segment_sum`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR

from hire_jax.sparse.csr import INDEX_LIMIT

Array = jax.Array

# Under vmap a narrow operand is folded into one wider row: the pattern is then read once for the whole batch.
# Wider operands become a block-diagonal product, which needs no transposition. docs/performance.md has the
# measurement that set the bound.
_FOLD_BELOW = 32

_BLOCK_BYTES = 1 << 20  # of the rows gathered for one block of entries


@jax.custom_batching.custom_vmap
def product(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    """[E], [E], [n + 1], [E] or [E, H], [m, d] or [m, H, d] -> [n, d] or [n, H, d], by the fastest means."""
    if cols.shape[0] == 0 or x.size == 0:
        return jnp.zeros((indptr.shape[0] - 1, *x.shape[1:]), x.dtype)
    if weights.ndim == 2:  # the kernel knows no heads, and one product a head costs more than the plain form
        if _block_of(cols, x) >= cols.shape[0]:
            return _segment_form(rows, cols, indptr, weights, x)
        return jax.lax.platform_dependent(rows, cols, indptr, weights, x, cpu=_blocked_form, default=_segment_form)
    return jax.lax.platform_dependent(rows, cols, indptr, weights, x, cpu=_csr_kernel, default=_segment_form)


def _csr_kernel(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    return BCSR((weights, cols, indptr), shape=(indptr.shape[0] - 1, x.shape[0])) @ x


def _segment_form(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    messages = _messages(cols, weights, x)
    y = jax.ops.segment_sum(messages, rows, indptr.shape[0] - 1, indices_are_sorted=True)
    return y.reshape(indptr.shape[0] - 1, *x.shape[1:])


def _blocked_form(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    size, starts = _starts(cols, x)

    def add(y: Array, start: Array) -> tuple[Array, None]:
        into, of, weight = (jax.lax.dynamic_slice_in_dim(array, start[0], size) for array in (rows, cols, weights))
        messages = jnp.where((jnp.arange(size) >= start[1])[:, None], _messages(of, weight, x), 0)
        return y.at[into].add(messages, indices_are_sorted=True, mode="promise_in_bounds"), None

    y, _ = jax.lax.scan(add, jnp.zeros((indptr.shape[0] - 1, math.prod(x.shape[1:])), x.dtype), starts)
    return y.reshape(indptr.shape[0] - 1, *x.shape[1:])


def _messages(cols: Array, weights: Array, x: Array) -> Array:
    """w_e x_{col(e)}, gathered flat, heads and all: one contiguous copy an entry."""
    scale = jnp.repeat(weights, x.shape[-1], axis=1) if weights.ndim == 2 else weights[:, None]
    return scale * take(flatten_after(1, x), cols)


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


@jax.custom_batching.custom_vmap
def pairs(rows: Array, cols: Array, a: Array, b: Array) -> Array:
    """[E], [E], [n, d] or [n, H, d], [m, d] or [m, H, d] -> [E] or [E, H]: <a_{row(e)}, b_{col(e)}> of every entry."""
    if _block_of(cols, b) >= cols.shape[0]:
        return _pairs_of(rows, cols, a, b)
    return jax.lax.platform_dependent(rows, cols, a, b, cpu=_blocked_pairs, default=_pairs_of)


@pairs.def_vmap
def _pairs_batched(axis_size: int, in_batched: Sequence[bool], *operands: Array) -> tuple[Array, bool]:
    whole = jax.vmap(_pairs_of, in_axes=[0 if batched else None for batched in in_batched])
    each = [jax.ShapeDtypeStruct(x.shape[1:] if batched else x.shape, x.dtype)
            for x, batched in zip(operands, in_batched, strict=True)]
    if _block_of(each[1], each[3]) >= axis_size * each[1].shape[0]:
        return whole(*operands), True

    def in_turn(*operands: Array) -> Array:  # the blocks of one problem, then those of the next
        return jax.lax.map(lambda problem: pairs(*problem), _broadcast_batch(axis_size, in_batched, operands))

    return jax.lax.platform_dependent(*operands, cpu=in_turn, default=whole), True


def _pairs_of(rows: Array, cols: Array, a: Array, b: Array) -> Array:
    products = take(flatten_after(1, a), rows) * take(flatten_after(1, b), cols)
    # A product with ones: XLA's sum over a short last axis does not vectorise on a CPU and takes twice as long.
    heads = math.prod(a.shape[1:-1])
    ones = jnp.repeat(jnp.eye(heads, dtype=a.dtype), a.shape[-1], axis=0)
    return jnp.matmul(products, ones, precision=jax.lax.Precision.HIGHEST).reshape(cols.shape[0], *a.shape[1:-1])


def _blocked_pairs(rows: Array, cols: Array, a: Array, b: Array) -> Array:
    size, starts = _starts(cols, b)

    def put(found: Array, start: Array) -> tuple[Array, None]:
        of_a, of_b = (jax.lax.dynamic_slice_in_dim(array, start[0], size) for array in (rows, cols))
        return jax.lax.dynamic_update_slice_in_dim(found, _pairs_of(of_a, of_b, a, b), start[0], axis=0), None

    return jax.lax.scan(put, jnp.zeros((cols.shape[0], *a.shape[1:-1]), a.dtype), starts)[0]


def _block_of(entries: Array | jax.ShapeDtypeStruct, x: Array | jax.ShapeDtypeStruct) -> int:
    """How many entries' rows of x stay within a block; all of them where there are no more."""
    row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    return min(entries.shape[0], max(1, _BLOCK_BYTES // max(1, row_bytes)))


def _starts(entries: Array, x: Array) -> tuple[int, Array]:
    """A block's size, and (its first entry, how many of its entries the block before has had) of every block.

    All blocks are of one size, so that one program serves them: the last one begins before the end of the one before.
    """
    size, count = _block_of(entries, x), entries.shape[0]
    begin = np.arange(0, count, size)
    first = np.minimum(begin, count - size)
    return size, jnp.asarray(np.stack([first, begin - first], axis=1), jnp.int32)


def _broadcast_batch(axis_size: int, in_batched: Sequence[bool], operands: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
                 for x, batched in zip(operands, in_batched, strict=True))


def flatten_after(axes: int, x: Array) -> Array:
    """x with all axes after the first `axes` made one; -1 would not do where a type has no nodes."""
    return x.reshape(*x.shape[:axes], math.prod(x.shape[axes:]))


def take(x: Array, index: Array) -> Array:
    """x[index] for indices checked when the pattern was built."""
    return jnp.asarray(x).at[index].get(mode="promise_in_bounds")
