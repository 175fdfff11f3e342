"""MAGNN's form of IMDB, on a hand-made graph, on damaged ones, and on the published archive; and MAGNN's split."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats.magnn import magnn_split, parse_magnn
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals

# Read here: a fixture hides HIRE_JAX_DATA from the tests.
DATA = os.environ.get("HIRE_JAX_DATA")
META = {"target": "movie", "classes": ["Action", "Comedy", "Drama"]}

# Types stand mixed here; in the archive movies come first.
TYPES = np.array([0, 2, 0, 1, 0, 2], np.int32)
LINKS = np.array([[0, 3], [2, 3], [4, 3], [0, 1], [0, 5], [4, 1]])
FEATURES = ([[0, 1.5, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]], [[1, 0, 0, 1]], [[0, 0.2, 0, 0], [0, 0, 0, 0.4]])


def contents() -> dict[str, Any]:
    """{file: its array, or its arrays by key}."""
    both = np.concatenate([LINKS, LINKS[:, ::-1]])
    adjacency = scipy.sparse.csr_matrix((np.ones(len(both), np.int32), both.T), shape=(6, 6))
    matrices = {"adjM": adjacency} | {f"features_{kind}": scipy.sparse.csr_matrix(np.array(rows, float))
                                      for kind, rows in enumerate(FEATURES)}
    return {f"{name}.npz": {"format": np.array(b"csr"), "shape": np.array(matrix.shape), "indptr": matrix.indptr,
                            "indices": matrix.indices, "data": matrix.data} for name, matrix in matrices.items()} | {
        "node_types.npy": TYPES,
        "labels.npy": np.array([2, 0, 1], np.int32),
        "train_val_test_idx.npz": {"train_idx": np.array([2]), "val_idx": np.array([0]), "test_idx": np.array([1])},
    }


def stored(content: dict[str, Any]) -> dict[str, bytes]:
    files = {}
    for name, value in content.items():
        stream = io.BytesIO()
        if isinstance(value, dict):
            np.savez(stream, **value)
        else:
            np.save(stream, value)
        files[name] = stream.getvalue()
    return files


def originals(content: dict[str, Any]) -> Originals:
    return Originals.of_files(stored(content), "tiny")


def test_tiny(tmp_path: Path) -> None:
    arrays = parse_magnn(originals(contents()))
    expected = {
        "num_nodes/movie": 3, "num_nodes/director": 1, "num_nodes/actor": 2,
        "x/movie/indptr": [0, 2, 2, 4], "x/movie/indices": [1, 3, 0, 3], "x/movie/data": [1.5, 2.0, 3.0, 4.0],
        "x/director/indptr": [0, 2], "x/director/indices": [0, 3], "x/director/data": [1.0, 1.0],
        "x/actor/indptr": [0, 1, 2], "x/actor/indices": [1, 3], "x/actor/data": np.float32([0.2, 0.4]).tolist(),
        "x/movie/shape": [3, 4], "x/director/shape": [1, 4], "x/actor/shape": [2, 4],
        "edge/movie__to__director": [[0, 1, 2], [0, 0, 0]], "edge/director__to__movie": [[0, 0, 0], [0, 1, 2]],
        "edge/movie__to__actor": [[0, 0, 2], [0, 1, 0]], "edge/actor__to__movie": [[0, 0, 1], [0, 2, 0]],
        "y/movie": [2, 0, 1], "split/train": [2], "split/val": [0], "split/test": [1],
    }
    assert {key: array.tolist() for key, array in arrays.items()} == expected
    assert {key: array.dtype for key, array in arrays.items()} == {
        key: np.dtype(np.float32 if key.endswith("/data") else np.int32) for key in expected
    }
    write_npz(tmp_path / "tiny.npz", arrays, META | {"name": "tiny"})
    read_npz(tmp_path / "tiny.npz")


def test_columns_in_any_order_and_zeros() -> None:
    content = contents()
    content["features_0.npz"] |= {"indptr": np.array([0, 3, 3, 5]), "indices": np.array([3, 1, 0, 3, 0]),
                                  "data": np.array([2, 1.5, 0, 4, 3])}
    np.testing.assert_equal(parse_magnn(originals(content)), parse_magnn(originals(contents())))


def test_text_as_format_and_other_integers() -> None:
    content = contents()
    content["adjM.npz"] |= {"format": np.array("csr"), "indices": content["adjM.npz"]["indices"].astype(">u8")}
    content["labels.npy"] = np.array([2, 0, 1], np.uint8)
    np.testing.assert_equal(parse_magnn(originals(content)), parse_magnn(originals(contents())))


def put(file: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[file].__setitem__(key, np.asarray(value))


def change(file: str, key: str, place: int, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[file][key].__setitem__(place, value)


def link(source: int, destination: int, *, back: bool = True) -> Callable[[dict[str, Any]], None]:
    """Adds a link to the adjacency matrix."""
    def add(content: dict[str, Any]) -> None:
        parts = content["adjM.npz"]
        matrix = scipy.sparse.csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=(6, 6)).tolil()
        matrix[source, destination] = 1
        if back:
            matrix[destination, source] = 1
        matrix = matrix.tocsr()
        content["adjM.npz"] |= {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data}

    return add


def replaced(file: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(file, np.asarray(value))


WRONG = [
    (lambda content: content.pop("adjM.npz"), r"expected a file adjM\.npz, found features_0\.npz"),
    (lambda content: content["adjM.npz"].pop("data"), r"adjM\.npz: expected an array 'data'"),
    (put("adjM.npz", "format", b"csc"), r"adjM\.npz: format: expected one of \['csr'\], found b'csc'"),
    (put("adjM.npz", "format", [b"csr"] * 2), r"adjM\.npz: format: expected one of \['csr'\], found \|S3 of"),
    (put("adjM.npz", "format", 3), r"adjM\.npz: format: expected one of \['csr'\], found int64"),
    (put("adjM.npz", "format", b"\xff\xff\xff"), r"adjM\.npz: format: expected one of \['csr'\], found b'\\xff"),
    (put("adjM.npz", "shape", [6]), r"adjM\.npz: shape: expected two counts, found int64 of shape \[1\]"),
    (put("adjM.npz", "shape", [6.0, 6.0]), r"adjM\.npz: shape: expected integers, found float64 of shape \[2\]"),
    (put("adjM.npz", "shape", np.array([2**63, 6], np.uint64)),
     r"adjM\.npz: shape: expected integers from 0 to 2147483646, found 9\d{18} at"),
    (put("adjM.npz", "shape", [5, 6]), r"adjM\.npz: shape: expected 6 rows, found 5$"),
    (put("adjM.npz", "shape", [6, 7]), r"adjM\.npz: expected as many columns as nodes \(6\), found 7"),
    (put("adjM.npz", "indptr", [0, 12]), r"adjM\.npz: expected 7 row limits \(indptr\) for 6 rows .*, found 2, 12"),
    (put("adjM.npz", "indptr", [[0, 12]]), r"adjM\.npz: indptr: expected a vector, found int64 of shape \[1, 2\]"),
    (change("adjM.npz", "indptr", 0, 1), r"adjM\.npz: indptr: expected numbers that rise from 0 to 12 .*, found 1 to"),
    (change("adjM.npz", "indptr", 6, 11), r"adjM\.npz: indptr: expected numbers that rise .*, found 0 to 11"),
    (change("adjM.npz", "indptr", 2, 1), r"adjM\.npz: indptr: expected numbers that rise .*, falling between"),
    (change("adjM.npz", "indptr", 3, 13), r"adjM\.npz: indptr: expected integers from 0 to 12, found 13 at \[3\]"),
    (change("adjM.npz", "indices", 2, 6), r"adjM\.npz: indices: expected integers from 0 to 5, found 6 at \[2\]"),
    (change("adjM.npz", "indices", 2, -1), r"adjM\.npz: indices: expected integers from 0 to 5, found -1 at \[2\]"),
    (change("adjM.npz", "indices", 1, 1), r"adjM\.npz: expected each entry once, found row 0, column 1 twice"),
    (change("adjM.npz", "data", 3, 2), r"adjM\.npz: expected links of weight 1, found 2\.0"),
    (put("adjM.npz", "data", np.ones(11)),
     r"adjM\.npz: expected 7 row limits .* as many values \(data\) .*, found 7, 11 and 12"),
    (put("adjM.npz", "data", np.ones(12, complex)), r"adjM\.npz: data: expected real numbers"),
    (put("adjM.npz", "data", np.array([{}] * 12)), r"adjM\.npz: data: expected a plain array"),
    (link(0, 2), r"adjM\.npz: expected links between a movie and a director or an actor, found movie 0 to movie 2"),
    (link(1, 3), r"adjM\.npz: expected links between a movie .*, found actor 1 to director 3"),
    (link(5, 2, back=False), r"adjM\.npz: expected every link in both directions"),
    (replaced("node_types.npy", [0, 2, 0, 1, 0, 3]), r"node_types\.npy: expected integers from 0 to 2, found 3 at \[5"),
    (replaced("node_types.npy", [0, 2, 0, 2, 0, 2]), r"node_types\.npy: expected nodes of the type 1 \(director\)"),
    (replaced("node_types.npy", []), r"node_types\.npy: expected integers of shape \[N\], found float64"),
    (replaced("node_types.npy", np.zeros(0, int)), r"node_types\.npy: expected nodes of the type 0 \(movie\)"),
    (replaced("node_types.npy", np.array([None])), r"node_types\.npy: expected a plain array"),
    (put("features_1.npz", "shape", [2, 4]), r"features_1\.npz: shape: expected 1 rows, found 2$"),
    (change("features_1.npz", "data", 0, np.nan), r"features_1\.npz: data: expected numbers finite .*, found nan"),
    (change("features_1.npz", "data", 1, 1e39), r"features_1\.npz: data: expected numbers finite .*, found 1e\+39"),
    (change("features_1.npz", "data", 1, -np.inf), r"features_1\.npz: data: expected numbers finite .*, found -inf"),
    (replaced("labels.npy", [2, 0]), r"labels\.npy: expected integers of shape \[3\], found int64 of shape \[2\]"),
    (replaced("labels.npy", [2, 0, 3]), r"labels\.npy: expected integers from 0 to 2, found 3 at \[2\]"),
    (replaced("labels.npy", [2, 0, -1]), r"labels\.npy: expected integers from 0 to 2, found -1 at \[2\]"),
    (replaced("labels.npy", [2.0, 0.0, 1.0]), r"labels\.npy: expected integers of shape \[3\], found float64"),
    (put("train_val_test_idx.npz", "val_idx", [3]),
     r"train_val_test_idx\.npz: val_idx: expected integers from 0 to 2, found 3 at \[0\]"),
    (put("train_val_test_idx.npz", "val_idx", [2]),
     r"train_val_test_idx\.npz: val_idx: expected each node once, in one part, found node 2 again"),
    (put("train_val_test_idx.npz", "test_idx", [1, 1]), r"test_idx: expected each node once, .*, found node 1 again"),
    (put("train_val_test_idx.npz", "val_idx", np.zeros(0, int)), r"val_idx: expected at least one node, found none"),
]


@pytest.mark.parametrize("damage, error", WRONG)
def test_wrong_array(damage: Callable[[dict[str, Any]], None], error: str) -> None:
    content = contents()
    damage(content)
    with pytest.raises(DatasetError, match=f"^tiny: .*{error}"):
        parse_magnn(originals(content))


@pytest.mark.parametrize("types, links, error", [
    ([0, 1, 0, 1, 0, 2], [[0, 3], [2, 3]], "expected links between movies and actors, found none"),
    ([0, 2, 0, 1, 0, 2], [[0, 1]], "expected links between movies and directors, found none"),
])
def test_no_links(types: list[int], links: list[list[int]], error: str) -> None:
    content = contents()
    both = np.concatenate([links, np.array(links)[:, ::-1]])
    matrix = scipy.sparse.csr_matrix((np.ones(len(both)), both.T), shape=(6, 6))
    content["adjM.npz"] |= {"indptr": matrix.indptr, "indices": matrix.indices, "data": matrix.data}
    content["node_types.npy"] = np.array(types)
    if types.count(1) == 2:
        content["features_1.npz"], content["features_2.npz"] = content["features_2.npz"], content["features_1.npz"]
    with pytest.raises(DatasetError, match=rf"adjM\.npz: {error}"):
        parse_magnn(originals(content))


@settings(max_examples=120)
@given(name=st.sampled_from(sorted(contents())), data=st.data())
def test_damaged_bytes_are_refused_or_give_arrays_that_can_be_read(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = stored(contents())
    place = data.draw(st.integers(0, len(files[name]) - 1))
    inserted = data.draw(st.binary(max_size=3))
    removed = data.draw(st.integers(0, 3) | st.just(len(files[name])))
    files[name] = files[name][:place] + inserted + files[name][place + removed :]
    try:
        arrays = parse_magnn(Originals.of_files(files, "tiny"))
    except DatasetError:
        return
    path = tmp_path_factory.mktemp("magnn") / "changed.npz"
    write_npz(path, arrays, META | {"name": "changed"})
    read_npz(path)


def test_published_archive() -> None:
    """Every array equals that of the npz file, whatever made it."""
    if DATA is None or not (Path(DATA) / "imdb_magnn.npz").is_file():
        pytest.skip("HIRE_JAX_DATA names no folder with imdb_magnn.npz")
    archive = Path(DATA).parent / "raw" / "magnn_IMDB_processed.zip"
    if not archive.is_file():
        pytest.skip("no magnn_IMDB_processed.zip in the folder raw beside HIRE_JAX_DATA")
    arrays = parse_magnn(Originals.of(archive))
    with np.load(Path(DATA) / "imdb_magnn.npz", allow_pickle=False) as expected:
        assert set(arrays) == set(expected.files) - {"meta"}
        for key, array in arrays.items():
            assert array.dtype == expected[key].dtype, key
            np.testing.assert_array_equal(array, expected[key], err_msg=key)


def test_split() -> None:
    # From this seed come the permutations 4 7 0 3 8 6 9 2 5 1 of ten and 0 4 3 5 2 6 1 of seven.
    split = magnn_split(10, train=2, val=3)
    assert {part: nodes.tolist() for part, nodes in split.items()} == {
        "train": [1, 8], "val": [0, 4, 7], "test": [2, 3, 5, 6, 9]
    }
    assert {nodes.dtype for nodes in split.values()} == {np.dtype(np.int32)}
    other = magnn_split(10, train=2, val=3, seed=0)
    assert not np.array_equal(other["val"], split["val"])


@pytest.mark.parametrize("name, prefix", [("dblp_hgb", "split/magnn/"), ("imdb_magnn", "split/")])
def test_published_split(name: str, prefix: str) -> None:
    if DATA is None or not (Path(DATA) / f"{name}.npz").is_file():
        pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
    with np.load(Path(DATA) / f"{name}.npz", allow_pickle=False) as published:
        expected = {key.removeprefix(prefix): published[key] for key in published.files if key.startswith(prefix)}
    np.testing.assert_equal(magnn_split(sum(map(len, expected.values())), train=400, val=400), expected)


@given(train=st.integers(1, 20), val=st.integers(1, 20), test=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_split_sizes(train: int, val: int, test: int, seed: int) -> None:
    split = magnn_split(train + val + test, train=train, val=val, seed=seed)
    assert {part: len(nodes) for part, nodes in split.items()} == {"train": train, "val": val, "test": test}
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(train + val + test))
    assert all((np.diff(nodes) > 0).all() for nodes in split.values())


@pytest.mark.parametrize("count, train, val", [(5, 0, 1), (5, 1, 0), (5, 2, 3), (5, -1, 3), (0, 1, 1)])
def test_wrong_split_sizes(count: int, train: int, val: int) -> None:
    with pytest.raises(ValueError, match=rf"one node in each part, found {count} nodes, train={train}, val={val}"):
        magnn_split(count, train=train, val=val)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_wrong_seed(seed: int) -> None:
    with pytest.raises(ValueError, match=r"[Ss]eed"):
        magnn_split(5, train=1, val=1, seed=seed)
