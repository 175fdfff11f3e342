"""The form of the protein graphs (Hamilton et al., GraphSAGE, arXiv 1706.02216): JSON and numpy files for each part."""

import json
from typing import Any

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.formats.arrays import Arrays, finite_float32, integers_below, read_npy, undirected
from hire_jax.data.originals import Originals

PARTS = {"train": "train", "val": "valid", "test": "test"}  # part of a split -> prefix of its files
JSON_LIMIT = 128 << 20  # PPI's training graphs take 25 MB with each link once; parsed, JSON takes up to 20 times that
SPLIT = "tissues"


def parse_ppi(files: Originals) -> Arrays:
    """The arrays of the npz form (type `node`, relation `node__to__node`, multi-label) from the protein graphs.

    The form is that of the archive which DGL made of GraphSAGE's and PyTorch Geometric reads too, with four files for
    each of `train`, `valid` and `test`. GraphSAGE's own archive (one ppi-G.json) has another form, without the graphs'
    numbers.

    | file | content |
    |---|---|
    | `train_graph.json` | networkx's node-link form: `nodes` with `id` 0 .. N-1, `links` with `source` and `target` |
    | `train_feats.npy` | real numbers [N, F]; 50 columns in PPI |
    | `train_labels.npy` | 0 or 1 [N, C]; 121 columns in PPI |
    | `train_graph_id.npy` | [N]: which graph a node is in; 1 to 24 in PPI, 20 of them in training |

    `source` and `target` are ids, as networkx has read them since 2.0. All graphs become one, the training ones
    first, in the order of their files; none has a link to another, so that training never sees the others. Links are
    taken in both directions, without self loops and duplicates. The split is `tissues`. The npz form has no place for
    the graphs' numbers.

    Args:
        files: the twelve files.

    Raises:
        DatasetError: a file is missing or not what it should be, a link leads from one graph to another, or a graph
            is in two parts.
    """
    features, labels, links = [], [], []
    splits: Arrays = {}
    seen: dict[int, str] = {}  # graph's number -> prefix
    start = 0
    for part, prefix in PARTS.items():
        x, y, graph_of = _nodes(files, prefix)
        features.append(x)
        labels.append(y)
        widths, first = [x.shape[1], y.shape[1]], [features[0].shape[1], labels[0].shape[1]]
        if widths != first:
            raise files.error(f"{prefix}_*.npy", None, f"{first[0]} features and {first[1]} labels, as for training",
                              f"{widths[0]} and {widths[1]}")
        for graph in np.unique(graph_of).tolist():
            if graph in seen:
                raise files.error(f"{prefix}_graph_id.npy", None, f"no graph that is in {seen[graph]} too", str(graph))
            seen[graph] = prefix
        links.append(_links(files, f"{prefix}_graph.json", graph_of) + start)
        splits[f"split/{SPLIT}/{part}"] = np.arange(start, start + len(y), dtype=np.int32)
        start += len(y)
    sources, destinations = np.concatenate(links, axis=1)
    return {
        "num_nodes/node": np.array(start, dtype=np.int32),
        "x/node": np.concatenate(features),
        "edge/node__to__node": undirected(sources, destinations),
        "y/node": np.concatenate(labels),
        **splits,
    }


def _nodes(files: Originals, prefix: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and graph numbers of one part's nodes."""
    names = [f"{prefix}_{what}.npy" for what in ("feats", "labels", "graph_id")]
    features, labels, graph_of = (read_npy(files, name) for name in names)
    for name, array in zip(names[:2], (features, labels), strict=True):
        if array.ndim != 2 or not array.size:
            raise files.error(name, None, "a row of numbers for every node", describe(array))
    if len(labels) != len(features):
        raise files.error(names[1], None, f"labels of {len(features)} nodes, as there are features", str(len(labels)))
    if labels.dtype.kind not in "biuf" or not ((labels == 0) | (labels == 1)).all():
        raise files.error(names[1], None, "numbers 0 and 1", "others")
    if graph_of.shape != (len(features),):
        raise files.error(names[2], None, f"the graph of each of {len(features)} nodes", describe(graph_of))
    return (
        finite_float32(features, f"{files.where}: {names[0]}"),
        labels.astype(np.int32),
        integers_below(graph_of, 1 << 31, f"{files.where}: {names[2]}"),
    )


def _links(files: Originals, name: str, graph_of: np.ndarray) -> np.ndarray:
    """int64 [2, E]: the links of one part, each within one graph."""
    count = len(graph_of)
    data = files.read(name, limit=JSON_LIMIT)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise files.error(name, None, "JSON", f"{type(error).__name__}: {error}") from error
    ids = _column(files, name, content, "nodes", "id", count)
    if len(ids) != count or len(np.unique(ids)) != count:
        raise files.error(name, None, f"nodes with the ids 0 to {count - 1}, each once",
                          f"{len(ids)} nodes with {len(np.unique(ids))} ids")
    ends = np.stack([_column(files, name, content, "links", key, count) for key in ("source", "target")])
    crossing = graph_of[ends[0]] != graph_of[ends[1]]
    if crossing.any():
        source, target = ends[:, np.argmax(crossing)].tolist()
        raise files.error(name, None, "links within one graph", f"one from node {source} in graph {graph_of[source]} "
                          f"to node {target} in graph {graph_of[target]}")
    return ends


def _column(files: Originals, name: str, content: Any, key: str, entry: str, count: int) -> np.ndarray:
    """int64: the number under `entry` in every object of the list `key`, all from 0 to `count` - 1."""
    objects = content.get(key) if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise files.error(name, None, f"an object with a list of {key!r}", "something else")
    values = [one.get(entry) if isinstance(one, dict) else None for one in objects]
    for position, value in enumerate(values):
        if type(value) is not int or not 0 <= value < count:
            # Anything may stand here: a number too long to print, lists too deep to.
            shown = str(value) if type(value) is int and value.bit_length() < 64 else type(value).__name__
            expected = f"{entry!r} of {key}[{position}] to be an integer from 0 to {count - 1}"
            raise files.error(name, None, expected, shown)
    return np.array(values, dtype=np.int64)
