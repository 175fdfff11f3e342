"""How sparse products run: on a CPU, elsewhere, and under `jax.vmap`.

On a CPU a product with one weight an entry reaches jaxlib's threaded CSR kernel, which vanishes under `jax.vmap`. So
the batching is given here: a mapped axis becomes either wider features or a block-diagonal pattern, never a loop unless
int32 cannot count its entries. On every other platform the same product is a sorted `segment_sum`.

What that kernel does not know, several heads and the scores of entries, runs on a CPU over blocks of entries, one
after another: the rows gathered for a block stay in the caches, while those of all entries would be written to memory,
read again, and their pages faulted in at every call. Elsewhere all entries are taken at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

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

# Of the rows gathered for one block of entries (docs/performance.md); a vmapped axis multiplies them.
_BLOCK_BYTES = 1 << 20


@jax.custom_batching.custom_vmap
def product(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    """[E], [E], [n + 1], [E] or [E, H], [m, d] or [m, H, d] -> [n, d] or [n, H, d], by the fastest means."""
    if cols.shape[0] == 0 or x.size == 0:
        return jnp.zeros((indptr.shape[0] - 1, *x.shape[1:]), x.dtype)
    if weights.ndim == 2:  # the kernel knows no heads, and one product a head costs more than the plain form
        blocks = _blocks(cols.shape[0], x)
        if blocks is None:
            return _segment_form(rows, cols, indptr, weights, x)
        return jax.lax.platform_dependent(rows, cols, indptr, weights, x, blocks, cpu=_blocked_form,
                                          default=_segment_form)
    return jax.lax.platform_dependent(rows, cols, indptr, weights, x, cpu=_csr_kernel, default=_segment_form)


def _csr_kernel(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
    return BCSR((weights, cols, indptr), shape=(indptr.shape[0] - 1, x.shape[0])) @ x


def _segment_form(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array,
                  blocks: "_Blocks | None" = None) -> Array:
    messages = _messages(cols, weights, x)
    y = jax.ops.segment_sum(messages, rows, indptr.shape[0] - 1, indices_are_sorted=True)
    return y.reshape(indptr.shape[0] - 1, *x.shape[1:])


def _blocked_form(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array, blocks: "_Blocks") -> Array:
    def add(y: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        into, of, weight = _entries_of(block[0], blocks, rows, cols, weights)
        messages = jnp.where((blocks.offsets >= block[1])[:, None], _messages(of, weight, x), 0)
        return y.at[into].add(messages, indices_are_sorted=True, mode="promise_in_bounds"), None

    zeros = jnp.zeros((indptr.shape[0] - 1, math.prod(x.shape[1:])), x.dtype)
    y, _ = jax.lax.scan(add, _varying_as(zeros, rows, cols, weights, x), (blocks.firsts, blocks.had))
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
    y = product(rows, cols, indptr, weights, x.reshape(axis_size * num_cols, *trailing) if in_batched[4] else x)
    return y.reshape(axis_size, num_rows, *trailing), True


def pairs(rows: Array, cols: Array, a: Array, b: Array) -> Array:
    """[E], [E], [n, d] or [n, H, d], [m, d] or [m, H, d] -> [E] or [E, H]: <a_{row(e)}, b_{col(e)}> of every entry."""
    blocks = _blocks(cols.shape[0], b)
    if blocks is None:
        return _pairs_at_once(rows, cols, a, b)
    return jax.lax.platform_dependent(rows, cols, a, b, blocks, cpu=_blocked_pairs, default=_pairs_at_once)


def _pairs_at_once(rows: Array, cols: Array, a: Array, b: Array, blocks: "_Blocks | None" = None) -> Array:
    products = take(flatten_after(1, a), rows) * take(flatten_after(1, b), cols)
    # A product with ones: XLA's sum over a short last axis does not vectorise on a CPU and takes twice as long.
    heads = math.prod(a.shape[1:-1])
    ones = jnp.repeat(jnp.eye(heads, dtype=a.dtype), a.shape[-1], axis=0)
    return jnp.matmul(products, ones, precision=jax.lax.Precision.HIGHEST).reshape(cols.shape[0], *a.shape[1:-1])


def _blocked_pairs(rows: Array, cols: Array, a: Array, b: Array, blocks: "_Blocks") -> Array:
    def scores(first: Array) -> Array:
        of_a, of_b = _entries_of(first, blocks, rows, cols)
        return _pairs_at_once(of_a, of_b, a, b)

    found = jax.lax.map(scores, blocks.firsts)  # of the last block, only what the one before has not had
    rest = cols.shape[0] - (found.shape[0] - 1) * found.shape[1]
    return jnp.concatenate([found[:-1].reshape(-1, *found.shape[2:]), found[-1, found.shape[1] - rest:]])


class _Blocks(NamedTuple):
    """Blocks of entries, all of one size, so that one program serves them; the last may overlap the one before.

    They are arguments of the forms rather than read there, since JAX remembers what it traced by shapes alone.
    """

    firsts: Array  # int32[B], the first entry of each
    had: Array  # int32[B], how many of its entries the block before it has had
    offsets: Array  # int32[size], from the first


def _blocks(entries: int, x: Array) -> _Blocks | None:
    """The blocks of so many entries, each of which gathers a row of x; None where all of them are one block."""
    row_bytes = math.prod(x.shape[1:]) * x.dtype.itemsize
    if entries * row_bytes <= _BLOCK_BYTES:
        return None
    size = max(1, _BLOCK_BYTES // row_bytes)
    begin = np.arange(0, entries, size)
    firsts = np.minimum(begin, entries - size)
    return _Blocks(*(jnp.asarray(array, jnp.int32) for array in (firsts, begin - firsts, np.arange(size))))


def _entries_of(first: Array, blocks: _Blocks, *arrays: Array) -> tuple[Array, ...]:
    """The part of arrays [E, ...] that is of the block with this first entry."""
    return tuple(jax.lax.dynamic_slice_in_dim(x, first, blocks.offsets.shape[0]) for x in arrays)


def _varying_as(start: Array, *operands: Array) -> Array:
    """What a loop over these operands begins with: under `jax.shard_map` it must vary over the devices as they do.

    JAX's own word for that changes from version to version; a zero computed from the operands does not.
    """
    varying = [x.reshape(-1)[0] != x.reshape(-1)[0] for x in operands]  # of a NaN alone, whose truth times 0 is 0 too
    return start + 0 * jnp.sum(jnp.stack(varying), dtype=start.dtype)


def _broadcast_batch(axis_size: int, in_batched: Sequence[bool], operands: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
                 for x, batched in zip(operands, in_batched, strict=True))


def flatten_after(axes: int, x: Array) -> Array:
    """x with all axes after the first `axes` made one; -1 would not do where a type has no nodes."""
    return x.reshape(*x.shape[:axes], math.prod(x.shape[axes:]))


def take(x: Array, index: Array) -> Array:
    """x[index] for indices checked when the pattern was built."""
    return jnp.asarray(x).at[index].get(mode="promise_in_bounds")
