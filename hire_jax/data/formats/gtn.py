"""GTN's form of heterogeneous graphs (Yun et al., arXiv 1911.06455): pickles over all nodes, type after type.

| file | holds |
|---|---|
| `edges.pkl` | sparse matrices [N, N] of links, each and then its reverse: a list, or a dict with keys such as `p-a` |
| `node_features.pkl` | a matrix [N, F], dense or sparse |
| `labels.pkl` | [node, class] of training, validation and test nodes: three lists; or one list of all |

A reverse is what scipy's `transpose` gave: a matrix by columns where the link's is by rows. The pickles are read by
`hire_jax.data.unpickle`, without the power to run code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hire_jax.data.dataset import PARTS
from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import (
    Arrays,
    both_directions,
    csr_arrays,
    finite_float32,
    integers_below,
    sparse_entries,
    unique_edges,
)
from hire_jax.data.formats.heco import read_features, read_labels, read_links, read_splits
from hire_jax.data.originals import Originals
from hire_jax.data.unpickle import Pickled, PickledSparse, load_nested

EDGES, FEATURES, LABELS = "edges.pkl", "node_features.pkl", "labels.pkl"


@dataclass(frozen=True)
class GTNForm:
    """What the files of a dataset in GTN's form hold.

    Attributes:
        nodes: {node type: count}, in the order in which the types are numbered; the first has the labels.
        links: {(source type, destination type): number of links}, in the order of edges.pkl, without the reverses.
        width: of the features, equal for all types.
        num_classes: classes are numbered from 0.
        features: {node type: file of HeCo's form}, used where there is no node_features.pkl.
        same_links: {file of HeCo's form: (type, type)} that came with `features`, and must have the links of edges.pkl:
            this shows that both number the nodes alike.
        same_labels: .npy file that came with `features`, whose classes must be those of labels.pkl; or None.
        splits: {name: ending of files such as train_1.npy}, read where the files are there.
    """

    nodes: Mapping[str, int]
    links: Mapping[tuple[str, str], int]
    width: int
    num_classes: int
    features: Mapping[str, str] = field(default_factory=dict)
    same_links: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    same_labels: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)


GTN = {
    "acm_gtn": GTNForm(
        nodes={"paper": 3025, "author": 5912, "subject": 57},
        links={("paper", "author"): 9936, ("paper", "subject"): 3025},
        width=1902,
        num_classes=3,
        features={"paper": "p_feat.npz", "author": "a_feat.npz", "subject": "s_feat.npz"},
        same_links={"pa.txt": ("paper", "author"), "ps.txt": ("paper", "subject")},
        same_labels="labels.npy",
    ),
    "dblp_gtn": GTNForm(
        nodes={"author": 4057, "paper": 14328, "conference": 20},
        links={("paper", "author"): 19645, ("paper", "conference"): 14328},
        width=334,
        num_classes=4,
        splits={"hgcma_1": "1", "hgcma_3": "3", "hgcma_5": "5"},
    ),
    "imdb_gtn": GTNForm(
        nodes={"movie": 4661, "director": 2270, "actor": 5841},
        links={("movie", "director"): 4661, ("movie", "actor"): 13983},
        width=1256,
        num_classes=3,
    ),
}


def parse_gtn(files: Originals, form: GTNForm) -> Arrays:
    """The arrays of the npz form from GTN's files (Yun et al., arXiv 1911.06455).

    GTN's own archive has the three pickles for each dataset; its split is the unnamed one here. Of ACM, public
    repositories hold the links and labels as pickles, and HGCMA's repository features, with the same links as texts:
    these are compared, as they show that both number the nodes alike.

    Of DBLP, MVSE's repository holds the pickles, but its labels.pkl has the size of one list of all authors, not that
    of GTN's three. Whether that list begins with GTN's 800 training and 400 validation authors is not known, so it
    gives no split; the splits are HGCMA's, with 1, 3 and 5 % of the authors for training. That HGCMA numbers authors
    as MVSE does is likely, not proven: its loader states GTN's types, counts and order, and the part of its links
    that was looked at has HGB's papers with authors in another order, as GTN's are.

    Args:
        files: edges.pkl and labels.pkl; node_features.pkl, or the files of HeCo's form that `form` names.
        form: an entry of `GTN`.

    Raises:
        DatasetError: a file is missing or not what it should be, or has other counts than `form` states.
    """
    starts = dict(zip(form.nodes, np.cumsum([0, *form.nodes.values()]).tolist(), strict=False))
    arrays: Arrays = {f"num_nodes/{node_type}": np.array(count, np.int32) for node_type, count in form.nodes.items()}
    arrays |= _features(files, form, starts) | _links(files, form, starts) | _labels(files, form)
    if files.find(FEATURES) is None:
        _check_numbers(files, form, arrays)
    return arrays


def _load(files: Originals, name: str) -> Pickled:
    return load_nested(files.read(name), f"{files.where}: {name}")


def _features(files: Originals, form: GTNForm, starts: Mapping[str, int]) -> Arrays:
    arrays: Arrays = {}
    if files.find(FEATURES) is None and form.features:
        for node_type, name in form.features.items():
            arrays |= read_features(files, name, f"x/{node_type}", form.nodes[node_type])
            stated = arrays.get(f"x/{node_type}/shape")
            if stated is None or stated[1] != form.width:
                found = "a dense one" if stated is None else str(stated[1])
                raise files.error(name, None, f"a sparse matrix of {form.width} columns", found)
        return arrays
    matrix, shape = _load(files, FEATURES), (sum(form.nodes.values()), form.width)
    where = f"{files.where}: {FEATURES}"
    if isinstance(matrix, PickledSparse) and matrix.shape == shape:
        rows, columns, values = sparse_entries(*matrix, where)
    elif isinstance(matrix, np.ndarray) and matrix.shape == shape:
        dense = finite_float32(matrix, where)
        rows, columns = np.nonzero(dense)
        values = dense[rows, columns]
    else:
        raise DatasetError(f"{where}: expected a matrix of shape {list(shape)}, found {_described(matrix)}")
    for node_type, count in form.nodes.items():
        own = (rows >= starts[node_type]) & (rows < starts[node_type] + count) & (values != 0)
        arrays |= csr_arrays(f"x/{node_type}", rows[own] - starts[node_type], columns[own], values[own],
                             shape=(count, form.width))
    return arrays


def _links(files: Originals, form: GTNForm, starts: Mapping[str, int]) -> Arrays:
    matrices = _load(files, EDGES)
    keys = [f"{ends[0][0]}-{ends[1][0]}" for pair in form.links for ends in (pair, pair[::-1])]
    if isinstance(matrices, dict):
        if set(matrices) != set(keys):
            others = [str(key)[:20] for key in matrices][:12]
            raise files.error(EDGES, None, f"a dict with the keys {keys}", str(others))
        matrices = [matrices[key] for key in keys]
    if not isinstance(matrices, list) or len(matrices) != len(keys):
        raise files.error(EDGES, None, f"a list or dict of {len(keys)} sparse matrices", _described(matrices))
    total = sum(form.nodes.values())
    arrays: Arrays = {}
    for place, (pair, expected) in enumerate(form.links.items()):
        edges = []
        for position, ends in ((2 * place, pair), (2 * place + 1, pair[::-1])):
            where = f"{files.where}: {EDGES}: {keys[position]}"
            found = _entries(matrices[position], total, where)
            edges.append(unique_edges(*(
                integers_below(nodes - starts[end], form.nodes[end], f"{where}: {end}s, less {starts[end]}")
                for nodes, end in zip(found, ends, strict=True)
            )))
        forward, backward = edges
        if forward.shape[1] != expected:
            raise files.error(f"{EDGES}: {keys[2 * place]}", None, f"{expected} links", str(forward.shape[1]))
        if not np.array_equal(unique_edges(backward[1], backward[0]), forward):
            expectation = f"the reverse of {keys[2 * place]}"
            raise files.error(f"{EDGES}: {keys[2 * place + 1]}", None, expectation, "other links")
        arrays |= both_directions(*pair, forward[0], forward[1])
    return arrays


def _entries(matrix: Pickled, total: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the entries other than 0 of a matrix over all nodes."""
    if not isinstance(matrix, PickledSparse) or matrix.shape != (total, total):
        raise DatasetError(f"{where}: expected a sparse matrix of shape [{total}, {total}], found {_described(matrix)}")
    rows, columns, values = sparse_entries(*matrix, where)
    return rows[values != 0], columns[values != 0]


def _labels(files: Originals, form: GTNForm) -> Arrays:
    target, count = next(iter(form.nodes.items()))
    content = _load(files, LABELS)
    lists = content if isinstance(content, list) and len(content) == 3 and all(map(_is_table, content)) else [content]
    labels = np.full(count, -1, np.int32)
    splits: Arrays = {}
    for part, pairs in zip(PARTS, lists, strict=False):
        where = f"{files.where}: {LABELS}" + (f": {part}" if len(lists) == 3 else "")
        table = _table(pairs, where)
        nodes = integers_below(table[:, 0], count, f"{where}: {target}s")
        unique, times = np.unique(nodes, return_counts=True)
        again = np.concatenate([unique[times > 1], unique[labels[unique] >= 0]])
        if len(again):
            raise DatasetError(f"{where}: expected each {target} once, found {target} {again[0]} again")
        labels[nodes] = integers_below(table[:, 1], form.num_classes, f"{where}: classes")
        splits[f"split/{part}"] = unique.astype(np.int32)
    if len(lists) == 1:
        splits = {}
    splits |= read_splits(files, {split: ending for split, ending in form.splits.items()
                                  if files.find(f"train_{ending}.npy") is not None}, count)
    for key, nodes in splits.items():
        if (labels[nodes] < 0).any():
            node = nodes[np.argmax(labels[nodes] < 0)]
            raise files.error(LABELS, None, f"a class for each {target} of {key}", f"none for {target} {node}")
    if not splits:
        raise files.error(LABELS, None, "three lists, or files of splits beside it", "one list")
    return {f"y/{target}": labels} | splits


def _is_table(value: Pickled) -> bool:
    """Whether this is a list of pairs rather than one pair."""
    if isinstance(value, list):
        return any(isinstance(item, list) for item in value)
    return isinstance(value, np.ndarray) and value.ndim == 2


def _table(pairs: Pickled, where: str) -> np.ndarray:
    """int64 [n, 2] from an array or a list of pairs."""
    if isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair) for pair in pairs
    ):
        pairs = np.array(pairs, np.int64)
    if not isinstance(pairs, np.ndarray) or pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DatasetError(f"{where}: expected pairs of integers (node, class), found {_described(pairs)}")
    if not len(pairs):
        raise DatasetError(f"{where}: expected at least one node, found none")
    return pairs


def _check_numbers(files: Originals, form: GTNForm, arrays: Arrays) -> None:
    """Compares what came with the features with the pickles, to see that both number the nodes alike."""
    for name, (first, second) in form.same_links.items():
        links = read_links(files, name, (form.nodes[first], form.nodes[second]))
        if not np.array_equal(unique_edges(*links), arrays[f"edge/{first}__to__{second}"]):
            raise files.error(name, None, f"the links between {first}s and {second}s of {EDGES}", "others")
    if form.same_labels is not None:
        target, count = next(iter(form.nodes.items()))
        labels = arrays[f"y/{target}"]
        others = read_labels(files, form.same_labels, count, form.num_classes)
        if len(np.unique(labels[labels >= 0] * form.num_classes + others[labels >= 0])) != form.num_classes:
            raise files.error(form.same_labels, None, f"the classes of {LABELS}, in whatever order", "others")


def _described(value: Pickled) -> str:
    if isinstance(value, np.ndarray | PickledSparse):
        # A matrix may state a number too long to print.
        return f"one of shape {[size if size.bit_length() < 64 else 'beyond 64 bits' for size in value.shape]}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list | dict) else type(value).__name__
