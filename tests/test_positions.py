"""Laplacian positional encodings against a dense eigensolver, their cache, and how a graph carries them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from hire_jax import GraphError, HeteroGraph, SparseFeatures, positions
from hire_jax.positions import DENSE_UP_TO, laplacian_positions

RELATION = ("n", "to", "n")


def graph_of(edges, nodes):
    return HeteroGraph.from_arrays({"n": nodes}, {RELATION: np.asarray(edges, int).reshape(2, -1)})


def random_graph(nodes, seed=0):
    """Connected: a cycle with random chords, some of them twice, and a self loop."""
    ring = np.arange(nodes)
    chords = np.random.default_rng(seed).integers(0, nodes, (2, nodes))
    return graph_of(np.concatenate([[ring, (ring + 1) % nodes], chords, chords[:, :3], [[4], [4]]], axis=1), nodes)


def laplacian(graph):
    """Dense, all types' nodes one after another; rows of nodes without neighbours are 0."""
    first, total = {}, 0
    for name, count in graph.num_nodes.items():
        first[name], total = total, total + count
    links = np.zeros((total, total), bool)
    for (source, _, destination), (senders, receivers) in graph.host_edges().items():
        for u, v in zip(senders + first[source], receivers + first[destination], strict=True):
            links[u, v] = links[v, u] = u != v
    degree = links.sum(axis=1)
    root = np.sqrt(np.maximum(degree, 1))
    return np.diag(np.minimum(degree, 1)) - links / np.outer(root, root)


def not_null(graph):
    """Eigenvalues above 0 in rising order, and their eigenvectors."""
    values, vectors = np.linalg.eigh(laplacian(graph))
    return values[values > 1e-9], vectors[:, values > 1e-9]


def stacked(encodings):
    return np.concatenate(list(encodings.values())).astype(float)


def rayleigh(graph, x):
    return np.sum(x * (laplacian(graph) @ x), axis=0) / np.sum(x * x, axis=0)


def least_cosine(x, y):
    """Of the angles between the spaces that two sets of columns span, the largest's cosine."""
    return np.linalg.svd(np.linalg.qr(x)[0].T @ np.linalg.qr(y)[0], compute_uv=False).min()


SMALL, LARGE = random_graph(60), random_graph(260)
both_solvers = pytest.mark.parametrize("graph", [SMALL, LARGE], ids=["dense", "lanczos"])


@both_solvers
def test_they_are_the_eigenvectors_of_the_smallest_eigenvalues_above_zero(graph):
    nodes = graph.num_nodes["n"]
    assert (nodes > DENSE_UP_TO) == (graph is LARGE)
    encodings = laplacian_positions(graph, k=6)
    assert list(encodings) == ["n"] and encodings["n"].shape == (nodes, 6) and encodings["n"].dtype == np.float32
    x = stacked(encodings)
    values, vectors = not_null(graph)
    assert values.size == nodes - 1 and np.diff(values[:7]).min() > 1e-4  # each eigenvector is one up to its sign
    np.testing.assert_allclose(rayleigh(graph, x), values[:6], rtol=1e-5)
    cosines = np.sum(x * vectors[:, :6], axis=0) / np.linalg.norm(x, axis=0)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-5)
    assert least_cosine(x, vectors[:, :6]) > 1 - 1e-5
    np.testing.assert_allclose(np.mean(x ** 2, axis=0), 1, rtol=1e-5)


@both_solvers
def test_the_entry_of_largest_magnitude_is_positive(graph):
    x = laplacian_positions(graph, k=12)["n"]
    assert (x[np.abs(x).argmax(axis=0), np.arange(12)] > 0).all()
    assert (x.min(axis=0) < 0).all()


def test_of_entries_of_one_magnitude_the_first_is_positive():
    """On a path of n nodes the first is cos(pi i / (n - 1)) times the root of the degree: nodes 1 and n - 2 tie."""
    nodes = 9
    steps = np.arange(nodes - 1)
    root = np.sqrt([1, *[2] * (nodes - 2), 1])
    x = laplacian_positions(graph_of([steps, steps + 1], nodes), k=1)["n"][:, 0]
    expected = root * np.cos(np.pi * np.arange(nodes) / (nodes - 1))
    np.testing.assert_allclose(x, expected / np.sqrt(np.mean(expected ** 2)), rtol=1e-5, atol=1e-6)
    back = laplacian_positions(graph_of([8 - steps, 7 - steps], nodes), k=1)["n"][:, 0]
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-6)


@both_solvers
def test_two_calls_give_the_same_numbers(graph):
    first, second = (laplacian_positions(graph, k=5)["n"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("ring", [20, 250], ids=["dense", "lanczos"])
def test_components_and_isolated_nodes_are_not_what_they_say(ring):
    """Two components of different sizes and three isolated nodes: no eigenvector of eigenvalue 0 has a part."""
    large = random_graph(ring).host_edges()[RELATION]
    steps = np.arange(ring, ring + 11)
    graph = graph_of(np.concatenate([large, [steps, steps + 1]], axis=1), ring + 15)
    x = stacked(laplacian_positions(graph, k=6))
    values, vectors = np.linalg.eigh(laplacian(graph))
    null = vectors[:, values < 1e-9]
    assert null.shape[1] == 5
    np.testing.assert_allclose(null.T @ x, 0, atol=1e-3)
    np.testing.assert_allclose(x[-3:], 0, atol=1e-6)
    np.testing.assert_allclose(rayleigh(graph, x), values[5:11], rtol=1e-4)
    np.testing.assert_allclose(np.mean(x ** 2, axis=0), 1, rtol=1e-5)


def test_isolated_nodes_have_zeros_even_where_all_eigenvalues_are_large():
    """A triangle's eigenvalues are 0, 1.5 and 1.5: an isolated node's own direction is not taken before them."""
    x = laplacian_positions(graph_of([[0, 1, 2], [1, 2, 0]], 5), k=4)["n"]
    assert (x[3:] == 0).all() and (x[:, 2:] == 0).all()
    np.testing.assert_allclose(rayleigh(graph_of([[0, 1, 2], [1, 2, 0]], 5), x[:, :2].astype(float)), 1.5, rtol=1e-5)


def test_where_eigenvectors_are_few_the_last_columns_are_zero():
    x = laplacian_positions(graph_of([[0, 1], [1, 2]], 5), k=4)["n"]
    np.testing.assert_allclose(x[:3, 0] ** 2, [2.5, 0, 2.5], rtol=1e-5, atol=1e-6)  # eigenvalue 1
    np.testing.assert_allclose(x[:3, 1] ** 2, [1.25, 2.5, 1.25], rtol=1e-5)  # eigenvalue 2
    assert x.shape == (5, 4) and (x[:, 2:] == 0).all()
    for nodes in (5, 300):
        none = laplacian_positions(graph_of([], nodes), k=2)["n"]
        assert none.shape == (nodes, 2) and (none == 0).all()


@pytest.mark.parametrize("graph", [
    graph_of([np.arange(300), (np.arange(300) + 1) % 300], 300),  # a cycle: every eigenvalue twice
    graph_of(np.concatenate([np.array([[0, 1], [1, 2]]) + 3 * i for i in range(100)], axis=1), 300),  # 100 times 1
    graph_of([[0, 1], [1, 2]], 300),  # 0 of 298 components, 1 and 2
], ids=["cycle", "equal components", "isolated nodes"])
def test_eigenvalues_that_repeat(graph):
    x = stacked(laplacian_positions(graph, k=2))
    np.testing.assert_allclose(rayleigh(graph, x), not_null(graph)[0][:2], rtol=1e-4)


def test_types_directions_multiplicities_and_self_loops_are_forgotten(awkward):
    """The same graph with one type: node by node, in the order of the types."""
    encodings = laplacian_positions(awkward, k=5)
    assert {name: x.shape for name, x in encodings.items()} == {"paper": (7, 5), "author": (5, 5), "venue": (3, 5)}
    assert list(encodings) == list(awkward.node_types)
    pairs = [array + np.array([[{"paper": 0, "author": 7, "venue": 12}[end]] for end in (s, d)])
             for (s, _, d), array in awkward.host_edges().items()]
    one = graph_of(np.concatenate(pairs, axis=1), 15)
    np.testing.assert_array_equal(np.concatenate(list(encodings.values())), laplacian_positions(one, k=5)["n"])
    ends = np.unique(np.sort(np.concatenate(pairs, axis=1), axis=0), axis=1)
    simple = graph_of(ends[::-1, ends[0] != ends[1]], 15)
    np.testing.assert_array_equal(laplacian_positions(one, k=5)["n"], laplacian_positions(simple, k=5)["n"])
    x, values = stacked(encodings), not_null(awkward)[0]
    np.testing.assert_allclose(rayleigh(awkward, x), values[:5], rtol=1e-4)
    np.testing.assert_allclose([encodings["paper"][6], encodings["author"][4]], 0, atol=1e-6)  # no edge


def test_the_approximation_spans_nearly_the_same_space_where_there_is_a_gap():
    """Nine communities: eight eigenvalues stand far below the rest."""
    rng = np.random.default_rng(5)
    senders = rng.integers(0, 270, 3000)
    inside = 9 * rng.integers(0, 30, 3000) + senders % 9
    receivers = np.where(rng.random(3000) < 0.9, inside, rng.integers(0, 270, 3000))
    graph = graph_of([senders, receivers], 270)
    values, vectors = not_null(graph)
    assert values.size == 269 and values[8] > 2 * values[7]
    near = stacked(laplacian_positions(graph, k=8, exact=False))
    assert least_cosine(near, vectors[:, :8]) > 0.9999
    np.testing.assert_allclose(rayleigh(graph, near), values[:8], rtol=1e-3)
    np.testing.assert_allclose(np.mean(near ** 2, axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(near, stacked(laplacian_positions(graph, k=8, exact=False)))


def test_large_graphs_are_approximated_by_default(monkeypatch):
    near = laplacian_positions(LARGE, k=2, exact=False)["n"]
    assert np.abs(laplacian_positions(LARGE, k=2)["n"] - near).max() > 1e-3
    monkeypatch.setattr(positions, "EXACT_UP_TO", 259)
    np.testing.assert_array_equal(laplacian_positions(LARGE, k=2)["n"], near)


# ---------------------------------------------------------------------------------------------------- the cache


def refuse(*args):
    raise AssertionError("computed although it is in the cache")


def test_what_is_in_the_cache_is_read(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    first = laplacian_positions(SMALL, k=3, cache=folder)["n"]
    np.testing.assert_array_equal(first, laplacian_positions(SMALL, k=3)["n"])
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(positions, "_eigenvectors", refuse)
    np.testing.assert_array_equal(laplacian_positions(SMALL, k=3, cache=str(folder))["n"], first)
    for other in ({"k": 2}, {"k": 3, "exact": False}):
        with pytest.raises(AssertionError, match="computed although"):
            laplacian_positions(SMALL, **other, cache=folder)
    with pytest.raises(AssertionError, match="computed although"):
        laplacian_positions(random_graph(60, seed=1), k=3, cache=folder)


def test_the_cache_knows_an_isolated_node_more(tmp_path):
    edges = SMALL.host_edges()[RELATION]
    for nodes in (60, 61):
        assert laplacian_positions(graph_of(edges, nodes), k=3, cache=tmp_path)["n"].shape == (nodes, 3)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_of_no_use_is_computed_anew(tmp_path):
    expected = laplacian_positions(SMALL, k=3, cache=tmp_path)["n"]
    path, = tmp_path.iterdir()
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1  # amid the numbers
    for useless in (b"", b"not an archive", whole[:100], whole[:-30], bytes(changed)):
        path.write_bytes(useless)
        np.testing.assert_array_equal(laplacian_positions(SMALL, k=3, cache=tmp_path)["n"], expected)
        assert path.read_bytes() == whole
    wrongs: list[dict] = [{"vectors": np.ones((60, 4), "f4")}, {"vectors": np.ones((60, 3))},
                          {"other": np.ones((60, 3), "f4")}]
    for wrong in wrongs:
        with open(path, "wb") as file:
            np.savez(file, **wrong)
        np.testing.assert_array_equal(laplacian_positions(SMALL, k=3, cache=tmp_path)["n"], expected)


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("k", [0, -1, 2.0, None])
def test_a_number_that_is_none_is_refused(k):
    with pytest.raises(ValueError, match=re.escape(f"k must be a positive integer, got {k!r}")):
        laplacian_positions(SMALL, k=k)


def test_iterations_that_do_not_converge_are_said(monkeypatch):
    def fail(*args, **kwargs):
        raise scipy.sparse.linalg.ArpackNoConvergence("no convergence (2001 iterations)", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)
    with pytest.raises(RuntimeError, match=r"the 3 eigenvectors did not converge in 2000 Lanczos restarts \(.*no conv"):
        laplacian_positions(LARGE, k=3)
    assert laplacian_positions(LARGE, k=3, exact=False)["n"].any()


# ------------------------------------------------------------------------------------ a graph and its positions


@pytest.fixture
def rows(rng):
    return {"paper": rng.normal(size=(7, 2)).astype(np.float32), "venue": rng.normal(size=(3, 2)).astype(np.float32)}


def test_a_graph_is_given_positions(awkward, rows):
    assert awkward.positions == {}
    given = awkward.with_positions(rows)
    assert awkward.positions == {} and set(given.positions) == {"paper", "venue"}
    for name, array in rows.items():
        assert isinstance(given.positions[name], jax.Array)
        np.testing.assert_array_equal(given.positions[name], array)
    assert given.features is awkward.features and given.relations is awkward.relations
    again = given.with_positions({"author": np.arange(5)[:, None]})
    assert set(again.positions) == {"author"} and again.positions["author"].dtype == jnp.float32
    assert given.with_positions({}).positions == {}
    assert given.keep_features(["paper"]).positions is given.positions
    assert given.add_relations({("venue", "new", "venue"): [[0], [1]]}).positions == {}


@pytest.mark.parametrize(("given", "message"), [
    ({"film": np.zeros((7, 2))}, "positions are given for node type 'film', which is unknown; the graph has ['paper'"),
    ({"paper": np.zeros((6, 2))}, "of 'paper' have 6 rows, expected 7"),
    ({"paper": np.zeros(7)}, "of 'paper' must have shape [N, F], got [7]"),
    ({"paper": np.full((7, 2), np.nan)}, "expected a finite number"),
    ({"paper": np.full((7, 2), "a")}, "of 'paper' must be numbers"),
    ({"paper": SparseFeatures.from_csr([0] * 7 + [1], [1], [1.0], (7, 2))}, "positions['paper'] must be a dense array"),
    ({"paper": np.zeros((7, 2)), "venue": np.zeros((3, 1))}, "positions must have one width, got {'paper': 2, 'venue'"),
])
def test_positions_that_do_not_fit_are_refused(awkward, given, message):
    with pytest.raises(GraphError, match=re.escape(message)):
        awkward.with_positions(given)


def test_renumbering_nodes_renumbers_positions(awkward, rows, rng):
    order = {"paper": rng.permutation(7), "author": rng.permutation(5)}
    moved = awkward.with_positions(rows).permute(order)
    np.testing.assert_array_equal(moved.positions["paper"], rows["paper"][order["paper"]])
    np.testing.assert_array_equal(moved.positions["venue"], rows["venue"])
    assert set(moved.positions) == {"paper", "venue"} and (order["paper"] != np.arange(7)).any()


def test_positions_are_traced_with_their_graph(awkward, rows):
    given, calls = awkward.with_positions(rows), []

    @jax.jit
    def read(graph):
        calls.append(1)
        return {name: 2 * x for name, x in graph.positions.items()}

    assert read(awkward) == {}
    np.testing.assert_array_equal(read(given)["venue"], 2 * rows["venue"])
    np.testing.assert_array_equal(read(given.with_positions({n: -x for n, x in rows.items()}))["paper"],
                                  -2 * rows["paper"])
    assert len(calls) == 2  # other numbers are not another program
    back = jax.tree.unflatten(*reversed(jax.tree.flatten(given)))
    np.testing.assert_array_equal(back.positions["paper"], rows["paper"])
