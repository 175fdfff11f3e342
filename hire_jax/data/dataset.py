"""`Dataset`: a graph with the labels and splits of its target node type."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.graph import HeteroGraph

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A node-classification task on one heterogeneous graph.

    Attributes:
        graph: the graph, with the features of its node types.
        target: the node type that carries labels.
        labels: int32 [N] class numbers, -1 where unlabelled; for multi-label tasks int32 [N, C] multi-hot, a
            row of -1 where unlabelled. N is the number of target nodes.
        splits: bool [N] masks under "train", "val" and "test". They are disjoint and cover labelled nodes
            only.
        num_classes: C.
        multilabel: whether a node may have several classes.
        meta: where the data comes from (source, licence, paper, class names) and which split was taken.

    Raises:
        DatasetError: an attribute does not fit the graph or the others.
    """

    graph: HeteroGraph
    target: str
    labels: jax.Array
    splits: dict[str, jax.Array]
    num_classes: int
    multilabel: bool
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        if self.target not in self.graph.node_types:
            raise DatasetError(
                f"target: expected one of {list(self.graph.node_types)}, found {self.target!r}"
            )
        labels = np.asarray(self.labels)
        check_labels(labels, self.graph.num_nodes[self.target], self.num_classes, self.multilabel)
        check_masks({part: np.asarray(mask) for part, mask in self.splits.items()}, labels)

    def with_graph(self, graph: HeteroGraph) -> "Dataset":
        """The same task on another graph of the same target nodes, such as one of metapaths."""
        return replace(self, graph=graph)

    def __repr__(self) -> str:
        sizes = "/".join(str(int(self.splits[part].sum())) for part in PARTS)
        nodes = ", ".join(f"{node_type} {count}" for node_type, count in self.graph.num_nodes.items())
        kind = "multi-label classes" if self.multilabel else "classes"
        return (
            f"Dataset({self.meta.get('name', 'unnamed')}: {nodes}; {len(self.graph.edge_types)} relations, "
            f"{sum(self.graph.num_edges.values())} edges; target {self.target}, {self.num_classes} {kind}, "
            f"{sizes} train/val/test)"
        )


def labelled(labels: np.ndarray) -> np.ndarray:
    """bool [N]: which nodes carry a label, for int [N] or multi-hot int [N, C] labels."""
    return np.asarray(labels >= 0 if labels.ndim == 1 else (labels >= 0).all(axis=1))


def check_labels(labels: np.ndarray, num_nodes: int, num_classes: int, multilabel: bool) -> None:
    """Raises DatasetError unless `labels` has the form that `Dataset.labels` describes."""
    shape = (num_nodes, num_classes) if multilabel else (num_nodes,)
    if labels.dtype.kind not in "iu" or labels.shape != shape:
        form = "multi-hot integers, one column a class," if multilabel else "integers"
        raise DatasetError(f"labels: expected {form} of shape {list(shape)}, found {describe(labels)}")
    highest = 1 if multilabel else num_classes - 1
    wrong = (labels < -1) | (labels > highest)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        raise DatasetError(
            f"labels: expected values from -1 to {highest} ({num_classes} classes), "
            f"found {labels[tuple(index)]} at {index.tolist()}"
        )
    if multilabel:
        mixed = (labels < 0).any(axis=1) & (labels >= 0).any(axis=1)
        if mixed.any():
            row = int(np.argmax(mixed))
            raise DatasetError(
                f"labels: expected rows all -1 or free of -1, found {labels[row].tolist()} in row {row}"
            )


def check_masks(masks: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    """Raises DatasetError unless `masks` has the form that `Dataset.splits` describes."""
    if set(masks) != set(PARTS):
        raise DatasetError(f"splits: expected the parts {list(PARTS)}, found {sorted(masks)}")
    taken = np.zeros(len(labels), dtype=bool)
    for part in PARTS:
        mask = masks[part]
        if mask.dtype != np.bool_ or mask.shape != taken.shape:
            raise DatasetError(
                f"splits: {part}: expected a bool mask of shape {list(taken.shape)}, found {describe(mask)}"
            )
        for wrong, what in (
            (mask & ~labelled(labels), "has no label"),
            (mask & taken, "is also in another part"),
        ):
            if wrong.any():
                raise DatasetError(
                    f"splits: {part}: expected labelled nodes, each in one part, "
                    f"found node {int(np.argmax(wrong))} which {what}"
                )
        taken |= mask


def describe(array: np.ndarray) -> str:
    """dtype and shape, for error messages."""
    return f"{array.dtype} of shape {list(array.shape)}"
