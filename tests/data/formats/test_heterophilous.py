"""The form of the heterophilous graphs, on a hand-made file and on the published ones made anew."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats.heterophilous import KEYS, parse_heterophilous
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals
from tests.data.written import repacked

DATA = os.environ.get("HIRE_JAX_DATA")  # read here: a fixture hides it from the tests

Arrays = dict[str, np.ndarray]


def npz(arrays: Arrays) -> Originals:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return Originals.of_files({"tiny.npz": buffer.getvalue()}, "here")


@pytest.fixture
def original() -> Arrays:
    """Five nodes of two classes, two splits."""
    masks = np.array([[[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]], [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]],
                      [[0, 0, 0, 1, 0], [0, 1, 1, 0, 0]]], dtype=bool)
    return {
        "node_features": np.arange(10.0).reshape(5, 2),
        "node_labels": np.array([0, 1, 1, 0, 1]),
        "edges": np.array([[3, 1], [1, 3], [2, 2], [0, 4], [0, 4]]),
        "train_masks": masks[0],
        "val_masks": masks[1],
        "test_masks": masks[2],
    }


def test_arrays(original: Arrays, tmp_path: Path) -> None:
    arrays = parse_heterophilous(npz(original))
    assert arrays["num_nodes/node"] == 5
    assert arrays["x/node"].dtype == np.float32
    np.testing.assert_array_equal(arrays["x/node"], original["node_features"])
    assert arrays["edge/node__to__node"].T.tolist() == [[0, 4], [1, 3], [3, 1], [4, 0]]
    assert arrays["y/node"].tolist() == [0, 1, 1, 0, 1]
    splits = {key: value.tolist() for key, value in arrays.items() if key.startswith("split/")}
    assert splits == {"split/0/train": [0, 1], "split/0/val": [2], "split/0/test": [3],
                      "split/1/train": [4], "split/1/val": [0], "split/1/test": [1, 2]}
    for sparse_below in (0.1, 1.0):
        arrays = parse_heterophilous(npz(original), name="tiny.npz", sparse_below=sparse_below)
        write_npz(tmp_path / "tiny.npz", arrays, {"target": "node", "classes": ["a", "b"]})
        assert sorted(read_npz(tmp_path / "tiny.npz").splits) == ["0", "1"]


def test_bags_of_words_become_csr(original: Arrays) -> None:
    words = np.zeros((5, 4))
    words[1, 3] = words[4, 0] = 1  # a tenth of twenty
    dense = parse_heterophilous(npz(original | {"node_features": words}))
    np.testing.assert_array_equal(dense["x/node"], words)
    csr = parse_heterophilous(npz(original | {"node_features": words}), sparse_below=0.11)
    assert {part: csr[f"x/node/{part}"].tolist() for part in ("indptr", "indices", "data", "shape")} == {
        "indptr": [0, 0, 1, 1, 1, 2], "indices": [3, 0], "data": [1.0, 1.0], "shape": [5, 4]
    }
    assert "x/node" not in csr
    empty = parse_heterophilous(npz(original | {"node_features": np.zeros((5, 4))}))
    assert empty["x/node/indptr"].tolist() == [0] * 6


@pytest.mark.parametrize(
    "key, value, says",
    [
        ("node_features", np.zeros((0, 2)), r"expected numbers \[N, F\], found float64 of shape \[0, 2\]"),
        ("node_features", np.zeros(5), r"expected numbers \[N, F\]"),
        ("node_features", np.full((5, 2), np.nan), r"finite in float32, found nan at \[0, 0\]"),
        ("node_features", np.full((5, 2), 1e39), r"finite in float32, found 1e\+39"),
        ("node_features", np.full((5, 2), "1"), "expected real numbers, found <U1"),
        ("node_features", np.full((5, 2), 1, object), "node_features: expected a plain array"),
        ("node_labels", np.zeros(4, int), r"one label for each of 5 nodes, found int64 of shape \[4\]"),
        ("node_labels", np.zeros(5), "expected integers, found float64"),
        ("node_labels", np.array([0, 1, 1, -1, 0]), r"integers from 0 to 4, found -1 at \[3\]"),
        ("node_labels", np.array([0, 1, 1, 2**63, 0], np.uint64), "found 9223372036854775808"),
        ("edges", np.zeros((2, 3), int), r"edges: expected integers \[E, 2\], found int64 of shape \[2, 3\]"),
        ("edges", np.zeros(4, int), r"edges: expected integers \[E, 2\]"),
        ("edges", np.array([[0, 5]]), r"edges: expected integers from 0 to 4, found 5 at \[0, 1\]"),
        ("edges", np.array([[0, 1], [-(2**63), 1]]), r"found -9223372036854775808 at \[1, 0\]"),
        ("edges", np.array([[0.0, 1.0]]), "edges: expected integers, found float64"),
        ("train_masks", np.zeros((2, 5), int), "train_masks: expected a bool mask of 5 nodes for each split"),
        ("train_masks", np.array(True), "train_masks: expected a bool mask"),
        ("train_masks", np.zeros((0, 5), bool), "train_masks: expected a bool mask"),
        ("test_masks", np.ones((1, 5), bool), r"test_masks: expected .* as many splits for every part.*\[1, 5\]"),
        ("val_masks", np.ones((2, 4), bool), "val_masks: expected a bool mask"),
        ("val_masks", np.array([[0, 0, 1, 0, 0], [0] * 5], bool), "val_masks: expected nodes in every .* in split 1"),
        ("val_masks", np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], bool), "found node 4 in two of 1"),
    ],
)
def test_wrong_array(key: str, value: np.ndarray, says: str, original: Arrays) -> None:
    with pytest.raises(DatasetError, match=f"here: tiny.npz: .*{says}"):
        parse_heterophilous(npz(original | {key: value}))


@pytest.mark.parametrize("key", KEYS)
def test_missing_array(key: str, original: Arrays) -> None:
    with pytest.raises(DatasetError, match=f"tiny.npz: expected an array '{key}', found"):
        parse_heterophilous(npz({other: original[other] for other in KEYS if other != key}))


def test_packing_that_states_its_own_memory_is_refused(original: Arrays) -> None:
    packed = repacked(npz(original).read("tiny.npz"), zipfile.ZIP_LZMA)
    with pytest.raises(DatasetError, match=r"here: tiny\.npz: .*: expected a member that is deflated or not packed"):
        parse_heterophilous(Originals.of_files({"tiny.npz": packed}, "here"))


def test_which_file(original: Arrays) -> None:
    content = npz(original).read("tiny.npz")
    with pytest.raises(DatasetError, match=r"here: expected one \.npz file, found \['read.me'\]"):
        parse_heterophilous(Originals.of_files({"read.me": b""}, "here"))
    two = Originals.of_files({"a.npz": b"", "b.npz": content}, "here")
    with pytest.raises(DatasetError, match=r"expected one \.npz file, found \['a.npz', 'b.npz'\]"):
        parse_heterophilous(two)
    assert parse_heterophilous(two, name="b.npz")["num_nodes/node"] == 5
    with pytest.raises(DatasetError, match=r"here: a\.npz: expected a complete npz file"):
        parse_heterophilous(two, name="a.npz")
    with pytest.raises(DatasetError, match=r"here: tiny\.npz: expected a complete npz file"):
        parse_heterophilous(Originals.of_files({"tiny.npz": content[:-50]}, "here"))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(3, 9), splits=st.integers(1, 3))
def test_round_trip(seed: int, count: int, splits: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(-2, 3, (count, 3)) * (random.random((count, 3)) < random.random())
    labels = random.integers(0, count, count)
    edges = random.integers(0, count, (random.integers(0, 12), 2))
    parts = np.array([random.permutation([0, 1, 2, *random.integers(0, 4, count - 3)]) for _ in range(splits)])
    masks = {f"{part}_masks": parts == position for position, part in enumerate(("train", "val", "test"))}
    arrays = parse_heterophilous(npz({"node_features": x, "node_labels": labels, "edges": edges, **masks}))
    expected = {(a, b) for a, b in edges.tolist() if a != b}
    expected |= {(b, a) for a, b in expected}
    assert list(map(tuple, arrays["edge/node__to__node"].T.tolist())) == sorted(expected)
    np.testing.assert_array_equal(arrays["y/node"], labels)
    for split in range(splits):
        for position, part in enumerate(("train", "val", "test")):
            assert arrays[f"split/{split}/{part}"].tolist() == np.flatnonzero(parts[split] == position).tolist()
    if "x/node" in arrays:
        np.testing.assert_array_equal(arrays["x/node"], x)
        assert np.count_nonzero(x) >= 0.1 * x.size
    else:
        rebuilt = np.zeros(x.shape)
        rows = np.repeat(np.arange(count), np.diff(arrays["x/node/indptr"]))
        rebuilt[rows, arrays["x/node/indices"]] = arrays["x/node/data"]
        np.testing.assert_array_equal(rebuilt, x)
        assert np.count_nonzero(x) < 0.1 * x.size


@pytest.mark.parametrize("name", ["actor", "chameleon_filtered", "tolokers"])
def test_published_graphs(name: str) -> None:
    """A file made from the published arrays, as the source has it, gives them back: dense or CSR as they were."""
    if not DATA or not (Path(DATA) / f"{name}.npz").is_file():
        pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
    with np.load(Path(DATA) / f"{name}.npz") as archive:
        expected = {key: archive[key] for key in archive.files if key != "meta"}
    count = int(expected["num_nodes/node"])
    if "x/node" in expected:
        features = expected["x/node"]
    else:
        features = np.zeros(expected["x/node/shape"], np.float32)
        rows = np.repeat(np.arange(count), np.diff(expected["x/node/indptr"]))
        features[rows, expected["x/node/indices"]] = expected["x/node/data"]
    edges = expected["edge/node__to__node"].T
    original = {"node_features": features, "node_labels": expected["y/node"], "edges": edges[edges[:, 0] < edges[:, 1]]}
    for part in ("train", "val", "test"):
        original[f"{part}_masks"] = np.zeros((10, count), bool)
        for split in range(10):
            original[f"{part}_masks"][split, expected[f"split/{split}/{part}"]] = True
    arrays = parse_heterophilous(npz(original))
    assert sorted(arrays) == sorted(expected)
    for key, array in arrays.items():
        assert array.dtype == expected[key].dtype
        np.testing.assert_array_equal(array, expected[key])
