"""The graph a sampler reads: on the host, each relation by destination, no array of it on a device."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jraph
import numpy as np

from hire_jax.graph import EdgeType, GraphError, HeteroGraph, RelationBlock
from hire_jax.graph.checks import checked_count, checked_edge_type, checked_edges, edge_name
from hire_jax.sampling.features import HostFeatures, SparseRows, checked_edge_rows, checked_rows, on_host
from hire_jax.sparse import CSR, SparseFeatures


@dataclasses.dataclass(frozen=True)
class Incoming:
    """The edges of one relation: the neighbours of destination i are senders[indptr[i]:indptr[i + 1]], ascending."""

    indptr: np.ndarray  # int64[N_destination + 1]
    senders: np.ndarray  # int32[E]
    features: np.ndarray | None = None  # [E] or [E, F]


@dataclasses.dataclass(frozen=True)
class HostGraph:
    """A typed graph in host memory, or in files mapped into it. Build it with `from_graph` or `from_arrays`; the
    constructor takes arrays that have this form already, mapped ones too, and does not look into them.

    Attributes:
      counts: {node type: number of nodes}, in the order of the types.
      relations: {edge type: Incoming}.
      features: {node type: [N, F] or SparseRows}; types may be missing.
      positions: {node type: [N, k]}, positional encodings; types may be missing.

    An edge takes 4 bytes, a node 8 for each relation into its type.
    """

    counts: dict[str, int]
    relations: dict[EdgeType, Incoming]
    features: dict[str, HostFeatures]
    positions: dict[str, np.ndarray]

    @classmethod
    def from_graph(cls, graph: HeteroGraph) -> "HostGraph":
        """The host's side of a graph. On a CPU its large arrays are shared, not copied."""
        relations = {}
        for edge_type, relation in graph.relations.items():
            features = None if relation.edges is None else np.asarray(relation.edges)
            indptr = _indptr(np.asarray(relation.receivers), graph.num_nodes[edge_type[2]])
            relations[edge_type] = Incoming(indptr, np.asarray(relation.senders), features)
        return cls(graph.num_nodes, relations, {name: on_host(x) for name, x in graph.features.items()},
                   {name: np.asarray(x) for name, x in graph.positions.items()})

    @classmethod
    def from_arrays(cls, num_nodes: Mapping[str, int], edges: Mapping[EdgeType, Any],
                    features: Mapping[str, Any] | None = None, edge_features: Mapping[EdgeType, Any] | None = None,
                    positions: Mapping[str, Any] | None = None) -> "HostGraph":
        """Builds and checks a graph without the device copies of `HeteroGraph.from_arrays`.

        Args:
          num_nodes, edges, features, edge_features: as there. Matrices stay as they are where JAX can take their rows
            (`sampling.features`): those that `np.load(mmap_mode="r")` gave stay on the disk, and their values are not
            looked at. Edges are sorted by receiver, then sender; where they are not in that order, their features are
            put into it, which makes a copy.
          positions: {type: [N, k]}, positional encodings.

        Raises:
          GraphError: naming the type or relation, what was expected and what came.
        """
        counts = {name: checked_count(name, count) for name, count in num_nodes.items()}
        if not counts:
            raise GraphError("num_nodes is empty: a graph needs at least one node type")
        attributes = dict(edge_features or {})
        if unknown := [edge_type for edge_type in attributes if edge_type not in edges]:
            raise GraphError(f"edge_features has {edge_name(unknown[0])}, which edges does not; "
                             f"edges has {[edge_name(e) for e in edges]}")
        relations = {}
        for edge_type, array in edges.items():
            pairs = checked_edges(checked_edge_type(edge_type, counts), array, counts)
            of_edges = attributes.get(edge_type)
            if of_edges is not None:
                of_edges = checked_edge_rows(edge_type, of_edges, pairs.shape[1])
            relations[edge_type] = _incoming(pairs, of_edges, counts[edge_type[0]], counts[edge_type[2]])
        matrices: dict[str, dict[str, Any]] = {"features": {}, "positions": {}}
        for what, given in (("features", features), ("positions", positions)):
            for name, rows in (given or {}).items():
                matrices[what][name] = checked_rows(what, name, rows, counts)
        return cls(counts, relations, **matrices)

    def shapes(self) -> HeteroGraph:
        """A graph of `jax.ShapeDtypeStruct`s with the whole graph's types, counts and widths, but no edges.

        `model.lazy_init(key, graph.shapes())` gives the parameters of the whole graph, the rows of types without
        features included, and puts nothing but them on the device.
        """
        relations = {edge_type: jraph.GraphsTuple(
            nodes=None, edges=None, senders=_shape(0), receivers=_shape(0), globals=None, n_node=_shape(1),
            n_edge=_shape(1)) for edge_type in self.relations}
        blocks = {pair: _no_edges(edge_types, self.counts) for pair, edge_types in blocks_of(relations).items()}
        rows = {name: _no_entries(x) if isinstance(x, SparseRows) else _shape(*x.shape, dtype=x.dtype)
                for name, x in self.features.items()}
        return HeteroGraph(features=rows, relations=relations, blocks=blocks, counts=tuple(self.counts.items()),
                           edge_types=tuple(relations),
                           positions={name: _shape(*x.shape, dtype=x.dtype) for name, x in self.positions.items()})


def blocks_of(relations: Mapping[EdgeType, Any]) -> dict[tuple[str, str], tuple[EdgeType, ...]]:
    """{(source, destination): the relations between the two}, as `HeteroGraph.blocks` groups them."""
    members: dict[tuple[str, str], tuple[EdgeType, ...]] = {}
    for edge_type in relations:
        pair = edge_type[0], edge_type[2]
        members[pair] = (*members.get(pair, ()), edge_type)
    return members


def _incoming(pairs: np.ndarray, features: np.ndarray | None, sources: int, destinations: int) -> Incoming:
    """Edges int64[2, E] ordered by receiver, then sender; duplicates keep their order."""
    keys = pairs[1] * sources + pairs[0]  # below 2**62; one array to sort instead of two to sort by
    if np.any(keys[1:] < keys[:-1]):
        if features is None:
            keys.sort()
        else:
            order = np.argsort(keys, kind="stable")
            keys, features = keys[order], features[order]
    receivers, senders = np.divmod(keys, max(1, sources))
    return Incoming(_indptr(receivers, destinations), senders.astype(np.int32), features)


def _indptr(receivers: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(receivers, minlength=count))]).astype(np.int64)


def _shape(*shape: int, dtype: Any = np.int32) -> Any:
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype))


def _pattern(rows: int, columns: int) -> CSR:
    """The shapes of a pattern without entries."""
    return CSR(rows=_shape(0), cols=_shape(0), indptr=_shape(rows + 1), t_entries=_shape(0), t_rows=_shape(0),
               t_cols=_shape(0), t_indptr=_shape(columns + 1), shape=(rows, columns))


def _no_edges(edge_types: tuple[EdgeType, ...], counts: Mapping[str, int]) -> RelationBlock:
    width, (source, _, destination) = len(edge_types), edge_types[0]
    weights = _shape(0, dtype=np.float32)
    return RelationBlock(csr=_pattern(counts[destination], counts[source] * width), mean=weights, t_mean=weights,
                         positions=dict.fromkeys(edge_types, _shape(0)) if width > 1 else None, adjacency=None,
                         edge_types=edge_types)


def _no_entries(rows: SparseRows) -> SparseFeatures:
    data = _shape(0, dtype=rows.data.dtype)
    return SparseFeatures(csr=_pattern(*rows.shape), data=data, t_data=data)
