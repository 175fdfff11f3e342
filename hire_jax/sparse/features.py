"""Features in compressed rows, as most bags of words are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.sparse.csr import CSR
from hire_jax.sparse.products import spmm
from hire_jax.sparse.segments import segment_sum

Array = jax.Array


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
