"""The parquet tables of GTN's IMDB, on small ones; `tests/data/test_rebuild.py` has the published."""

import io
from typing import Any

import numpy as np
import pytest

from hire_jax.data import DatasetError
from hire_jax.data.formats import imdb_tables as module
from hire_jax.data.formats.imdb_tables import parse_imdb_tables
from hire_jax.data.originals import Originals
from tests.fuzz.seeds import imdb_tables

pytest.importorskip("pyarrow", reason="imdb_gtn is rebuilt from parquet tables: pip install pyarrow")
import pyarrow
import pyarrow.parquet

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files() -> Files:
    return imdb_tables()


def parse(files: Files) -> dict[str, np.ndarray]:
    return parse_imdb_tables(Originals.of_files(files, "here"))


def changed(files: Files, table: str, **columns: Any) -> Files:
    """The files with columns of one table replaced, or left out with None."""
    name = f"imdb_{table}.parquet.gzip"
    content = pyarrow.parquet.read_table(io.BytesIO(files[name])).to_pydict() | columns
    stream = io.BytesIO()
    table_made = pyarrow.table({key: value for key, value in content.items() if value is not None})
    pyarrow.parquet.write_table(table_made, stream)
    return files | {name: stream.getvalue()}


def test_arrays(files: Files) -> None:
    arrays = parse(files)
    assert [int(arrays[f"num_nodes/{name}"]) for name in ("movie", "director", "actor")] == [614, 3, 5]
    assert arrays["x/director/indptr"].tolist() == [0, 0, 2, 2]  # directors 614 to 616: keywords 0, 0; 1, 1; 0, 0
    assert arrays["x/director/indices"].tolist() == [0, 1]
    assert arrays["edge/director__to__movie"].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 3, 6, 1, 4, 7, 2, 5, 8]]
    assert arrays["edge/movie__to__actor"].tolist() == [list(range(9)), [0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert arrays["y/movie"][[0, 1, 2, 609, 610, 613]].tolist() == [0, 1, 2, 0, -1, -1]
    assert [len(arrays[f"split/{part}"]) for part in ("train", "val", "test")] == [300, 300, 10]


@pytest.mark.parametrize("table, columns, says", [
    ("actors", {"nodeId": None}, r"actors\.parquet\.gzip: expected a parquet table with a column nodeId"),
    ("actors", {"nodeId": [617, 618, 619, 620, 620]}, "5 actors with the ids 617 to 621, each once, found others"),
    ("actors", {"nodeId": [617, 618, 619, 620, None]}, "nodeId: expected integers below 2\\*\\*31 in every row"),
    ("actors", {"nodeId": [617.0, 618.0, 619.0, 620.0, 621.0]}, "found double"),
    ("actors", {"nodeId": [617, 618, 619, 620, 2**63 - 1]}, "integers below"),
    ("actors", {"plot_keywords": list("abcde")}, "plot_keywords: expected a list of numbers in every row"),
    ("actors", {"plot_keywords": [[1.0, 0.0]] * 4 + [None]}, "a list of numbers in every row"),
    ("actors", {"plot_keywords": [[1.0, 0.0]] * 4 + [[1.0, None]]}, "a list of numbers in every row"),
    ("actors", {"plot_keywords": [[1.0, 0.0]] * 3 + [[1.0], [1.0, 0.0, 1.0]]}, "lists of one length, found others"),
    ("actors", {"plot_keywords": [[1.0, 0.0]] * 4 + [[np.nan, 0.0]]}, r"finite in float32, found nan at \[8\]"),
    ("actors", {"plot_keywords": [["a"]] * 5}, "expected real numbers"),
    ("movies_without_genre", {"plot_keywords": [[1.0]] * 4}, "without_genre.* 2 keywords a row like movies_with"),
    ("movies_with_genre", {"genre": [3] * 610}, "genre: expected integers from 0 to 2, found 3"),
    ("movies_with_genre", {"nodeId": list(range(-1, 609))}, "614 movies with the ids 0 to 613"),
    ("acted_in", {"sourceNodeId": [616] * 9}, "sourceNodeId, less 617: expected integers from 0 to 4, found -1"),
    ("acted_in", {"targetNodeId": [614] * 9}, "targetNodeId: expected integers from 0 to 613, found 614"),
    ("acted_in", dict.fromkeys(("sourceNodeId", "targetNodeId"), pyarrow.array([], pyarrow.int64())),
     "acted_in.*at least one row"),
])
def test_wrong_table(files: Files, table: str, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(DatasetError, match=f"^here: imdb_.*{says}"):
        parse(changed(files, table, **columns))


def test_missing_or_damaged(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "imdb_actors.parquet.gzip"
    with pytest.raises(DatasetError, match=f"expected a file {name}"):
        parse({key: content for key, content in files.items() if key != name})
    for content in (b"", files[name][:-5], files[name][:100] + b"\xff" * 8 + files[name][108:]):
        with pytest.raises(DatasetError, match=f"here: {name}: expected a parquet table with a column nodeId"):
            parse(files | {name: content})
    monkeypatch.setattr(module, "MAX_BYTES", 5000)
    with pytest.raises(DatasetError, match=r"with_genre.*: plot_keywords: expected at most 5000 bytes, found more"):
        parse(files)


def test_too_few_labelled_movies(files: Files) -> None:
    few = {"nodeId": list(range(600)), "genre": [0] * 600, "plot_keywords": [[1.0, 0.0]] * 600}
    rest = {"nodeId": list(range(600, 614)), "plot_keywords": [[1.0, 0.0]] * 14}
    with pytest.raises(DatasetError, match=r"movies_with_genre.*: expected more than 600 rows, found 600"):
        parse(changed(changed(files, "movies_with_genre", **few), "movies_without_genre", **rest))
