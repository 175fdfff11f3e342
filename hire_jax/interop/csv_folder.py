"""Graphs and datasets from a folder of CSV files: one a node type, one an edge type.

    nodes/TYPE.csv                                  id,year,...
    edges/SOURCE__RELATION__DESTINATION.csv         source,destination,...

Files are UTF-8 with a header, comma-separated and quoted as RFC 4180 has it. A zip archive of such a folder is read
without unpacking it.
"""

import csv
import io
import os
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from hire_jax.data import Dataset, DatasetError
from hire_jax.data.originals import Originals
from hire_jax.graph import EdgeType
from hire_jax.interop.assemble import Edges, Nodes, assemble, identify
from hire_jax.interop.ids import Imported
from hire_jax.interop.roles import Columns, Roles
from hire_jax.interop.table import Table
from hire_jax.interop.tasks import Drawing, Task, check_target, table_dataset
from hire_jax.interop.values import objects

NAME_LIMIT = 500  # characters of a column's name
LINE_LIMIT = 16 << 20  # bytes; a row of a million numbers
BLOCK = 1 << 20  # bytes read at a time
CHUNK = 512  # rows held as text at a time; more of them keep the garbage collector busy


def from_csv_folder(folder: str | os.PathLike[str], *,
                    id: str | Mapping[str, str] = "id",
                    source: str | Mapping[EdgeType, str] = "source",
                    destination: str | Mapping[EdgeType, str] = "destination",
                    categorical: Columns = None, ignore: Columns = None) -> Imported:
    """A graph from a folder, or a zip archive of one, as the module describes it.

    Ids are text: "1" and "01" are two ids. Columns of numbers become features; the others are named in `categorical` or
    `ignore`. Types are in the alphabetical order of their files.

    Args:
      folder: holds the folders `nodes` and `edges`; files beside these are left alone, but no .csv in other folders.
      id, source, destination, categorical, ignore: as `from_columns`.

    Raises:
      DatasetError: there is no such folder, or a file is not in order; the message names file and line.
      GraphError: as `from_columns`, with file and line.
    """
    roles = Roles(id, source, destination, categorical, ignore)
    return assemble(*_identified(folder, roles, None), roles)


def dataset_from_csv_folder(folder: str | os.PathLike[str], *, target: str, label: str, split: str | None = None,
                            separator: str | None = None, seed: int = 0, train_per_class: int = 20,
                            val_per_class: int = 30, name: str = "csv",
                            id: str | Mapping[str, str] = "id",
                            source: str | Mapping[EdgeType, str] = "source",
                            destination: str | Mapping[EdgeType, str] = "destination",
                            categorical: Columns = None, ignore: Columns = None) -> tuple[Dataset, Imported]:
    """A dataset for `hire_jax.fit` from a folder as `from_csv_folder` reads it.

    Args:
      folder: as `from_csv_folder`.
      target, label, split, separator, seed, train_per_class, val_per_class, name: as `dataset_from_columns`.
      id, source, destination, categorical, ignore: as `from_columns`.

    Returns:
      (dataset, imported), as `dataset_from_columns`.

    Raises:
      DatasetError, GraphError: as `from_csv_folder` and `dataset_from_columns`, with file and line.
    """
    roles = Roles(id, source, destination, categorical, ignore)
    task = Task(target, label, split, separator, Drawing(seed, train_per_class, val_per_class), name)
    return table_dataset(*_identified(folder, roles, task), roles, task)


def _identified(folder: str | os.PathLike[str], roles: Roles, task: Task | None
                ) -> tuple[dict[str, Nodes], dict[EdgeType, Edges]]:
    files = Originals.of(folder)
    nodes, edges = _members(files)
    roles.check([*nodes, *edges])
    if task is not None:
        check_target(task.target, nodes)
    node_tables = {}
    for name, member in nodes.items():
        words = () if task is None or task.target != name else task.columns
        node_tables[name] = _table(files, member, {roles.id_of(name), *roles.categorical_of(name), *words},
                                   roles.ignored_of(name))
    edge_tables = {edge_type: _table(files, member, {*roles.ends_of(edge_type), *roles.categorical_of(edge_type)},
                                     roles.ignored_of(edge_type)) for edge_type, member in edges.items()}
    return identify(node_tables, edge_tables, roles)


def _members(files: Originals) -> tuple[dict[str, str], dict[EdgeType, str]]:
    """The files of node types and of edge types, by type."""
    nodes: dict[str, str] = {}
    edges: dict[EdgeType, str] = {}
    tops = set()
    for member in sorted(files.openers):
        path = PurePosixPath(member)
        if path.name.startswith(".") or path.parent.name not in ("nodes", "edges"):
            continue
        tops.add(path.parent.parent)
        parts = path.stem.split("__")
        if path.suffix != ".csv" or not all(parts) or len(parts) != (1 if path.parent.name == "nodes" else 3):
            expected = "nodes/TYPE.csv" if path.parent.name == "nodes" else "edges/SOURCE__RELATION__DESTINATION.csv"
            raise DatasetError(f"{files.where}: {member}: expected a name of the form {expected}, found another")
        if len(parts) == 1:
            nodes[parts[0]] = member
        else:
            edges[parts[0], parts[1], parts[2]] = member
    if len(tops) > 1:
        raise DatasetError(f"{files.where}: expected one folder that holds nodes/ and edges/, "
                           f"found {sorted(map(str, tops))}")
    if not nodes:
        raise DatasetError(f"{files.where}: expected files of the form nodes/TYPE.csv, found none")
    for member in sorted(files.openers):
        path, used = PurePosixPath(member), {*nodes.values(), *edges.values()}
        if path.suffix == ".csv" and path.name[0] != "." and path.parent not in tops and member not in used:
            raise DatasetError(f"{files.where}: {member}: expected tables in nodes/ and edges/, found one elsewhere")
    for edge_type, member in edges.items():
        for end in (edge_type[0], edge_type[2]):
            if end not in nodes:
                raise DatasetError(f"{files.where}: {member}: expected ends among the node types {list(nodes)}, "
                                   f"found {end!r}")
    return nodes, edges


def _table(files: Originals, member: str, words: Collection[str], ignore: Collection[str]) -> Table:
    """One CSV file: columns of `words` as text, others in `ignore` unread, and the rest as numbers."""
    reader = csv.reader(_lines(files, member), strict=True)
    header = next(iter(_rows(files, member, reader, 1)[1]), [])
    if not header or not all(header) or len(set(header)) < len(header):
        raise files.error(member, 1, "a header of distinct column names", repr(header[:20])[:500])
    if max(map(len, header)) > NAME_LIMIT:
        raise files.error(member, 1, f"column names of at most {NAME_LIMIT} characters",
                          f"one of {max(map(len, header))}")
    # Ignored columns stay in the table's names, so that ignoring one that is not there is still an error.
    columns: dict[str, list[np.ndarray]] = {name: [] for name in header if name in words or name not in ignore}
    all_lines = array("q")
    known: dict[str, str] = {}  # equal cells share one string: an id stands in many rows
    while True:
        lines, rows = _rows(files, member, reader, CHUNK)
        if not rows:
            break
        wrong = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
        if wrong is not None:
            raise files.error(member, lines[wrong], f"{len(header)} cells like the header", str(len(rows[wrong])))
        all_lines.extend(lines)
        for name, cells in zip(header, zip(*rows, strict=True), strict=True):
            if name in columns:
                columns[name].append(objects([known.setdefault(cell, cell) for cell in cells]) if name in words
                                     else _numbers(files, member, name, lines, cells))
    read = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in columns.items()}
    return Table(f"{files.where}: {member}", tuple(header), read.__getitem__, lambda row: f":{all_lines[row]}")


def _rows(files: Originals, member: str, reader: Any, limit: int) -> tuple[list[int], list[list[str]]]:
    """The next rows, `limit` at most and none at the end, each with the number of its last line; empty lines are left
    out."""
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                lines.append(reader.line_num)
                rows.append(row)
                if len(rows) == limit:
                    break
    except csv.Error as error:
        raise files.error(member, reader.line_num, "cells quoted as RFC 4180 has it", str(error)) from error
    return lines, rows


def _lines(files: Originals, member: str) -> Iterator[str]:
    """The lines of a UTF-8 text with their ends; a byte order mark is left out."""
    with files.open(member) as stream:
        before = 0
        while True:
            try:
                block = stream.read(BLOCK)
                rest = stream.readline(LINE_LIMIT + 1)
            except Exception as error:  # damaged members of an archive surface as a dozen types
                raise files.error(member, before + 1, "a whole file", f"{type(error).__name__}: {error}") from error
            if len(rest) > LINE_LIMIT:
                raise files.error(member, before + 1, f"lines of at most {LINE_LIMIT} bytes", "a longer one")
            block += rest
            if not block:
                return
            try:
                text = block.decode("utf-8" if before else "utf-8-sig")
            except UnicodeDecodeError as error:
                raise files.error(member, before + block.count(b"\n", 0, error.start) + 1, "UTF-8 text",
                                  f"byte {block[error.start]:#04x}") from error
            before += block.count(b"\n")
            yield from io.StringIO(text, newline="\n")  # a line ends with \n, not with the other ends that str knows


def _numbers(files: Originals, member: str, name: str, lines: list[int], cells: Sequence[str]) -> np.ndarray:
    """Cells as float64; `Table.numbers` looks at whether they are finite."""
    text = "".join(cells)
    if not text.isascii() or "_" in text:  # Python reads 1_000 and digits of other scripts
        raise _not_a_number(files, member, name, lines, cells)
    try:
        return np.array(list(map(float, cells)))
    except ValueError as error:
        raise _not_a_number(files, member, name, lines, cells) from error


def _not_a_number(files: Originals, member: str, name: str, lines: list[int], cells: Sequence[str]) -> DatasetError:
    """Of the first cell that is none."""
    bad = next(i for i, cell in enumerate(cells) if not _is_number(cell))
    found = repr(cells[bad] if len(cells[bad]) <= 60 else cells[bad][:57] + "...") if cells[bad] else "an empty cell"
    return files.error(member, lines[bad], f"a number in column {name!r}",
                       f"{found}; name the column in ignore=, or, if it tells kinds apart, in categorical=")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell
