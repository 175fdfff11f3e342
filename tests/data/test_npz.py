"""Reading the npz form: a valid file gives its arrays, a broken one an error with file, key and fault."""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hire_jax.data import DatasetError, load_dataset, read_npz
from hire_jax.data.write import npz_bytes
from hire_jax.sparse import SparseFeatures

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]


def test_valid_file(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    raw = read_npz(write(arrays, meta))
    assert raw.num_nodes == {"author": 3, "paper": 10, "tag": 2}
    assert raw.target == "paper" and raw.classes == ["a", "b", "c"] and not raw.multilabel
    np.testing.assert_array_equal(raw.labels, arrays["y/paper"])
    np.testing.assert_array_equal(
        raw.edges["author", "writes", "paper"], arrays["edge/author__writes__paper"]
    )
    assert raw.edges["paper", "has", "tag"].shape == (2, 0)
    assert "tag" not in raw.features
    np.testing.assert_array_equal(raw.features["author"], arrays["x/author"])
    sparse = raw.features["paper"]
    assert isinstance(sparse, SparseFeatures) and sparse.shape == (10, 4)
    dense = np.zeros((10, 4), np.float32)
    dense[np.arange(10), np.arange(10) % 4] = np.arange(1, 11)
    np.testing.assert_array_equal(sparse.todense(), dense)
    assert {name: sorted(parts) for name, parts in raw.splits.items()} == {
        "": ["test", "train"],
        "full": ["test", "train", "val"],
    }
    np.testing.assert_array_equal(np.flatnonzero(raw.splits["full"]["test"]), [4, 8])


def test_file_under_another_name(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    """A package imported from a zip gives its files temporary names: the caller then says the dataset's."""
    path = write(arrays, meta)
    other = path.rename(path.with_name("tmp1234.npz"))
    assert read_npz(other, "tiny").meta["name"] == "tiny"
    with pytest.raises(DatasetError, match="'tmp1234'"):
        read_npz(other)


def test_other_number_types_are_taken(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    arrays["x/author"] = np.array([[1, 0], [0, 1], [1, 1]], bool)
    arrays["x/paper/data"] = arrays["x/paper/data"].astype(np.float64)
    arrays["y/paper"] = arrays["y/paper"].astype(np.int64)
    arrays["split/train"] = arrays["split/train"].astype(np.uint8)
    raw = read_npz(write(arrays, meta))
    assert raw.labels.dtype == np.int32
    assert raw.features["author"].dtype == np.float32 and raw.features["paper"].dtype == np.float32


def test_multilabel(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    arrays["y/paper"] = np.vstack([np.tile([1, 0, 1], (9, 1)), [[-1, -1, -1]]]).astype(np.int32)
    raw = read_npz(write(arrays, meta | {"multilabel": True}))
    assert raw.multilabel and raw.labels.shape == (10, 3)


# The key to replace (or remove, with None), its new value, and what the message must say beside file and key.
BROKEN = {
    "no meta": ("meta", None, "no such key"),
    "no counts": ("num_nodes/paper", None, "one of the node types"),
    "no labels": ("y/paper", None, "no such key"),
    "no train": ("split/full/train", None, "no such key beside ['test', 'val']"),
    "no indices": ("x/paper/indices", None, "no such key"),
    "no shape": ("x/paper/shape", None, "no such key"),
    "count as float": ("num_nodes/tag", np.array(2.0), "float64 of shape []"),
    "count as vector": ("num_nodes/tag", np.array([2]), "integer scalar"),
    "negative count": ("num_nodes/tag", np.array(-2), "-2"),
    "type with slash": ("num_nodes/a/b", np.array(1), "without '/'"),
    "features of rank 1": ("x/author", np.zeros(3, np.float32), "shape [3, width]"),
    "features with a row too many": (
        "x/author",
        np.zeros((4, 2), np.float32),
        "found float32 of shape [4, 2]",
    ),
    "features as text": ("x/author", np.array([["a", "b"]] * 3), "real numbers"),
    "complex features": ("x/author", np.zeros((3, 2), complex), "real numbers"),
    "NaN features": ("x/author", np.array([[0, 0], [0, np.nan], [0, 0]]), "nan at [1, 1]"),
    "features beyond float32": ("x/author", np.array([[0, 0], [1e300, 0], [0, 0]]), "1e+300 at [1, 0]"),
    "dense and CSR": ("x/paper", np.zeros((10, 4), np.float32), "both"),
    "CSR of another height": ("x/paper/shape", np.array([9, 4]), "[10, width]"),
    "CSR shape of three": ("x/paper/shape", np.array([10, 4, 1]), "[10, width]"),
    "CSR of vast width": ("x/paper/shape", np.array([10, 2**31 - 1]), "the width at most 16777216, found"),
    "CSR shape of many": ("x/paper/shape", np.arange(99), "found 99 numbers"),
    "vast count": ("num_nodes/tag", np.array(2**31 - 1), "16777216 nodes without features, of which edges name 0"),
    "CSR column out of range": ("x/paper/indices", np.arange(10), "outside [0, 4)"),
    "CSR falling indptr": ("x/paper/indptr", np.array([0, 5, 1, 3, 4, 5, 6, 7, 8, 9, 10]), "indptr"),
    "CSR short indptr": ("x/paper/indptr", np.arange(10), "indptr"),
    "CSR float indices": ("x/paper/indices", np.zeros(10), "integer vector"),
    "CSR data of another length": ("x/paper/data", np.ones(9, np.float32), "data"),
    "CSR NaN": ("x/paper/data", np.full(10, np.nan), "nan at [0]"),
    "float edges": ("edge/author__writes__paper", np.zeros((2, 3)), "float64 of shape [2, 3]"),
    "edges of rank 1": ("edge/author__writes__paper", np.zeros(4, np.int32), "shape [2, E]"),
    "edges in rows": ("edge/author__writes__paper", np.zeros((4, 2), np.int32), "shape [2, E]"),
    "edge key of two parts": ("edge/author__paper", np.zeros((2, 1), np.int32), "2 part(s)"),
    "edge from nowhere": ("edge/ghost__to__paper", np.zeros((2, 1), np.int32), "'ghost'"),
    "float labels": ("y/paper", np.zeros(10), "float64"),
    "labels too short": ("y/paper", np.zeros(9, np.int32), "shape [10]"),
    "labels as one-hot": ("y/paper", np.zeros((10, 3), np.int32), "shape [10]"),
    "label too large": ("y/paper", np.array([0, 1, 2, 0, 1, 2, 0, 3, 2, -1]), "found 3 at [7]"),
    "label below -1": ("y/paper", np.array([0, 1, 2, 0, 1, 2, 0, -2, 2, -1]), "found -2 at [7]"),
    "labels of another type": ("y/author", np.zeros(3, np.int32), "no meaning"),
    "split index too large": ("split/test", np.array([5, 10]), "10 at position 1"),
    "split index negative": ("split/test", np.array([-1, 5]), "-1 at position 0"),
    "split as mask": ("split/test", np.zeros(10, bool), "integer vector"),
    "split as floats": ("split/test", np.array([5.0]), "integer vector"),
    "split of rank 2": ("split/test", np.array([[5]]), "integer vector"),
    "empty split": ("split/test", np.zeros(0, np.int32), "at least one node"),
    "node twice": ("split/test", np.array([5, 6, 5]), "node 5 2 times"),
    "node in two parts": ("split/train", np.array([5, 1]), "node 5 in both"),
    "unlabelled node in split": ("split/test", np.array([5, 9]), "node 9, whose label is -1"),
    "unknown part": ("split/full/dev", np.array([5]), "'dev'"),
    "misspelt key": ("edges/author__writes__paper", np.zeros((2, 1), np.int32), "no meaning"),
    "meta of another type": ("meta", np.array("{}"), "uint8"),
    "meta not JSON": ("meta", np.frombuffer(b"{", np.uint8), "JSONDecodeError"),
    "meta not UTF-8": ("meta", np.frombuffer(b"\xff\xfe{}", np.uint8), "UnicodeDecodeError"),
    "meta a list": ("meta", np.frombuffer(b"[]", np.uint8), "JSON list"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_array(case: str, arrays: Arrays, meta: dict[str, Any], tmp_path: Path) -> None:
    key, value, says = BROKEN[case]
    content = arrays | {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    if value is None:
        del content[key]
    else:
        content[key] = value
    path = tmp_path / "tiny.npz"
    np.savez(path, allow_pickle=False, **content)
    with pytest.raises(DatasetError) as caught:
        read_npz(path)
    message = str(caught.value)
    assert str(path) in message
    assert key in message or key.rpartition("/")[0] in message or case == "no counts"
    assert says in message, message


@pytest.mark.parametrize(
    "change, says",
    [
        ({"target": None}, "target to be"),
        ({"target": "ghost"}, "one of the node types ['author', 'paper', 'tag'], found 'ghost'"),
        ({"classes": None}, "classes to be"),
        ({"classes": []}, "classes to be"),
        ({"classes": ["a", "b", "b"]}, "distinct"),
        ({"classes": ["a", "b"]}, "from -1 to 1 (2 classes), found 2"),
        ({"classes": [1, 2, 3]}, "class names"),
        ({"multilabel": 1}, "multilabel"),
        ({"multilabel": True}, "multi-hot"),
        ({"default_split": 3}, "default_split"),
        ({"format": 2}, "format"),
        ({"name": "other"}, "'tiny'"),
    ],
)
def test_broken_meta(
    change: dict[str, Any], says: str, arrays: Arrays, meta: dict[str, Any], write: Write
) -> None:
    path = write(arrays, meta | change)
    with pytest.raises(DatasetError) as caught:
        read_npz(path)
    assert str(path) in str(caught.value) and says in str(caught.value)


def test_what_is_not_there_is_not_allocated(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    """Zero rows take no bytes, however wide they are said to be; nor does a count, and edges show nodes."""
    arrays |= {"num_nodes/tag": np.array(0), "x/tag": np.zeros((0, 1 << 40), np.float32)}
    with pytest.raises(DatasetError, match=r"x/tag: expected at most 16777216 columns, found 1099511627776"):
        read_npz(write(arrays, meta))
    del arrays["x/tag"]
    arrays |= {"num_nodes/tag": np.array(2**25), "edge/paper__has__tag": np.array([[0], [2**24]])}
    with pytest.raises(DatasetError, match=r"at most 33554434 nodes .* of which edges name 16777217, found 33554435"):
        read_npz(write(arrays | {"num_nodes/tag": np.array(2**25 + 3)}, meta))
    assert read_npz(write(arrays, meta)).num_nodes["tag"] == 2**25


def test_members_of_the_archive(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    path = write(arrays, meta)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/tag.npy", b"no array")
    with pytest.raises(DatasetError, match=r"tiny\.npz: x/tag: expected a plain array in numpy's format"):
        read_npz(path)
    path = write(arrays, meta)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("y/paper.npy", archive.read("y/paper.npy"))
    with pytest.raises(DatasetError, match=r"tiny\.npz: y/paper: expected each key once, found it twice"):
        read_npz(path)


def test_packing_that_states_its_own_memory_is_refused(
    arrays: Arrays, meta: dict[str, Any], write: Write
) -> None:
    path = write(arrays, meta)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DatasetError, match=r"tiny\.npz: .*: expected a member that is deflated or not packed"):
        read_npz(path)


@pytest.mark.parametrize(
    "rows, says",
    [
        ([[0, 0]] * 10, "shape [10, 3]"),
        ([[0, 0, 2]] * 10, "from -1 to 1"),
        ([[0, -1, 1]] * 10, "all -1 or free of -1"),
    ],
)
def test_broken_multilabel(rows: list, says: str, arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    arrays["y/paper"] = np.array(rows, np.int32)
    with pytest.raises(DatasetError, match="y/paper") as caught:
        read_npz(write(arrays, meta | {"multilabel": True}))
    assert says in str(caught.value)


def test_edge_out_of_range_is_named(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    arrays["edge/author__writes__paper"][1, 2] = 10
    path = write(arrays, meta)
    with pytest.raises(DatasetError) as caught:
        load_dataset("tiny", root=path.parent)
    for part in (str(path), "writes", "10", "edge 2"):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "cut in half", "empty", "text", "npy", "flipped"])
def test_damaged_file(damage: str, arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    path = write(arrays, meta)
    data = path.read_bytes()
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        middle = len(data) // 3
        flipped = (
            data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 40]) + data[middle + 40 :]
        )
        path.write_bytes(
            {
                "truncated": data[:-30],
                "cut in half": data[: len(data) // 2],
                "empty": b"",
                "text": b"not a zip file",
                "flipped": flipped,
            }[damage]
        )
    with pytest.raises(DatasetError, match=r"cannot be read|expected a plain array") as caught:
        load_dataset("tiny", root=path.parent)
    assert str(path) in str(caught.value)


def test_objects_are_refused(arrays: Arrays, tmp_path: Path) -> None:
    """An object array is a pickle, and a pickle can run code."""
    path = tmp_path / "tiny.npz"
    np.savez(path, allow_pickle=True, **(arrays | {"meta": np.array([{"target": "paper"}], dtype=object)}))
    with pytest.raises(DatasetError, match="pickle"):
        read_npz(path)


def test_every_truncation_is_a_dataset_error(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    path = write(arrays, meta)
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(DatasetError):
            read_npz(path)


def test_any_damaged_bytes_give_a_dataset_error_or_valid_data(
    arrays: Arrays, meta: dict[str, Any], write: Write
) -> None:
    path = write(arrays, meta)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(150):
        broken = data.copy()
        broken[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4, dtype=np.uint8)
        path.write_bytes(broken.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile and numpy may warn about a header before they give up
            try:
                read_npz(path)
            except DatasetError:
                failed += 1
    assert failed > 75  # the rest hit bytes that carry nothing, such as times


def test_writing_is_deterministic(arrays: Arrays, meta: dict[str, Any]) -> None:
    first = npz_bytes(arrays, meta)
    second = npz_bytes(dict(reversed(arrays.items())), dict(reversed(meta.items())))
    assert first == second
    assert first != npz_bytes(arrays | {"x/author": arrays["x/author"] + 1}, meta)


def test_numpy_reads_what_is_written(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    with np.load(write(arrays, meta), allow_pickle=False) as archive:
        assert archive.files == sorted([*arrays, "meta"])
        for key, array in arrays.items():
            assert archive[key].dtype == array.dtype
            np.testing.assert_array_equal(archive[key], array)
        assert json.loads(archive["meta"].tobytes()) == meta
