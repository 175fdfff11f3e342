"""The form of the co-purchase and co-author graphs, in the keys of both publishers: hand-made and published graphs."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats.gnn_benchmark import parse_gnn_benchmark
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals
from tests.data.written import repacked

DATA = os.environ.get("HIRE_JAX_DATA")  # read here: a fixture hides it from the tests

Keys = dict[str, Any]
Scheme = Callable[[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix, np.ndarray], Keys]


class Act:
    """Pickles as a call."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def gnn_benchmark(adjacency: scipy.sparse.csr_matrix, attributes: scipy.sparse.csr_matrix, labels: np.ndarray) -> Keys:
    """As gnn-benchmark's own function saves a graph."""
    return {
        **{f"adj_{part}": getattr(adjacency, part) for part in ("data", "indices", "indptr", "shape")},
        **{f"attr_{part}": getattr(attributes, part) for part in ("data", "indices", "indptr", "shape")},
        "labels": labels,
        "node_names": np.array([f"node {node}" for node in range(len(labels))], dtype=object),
        "class_names": np.array(["a class"], dtype=object),
    }


def graph_data(adjacency: scipy.sparse.csr_matrix, attributes: scipy.sparse.csr_matrix, labels: np.ndarray) -> Keys:
    """As GraphGallery saves a graph: numpy pickles a matrix as an array of one object."""
    return {"adj_matrix": adjacency, "node_attr": attributes, "node_label": labels, "metadata": {"of": "a graph"}}


def graph_war(adjacency: scipy.sparse.csr_matrix, attributes: scipy.sparse.csr_matrix, labels: np.ndarray) -> Keys:
    """Other keys of the same collection, and attributes that are dense."""
    return {"adj_matrix": adjacency, "attr_matrix": attributes.toarray(), "label": labels}


SCHEMES = [gnn_benchmark, graph_data, graph_war]


def npz(keys: Keys) -> Originals:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **keys)
    return Originals.of_files({"tiny.npz": buffer.getvalue()}, "here")


@pytest.fixture
def matrices() -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix, np.ndarray]:
    """Four nodes: one-way links, a self loop, a weight, an explicit zero (which is an edge), a word stored as 0."""
    adjacency = scipy.sparse.csr_matrix(([1, 1, 5, 0], [3, 2, 0, 1], [0, 1, 1, 3, 4]), shape=(4, 4), dtype=np.float32)
    attributes = scipy.sparse.csr_matrix(([2.0, 0, 1], [1, 0, 2], [0, 1, 2, 2, 3]), shape=(4, 3))
    return adjacency, attributes, np.array([1, 0, 1, 2])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_arrays(scheme: Scheme, matrices: Any, tmp_path: Path) -> None:
    arrays = parse_gnn_benchmark(npz(scheme(*matrices)))
    assert arrays["num_nodes/node"] == 4
    assert {part: arrays[f"x/node/{part}"].tolist() for part in ("indptr", "indices", "data", "shape")} == {
        "indptr": [0, 1, 1, 1, 2], "indices": [1, 2], "data": [2.0, 1.0], "shape": [4, 3]
    }
    assert arrays["edge/node__to__node"].T.tolist() == [[0, 2], [0, 3], [1, 3], [2, 0], [3, 0], [3, 1]]
    assert arrays["y/node"].tolist() == [1, 0, 1, 2]
    write_npz(tmp_path / "tiny.npz", arrays, {"target": "node", "classes": ["a", "b", "c"]})
    assert read_npz(tmp_path / "tiny.npz").splits == {}


@pytest.mark.parametrize("scheme", [gnn_benchmark, graph_data])
@pytest.mark.parametrize("key", ["node_names", "class_names", "metadata", "attr_names"])
def test_other_objects_are_never_unpickled(key: str, scheme: Scheme, matrices: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    files = npz(scheme(*matrices) | {key: np.array([Act(trace)], dtype=object)})
    assert parse_gnn_benchmark(files)["num_nodes/node"] == 4
    assert not trace.exists()
    np.load(io.BytesIO(files.read("tiny.npz")), allow_pickle=True)[key]  # it does act where nothing restrains it
    assert trace.exists()


@pytest.mark.parametrize("key", ["adj_matrix", "node_attr"])
def test_matrix_that_would_act(key: str, matrices: Any, tmp_path: Path) -> None:
    value = np.empty((), dtype=object)
    value[()] = Act(tmp_path / "trace")
    with pytest.raises(DatasetError, match=rf"here: tiny\.npz: {key}: expected .*mkdir"):
        parse_gnn_benchmark(npz(graph_data(*matrices) | {key: value}))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("adj_shape", np.array([4, 5]), r"adjacency: expected a square matrix, found \[4, 5\]"),
        ("adj_shape", np.array([4]), r"adj_shape: expected rows and columns, found int64 of shape \[1\]"),
        ("adj_shape", np.array([4, 2**62]), r"adj_shape: expected integers from 0 to 2147483647, found 46\d+ at \[1\]"),
        ("adj_shape", np.array([4.0, 4.0]), "adj_shape: expected integers, found float64"),
        ("adj_shape", np.array([5, 5]), "adj: expected 6 row limits"),
        ("adj_indptr", np.array([0, 1, 1, 3, 5]), "adj: indptr: expected integers from 0 to 4, found 5"),
        ("adj_indptr", np.array([0, 3, 1, 3, 4]), "adj: indptr: expected numbers that rise from 0 to 4"),
        ("adj_indices", np.array([3, 2, 0, 4]), r"adj: indices: expected integers from 0 to 3, found 4 at \[3\]"),
        ("adj_indices", np.array([3, 2, 0, -1]), "adj: indices: expected integers from 0 to 3, found -1"),
        ("adj_data", np.array([1, 1, 1]), "adj: expected 5 row limits .* found 5, 3 and 4"),
        ("adj_data", np.array(["1"] * 4), "adj: data: expected real numbers, found <U1"),
        ("attr_shape", np.array([4, 2**25]), "attr: shape: expected rows and at most 16777216 columns"),
        ("attr_shape", np.array([3, 3]), "attr: expected 4 row limits"),
        ("attr_indices", np.array([1, 0, 3]), r"attr: indices: expected integers from 0 to 2, found 3 at \[2\]"),
        ("attr_indptr", np.array([0, 2, 2, 2, 3]), None),
        ("attr_data", np.array([1, np.nan, 1]), r"attr: data: expected numbers finite in float32, found nan at \[1\]"),
        ("attr_data", np.array([1, 1e39, 1]), r"attr: data: expected numbers finite in float32"),
        ("labels", np.zeros(3, int), r"labels: expected one for each of 4 nodes, found int64 of shape \[3\]"),
        ("labels", np.zeros(4), "labels: expected integers, found float64"),
        ("labels", np.array([0, 1, 2, 4]), r"labels: expected integers from 0 to 3, found 4 at \[3\]"),
        ("labels", np.array([0, 1, 2, -1]), "labels: expected integers from 0 to 3, found -1"),
        ("labels", np.zeros(4, object), r"labels\.npy: expected a plain array"),
    ],
)
def test_wrong_array(key: str, value: np.ndarray, says: str | None, matrices: Any) -> None:
    files = npz(gnn_benchmark(*matrices) | {key: value})
    if says is None:
        assert parse_gnn_benchmark(files)["num_nodes/node"] == 4
        return
    with pytest.raises(DatasetError, match=rf"^here: tiny\.npz: {says}"):
        parse_gnn_benchmark(files)


def test_edge_may_stand_twice_but_no_word(matrices: Any) -> None:
    twice = {"adj_indices": np.array([3, 2, 2, 1]), "adj_indptr": np.array([0, 1, 3, 3, 4])}
    edges = parse_gnn_benchmark(npz(gnn_benchmark(*matrices) | twice))["edge/node__to__node"]
    assert edges.T.tolist() == [[0, 3], [1, 2], [1, 3], [2, 1], [3, 0], [3, 1]]
    words = {"attr_indices": np.array([1, 2, 2]), "attr_indptr": np.array([0, 1, 1, 1, 3])}
    with pytest.raises(DatasetError, match="attr: expected each entry once, found row 3, column 2 twice"):
        parse_gnn_benchmark(npz(gnn_benchmark(*matrices) | words))


@pytest.mark.parametrize("key", ["adj_data", "adj_indices", "adj_shape", "attr_data", "attr_shape"])
def test_missing_part(key: str, matrices: Any) -> None:
    keys = gnn_benchmark(*matrices)
    del keys[key]
    with pytest.raises(DatasetError, match=rf"here: tiny\.npz: expected a file {key}\.npy, found"):
        parse_gnn_benchmark(npz(keys))


@pytest.mark.parametrize(
    "scheme, key, wanted",
    [
        (gnn_benchmark, "adj_indptr", "adj or adj_matrix"),
        (gnn_benchmark, "attr_indptr", "attr or node_attr or attr_matrix"),
        (gnn_benchmark, "labels", "labels or node_label or label"),
        (graph_data, "adj_matrix", "adj or adj_matrix"),
        (graph_data, "node_attr", "attr or node_attr or attr_matrix"),
        (graph_data, "node_label", "labels or node_label or label"),
    ],
)
def test_missing_array(scheme: Scheme, key: str, wanted: str, matrices: Any) -> None:
    keys = scheme(*matrices)
    del keys[key]
    with pytest.raises(DatasetError, match=rf"here: tiny\.npz: expected an array {wanted}, found \["):
        parse_gnn_benchmark(npz(keys))


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("adj_matrix", scipy.sparse.csr_matrix(np.eye(3)), "attributes: expected rows for 3 nodes, found 4"),
        ("adj_matrix", scipy.sparse.csr_matrix((0, 0)), r"adjacency: expected a square matrix, found \[0, 0\]"),
        ("adj_matrix", scipy.sparse.csc_matrix(np.eye(4)), "adj_matrix: expected"),
        ("adj_matrix", np.ones(4), r"adj_matrix: expected a matrix, found float64 of shape \[4\]"),
        ("node_attr", {"a": 1}, "node_attr: expected"),
        ("node_attr", np.full((4, 2), "word"), "node_attr: expected real numbers, found <U4"),
        ("node_attr", np.full((4, 2), np.inf), r"node_attr: expected numbers finite in float32, found inf at \[0, 0\]"),
        ("node_attr", np.ones((4, 2), object), r"node_attr\.npy: expected a plain array"),
        ("node_attr", scipy.sparse.csr_matrix(np.full((4, 2), np.nan)), "node_attr: data: expected numbers finite"),
    ],
)
def test_wrong_matrix(key: str, value: Any, says: str, matrices: Any) -> None:
    with pytest.raises(DatasetError, match=rf"here: tiny\.npz: {says}"):
        parse_gnn_benchmark(npz(graph_data(*matrices) | {key: value}))


def test_packing_that_states_its_own_memory_is_refused(matrices: Any) -> None:
    packed = repacked(npz(gnn_benchmark(*matrices)).read("tiny.npz"), zipfile.ZIP_LZMA)
    with pytest.raises(DatasetError, match=r"here: tiny\.npz: .*: expected a member that is deflated or not packed"):
        parse_gnn_benchmark(Originals.of_files({"tiny.npz": packed}, "here"))


def test_damaged(matrices: Any) -> None:
    content = npz(gnn_benchmark(*matrices)).read("tiny.npz")
    for damaged in (b"", b"PK", content[:-30], content.replace(b"adj_data", b"adj_dat\xff")):
        with pytest.raises(DatasetError, match=r"here: tiny\.npz: expected"):
            parse_gnn_benchmark(Originals.of_files({"tiny.npz": damaged}, "here"))
    keys = graph_data(*matrices)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    header = buffer.getvalue()[:-24].replace(b"'<f8'", b"'|O' ").replace(b"(3,)", b"()  ")
    for payload in (b"", b"no pickle", pickle.dumps(3)):
        with pytest.raises(DatasetError, match=r"here: tiny\.npz: adj_matrix: expected"):
            files = npz({key: keys[key] for key in keys if key != "adj_matrix"})
            parse_gnn_benchmark(added(files, "adj_matrix.npy", header + payload))


def added(files: Originals, member: str, content: bytes) -> Originals:
    buffer = io.BytesIO(files.read("tiny.npz"))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(member, content)
    return Originals.of_files({"tiny.npz": buffer.getvalue()}, "here")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8), scheme=st.sampled_from(SCHEMES))
def test_round_trip(seed: int, count: int, scheme: Scheme) -> None:
    random = np.random.default_rng(seed)
    adjacency = random.integers(0, 3, (count, count)) * (random.random((count, count)) < 0.3)
    attributes = random.integers(0, 4, (count, random.integers(1, 5))).astype(np.float32)
    labels = random.integers(0, count, count)
    arrays = parse_gnn_benchmark(
        npz(scheme(scipy.sparse.csr_matrix(adjacency), scipy.sparse.csr_matrix(attributes), labels))
    )
    linked = adjacency + adjacency.T > 0
    np.fill_diagonal(linked, False)
    np.testing.assert_array_equal(arrays["edge/node__to__node"], np.argwhere(linked).T)
    parts = tuple(arrays[f"x/node/{part}"] for part in ("data", "indices", "indptr"))
    back = scipy.sparse.csr_matrix(parts, shape=arrays["x/node/shape"]).toarray()
    np.testing.assert_array_equal(back, attributes)
    np.testing.assert_array_equal(arrays["y/node"], labels)


@pytest.mark.parametrize("scheme", [gnn_benchmark, graph_data])
@pytest.mark.parametrize("name", ["amazon_photo", "coauthor_cs"])
def test_published_graphs(name: str, scheme: Scheme) -> None:
    """A file made from the published arrays, in the keys of either publisher, gives them back."""
    if not DATA or not (Path(DATA) / f"{name}.npz").is_file():
        pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
    with np.load(Path(DATA) / f"{name}.npz") as archive:
        expected = {key: archive[key] for key in archive.files if key != "meta"}
    count = int(expected["num_nodes/node"])
    edges = expected["edge/node__to__node"]
    one_way = edges[:, edges[0] < edges[1]]
    ones = np.ones(one_way.shape[1], np.float32)
    adjacency = scipy.sparse.csr_matrix((ones, tuple(one_way)), shape=(count, count))
    parts = tuple(expected[f"x/node/{part}"] for part in ("data", "indices", "indptr"))
    attributes = scipy.sparse.csr_matrix(parts, shape=expected["x/node/shape"])
    arrays = parse_gnn_benchmark(npz(scheme(adjacency, attributes, expected["y/node"].astype(np.int64))))
    assert sorted(arrays) == sorted(expected)
    for key, array in arrays.items():
        assert array.dtype == expected[key].dtype
        np.testing.assert_array_equal(array, expected[key])
