"""The npz form of a dataset: one file of plain arrays, read without pickle.

| key | array |
|---|---|
| `num_nodes/<type>` | integer scalar |
| `x/<type>` | dense features, [N, F]; absent for a type without features |
| `x/<type>/indptr`, `/indices`, `/data`, `/shape` | the same as CSR |
| `edge/<source>__<relation>__<destination>` | integers [2, E]: sources, destinations |
| `y/<target>` | integers [N], -1 unlabelled; multi-label: multi-hot [N, C], rows of -1 unlabelled |
| `split/train`, `split/val`, `split/test` | node indices of an unnamed split; `val` may be absent |
| `split/<name>/train`, ... | node indices of a named split |
| `meta` | JSON object as UTF-8 bytes (uint8) |

`meta` needs "target" and "classes" (names, in the order of their numbers). It may have "multilabel" (false by
default), "default_split" (null), "name" (the file's) and "format" (1). "source", "licence", "paper" and any
other entry are kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hire_jax.data.dataset import PARTS, check_labels, describe, labelled
from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import MAX_WIDTH
from hire_jax.data.npz_file import NpzFile
from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.sparse import SparseFeatures

FORMAT = 1
FREE_NODES = 1 << 24  # of a type that nothing but its count shows; graphs allocate some bytes for each
CSR_PARTS = ("indptr", "indices", "data", "shape")
KEY_FORMS = (
    "num_nodes/TYPE, x/TYPE (or x/TYPE/indptr, indices, data, shape), edge/SOURCE__RELATION__DESTINATION, "
    "y/TARGET, split/[NAME/]train, val, test, meta"
)


class RawDataset(NamedTuple):
    """The checked content of one npz file, on the host."""

    num_nodes: dict[str, int]
    edges: dict[EdgeType, np.ndarray]
    features: dict[str, np.ndarray | SparseFeatures]
    labels: np.ndarray
    splits: dict[
        str, dict[str, np.ndarray]
    ]  # name -> part -> bool [N]; "" is the unnamed split, "val" may be absent
    target: str
    classes: list[str]
    multilabel: bool
    meta: dict[str, Any]

    def graph(self, path: Path) -> HeteroGraph:
        """The graph of these arrays, its edges checked and sorted by receiver.

        Args:
            path: the file they came from, for messages.

        Raises:
            DatasetError: an edge names a node that is not there; the message names the file and the relation.
        """
        try:
            return HeteroGraph.from_arrays(num_nodes=self.num_nodes, edges=self.edges, features=self.features)
        except GraphError as error:
            raise DatasetError(f"{path}: {error}") from error


def read_npz(path: Path, name: str | None = None) -> RawDataset:
    """Reads and checks one file in the npz form (see the module's docstring).

    Edge indices are checked for type and rank here, for range by `HeteroGraph.from_arrays`.

    Args:
        path: the file.
        name: the dataset's name, which the file must bear if it states one; default the file's own.

    Raises:
        DatasetError: the file is damaged or an array is missing, of the wrong form or out of range. The
            message names the file and the key, what was expected and what was found.
    """
    file = NpzFile(path)
    meta = _meta(file, name or path.stem)
    num_nodes = {key.split("/", 1)[1]: _count(file, key) for key in file.under("num_nodes/")}
    target, classes, multilabel = meta["target"], meta["classes"], meta["multilabel"]
    if target not in num_nodes:
        raise file.error("meta", f"target to be one of the node types {sorted(num_nodes)}", repr(target))
    features: dict[str, np.ndarray | SparseFeatures] = {}
    for node_type, count in num_nodes.items():
        found = _features(file, node_type, count)
        if found is not None:
            features[node_type] = found
    edges = {_edge_type(file, key, num_nodes): _edges(file, key) for key in file.under("edge/")}
    key = f"y/{target}"
    labels = file.integers(key, "integers [N], or [N, C] for multi-label")
    try:
        check_labels(labels, num_nodes[target], len(classes), multilabel)
    except DatasetError as error:
        raise DatasetError(f"{path}: {key}: {error}") from error
    splits = _splits(file, labels)
    file.refuse_unknown(KEY_FORMS)
    _check_counts(file, num_nodes, features, edges, target)
    return RawDataset(
        num_nodes, edges, features, labels.astype(np.int32), splits, target, classes, multilabel, meta
    )


def _meta(file: NpzFile, name: str) -> dict[str, Any]:
    expected = "a JSON object as UTF-8 bytes in a uint8 vector"
    raw = file.get("meta", expected)
    if raw.dtype != np.uint8 or raw.ndim != 1:
        raise file.error("meta", expected, describe(raw))
    try:
        meta = json.loads(raw.tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise file.error("meta", expected, f"{type(error).__name__}: {error}") from error
    if not isinstance(meta, dict):
        raise file.error("meta", expected, f"a JSON {type(meta).__name__}")
    meta = {"name": name, "multilabel": False, "default_split": None, "format": FORMAT} | meta
    classes = meta.get("classes")
    checks = {
        "target": (isinstance(meta.get("target"), str), "the node type that has labels"),
        "classes": (
            isinstance(classes, list)
            and bool(classes)
            and all(isinstance(label, str) for label in classes)
            and len(set(classes)) == len(classes),
            "a list of distinct class names, in the order of their numbers",
        ),
        "multilabel": (isinstance(meta["multilabel"], bool), "true or false"),
        "default_split": (isinstance(meta["default_split"], str | None), "a split's name or null"),
        "format": (meta["format"] == FORMAT, f"{FORMAT}, the version of the form that is read here"),
        "name": (meta["name"] == name, f"{name!r} like the file's name"),
    }
    for key, (good, wanted) in checks.items():
        if not good:
            found = repr(meta[key]) if key in meta else "no such entry"
            raise file.error("meta", f"{key} to be {wanted}", found if len(found) <= 200 else f"{found[:200]}...")
    return meta


def _count(file: NpzFile, key: str) -> int:
    node_type = key.split("/", 1)[1]
    if not node_type or "/" in node_type or "__" in node_type:
        raise file.error(key, "a node type without '/' or '__'", repr(node_type))
    array = file.integers(key, "an integer scalar", ndim=0)
    if int(array) < 0:
        raise file.error(key, "a count of nodes", str(int(array)))
    return int(array)


def _features(file: NpzFile, node_type: str, count: int) -> np.ndarray | SparseFeatures | None:
    key = f"x/{node_type}"
    parts = [f"{key}/{part}" for part in CSR_PARTS]
    sparse = any(part in file.arrays for part in parts)
    if key in file.arrays:
        if sparse:
            raise file.error(key, "either dense or CSR features", "both")
        dense = file.get(key, "")
        if dense.ndim != 2 or len(dense) != count:
            raise file.error(key, f"numbers of shape [{count}, width]", describe(dense))
        if dense.shape[1] > MAX_WIDTH:
            raise file.error(key, f"at most {MAX_WIDTH} columns", str(dense.shape[1]))
        return _values(file, key, dense)
    if not sparse:
        return None
    indptr, indices = (file.integers(part, "an integer vector", ndim=1) for part in parts[:2])
    data = _values(file, parts[2], file.get(parts[2], "a vector of real numbers"))
    shape = file.integers(parts[3], "the two integers [rows, width]", ndim=1)
    if len(shape) != 2 or int(shape[0]) != count or not 0 <= int(shape[1]) <= MAX_WIDTH:
        found = str(shape.tolist()) if len(shape) < 10 else f"{len(shape)} numbers"
        raise file.error(parts[3], f"[{count}, width], the width at most {MAX_WIDTH}", found)
    try:
        return SparseFeatures.from_csr(indptr, indices, data, (count, int(shape[1])))
    except ValueError as error:
        raise DatasetError(f"{file.path}: {key}: {error}") from error


def _values(file: NpzFile, key: str, array: np.ndarray) -> np.ndarray:
    """Any real numbers, as finite float32."""
    if array.dtype.kind not in "fiub":
        raise file.error(key, "real numbers", describe(array))
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is reported below
        values = array.astype(np.float32)
    wrong = ~np.isfinite(values)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        raise file.error(key, "numbers finite in float32", f"{array[tuple(index)]} at {index.tolist()}")
    return values


def _edge_type(file: NpzFile, key: str, num_nodes: Mapping[str, int]) -> EdgeType:
    names = key.removeprefix("edge/").split("__")
    if len(names) != 3 or not all(names):
        raise file.error(
            key, "the form edge/SOURCE__RELATION__DESTINATION", f"{len(names)} part(s) between '__'"
        )
    source, relation, destination = names
    for node_type in (source, destination):
        if node_type not in num_nodes:
            raise file.error(key, f"ends among the node types {sorted(num_nodes)}", repr(node_type))
    return source, relation, destination


def _edges(file: NpzFile, key: str) -> np.ndarray:
    edges = file.integers(key, "integers of shape [2, E]", ndim=2)
    if edges.shape[0] != 2:
        raise file.error(key, "integers of shape [2, E]", describe(edges))
    return edges


def _check_counts(
    file: NpzFile,
    num_nodes: Mapping[str, int],
    features: Mapping[str, np.ndarray | SparseFeatures],
    edges: Mapping[EdgeType, np.ndarray],
    target: str,
) -> None:
    """A short file may state a vast number of nodes: those of a type without features and labels, its edges show."""
    for node_type, count in num_nodes.items():
        stored = features.get(node_type)
        if count <= FREE_NODES or node_type == target or (stored is not None and stored.shape[1]):
            continue
        ends = [
            row
            for (source, _, destination), array in edges.items()
            for end, row in zip((source, destination), array, strict=True)
            if end == node_type and row.size
        ]
        named = 1 + max((int(row.max()) for row in ends), default=-1)
        if count > 2 * named:
            expected = f"at most {max(FREE_NODES, 2 * named)} nodes without features, of which edges name {named}"
            raise file.error(f"num_nodes/{node_type}", expected, str(count))


def _splits(file: NpzFile, labels: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    splits: dict[str, dict[str, np.ndarray]] = {}
    has_label = labelled(labels)
    for key in file.under("split/"):
        name, _, part = key.removeprefix("split/").rpartition("/")
        if part not in PARTS:
            raise file.error(key, f"a last part among {list(PARTS)}", repr(part))
        indices = file.integers(key, "an integer vector of node indices", ndim=1)
        if not len(indices):
            raise file.error(key, "at least one node", "none")
        wrong = (indices < 0) | (indices >= len(labels))
        if wrong.any():
            position = int(np.argmax(wrong))
            raise file.error(
                key,
                f"node indices from 0 to {len(labels) - 1}",
                f"{indices[position]} at position {position}",
            )
        nodes, counts = np.unique(indices, return_counts=True)
        if (counts > 1).any():
            raise file.error(key, "each node once", f"node {nodes[np.argmax(counts)]} {counts.max()} times")
        if not has_label[nodes].all():
            raise file.error(
                key, "labelled nodes", f"node {nodes[np.argmin(has_label[nodes])]}, whose label is -1"
            )
        mask = np.zeros(len(labels), dtype=bool)
        mask[nodes] = True
        for other, taken in splits.get(name, {}).items():
            if (taken & mask).any():
                raise file.error(
                    key, f"no node that is also in {other}", f"node {int(np.argmax(taken & mask))} in both"
                )
        splits.setdefault(name, {})[part] = mask
    for name, parts in splits.items():
        for part in ("train", "test"):
            if part not in parts:
                key = f"split/{name}/{part}" if name else f"split/{part}"
                raise file.error(
                    key, "an integer vector of node indices", f"no such key beside {sorted(parts)}"
                )
    return splits
