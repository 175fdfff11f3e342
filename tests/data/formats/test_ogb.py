"""The csv form of the Open Graph Benchmark, on hand-made files."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats import ogb
from hire_jax.data.formats.ogb import OGB, OGBForm, parse_ogb
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals

Files = dict[str, Path | bytes]

ARXIV, MAG = OGBForm(num_classes=3), OGBForm(num_classes=3, target="paper")
CITES = "raw/relations/paper___cites___paper"
WRITES = "raw/relations/author___writes___paper"
FEATURES = "raw/node-feat/paper/node-feat.csv.gz"


def packed(texts: dict[str, str]) -> Files:
    return {name: gzip.compress(text.encode()) for name, text in texts.items()}


@pytest.fixture
def arxiv() -> Files:
    """Four nodes of three classes."""
    return packed({
        "raw/num-node-list.csv.gz": "4\n",
        "raw/num-edge-list.csv.gz": "5\n",
        "raw/edge.csv.gz": "0,1\n3,0\n1,0\n2,2\n3,0\n",  # both directions, a self loop, one twice
        "raw/node-feat.csv.gz": "-0.5,1.0\n1e-05,-2E+1\n+3.25,.5\n0,16777217\n",
        "raw/node-label.csv.gz": "2\n0\n1\n0\n",
        "raw/node_year.csv.gz": "2013\n2014\n2015\n2016\n",
        "split/time/train.csv.gz": "2\n0\n",
        "split/time/valid.csv.gz": "1\n",
        "split/time/test.csv.gz": "3\n",
    })


@pytest.fixture
def mag() -> Files:
    """Three papers, two authors, two fields of study."""
    topic = "raw/relations/paper___has_topic___field_of_study"
    return packed({
        "raw/num-node-dict.csv.gz": "author,field_of_study,paper\n2,2,3\n",
        "raw/triplet-type-list.csv.gz": "author,writes,paper\npaper,cites,paper\npaper,has_topic,field_of_study\n",
        f"{WRITES}/edge.csv.gz": "1,0\n0,2\n0,1\n0,2\n",
        f"{WRITES}/num-edge-list.csv.gz": "4\n",
        f"{CITES}/edge.csv.gz": "2,0\n2,2",  # no end of the last line
        f"{CITES}/num-edge-list.csv.gz": "2\n",
        f"{topic}/edge.csv.gz": "0,1\n",
        FEATURES: "1\n2\n3\n",
        "raw/node-label/paper/node-label.csv.gz": "0\n2\n2\n",
        "split/time/paper/train.csv.gz": "0\n",
        "split/time/paper/valid.csv.gz": "2\n",
        "split/time/paper/test.csv.gz": "1\n",
    })


def parse(files: Files, form: OGBForm) -> dict[str, np.ndarray]:
    return parse_ogb(Originals.of_files(files, "here"), form)


def test_published_forms() -> None:
    assert {name: (form.num_classes, form.target, form.split) for name, form in OGB.items()} == {
        "ogbn_arxiv": (40, None, "time"), "ogbn_mag": (349, "paper", "time")
    }


def test_one_type(arxiv: Files, tmp_path: Path) -> None:
    arrays = parse(arxiv, ARXIV)
    assert arrays["num_nodes/node"] == 4
    expected = np.array([[-0.5, 1], [1e-5, -20], [3.25, 0.5], [0, 16777216]], np.float32)
    assert arrays["x/node"].dtype == np.float32
    np.testing.assert_array_equal(arrays["x/node"], expected)
    assert arrays["edge/node__to__node"].T.tolist() == [[0, 1], [0, 3], [1, 0], [3, 0]]
    assert arrays["y/node"].tolist() == [2, 0, 1, 0]
    splits = {key: value.tolist() for key, value in arrays.items() if key.startswith("split/")}
    assert splits == {"split/time/train": [0, 2], "split/time/val": [1], "split/time/test": [3]}
    write_npz(tmp_path / "tiny.npz", arrays, {"target": "node", "classes": ["a", "b", "c"]})
    assert read_npz(tmp_path / "tiny.npz").splits.keys() == {"time"}


def test_heterogeneous(mag: Files, tmp_path: Path) -> None:
    """Relations keep their names and direction, and each gets a reverse; read from a zip, as published."""
    with zipfile.ZipFile(tmp_path / "mag.zip", "w") as archive:
        for name, content in mag.items():
            archive.writestr(f"mag/{name}", bytes(content))  # type: ignore[arg-type]
    arrays = parse_ogb(Originals.of(tmp_path / "mag.zip"), MAG)
    assert {key: int(arrays[key]) for key in arrays if key.startswith("num_nodes/")} == {
        "num_nodes/author": 2, "num_nodes/field_of_study": 2, "num_nodes/paper": 3
    }
    assert {key: array.T.tolist() for key, array in arrays.items() if key.startswith("edge/")} == {
        "edge/author__writes__paper": [[0, 1], [0, 2], [1, 0]],
        "edge/paper__rev_writes__author": [[0, 1], [1, 0], [2, 0]],
        "edge/paper__cites__paper": [[2, 0], [2, 2]],
        "edge/paper__rev_cites__paper": [[0, 2], [2, 2]],
        "edge/paper__has_topic__field_of_study": [[0, 1]],
        "edge/field_of_study__rev_has_topic__paper": [[1, 0]],
    }
    assert arrays["x/paper"].tolist() == [[1], [2], [3]]
    assert arrays["y/paper"].tolist() == [0, 2, 2]
    meta = {"target": "paper", "classes": ["a", "b", "c"], "default_split": "time"}
    write_npz(tmp_path / "tiny.npz", arrays, meta)
    assert len(read_npz(tmp_path / "tiny.npz").edges) == 6


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_do_not_matter(block: int, arxiv: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = parse(arxiv, ARXIV)
    monkeypatch.setattr(ogb, "BLOCK", block)
    for key, array in parse(arxiv, ARXIV).items():
        np.testing.assert_array_equal(array, expected[key])
    wrong = packed({"raw/edge.csv.gz": "0,1\n3,0\n1,0\n2,2\n3,-1\n"})
    with pytest.raises(DatasetError, match=r"raw/edge\.csv\.gz:5: expected an integer without a sign, found '-1'"):
        parse(arxiv | wrong, ARXIV)


def test_numbers_that_numpy_refuses(arxiv: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """What numpy does not take for numbers is what Python does not."""
    expected = parse(arxiv, ARXIV)

    def refuse(*_: object, **__: object) -> None:
        raise ValueError

    monkeypatch.setattr(np, "fromstring", refuse)
    for key, array in parse(arxiv, ARXIV).items():
        assert array.dtype == expected[key].dtype
        np.testing.assert_array_equal(array, expected[key])


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("raw/edge", "0,1\n3,0\n1,4\n2,2\n3,0\n", ":3: expected an integer below 4, found 4"),
        ("raw/edge", "0,1\n3,0\n1\n2,2\n3,0\n", ":3: expected 2 numbers separated by commas, found '1'"),
        ("raw/edge", "0,1\n3,0\n1,2,3\n2,2\n3,0\n", ":3: expected 2 numbers separated by commas, found '1,2,3'"),
        ("raw/edge", "0,1,3\n0\n1,2\n2,2\n3,0\n", ":1: expected 2 numbers separated by commas, found '0,1,3'"),
        ("raw/edge", "0,1\n3,\n1,0\n2,2\n3,0\n", ":2: expected a number, found ''"),
        ("raw/edge", "0,1\n\n1,0\n2,2\n3,0\n", ":2: expected 2 numbers separated by commas, found ''"),
        ("raw/edge", "0,1\n3,0\n1,0\n2,2\n3,1.0\n", ":5: expected an integer without a sign, found '1.0'"),
        ("raw/edge", "0,1\n3,0\n1,0\n2,2\n3, 0\n", ":5: expected an integer without a sign, found ' 0'"),
        ("raw/edge", "0,1\r\n3,0\r\n", r":1: expected an integer without a sign, found '1\\r'"),
        ("raw/edge", "0,9223372036854775808\n", ":1: expected an integer of at most 9 digits, found '9223372036854775"),
        ("raw/edge", "0,1\n3,0\n1,0\n2,2\n", r": expected 5 line\(s\), found 4"),
        ("raw/edge", "0,1\n" * 7, r":6: expected 5 line\(s\), found more"),
        ("raw/edge", "0,١\n", r":1: expected an integer without a sign, found '\\"),
        ("raw/edge", "0,\x00\n", r":1: expected an integer without a sign, found '\\x00'"),
        ("raw/edge", "5" * (1 << 21), r":1: expected lines of at most 1048576 bytes, found a longer one"),
        ("raw/num-node-list", "", r": expected 1 line\(s\), found 0"),
        ("raw/num-node-list", "0\n", ":1: expected at least one node, found 0"),
        ("raw/num-node-list", "4\n4\n", r":2: expected 1 line\(s\), found more"),
        ("raw/num-node-list", "x\n", ":1: expected an integer without a sign, found 'x'"),
        ("raw/num-edge-list", "", r": expected 1 line\(s\), found 0"),
        ("raw/node-feat", "1,2\n1,2\n1,2\n", r": expected 4 line\(s\), found 3"),
        ("raw/node-feat", "1,2\n1,2\n1,2\n1,2\n1,2\n", r":5: expected 4 line\(s\), found more"),
        ("raw/node-feat", "1,2\n1,2\n1\n1,2\n", ":3: expected 2 numbers separated by commas, found '1'"),
        ("raw/node-feat", "1,2\n1,2\n1,nan\n1,2\n", ":3: expected a number, found 'nan'"),
        ("raw/node-feat", "1,2\n1,2\n1,inf\n1,2\n", ":3: expected a number, found 'inf'"),
        ("raw/node-feat", "1,2\n1,2\n1,1e39\n1,2\n", ":3: expected numbers finite in float32, found 1e"),
        ("raw/node-feat", "1,2\n1,2\n1,-1e999\n1,2\n", ":3: expected numbers finite in float32, found -inf"),
        ("raw/node-feat", "1,2\n1,1-2\n1,3\n1,2\n", ":2: expected a number, found '1-2'"),
        ("raw/node-feat", "1,2\n1,1e\n1,3\n1,2\n", ":2: expected a number, found '1e'"),
        ("raw/node-feat", "1,2\n1,1_0\n1,3\n1,2\n", ":2: expected a number, found '1_0'"),
        ("raw/node-feat", "1,2\n1,0x1\n1,3\n1,2\n", ":2: expected a number, found '0x1'"),
        ("raw/node-label", "2\n0\n3\n0\n", ":3: expected an integer below 3, found 3"),
        ("raw/node-label", "2\n0\n-1\n0\n", ":3: expected an integer without a sign, found '-1'"),
        ("raw/node-label", "2\n0\n1\n", r": expected 4 line\(s\), found 3"),
        ("split/time/train", "", ": expected at least one node, found none"),
        ("split/time/train", "2\n0\n2\n", ":3: expected a node that is not above, found 2"),
        ("split/time/train", "4\n", ":1: expected an integer below 4, found 4"),
        ("split/time/valid", "1\n2\n", ":2: expected a node that is not in another part, found 2"),
    ],
)
def test_wrong_text(name: str, text: str, says: str, arxiv: Files) -> None:
    with pytest.raises(DatasetError, match=rf"^here: {name}\.csv\.gz{says}"):
        parse(arxiv | packed({f"{name}.csv.gz": text}), ARXIV)


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("num-node-dict", "", r": expected a line of distinct node types .* found 0 lines of \[\] fields"),
        ("num-node-dict", "author,paper\n2,2,3\n", r"found 2 lines of \[2, 3\] fields"),
        ("num-node-dict", "a,a\n2,2\n", "expected a line of distinct node types"),
        ("num-node-dict", "author,field_of_study,paper\n2,2,3\n2,2,3\n", r"found 3 lines of \[3, 3, 3\] fields"),
        ("num-node-dict", "author,field__of,paper\n2,2,3\n", ":1: expected names of letters, .* found 'field__of'"),
        ("num-node-dict", "author,,paper\n2,2,3\n", ":1: expected names of letters, .* found ''"),
        ("num-node-dict", "author,a/b,paper\n2,2,3\n", ":1: expected names of letters, .* found 'a/b'"),
        ("num-node-dict", "author,field_of_study,paper\n2,-2,3\n", ":2: expected counts of nodes .* found '-2'"),
        ("num-node-dict", "author,field_of_study,paper\n2,0,3\n", ":2: expected counts of nodes .* found '0'"),
        ("num-node-dict", "author,field_of_study,paper\n2,9999999999,3\n", ":2: expected counts of nodes"),
        ("num-node-dict", "author,field_of_study\n2,2\n", ":1: expected the node type paper, found author, field_of"),
        ("num-node-dict", "author,field_of_study,paper\n2,5,3\n",
         ": expected at most 4 nodes of type field_of_study, as relations name none above 1, found 5"),
        ("num-node-dict", "author,field_of_study,paper,venue\n2,2,3,1\n", ": expected at most 0 nodes of type venue"),
        ("num-node-dict", "a" * 70_000 + "\n", ": expected at most 65536 bytes, found more"),
        ("triplet-type-list", "", ": expected at least one relation, found none"),
        ("triplet-type-list", "author,writes\n", ":1: expected source, relation, .* found 'author,writes'"),
        ("triplet-type-list", "author,writes,book\n", ":1: expected source, relation, destination"),
        ("triplet-type-list", "author,writes__to,paper\n", ":1: expected source, relation, destination"),
        ("triplet-type-list", "author,_writes,paper\n", ":1: expected source, relation, destination"),
        ("triplet-type-list", "author,writes,paper\n" * 2,
         ": expected each relation once, and none named rev_writes, found author, writes, paper after"),
        ("relations/author___writes___paper/edge", "1,0\n0,2\n2,1\n0,2\n", ":3: expected an integer below 2, found 2"),
        ("relations/author___writes___paper/num-edge-list", "5\n", r"edge.csv.gz: expected 5 line\(s\), found 4"),
        ("node-feat/paper/node-feat", "1\n2\n", r": expected 3 line\(s\), found 2"),
        ("node-label/paper/node-label", "0\n2\n3\n", ":3: expected an integer below 3, found 3"),
    ],
)
def test_wrong_heterogeneous(name: str, text: str, says: str, mag: Files) -> None:
    with pytest.raises(DatasetError, match=rf"^here: raw/.*{says}"):
        parse(mag | packed({f"raw/{name}.csv.gz": text}), MAG)


def test_relation_that_is_the_reverse_of_another(mag: Files) -> None:
    triplets = packed({"raw/triplet-type-list.csv.gz": "author,writes,paper\npaper,rev_writes,author\n",
                       "raw/relations/paper___rev_writes___author/edge.csv.gz": "0,1\n"})
    with pytest.raises(DatasetError, match="expected each relation once, and none named rev_rev_writes"):
        parse(mag | triplets, MAG)


def test_missing_files(arxiv: Files, mag: Files) -> None:
    optional = {"raw/num-edge-list.csv.gz", "raw/node_year.csv.gz", f"{CITES}/num-edge-list.csv.gz",
                f"{WRITES}/num-edge-list.csv.gz"}
    for files, form in ((arxiv, ARXIV), (mag, MAG)):
        for name in files:
            fewer = {other: files[other] for other in files if other != name}
            if name in optional:
                assert parse(fewer, form).keys() == parse(files, form).keys()
            else:
                with pytest.raises(DatasetError, match=f"here: expected a file {name}, found"):
                    parse(fewer, form)


@pytest.mark.parametrize(
    "content", [b"", b"0,1\n3,0\n", gzip.compress(b"0,1\n" * 1000)[:-9], b"\x1f\x8b\x08" + b"\x00" * 30],
    ids=["empty", "not packed", "cut", "zeros"]  # gzip writes the time, and workers must agree on the names of tests
)
def test_damaged_file(content: bytes, arxiv: Files) -> None:
    with pytest.raises(DatasetError, match=r"here: raw/edge\.csv\.gz: expected a (whole )?gzip file, found"):
        parse(arxiv | {"raw/edge.csv.gz": content}, ARXIV)


def test_text_that_unpacks_to_too_much(arxiv: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ogb, "FREE", 1 << 16)
    monkeypatch.setattr(ogb, "BLOCK", 1 << 10)
    bomb = gzip.compress(b"0,1\n" * 100_000)
    arxiv = {name: content for name, content in arxiv.items() if name != "raw/num-edge-list.csv.gz"}
    with pytest.raises(DatasetError, match=r"raw/edge\.csv\.gz: expected at most 50 times its packed bytes"):
        parse(arxiv | {"raw/edge.csv.gz": bomb}, ARXIV)
    monkeypatch.setattr(ogb, "FREE", 1 << 20)
    assert parse(arxiv | {"raw/edge.csv.gz": bomb}, ARXIV)["edge/node__to__node"].tolist() == [[0, 1], [1, 0]]
    monkeypatch.setattr(ogb, "MAX_TEXT", 1 << 18)
    with pytest.raises(DatasetError, match=r"raw/edge\.csv\.gz: expected at most .* and 262144, found more"):
        parse(arxiv | {"raw/edge.csv.gz": bomb}, ARXIV)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(3, 12), width=st.integers(1, 4))
def test_round_trip(seed: int, count: int, width: int) -> None:
    """Numbers come back as float32 of what stands there, edges as the set that they are."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, width)) * 10.0 ** random.integers(-30, 30, (count, width))
    labels = random.integers(0, 3, count)
    edges = random.integers(0, count, (random.integers(0, 20), 2))
    parts = random.permutation([0, 1, 2, *random.integers(0, 4, count - 3)])

    def lines(table: np.ndarray) -> str:
        return "".join(",".join(map(repr, row)) + "\n" for row in table.tolist())

    files = packed({
        "raw/num-node-list.csv.gz": f"{count}\n",
        "raw/edge.csv.gz": lines(edges),
        "raw/node-feat.csv.gz": lines(x),
        "raw/node-label.csv.gz": lines(labels[:, None]),
        **{f"split/time/{stem}.csv.gz": lines(np.argwhere(parts == part))
           for part, stem in enumerate(("train", "valid", "test"))},
    })
    arrays = parse(files, ARXIV)
    np.testing.assert_array_equal(arrays["x/node"], x.astype(np.float32))
    np.testing.assert_array_equal(arrays["y/node"], labels)
    expected = {(a, b) for a, b in edges.tolist() if a != b}
    expected |= {(b, a) for a, b in expected}
    assert list(map(tuple, arrays["edge/node__to__node"].T.tolist())) == sorted(expected)
    for part, name in enumerate(("train", "val", "test")):
        assert arrays[f"split/time/{name}"].tolist() == np.flatnonzero(parts == part).tolist()
