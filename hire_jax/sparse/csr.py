"""The pattern of a sparse matrix, built and checked on the host, with its transpose."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

INDEX_LIMIT = int(np.iinfo(np.int32).max)


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
        if max(*shape, rows.size) > INDEX_LIMIT:
            raise ValueError(f"a sparse pattern holds at most {INDEX_LIMIT} rows, columns and entries, got shape "
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
