"""How aggregation is executed: sparse patterns, their products, and reductions over segments.

This is the only file of the package that knows about compressed rows, kernels or what a device prefers.
Everything above it speaks of `CSR` patterns and calls `spmm`, `sddmm` and the segment functions.

On a CPU `spmm` reaches jaxlib's threaded CSR kernel. That kernel has a slow gradient and vanishes under
`jax.vmap`, so both are given here: the gradient is a product with the transposed pattern, built once on the
host, and a mapped axis becomes either wider features or a block-diagonal pattern, never a loop. On every
other platform the same product is a sorted `segment_sum`, which is also kept as `spmm_reference`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR

Array = jax.Array

# Under vmap a narrow operand is folded into one wider row: the pattern is then read once for the whole batch.
# Wider operands become a block-diagonal product, which needs no transposition. docs/performance.md has the
# measurement that set the bound.
_FOLD_BELOW = 32
_INDEX_LIMIT = int(np.iinfo(np.int32).max)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CSR:
    """The pattern of a sparse matrix in compressed rows, with its transpose. Values are kept apart.

    Entries are ordered by row. `t_entries[k]` is the entry that comes k-th when ordered by column, so that
    `weights[t_entries]` are the values of the transposed matrix. Duplicate entries are allowed and add up.

    Shapes: E entries, an (n, m) matrix; all index arrays are int32.
    """

    rows: Array  # [E], ascending
    cols: Array  # [E]
    indptr: Array  # [n + 1]
    t_entries: Array  # [E]
    t_rows: Array  # [E], ascending: the column of each entry in transposed order
    t_cols: Array  # [E]: the row of each entry in transposed order
    t_indptr: Array  # [m + 1]
    shape: tuple[int, int] = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_sorted(cls, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> "CSR":
        """Builds the pattern and its transpose on the host from entries already ordered by row.

        Args:
          rows: int[E], ascending, in [0, shape[0]).
          cols: int[E], in [0, shape[1]).
          shape: (n, m), static.

        Raises:
          ValueError: rows are not ascending, an index is outside the shape, or one does not fit int32.
        """
        rows, cols = np.asarray(rows), np.asarray(cols)
        if rows.ndim != 1 or rows.shape != cols.shape:
            raise ValueError(f"rows and cols must be two vectors of one length, got {rows.shape} and {cols.shape}")
        for name, array, count in (("rows", rows, shape[0]), ("cols", cols, shape[1])):
            # The kernels trust the indices: one outside would read foreign memory.
            bad = (array < 0) | (array >= count)
            if bad.any():
                raise ValueError(f"{name}[{int(bad.argmax())}] is {array[bad.argmax()]}, outside [0, {count})")
        if rows.size and np.any(np.diff(rows) < 0):
            at = int(np.argmax(np.diff(rows) < 0)) + 1
            raise ValueError(f"rows must be ascending; entry {at} has row {rows[at]} after row {rows[at - 1]}")
        if max(*shape, rows.size) > _INDEX_LIMIT:
            raise ValueError(f"a sparse pattern holds at most {_INDEX_LIMIT} rows, columns and entries, got shape "
                             f"{shape} with {rows.size} entries")
        rows, cols = rows.astype(np.int32), cols.astype(np.int32)
        order = np.argsort(cols, kind="stable").astype(np.int32)
        return cls(rows=jnp.asarray(rows), cols=jnp.asarray(cols), indptr=jnp.asarray(_indptr(rows, shape[0])),
                   t_entries=jnp.asarray(order), t_rows=jnp.asarray(cols[order]), t_cols=jnp.asarray(rows[order]),
                   t_indptr=jnp.asarray(_indptr(cols, shape[1])), shape=shape)

    @property
    def num_entries(self) -> int:
        """E, the number of stored entries, duplicates counted."""
        return self.rows.shape[-1]

    @property
    def T(self) -> "CSR":
        """The transposed pattern. Its own `t_entries` is the inverse permutation, computed only where used."""
        inverse = jnp.zeros_like(self.t_entries).at[self.t_entries].set(
            jnp.arange(self.num_entries, dtype=jnp.int32), unique_indices=True)
        return CSR(rows=self.t_rows, cols=self.t_cols, indptr=self.t_indptr, t_entries=inverse, t_rows=self.rows,
                   t_cols=self.cols, t_indptr=self.indptr, shape=(self.shape[1], self.shape[0]))

    def merge_columns(self, group: int) -> "CSR":
        """The pattern whose column is `column // group`: every run of `group` columns becomes one."""
        if self.shape[1] % group:
            raise ValueError(f"{self.shape[1]} columns cannot be merged in groups of {group}")
        return CSR(rows=self.rows, cols=self.cols // group, indptr=self.indptr, t_entries=self.t_entries,
                   t_rows=self.t_rows // group, t_cols=self.t_cols, t_indptr=self.t_indptr[::group],
                   shape=(self.shape[0], self.shape[1] // group))


def _indptr(indices: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(indices, minlength=count))]).astype(np.int32)


# ---------------------------------------------------------------------------------------------- products


def spmm(csr: CSR, weights: Array | None, x: Array, *, t_weights: Array | None = None) -> Array:
    """Sparse times dense: y_i = sum over entries e of row i of w_e x_{col(e)}.

    Args:
      csr: pattern of an (n, m) matrix with E entries.
      weights: [E], or [E, H] for H heads side by side, or None for ones.
      x: [m] or [m, ...]; with weights [E, H] it must be [m, H, ...].
      t_weights: weights[csr.t_entries] where it is at hand: constant weights need not be gathered at every
        step for the gradient. No gradient flows into it.

    Returns:
      [n, ...] of x's dtype. Sums run in float32 for narrower types.

    Differentiable in weights and x to any order in reverse mode; `jax.vmap` over weights, x or both stays one
    product. Rows without entries give 0.

    Raises:
      ValueError: a shape does not fit the pattern, or x is not of floating dtype.
    """
    _check_operand("x", x, csr.shape[1])
    if weights is None:
        weights = t_weights = jnp.ones(csr.num_entries, x.dtype)
    if t_weights is not None and t_weights.shape != weights.shape:
        raise ValueError(f"t_weights must have the shape of weights {weights.shape}, got {t_weights.shape}")
    if weights.ndim not in (1, 2) or weights.shape[0] != csr.num_entries:
        raise ValueError(f"weights must be [{csr.num_entries}] or [{csr.num_entries}, heads], got {weights.shape}")
    if weights.ndim == 2:
        if x.ndim < 2 or x.shape[1] != weights.shape[1]:
            raise ValueError(f"weights {weights.shape} have {weights.shape[1]} heads, so x must be "
                             f"[{csr.shape[1]}, {weights.shape[1]}, ...], got {x.shape}")
    dtype = x.dtype
    compute = dtype if dtype in (jnp.float32, jnp.float64) else jnp.float32
    flat = _flatten_after(weights.ndim, x).astype(compute)
    y = _spmm(csr, weights.astype(compute), None if t_weights is None else t_weights.astype(compute), flat)
    return y.reshape(csr.shape[0], *x.shape[1:]).astype(dtype)


def sddmm(csr: CSR, a: Array, b: Array) -> Array:
    """Sampled dense times dense: s_e = <a_{row(e)}, b_{col(e)}> over the last axis.

    Args:
      csr: pattern of an (n, m) matrix with E entries.
      a: [n, d] or [n, H, d].
      b: [m, d] or [m, H, d].

    Returns:
      [E] or [E, H]. The gradients are sparse products, not scatters.

    Raises:
      ValueError: shapes that do not fit the pattern or each other.
    """
    _check_operand("a", a, csr.shape[0])
    _check_operand("b", b, csr.shape[1])
    if a.shape[1:] != b.shape[1:] or a.ndim not in (2, 3):
        raise ValueError(f"a and b must be [n, d] and [m, d], or [n, H, d] and [m, H, d], got {a.shape}, {b.shape}")
    dtype = jnp.promote_types(a.dtype, b.dtype)  # outside the custom gradient, which must keep each one's dtype
    return _sddmm(csr, a.astype(dtype), b.astype(dtype))


def edge_sum(csr: CSR, a: Array, b: Array) -> Array:
    """Sampled sum: s_e = a_{row(e)} + b_{col(e)}, what additive attention scores an edge with.

    Args:
      csr: pattern of an (n, m) matrix with E entries.
      a: [n] or [n, H].
      b: [m] or [m, H], of a's dtype.

    Returns:
      [E] or [E, H]. Gradients are sums over sorted segments.

    Raises:
      ValueError: shapes that do not fit the pattern or each other.
    """
    _check_operand("a", a, csr.shape[0])
    _check_operand("b", b, csr.shape[1])
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        raise ValueError(f"a and b must agree in all but their rows, got {a.dtype}{list(a.shape)} and "
                         f"{b.dtype}{list(b.shape)}")
    return _edge_sum(csr, a, b)


def spmm_reference(csr: CSR, weights: Array | None, x: Array) -> Array:
    """The plain form of `spmm`: gather, scale, `segment_sum`. Kept to hold the fast forms against."""
    gathered = x[csr.cols]
    if weights is not None:
        gathered = gathered * weights.reshape(weights.shape + (1,) * (x.ndim - weights.ndim))
    return jax.ops.segment_sum(gathered, csr.rows, csr.shape[0], indices_are_sorted=True)


def _flatten_after(axes: int, x: Array) -> Array:
    """x with all axes after the first `axes` made one; -1 would not do where a type has no nodes."""
    return x.reshape(*x.shape[:axes], math.prod(x.shape[axes:]))


def _check_operand(name: str, x: Array, length: int) -> None:
    if x.ndim < 1 or x.shape[0] != length:
        raise ValueError(f"{name} must have {length} rows to fit the sparse pattern, got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be of floating dtype, got {x.dtype}")


@jax.custom_vjp
def _spmm(csr: CSR, weights: Array, t_weights: Array | None, x: Array) -> Array:
    return _product(csr.rows, csr.cols, csr.indptr, weights, x)


def _spmm_fwd(csr: CSR, weights: Array, t_weights: Array | None, x: Array) -> tuple[Array, tuple]:
    return _spmm(csr, weights, t_weights, x), (csr, weights, t_weights, x)


def _spmm_bwd(residuals: tuple, dy: Array) -> tuple:
    # Written with the differentiable products themselves, so that second derivatives exist too. Whichever
    # of the two is not asked for is dead code and removed by the compiler.
    csr, weights, t_weights, x = residuals
    if t_weights is None:
        t_weights = weights[csr.t_entries]
    return None, _sddmm(csr, dy, x), None, _spmm(csr.T, t_weights, weights, dy)


_spmm.defvjp(_spmm_fwd, _spmm_bwd)


@jax.custom_vjp
def _sddmm(csr: CSR, a: Array, b: Array) -> Array:
    products = _take(_flatten_after(1, a), csr.rows) * _take(_flatten_after(1, b), csr.cols)
    # A product with ones: XLA's sum over a short last axis does not vectorise on a CPU and takes twice as long.
    heads = math.prod(a.shape[1:-1])
    ones = jnp.repeat(jnp.eye(heads, dtype=a.dtype), a.shape[-1], axis=0)
    return jnp.matmul(products, ones, precision=jax.lax.Precision.HIGHEST).reshape(csr.num_entries, *a.shape[1:-1])


def _sddmm_fwd(csr: CSR, a: Array, b: Array) -> tuple[Array, tuple[CSR, Array, Array]]:
    return _sddmm(csr, a, b), (csr, a, b)


def _sddmm_bwd(residuals: tuple[CSR, Array, Array], ds: Array) -> tuple[None, Array, Array]:
    csr, a, b = residuals
    return None, spmm(csr, ds, b), spmm(csr.T, ds[csr.t_entries], a)


_sddmm.defvjp(_sddmm_fwd, _sddmm_bwd)


@jax.custom_vjp
def _edge_sum(csr: CSR, a: Array, b: Array) -> Array:
    return _take(a, csr.rows) + _take(b, csr.cols)


def _edge_sum_fwd(csr: CSR, a: Array, b: Array) -> tuple[Array, CSR]:
    return _edge_sum(csr, a, b), csr


def _edge_sum_bwd(csr: CSR, ds: Array) -> tuple[None, Array, Array]:
    return (None, segment_sum(ds, csr.rows, csr.shape[0]),
            segment_sum(_take(ds, csr.t_entries), csr.t_rows, csr.shape[1]))


_edge_sum.defvjp(_edge_sum_fwd, _edge_sum_bwd)


@jax.custom_batching.custom_vmap
def _product(rows: Array, cols: Array, indptr: Array, weights: Array, x: Array) -> Array:
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
    flat = _flatten_after(1, x)
    scale = jnp.repeat(weights, x.shape[-1], axis=1) if weights.ndim == 2 else weights[:, None]
    messages = scale * _take(flat, cols)
    y = jax.ops.segment_sum(messages, rows, indptr.shape[0] - 1, indices_are_sorted=True)
    return y.reshape(indptr.shape[0] - 1, *x.shape[1:])


def _take(x: Array, index: Array) -> Array:
    """x[index] for indices checked when the pattern was built."""
    return jnp.asarray(x).at[index].get(mode="promise_in_bounds")


@_product.def_vmap
def _product_batched(axis_size: int, in_batched: Sequence[bool], rows: Array, cols: Array, indptr: Array,
                     weights: Array, x: Array) -> tuple[Array, bool]:
    num_rows, num_entries = indptr.shape[-1] - 1, cols.shape[-1]
    num_cols, trailing = x.shape[1 if in_batched[4] else 0], x.shape[2 if in_batched[4] else 1:]
    only_x = list(in_batched) == [False, False, False, False, True]
    if only_x and weights.ndim == 1 and trailing[0] < _FOLD_BELOW:
        folded = x.transpose(1, 0, 2).reshape(num_cols, axis_size * trailing[0])
        y = _product(rows, cols, indptr, weights, folded)
        return y.reshape(num_rows, axis_size, *trailing).transpose(1, 0, 2), True
    if axis_size * max(num_rows, num_cols, num_entries) > _INDEX_LIMIT:
        operands = _broadcast_batch(axis_size, in_batched, (rows, cols, indptr, weights, x))
        return jax.lax.map(lambda operand: _product(*operand), operands), True

    # One block-diagonal product: the k-th problem's rows, columns and entries follow those of the one before.
    block = jnp.arange(axis_size, dtype=jnp.int32)[:, None]
    column_step = num_cols if in_batched[4] else 0  # an x that all share is read in place
    rows = (rows + num_rows * block).reshape(-1)
    cols = (cols + column_step * block).reshape(-1)
    starts = jnp.broadcast_to(indptr[..., 1:], (axis_size, num_rows)) + num_entries * block
    indptr = jnp.concatenate([jnp.zeros(1, jnp.int32), starts.reshape(-1)])
    heads = weights.shape[2 if in_batched[3] else 1:]
    weights = jnp.broadcast_to(weights, (axis_size, num_entries, *heads)).reshape(-1, *heads)
    y = _product(rows, cols, indptr, weights, x.reshape(-1, *trailing))
    return y.reshape(axis_size, num_rows, *trailing), True


def _broadcast_batch(axis_size: int, in_batched: Sequence[bool], operands: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
                 for x, batched in zip(operands, in_batched, strict=True))


# ---------------------------------------------------------------------------------------------- features


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseFeatures:
    """A constant feature matrix in compressed rows, [N, F], never made dense.

    `features @ W` with W [F, d] costs 2 nnz d multiply-adds instead of 2 N F d; bag-of-words features of
    citation graphs are 0.2 to 2 % dense.
    """

    csr: CSR
    data: Array  # [nnz]
    t_data: Array  # [nnz], the same ordered by column

    @classmethod
    def from_csr(cls, indptr: Any, indices: Any, data: Any, shape: tuple[int, int]) -> "SparseFeatures":
        """Builds features from host arrays in CSR form.

        Args:
          indptr: int[N + 1], from 0 to nnz, not descending.
          indices: int[nnz] in [0, F).
          data: float[nnz], finite; stored as float32 unless it is float64 and 64-bit mode is on.
          shape: (N, F).

        Raises:
          ValueError: an array of the wrong form; the message names it and the first bad place.
        """
        indptr, indices, data = np.asarray(indptr), np.asarray(indices), np.asarray(data)
        rows, columns = int(shape[0]), int(shape[1])
        for name, array in (("indptr", indptr), ("indices", indices)):
            if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"{name} must be a vector of integers, got {array.dtype}{list(array.shape)}")
        if indptr.shape != (rows + 1,):
            raise ValueError(f"indptr must have {rows + 1} entries for {rows} rows, got {indptr.size}")
        if indptr[0] != 0 or indptr[-1] != indices.size or np.any(np.diff(indptr) < 0):
            raise ValueError(f"indptr must rise from 0 to {indices.size} without descending, got {indptr[0]} to "
                             f"{indptr[-1]}")
        if data.shape != indices.shape:
            raise ValueError(f"data must have the shape of indices {indices.shape}, got {data.shape}")
        bad = (indices < 0) | (indices >= columns)
        if bad.any():
            raise ValueError(f"indices[{int(bad.argmax())}] is {indices[bad.argmax()]}, outside [0, {columns})")
        if data.dtype.kind not in "fiub" and data.dtype != jnp.bfloat16:
            raise ValueError(f"data must be numbers, got {data.dtype}")
        if not np.isfinite(data).all():
            raise ValueError(f"data[{int(np.argmin(np.isfinite(data)))}] is not finite")
        row_of_entry = np.repeat(np.arange(rows), np.diff(indptr))
        values = jnp.asarray(data if np.issubdtype(data.dtype, np.floating) else data.astype(np.float32))
        csr = CSR.from_sorted(row_of_entry, indices, (rows, columns))
        return cls(csr=csr, data=values, t_data=values[csr.t_entries])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return self.csr.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the stored values."""
        return self.data.dtype

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.csr.num_entries

    def __matmul__(self, w: Array) -> Array:
        """[N, F] @ [F, d] -> [N, d], in w's dtype."""
        return spmm(self.csr, self.data, w, t_weights=self.t_data)

    def todense(self) -> Array:
        """[N, F] dense: for tests and small examples only."""
        return jnp.zeros(self.shape, self.dtype).at[self.csr.rows, self.csr.cols].add(self.data)

    def take_rows(self, order: Any) -> "SparseFeatures":
        """The features of the nodes in `order` (int[K], host), as a new matrix of K rows."""
        order = np.asarray(order)
        indptr = np.asarray(self.csr.indptr)
        counts = np.diff(indptr)[order]
        starts = np.concatenate([[0], np.cumsum(counts)])
        entries = np.arange(starts[-1]) + np.repeat(indptr[:-1][order] - starts[:-1], counts)
        return SparseFeatures.from_csr(starts, np.asarray(self.csr.cols)[entries], np.asarray(self.data)[entries],
                                       (order.size, self.shape[1]))

    def row_normalised(self) -> "SparseFeatures":
        """Every row divided by the sum of its absolute values; empty rows stay empty."""
        total = segment_sum(jnp.abs(self.data), self.csr.rows, self.shape[0])
        data = self.data / jnp.where(total > 0, total, 1.0)[self.csr.rows]
        return SparseFeatures(csr=self.csr, data=data, t_data=data[self.csr.t_entries])


# ---------------------------------------------------------------------------------------------- segments


def segment_sum(data: Array, segments: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Sum of data [E, ...] over each of `num_segments` segments (int[E], ascending); empty segments give 0.

    `where` (bool[E]) leaves entries out, whatever they hold. Sums run in float32 for narrower types.
    """
    if where is not None:
        data = jnp.where(_expand(where, data), data, 0)
    return jax.ops.segment_sum(_widened(data), segments, num_segments, indices_are_sorted=True).astype(data.dtype)


def segment_mean(data: Array, segments: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Mean of data [E, ...] over each segment; empty or wholly masked segments give 0."""
    wide = _widened(data)
    ones = jnp.ones(segments.shape, wide.dtype) if where is None else where.astype(wide.dtype)
    count = jax.ops.segment_sum(ones, segments, num_segments, indices_are_sorted=True)
    total = segment_sum(wide, segments, num_segments, where=where)
    mean = total / _expand(jnp.maximum(count, 1), total)
    return mean if wide.dtype == data.dtype else mean.astype(data.dtype)


def segment_max(data: Array, segments: Array, num_segments: int, *, where: Array | None = None,
                empty: float = 0.0) -> Array:
    """Maximum of data [E, ...] over each segment; empty or wholly masked segments give `empty`."""
    ones = jnp.ones(segments.shape, jnp.int32) if where is None else where.astype(jnp.int32)
    if where is not None:
        data = jnp.where(_expand(where, data), data, -jnp.inf)
    count = jax.ops.segment_sum(ones, segments, num_segments, indices_are_sorted=True)
    maximum = jax.ops.segment_max(data, segments, num_segments, indices_are_sorted=True)
    return jnp.where(_expand(count > 0, maximum), maximum, empty)


def segment_softmax(logits: Array, segments: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Softmax of logits [E, ...] within each segment (int[E], ascending).

    Masked entries get 0. A segment whose logits are all -inf gets zeros, with a finite gradient.
    """
    mask = None if where is None else [where]
    return joint_segment_softmax([logits], [segments], num_segments, where=mask)[0]


def joint_segment_softmax(logits: Sequence[Array], segments: Sequence[Array], num_segments: int, *,
                          where: Sequence[Array] | None = None) -> list[Array]:
    """One softmax over the union of several entry lists that share their segments.

    a^k_e = exp(s^k_e) / sum_l sum_{f : seg^l(f) = seg^k(e)} exp(s^l_f)

    The lists are the edges of different relations into the same destinations: they need not be merged and
    sorted again. Each logits[k] is [E_k, ...] with segments[k] int[E_k] ascending; the trailing axes agree.
    """
    masks: Sequence[Array | None] = [None] * len(logits) if where is None else where
    dtypes, logits = [s.dtype for s in logits], [_widened(s) for s in logits]
    # A NaN that is not masked counts, so that it shows in the result.
    valid = [s != -jnp.inf if m is None else _expand(m, s) & (s != -jnp.inf)
             for s, m in zip(logits, masks, strict=True)]
    top = jnp.asarray(-jnp.inf)
    for s, seg, ok in zip(logits, segments, valid, strict=True):
        top = jnp.maximum(top, jax.ops.segment_max(jnp.where(ok, s, -jnp.inf), seg, num_segments,
                                                   indices_are_sorted=True))
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0)).astype(logits[0].dtype)
    # The inner `where` keeps a masked NaN or an infinity from reaching exp, whose gradient it would poison.
    exps = [jnp.where(ok, jnp.exp(jnp.where(ok, s - top[seg], 0.0)), 0.0)
            for s, seg, ok in zip(logits, segments, valid, strict=True)]
    total = sum(jax.ops.segment_sum(e, seg, num_segments, indices_are_sorted=True)
                for e, seg in zip(exps, segments, strict=True))
    scale = 1.0 / jnp.where(total == 0, 1.0, total)
    return [(e * scale[seg]).astype(dtype) for e, seg, dtype in zip(exps, segments, dtypes, strict=True)]


def _widened(data: Array) -> Array:
    """float32 of narrower floating types: a sum of ones in bfloat16 stops at 256."""
    narrow = jnp.issubdtype(data.dtype, jnp.floating) and data.dtype.itemsize < 4
    return data.astype(jnp.float32) if narrow else data


def _expand(mask: Array, data: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (data.ndim - mask.ndim))
