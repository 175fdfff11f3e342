"""The HGB form, on a hand-made graph, on damaged ones, and on the three published archives."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats import hgb
from hire_jax.data.formats.hgb import HGB, HGBForm, parse_hgb
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals

# Read here: a fixture hides HIRE_JAX_DATA from the tests.
DATA = os.environ.get("HIRE_JAX_DATA")
ARCHIVES = {"acm_hgb": "hgb_ACM.zip", "dblp_hgb": "hgb_DBLP.zip", "imdb_hgb": "hgb_IMDB.zip"}

FORM = HGBForm(
    node_types=("paper", "author", "tag"),
    relations={0: ("paper", "cite", "paper"), 1: ("paper", "to", "author"), 2: ("author", "to", "paper"),
               7: ("paper", "has", "tag")},
    target="paper",
    num_classes=3,
    dense=("author",),
    reverse={"ref": "cite"},
)
FILES = {
    "node.dat": "0\ta name, with spaces\t0\t0,1.5,0.0\n1\tÄnne\t1\t-0.5,2e1\n2\t\t0\t0.0,0,-3\n3\tred\t2\n"
                "4\t\t1\t0,0.25\n5\t\t0\t-0.00,0.000,1e-99\n6\tblue\t2\t\n",
    "link.dat": "5\t0\t0\t1.0\n0\t2\t0\t1\n0\t4\t1\t1.0\n5\t1\t1\t1.0\r\n\n0\t1\t1\t1.0\n1\t0\t2\t1.0\n4\t0\t2\t1.00\n"
                "1\t5\t2\t1.0\n1\t5\t2\t1.0\n2\t6\t7\t1\n2\t3\t7\t1",
    "label.dat": "5\t\t0\t2\n",
    "label.dat.test": "0\ta name\t0\t0\n",
}


def originals(files: dict[str, str], **changes: str | bytes) -> Originals:
    """The files, of which some are replaced."""
    content = {name: text.encode() for name, text in files.items()}
    content |= {name: text if isinstance(text, bytes) else text.encode() for name, text in changes.items()}
    return Originals.of_files(content, "tiny")


def readable(arrays: dict[str, np.ndarray], form: HGBForm, path: Path) -> dict[str, Any]:
    """The arrays as `read_npz` gives them back after its checks."""
    classes = [str(number) for number in range(form.num_classes)]
    meta = {"name": path.stem, "target": form.target, "classes": classes, "multilabel": form.multilabel}
    write_npz(path, arrays, meta)
    return read_npz(path)._asdict()


def test_tiny(tmp_path: Path) -> None:
    arrays = parse_hgb(originals(FILES), FORM)
    expected = {
        "num_nodes/paper": 3, "num_nodes/author": 2, "num_nodes/tag": 2,
        "x/paper/indptr": [0, 1, 2, 2], "x/paper/indices": [1, 2], "x/paper/data": [1.5, -3.0], "x/paper/shape": [3, 3],
        "x/author": [[-0.5, 20.0], [0.0, 0.25]],
        "edge/paper__cite__paper": [[0, 2], [1, 0]],
        "edge/paper__ref__paper": [[0, 1], [2, 0]],
        "edge/paper__to__author": [[0, 0, 2], [0, 1, 0]],
        "edge/author__to__paper": [[0, 0, 1], [0, 2, 0]],
        "edge/paper__has__tag": [[1, 1], [0, 1]],
        "edge/tag__has__paper": [[0, 1], [1, 1]],
        "y/paper": [0, -1, 2],
        "split/train": [2], "split/test": [0],
    }
    assert {key: array.tolist() for key, array in arrays.items()} == expected
    floats = {"x/paper/data", "x/author"}
    assert {key for key, array in arrays.items() if array.dtype == np.float32} == floats
    assert {array.dtype for key, array in arrays.items() if key not in floats} == {np.dtype(np.int32)}
    readable(arrays, FORM, tmp_path / "tiny.npz")


def test_multilabel_and_named_split(tmp_path: Path) -> None:
    form = replace(FORM, multilabel=True, split="hgb")
    arrays = parse_hgb(originals(FILES, **{"label.dat": "5\t\t0\t2,0\n2\t\t0\t1\n"}), form)
    assert arrays["y/paper"].tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert arrays["split/hgb/train"].tolist() == [2, 1]  # in the order of the file
    assert arrays["split/hgb/test"].tolist() == [0]
    readable(arrays, form, tmp_path / "tiny.npz")


def test_a_relation_that_is_its_own_reverse_gets_both_directions() -> None:
    arrays = parse_hgb(originals(FILES), replace(FORM, reverse={}))
    assert arrays["edge/paper__cite__paper"].tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert "edge/paper__ref__paper" not in arrays


def test_weights_left_out_when_asked() -> None:
    files = originals(FILES, **{"link.dat": FILES["link.dat"].replace("1.00", "-2.5")})
    np.testing.assert_equal(parse_hgb(files, replace(FORM, ignore_weights=True)), parse_hgb(originals(FILES), FORM))


def test_zip_with_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for name, text in FILES.items():
            archive.writestr(f"Tiny/{name}", text)
        archive.writestr("Tiny/info.dat", "not JSON")
    np.testing.assert_equal(parse_hgb(Originals.of(tmp_path / "tiny.zip"), FORM), parse_hgb(originals(FILES), FORM))


WRONG = [
    # file, text to replace, by what, error
    ("node.dat", "1\tÄnne", "2\tÄnne", r"node\.dat:2: expected the id 1, the next in order, found '2'"),
    ("node.dat", "1\tÄnne", "-1\tÄnne", r"node\.dat:2: expected the id 1, .* found '-1'"),
    ("node.dat", "1\tÄnne", "9223372036854775808\tÄnne", r"node\.dat:2: expected the id 1, .*'9223372036854775808'"),
    ("node.dat", "1\tÄnne", "\u00b9\tÄnne", r"node\.dat:2: expected the id 1, .* found '\u00b9'"),
    ("node.dat", "1\tÄnne", "0\tÄnne", r"node\.dat:2: expected the id 1, the next in order, found '0'"),
    ("node.dat", "\tred\t2", "\tred\t3", r"node\.dat:4: expected a type from 0 to 2, found '3'"),
    ("node.dat", "\tred\t2", "\tred\ttag", r"node\.dat:4: expected a type from 0 to 2, found 'tag'"),
    ("node.dat", "\tred\t2", "\tred", r"node\.dat:4: expected id, name, type and perhaps features, .* found '3.tred'"),
    ("node.dat", "\tred\t2", "\tred\t2\t\t", r"node\.dat:4: expected id, name, type and perhaps features"),
    ("node.dat", "\tblue\t2\t", "\tblue\t2\t1", r"node\.dat:7: expected 0 features, as of line 4 of .*, found 1"),
    ("node.dat", "0.0,0,-3", "0.0,0", r"node\.dat:3: expected 3 features, as of line 1 of the same type, found 2"),
    ("node.dat", "0.0,0,-3", "0.0,0,-3,0", r"node\.dat:3: expected 3 features, as of line 1 .*, found 4"),
    ("node.dat", "\t0.0,0,-3", "", r"node\.dat:3: expected 3 features, as of line 1 of the same type, found 0"),
    ("node.dat", "0.0,0,-3", "0.0,0,", r"node\.dat:3: expected numbers separated by commas, found ''"),
    ("node.dat", "0.0,0,-3", ",0,-3", r"node\.dat:3: expected numbers separated by commas, found ''"),
    ("node.dat", "0.0,0,-3", "0.0,0,3-", r"node\.dat:3: expected numbers separated by commas, found '3-'"),
    ("node.dat", "0.0,0,-3", "0.0,0, 3", r"node\.dat:3: expected numbers separated by commas, found ' 3'"),
    ("node.dat", "0.0,0,-3", "0.0,0,1_0", r"node\.dat:3: expected numbers separated by commas, found '1_0'"),
    ("node.dat", "0.0,0,-3", "0.0,nan,1", r"node\.dat:3: expected numbers separated by commas, found 'nan'"),
    ("node.dat", "0.0,0,-3", "0.0,0,-inf", r"node\.dat:3: expected numbers separated by commas, found '-inf'"),
    ("node.dat", "0.0,0,-3", "0.0,0,\u0663", r"node\.dat:3: expected numbers separated by commas, found '\u0663'"),
    ("node.dat", "0.0,0,-3", "0.0,0,-1e39", r"node\.dat:3: expected numbers finite in float32, found '-1e39'"),
    ("node.dat", "0.0,0,-3", "0.0,0,1e999", r"node\.dat:3: expected numbers finite in float32, found '1e999'"),
    ("node.dat", "0.0,0,-3", "0.0,0," + "9" * 50, r"node\.dat:3: .* found '9{40}\.\.\.'"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\n", r"link\.dat:11: expected two ids, a type .*, found '2.t6.t7'"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\t1\t1\n", r"link\.dat:11: expected two ids, a type .* a weight"),
    ("link.dat", "2\t6\t7\t1\n", "2 6 7 1\n", r"link\.dat:11: expected two ids, a type .* a weight, by tabs"),
    ("link.dat", "2\t6\t7\t1\n", "-2\t6\t7\t1\n", r"link\.dat:11: expected two ids, a type"),
    ("link.dat", "2\t6\t7\t1\n", "9999999999\t6\t7\t1\n", r"link\.dat:11: .* \(up to 9 digits\)"),
    ("link.dat", "2\t6\t7\t1\n", "2\t7\t7\t1\n", r"link\.dat:11: expected ids from 0 to 6, found 7"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t3\t1\n", r"link\.dat:11: expected a link type among \[0, 1, 2, 7\], found 3"),
    ("link.dat", "2\t6\t7\t1\n", "6\t2\t7\t1\n",
     r"link\.dat:11: expected paper to tag, the ends of link type 7, found tag to paper"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\t2\n", r"link\.dat:11: expected the weight 1 .*ignore_weights.*, found '2'"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\t0\n", r"link\.dat:11: expected the weight 1 .*, found '0'"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\t1,1\n", r"link\.dat:11: expected the weight 1 .*, found '1,1'"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\t\n", r"link\.dat:11: expected numbers .*, found ''"),
    ("link.dat", "2\t6\t7\t1\n", "2\t6\t7\tnan\n", r"link\.dat:11: expected numbers .*, found 'nan'"),
    ("link.dat", "2\t6\t7\t1\n2\t3\t7\t1", "",
     r"link\.dat: expected links of the type 7 \(paper, has, tag\), found none"),
    ("link.dat", "4\t0\t2\t1.00\n", "",
     r"link\.dat: expected \('author', 'to', 'paper'\) to be \('paper', 'to', 'author'\) reversed, "
     r"found \(4, 0\) among 1 links of one that the other lacks"),
    ("label.dat", "5\t\t0\t2", "5\t0\t2", r"label\.dat:1: expected id, name, type and classes"),
    ("label.dat", "5\t\t0\t2", "3\t\t0\t2", r"label\.dat:1: expected the id of a paper node, found '3'"),
    ("label.dat", "5\t\t0\t2", "7\t\t0\t2", r"label\.dat:1: expected the id of a paper node, found '7'"),
    ("label.dat", "5\t\t0\t2", "-1\t\t0\t2", r"label\.dat:1: expected the id of a paper node, found '-1'"),
    ("label.dat", "5\t\t0\t2", "5\t\t1\t2", r"label\.dat:1: expected the type 0 \(paper\), found '1'"),
    ("label.dat", "5\t\t0\t2", "5\t\t0\t3", r"label\.dat:1: expected one class from 0 to 2, found '3'"),
    ("label.dat", "5\t\t0\t2", "5\t\t0\t-1", r"label\.dat:1: expected one class from 0 to 2, found '-1'"),
    ("label.dat", "5\t\t0\t2", "5\t\t0\t", r"label\.dat:1: expected one class from 0 to 2, found ''"),
    ("label.dat", "5\t\t0\t2", "5\t\t0\t2.0", r"label\.dat:1: expected one class from 0 to 2, found '2\.0'"),
    ("label.dat", "5\t\t0\t2", "5\t\t0\t2,1", r"label\.dat:1: expected one class from 0 to 2, found '2,1'"),
    ("label.dat", "5\t\t0\t2\n", "5\t\t0\t2\n5\t\t0\t2\n",
     r"label\.dat:2: expected node 5 once, found first in label\.dat:1, found it again"),
    ("label.dat.test", "0\ta name", "5\t", r"label\.dat\.test:1: expected node 5 once, found first in label\.dat:1"),
]


@pytest.mark.parametrize("name, old, new, error", WRONG)
def test_wrong_line(name: str, old: str, new: str, error: str) -> None:
    assert FILES[name].count(old) == 1
    with pytest.raises(DatasetError, match=f"^tiny: {error}"):
        parse_hgb(originals(FILES, **{name: FILES[name].replace(old, new)}), FORM)


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_empty_or_binary_file(name: str) -> None:
    with pytest.raises(DatasetError, match=rf"^tiny: expected a file {name}, found "):
        parse_hgb(originals({other: text for other, text in FILES.items() if other != name}), FORM)
    with pytest.raises(DatasetError, match=rf"^tiny: {name}: expected .*, found none"):
        parse_hgb(originals(FILES, **{name: ""}), FORM)
    with pytest.raises(DatasetError, match=rf"^tiny: {name}:1: expected UTF-8 text, found byte 0xff"):
        parse_hgb(originals(FILES, **{name: b"\xff\n"}), FORM)


def test_multilabel_classes_are_distinct() -> None:
    files = originals(FILES, **{"label.dat": "5\t\t0\t2,2\n"})
    with pytest.raises(DatasetError, match=r"label\.dat:1: expected distinct classes from 0 to 2, found '2,2'"):
        parse_hgb(files, replace(FORM, multilabel=True))


def test_type_without_nodes() -> None:
    with pytest.raises(DatasetError, match=r"node\.dat: expected nodes of the type 3 \(venue\), found none"):
        parse_hgb(originals(FILES), replace(FORM, node_types=(*FORM.node_types, "venue")))


@pytest.mark.parametrize("most, line, node_type", [(3, 5, "author"), (0, 1, "paper")])
def test_more_features_than_memory_should_hold(
    most: int, line: int, node_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hgb, "MAX_ENTRIES", most)
    with pytest.raises(DatasetError, match=rf"node\.dat:{line}: expected at most {most} features .* {node_type} nodes"):
        parse_hgb(originals(FILES), FORM)


@pytest.mark.parametrize("member", ["label.dat.test_full", "DBLP/label.dat.test_full"])
def test_random_labels_are_refused(member: str) -> None:
    files = originals(FILES, **{member: FILES["label.dat.test"]})
    with pytest.raises(DatasetError, match=rf"^tiny: {member}: expected an archive without .* labels are random"):
        parse_hgb(files, FORM)


@pytest.mark.parametrize("changes, error", [
    ({"target": "venue"}, r"expected node types among \['paper', 'author', 'tag'\], found 'venue'"),
    ({"dense": ("venue",)}, r"expected node types among .*, found 'venue'"),
    ({"relations": {0: ("paper", "to", "venue")}}, r"expected node types among .*, found 'venue'"),
    ({"relations": {0: ("paper", "to_", "tag")}}, r"expected names without .*, found 'to_'"),
    ({"relations": {0: ("paper", "a__b", "tag")}}, r"expected names without .*, found 'a__b'"),
    ({"node_types": ("paper", "author", "tag", "a/b")}, r"expected names without .*, found 'a/b'"),
    ({"node_types": ("paper", "author", "tag", "")}, r"expected names without .*, found ''"),
    ({"split": "a/b"}, r"expected names without .*, found 'a/b'"),
    ({"node_types": ("paper", "author", "tag", "tag")}, r"node_types: expected each once, found "),
    ({"relations": {0: ("paper", "to", "tag"), 1: ("paper", "to", "tag")}}, r"relations: expected each once"),
    ({"reverse": {"cite": "ref", "to": "ref"}}, r"reverse: expected pairs of relations"),
    ({"num_classes": 0}, r"num_classes: expected at least 1, found 0"),
])
def test_wrong_form(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        replace(FORM, **changes)


PIECES = ["", *"\t\n\r\x00 ,-.e01\u0663", "99", "2147483648", "9" * 400, "nan"]


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(FILES)), start=st.integers(0, 130), length=st.integers(0, 4),
       piece=st.sampled_from(PIECES))
@example(name="label.dat", start=0, length=0, piece="\ufeff")
def test_any_change_is_refused_or_gives_arrays_that_can_be_read(
    name: str, start: int, length: int, piece: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = FILES[name]
    changed = text[:start] + piece + text[start + length :]
    try:
        arrays = parse_hgb(originals(FILES, **{name: changed}), FORM)
    except DatasetError:
        return
    readable(arrays, FORM, tmp_path_factory.mktemp("hgb") / "changed.npz")


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_published_archive(name: str) -> None:
    """Every array equals that of the npz file, whatever made it."""
    if DATA is None or not (Path(DATA) / f"{name}.npz").is_file():
        pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
    archive = Path(DATA).parent / "raw" / ARCHIVES[name]
    if not archive.is_file():
        pytest.skip(f"no {ARCHIVES[name]} in the folder raw beside HIRE_JAX_DATA")
    arrays = parse_hgb(Originals.of(archive), HGB[name])
    with np.load(Path(DATA) / f"{name}.npz", allow_pickle=False) as expected:
        elsewhere = ("split/magnn/", "split/heco_") if name == "dblp_hgb" else ()
        assert set(arrays) == {key for key in expected.files if key != "meta" and not key.startswith(elsewhere)}
        for key, array in arrays.items():
            assert array.dtype == expected[key].dtype, key
            np.testing.assert_array_equal(array, expected[key], err_msg=key)
