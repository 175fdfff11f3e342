"""Heterogeneous graphs: node types, relations, and the sparse patterns models aggregate over.

A `HeteroGraph` is a pytree. Its arrays can be moved, mapped and traced; its types, counts and shapes are
static. Every relation is a `jraph.GraphsTuple`. Beside them stands one `RelationBlock` for each (source type,
destination type): all relations between the two in one sparse pattern, so that the cost of a model in
operations grows with the number of type pairs and not with the number of relations.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import scipy.sparse

from hire_jax.graph.blocks import RelationBlock, relation_blocks
from hire_jax.graph.checks import (
    GraphError,
    check_indices,
    checked_count,
    checked_edge_features,
    checked_edge_type,
    checked_edges,
    checked_features,
    checked_mapping,
    edge_name,
)
from hire_jax.graph.homogenise import homogenise
from hire_jax.graph.types import EdgeType, Features
from hire_jax.sparse import SparseFeatures


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
      positions: {node type: float[N, k]}, positional encodings for models that read them; {} until
        `with_positions` gives some. Methods that change edges leave them out.
      halo: of a graph that is one device's part of a larger one (`hire_jax.parallel.partition`): brings the rows of a
        type, [N, d], that other devices compute up to date. None of a whole graph.

    For the typed relations of arXiv 1703.06103 and its successors; `receivers` being sorted is relied upon.
    """

    features: dict[str, Features]
    relations: dict[EdgeType, jraph.GraphsTuple]
    blocks: dict[tuple[str, str], RelationBlock]
    counts: tuple[tuple[str, int], ...] = dataclasses.field(metadata={"static": True})
    edge_types: tuple[EdgeType, ...] = dataclasses.field(metadata={"static": True})
    positions: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    halo: Callable[[str, jax.Array], jax.Array] | None = None

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
        counts = {name: checked_count(name, count) for name, count in checked_mapping("num_nodes", num_nodes).items()}
        if not counts:
            raise GraphError("num_nodes is empty: a graph needs at least one node type")
        checked = {checked_edge_type(edge_type, counts): None for edge_type in checked_mapping("edges", edges)}
        check_indices(checked, counts)
        edge_features = {} if edge_features is None else checked_mapping("edge_features", edge_features)
        for edge_type in edge_features:
            if checked_edge_type(edge_type, counts) not in checked:
                raise GraphError(f"edge_features has {edge_name(edge_type)}, which edges does not; "
                                 f"edges has {[edge_name(e) for e in checked]}")
        relations = {}
        for edge_type, array in edges.items():
            senders, receivers = checked_edges(edge_type, array, counts)
            order = np.lexsort((senders, receivers))
            attributes = None
            if edge_type in edge_features:
                attributes = checked_edge_features(edge_type, edge_features[edge_type], order.size)[order]
            relations[edge_type] = _relation(senders[order], receivers[order], attributes, counts[edge_type[2]])
        features_by_type = {}
        for name, array in ({} if features is None else checked_mapping("features", features)).items():
            if name not in counts:
                raise GraphError(f"features are given for node type {name!r}, which is unknown; "
                                 f"num_nodes has {sorted(counts)}")
            features_by_type[name] = checked_features(name, array, counts[name])
        return cls(features=features_by_type, relations=relations, blocks=relation_blocks(relations, counts),
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

    def refreshed(self, hidden: Mapping[str, Any], destinations: Sequence[str]) -> dict[str, Any]:
        """What a layer of these destinations reads: where the graph is a part of a larger one, with its halo exchanged.

        A model calls it on {type: [N, d]} before each layer, after dropout. A whole graph gives `hidden` as it is.

        Raises:
          GraphError: rows of a halo that are sparse features, which cannot be exchanged.
        """
        if self.halo is None:
            return dict(hidden)
        read = {source for destination in destinations for source, _ in self.blocks_into(destination)}
        if sparse := [name for name, x in hidden.items() if name in read and isinstance(x, SparseFeatures)]:
            raise GraphError(f"a layer reads the sparse features of {sparse[0]!r} as they are, and a graph in parts "
                             "cannot exchange them; a model with projection=True exchanges what it makes of them")
        return {name: self.halo(name, x) if name in read else x for name, x in hidden.items()}

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
                raise GraphError(f"relation {edge_name(edge_type)} exists already")
        attributes = {edge_type: np.asarray(graph.edges) for edge_type, graph in self.relations.items()
                      if graph.edges is not None}
        return HeteroGraph.from_arrays(self.num_nodes, {**self.host_edges(), **edges}, self.features,
                                       {**attributes, **(edge_features or {})})

    def add_reverse_relations(self, *, prefix: str = "rev_") -> "HeteroGraph":
        """A new graph in which every relation has its reverse, named `prefix + relation`.

        A relation keeps as it is when one with the same edges reversed is there already (a symmetric relation
        within one type is its own reverse). Edge features go along.
        """
        new, attributes = {}, {}
        for edge_type, array in self.host_edges().items():
            if self.reverse_of(edge_type) is not None:
                continue
            source, relation, destination = edge_type
            reverse = (destination, prefix + relation, source)
            new[reverse] = array[::-1]
            if (features := self.relations[edge_type].edges) is not None:
                attributes[reverse] = np.asarray(features)
        return self.add_relations(new, attributes) if new else self

    def reverse_of(self, edge_type: EdgeType) -> EdgeType | None:
        """The relation that has the same edges the other way, itself if it is symmetric; None where there is none."""
        def pairs(name: EdgeType) -> np.ndarray:
            return np.stack([np.asarray(self.relations[name].senders), np.asarray(self.relations[name].receivers)])

        candidates = [other for other in self.edge_types if (other[0], other[2]) == (edge_type[2], edge_type[0])
                      and self.num_edges[other] == self.num_edges[edge_type]]
        if not candidates:
            return None
        wanted = _sorted_pairs(pairs(edge_type)[::-1])
        return next((other for other in candidates if np.array_equal(_sorted_pairs(pairs(other)), wanted)), None)

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

    def with_positions(self, positions: Mapping[str, Any]) -> "HeteroGraph":
        """The same graph with positional encodings, such as `hire_jax.positions.laplacian_positions` makes.

        Args:
          positions: {node type: float[N, k]} of one k; types may be missing.

        Raises:
          GraphError: a type is unknown, an array does not fit it, or widths differ.
        """
        checked = {}
        for name, array in positions.items():
            if name not in self.num_nodes:
                raise GraphError(f"positions are given for node type {name!r}, which is unknown; the graph has "
                                 f"{list(self.node_types)}")
            rows = checked_features(name, array, self.num_nodes[name])
            if isinstance(rows, SparseFeatures):
                raise GraphError(f"positions[{name!r}] must be a dense array")
            checked[name] = rows
        if len({rows.shape[1] for rows in checked.values()}) > 1:
            raise GraphError(f"positions must have one width, got { {n: x.shape[1] for n, x in checked.items()} }")
        return dataclasses.replace(self, positions=checked)

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
                raise GraphError(f"metapath step {step} is {edge_name(edge_type)}, which is unknown; "
                                 f"the graph has {[edge_name(e) for e in self.edge_types]}")
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
        positions = {name: rows[np.argsort(inverse[name])] for name, rows in self.positions.items()}
        return HeteroGraph.from_arrays(self.num_nodes, edges, features, attributes).with_positions(positions)

    def to_graphs_tuple(self) -> jraph.GraphsTuple:
        """Homogenises: all types' nodes one after another, all relations' edges ordered by receiver.

        Returns:
          A GraphsTuple of one graph. `nodes` is {"type": int32[N]} with indices into `node_types`, and
          {"features": float[N, F]} too where every type has dense features of one width F. `edges` is
          {"relation": int32[E]} with indices into `edge_types`. Edge features are not carried.
        """
        return homogenise(self.num_nodes, self.host_edges(), self.features)


def _relation(senders: np.ndarray, receivers: np.ndarray, attributes: np.ndarray | None,
              num_receivers: int) -> jraph.GraphsTuple:
    return jraph.GraphsTuple(
        nodes=None, edges=None if attributes is None else jnp.asarray(attributes),
        senders=jnp.asarray(senders, jnp.int32), receivers=jnp.asarray(receivers, jnp.int32),
        n_node=jnp.asarray([num_receivers], jnp.int32), n_edge=jnp.asarray([senders.size], jnp.int32), globals=None)


def _sorted_pairs(edges: np.ndarray) -> np.ndarray:
    return edges[:, np.lexsort((edges[0], edges[1]))]
