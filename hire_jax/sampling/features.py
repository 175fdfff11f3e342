"""Rows of numbers on the host: features, positions and edge features, kept as they are wherever that can be.

An array that `np.load(mmap_mode="r")` gave stays on the disk and only the rows of a batch are read. Its values are not
looked at, and it is converted, which reads it into memory as a whole, only where JAX could not take its rows: integers,
foreign byte orders, floats wider than 64 bits. Values of arrays in memory must be finite as JAX stores them.
"""

import dataclasses
import mmap
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.graph import EdgeType, GraphError
from hire_jax.graph.checks import edge_name
from hire_jax.sparse import SparseFeatures

_LOOKED_AT = 1 << 24  # bytes whose values are checked at a time


@dataclasses.dataclass(frozen=True)
class SparseRows:
    """Features in compressed rows on the host: what `SparseFeatures` holds, without its transpose."""

    indptr: np.ndarray  # int64[N + 1]
    indices: np.ndarray  # int32[nnz]
    data: np.ndarray  # [nnz]
    shape: tuple[int, int]


HostFeatures = np.ndarray | SparseRows


def on_host(features: Any) -> HostFeatures:
    """Features of a `HeteroGraph`, which are checked already."""
    if not isinstance(features, SparseFeatures):
        return np.asarray(features)
    csr = features.csr
    return SparseRows(np.asarray(csr.indptr).astype(np.int64), np.asarray(csr.cols), np.asarray(features.data),
                      features.shape)


def checked_rows(what: str, name: str, rows: Any, counts: Mapping[str, int]) -> HostFeatures:
    """A matrix of the nodes of one type; `what` is "features" or "positions"."""
    if name not in counts:
        raise GraphError(f"{what} are given for node type {name!r}, which is unknown; num_nodes has {sorted(counts)}")
    if not isinstance(rows, SparseFeatures):
        rows = _array(f"{what} of {name!r}", rows)
        if rows.ndim != 2 or not _numbers(rows.dtype):
            raise GraphError(f"{what} of {name!r} must be numbers [N, F], got {rows.dtype}{list(rows.shape)}")
    if rows.shape[0] != counts[name]:
        raise GraphError(f"{what} of {name!r} have {rows.shape[0]} rows, expected {counts[name]}")
    return on_host(rows) if isinstance(rows, SparseFeatures) else _storable(f"{what} of {name!r}", rows)


def checked_edge_rows(edge_type: EdgeType, rows: Any, count: int) -> np.ndarray:
    """The features of one relation's edges: [E] or [E, F]."""
    what = f"relation {edge_name(edge_type)}: edge features"
    rows = _array(what, rows)
    if rows.ndim not in (1, 2) or len(rows) != count or not _numbers(rows.dtype):
        raise GraphError(f"{what} must have shape [{count}] or [{count}, F] and be numbers, got {rows.dtype}"
                         f"{list(rows.shape)}")
    return _storable(what, rows)


def _array(what: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)  # a memory map stays one
    except ValueError as error:  # lists of different lengths
        raise GraphError(f"{what} must be an array of numbers; {error}") from error


def _numbers(dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" or dtype == jnp.bfloat16


def _storable(what: str, rows: np.ndarray) -> np.ndarray:
    """The array in a dtype of which JAX takes rows; finite, where it is in memory."""
    if rows.dtype != jnp.bfloat16 and (rows.dtype.kind != "f" or not rows.dtype.isnative or rows.dtype.itemsize > 8):
        narrow = rows.dtype.kind == "f" and rows.dtype.itemsize <= 8
        rows = rows.astype(rows.dtype.newbyteorder("=") if narrow else np.float32)
    if not _mapped(rows):
        stored = jax.dtypes.canonicalize_dtype(rows.dtype)
        step = max(1, _LOOKED_AT // max(1, rows[:1].nbytes))
        for first in range(0, len(rows), step):
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
                finite = np.isfinite(rows[first:first + step].astype(stored, copy=False))
            if not finite.all():
                row, *column = (int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape))
                place = first + row, *column
                raise GraphError(f"{what}: the value at {place} is {rows[place]}, expected a finite number (stored as "
                                 f"{np.dtype(stored)})")
    return rows


def _mapped(array: Any) -> bool:
    """Whether an array's values are in a file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)
