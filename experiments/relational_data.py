"""Data under a condition: other shares of labels, and edges whose ends are mixed."""

import dataclasses

import jax.numpy as jnp
import numpy as np

import hire_jax as hj
from experiments.configs.relational import Condition
from hire_jax.graph import EdgeType

LARGEST_LABELLED = 0.2  # nodes within this share are never tested, so that all shares are tested on the same nodes


def conditioned(dataset: hj.Dataset, condition: Condition, *, seed: int = 0) -> hj.Dataset:
    """The dataset under a condition; the same seed draws the same labels and edges."""
    if condition.features == "target":
        dataset = dataset.with_graph(dataset.graph.keep_features([dataset.target]))
    if condition.noise:
        dataset = dataset.with_graph(rewired(dataset.graph, condition.noise, seed=seed))
    return dataset if condition.labels is None else relabelled(dataset, condition.labels, seed=seed)


def relabelled(dataset: hj.Dataset, share: float, *, seed: int = 0) -> hj.Dataset:
    """The dataset with `share` of its labelled nodes to train on, as large a part of each class.

    Smaller shares lie within larger ones. Of the validation nodes as many stay, class by class where there are enough.
    What is outside the dataset's validation nodes and LARGEST_LABELLED is tested. Raises ValueError for a share above
    that or of less than a node a class, and for labels [N, C].
    """
    if dataset.multilabel:
        raise ValueError("labels: a share of each class needs labels of one class a node, but these are multi-label")
    if not 0 < share <= LARGEST_LABELLED:
        raise ValueError(f"labels: expected a share above 0 and at most {LARGEST_LABELLED}, got {share}")
    labels, known = np.asarray(dataset.labels), np.asarray(dataset.splits["val"])
    rng = np.random.default_rng(seed)
    train, val, untested = np.zeros_like(known), np.zeros_like(known), known.copy()
    for c in range(dataset.num_classes):
        of_class = np.flatnonzero(labels == c)
        order, of_val = (rng.permutation(of_class[part[of_class]]) for part in (~known, known))
        wanted, reserved = (round(part * len(of_class)) for part in (share, LARGEST_LABELLED))
        if not 1 <= wanted or reserved >= len(order):
            raise ValueError(f"labels: class {c} has {len(of_class)} nodes, {len(order)} outside validation: too few "
                             f"for a share of {share} beside a test of what {LARGEST_LABELLED} leaves")
        train[order[:wanted]] = val[of_val[:wanted]] = untested[order[:reserved]] = True
    splits = {"train": train, "val": val, "test": (labels >= 0) & ~untested}
    return dataclasses.replace(dataset, splits={part: jnp.asarray(mask) for part, mask in splits.items()},
                               meta=dataset.meta | {"split": f"{100 * share:g} % labels"})


def rewired(graph: hj.HeteroGraph, share: float, *, seed: int = 0) -> hj.HeteroGraph:
    """The graph in which the destinations of `share` of every relation's edges have changed places among them.

    Every node keeps its number of edges; a relation and its reverse stay each other's reverse. Raises ValueError for
    a share outside [0, 1], for edge features, which would belong to other edges, and for a symmetric relation.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"noise: expected a share from 0 to 1, got {share}")
    if any(relation.edges is not None for relation in graph.relations.values()):
        raise ValueError("noise: edges with features cannot be rewired")
    rng = np.random.default_rng(seed)
    edges: dict[EdgeType, np.ndarray] = {}
    for edge_type, pairs in graph.host_edges().items():
        if edge_type in edges:
            continue
        reverse = graph.reverse_of(edge_type)
        if reverse == edge_type:
            raise ValueError(f"noise: the relation {edge_type} is its own reverse, and would not stay so")
        changed = np.array(pairs)
        moved = np.flatnonzero(rng.random(changed.shape[1]) < share)
        changed[1, moved] = changed[1, rng.permutation(moved)]
        edges[edge_type] = changed
        if reverse is not None:
            edges[reverse] = changed[::-1]
    return hj.HeteroGraph.from_arrays(graph.num_nodes, {name: edges[name] for name in graph.edge_types},
                                      graph.features)
