"""Heterogeneous graphs: node types, relations, and the sparse patterns models aggregate over.

A `HeteroGraph` is a pytree. Its arrays can be moved, mapped and traced; its types, counts and shapes are
static. Every relation is a `jraph.GraphsTuple`. Beside them stands one `RelationBlock` for each (source type,
destination type): all relations between the two in one sparse pattern, so that the cost of a model in
operations grows with the number of type pairs and not with the number of relations.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse

from hire_jax.sparse import CSR, SparseFeatures

EdgeType = tuple[str, str, str]
Features = jax.Array | SparseFeatures


# A relation between at most _DENSE_PAIRS pairs that links more than this share of them also keeps the full matrix
# (a byte a pair): attention over all pairs is then cheaper than over the edges (docs/performance.md).
_DENSE_ABOVE = 0.05
_DENSE_PAIRS = 2 ** 28


class GraphError(ValueError):
    """A graph that cannot be built: the message names the type or relation, what was expected and what came."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelationBlock:
    """All R relations from one node type to another, as one pattern with E entries.

    Entries are ordered by destination, then relation, then source. Column `source * R + k` of the pattern is
    the message of `source` through relation k: reshaping per-relation messages [N_s, R, d] to [N_s * R, d]
    makes them the operand of one `spmm`. With R = 1 the column is the source itself.
    """

    csr: CSR  # [N_destination, N_source * R]
    mean: jax.Array  # float32[E], 1 / (number of entries of that destination and relation)
    t_mean: jax.Array  # float32[E], the same in the order of the transposed pattern
    positions: dict[EdgeType, jax.Array] | None  # int32[E_r], where relation r's edges stand; None if R = 1
    adjacency: jax.Array | None  # bool[N_destination, N_source] of one relation that links a good part of all pairs
    edge_types: tuple[EdgeType, ...] = dataclasses.field(metadata={"static": True})

    @property
    def num_relations(self) -> int:
        """R."""
        return len(self.edge_types)

    @property
    def relation_ids(self) -> jax.Array:
        """int32[E]: the index of each entry's relation in `edge_types`."""
        return self.csr.cols % self.num_relations

    def by_source(self) -> CSR:
        """The same entries with columns that are sources: [N_destination, N_source]."""
        return self.csr if self.num_relations == 1 else self.csr.merge_columns(self.num_relations)

    def by_relation(self) -> CSR:
        """The same entries with row `destination * R + k` for relation k: [N_destination * R, N_source]."""
        if self.num_relations == 1:
            return self.csr
        csr, width = self.by_source(), self.num_relations
        rows = csr.rows * width + self.relation_ids  # ascending: entries are ordered by destination, then relation
        return CSR(rows=rows, cols=csr.cols, indptr=jnp.searchsorted(rows, jnp.arange(csr.shape[0] * width + 1)
                   ).astype(jnp.int32), t_entries=csr.t_entries, t_rows=csr.t_rows,
                   t_cols=rows[csr.t_entries], t_indptr=csr.t_indptr, shape=(csr.shape[0] * width, csr.shape[1]))

    def split(self, values: jax.Array) -> dict[EdgeType, jax.Array]:
        """Values [E, ...] of the block's entries as {edge type: [E_r, ...]}, in each relation's own order."""
        if self.positions is None:
            return {self.edge_types[0]: values}
        return {edge_type: values[self.positions[edge_type]] for edge_type in self.edge_types}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeteroGraph:
    """A graph with typed nodes and typed edges. Build it with `from_arrays` or `from_graphs_tuple`.

    Attributes:
      features: {node type: float[N, F] or SparseFeatures}; a type without features is absent.
      relations: {(source, relation, destination): jraph.GraphsTuple}. `senders` index source nodes,
        `receivers` destination nodes; both are int32, ordered by receiver, then sender. `edges` holds edge
        features or None, `nodes` and `globals` are None, `n_node` is [number of destination nodes].
      blocks: {(source, destination): RelationBlock}.

    For the typed relations of arXiv 1703.06103 and its successors; `receivers` being sorted is relied upon.
    """

    features: dict[str, Features]
    relations: dict[EdgeType, jraph.GraphsTuple]
    blocks: dict[tuple[str, str], RelationBlock]
    counts: tuple[tuple[str, int], ...] = dataclasses.field(metadata={"static": True})
    edge_types: tuple[EdgeType, ...] = dataclasses.field(metadata={"static": True})

    # ------------------------------------------------------------------------------------------ building

    @classmethod
    def from_arrays(cls, num_nodes: Mapping[str, int], edges: Mapping[EdgeType, Any],
                    features: Mapping[str, Any] | None = None,
                    edge_features: Mapping[EdgeType, Any] | None = None) -> "HeteroGraph":
        """Builds and checks a graph on the host.

        Args:
          num_nodes: {type: count}; the order of the keys becomes the order of the types.
          edges: {(source, relation, destination): integers [2, E]}, row 0 the senders, row 1 the receivers, in
            any order. Duplicates, self loops, isolated nodes and relations without edges are allowed.
          features: {type: numbers [N, F] or SparseFeatures}; types may be missing.
          edge_features: {edge type: numbers [E] or [E, F]}, in the order of `edges`.

        Raises:
          GraphError: naming the type or relation, the first bad index, what was expected and what came.
        """
        counts = {name: _checked_count(name, count) for name, count in num_nodes.items()}
        if not counts:
            raise GraphError("num_nodes is empty: a graph needs at least one node type")
        checked = {_checked_edge_type(edge_type, counts): None for edge_type in edges}
        edge_features = dict(edge_features or {})
        for edge_type in edge_features:
            if edge_type not in checked:
                raise GraphError(f"edge_features has {_name(edge_type)}, which edges does not; "
                                 f"edges has {[_name(e) for e in checked]}")
        relations = {}
        for edge_type, array in edges.items():
            senders, receivers = _checked_edges(edge_type, array, counts)
            order = np.lexsort((senders, receivers))
            attributes = None
            if edge_type in edge_features:
                attributes = _checked_edge_features(edge_type, edge_features[edge_type], order.size)[order]
            relations[edge_type] = _relation(senders[order], receivers[order], attributes, counts[edge_type[2]])
        checked_features = {}
        for name, array in (features or {}).items():
            if name not in counts:
                raise GraphError(f"features are given for node type {name!r}, which is unknown; "
                                 f"num_nodes has {sorted(counts)}")
            checked_features[name] = _checked_features(name, array, counts[name])
        return cls(features=checked_features, relations=relations, blocks=_blocks(relations, counts),
                   counts=tuple(counts.items()), edge_types=tuple(relations))

    @classmethod
    def from_graphs_tuple(cls, graph: jraph.GraphsTuple, *, node_type: str = "node",
                          relation: str = "to") -> "HeteroGraph":
        """The one-type case: a homogeneous `jraph.GraphsTuple` (or a batch of them) with one relation.

        `nodes` may be None, an array [N, F] or `SparseFeatures`; `edges` None or an array [E] or [E, F].

        Raises:
          GraphError: as `from_arrays`, or when `nodes` or `edges` is another structure.
        """
        if graph.senders is None or graph.receivers is None:
            raise GraphError("the GraphsTuple has no senders or receivers: it must be a graph with edges given, "
                             "if only as empty arrays")
        for field in ("nodes", "edges"):
            value = getattr(graph, field)
            if value is not None and not hasattr(value, "shape"):
                raise GraphError(f"{field} of the GraphsTuple must be None or one array, got {type(value).__name__}")
        edge_type = (node_type, relation, node_type)
        return cls.from_arrays(
            num_nodes={node_type: int(np.sum(np.asarray(graph.n_node)))},
            edges={edge_type: np.stack([np.asarray(graph.senders), np.asarray(graph.receivers)])},
            features=None if graph.nodes is None else {node_type: graph.nodes},
            edge_features=None if graph.edges is None else {edge_type: np.asarray(graph.edges)})

    # ----------------------------------------------------------------------------------------- properties

    @property
    def node_types(self) -> tuple[str, ...]:
        """Node types, in the order they were given."""
        return tuple(name for name, _ in self.counts)

    @property
    def num_nodes(self) -> dict[str, int]:
        """{node type: number of nodes}; static, so usable as a shape under jit."""
        return dict(self.counts)

    @property
    def num_edges(self) -> dict[EdgeType, int]:
        """{edge type: number of edges}; static."""
        return {edge_type: self.relations[edge_type].senders.shape[-1] for edge_type in self.edge_types}

    def blocks_into(self, destination: str) -> list[tuple[str, RelationBlock]]:
        """[(source type, block)] of all relations into one node type, in the order of `node_types`."""
        return [(source, self.blocks[source, destination]) for source in self.node_types
                if (source, destination) in self.blocks]

    def receptive_field(self, target: str, layers: int) -> tuple[tuple[str, ...], ...]:
        """Which node types each layer of a message-passing model must compute to know `target` at the end.

        Returns:
          `layers + 1` tuples: entry 0 is needed of the input projection, the last is (target,).

        Raises:
          GraphError: `target` is not a node type.
        """
        if target not in self.num_nodes:
            raise GraphError(f"target {target!r} is not a node type of the graph, which has {list(self.node_types)}")
        needed = [{target}]
        for _ in range(layers):
            sources = {s for s, d in self.blocks if d in needed[0]}
            needed.insert(0, needed[0] | sources)
        return tuple(tuple(name for name in self.node_types if name in types) for types in needed)

    # ------------------------------------------------------------------------------------ transformations

    def host_edges(self) -> dict[EdgeType, np.ndarray]:
        """{edge type: int32[2, E]} on the host, in the order of `relations`."""
        return {edge_type: np.stack([np.asarray(self.relations[edge_type].senders),
                                     np.asarray(self.relations[edge_type].receivers)])
                for edge_type in self.edge_types}

    def add_relations(self, edges: Mapping[EdgeType, Any],
                      edge_features: Mapping[EdgeType, Any] | None = None) -> "HeteroGraph":
        """A new graph with further relations. Raises GraphError for a relation that exists already."""
        for edge_type in edges:
            if edge_type in self.relations:
                raise GraphError(f"relation {_name(edge_type)} exists already")
        attributes = {edge_type: np.asarray(graph.edges) for edge_type, graph in self.relations.items()
                      if graph.edges is not None}
        return HeteroGraph.from_arrays(self.num_nodes, {**self.host_edges(), **edges}, self.features,
                                       {**attributes, **(edge_features or {})})

    def add_reverse_relations(self, *, prefix: str = "rev_") -> "HeteroGraph":
        """A new graph in which every relation has its reverse, named `prefix + relation`.

        A relation keeps as it is when one with the same edges reversed is there already (a symmetric relation
        within one type is its own reverse). Edge features go along.
        """
        edges = self.host_edges()
        reversed_sets = {edge_type: _sorted_pairs(array[::-1]) for edge_type, array in edges.items()}
        pairs = {edge_type: _sorted_pairs(array) for edge_type, array in edges.items()}
        new, attributes = {}, {}
        for (source, relation, destination), array in edges.items():
            edge_type = (source, relation, destination)
            if any((s, d) == (destination, source) and np.array_equal(pairs[s, r, d], reversed_sets[edge_type])
                   for s, r, d in self.edge_types):
                continue
            reverse = (destination, prefix + relation, source)
            new[reverse] = array[::-1]
            if (features := self.relations[edge_type].edges) is not None:
                attributes[reverse] = np.asarray(features)
        return self.add_relations(new, attributes) if new else self

    def keep_features(self, types: Sequence[str]) -> "HeteroGraph":
        """The same graph in which only `types` have features; models give the others a learned row a node.

        Raises:
          GraphError: a type is unknown.
        """
        if isinstance(types, str):
            raise GraphError(f"types must be a list of node types, got the string {types!r}")
        for name in types:
            if name not in self.num_nodes:
                raise GraphError(f"types names node type {name!r}, which is unknown; the graph has "
                                 f"{list(self.node_types)}")
        return dataclasses.replace(self, features={name: x for name, x in self.features.items() if name in types})

    def metapath(self, path: Sequence[EdgeType]) -> tuple[np.ndarray, np.ndarray]:
        """Composes relations by sparse products: which pairs a metapath joins, and by how many paths.

        Args:
          path: edge types, each starting where the one before ends, e.g.
            [("movie", "to", "actor"), ("actor", "to", "movie")].

        Returns:
          edges int32[2, E] from the first source to the last destination, without duplicates, ordered by
          receiver, then sender; counts int64[E], the number of distinct paths (duplicate edges multiply).

        Raises:
          GraphError: the path is empty, a relation is unknown, or two do not join.
        """
        if not path:
            raise GraphError("a metapath needs at least one relation")
        product = None
        for step, edge_type in enumerate(path):
            if edge_type not in self.relations:
                raise GraphError(f"metapath step {step} is {_name(edge_type)}, which is unknown; "
                                 f"the graph has {[_name(e) for e in self.edge_types]}")
            if step and path[step - 1][2] != edge_type[0]:
                raise GraphError(f"metapath step {step} starts at {edge_type[0]!r}, "
                                 f"but the step before it ends at {path[step - 1][2]!r}")
            senders, receivers = self.host_edges()[edge_type]
            shape = (self.num_nodes[edge_type[2]], self.num_nodes[edge_type[0]])
            matrix = scipy.sparse.csr_matrix((np.ones(senders.size, np.int64), (receivers, senders)), shape=shape)
            product = matrix if product is None else matrix @ product
        assert product is not None
        product.sort_indices()
        entries = product.tocoo()
        return np.stack([entries.col, entries.row]).astype(np.int32), entries.data

    def permute(self, order: Mapping[str, Any]) -> "HeteroGraph":
        """A new graph whose node i of a type is this graph's node `order[type][i]`; other types keep theirs.

        Raises:
          GraphError: an unknown type, or an order that is not a permutation.
        """
        inverse = {name: np.arange(count) for name, count in self.counts}
        features = dict(self.features)
        for name, permutation in order.items():
            permutation = np.asarray(permutation)
            if name not in inverse:
                raise GraphError(f"order names node type {name!r}, which is unknown; the graph has "
                                 f"{list(self.node_types)}")
            if not np.array_equal(np.sort(permutation), inverse[name]):
                raise GraphError(f"order[{name!r}] must hold each of 0 .. {inverse[name].size - 1} once")
            inverse[name] = np.argsort(permutation)
            if name in features:
                value = features[name]
                features[name] = (value.take_rows(permutation) if isinstance(value, SparseFeatures)
                                  else value[permutation])
        edges = {(s, r, d): np.stack([inverse[s][array[0]], inverse[d][array[1]]])
                 for (s, r, d), array in self.host_edges().items()}
        attributes = {edge_type: np.asarray(graph.edges) for edge_type, graph in self.relations.items()
                      if graph.edges is not None}
        return HeteroGraph.from_arrays(self.num_nodes, edges, features, attributes)

    def to_graphs_tuple(self) -> jraph.GraphsTuple:
        """Homogenises: all types' nodes one after another, all relations' edges ordered by receiver.

        Returns:
          A GraphsTuple of one graph. `nodes` is {"type": int32[N]} with indices into `node_types`, and
          {"features": float[N, F]} too where every type has dense features of one width F. `edges` is
          {"relation": int32[E]} with indices into `edge_types`. Edge features are not carried.
        """
        starts = dict(zip(self.node_types, np.cumsum([0, *(count for _, count in self.counts)]), strict=False))
        edges = [np.stack([array[0] + starts[s], array[1] + starts[d]])
                 for (s, _, d), array in self.host_edges().items()]
        joined = np.concatenate([*edges, np.zeros((2, 0), np.int32)], axis=1)
        relation = np.repeat(np.arange(len(edges)), [array.shape[1] for array in edges])
        order = np.lexsort((relation, joined[0], joined[1]))
        nodes = {"type": jnp.asarray(np.repeat(np.arange(len(self.counts)), [n for _, n in self.counts]), jnp.int32)}
        present = [self.features.get(name) for name in self.node_types]
        dense = [x for x in present if x is not None and not isinstance(x, SparseFeatures)]
        if len(dense) == len(present) and len({x.shape[1] for x in dense}) == 1:
            nodes["features"] = jnp.concatenate(dense)
        return jraph.GraphsTuple(
            nodes=nodes, edges={"relation": jnp.asarray(relation[order], jnp.int32)},
            senders=jnp.asarray(joined[0][order], jnp.int32), receivers=jnp.asarray(joined[1][order], jnp.int32),
            n_node=jnp.asarray([sum(self.num_nodes.values())], jnp.int32),
            n_edge=jnp.asarray([joined.shape[1]], jnp.int32), globals=None)


# ---------------------------------------------------------------------------------------- construction


def _relation(senders: np.ndarray, receivers: np.ndarray, attributes: np.ndarray | None,
              num_receivers: int) -> jraph.GraphsTuple:
    return jraph.GraphsTuple(
        nodes=None, edges=None if attributes is None else jnp.asarray(attributes),
        senders=jnp.asarray(senders, jnp.int32), receivers=jnp.asarray(receivers, jnp.int32),
        n_node=jnp.asarray([num_receivers], jnp.int32), n_edge=jnp.asarray([senders.size], jnp.int32), globals=None)


def _blocks(relations: Mapping[EdgeType, jraph.GraphsTuple],
            counts: Mapping[str, int]) -> dict[tuple[str, str], RelationBlock]:
    members: dict[tuple[str, str], list[EdgeType]] = {}
    for edge_type in relations:
        members.setdefault((edge_type[0], edge_type[2]), []).append(edge_type)
    return {pair: _block(tuple(edge_types), relations, counts) for pair, edge_types in members.items()}


def _block(edge_types: tuple[EdgeType, ...], relations: Mapping[EdgeType, jraph.GraphsTuple],
           counts: Mapping[str, int]) -> RelationBlock:
    source, _, destination = edge_types[0]
    width = len(edge_types)
    senders = [np.asarray(relations[edge_type].senders) for edge_type in edge_types]
    receivers = np.concatenate([np.asarray(relations[edge_type].receivers) for edge_type in edge_types])
    relation = np.repeat(np.arange(width), [array.size for array in senders])
    columns = np.concatenate(senders).astype(np.int64) * width + relation
    order = np.argsort(receivers, kind="stable")  # relations follow each other, so ties keep their order
    rows, columns, relation = receivers[order].astype(np.int64), columns[order], relation[order]
    degree = np.bincount(rows * width + relation, minlength=counts[destination] * width)
    mean = 1.0 / degree[rows * width + relation]
    positions = None
    if width > 1:
        grouped = np.split(np.argsort(relation, kind="stable"), np.cumsum([array.size for array in senders])[:-1])
        positions = {edge_type: jnp.asarray(index, jnp.int32)
                     for edge_type, index in zip(edge_types, grouped, strict=True)}
    csr = CSR.from_sorted(rows, columns, (counts[destination], counts[source] * width))
    mean = jnp.asarray(mean, jnp.float32)
    return RelationBlock(csr=csr, mean=mean, t_mean=mean[csr.t_entries], positions=positions,
                         adjacency=_dense_adjacency(rows, columns, csr.shape) if width == 1 else None,
                         edge_types=edge_types)


def _dense_adjacency(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> jax.Array | None:
    """Which pairs are linked, where that is many of them, none twice, and the matrix is not too large."""
    pairs = shape[0] * shape[1]
    if not _DENSE_ABOVE * pairs < rows.size <= pairs <= _DENSE_PAIRS:
        return None
    adjacency = np.zeros(shape, np.bool_)
    adjacency[rows, columns] = True
    return jnp.asarray(adjacency) if np.count_nonzero(adjacency) == rows.size else None


def _sorted_pairs(edges: np.ndarray) -> np.ndarray:
    return edges[:, np.lexsort((edges[0], edges[1]))]


# --------------------------------------------------------------------------------------------- checking


def _name(edge_type: EdgeType) -> str:
    return "(" + ", ".join(map(str, edge_type)) + ")"


def _checked_count(name: str, count: Any) -> int:
    if not isinstance(name, str):
        raise GraphError(f"a node type must be a string, got {name!r}")
    if isinstance(count, bool) or not np.issubdtype(np.asarray(count).dtype, np.integer) or np.ndim(count):
        raise GraphError(f"num_nodes[{name!r}] must be an integer, got {count!r}")
    if count < 0:
        raise GraphError(f"num_nodes[{name!r}] must not be negative, got {count}")
    return int(count)


def _checked_edge_type(edge_type: Any, counts: Mapping[str, int]) -> EdgeType:
    if not (isinstance(edge_type, tuple) and len(edge_type) == 3 and all(isinstance(x, str) for x in edge_type)):
        raise GraphError(f"an edge type must be a tuple (source, relation, destination) of strings, got {edge_type!r}")
    for end, name in (("source", edge_type[0]), ("destination", edge_type[2])):
        if name not in counts:
            raise GraphError(f"relation {_name(edge_type)}: {end} type {name!r} is unknown; "
                             f"num_nodes has {sorted(counts)}")
    return edge_type


def _checked_edges(edge_type: EdgeType, edges: Any, counts: Mapping[str, int]) -> np.ndarray:
    try:
        array = np.asarray(edges)
    except ValueError as error:  # lists of different lengths
        raise GraphError(f"relation {_name(edge_type)}: edges must have shape [2, E] (senders, receivers); "
                         f"{error}") from error
    if array.ndim != 2 or array.shape[0] != 2:
        raise GraphError(f"relation {_name(edge_type)}: edges must have shape [2, E] (senders, receivers), "
                         f"got {list(array.shape)}")
    if array.shape[1] == 0:
        return np.zeros((2, 0), np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise GraphError(f"relation {_name(edge_type)}: edges must be integers, got {array.dtype}")
    for row, end, name in ((0, "sender", edge_type[0]), (1, "receiver", edge_type[2])):
        bad = (array[row] < 0) | (array[row] >= counts[name])
        if bad.any():
            first = int(bad.argmax())
            raise GraphError(f"relation {_name(edge_type)}: {end} of edge {first} is {array[row, first]}, outside "
                             f"[0, {counts[name]}) of node type {name!r} ({int(bad.sum())} such edges)")
    return array.astype(np.int64)


def _checked_features(name: str, features: Any, count: int) -> Features:
    if isinstance(features, SparseFeatures):
        if features.shape[0] != count:
            raise GraphError(f"features of {name!r} have {features.shape[0]} rows, expected {count}")
        return features
    array = np.asarray(features)
    if array.ndim != 2:
        raise GraphError(f"features of {name!r} must have shape [N, F], got {list(array.shape)}")
    if array.shape[0] != count:
        raise GraphError(f"features of {name!r} have {array.shape[0]} rows, expected {count}")
    return jnp.asarray(_checked_numbers(f"features of {name!r}", array))


def _checked_edge_features(edge_type: EdgeType, features: Any, count: int) -> np.ndarray:
    array = np.asarray(features)
    if array.ndim not in (1, 2) or array.shape[0] != count:
        raise GraphError(f"relation {_name(edge_type)}: edge features must have shape [{count}] or [{count}, F], "
                         f"got {list(array.shape)}")
    return _checked_numbers(f"relation {_name(edge_type)}: edge features", array)


def _checked_numbers(what: str, array: np.ndarray) -> np.ndarray:
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
            or array.dtype == np.bool_ or array.dtype == jnp.bfloat16):
        raise GraphError(f"{what} must be numbers, got {array.dtype}")
    if np.issubdtype(array.dtype, np.floating) or array.dtype == jnp.bfloat16:
        finite = np.isfinite(array)
        if not finite.all():
            first = np.unravel_index(int(np.argmin(finite)), array.shape)
            raise GraphError(f"{what}: the value at {tuple(int(i) for i in first)} is {array[first]}, expected a "
                             f"finite number ({int((~finite).sum())} such values)")
        return array
    return array.astype(np.float32)
