"""A sampled graph as a `HeteroGraph` of static sizes, built on the host in time linear in its edges.

Every type ends with at least one dummy node, and the edges that fill up a relation join dummies only: no real node's
aggregate knows of them. They are spread over the dummies, so that no row of a pattern is longer than it need be.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import jraph
import numpy as np
import scipy.sparse

from hire_jax.graph import EdgeType, HeteroGraph, RelationBlock
from hire_jax.sampling.features import SparseRows
from hire_jax.sampling.host import HostGraph, blocks_of
from hire_jax.sampling.neighbours import Sample, SampledEdges
from hire_jax.sampling.padding import Sizes
from hire_jax.sparse import CSR, SparseFeatures

Ends = tuple[np.ndarray, np.ndarray]  # senders, receivers


def padded_graph(graph: HostGraph, sample: Sample, sizes: Sizes, *, without: Collection[str] = ()) -> HeteroGraph:
    """The sampled nodes and edges with their features, but for types in `without`; leaves are numpy arrays.

    It is what `HeteroGraph.from_arrays` would build of the same edges, but for two things: within a receiver edges
    keep the order they were drawn in, and no block holds a full matrix (`RelationBlock.adjacency`).
    """
    real = {name: ids.size for name, ids in sample.nodes.items()}
    ends = {edge_type: _padded_ends(edges, sizes.edges[edge_type], edge_type, real, sizes.nodes)
            for edge_type, edges in sample.edges.items()}
    relations = {}
    for edge_type, (senders, receivers) in ends.items():
        features = graph.relations[edge_type].features
        if features is not None:
            features = _rows_of(features, sample.edges[edge_type].entries, senders.size)
        relations[edge_type] = jraph.GraphsTuple(
            nodes=None, edges=features, senders=senders, receivers=receivers, globals=None,
            n_node=np.array([sizes.nodes[edge_type[2]]], np.int32), n_edge=np.array([senders.size], np.int32))
    features_by_type: dict[str, Any] = {}
    for name, x in graph.features.items():
        if name not in without:
            ids, count = sample.nodes[name], sizes.nodes[name]
            features_by_type[name] = (_sparse_rows(x, ids, count, sizes.entries[name]) if isinstance(x, SparseRows)
                                      else _rows_of(x, ids, count))
    positions: dict[str, Any] = {name: _rows_of(x, sample.nodes[name], sizes.nodes[name])
                                 for name, x in graph.positions.items()}
    blocks = {pair: _block(edge_types, ends, sizes.nodes) for pair, edge_types in blocks_of(relations).items()}
    return HeteroGraph(features=features_by_type, relations=relations, blocks=blocks, positions=positions,
                       counts=tuple(sizes.nodes.items()), edge_types=tuple(relations))


def padded(array: np.ndarray, count: int) -> np.ndarray:
    """An array, and zeros up to `count` rows."""
    rows = np.zeros((count, *array.shape[1:]), array.dtype)
    rows[:len(array)] = array
    return rows


def _rows_of(array: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """The rows `ids` of an array, in memory or mapped, and zeros up to `count` rows."""
    rows = _aligned_empty((count, *array.shape[1:]), array.dtype)
    if array.flags.c_contiguous:
        np.take(array, ids, axis=0, out=rows[:ids.size], mode="clip")  # "raise" would copy what is taken once more
    else:  # columns of a wider array, say: `take` would copy all of it first
        rows[:ids.size] = array[ids]
    rows[ids.size:] = 0
    return rows


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`np.empty` at a multiple of 64 bytes: JAX on a CPU takes such an array as it is and copies any other."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + size].view(dtype).reshape(shape)


def _padded_ends(edges: SampledEdges, room: int, edge_type: EdgeType, real: Mapping[str, int],
                 nodes: Mapping[str, int]) -> Ends:
    """Senders and receivers, and edges between dummies up to `room` of them."""
    size, (source, _, destination) = edges.senders.size, edge_type
    senders, receivers = np.empty(room, np.int32), np.empty(room, np.int32)
    senders[:size], receivers[:size] = edges.senders, edges.receivers
    spare = np.arange(room - size)
    senders[size:] = real[source] + spare % (nodes[source] - real[source])
    receivers[size:] = _spread(spare, real[destination], nodes[destination])
    return senders, receivers


def _spread(spare: np.ndarray, first: int, end: int) -> np.ndarray:
    """For each of `spare` a dummy row in [first, end), ascending and evenly."""
    return first + spare * (end - first) // max(1, spare.size)


def _block(edge_types: tuple[EdgeType, ...], ends: Mapping[EdgeType, Ends], nodes: Mapping[str, int]) -> RelationBlock:
    """The block of relations that are ordered by receiver each: what `graph.blocks` makes of them by sorting."""
    count, width = nodes[edge_types[0][2]], len(edge_types)
    degrees = [np.bincount(ends[edge_type][1], minlength=count) for edge_type in edge_types]
    indptr = np.append(0, np.cumsum(sum(degrees))).astype(np.int32)
    rows, columns = np.empty((2, indptr[-1]), np.int32)
    mean, positions = np.empty(rows.size, np.float32), {}
    first = indptr[:-1].astype(np.int64)  # where the entries of a destination's next relation begin in the block
    for k, (edge_type, degree) in enumerate(zip(edge_types, degrees, strict=True)):
        senders, receivers = ends[edge_type]
        shift = first - (np.cumsum(degree) - degree)  # from a relation's own order to the block's
        place: Any = np.arange(receivers.size) + shift[receivers] if width > 1 else slice(None)
        rows[place], columns[place] = receivers, senders * np.int32(width) + np.int32(k)
        mean[place] = 1 / degree[receivers]
        if width > 1:
            positions[edge_type] = place.astype(np.int32)
        first += degree
    csr = _pattern(rows, columns, indptr, (count, nodes[edge_types[0][0]] * width))
    leaves: dict[str, Any] = {"mean": mean, "t_mean": mean[csr.t_entries], "positions": positions or None}
    return RelationBlock(csr=csr, adjacency=None, edge_types=edge_types, **leaves)


def _pattern(rows: np.ndarray, columns: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> CSR:
    """A pattern with its transpose by counting, where `CSR.from_sorted` checks and sorts."""
    entries: Any = scipy.sparse.csr_array((np.arange(rows.size, dtype=np.int32), columns, indptr), shape=shape).tocsc()
    leaves: dict[str, Any] = {"rows": rows, "cols": columns, "indptr": indptr, "t_entries": entries.data,
                              "t_rows": columns[entries.data], "t_cols": entries.indices, "t_indptr": entries.indptr}
    return CSR(**leaves, shape=shape)


def _sparse_rows(features: SparseRows, ids: np.ndarray, count: int, room: int) -> SparseFeatures:
    """The rows `ids` of sparse features; entries up to `room` are zeros of dummy rows."""
    starts = features.indptr[ids]
    sizes = features.indptr[ids + 1] - starts
    ends = np.cumsum(sizes)
    size = int(ends[-1]) if ids.size else 0
    entries = np.arange(size) + np.repeat(starts - (ends - sizes), sizes)
    rows, columns = np.empty(room, np.int32), np.zeros(room, np.int32)
    rows[:size] = np.repeat(np.arange(ids.size, dtype=np.int32), sizes)
    rows[size:] = _spread(np.arange(room - size), ids.size, count)
    columns[:size] = features.indices[entries]
    columns[size:] = np.arange(room - size) % max(1, features.shape[1])
    indptr = np.append(0, np.cumsum(np.bincount(rows, minlength=count))).astype(np.int32)
    data: Any = _rows_of(features.data, entries, room)
    csr = _pattern(rows, columns, indptr, (count, features.shape[1]))
    return SparseFeatures(csr=csr, data=data, t_data=data[csr.t_entries])
