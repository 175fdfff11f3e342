"""The folder of CSV files: what is read, and what each thing that is wrong says."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from hire_jax import DatasetError, GraphError, HeteroGraph
from hire_jax.interop import (
    dataset_from_csv_folder,
    from_csv_folder,
)

FILES = {
    "nodes/paper.csv": "id,year,length,venue,topic,part\n"
                       "p3,2003,8.5,kdd,graphs,train\n"
                       "p1,2001,4e0, kdd,text,train\n"
                       "\n"
                       '"p,""2""",2002,6.25,"k\nd",graphs,val\n'
                       "p4,2004,1,kdd,text,val\n"
                       "p5,2005,2,kdd,,\n"
                       "p6,2006,3,kdd,text,test\n",
    "nodes/author.csv": "id\n70\n10\n010\n",
    "edges/author__writes__paper.csv": 'source,destination,share\r\n10,p1,0.5\r\n010,"p,""2""",1\r\n70,p3,.25\r\n',
    "edges/paper__cites__paper.csv": "destination,source\n",
}
PAPER, WROTE = FILES["nodes/paper.csv"], "edges/author__writes__paper.csv"
WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
OPTIONS = {"categorical": {"paper": ["venue"]}, "ignore": {"paper": ["topic", "part"]}}
TASK = {"target": "paper", "label": "topic", "split": "part", "categorical": {"paper": ["venue"]}}


@pytest.fixture
def folder(tmp_path: Path):
    """folder(changes) -> path of FILES with {name: text, bytes, or None to leave it out}."""

    def write(changes=None):
        root = tmp_path / "graph"
        for name, content in (FILES | (changes or {})).items():
            if content is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write


def test_what_is_read(folder, agree):
    found = from_csv_folder(folder(), **OPTIONS)
    assert found.ids["author"].tolist() == ["70", "10", "010"]  # text: 10 and 010 are two authors
    assert found.ids["paper"].tolist() == ["p3", "p1", 'p,"2"', "p4", "p5", "p6"]
    assert found.feature_names == {"paper": ("year", "length", "venue= kdd", "venue=k\nd", "venue=kdd")}
    agree(found.graph, HeteroGraph.from_arrays(
        {"author": 3, "paper": 6}, {WRITES: [[1, 2, 0], [1, 2, 0]], CITES: np.zeros((2, 0), int)},
        {"paper": np.array([[2003, 8.5, 0, 0, 1], [2001, 4, 1, 0, 0], [2002, 6.25, 0, 1, 0], [2004, 1, 0, 0, 1],
                            [2005, 2, 0, 0, 1], [2006, 3, 0, 0, 1]], np.float32)},
        {WRITES: np.array([[0.5], [1], [0.25]], np.float32)}))


def test_a_dataset_is_read(folder):
    dataset, imported = dataset_from_csv_folder(folder(), **TASK)
    assert dataset.labels.tolist() == [0, 1, 0, 1, -1, 1]
    assert dataset.meta == {"name": "csv", "classes": ["graphs", "text"], "split": "part"}
    assert {part: np.flatnonzero(mask).tolist() for part, mask in dataset.splits.items()} == {
        "train": [0, 1], "val": [2, 3], "test": [5]}
    assert imported.index("paper", "p6") == 5


def test_a_zip_archive_hidden_files_and_a_byte_order_mark(folder, tmp_path, agree):
    expected = from_csv_folder(folder(), **OPTIONS)
    path = tmp_path / "graph.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(f"mine/{name}", b"\xef\xbb\xbf" + text.encode())
        archive.writestr("mine/README.txt", "not a table")
        archive.writestr("__MACOSX/mine/nodes/._paper.csv", b"\x00\x05")
    agree(from_csv_folder(path, **OPTIONS).graph, expected.graph)


def test_long_files(folder, monkeypatch, agree):
    """Blocks and chunks that end anywhere, within a quoted cell as well."""
    expected = from_csv_folder(folder(), **OPTIONS)
    monkeypatch.setattr("hire_jax.interop.csv_folder.BLOCK", 7)
    monkeypatch.setattr("hire_jax.interop.csv_folder.CHUNK", 2)
    found = from_csv_folder(folder(), **OPTIONS)
    agree(found.graph, expected.graph)
    assert found.ids["paper"].tolist() == expected.ids["paper"].tolist()
    with pytest.raises(GraphError, match=r"author__writes__paper.csv:4, column 'destination': .* found 'p9' \(str\)"):
        from_csv_folder(folder({WROTE: "source,destination\n10,p1\n10,p1\n10,p9\n"}), **OPTIONS)


# ------------------------------------------------------------------------------------------- what is wrong


BAD = {
    "an empty file": ({"nodes/author.csv": ""}, r"nodes/author.csv:1: expected a header of distinct column names, "
                                                r"found "
                                                r"\[\]"),
    "a long name": ({"nodes/author.csv": f"id,{'x' * 501}\n70,1\n"}, r"nodes/author.csv:1: expected column names of at "
                                                                    r"most 500 characters, found one of 501"),
    "only empty lines": ({"nodes/author.csv": "\n\n"}, r"nodes/author.csv:1: expected a header"),
    "no rows": ({"nodes/author.csv": "id\n"}, r"nodes/author.csv: expected at least one row, found none"),
    "a column twice": ({"nodes/author.csv": "id,id\n1,2\n"}, r"nodes/author.csv:1: expected a header of distinct "
                                                             r".*'id'"),
    "a column without a name": ({"nodes/author.csv": "id,\n1,2\n"}, r"nodes/author.csv:1: expected a header"),
    "a cell too few": ({"nodes/paper.csv": PAPER.replace("p4,2004,", "p4,")},
                       r"nodes/paper.csv:7: expected 6 cells like the header, found 5"),
    "a cell too many": ({WROTE: "source,destination\n70,p3,1\n"}, r"paper.csv:2: expected 2 cells like the header, "
                                                                  r"found 3"),
    "an open quote": ({"nodes/author.csv": 'id\n70\n"10\n'}, r"nodes/author.csv:3: expected cells quoted as RFC 4180"),
    "text after a quote": ({"nodes/author.csv": 'id\n70\n"1"0\n'}, r"nodes/author.csv:3: expected cells quoted"),
    "a lone return": ({"nodes/author.csv": "id\n70\n1\r0\n"}, r"nodes/author.csv:3: expected cells quoted"),
    "a vast cell": ({"nodes/author.csv": "id\n" + "7" * 200_000}, r"nodes/author.csv:2: .* field limit"),
    "no UTF-8": ({"nodes/author.csv": b"id\n70\n\xff\n"}, r"nodes/author.csv:3: expected UTF-8 text, found byte 0xff"),
    "half a character": ({"nodes/author.csv": b"id\n70\n\xc3"}, r"nodes/author.csv:3: expected UTF-8 text, found "
                                                                r"byte 0xc3"),
    "UTF-16": ({"nodes/author.csv": "id\n70\n".encode("utf-16")}, r"nodes/author.csv:1: expected UTF-8 text"),
    "no number": ({"nodes/paper.csv": PAPER.replace("2004", "n/a")},
                  r"nodes/paper.csv:7: expected a number in column 'year', found 'n/a'; name the column in ignore="),
    "an empty cell": ({"nodes/paper.csv": PAPER.replace("2004", "")},
                      r"nodes/paper.csv:7: expected a number in column 'year', found an empty cell"),
    "digits in groups": ({"nodes/paper.csv": PAPER.replace("2004", "2_004")}, r"paper.csv:7: .*found '2_004'"),
    "digits of another script": ({"nodes/paper.csv": PAPER.replace("2004", "٢")}, r"paper.csv:7: .*found '٢'"),
    "not finite": ({"nodes/paper.csv": PAPER.replace("2004", "inf")},
                   r"nodes/paper.csv:7, column 'year': expected finite numbers up to 3.4e\+38, found inf"),
    "NaN": ({"nodes/paper.csv": PAPER.replace("2004", "nan")}, r"nodes/paper.csv:7, column 'year': .* found nothing"),
    "no id": ({"nodes/author.csv": 'id\n70\n""\n'}, r"nodes/author.csv:3, column 'id': expected an id .* found "
                                                    r"nothing"),
    "an id twice": ({"nodes/author.csv": "id\n70\n10\n70\n"}, r"nodes/author.csv:4, column 'id': expected each id "
                                                              r"once, "
                    r"as in .*nodes/author.csv:2, found '70' \(str\) again"),
    "an unknown id": ({WROTE: "source,destination\n10,p1\n11,p1\n"},
                      r"paper.csv:3, column 'source': expected an id of node type 'author' \(3 ids such as '70' "
                      r"\(str\)\), "
                      r"found '11' \(str\)"),
    "no ends": ({WROTE: "from,to\n10,1\n"}, r"paper.csv: expected a column 'source' \(the edges' sources\), found the "
                r"columns \['from', 'to'\]"),
    "an unknown type": ({"edges/author__writes__book.csv": "source,destination\n"},
                        r"author__writes__book.csv: expected ends among the node types \['author', 'paper'\], found "
                        r"'book'"),
    "an edge type of two parts": ({"edges/author__paper.csv": ""}, r"edges/author__paper.csv: expected a name of the "
                                                                   r"form "
                                  "edges/SOURCE__RELATION__DESTINATION.csv, found another"),
    "a node type of two parts": ({"nodes/a__b.csv": ""}, r"nodes/a__b.csv: expected a name of the form nodes/TYPE.csv"),
    "another file": ({"nodes/paper.txt": ""}, r"nodes/paper.txt: expected a name of the form nodes/TYPE.csv, found"),
    "two graphs": ({"old/nodes/paper.csv": "id\n1\n"}, r"expected one folder that holds nodes/ and edges/, found "
                   r"\['.', 'old'\]"),
    "no nodes": ({"nodes/paper.csv": None, "nodes/author.csv": None}, r"expected files of the form nodes/TYPE.csv, "
                                                                      r"found "
                 "none"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(folder, case):
    changes, message = BAD[case]
    with pytest.raises((DatasetError, GraphError), match=message):
        from_csv_folder(folder(changes), **OPTIONS)


def test_bad_labels_name_the_line(folder):
    for old, new, message in (
            ("p4,2004,1,kdd,text,val", "p4,2004,1,kdd,text,dev", r"paper.csv:7, column 'part': expected one of .* "
                                                                 r"'dev'"),
            ("p5,2005,2,kdd,,", "p5,2005,2,kdd,,test", r"paper.csv:8, column 'part': expected a part for labelled "
                                                       r"nodes")):
        with pytest.raises(DatasetError, match=message):
            dataset_from_csv_folder(folder({"nodes/paper.csv": PAPER.replace(old, new)}), **TASK)
    with pytest.raises(DatasetError, match=r"target: expected one of \['author', 'paper'\], found 'book'"):
        dataset_from_csv_folder(folder(), **(TASK | {"target": "book"}))


def test_options_and_places(folder, tmp_path):
    with pytest.raises(GraphError, match=r"ignore: expected columns of .*paper.csv without another role, .*'years'"):
        from_csv_folder(folder(), categorical=OPTIONS["categorical"], ignore={"paper": ["topic", "part", "years"]})
    with pytest.raises(GraphError, match=r"ignore: expected columns of .*author.csv without another role, \[\], found"):
        from_csv_folder(folder(), categorical=OPTIONS["categorical"], ignore=OPTIONS["ignore"] | {"author": ["id"]})
    with pytest.raises(DatasetError, match=r"nowhere: expected a folder, a zip archive or a file, found nothing"):
        from_csv_folder(tmp_path / "nowhere")


def test_a_damaged_archive(tmp_path):
    path = tmp_path / "graph.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nodes/a.csv", "id\n" + "\n".join(map(str, range(1000))))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"graph.zip: nodes/a.csv:1: expected a whole file, found \w+"):
        from_csv_folder(path)


def test_a_line_without_end(folder, monkeypatch):
    monkeypatch.setattr("hire_jax.interop.csv_folder.BLOCK", 8)
    monkeypatch.setattr("hire_jax.interop.csv_folder.LINE_LIMIT", 16)
    with pytest.raises(DatasetError, match=r"expected lines of at most 16 bytes, found a longer one"):
        from_csv_folder(folder({"nodes/author.csv": "id\n" + "7" * 100}), **OPTIONS)


@pytest.mark.parametrize("name", ["edge/p__c__p.csv", "nodes/sub/q.csv"])
def test_tables_in_other_folders_are_not_passed_over(tmp_path, name):
    for member, text in (("nodes/p.csv", "id\n1\n2\n"), (name, "source,destination\n1,2\n")):
        (tmp_path / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / member).write_text(text)
    with pytest.raises(DatasetError, match=rf"{name}: expected tables in nodes/ and edges/, found one elsewhere"):
        from_csv_folder(tmp_path)
