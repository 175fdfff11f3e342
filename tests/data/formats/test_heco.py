"""HeCo's form, on a hand-made graph and on DBLP written in it."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats.arrays import Arrays
from hire_jax.data.formats.heco import HECO, HeCoForm, heco_splits, parse_heco
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals
from tests.data.written import npy, sparse_npz

DATA = os.environ.get("HIRE_JAX_DATA")
FORM = HeCoForm(
    nodes={"author": 4, "paper": 3, "term": 2},
    links={"pa.txt": ("paper", "author"), "pt.txt": ("paper", "term")},
    target="author",
    num_classes=2,
    features={"author": "a_feat.npz", "paper": "p_feat.npz", "term": "t_feat.npz"},
    shots=(1,),
)
AUTHORS = np.array([[1, 0, 0], [0, 0, 2], [0, 0, 0], [0, 3, 0]])
PAPERS = np.array([[0, 1], [1, 0], [0, 0]])
TERMS = np.array([[0.5, -1.0], [0.25, 2.0]])


def plain_npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


CSR = {"format": b"csr", "shape": [4, 3], "indptr": [0, 1, 2, 2, 3], "indices": [0, 2, 1], "data": [1.0, 2.0, 3.0]}
FILES = {
    "pa.txt": b"0\t1\n0\t0\n2 3\r\n\n0\t1\n",  # a link twice, a space, an empty line
    "pt.txt": b"1\t0\n2\t1\n",
    "a_feat.npz": sparse_npz(scipy.sparse.csr_matrix(AUTHORS)),
    "p_feat.npz": sparse_npz(scipy.sparse.coo_matrix(PAPERS)),
    "t_feat.npz": npy(TERMS),  # as DBLP's, whose name says npz
    "labels.npy": npy([3.0, 1.0, 1.0, 3.0]),
    "train_1.npy": npy([3, 1]),
    "val_1.npy": npy([0]),
    "test_1.npy": npy(np.array([2], np.int32)),
}


def parse(changed: dict[str, bytes] | None = None, form: HeCoForm = FORM) -> Arrays:
    return parse_heco(Originals.of_files(FILES | (changed or {}), "here"), form)


def sparse(arrays: Arrays, key: str) -> scipy.sparse.csr_matrix:
    parts = tuple(arrays[f"{key}/{part}"] for part in ("data", "indices", "indptr"))
    return scipy.sparse.csr_matrix(parts, shape=arrays[f"{key}/shape"])


def dense(arrays: Arrays, key: str) -> np.ndarray:
    return sparse(arrays, key).toarray()


def test_arrays(tmp_path: Path) -> None:
    arrays = parse()
    assert {key: int(arrays[key]) for key in arrays if key.startswith("num_nodes/")} == {
        "num_nodes/author": 4, "num_nodes/paper": 3, "num_nodes/term": 2}
    assert arrays["edge/paper__to__author"].tolist() == [[0, 0, 2], [0, 1, 3]]
    assert arrays["edge/author__to__paper"].tolist() == [[0, 1, 3], [0, 0, 2]]
    assert arrays["edge/term__to__paper"].tolist() == [[0, 1], [1, 2]]
    np.testing.assert_array_equal(dense(arrays, "x/author"), AUTHORS)
    np.testing.assert_array_equal(dense(arrays, "x/paper"), PAPERS)
    np.testing.assert_array_equal(arrays["x/term"], TERMS)
    assert arrays["x/term"].dtype == arrays["x/author/data"].dtype == np.float32
    assert arrays["y/author"].tolist() == [1, 0, 0, 1]  # classes in the order of their numbers
    assert [arrays[f"split/heco_1/{part}"].tolist() for part in ("train", "val", "test")] == [[1, 3], [0], [2]]
    write_npz(tmp_path / "tiny.npz", arrays, {"target": "author", "classes": ["a", "b"]})
    assert read_npz(tmp_path / "tiny.npz").num_nodes == {"author": 4, "paper": 3, "term": 2}


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_every_form_of_scipy(form: str) -> None:
    arrays = parse({"a_feat.npz": sparse_npz(scipy.sparse.csr_matrix(AUTHORS).asformat(form))})
    np.testing.assert_array_equal(dense(arrays, "x/author"), AUTHORS)


def test_stored_zeros_are_left_out() -> None:
    arrays = parse({"a_feat.npz": plain_npz(**CSR | {"data": [1.0, 0.0, 3.0]})})
    assert arrays["x/author/data"].tolist() == [1.0, 3.0]


def test_forms_name_published_counts() -> None:
    """HeCo's Table 2, and the letters of the files' names."""
    assert {name: dict(form.nodes) for name, form in HECO.items()} == {
        "acm_heco": {"paper": 4019, "author": 7167, "subject": 60},
        "dblp_heco": {"author": 4057, "paper": 14328, "conference": 20, "term": 7723},
        "freebase_heco": {"movie": 3492, "actor": 33401, "director": 2502, "writer": 4459},
        "aminer_heco": {"paper": 6564, "author": 13329, "reference": 35890},
    }
    for form in HECO.values():
        assert all(f"{first[0]}{second[0]}.txt" == name for name, (first, second) in form.links.items())
        assert all(name == f"{node_type[0]}_feat.npz" for node_type, name in form.features.items())
        assert form.target in form.nodes and form.num_classes in (3, 4) and form.shots == (20, 40, 60)


def test_splits_alone() -> None:
    files = Originals.of_files(FILES, "here")
    assert sorted(heco_splits(files, shots=(1,))) == [f"split/heco_1/{part}" for part in ("test", "train", "val")]
    with pytest.raises(DatasetError, match=r"here: expected a file train_20\.npy"):
        heco_splits(files)


@pytest.mark.skipif(not DATA, reason="HIRE_JAX_DATA, a folder with dblp_hgb.npz, is not set")
def test_dblp(tmp_path: Path) -> None:
    """DBLP of HGB is HeCo's graph: written in HeCo's form and parsed, it comes back."""
    with np.load(Path(str(DATA)) / "dblp_hgb.npz") as archive:
        known = {key.replace("venue", "conference"): archive[key] for key in archive.files if key != "meta"}
    files = {"labels.npy": npy(known["y/author"].astype(np.int64)), "t_feat.npz": npy(known["x/term"].astype(float))}
    for letter, node_type, form in (("a", "author", "csr"), ("p", "paper", "coo")):
        files[f"{letter}_feat.npz"] = sparse_npz(sparse(known, f"x/{node_type}").astype(np.float64).asformat(form))
    for other in ("author", "conference", "term"):
        links = known[f"edge/paper__to__{other}"].T.tolist()
        files[f"p{other[0]}.txt"] = "".join(f"{paper}\t{end}\n" for paper, end in links).encode()
    for key in known:
        if key.startswith("split/heco_"):
            _, shots, part = key.removeprefix("split/").replace("/", "_").split("_")
            files[f"{part}_{shots}.npy"] = npy(known[key].astype(np.int64))
    parsed = parse(files, HECO["dblp_heco"])
    expected = {key: np.sort(array) if key.startswith("split/") else array for key, array in known.items()
                if not key.startswith(("split/hgb", "split/magnn"))}
    assert sorted(parsed) == sorted(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(parsed[key], array, err_msg=key)
        assert parsed[key].dtype == array.dtype, key


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("pa.txt", b"", "pa.txt: expected at least one link, found none"),
        ("pa.txt", b"0\t1\n0\n", r"pa.txt:2: expected two node numbers with a tab between, found '0'"),
        ("pa.txt", b"0\t1\t2\n", r"pa.txt:1: expected two node numbers .*found '0\\t1\\t2'"),
        ("pa.txt", b"0\t-1\n", r"pa.txt:1: expected two node numbers"),
        ("pa.txt", b"0\t1.0\n", r"pa.txt:1: expected two node numbers"),
        ("pa.txt", b"0\t9223372036854775808\n", r"pa.txt:1: expected two node numbers"),
        ("pa.txt", "0\t١\n".encode(), r"pa.txt:1: expected two node numbers"),
        ("pa.txt", b"0\t\xff\n", r"pa.txt:1: expected UTF-8 text"),
        ("pa.txt", b"0\t0\n3\t0\n", r"pa.txt:2: expected a node number below 3, found 3"),
        ("pa.txt", b"0\t4\n", r"pa.txt:1: expected a node number below 4, found 4"),
        ("labels.npy", b"", "labels.npy: expected a plain array"),
        ("labels.npy", npy([0, 1, 0]), r"labels.npy: expected numbers of shape \[4\]"),
        ("labels.npy", npy([[0], [1], [0], [1]]), r"labels.npy: expected numbers of shape \[4\]"),
        ("labels.npy", npy(["a", "b", "a", "b"]), r"labels.npy: expected numbers of shape \[4\]"),
        ("labels.npy", npy([0, 0, 0, 0]), r"expected 2 different whole numbers, found 1: \[0\]"),
        ("labels.npy", npy([0, 1, 2, 0]), "expected 2 different whole numbers, found 3"),
        ("labels.npy", npy([0, 0.5, 0.5, 0]), r"expected 2 different whole numbers, found 2: \[0.0, 0.5\]"),
        ("labels.npy", npy([0, np.nan, np.nan, 0]), "expected 2 different whole numbers"),
        ("labels.npy", npy([0, np.inf, np.inf, 0]), "expected 2 different whole numbers"),
        ("train_1.npy", npy([]), r"train_1.npy: expected a vector of at least one node"),
        ("train_1.npy", npy([[1]]), r"train_1.npy: expected a vector of at least one node"),
        ("train_1.npy", npy([1.0]), r"train_1.npy: expected integers"),
        ("train_1.npy", npy([4]), r"train_1.npy: expected integers from 0 to 3, found 4"),
        ("train_1.npy", npy([-1]), r"train_1.npy: expected integers from 0 to 3, found -1"),
        ("train_1.npy", npy(np.array([2**63], np.uint64)), r"from 0 to 3, found 9223372036854775808"),
        ("train_1.npy", npy([1, 1]), "train_1.npy: expected each node once.* of the split heco_1, found node 1 again"),
        ("test_1.npy", npy([1]), "test_1.npy: expected each node once, .* of the split heco_1, found node 1 again"),
        ("t_feat.npz", npy(TERMS[:1]), r"t_feat.npz: expected numbers of shape \[2, width\]"),
        ("t_feat.npz", npy(TERMS[0]), r"t_feat.npz: expected numbers of shape \[2, width\]"),
        ("t_feat.npz", npy(TERMS * np.nan), "t_feat.npz: expected numbers finite in float32"),
        ("t_feat.npz", npy(TERMS * 1e300), "t_feat.npz: expected numbers finite in float32"),
        ("t_feat.npz", npy(TERMS.astype(complex)), "t_feat.npz: expected real numbers"),
        ("t_feat.npz", npy(TERMS)[:-1], "t_feat.npz: expected a plain array"),
        ("t_feat.npz", b"", "t_feat.npz: expected a complete npz file"),
        ("a_feat.npz", plain_npz(**CSR | {"shape": [5, 3]}), "a_feat.npz: shape: expected 4 rows, found 5"),
        ("a_feat.npz", plain_npz(**CSR | {"shape": [4, -3]}), "a_feat.npz: shape: expected integers from 0"),
        ("a_feat.npz", plain_npz(**CSR | {"shape": [4, 1 << 30]}), "a_feat.npz: shape: .*at most 16777216 columns"),
        ("a_feat.npz", plain_npz(**CSR | {"shape": [4]}), "a_feat.npz: shape: expected two counts"),
        ("a_feat.npz", plain_npz(**CSR | {"shape": [4.0, 3.0]}), "a_feat.npz: shape: expected integers"),
        ("a_feat.npz", plain_npz(**CSR | {"format": b"bsr"}), "a_feat.npz: format: expected one of"),
        ("a_feat.npz", plain_npz(**CSR | {"format": [b"csr"]}), "a_feat.npz: format: expected one of"),
        ("a_feat.npz", plain_npz(**CSR | {"format": 1}), "a_feat.npz: format: expected one of"),
        ("a_feat.npz", plain_npz(**CSR | {"format": b"coo"}), "a_feat.npz: expected an array 'row'"),
        ("a_feat.npz", plain_npz(**CSR | {"data": [1.0, 2.0]}), "a_feat.npz: expected 5 row limits"),
        ("a_feat.npz", plain_npz(**CSR | {"data": [1.0, 2.0, np.inf]}), "a_feat.npz: data: expected numbers finite"),
        ("a_feat.npz", plain_npz(**CSR | {"indices": [0, 2, 3]}), "a_feat.npz: indices: expected integers from 0 to 2"),
        ("a_feat.npz", plain_npz(**CSR | {"indptr": [0, 2, 1, 2, 3]}), "a_feat.npz: indptr: expected numbers that"),
        ("a_feat.npz", plain_npz(**{k: v for k, v in CSR.items() if k != "indptr"}), "expected an array 'indptr'"),
        ("a_feat.npz", plain_npz(**CSR | {"format": b"coo", "row": [0, 4, 1], "col": [0, 1, 2]}), "row: .* found 4"),
        ("a_feat.npz", plain_npz(**CSR | {"format": b"coo", "row": [0, 0, 1], "col": [1, 1, 2]}), "once, found row 0"),
        ("a_feat.npz", plain_npz(**CSR | {"format": b"coo", "row": [0], "col": [0, 1, 2]}), "vectors of one length"),
    ],
)
def test_wrong_file(name: str, content: bytes, says: str) -> None:
    with pytest.raises(DatasetError, match=f"here: .*{says}"):
        parse({name: content})


@pytest.mark.parametrize("name", FILES)
def test_missing_file(name: str) -> None:
    files = Originals.of_files({other: FILES[other] for other in FILES if other != name}, "here")
    with pytest.raises(DatasetError, match=f"here: expected a file {name}"):
        parse_heco(files, FORM)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_is_refused_or_harmless(name: str, data: st.DataObject) -> None:
    """Whatever bytes change, there are arrays that belong together or an error that names the file."""
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        arrays = parse({name: bytes(content[: data.draw(st.integers(0, len(content)))])})
    except DatasetError as error:
        assert name in str(error) or "_1.npy" in str(error)
    else:
        papers, authors = arrays["edge/paper__to__author"].max(axis=1)
        assert papers < 3 and authors < 4
        assert np.unique(arrays["y/author"]).tolist() == [0, 1]
        assert all(np.isfinite(arrays[key]).all() for key in ("x/author/data", "x/paper/data", "x/term"))
