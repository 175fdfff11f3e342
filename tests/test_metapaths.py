"""Metapaths against walks counted one by one."""

import itertools

import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph, SparseFeatures
from hire_jax.metapaths import metapath_graph, metapath_name, propagated_graph, propose_metapaths

WRITES, WRITTEN = ("author", "writes", "paper"), ("paper", "rev_writes", "author")
IN, HOLDS = ("paper", "in", "venue"), ("venue", "rev_in", "paper")


@pytest.fixture
def academic(rng):
    """Authors, papers, venues, each relation with its reverse; papers cite papers, one way only."""
    nodes = {"author": 6, "paper": 8, "venue": 2}
    pairs = {WRITES: rng.choice(48, 14, replace=False), ("paper", "in", "venue"): rng.choice(16, 8, replace=False)}
    edges = {edge_type: np.stack(np.divmod(flat, nodes[edge_type[2]])) for edge_type, flat in pairs.items()}
    edges["paper", "cites", "paper"] = np.array([[0, 1, 5, 5], [1, 2, 4, 4]])
    features = {"paper": rng.normal(size=(8, 3)).astype(np.float32),
                "venue": SparseFeatures.from_csr([0, 1, 2], [0, 3], [1.0, 2.0], (2, 5))}
    graph = HeteroGraph.from_arrays(nodes, edges, features)
    reverse = {WRITTEN: edges[WRITES][::-1], HOLDS: edges[IN][::-1]}
    return graph.add_relations(reverse)


def links(graph, edge_type):
    return [tuple(int(x) for x in pair) for pair in graph.host_edges()[edge_type].T]


def walks(graph, path):
    """{(start, end): number of walks}, by joining edge lists."""
    found = {}
    for chain in itertools.product(*(links(graph, edge_type) for edge_type in path)):
        if all(one[1] == two[0] for one, two in itertools.pairwise(chain)):
            ends = chain[0][0], chain[-1][1]
            found[ends] = found.get(ends, 0) + 1
    return found


def test_proposed_are_those_of_the_literature(academic):
    assert [metapath_name(path, academic) for path in propose_metapaths(academic, "author")] == [
        "author-paper-author", "author-paper-venue-paper-author"]
    assert [metapath_name(path, academic) for path in propose_metapaths(academic, "paper")] == [
        "paper-paper", "paper-venue-paper", "paper-author-paper"]
    assert propose_metapaths(academic, "author", max_length=3) == ((WRITES, WRITTEN),)
    assert propose_metapaths(academic, "paper", max_length=1) == ((("paper", "cites", "paper"),),)


def test_a_way_back_is_along_the_same_links(academic):
    """Two relations between the same types: each returns by its own reverse, and the name says which."""
    edited = np.array([[0, 1], [2, 3]])
    graph = academic.add_relations({("author", "edits", "paper"): edited, ("paper", "by", "author"): edited[::-1]})
    assert propose_metapaths(graph, "author", max_length=2) == (
        (WRITES, WRITTEN), (("author", "edits", "paper"), ("paper", "by", "author")))
    name = metapath_name((WRITES, WRITTEN), graph)
    assert name == "author-(writes)-paper-(rev_writes)-author"


def test_without_reverses_nothing_is_proposed():
    graph = HeteroGraph.from_arrays({"a": 2, "b": 2}, {("a", "to", "b"): [[0, 1], [1, 1]]})
    with pytest.raises(GraphError, match=r"no metapath of at most 4 relations leads from 'a' back to it.*add_reverse"):
        propose_metapaths(graph, "a")
    assert propose_metapaths(graph.add_reverse_relations(), "a") == ((("a", "to", "b"), ("b", "rev_to", "a")),)


@pytest.mark.parametrize(("target", "length", "message"), [
    ("film", 4, "target 'film' is not a node type"), ("author", 0, "max_length must be at least 1, got 0")])
def test_bad_proposals_are_refused(academic, target, length, message):
    with pytest.raises(GraphError, match=message):
        propose_metapaths(academic, target, max_length=length)


@pytest.mark.parametrize("target", ["author", "paper"])
def test_edges_are_the_pairs_that_walks_join(academic, target):
    graph = metapath_graph(academic, target, counts=True, self_loops=False)
    paths = propose_metapaths(academic, target)
    names = [metapath_name(path, academic) for path in paths]
    assert graph.node_types == (target, *names) and graph.edge_types == tuple((n, "reaches", target) for n in names)
    assert set(graph.num_nodes.values()) == {academic.num_nodes[target]}
    for name, path in zip(names, paths, strict=True):
        relation = graph.relations[name, "reaches", target]
        found = dict(zip(links(graph, (name, "reaches", target)), np.asarray(relation.edges).tolist(), strict=True))
        assert found == walks(academic, path)
    binary = metapath_graph(academic, target, self_loops=False)
    assert all(relation.edges is None for relation in binary.relations.values())
    assert {e: links(binary, e) for e in binary.edge_types} == {e: links(graph, e) for e in graph.edge_types}
    assert set(binary.features) == ({"paper"} if target == "paper" else set())


@pytest.mark.parametrize(("paths", "message"), [
    ([[IN, HOLDS]], "must start and end at 'author', got 'paper' to 'paper'"),
    ([[WRITES, WRITTEN]] * 2, "metapath .*'rev_writes', 'author'.* is given twice"),
    ([[]], "at least one relation"),
    ([[WRITES, HOLDS, WRITTEN]], "metapath step 1 starts at 'venue'"),
])
def test_bad_metapaths_are_refused(academic, paths, message):
    with pytest.raises(GraphError, match=message):
        metapath_graph(academic, "author", paths)


@pytest.mark.parametrize("counts", [False, True])
def test_every_node_is_its_own_neighbour(academic, counts):
    """A self loop is added, with one walk, where no walk leads back: authors without papers, all citations."""
    bare = metapath_graph(academic, "paper", counts=True, self_loops=False)
    graph = metapath_graph(academic, "paper", counts=counts)
    for edge_type in graph.edge_types:
        expected = dict(zip(links(bare, edge_type), np.asarray(bare.relations[edge_type].edges), strict=True))
        found = links(graph, edge_type)
        assert len(found) == len(set(found))
        assert set(found) == set(expected) | {(k, k) for k in range(8)}
        if counts:
            walked = np.asarray(graph.relations[edge_type].edges).tolist()
            assert walked == [expected.get(pair, 1) for pair in found]


def test_an_unknown_target_is_said(academic):
    for function in (metapath_graph, lambda *a: metapath_graph(*a, [[WRITES, WRITTEN]])):
        with pytest.raises(GraphError, match="target 'film' is not a node type"):
            function(academic, "film")


def test_two_walks_of_one_name_are_refused():
    """Types "a-b" and "a", "b": nothing may be lost in silence."""
    nodes = {"t": 2, "b": 2, "a": 2, "a-b": 2}
    edges = {("a-b", "to", "t"): [[0], [1]], ("a", "to", "b"): [[0], [1]], ("b", "to", "t"): [[0], [1]]}
    features = {"a": np.ones((2, 3)), "a-b": np.ones((2, 5))}
    with pytest.raises(GraphError, match="two metapaths have the name 'a-b-t'"):
        propagated_graph(HeteroGraph.from_arrays(nodes, edges, features), "t", hops=2)


def test_self_loops_of_a_relation_outlive_the_removed_diagonal():
    """The label path of one relation loses its diagonal; the longer ones are products of the whole relation."""
    edges = {("p", "to", "p"): [[0, 1, 1, 2], [0, 0, 1, 2]]}
    graph = HeteroGraph.from_arrays({"p": 3}, edges, {"p": np.eye(3)})
    features = propagated_graph(graph, "p", hops=1, labels=np.eye(3), label_hops=2).features
    matrix = np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])
    for name, product in (("label:p-p", matrix), ("label:p-p-p", matrix @ matrix)):
        expected = product - np.diag(np.diag(product))
        np.testing.assert_allclose(features[name], expected, atol=1e-6)


def mean_matrix(graph, edge_type):
    """Row i averages over i's edges, duplicates counted; a row without edges is 0."""
    matrix = np.zeros((graph.num_nodes[edge_type[2]], graph.num_nodes[edge_type[0]]))
    for sender, receiver in links(graph, edge_type):
        matrix[receiver, sender] += 1
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def test_features_are_averaged_along_walks(academic):
    graph = propagated_graph(academic, "author", hops=2)
    assert graph.edge_types == ()
    assert graph.node_types == ("author", "paper-author", "paper-paper-author", "venue-paper-author")
    paper, venue = np.asarray(academic.features["paper"]), np.asarray(academic.features["venue"].todense())
    a, b, c = (mean_matrix(academic, e) for e in (WRITTEN, ("paper", "cites", "paper"), HOLDS))
    expected = {"paper-author": a @ paper, "paper-paper-author": a @ b @ paper, "venue-paper-author": a @ c @ venue}
    assert set(graph.features) == set(expected)
    for name, values in expected.items():
        x = graph.features[name]
        dense = x.todense() if isinstance(x, SparseFeatures) else x
        np.testing.assert_allclose(dense, values, atol=1e-6)


def test_the_target_keeps_its_own_features_sparse(academic):
    graph = propagated_graph(academic, "venue", hops=1)
    assert isinstance(graph.features["venue"], SparseFeatures)
    assert graph.node_types == ("venue", "paper-venue")


def test_types_without_features_are_propagated_as_one_hot(academic):
    bare = academic.keep_features(["venue"])
    graph = propagated_graph(bare, "author", hops=2, one_hot=True)
    a, b, c = (mean_matrix(academic, e) for e in (WRITTEN, ("paper", "cites", "paper"), HOLDS))
    back = mean_matrix(academic, WRITES)
    venue = np.asarray(academic.features["venue"].todense())
    expected = {"author": np.eye(6), "paper-author": a, "paper-paper-author": a @ b, "author-paper-author": a @ back,
                "venue-paper-author": a @ c @ venue}
    assert set(graph.features) == set(expected)
    for name, values in expected.items():
        x = graph.features[name]
        np.testing.assert_allclose(x.todense() if isinstance(x, SparseFeatures) else x, values, atol=1e-6)
    assert set(propagated_graph(bare, "author", hops=2).features) == {"venue-paper-author"}


def test_types_without_nodes_get_no_one_hot_rows():
    """They would have no column."""
    graph = HeteroGraph.from_arrays({"p": 2, "z": 0}, {("z", "to", "p"): np.zeros((2, 0), int)}, {"p": np.eye(2)})
    assert set(propagated_graph(graph, "p", hops=1, one_hot=True).features) == {"p"}
    graph = HeteroGraph.from_arrays({"p": 0, "z": 0}, {("z", "to", "p"): np.zeros((2, 0), int)})
    with pytest.raises(GraphError, match="no node type within 1 relations of 'p' has features"):
        propagated_graph(graph, "p", hops=1, one_hot=True)


def test_labels_come_from_others_only(academic):
    """A node's own label never returns to it, and unlabelled nodes add nothing."""
    labels = np.zeros((6, 2), np.float32)
    labels[[0, 2, 3], [0, 1, 1]] = 1
    graph = propagated_graph(academic, "author", hops=1, labels=labels, label_hops=2)
    a, b = mean_matrix(academic, WRITTEN), mean_matrix(academic, WRITES)
    product = a @ b
    np.fill_diagonal(product, 0)
    np.testing.assert_allclose(graph.features["label:author-paper-author"], product @ labels, atol=1e-6)
    for node in range(6):
        alone = np.zeros((6, 2), np.float32)
        alone[node, 1] = 1
        again = propagated_graph(academic, "author", hops=1, labels=alone, label_hops=2)
        x = again.features["label:author-paper-author"]
        dense = np.asarray(x.todense() if isinstance(x, SparseFeatures) else x)
        assert dense[node].tolist() == [0, 0]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"target": "film", "hops": 1}, "target 'film' is not a node type"),
    ({"target": "author", "hops": 0}, "hops must be at least 1"),
    ({"target": "author", "hops": 1, "labels": np.zeros((6, 2))}, "got labels and label_hops=0"),
    ({"target": "author", "hops": 1, "label_hops": 2}, "got no labels and label_hops=2"),
    ({"target": "author", "hops": 1, "labels": np.zeros((5, 2)), "label_hops": 2}, "got .5, 2."),
])
def test_bad_propagation_is_refused(academic, arguments, message):
    with pytest.raises(GraphError, match=message):
        propagated_graph(academic, **arguments)


def test_no_features_within_reach_is_said():
    graph = HeteroGraph.from_arrays({"a": 2, "b": 2}, {("b", "to", "a"): [[0], [1]]})
    with pytest.raises(GraphError, match="no node type within 2 relations of 'a' has features"):
        propagated_graph(graph, "a", hops=2)
