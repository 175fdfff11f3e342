"""GTN's form, on a hand-made graph and on IMDB and ACM pickled as GTN did."""

import hashlib
import os
import pickle
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats.arrays import Arrays
from hire_jax.data.formats.gtn import GTN, GTNForm, parse_gtn
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals
from tests.data.pickles import as_old, by_python2, every_way
from tests.data.written import npy, sparse_npz

DATA = os.environ.get("HIRE_JAX_DATA")
# Papers 0 to 2, authors 3 and 4, subject 5.
FORM = GTNForm(
    nodes={"paper": 3, "author": 2, "subject": 1},
    links={("paper", "author"): 3, ("paper", "subject"): 2},
    width=4,
    num_classes=2,
    features={"paper": "p_feat.npz", "author": "a_feat.npz", "subject": "s_feat.npz"},
    same_links={"pa.txt": ("paper", "author"), "ps.txt": ("paper", "subject")},
    same_labels="labels.npy",
    splits={"other_1": "1"},
)
X = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 2, 0, 0], [1, 1, 1, 1]])
LABELS = [[[2, 1]], [[0, 0]], [[1, 1]]]


def matrix(rows: list[int], columns: list[int], size: int = 6, data: Any = None) -> scipy.sparse.csr_matrix:
    values = np.ones(len(rows), np.int32) if data is None else np.array(data)
    return scipy.sparse.csr_matrix((values, (rows, columns)), shape=(size, size))


def edges() -> list[Any]:
    """As GTN's notebook makes them: a link's matrix by rows, its reverse by columns, with arrays that both share."""
    authors, subjects = matrix([0, 0, 2], [3, 4, 4]), matrix([0, 1], [5, 5])
    return [authors, authors.transpose(), subjects, subjects.transpose()]


FILES = {
    "edges.pkl": pickle.dumps(edges(), 3),
    "labels.pkl": pickle.dumps(LABELS, 3),
    "node_features.pkl": pickle.dumps(X.astype(np.int64), 3),
}
# What the other repositories have in place of node_features.pkl.
OTHERS = {name: FILES[name] for name in ("edges.pkl", "labels.pkl")} | {
    "p_feat.npz": sparse_npz(X[:3]),
    "a_feat.npz": sparse_npz(X[3:5]),
    "s_feat.npz": sparse_npz(X[5:]),
    "pa.txt": b"0\t0\n0\t1\n2\t1\n",
    "ps.txt": b"0\t0\n1\t0\n",
    "labels.npy": npy([5, 3, 3]),  # the same classes in the other order
}
SPLITS = {"train_1.npy": npy([0]), "val_1.npy": npy([2]), "test_1.npy": npy([1])}


def parse(files: Mapping[str, bytes], form: GTNForm = FORM) -> Arrays:
    return parse_gtn(Originals.of_files(files, "here"), form)


def dense(arrays: Arrays, key: str) -> np.ndarray:
    parts = tuple(arrays[f"{key}/{part}"] for part in ("data", "indices", "indptr"))
    return scipy.sparse.csr_matrix(parts, shape=arrays[f"{key}/shape"]).toarray()


def assert_equal(found: Arrays, expected: Arrays) -> None:
    """Equal but for the order within splits."""
    assert sorted(found) == sorted(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], np.sort(array) if key.startswith("split/") else array, err_msg=key)
        assert found[key].dtype == array.dtype, key


@pytest.mark.parametrize("files", [FILES, OTHERS])
def test_arrays(files: dict[str, bytes], tmp_path: Path) -> None:
    arrays = parse(files)
    assert [int(arrays[f"num_nodes/{node_type}"]) for node_type in FORM.nodes] == [3, 2, 1]
    assert arrays["edge/paper__to__author"].tolist() == [[0, 0, 2], [0, 1, 1]]
    assert arrays["edge/author__to__paper"].tolist() == [[0, 1, 1], [0, 0, 2]]
    assert arrays["edge/paper__to__subject"].tolist() == [[0, 1], [0, 0]]
    assert arrays["edge/subject__to__paper"].tolist() == [[0, 0], [0, 1]]
    for node_type, rows in (("paper", X[:3]), ("author", X[3:5]), ("subject", X[5:])):
        np.testing.assert_array_equal(dense(arrays, f"x/{node_type}"), rows)
    assert arrays["y/paper"].tolist() == [0, 1, 1]
    assert [arrays[f"split/{part}"].tolist() for part in ("train", "val", "test")] == [[2], [0], [1]]
    write_npz(tmp_path / "tiny.npz", arrays, {"target": "paper", "classes": ["a", "b"]})
    assert read_npz(tmp_path / "tiny.npz").splits.keys() == {""}


def test_every_way_of_pickling() -> None:
    expected = parse(FILES)
    keys = ("p-a", "a-p", "p-s", "s-p")
    for name, values in {
        "edges.pkl": [edges(), tuple(edges()), dict(zip(keys, edges(), strict=True)),
                      [one.tocoo() for one in edges()], [one.astype(float).tocsr() for one in edges()]],
        "labels.pkl": [LABELS, tuple(LABELS), [np.array(pairs) for pairs in LABELS],
                       [[tuple(np.array(pair)) for pair in pairs] for pairs in LABELS]],
        "node_features.pkl": [X, X.astype(float), np.asfortranarray(X), X.astype(np.uint8), scipy.sparse.csr_matrix(X)],
    }.items():
        for value in values:
            for pickled in every_way(value):
                assert_equal(parse(FILES | {name: pickled}), expected)


@pytest.mark.parametrize("labels", [[[2, 1], [0, 0], [1, 1]], np.array([[2, 1], [0, 0], [1, 1]])])
def test_one_list_of_labels_takes_the_splits_of_files(labels: Any) -> None:
    """So stands DBLP in the one public place that was found."""
    one_list = FILES | {"labels.pkl": pickle.dumps(labels, 4)}
    arrays = parse(one_list | SPLITS)
    assert arrays["y/paper"].tolist() == [0, 1, 1]
    assert sorted(key for key in arrays if key.startswith("split/")) == [
        f"split/other_1/{part}" for part in ("test", "train", "val")]
    assert arrays["split/other_1/train"].tolist() == [0]
    with pytest.raises(DatasetError, match=r"labels\.pkl: expected three lists, or files of splits .*found one list"):
        parse(one_list)


def test_three_lists_and_files_of_splits() -> None:
    assert len([key for key in parse(FILES | SPLITS) if key.startswith("split/")]) == 6


def test_forms_name_published_counts() -> None:
    """GTN's Table 1: nodes, links (both directions), features, classes."""
    assert {
        name: (sum(form.nodes.values()), 2 * sum(form.links.values()), form.width, form.num_classes)
        for name, form in GTN.items()
    } == {
        "acm_gtn": (8994, 25922, 1902, 3),
        "dblp_gtn": (18405, 67946, 334, 4),
        "imdb_gtn": (12772, 37288, 1256, 3),
    }


def as_gtn(known: Arrays, form: GTNForm) -> tuple[list[Any], list[Any], scipy.sparse.csr_matrix]:
    """(edges, [node, class] of each part, features) over all nodes, as GTN's files hold them."""
    starts = dict(zip(form.nodes, np.cumsum([0, *form.nodes.values()]).tolist(), strict=False))
    total, target = sum(form.nodes.values()), next(iter(form.nodes))
    links = []
    for first, second in form.links:
        ends = known[f"edge/{first}__to__{second}"]
        rows, columns = (ends[0] + starts[first]).tolist(), (ends[1] + starts[second]).tolist()
        links += [matrix(rows, columns, total), matrix(rows, columns, total).transpose()]
    labels = [[[int(node), int(known[f"y/{target}"][node])] for node in known[f"split/{part}"]]
              for part in ("train", "val", "test")]
    features = scipy.sparse.vstack([
        scipy.sparse.csr_matrix(tuple(known[f"x/{node_type}/{part}"] for part in ("data", "indices", "indptr")),
                                shape=(count, form.width))
        for node_type, count in form.nodes.items()], format="csr")
    return links, labels, features


def test_imdb() -> None:
    """Pickled as in GTN's archive, the bundled graph comes back; its labels.pkl is the published file to the byte."""
    with resources.files("hire_jax.data").joinpath("bundled/imdb_gtn.npz").open("rb") as opened:
        with np.load(opened) as archive:
            known = {key: archive[key] for key in archive.files if key != "meta"}
    links, labels, features = as_gtn(known, GTN["imdb_gtn"])
    published = "022adb066df0b3dc7c35c70fc9fc36ab2d9e54c0317a217a1c64c78354ab9b5a"
    pickled = pickle.dumps(labels, 3)
    assert hashlib.sha256(pickled).hexdigest() == published
    files = {"edges.pkl": as_old(pickle.dumps(links, 3)), "labels.pkl": pickled,
             "node_features.pkl": pickle.dumps(features, 4)}
    assert_equal(parse(files, GTN["imdb_gtn"]), known)


@pytest.mark.skipif(not DATA, reason="HIRE_JAX_DATA, a folder with acm_gtn.npz, is not set")
@pytest.mark.parametrize("archive", ["GTN's own", "of two repositories"])
def test_acm(archive: str) -> None:
    with np.load(Path(str(DATA)) / "acm_gtn.npz") as opened:
        known = {key: opened[key] for key in opened.files if key != "meta"}
    form = GTN["acm_gtn"]
    links, labels, features = as_gtn(known, form)
    files = {"edges.pkl": as_old(pickle.dumps(links, 3)),
             "labels.pkl": by_python2([np.array(pairs) for pairs in labels])}
    if archive == "GTN's own":
        files["node_features.pkl"] = pickle.dumps(features.toarray().astype(np.uint8), 2)
    else:
        files["labels.npy"] = npy(known["y/paper"])
        for first, (letter, count) in zip((0, 3025, 8937), (("p", 3025), ("a", 5912), ("s", 57)), strict=True):
            files[f"{letter}_feat.npz"] = sparse_npz(features[first : first + count])
        for letter, other in (("a", "author"), ("s", "subject")):
            pairs = known[f"edge/paper__to__{other}"].T.tolist()
            files[f"p{letter}.txt"] = "".join(f"{paper}\t{end}\n" for paper, end in pairs).encode()
    assert_equal(parse(files, form), known)


def dumped(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)


def changed_edges(place: int, change: Any) -> bytes:
    return dumped([change if other == place else one for other, one in enumerate(edges())])


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("edges.pkl", b"", r"edges\.pkl: expected a pickle"),
        ("edges.pkl", b"cos\nsystem\n(S'true'\ntR.", r"edges\.pkl: expected only arrays.*os\.system; it was not"),
        ("edges.pkl", dumped(3), r"edges\.pkl: expected a list or dict of 4 sparse matrices, found int"),
        ("edges.pkl", dumped(edges()[:3]), "4 sparse matrices, found list of 3"),
        ("edges.pkl", dumped({"p-a": 1, 2: 3}), r"dict with the keys \['p-a', .*found \['p-a', '2'\]"),
        ("edges.pkl", dumped([1, 2, 3, 4]), r"p-a: expected a sparse matrix of shape \[6, 6\], found int"),
        ("edges.pkl", changed_edges(0, np.eye(6)), r"p-a: expected a sparse matrix .*found one of shape \[6, 6\]"),
        ("edges.pkl", changed_edges(2, matrix([0, 1], [5, 5], 7)), r"p-s: .*found one of shape \[7, 7\]"),
        ("edges.pkl", changed_edges(0, matrix([0, 3, 2], [3, 4, 4])), "p-a: papers, less 0: .*from 0 to 2, found 3"),
        ("edges.pkl", changed_edges(0, matrix([0, 0, 2], [3, 5, 4])), "p-a: authors, less 3: .*from 0 to 1, found 2"),
        ("edges.pkl", changed_edges(3, edges()[2]), "s-p: subjects, less 5: .*from 0 to 0, found -5"),
        ("edges.pkl", changed_edges(0, matrix([0, 0], [3, 4])), "p-a: expected 3 links, found 2"),
        ("edges.pkl", changed_edges(0, matrix([0, 0, 2], [3, 4, 4], data=[1, 0, 1])), "p-a: expected 3 links, found 2"),
        ("edges.pkl", changed_edges(1, matrix([3, 4, 4], [0, 0, 1])), "a-p: expected the reverse of p-a, found other"),
        ("edges.pkl", changed_edges(1, matrix([3, 4], [0, 0])), "a-p: expected the reverse of p-a, found other links"),
        ("edges.pkl", changed_edges(0, matrix([0], [3], data=[np.nan])), "p-a: data: expected numbers finite"),
        ("labels.pkl", dumped(None), r"labels\.pkl: expected arrays.*found NoneType"),
        ("labels.pkl", dumped("text"), r"labels\.pkl: expected pairs of integers \(node, class\), found str"),
        ("labels.pkl", dumped([]), "expected pairs of integers"),
        ("labels.pkl", dumped([[[0, 0]], [[1, 1]], [2, 1]]), "expected pairs of integers .*found list of 3"),
        ("labels.pkl", dumped([[[0, 0]], [[1, 1]], [[2]]]), "test: expected pairs of integers"),
        ("labels.pkl", dumped([[[0, 0]], [[1, 1.0]], [[2, 0]]]), "val: expected pairs of integers"),
        ("labels.pkl", dumped([[[0, True]], [[1, 1]], [[2, 0]]]), "train: expected pairs of integers"),
        ("labels.pkl", dumped([np.zeros((1, 2))] * 3), "train: expected pairs of integers"),
        ("labels.pkl", dumped([np.zeros((0, 2), int)] * 3), "train: expected at least one node, found none"),
        ("labels.pkl", dumped([[[3, 0]], [[1, 1]], [[2, 0]]]), "train: papers: .*from 0 to 2, found 3"),
        ("labels.pkl", dumped([[[-1, 0]], [[1, 1]], [[2, 0]]]), "train: papers: .*from 0 to 2, found -1"),
        ("labels.pkl", dumped([[[0, 2]], [[1, 1]], [[2, 0]]]), "train: classes: .*from 0 to 1, found 2"),
        ("labels.pkl", dumped([[[0, 0], [0, 1]], [[1, 1]], [[2, 0]]]), "train: .*each paper once, found paper 0"),
        ("labels.pkl", dumped([[[0, 0]], [[0, 0]], [[2, 0]]]), "val: expected each paper once, found paper 0"),
        ("labels.pkl", dumped([[[0, 2**63]], [[1, 1]], [[2, 0]]]), "integers of 64 bits"),
        ("node_features.pkl", dumped(X[:5]), r"matrix of shape \[6, 4\], found one of shape \[5, 4\]"),
        ("node_features.pkl", dumped(X[:, :3]), r"matrix of shape \[6, 4\], found one of shape \[6, 3\]"),
        ("node_features.pkl", dumped(X[0]), r"matrix of shape \[6, 4\], found one of shape \[4\]"),
        ("node_features.pkl", dumped(X.tolist()), r"matrix of shape \[6, 4\], found list of 6"),
        ("node_features.pkl", dumped(X + np.inf), "expected numbers finite in float32"),
        ("train_1.npy", npy([3]), r"train_1\.npy: expected integers from 0 to 2, found 3"),
    ],
)
def test_wrong_file(name: str, content: bytes, says: str) -> None:
    with pytest.raises(DatasetError, match=f"here: .*{says}"):
        parse(FILES | SPLITS | {name: content})


def test_a_split_has_labels() -> None:
    labels = {"labels.pkl": dumped([[2, 1], [0, 0]])}
    with pytest.raises(DatasetError, match=r"expected a class for each paper of split/other_1/test, found none .* 1"):
        parse(FILES | SPLITS | labels)


def test_sizes_too_long_to_print() -> None:
    """A matrix may state what Python will not write in digits."""
    vast = matrix([0], [3])
    vast._shape = (1 << 40_000, 6)
    with pytest.raises(DatasetError, match=r"p-a: .*found one of shape \['beyond 64 bits', 6\]"):
        parse(FILES | {"edges.pkl": changed_edges(0, vast)})


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("pa.txt", b"0\t0\n0\t1\n2\t0\n", r"pa\.txt: expected the links between papers and authors of edges\.pkl"),
        ("ps.txt", b"0\t0\n1\t1\n", r"ps\.txt:2: expected a node number below 1"),
        ("labels.npy", npy([0, 1, 0]), r"labels\.npy: expected the classes of labels\.pkl, in whatever order"),
        ("labels.npy", npy([0, 1]), r"labels\.npy: expected numbers of shape \[3\]"),
        ("a_feat.npz", sparse_npz(X[3:]), r"a_feat\.npz: shape: expected 2 rows"),
        ("a_feat.npz", sparse_npz(X[3:5, 1:]), r"a_feat\.npz: expected a sparse matrix of 4 columns, found 3"),
        ("a_feat.npz", npy(X[3:5]), r"a_feat\.npz: expected a sparse matrix of 4 columns, found a dense one"),
    ],
)
def test_files_of_other_repositories_must_belong_together(name: str, content: bytes, says: str) -> None:
    with pytest.raises(DatasetError, match=f"here: {says}"):
        parse(OTHERS | {name: content})


@pytest.mark.parametrize("files, name", [(FILES, "edges.pkl"), (FILES, "labels.pkl")] + [(OTHERS, n) for n in OTHERS])
def test_missing_file(files: dict[str, bytes], name: str) -> None:
    with pytest.raises(DatasetError, match=f"here: expected a file {name}"):
        parse({other: files[other] for other in files if other != name})


def test_missing_features() -> None:
    with pytest.raises(DatasetError, match=r"here: expected a file node_features\.pkl"):
        parse({name: FILES[name] for name in ("edges.pkl", "labels.pkl")}, GTN["imdb_gtn"])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damage_is_refused_or_harmless(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        arrays = parse(FILES | {name: bytes(content)})
    except DatasetError as error:
        assert name in str(error)
    else:
        assert arrays["edge/paper__to__author"].shape == (2, 3) and arrays["edge/subject__to__paper"].shape == (2, 2)
        assert all(np.isfinite(arrays[f"x/{node_type}/data"]).all() for node_type in FORM.nodes)
