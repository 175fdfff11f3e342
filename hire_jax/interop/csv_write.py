"""Graphs and datasets written as the folder of CSV files that `hire_jax.interop.csv_folder` reads."""

import csv
import io
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hire_jax.data import Dataset
from hire_jax.data.dataset import PARTS
from hire_jax.files import write_whole
from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.interop.ids import Imported, NodeIds
from hire_jax.interop.labels import column_labels
from hire_jax.interop.table import Table
from hire_jax.interop.values import objects, shown
from hire_jax.sparse import SparseFeatures

SEPARATOR = "|"  # between the classes of a node
NAME_LIMIT = 200  # bytes of a file's name
CHUNK = 1 << 14  # rows held as text at a time
_FORBIDDEN = frozenset('/\\:*?"<>|') | {chr(code) for code in range(32)}  # in file names, on one system or another


def to_csv_folder(graph: HeteroGraph | Imported, folder: str | os.PathLike[str], *,
                  dataset: Dataset | None = None) -> None:
    """Writes a graph, and a dataset's labels and split, such that `from_csv_folder` gives them back.

    Ids come back as text and types in alphabetical order. Class names come back in ascending order, whatever their
    order was, and without those that no node has. Positional encodings are not written.

    Args:
      graph: a graph, whose ids are then the node numbers, or an `Imported` one with its ids and feature names.
      folder: a folder that is new or has neither `nodes` nor `edges` in it.
      dataset: a task on this graph; the target's file gets the columns "label" and "split", several classes of one
        node separated by "|".

    Raises:
      GraphError: the folder has such files already; features are sparse (`hire_jax.data.write_npz` keeps those); or
        names, ids or classes would not be read back as they are.
    """
    folder = Path(folder)
    for name in ("nodes", "edges"):
        if (folder / name).exists():
            raise GraphError(f"{folder}: expected a folder without {name!r} in it, found one: files would be mixed")
    imported = graph if isinstance(graph, Imported) else _numbered(graph)
    graph = imported.graph
    if dataset is not None and graph.num_nodes.get(dataset.target) != len(dataset.labels):
        raise GraphError(f"dataset: expected one of this graph, with {graph.num_nodes}, found {dataset}")
    texts = {name: _texts(name, ids) for name, ids in imported.nodes.items()}
    written = {}
    for name, ids in texts.items():
        columns = {"id": ids}
        if dataset is not None and name == dataset.target:
            columns |= {"label": _labels(dataset), "split": _split(dataset)}
        written[_file_name("nodes", name)] = _csv(f"node type {name!r}", columns, graph.features.get(name),
                                                  imported.feature_names.get(name))
    for edge_type, relation in graph.relations.items():
        source, _, destination = edge_type
        columns = {"source": texts[source][np.asarray(relation.senders)],
                   "destination": texts[destination][np.asarray(relation.receivers)]}
        written[_file_name("edges", *edge_type)] = _csv(f"relation {edge_type}", columns, relation.edges,
                                                        imported.edge_feature_names.get(edge_type))
    if len({file.casefold() for file in written}) < len(written):
        raise GraphError(f"expected types that differ in more than the case of letters, found {sorted(written)}")
    for file, content in written.items():
        write_whole(folder / file, content)


def _numbered(graph: HeteroGraph) -> Imported:
    return Imported(graph, {name: NodeIds(np.arange(count)) for name, count in graph.num_nodes.items()}, {}, {})


def _texts(node_type: str, ids: NodeIds) -> np.ndarray:
    """The ids as non-empty, distinct texts, objects [N]."""
    items = ids.ids.tolist()
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int) or item == "":
            raise GraphError(f"ids of {node_type!r}: expected integers or non-empty strings, found {shown(item)}")
    texts = NodeIds(objects(map(str, items)))
    again = texts.second_use()
    if again is not None:
        raise GraphError(f"ids of {node_type!r}: expected ids that differ as text, found {shown(items[again])} again")
    return texts.ids


def _file_name(folder: str, *names: str) -> str:
    name = "__".join(names)
    if name.split("__") != list(names) or not all(names) or name.startswith(".") or _FORBIDDEN & set(name) \
            or len(name.encode("utf-8", "replace")) > NAME_LIMIT:
        raise GraphError(f"{folder}: expected names that make a file's name, without '__' or any of "
                         f"{''.join(sorted(_FORBIDDEN))!r}, found {list(names)}")
    return f"{folder}/{name}.csv"


def _csv(what: str, columns: dict[str, np.ndarray], features: Any, names: Sequence[str] | None) -> bytes:
    """The bytes of one file: text columns, then the features."""
    if isinstance(features, SparseFeatures):
        raise GraphError(f"{what}: expected dense features or none, found sparse ones, whose {features.shape[1]} "
                         "columns are nearly all 0; hire_jax.data.write_npz keeps them sparse")
    rows = len(next(iter(columns.values())))
    matrix = np.zeros((rows, 0)) if features is None else np.asarray(features)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.dtype != np.float64:
        matrix = matrix.astype(np.float32)
    header = [*columns, *(names or [f"x{i}" for i in range(matrix.shape[1])])]
    if not all(header) or len(set(header)) < len(header):
        raise GraphError(f"{what}: expected features with distinct names besides {list(columns)}, found {header[:20]}")
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(header)
    texts = zip(*columns.values(), strict=True)
    for start in range(0, rows, CHUNK):
        numbers = matrix[start:start + CHUNK].astype("U32").tolist()  # the fewest digits that give the number back
        writer.writerows((*text, *row) for text, row in zip(islice(texts, CHUNK), numbers, strict=True))
    try:
        return out.getvalue().encode()
    except UnicodeEncodeError as error:
        raise GraphError(f"{what}: expected ids and names that UTF-8 can hold, found {error.object[error.start]!r}"
                         ) from error


def _labels(dataset: Dataset) -> np.ndarray:
    """A cell for each target node, tried on the reader: what it would read otherwise is an error."""
    labels = np.asarray(dataset.labels)
    classes = dataset.meta.get("classes")
    if not isinstance(classes, list) or len(classes) != dataset.num_classes:
        classes = list(map(str, range(dataset.num_classes)))
    if dataset.multilabel:
        names = [[str(classes[i]) for i in np.flatnonzero(row > 0)] for row in labels]
    else:
        names = [[str(classes[label])] if label >= 0 else [] for label in labels]
    cells = objects(map(SEPARATOR.join, names))
    separator = SEPARATOR if dataset.multilabel else None
    back = column_labels(Table("dataset", ("label",), {"label": cells}.__getitem__), "label", separator, len(cells))
    for row, wanted in enumerate(names):
        found = back.values[row]
        read = [name for name, one in zip(back.classes, found == 1 if dataset.multilabel else
                                          np.arange(len(back.classes)) == found, strict=True) if one]
        unlabelled = bool((labels[row] < 0).all()), bool((found < 0).all())
        if set(read) != set(wanted) or unlabelled[0] != unlabelled[1]:
            raise GraphError(f"dataset: expected classes that a CSV cell can tell from each other and from none, "
                             f"found {wanted} of node {row}, read back as {read}")
    return cells


def _split(dataset: Dataset) -> np.ndarray:
    cells = objects([""] * len(dataset.labels))
    for part in PARTS:
        mask = np.asarray(dataset.splits[part])
        if not mask.any():
            raise GraphError(f"dataset: expected nodes in every part of the split, found none in {part!r}")
        cells[mask] = part
    return cells
