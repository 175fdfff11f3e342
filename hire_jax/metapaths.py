"""Metapaths: proposed from a graph's schema, and made into node types that models can read.

A metapath is a walk along relations that ends at the target type. Here each becomes a node type of its own:
node i of type "author-paper-author" is author i as seen through that metapath. What a model computes for such
a type is an embedding of the target's nodes, so everything that compares node types (HIRE's type-pair
correlations above all) compares metapaths. Both functions run on the host, once, with scipy's products.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.sparse import SparseFeatures

Metapath = tuple[EdgeType, ...]
REACHES = "reaches"

# A propagated feature matrix is kept sparse below this share of stored entries.
_SPARSE_BELOW = 0.25


def metapath_name(path: Sequence[EdgeType], graph: HeteroGraph) -> str:
    """The types along a path joined by "-"; relations are named where two types have several.

    ("author", "to", "paper"), ("paper", "to", "author") is "author-paper-author".
    """
    parts = [path[0][0]]
    for source, relation, destination in path:
        ambiguous = graph.blocks[source, destination].num_relations > 1
        parts.append(f"({relation})-{destination}" if ambiguous else destination)
    return "-".join(parts)


def propose_metapaths(graph: HeteroGraph, target: str, *, max_length: int = 4) -> tuple[Metapath, ...]:
    """The metapaths the literature would write down for a schema: out along distinct types and back the same way.

    These are the relations from `target` to itself, and for every way out (of at most max_length / 2 relations,
    no type twice) the walk that returns along the same links reversed. Walks that meet the target in between
    are products of shorter ones and left out. For DBLP: APA, APTPA, APVPA (HAN, arXiv 1903.07293).

    Args:
      max_length: relations in a metapath, at least 1.

    Returns:
      The paths, shorter ones first, in the order of the graph's relations.

    Raises:
      GraphError: `target` is not a node type, max_length < 1, or there is no such metapath (a relation out has
        no reverse; `HeteroGraph.add_reverse_relations` adds them).
    """
    _check_target(graph, target)
    if max_length < 1:
        raise GraphError(f"max_length must be at least 1, got {max_length}")
    reverse = _reverses(graph)
    paths: list[Metapath] = [(edge_type,) for edge_type in graph.edge_types if edge_type[0] == edge_type[2] == target]
    for out in sorted(_ways_out(graph, target, max_length // 2), key=len):
        if all(edge_type in reverse for edge_type in out):
            paths.append(out + tuple(reverse[edge_type] for edge_type in reversed(out)))
    if not paths:
        raise GraphError(f"no metapath of at most {max_length} relations leads from {target!r} back to it along links "
                         "and their reverses; add_reverse_relations() may give some, or name them yourself")
    return tuple(paths)


def metapath_graph(graph: HeteroGraph, target: str, metapaths: Sequence[Sequence[EdgeType]] | None = None, *,
                   counts: bool = False, self_loops: bool = True) -> HeteroGraph:
    """The graph HAN reads: the target's nodes, and a node type for every metapath with one relation to the target.

    An edge (j -> i) of (path, "reaches", target) says that some walk along the path joins j to i, both nodes of
    the target type. The target keeps its features; the path types have none.

    Args:
      metapaths: each from `target` to `target`; None proposes them from the schema (`propose_metapaths`).
      counts: keeps the number of walks as float32 edge features; otherwise an edge is there or not.
      self_loops: every node is its own neighbour through every metapath, as in HAN's paper: a walk out and back
        leads there anyway but for nodes without links. An added loop counts as one walk.

    Raises:
      GraphError: `target` is not a node type; a path is empty, does not join, or does not start and end at
        `target`; two are the same or share a name.
    """
    _check_target(graph, target)
    paths = propose_metapaths(graph, target) if metapaths is None else [tuple(path) for path in metapaths]
    if len(set(paths)) < len(paths):
        raise GraphError(f"metapath {next(path for path in paths if paths.count(path) > 1)} is given twice")
    num_nodes, edges, features = {target: graph.num_nodes[target]}, {}, {}
    for path in paths:
        if path and (path[0][0], path[-1][2]) != (target, target):
            raise GraphError(f"a metapath must start and end at {target!r}, got {path[0][0]!r} to {path[-1][2]!r}")
        pairs, walks = graph.metapath(path)
        if self_loops:
            lonely = np.setdiff1d(np.arange(num_nodes[target]), pairs[0][pairs[0] == pairs[1]])
            pairs = np.concatenate([pairs, np.stack([lonely, lonely])], axis=1)
            walks = np.concatenate([walks, np.ones(lonely.size, walks.dtype)])
        name = metapath_name(path, graph)
        _add_named(num_nodes, name, num_nodes[target])
        edges[name, REACHES, target] = pairs
        if counts:
            features[name, REACHES, target] = walks.astype(np.float32)
    own = {target: graph.features[target]} if target in graph.features else {}
    return HeteroGraph.from_arrays(num_nodes, edges, own, features)


def propagated_graph(graph: HeteroGraph, target: str, *, hops: int, labels: Any = None, label_hops: int = 0,
                     one_hot: bool = False) -> HeteroGraph:
    """The graph SeHGNN reads (arXiv 2207.02547): features and labels averaged along metapaths beforehand.

    For every walk type of at most `hops` relations that ends at the target, with row-normalised adjacencies
    A_r = D_r^-1 A_r:

      X_path = A_1 A_2 ... A_k X_source

    becomes a node type named by the path with those features and no relations; the target itself keeps its own
    features. With labels, "label:" types follow for the walks of 1 .. label_hops relations from the target
    back to it, with the diagonal of their product set to 0, so that no node sees its own label.

    Args:
      hops: relations in a feature path, at least 1.
      labels: float[N_target, C], one-hot of the training nodes and 0 elsewhere; None leaves labels out.
      label_hops: relations in a label path; 0 without labels.
      one_hot: types without features, the target too, get one-hot rows, a column for each node, as in the authors'
        code: a path from them says which nodes it comes from. Products of long paths from large types fill, and a
        model has a row of weights for each column. Without it nothing is propagated from these types.

    Raises:
      GraphError: `target` is not a node type, a count is out of range, labels do not fit, no type has features (nor
        gets them), or two paths share a name.
    """
    _check_target(graph, target)
    if hops < 1 or label_hops < 0:
        raise GraphError(f"hops must be at least 1 and label_hops at least 0, got {hops} and {label_hops}")
    if (labels is None) != (label_hops == 0):
        raise GraphError("labels are propagated where both labels and label_hops are given, got "
                         f"{'no labels' if labels is None else 'labels'} and label_hops={label_hops}")
    count = graph.num_nodes[target]
    matrices = {edge_type: _row_normalised(graph, edge_type) for edge_type in graph.edge_types}
    given: dict[str, Any] = dict(graph.features)
    if one_hot:
        given |= {name: _graph_features(scipy.sparse.identity(nodes, np.float32, "csr"))
                  for name, nodes in graph.num_nodes.items() if nodes and name not in given}
    own = {name: _scipy_features(x) for name, x in given.items()}
    features: dict[str, Any] = {target: given[target]} if target in given else {}
    for path in _walks_into(graph, target, hops):
        if (source := path[0][0]) in own:
            product = own[source]
            for edge_type in path:
                product = matrices[edge_type] @ product
            _add_named(features, metapath_name(path, graph), _graph_features(product))
    if labels is not None:
        labels = np.asarray(labels, np.float32)
        if labels.ndim != 2 or labels.shape[0] != count:
            raise GraphError(f"labels must be one-hot [{count}, classes], got {list(labels.shape)}")
        for path in _walks_into(graph, target, label_hops):
            if path[0][0] == target:
                product = _product(path, matrices).copy()  # of one relation it is that relation's own matrix
                product.setdiag(0)
                _add_named(features, "label:" + metapath_name(path, graph), np.asarray(product @ labels))
    if not features:
        raise GraphError(f"no node type within {hops} relations of {target!r} has features to propagate")
    return HeteroGraph.from_arrays({target: count} | dict.fromkeys(features, count), {}, features)


def _check_target(graph: HeteroGraph, target: str) -> None:
    if target not in graph.num_nodes:
        raise GraphError(f"target {target!r} is not a node type of the graph, which has {list(graph.node_types)}")


def _add_named(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise GraphError(f"two metapaths have the name {name!r}; rename the node types or relations they share it by")
    found[name] = value


def _reverses(graph: HeteroGraph) -> dict[EdgeType, EdgeType]:
    """{relation: the relation with the same links reversed}, itself where it is symmetric."""
    edges = {edge_type: array[:, np.lexsort((array[0], array[1]))] for edge_type, array in graph.host_edges().items()}
    flipped = {edge_type: array[::-1][:, np.lexsort((array[1], array[0]))] for edge_type, array in edges.items()}
    return {one: other for one in edges for other in reversed(edges)
            if (one[0], one[2]) == (other[2], other[0]) and np.array_equal(edges[one], flipped[other])}


def _ways_out(graph: HeteroGraph, target: str, length: int) -> Iterator[Metapath]:
    """Walks that leave the target and visit no type twice, of 1 .. length relations."""
    def extend(path: Metapath, seen: frozenset[str]) -> Iterator[Metapath]:
        for edge_type in graph.edge_types:
            if edge_type[0] == (path[-1][2] if path else target) and edge_type[2] not in seen:
                longer = (*path, edge_type)
                yield longer
                if len(longer) < length:
                    yield from extend(longer, seen | {edge_type[2]})

    return extend((), frozenset({target})) if length > 0 else iter(())


def _walks_into(graph: HeteroGraph, target: str, length: int) -> list[Metapath]:
    """All walk types of 1 .. length relations that end at the target, shorter ones first."""
    found: list[Metapath] = []
    ends: list[Metapath] = [()]
    for _ in range(length):
        ends = [(edge_type, *path) for path in ends for edge_type in graph.edge_types
                if edge_type[2] == (path[0][0] if path else target)]
        found += ends
    return found


def _row_normalised(graph: HeteroGraph, edge_type: EdgeType) -> scipy.sparse.csr_matrix:
    relation = graph.relations[edge_type]
    senders, receivers = np.asarray(relation.senders), np.asarray(relation.receivers)
    shape = (graph.num_nodes[edge_type[2]], graph.num_nodes[edge_type[0]])
    degree = np.bincount(receivers, minlength=shape[0])
    weights = (1.0 / degree[receivers]).astype(np.float32)
    return scipy.sparse.csr_matrix((weights, (receivers, senders)), shape=shape)


def _product(path: Metapath, matrices: dict[EdgeType, scipy.sparse.csr_matrix]) -> scipy.sparse.csr_matrix:
    product = matrices[path[0]]
    for edge_type in path[1:]:
        product = matrices[edge_type] @ product
    return product


def _scipy_features(features: Any) -> Any:
    if not isinstance(features, SparseFeatures):
        return np.asarray(features, np.float32)
    arrays = (np.asarray(features.data), np.asarray(features.csr.cols), np.asarray(features.csr.indptr))
    return scipy.sparse.csr_matrix(arrays, shape=features.shape)


def _graph_features(product: Any) -> Any:
    if not scipy.sparse.issparse(product):
        return np.asarray(product, np.float32)
    if product.nnz >= _SPARSE_BELOW * product.shape[0] * product.shape[1]:
        return product.toarray().astype(np.float32)
    product = product.tocsr()
    product.sort_indices()
    return SparseFeatures.from_csr(product.indptr, product.indices, product.data, product.shape)
