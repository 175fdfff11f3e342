"""The graph on the host: the same edges as a `HeteroGraph`, from arrays in any order, in memory or on the disk."""

import re

import jax
import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph, SparseFeatures
from hire_jax.models import RGCN, SimpleHGN
from hire_jax.sampling import HostGraph
from hire_jax.sampling.features import SparseRows
from hire_jax.sampling.host import Incoming

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = {"target": "paper", "num_classes": 3, "hidden": 8}


def edges_of(host, edge_type):
    incoming = host.relations[edge_type]
    receivers = np.repeat(np.arange(incoming.indptr.size - 1), np.diff(incoming.indptr))
    return np.stack([incoming.senders, receivers])


def same(left, right):
    assert left.counts == right.counts and set(left.relations) == set(right.relations)
    for edge_type in left.relations:
        np.testing.assert_array_equal(edges_of(left, edge_type), edges_of(right, edge_type))
        assert (left.relations[edge_type].features is None) == (right.relations[edge_type].features is None)


def test_from_graph_and_from_arrays_agree(awkward, awkward_arrays, rng):
    nodes, edges, features = awkward_arrays
    shuffled = {edge_type: array[:, rng.permutation(array.shape[1])] for edge_type, array in edges.items()}
    built, taken = HostGraph.from_arrays(nodes, shuffled, features), HostGraph.from_graph(awkward)
    same(built, taken)
    for edge_type, array in awkward.host_edges().items():
        np.testing.assert_array_equal(edges_of(built, edge_type), array)
    np.testing.assert_array_equal(built.features["paper"], features["paper"])
    sparse = built.features["author"]
    assert isinstance(sparse, SparseRows) and sparse.shape == (5, 4) and sparse.indptr.tolist() == [0, 2, 2, 3, 5, 5]
    assert set(taken.features) == {"paper", "author"}


def test_edge_features_go_with_their_edges(awkward_arrays, rng):
    nodes, edges, _ = awkward_arrays
    writes = "author", "writes", "paper"
    values = {writes: rng.normal(size=(6, 2)).astype(np.float32)}
    graph = HeteroGraph.from_arrays(nodes, edges, edge_features=values)
    for host in (HostGraph.from_arrays(nodes, edges, edge_features=values), HostGraph.from_graph(graph)):
        np.testing.assert_array_equal(host.relations[writes].features, graph.relations[writes].edges)


def test_maps_of_files_stay_on_the_disk(tmp_path, awkward_arrays):
    nodes, edges, features = awkward_arrays
    writes = "author", "writes", "paper"
    np.save(tmp_path / "x.npy", features["paper"])
    np.save(tmp_path / "edges.npy", edges[writes].astype(np.int32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    host = HostGraph.from_arrays(nodes, {writes: np.load(tmp_path / "edges.npy", mmap_mode="r")}, {"paper": mapped})
    assert np.shares_memory(host.features["paper"], mapped)
    np.testing.assert_array_equal(edges_of(host, writes), edges_of(HostGraph.from_arrays(nodes, edges), writes))


def test_maps_of_edge_features_stay_where_edges_are_in_order(tmp_path, rng):
    np.save(tmp_path / "values.npy", rng.normal(size=(3, 2)))
    values, edge_type = np.load(tmp_path / "values.npy", mmap_mode="r"), ("a", "to", "a")
    for edges, order in (([[1, 0, 1], [0, 1, 1]], [0, 1, 2]), ([[0, 1, 1], [1, 1, 0]], [2, 0, 1])):
        host = HostGraph.from_arrays({"a": 2}, {edge_type: edges}, edge_features={edge_type: values})
        np.testing.assert_array_equal(host.relations[edge_type].features, values[order])
        assert np.shares_memory(host.relations[edge_type].features, values) == (order == [0, 1, 2])


@pytest.mark.parametrize("given, kept", [
    (np.float16, "float16"), (">f4", "float32"), (">f8", "float64"), (np.longdouble, "float32"), (">i2", "float32"),
    (jax.numpy.bfloat16, "bfloat16")])
def test_what_jax_cannot_take_is_converted(tmp_path, given, kept):
    """In memory or mapped, so that no thread meets it."""
    values = np.arange(4).reshape(2, 2).astype(given)
    np.save(tmp_path / "x.npy", values)
    arrays = [values] if kept == "bfloat16" else [values, np.load(tmp_path / "x.npy", mmap_mode="r")]
    for array in arrays:
        host = HostGraph.from_arrays({"a": 2}, {}, {"a": array})
        assert host.features["a"].dtype == kept and host.features["a"].dtype.isnative
        assert jax.device_put(host.features["a"]).tolist() == [[0, 1], [2, 3]]


def test_values_that_are_not_finite_are_named_unless_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("hire_jax.sampling.features._LOOKED_AT", 64)  # rows of 8 bytes: several parts
    values = np.zeros((30, 1))
    values[21] = 1e300  # of which float32 makes infinity
    message = r"features of 'a': the value at \(21, 0\) is 1e\+300, expected a finite number \(stored as float32\)"
    with pytest.raises(GraphError, match=message):
        HostGraph.from_arrays({"a": 30}, {}, {"a": values})
    edge_type = "a", "to", "a"
    with pytest.raises(GraphError, match=r"\(a, to, a\): edge features: the value at \(1,\) is nan"):
        HostGraph.from_arrays({"a": 1}, {edge_type: [[0, 0], [0, 0]]}, edge_features={edge_type: [0.0, np.nan]})
    np.save(tmp_path / "x.npy", values)
    assert HostGraph.from_arrays({"a": 30}, {}, {"a": np.load(tmp_path / "x.npy", mmap_mode="r")}).counts == {"a": 30}


def test_shapes_of_what_is_larger_than_the_device_could_hold():
    """Nodes times relations are four times what int32 counts, and no array is there, on the device or on the host."""
    count, nothing = 2**30, Incoming(np.zeros(1, np.int64), np.zeros(0, np.int32))
    features = np.broadcast_to(np.zeros((1, 2), np.float32), (count, 2))
    host = HostGraph({"paper": count}, {("paper", str(k), "paper"): nothing for k in range(8)}, {"paper": features}, {})
    shapes = host.shapes()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
    assert shapes.num_nodes == {"paper": count} and len(shapes.edge_types) == 8
    variables = jax.eval_shape(RGCN(**MODEL).init, jax.random.key(0), shapes)
    assert variables["params"]["InputProjection_0"]["kernel_paper"].shape == (2, 8)


def test_integer_features_are_numbers():
    host = HostGraph.from_arrays({"a": 2}, {}, {"a": [[1, 2], [3, 4]]}, positions={"a": [[True], [False]]})
    assert host.features["a"].dtype == np.float32 and host.positions["a"].tolist() == [[1], [0]]


@pytest.mark.parametrize("model", [RGCN(**MODEL), SimpleHGN(**MODEL, heads=2)])
def test_shapes_initialise_what_the_graph_does(awkward, model):
    host = HostGraph.from_graph(awkward.with_positions({"paper": np.ones((7, 2), np.float32)}))
    shapes = host.shapes()
    assert shapes.positions["paper"].shape == (7, 2) and isinstance(shapes.features["author"], SparseFeatures)
    ours, theirs = (model.lazy_init(jax.random.key(3), graph) for graph in (shapes, awkward))
    assert theirs["params"]["InputProjection_0"]["embedding_venue"].shape == (3, 8)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_doubles_are_as_wide_as_jax_has_them():
    host = HostGraph.from_arrays({"a": 2}, {}, {"a": np.ones((2, 3))})
    assert host.shapes().features["a"].dtype == np.float32


@pytest.mark.parametrize("change, message", [
    ({"num_nodes": {}}, "a graph needs at least one node type"),
    ({"num_nodes": {"a": 2**31, "b": 1}}, "must be at most 2147483647"),
    ({"num_nodes": {"a": -1, "b": 1}}, "must not be negative"),
    ({"edges": {("a", "to", "c"): [[0], [0]]}}, "destination type 'c' is unknown"),
    ({"edges": {("a", "to", "b"): [[2], [0]]}}, "sender of edge 0 is 2, outside [0, 2)"),
    ({"features": {"c": [[1.0]]}}, "features are given for node type 'c', which is unknown"),
    ({"features": {"a": [[1.0]]}}, "features of 'a' have 1 rows, expected 2"),
    ({"features": {"a": [[1.0], [2.0, 3.0]]}}, "features of 'a' must be an array of numbers"),
    ({"features": {"a": [1.0, 2.0]}}, "features of 'a' must be numbers [N, F], got float64[2]"),
    ({"positions": {"a": np.zeros((2, 1), complex)}}, "positions of 'a' must be numbers"),
    ({"edge_features": {("b", "to", "a"): [1.0]}}, "edge_features has (b, to, a), which edges does not"),
    ({"edge_features": {("a", "to", "b"): [1.0, 2.0]}}, "edge features must have shape [1]"),
])  # fmt: skip
def test_what_does_not_fit_is_named(change, message):
    given = {"num_nodes": {"a": 2, "b": 1}, "edges": {("a", "to", "b"): [[1], [0]]}} | change
    with pytest.raises(GraphError, match=re.escape(message)):
        HostGraph.from_arrays(**given)
