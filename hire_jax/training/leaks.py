"""`check_leaks`: whether labels can be read off a graph's inputs, or parts of a split share nodes."""

import itertools
from collections.abc import Iterator

import numpy as np

from hire_jax.data.dataset import labelled
from hire_jax.graph import Features, HeteroGraph
from hire_jax.sparse import SparseFeatures
from hire_jax.training.checks import LabelledGraph
from hire_jax.training.readout import Classed, Entries, Matrix, telling_columns

SHOWN = 8  # columns, in a message


class LeakError(ValueError):
    """Labels are among the inputs of a model, or a node is in two parts of a split; the message says where."""


def check_leaks(dataset: LabelledGraph) -> None:
    """Raises LeakError where a model could read labels instead of predicting them; `fit` does this before it trains.

    Refused are

      - nodes in two parts of the split;
      - columns of features or positional encodings that follow the labels of a whole part ("test", "val", or "train",
        where a model would see its own answer) without an exception: copies of one-hot or multi-hot labels in any
        order, scaled, shifted or with their rows normalised, and of class numbers;
      - nodes of another type that are linked with all nodes of some classes in a part and no others of it, such as
        the genre of films in a graph whose labels are genres.

    Rows of features are those of the labelled nodes for every type with as many nodes, so that a graph of metapaths
    (`hire_jax.metapaths`) is checked in all its types. What may be chance is let pass (`readout.telling_columns`):
    parts of few nodes, and columns that are nearly as good a sign of the class elsewhere. Not found are labels with
    noise added, in edge features, or two links away, and those of other nodes that were averaged along metapaths:
    `propagated_graph` is to be given training labels only.

    Args:
      dataset: labels int[N], or multi-hot int[N, C]; -1 where there is none.

    Raises:
      LeakError: names the type, the columns or the relation, and the parts.
    """
    labels = np.asarray(dataset.labels)
    masks = {part: np.asarray(mask) for part, mask in dataset.splits.items()}
    _check_disjoint(masks)
    parts = {part: np.flatnonzero(mask & labelled(labels)) for part, mask in masks.items()}
    elsewhere = {part: np.flatnonzero(~mask & labelled(labels)) for part, mask in masks.items()}
    inputs = list(_inputs(dataset.graph, len(labels)))
    for number, answers in enumerate([labels] if labels.ndim == 1 else np.ascontiguousarray(labels.T)):
        classed = {part: Classed.of(nodes, answers[nodes]) for part, nodes in parts.items()}
        for what, matrix in inputs:
            found = {part: telling_columns(matrix, classed[part], elsewhere[part], answers) for part in parts}
            columns = sorted(set().union(*(columns.tolist() for columns in found.values())))
            if columns:
                more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
                where = ", ".join(f"{part!r} ({parts[part].size} nodes)" for part in parts if found[part].size)
                raise LeakError(f"{what} {', '.join(map(str, columns[:SHOWN]))}{more}: they follow "
                                f"{'the class' if labels.ndim == 1 else f'label {number}'} without an exception in "
                                f"{where}, so that a model can read what it should predict; leave them out of the "
                                "graph, or pass check_leaks=False to fit if this is meant")


def _check_disjoint(masks: dict[str, np.ndarray]) -> None:
    for part, other in itertools.combinations(masks, 2):
        shared = np.flatnonzero(masks[part] & masks[other])
        if shared.size:
            raise LeakError(f"splits {part!r} and {other!r} share {shared.size} nodes, the first of them {shared[0]}; "
                            "draw disjoint parts, or pass check_leaks=False to fit if this is meant")


def _inputs(graph: HeteroGraph, count: int) -> Iterator[tuple[str, Matrix]]:
    """(what its columns are, a matrix with a row for each labelled node) for all that a model reads of those nodes."""
    types = [name for name, nodes in graph.num_nodes.items() if nodes == count]
    for name in types:
        if (features := graph.features.get(name)) is not None:
            yield f"features of {name!r}, columns", _matrix(features)
        if (positions := graph.positions.get(name)) is not None:
            yield f"positions of {name!r}, columns", np.asarray(positions)
    for (source, relation, destination), links in graph.relations.items():
        # Links among the labelled nodes say which of them are alike, which is what a graph is for.
        if destination in types and source not in types:
            receivers, senders = np.asarray(links.receivers), np.asarray(links.senders)
            once = np.broadcast_to(1.0, senders.size)
            yield (f"links of relation {(source, relation, destination)}, from nodes",
                   Entries(receivers, senders, once, graph.num_nodes[source]))


def _matrix(features: Features) -> Matrix:
    if isinstance(features, SparseFeatures):
        pattern = features.csr
        return Entries(np.asarray(pattern.rows), np.asarray(pattern.cols), np.asarray(features.data), pattern.shape[1])
    return np.asarray(features)
