"""What must hold of whatever is accepted, checked without the code that built it where that is possible."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hire_jax.data import Dataset, DatasetError, read_npz, write_npz
from hire_jax.data.dataset import PARTS, labelled
from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.sparse import SparseFeatures


class InvalidGraph(AssertionError):
    """Malformed input was accepted, and what it gave is no valid graph."""


def require(good: Any, what: str) -> None:
    """Raises InvalidGraph unless `good`."""
    if not good:
        raise InvalidGraph(what)


def check_arrays(arrays: Any, folder: Path) -> None:
    """A parser's result: the arrays are as the npz form has them, can be written and read, and make a graph.

    Raises:
        InvalidGraph: they are not, or cannot.
    """
    require(isinstance(arrays, dict), f"a dict of arrays: {type(arrays).__name__}")
    for key, array in arrays.items():
        require(isinstance(key, str) and isinstance(array, np.ndarray), f"{key!r}: {type(array).__name__}")
        dense = key.startswith("x/") and key.count("/") == 1
        require(array.dtype == (np.float32 if dense or key.endswith("/data") else np.int32), f"{key}: {array.dtype}")
    _check_relations({key[5:]: array for key, array in arrays.items() if key.startswith("edge/")})
    (target,) = {key[2:] for key in arrays if key.startswith("y/")}
    labels = arrays[f"y/{target}"]
    multilabel = labels.ndim == 2
    count = labels.shape[1] if multilabel else int(labels.max(initial=0)) + 1
    meta = {"target": target, "classes": [f"class{i}" for i in range(count)], "multilabel": multilabel}
    path = folder / "accepted.npz"
    try:
        write_npz(path, arrays, meta)
        raw = read_npz(path)
        graph = HeteroGraph.from_arrays(raw.num_nodes, raw.edges, raw.features)
    except (DatasetError, GraphError, ValueError) as error:
        raise InvalidGraph(f"{type(error).__name__}: {error}") from error
    check_graph(graph)


def _check_relations(edges: Mapping[str, np.ndarray]) -> None:
    """Sorted by source, then destination, without duplicates, and each with its exact reverse."""
    pairs = {}
    for name, ends in edges.items():
        require(ends.ndim == 2 and ends.shape[0] == 2 and (ends >= 0).all(), f"{name}: {ends.shape}")
        codes = ends[0].astype(np.int64) << 32 | ends[1]
        require((np.diff(codes) > 0).all(), f"{name}: not sorted, or a duplicate")
        pairs[name] = codes
    for name, ends in edges.items():
        source, _, destination = name.split("__")
        backward = np.sort(ends[1].astype(np.int64) << 32 | ends[0])
        require(any(np.array_equal(codes, backward) for other, codes in pairs.items()
                    if (other.split("__")[0], other.split("__")[2]) == (destination, source)), f"{name}: no reverse")


def check_graph(graph: HeteroGraph) -> None:
    """Ends in range and ordered, features of as many finite rows as there are nodes, blocks with all edges.

    Raises:
        InvalidGraph: one of these does not hold.
    """
    for edge_type in graph.edge_types:
        relation, counts = graph.relations[edge_type], graph.num_nodes
        senders, receivers = np.asarray(relation.senders), np.asarray(relation.receivers)
        require(senders.dtype == receivers.dtype == np.int32 and senders.shape == receivers.shape, f"{edge_type}")
        for ends, name in ((senders, edge_type[0]), (receivers, edge_type[2])):
            require(((ends >= 0) & (ends < counts[name])).all(), f"{edge_type}: an end outside {counts[name]}")
        require((np.diff(receivers.astype(np.int64) * (counts[edge_type[0]] + 1) + senders) >= 0).all(), f"{edge_type}")
        if relation.edges is not None:
            require(len(relation.edges) == len(senders) and np.isfinite(relation.edges).all(), f"{edge_type}: features")
    for name, features in graph.features.items():
        values = np.asarray(features.data if isinstance(features, SparseFeatures) else features)
        require(features.shape[0] == graph.num_nodes[name] and np.isfinite(values).all(), f"features of {name}")
    for pair, block in graph.blocks.items():
        edges = sum(graph.num_edges[edge_type] for edge_type in block.edge_types)
        require(int(block.csr.indptr[-1]) == edges == block.csr.rows.shape[0], f"block {pair}")


def check_dataset(dataset: Dataset) -> None:
    """The graph, the labels of its target and the splits of labelled nodes.

    Raises:
        InvalidGraph: something does not hold.
    """
    check_graph(dataset.graph)
    labels = np.asarray(dataset.labels)
    require(len(labels) == dataset.graph.num_nodes[dataset.target] and labels.dtype == np.int32, "labels")
    require(labels.max(initial=0) < (2 if dataset.multilabel else dataset.num_classes), "classes")
    taken = np.stack([np.asarray(dataset.splits[part]) for part in PARTS])
    require((taken.sum(axis=0) <= labelled(labels)).all() and taken.any(axis=1).all(), "splits")
