"""GTN's IMDB graph as the package graphdatascience ships it: six parquet tables.

| file `imdb_....parquet.gzip` | columns that are read |
|---|---|
| `movies_with_genre` | `nodeId`, `plot_keywords`, `genre` |
| `movies_without_genre`, `directors`, `actors` | `nodeId`, `plot_keywords` |
| `directed_in`, `acted_in` | `sourceNodeId`, `targetNodeId` |
"""

import io
from typing import Any

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import Arrays, both_directions, csr_arrays, finite_float32, integers_below
from hire_jax.data.originals import Originals

NUM_CLASSES = 3
PART = 300  # rows of movies_with_genre for training, as many for validation
BATCH = 1024  # rows unpacked at a time
MAX_BYTES = 256 << 20  # of a column; the largest, the actors' keywords, has 59 MB, packed to 66 kB
_TABLES = {"movie": ("movies_with_genre", "movies_without_genre"), "director": ("directors",), "actor": ("actors",)}


def parse_imdb_tables(files: Originals) -> Arrays:
    """The arrays of the npz form from the tables, which are GTN's IMDB graph (Yun et al., arXiv 1911.06455).

    The package keeps GTN's node numbers: movies 0 to 4,660, then directors, then actors. The rows of
    movies_with_genre stand in GTN's order: 300 training, 300 validation, 2,339 test movies.

    Args:
        files: the six tables.

    Raises:
        DatasetError: pyarrow is missing or too old, or a table is missing or not what it should be.
    """
    arrays: Arrays = {}
    counts: dict[str, int] = {}
    start = 0
    for node_type, tables in _TABLES.items():
        ids = [_integers(files, name, "nodeId") for name in tables]
        counts[node_type] = count = sum(map(len, ids))
        nodes = np.concatenate(ids) - start
        if not np.array_equal(np.sort(nodes), np.arange(count)):
            raise files.error(_file(tables[0]), None, f"{count} {node_type}s with the ids {start} to "
                              f"{start + count - 1}, each once", "others")
        words = [_keywords(files, name, len(rows)) for name, rows in zip(tables, ids, strict=True)]
        if len({matrix.shape[1] for matrix in words}) > 1:
            raise files.error(_file(tables[1]), None, f"{words[0].shape[1]} keywords a row like {tables[0]}",
                              str(words[1].shape[1]))
        stacked = np.concatenate(words)
        rows, columns = np.nonzero(stacked)
        arrays[f"num_nodes/{node_type}"] = np.array(count, np.int32)
        arrays |= csr_arrays(f"x/{node_type}", nodes[rows], columns, stacked[rows, columns],
                             shape=(count, stacked.shape[1]))
        start += count
    arrays |= _links(files, "directed_in", "director", counts["movie"], counts)
    arrays |= _links(files, "acted_in", "actor", counts["movie"] + counts["director"], counts)
    return arrays | _labels(files, counts["movie"])


def _links(files: Originals, table: str, source: str, start: int, counts: dict[str, int]) -> Arrays:
    """The edges of a table from directors or actors to movies, and back."""
    where = f"{files.where}: {_file(table)}"
    sources = _integers(files, table, "sourceNodeId") - start
    movies = _integers(files, table, "targetNodeId")
    return both_directions(source, "movie",
                           integers_below(sources, counts[source], f"{where}: sourceNodeId, less {start}"),
                           integers_below(movies, counts["movie"], f"{where}: targetNodeId"))


def _labels(files: Originals, movies: int) -> Arrays:
    """Classes, and GTN's split."""
    name = "movies_with_genre"
    labelled = _integers(files, name, "nodeId")
    genres = integers_below(_integers(files, name, "genre"), NUM_CLASSES, f"{files.where}: {_file(name)}: genre")
    if len(labelled) <= 2 * PART:
        raise files.error(_file(name), None, f"more than {2 * PART} rows", str(len(labelled)))
    labels = np.full(movies, -1, np.int32)
    labels[labelled] = genres
    parts = {"train": labelled[:PART], "val": labelled[PART : 2 * PART], "test": labelled[2 * PART :]}
    return {"y/movie": labels} | {f"split/{part}": nodes.astype(np.int32) for part, nodes in parts.items()}


def _file(table: str) -> str:
    return f"imdb_{table}.parquet.gzip"


def _integers(files: Originals, table: str, column: str) -> np.ndarray:
    """int64 [rows] from a column of integers without gaps."""
    values = _column(files, table, column)
    array = np.zeros(0) if values.null_count else values.to_numpy(zero_copy_only=False)
    if values.null_count or array.dtype.kind not in "iu" or (array.size and array.max() >= 1 << 31):
        raise files.error(f"{_file(table)}: {column}", None, "integers below 2**31 in every row", f"{values.type}")
    return array.astype(np.int64)


def _keywords(files: Originals, table: str, rows: int) -> np.ndarray:
    """float32 [rows, width] from a column of lists of one length."""
    lists = _column(files, table, "plot_keywords")
    where = f"{files.where}: {_file(table)}: plot_keywords"
    flat = lists.flatten() if hasattr(lists, "flatten") else lists
    if lists.null_count or flat.null_count or not rows or lists.type.num_fields != 1 or len(flat) % rows:
        raise DatasetError(f"{where}: expected a list of numbers in every row, all of one length, found {lists.type}")
    width = len(flat) // rows
    if not (lists.value_lengths().to_numpy(zero_copy_only=False) == width).all():
        raise DatasetError(f"{where}: expected lists of one length, found others")
    return finite_float32(flat.to_numpy(zero_copy_only=False), where).reshape(rows, width)


def _column(files: Originals, table: str, column: str) -> Any:
    """One column of a table, as an array of pyarrow."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            "imdb_gtn is rebuilt from parquet tables, and pyarrow is not installed: pip install pyarrow"
        ) from error

    name = _file(table)
    content = files.read(name)
    parts: list[Any] = []
    try:
        # The size is counted, not asked for: what a damaged file states of its columns can end the process in pyarrow.
        opened = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        for batch in opened.iter_batches(BATCH, columns=[column], use_threads=False):
            parts.append(batch.column(column))
            if sum(part.nbytes for part in parts) > MAX_BYTES:
                raise files.error(f"{name}: {column}", None, f"at most {MAX_BYTES} bytes", "more")
        if parts:
            return pyarrow.concat_arrays(parts)
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes surface as OSError, KeyError, and several types of pyarrow's
        raise DatasetError(f"{files.where}: {name}: expected a parquet table with a column {column}, found one that "
                           f"cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    raise files.error(f"{name}: {column}", None, "at least one row", "none")
