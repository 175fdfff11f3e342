"""HeteroGraph: what is checked, how edges are ordered, and that every transformation keeps the same graph."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax import GraphError, HeteroGraph, SparseFeatures
from hire_jax.sparse import spmm

WRITES, REVIEWS, CITES = ("author", "writes", "paper"), ("author", "reviews", "paper"), ("paper", "cites", "paper")
HOSTS = ("venue", "hosts", "author")


def same(left, right):
    """Whether two graphs agree in everything."""
    if hash(jax.tree.structure(left)) != hash(jax.tree.structure(right)):
        return False
    return all(np.array_equal(a, b) and a.dtype == b.dtype
               for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def adjacency(graph, edge_type):
    """int[N_destination, N_source]: how often each edge occurs."""
    source, _, destination = edge_type
    matrix = np.zeros((graph.num_nodes[destination], graph.num_nodes[source]), int)
    relation = graph.relations[edge_type]
    np.add.at(matrix, (np.asarray(relation.receivers), np.asarray(relation.senders)), 1)
    return matrix


# ----------------------------------------------------------------------------------------------- building


def test_attributes(awkward, awkward_arrays):
    nodes, edges, features = awkward_arrays
    assert awkward.node_types == ("paper", "author", "venue")
    assert awkward.num_nodes == nodes
    assert awkward.edge_types == tuple(edges)
    assert awkward.num_edges == {edge_type: array.shape[1] for edge_type, array in edges.items()}
    assert set(awkward.features) == {"paper", "author"}
    np.testing.assert_array_equal(awkward.features["paper"], features["paper"])
    np.testing.assert_array_equal(awkward.features["author"].todense(), features["author"].todense())


def test_relations_are_graphs_tuples_sorted_by_receiver_then_sender(awkward, awkward_arrays):
    for edge_type, array in awkward_arrays[1].items():
        relation = awkward.relations[edge_type]
        assert isinstance(relation, jraph.GraphsTuple)
        assert relation.senders.dtype == relation.receivers.dtype == relation.n_node.dtype == jnp.int32
        pairs = list(zip(relation.receivers.tolist(), relation.senders.tolist(), strict=True))
        assert pairs == sorted(zip(array[1].tolist(), array[0].tolist(), strict=True))
        assert relation.n_node.tolist() == [awkward.num_nodes[edge_type[2]]]
        assert relation.n_edge.tolist() == [array.shape[1]]
        assert relation.nodes is None and relation.edges is None and relation.globals is None


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_the_order_and_dtype_of_edges_are_irrelevant(awkward, awkward_arrays, rng, dtype):
    nodes, edges, features = awkward_arrays
    shuffled = {edge_type: array[:, rng.permutation(array.shape[1])].astype(dtype)
                for edge_type, array in edges.items()}
    assert same(HeteroGraph.from_arrays(nodes, shuffled, features), awkward)


def test_edge_features_go_with_their_edges():
    senders, receivers = np.array([0, 1, 2, 0]), np.array([2, 0, 1, 0])
    edge_type = ("a", "to", "a")
    graph = HeteroGraph.from_arrays(
        {"a": 3}, {edge_type: np.stack([senders, receivers])},
        edge_features={edge_type: np.stack([10 * senders + receivers, np.arange(4)], axis=1)})
    relation = graph.relations[edge_type]
    np.testing.assert_array_equal(relation.edges[:, 0], 10 * relation.senders + relation.receivers)
    assert relation.edges[:, 1].tolist() == [3, 1, 2, 0]
    assert relation.edges.dtype == jnp.float32


def test_features_of_other_dtypes():
    graph = HeteroGraph.from_arrays(
        {"a": 2, "b": 2, "c": 2, "d": 2}, {},
        {"a": np.eye(2, dtype=int), "b": np.eye(2, dtype=bool), "c": jnp.eye(2, dtype=jnp.bfloat16), "d": np.eye(2)})
    assert {name: str(x.dtype) for name, x in graph.features.items()} == {
        "a": "float32", "b": "float32", "c": "bfloat16", "d": "float32"}


def test_types_without_nodes_and_graphs_without_edges():
    graph = HeteroGraph.from_arrays({"a": 2, "nothing": 0}, {("a", "to", "nothing"): np.zeros((2, 0)),
                                                             ("nothing", "to", "a"): [[], []]})
    assert graph.num_edges == {("a", "to", "nothing"): 0, ("nothing", "to", "a"): 0}
    counts: Any = {"a": np.int32(2)}
    assert HeteroGraph.from_arrays(counts, {}).num_nodes == {"a": 2}
    assert spmm(graph.blocks["nothing", "a"].csr, None, jnp.zeros((0, 3))).tolist() == [[0, 0, 0]] * 2


A = ("a", "r", "b")
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no types": ({"num_nodes": {}, "edges": {}}, "num_nodes is empty"),
    "type name": ({"num_nodes": {1: 3}}, "node type must be a string, got 1"),
    "float count": ({"num_nodes": {"a": 3.0, "b": 2}}, "num_nodes['a'] must be an integer, got 3.0"),
    "bool count": ({"num_nodes": {"a": True, "b": 2}}, "num_nodes['a'] must be an integer, got True"),
    "many counts": ({"num_nodes": {"a": [3], "b": 2}}, "num_nodes['a'] must be an integer"),
    "negative count": ({"num_nodes": {"a": 3, "b": -2}}, "num_nodes['b'] must not be negative, got -2"),
    "edge type": ({"edges": {"a_to_b": [[0], [0]]}}, "tuple (source, relation, destination) of strings, got 'a_to_b'"),
    "edge type pair": ({"edges": {("a", "b"): [[0], [0]]}}, "tuple (source, relation, destination)"),
    "edge type of numbers": ({"edges": {("a", 0, "b"): [[0], [0]]}}, "tuple (source, relation, destination)"),
    "unknown source": ({"edges": {("x", "r", "b"): [[0], [0]]}},
                       "relation (x, r, b): source type 'x' is unknown; num_nodes has ['a', 'b']"),
    "unprintable source": ({"edges": {("\ud800", "r", "b"): [[0], [0]]}}, r"relation (\ud800, r, b): source type "
                                                                          r"'\ud800' is unknown"),
    "unknown destination": ({"edges": {("a", "r", "x"): [[0], [0]]}},
                            "relation (a, r, x): destination type 'x' is unknown"),
    "rank": ({"edges": {A: [0, 1]}}, "relation (a, r, b): edges must have shape [2, E] (senders, receivers), got [2]"),
    "transposed": ({"edges": {A: np.zeros((5, 2), int)}}, "relation (a, r, b): edges must have shape [2, E] "
                                                          "(senders, receivers), got [5, 2]"),
    "ragged": ({"edges": {A: [[0, 1], [0]]}}, "relation (a, r, b): edges must have shape [2, E]"),
    "float edges": ({"edges": {A: [[0.0], [1.0]]}}, "relation (a, r, b): edges must be integers, got float64"),
    "bool edges": ({"edges": {A: [[True], [True]]}}, "relation (a, r, b): edges must be integers, got bool"),
    "sender": ({"edges": {A: [[0, 3, 7], [0, 1, 1]]}}, "relation (a, r, b): sender of edge 1 is 3, outside [0, 3) of "
                                                       "node type 'a' (2 such edges)"),
    "receiver": ({"edges": {A: [[0, 1], [0, 2]]}}, "relation (a, r, b): receiver of edge 1 is 2, outside [0, 2) of "
                                                   "node type 'b' (1 such edges)"),
    "negative": ({"edges": {A: [[0, 1], [-1, 0]]}}, "relation (a, r, b): receiver of edge 0 is -1, outside"),
    "huge": ({"edges": {A: np.array([[2 ** 63], [0]], np.uint64)}}, "sender of edge 0 is 9223372036854775808"),
    "feature type": ({"features": {"x": [[1.0]]}}, "features are given for node type 'x', which is unknown; "
                                                   "num_nodes has ['a', 'b']"),
    "feature rank": ({"features": {"a": [1.0, 2, 3]}}, "features of 'a' must have shape [N, F], got [3]"),
    "feature rows": ({"features": {"a": np.zeros((2, 4))}}, "features of 'a' have 2 rows, expected 3"),
    "sparse rows": ({"features": {"a": SparseFeatures.from_csr([0, 1], [0], [1.0], (1, 2))}},
                    "features of 'a' have 1 rows, expected 3"),
    "nan": ({"features": {"b": [[1.0, 2], [3, np.nan]]}}, "features of 'b': the value at (1, 1) is nan, expected a "
                                                          "finite number (1 such values; stored as float32)"),
    "infinity": ({"features": {"b": [[np.inf, 2], [3, np.nan]]}}, "the value at (0, 0) is inf, expected a finite "
                                                                  "number (2 such values; stored as float32)"),
    "bfloat16 nan": ({"features": {"b": jnp.full((2, 1), jnp.nan, jnp.bfloat16)}}, "the value at (0, 0) is nan"),
    "text": ({"features": {"b": [["x"], ["y"]]}}, "features of 'b' must be numbers, got <U1"),
    "complex": ({"features": {"b": [[1j], [2j]]}}, "features of 'b' must be numbers, got complex128"),
    "no mapping of counts": ({"num_nodes": [3, 2]}, "num_nodes must map types to values, got list"),
    "no mapping of edges": ({"edges": [[0], [0]]}, "edges must map types to values, got list"),
    "no mapping of features": ({"features": 1.0}, "features must map types to values, got float"),
    "no mapping of edge features": ({"edge_features": [1.0]}, "edge_features must map types to values, got list"),
    "ragged count": ({"num_nodes": {"a": [[1], [2, 3]], "b": 2}}, "num_nodes['a'] must be an integer, got [[1], ["),
    "vast count": ({"num_nodes": {"a": 2 ** 31, "b": 2}}, "num_nodes['a'] must be at most 2147483647, the largest "),
    "unprintable count": ({"num_nodes": {"a": 10 ** 5000, "b": 2}}, "largest int32, got one of very many digits"),
    "long name": ({"num_nodes": {b"x" * 999: 1}}, "x..."),
    "many pairs": ({"num_nodes": {"a": 2 ** 30, "b": 2}, "edges": {("a", name, "b"): [[], []] for name in "rs"}},
                   "relations from 'a' to 'b': nodes times relations must be at most 2147483647, the largest int32, "
                   "got 2147483648"),
    "ragged features": ({"features": {"b": [[1.0], [2.0, 3.0]]}}, "features of 'b' must have shape [N, F]; "),
    "wide features": ({"features": {"b": np.array([[1.0], [-1e300]])}}, "the value at (1, 0) is -1e+300, expected a "
                      "finite number (1 such values; stored as float32)"),
    "ragged edge features": ({"edge_features": {A: [[1.0, 2.0], [1.0]]}}, "shape [1] or [1, F]; "),
    "edge features of no relation": ({"edge_features": {1: [1.0]}}, "an edge type must be a tuple"),
    "edge feature type": ({"edge_features": {("a", "x", "b"): [1.0]}}, "edge_features has (a, x, b), which edges does "
                                                                      "not; edges has ['(a, r, b)']"),
    "edge feature rows": ({"edge_features": {A: [1.0, 2]}}, "relation (a, r, b): edge features must have shape [1] or "
                                                            "[1, F], got [2]"),
    "edge feature rank": ({"edge_features": {A: np.zeros((1, 1, 1))}}, "relation (a, r, b): edge features must have "
                                                                       "shape [1] or [1, F], got [1, 1, 1]"),
    "edge feature nan": ({"edge_features": {A: [np.nan]}}, "relation (a, r, b): edge features: the value at (0,) is "
                                                           "nan"),
}


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8", "longdouble", "bool", "uint64"])
def test_features_of_any_kind_of_number(dtype):
    values = np.array([[1, 0], [1, 1]], dtype)
    graph = HeteroGraph.from_arrays({"a": 2}, {("a", "r", "a"): [[0, 1], [1, 0]]}, {"a": values},
                                    {("a", "r", "a"): values})
    assert graph.features["a"].tolist() == values.tolist()
    assert graph.features["a"].dtype == ("float16" if dtype == "float16" else "float32")
    assert graph.relations["a", "r", "a"].edges.tolist() == values[::-1].tolist()


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(case):
    changed, message = BAD[case]
    edges = {} if "num_nodes" in changed else {A: [[0], [0]]}
    arguments: dict[str, Any] = {"num_nodes": {"a": 3, "b": 2}, "edges": edges}
    with pytest.raises(GraphError, match=re.escape(message)):
        HeteroGraph.from_arrays(**(arguments | changed))


def test_a_graph_error_is_a_value_error():
    assert issubclass(GraphError, ValueError)


# ------------------------------------------------------------------------------------------------- blocks


def test_blocks_hold_every_edge_where_the_relation_says(awkward):
    assert set(awkward.blocks) == {(s, d) for s, _, d in awkward.edge_types}
    for (source, destination), block in awkward.blocks.items():
        members = [e for e in awkward.edge_types if (e[0], e[2]) == (source, destination)]
        assert block.edge_types == tuple(members) and block.num_relations == len(members)
        rows, columns, relations = (np.asarray(a) for a in (block.csr.rows, block.csr.cols, block.relation_ids))
        sources = columns // len(members)
        order = list(zip(rows, relations, sources, strict=True))
        assert order == sorted(order)
        assert block.csr.shape == (awkward.num_nodes[destination], awkward.num_nodes[source] * len(members))
        parts = block.split(jnp.stack([rows, sources, relations], axis=1))
        assert set(parts) == set(members)
        for k, edge_type in enumerate(members):
            relation = awkward.relations[edge_type]
            np.testing.assert_array_equal(parts[edge_type][:, 0], relation.receivers)
            np.testing.assert_array_equal(parts[edge_type][:, 1], relation.senders)
            assert np.all(parts[edge_type][:, 2] == k)


def test_mean_weights_count_each_relation_by_itself(awkward):
    block = awkward.blocks["author", "paper"]
    assert block.edge_types == (WRITES, REVIEWS)
    for edge_type, mean in block.split(block.mean).items():
        degree = adjacency(awkward, edge_type).sum(axis=1)
        np.testing.assert_allclose(mean, 1 / degree[np.asarray(awkward.relations[edge_type].receivers)])
    assert block.mean.dtype == jnp.float32


def test_one_product_of_a_block_is_the_sum_over_its_relations(awkward, rng):
    block = awkward.blocks["author", "paper"]
    per_relation = rng.normal(size=(5, 2, 3)).astype(np.float32)  # author, relation
    expected = sum(adjacency(awkward, e) @ per_relation[:, k] for k, e in enumerate((WRITES, REVIEWS)))
    np.testing.assert_allclose(spmm(block.csr, None, jnp.asarray(per_relation.reshape(10, 3))), expected, rtol=1e-5,
                               atol=1e-6)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    total = adjacency(awkward, WRITES) + adjacency(awkward, REVIEWS)
    np.testing.assert_allclose(spmm(block.by_source(), None, jnp.asarray(x)), total @ x, rtol=1e-5, atol=1e-6)
    single = awkward.blocks["paper", "paper"]
    assert single.by_source() is single.csr


def test_blocks_into(awkward):
    assert [source for source, _ in awkward.blocks_into("paper")] == ["paper", "author", "venue"]
    assert [source for source, _ in awkward.blocks_into("venue")] == ["paper"]
    assert HeteroGraph.from_arrays({"a": 1}, {}).blocks_into("a") == []


def test_receptive_field(awkward):
    assert awkward.receptive_field("paper", 0) == (("paper",),)
    everything = ("paper", "author", "venue")
    assert awkward.receptive_field("paper", 2) == (everything, everything, ("paper",))
    assert awkward.receptive_field("venue", 2) == (everything, ("paper", "venue"), ("venue",))
    chain = HeteroGraph.from_arrays(dict.fromkeys("abc", 2), {("a", "r", "b"): [[0], [0]], ("b", "r", "c"): [[0], [0]]})
    assert chain.receptive_field("c", 3) == (("a", "b", "c"), ("a", "b", "c"), ("b", "c"), ("c",))
    with pytest.raises(GraphError, match=re.escape("target 'film' is not a node type of the graph, which has "
                                                   "['paper', 'author', 'venue']")):
        awkward.receptive_field("film", 1)


# ------------------------------------------------------------------------------------------------- pytree


def test_a_graph_is_a_pytree(awkward):
    assert same(jax.tree.map(lambda x: x, awkward), awkward)
    assert same(jax.jit(lambda g: g)(awkward), awkward)
    assert same(jax.device_put(awkward, jax.devices()[-1]), awkward)
    assert jax.device_put(awkward, jax.devices()[-1]).features["paper"].devices() == {jax.devices()[-1]}
    # the order of types and relations survives, though a dictionary in a pytree is sorted
    assert jax.jit(lambda g: g)(awkward).edge_types == awkward.edge_types


def test_counts_are_static_under_jit(awkward):
    def shapes(graph):
        assert all(isinstance(count, int) for count in (*graph.num_nodes.values(), *graph.num_edges.values()))
        return {name: jnp.zeros((count, 2)) for name, count in graph.num_nodes.items()}, graph.num_edges[WRITES]

    zeros, writes = jax.jit(shapes)(awkward)
    assert {name: x.shape for name, x in zeros.items()} == {"paper": (7, 2), "author": (5, 2), "venue": (3, 2)}
    assert writes == 6


def test_vmap_over_stacked_features(awkward):
    stacked = jnp.stack([awkward.features["paper"], 2 * awkward.features["paper"]])

    graphs = dataclasses.replace(awkward, features=awkward.features | {"paper": stacked})
    axes = jax.tree.map(lambda _: None, awkward)
    axes = dataclasses.replace(axes, features=axes.features | {"paper": 0})

    def into_venues(graph):
        return spmm(graph.blocks["paper", "venue"].csr, None, graph.features["paper"])

    result = jax.vmap(into_venues, in_axes=(axes,))(graphs)
    np.testing.assert_allclose(result[1], 2 * result[0], rtol=1e-6)
    np.testing.assert_allclose(result[0], adjacency(awkward, ("paper", "in", "venue")) @ awkward.features["paper"],
                               rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------- transformations


def test_host_edges_rebuild_the_graph(awkward):
    assert same(HeteroGraph.from_arrays(awkward.num_nodes, awkward.host_edges(), awkward.features), awkward)


def test_homogeneous_round_trip(rng):
    senders, receivers = rng.integers(0, 6, (2, 9))
    given_tuple = jraph.GraphsTuple(
        nodes=rng.normal(size=(6, 3)).astype(np.float32), edges=np.arange(9.0, dtype=np.float32), senders=senders,
        receivers=receivers, n_node=np.array([6]), n_edge=np.array([9]), globals=None)
    graph = HeteroGraph.from_graphs_tuple(given_tuple)
    assert graph.edge_types == (("node", "to", "node"),) and graph.num_nodes == {"node": 6}
    relation = graph.relations["node", "to", "node"]
    order = np.asarray(relation.edges, int)  # each edge's number says where it stood
    np.testing.assert_array_equal(senders[order], relation.senders)
    np.testing.assert_array_equal(receivers[order], relation.receivers)
    back = graph.to_graphs_tuple()
    np.testing.assert_array_equal(back.nodes["features"], given_tuple.nodes)
    np.testing.assert_array_equal(back.senders, relation.senders)
    np.testing.assert_array_equal(back.receivers, relation.receivers)
    again = HeteroGraph.from_graphs_tuple(back._replace(nodes=back.nodes["features"], edges=None))
    assert same(again, HeteroGraph.from_graphs_tuple(given_tuple._replace(edges=None)))


def test_from_a_batch_of_graphs():
    parts = [jraph.GraphsTuple(nodes=np.full((n, 1), float(n)), edges=None, senders=np.array([0]),
                               receivers=np.array([n - 1]), n_node=np.array([n]), n_edge=np.array([1]), globals=None)
             for n in (2, 3)]
    graph = HeteroGraph.from_graphs_tuple(jraph.batch_np(parts), node_type="atom", relation="bond")
    assert graph.num_nodes == {"atom": 5}
    assert graph.host_edges()["atom", "bond", "atom"].tolist() == [[0, 2], [1, 4]]
    np.testing.assert_array_equal(graph.features["atom"], [[2], [2], [3], [3], [3]])


def test_from_graphs_tuple_errors():
    fields = {"nodes": None, "edges": None, "senders": np.array([0]), "receivers": np.array([1]),
              "n_node": np.array([2]), "n_edge": np.array([1]), "globals": None}
    for changed, message in (({"nodes": {"x": np.zeros((2, 1))}}, "nodes of the GraphsTuple must be None or one array, "
                                                                  "got dict"),
                             ({"edges": [1.0]}, "edges of the GraphsTuple must be None or one array, got list"),
                             ({"senders": None}, "no senders or receivers"),
                             ({"receivers": np.array([2])}, "receiver of edge 0 is 2, outside [0, 2)"),
                             ({"nodes": np.zeros((3, 1))}, "features of 'node' have 3 rows, expected 2")):
        with pytest.raises(GraphError, match=re.escape(message)):
            HeteroGraph.from_graphs_tuple(jraph.GraphsTuple(**(fields | changed)))


def test_to_graphs_tuple_holds_every_edge_once(awkward):
    whole = awkward.to_graphs_tuple()
    starts = {"paper": 0, "author": 7, "venue": 12}
    assert whole.n_node.tolist() == [15] and whole.n_edge.tolist() == [sum(awkward.num_edges.values())]
    assert whole.nodes["type"].tolist() == [0] * 7 + [1] * 5 + [2] * 3
    assert "features" not in whole.nodes  # venues have none
    assert np.all(np.diff(whole.receivers) >= 0)
    found = sorted(zip(*(np.asarray(a).tolist() for a in (whole.edges["relation"], whole.senders, whole.receivers)),
                       strict=True))
    expected = sorted((k, s + starts[edge_type[0]], r + starts[edge_type[2]])
                      for k, edge_type in enumerate(awkward.edge_types)
                      for s, r in awkward.host_edges()[edge_type].T.tolist())
    assert found == expected


def test_to_graphs_tuple_joins_features_of_one_width():
    graph = HeteroGraph.from_arrays({"a": 1, "b": 2}, {}, {"a": [[1.0, 2]], "b": [[3.0, 4], [5, 6]]})
    whole = graph.to_graphs_tuple()
    assert whole.nodes["features"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert whole.senders.shape == (0,)


def test_add_reverse_relations(awkward):
    graph = awkward.add_reverse_relations()
    added = set(graph.edge_types) - set(awkward.edge_types)
    assert added == {("paper", "rev_reviews", "author"), ("paper", "rev_cites", "paper"),
                     ("author", "rev_hosts", "venue")}
    for source, relation, destination in added:
        original = (destination, relation.removeprefix("rev_"), source)
        np.testing.assert_array_equal(adjacency(graph, (source, relation, destination)), adjacency(graph, original).T)
    for edge_type in awkward.edge_types:
        np.testing.assert_array_equal(adjacency(graph, edge_type), adjacency(awkward, edge_type))
    assert graph.features["paper"] is not None and graph.num_nodes == awkward.num_nodes
    assert same(graph.add_reverse_relations(), graph)


def test_reverse_of_edge_features_a_symmetric_relation_and_a_taken_name():
    symmetric = HeteroGraph.from_arrays({"a": 3}, {("a", "r", "a"): [[0, 1, 2], [1, 0, 2]]})
    assert symmetric.add_reverse_relations().edge_types == (("a", "r", "a"),)
    assert symmetric.reverse_of(("a", "r", "a")) == ("a", "r", "a")
    weighted = HeteroGraph.from_arrays({"a": 3, "b": 2}, {("a", "r", "b"): [[2, 0], [0, 1]]},
                                       edge_features={("a", "r", "b"): [20.0, 1]})
    assert weighted.reverse_of(("a", "r", "b")) is None
    both = weighted.add_reverse_relations(prefix="back_")
    assert both.reverse_of(("a", "r", "b")) == ("b", "back_r", "a")
    back = both.relations["b", "back_r", "a"]
    assert (back.senders.tolist(), back.receivers.tolist(), back.edges.tolist()) == ([1, 0], [0, 2], [1, 20])
    taken = HeteroGraph.from_arrays({"a": 3, "b": 2}, {("a", "r", "b"): [[2], [0]], ("b", "rev_r", "a"): [[0], [0]]})
    with pytest.raises(GraphError, match=re.escape("relation (b, rev_r, a) exists already")):
        taken.add_reverse_relations()


def test_add_relations(awkward):
    graph = awkward.add_relations({("venue", "near", "venue"): [[0], [1]]}, {("venue", "near", "venue"): [2.5]})
    assert graph.edge_types == (*awkward.edge_types, ("venue", "near", "venue"))
    assert graph.relations["venue", "near", "venue"].edges.tolist() == [2.5]
    assert graph.add_relations({("venue", "far", "venue"): [[], []]}).relations["venue", "near", "venue"].edges == 2.5
    with pytest.raises(GraphError, match=re.escape("relation (paper, cites, paper) exists already")):
        awkward.add_relations({CITES: [[0], [0]]})


@pytest.mark.parametrize("path", [
    [WRITES],
    [WRITES, ("paper", "rev_writes", "author")],
    [REVIEWS, CITES, CITES, ("paper", "in", "venue")],
    [HOSTS, WRITES],
])
def test_metapath(awkward, path):
    edges, counts = awkward.metapath(path)
    product = np.eye(awkward.num_nodes[path[0][0]], dtype=int)
    for edge_type in path:
        product = adjacency(awkward, edge_type) @ product
    found = np.zeros_like(product)
    found[edges[1], edges[0]] = counts
    np.testing.assert_array_equal(found, product)
    assert edges.shape[1] == (product > 0).sum()  # no duplicates, no zero
    assert edges.dtype == np.int32 and counts.dtype == np.int64
    keys = list(zip(edges[1], edges[0], strict=True))
    assert keys == sorted(keys)
    # what comes out goes in again
    assert awkward.add_relations({(path[0][0], "metapath", path[-1][2]): edges}).num_edges[
        path[0][0], "metapath", path[-1][2]] == edges.shape[1]


@pytest.mark.parametrize(("path", "message"), [
    ([], "a metapath needs at least one relation"),
    ([WRITES, ("paper", "to", "author")], "metapath step 1 is (paper, to, author), which is unknown; the graph has"),
    ([WRITES, REVIEWS], "metapath step 1 starts at 'author', but the step before it ends at 'paper'"),
])
def test_metapath_errors(awkward, path, message):
    with pytest.raises(GraphError, match=re.escape(message)):
        awkward.metapath(path)


def test_permute(awkward, rng):
    order = {name: rng.permutation(count) for name, count in awkward.num_nodes.items() if name != "venue"}
    graph = awkward.permute(order)
    order["venue"] = np.arange(3)
    for edge_type in awkward.edge_types:
        expected = adjacency(awkward, edge_type)[order[edge_type[2]]][:, order[edge_type[0]]]
        np.testing.assert_array_equal(adjacency(graph, edge_type), expected)
    np.testing.assert_array_equal(graph.features["paper"], awkward.features["paper"][order["paper"]])
    np.testing.assert_array_equal(graph.features["author"].todense(),
                                  awkward.features["author"].todense()[order["author"]])
    back = graph.permute({name: np.argsort(permutation) for name, permutation in order.items()})
    assert same(back, awkward)


def test_permute_keeps_edge_features():
    graph = HeteroGraph.from_arrays({"a": 3}, {("a", "r", "a"): [[0, 1], [1, 2]]},
                                    edge_features={("a", "r", "a"): [1.0, 12]})
    relation = graph.permute({"a": [2, 0, 1]}).relations["a", "r", "a"]  # node 2 is first now
    assert [field.tolist() for field in (relation.senders, relation.receivers, relation.edges)] == [
        [2, 1], [0, 2], [12, 1]]


@pytest.mark.parametrize(("order", "message"), [
    ({"film": [0]}, "order names node type 'film', which is unknown"),
    ({"venue": [0, 1, 1]}, "order['venue'] must hold each of 0 .. 2 once"),
    ({"venue": [0, 1]}, "order['venue'] must hold each of 0 .. 2 once"),
])
def test_permute_errors(awkward, order, message):
    with pytest.raises(GraphError, match=re.escape(message)):
        awkward.permute(order)


# ------------------------------------------------------------------------------------------ random graphs


@st.composite
def graphs(draw):
    """(num_nodes, edges) with at most three types and four relations."""
    counts = {name: draw(st.integers(0, 4)) for name in "abc"[:draw(st.integers(1, 3))]}
    edges = {}
    for k in range(draw(st.integers(0, 4))):
        source, destination = draw(st.sampled_from(list(counts))), draw(st.sampled_from(list(counts)))
        most = 6 if counts[source] and counts[destination] else 0
        pairs = draw(st.lists(st.tuples(st.integers(0, max(counts[source] - 1, 0)),
                                        st.integers(0, max(counts[destination] - 1, 0))), max_size=most))
        edges[source, f"r{k}", destination] = np.array(pairs, int).reshape(-1, 2).T
    return counts, edges


@settings(max_examples=40)
@given(graphs())
def test_random_graphs(drawn):
    counts, edges = drawn
    graph = HeteroGraph.from_arrays(counts, edges)
    for edge_type, array in edges.items():
        source, _, destination = edge_type
        relation = graph.relations[edge_type]
        for end, name, indices in ((0, source, relation.senders), (1, destination, relation.receivers)):
            np.testing.assert_array_equal(np.bincount(indices, minlength=counts[name]),
                                          np.bincount(array[end], minlength=counts[name]))
    assert sum(block.csr.num_entries for block in graph.blocks.values()) == sum(graph.num_edges.values())
    for (_, destination), block in graph.blocks.items():
        rows = np.asarray(block.csr.rows)
        # every destination's mean weights add up to its number of relations that have an edge there
        total = np.bincount(rows, np.asarray(block.mean, float), minlength=counts[destination])
        present = np.zeros((counts[destination], block.num_relations))
        present[rows, np.asarray(block.relation_ids)] = 1
        np.testing.assert_allclose(total, present.sum(axis=1), rtol=1e-6)
        places = np.concatenate([np.asarray(part) for part in block.split(jnp.arange(rows.size)).values()])
        assert sorted(places.tolist()) == list(range(rows.size))
    reversed_graph = graph.add_reverse_relations()
    assert same(reversed_graph.add_reverse_relations(), reversed_graph)
