"""Data under a condition: other shares of labels, and edges that lead elsewhere."""

import dataclasses

import jax.numpy as jnp
import numpy as np

import hire_jax as hj
from experiments.configs.relational import Condition
from hire_jax.graph import EdgeType

LARGEST_SHARE = 0.2  # of labels: nodes within it are never tested, so that all shares are tested on the same nodes


def conditioned(dataset: hj.Dataset, condition: Condition, *, seed: int = 0) -> hj.Dataset:
    """The dataset under a condition; the same seed draws the same labels and edges."""
    if condition.noise:
        dataset = dataset.with_graph(rewired(dataset.graph, condition.noise, seed=seed))
    return dataset if condition.labels is None else relabelled(dataset, condition.labels, seed=seed)


def relabelled(dataset: hj.Dataset, share: float, *, seed: int = 0) -> hj.Dataset:
    """The dataset with `share` of its labelled nodes to train on, as many of each class as of all.

    Smaller shares lie within larger ones. Validation nodes stay; what is outside validation and the largest share is
    tested. Raises ValueError for a share above LARGEST_SHARE or of less than a node a class, and for labels [N, C].
    """
    if dataset.multilabel:
        raise ValueError("labels: a share of each class needs one class a node")
    if not 0 < share <= LARGEST_SHARE:
        raise ValueError(f"labels: expected a share above 0 and at most {LARGEST_SHARE}, got {share}")
    labels, val = np.asarray(dataset.labels), np.asarray(dataset.splits["val"])
    rng = np.random.default_rng(seed)
    train, untested = np.zeros(len(labels), bool), val.copy()
    for c in range(dataset.num_classes):
        of_class = np.flatnonzero(labels == c)
        order = rng.permutation(of_class[~val[of_class]])
        wanted, reserved = (round(part * len(of_class)) for part in (share, LARGEST_SHARE))
        if not 1 <= wanted or reserved >= len(order):
            raise ValueError(f"labels: class {c} has {len(of_class)} nodes, {len(order)} outside validation: too few "
                             f"for a share of {share} beside a test of what {LARGEST_SHARE} leaves")
        train[order[:wanted]] = True
        untested[order[:reserved]] = True
    splits = {"train": train, "val": val, "test": (labels >= 0) & ~untested}
    return dataclasses.replace(dataset, splits={part: jnp.asarray(mask) for part, mask in splits.items()},
                               meta=dataset.meta | {"split": f"{100 * share:g} % labels"})


def rewired(graph: hj.HeteroGraph, share: float, *, seed: int = 0) -> hj.HeteroGraph:
    """The graph in which `share` of every relation's edges lead to a node of the same type drawn at random.

    A relation and its reverse stay each other's reverse; the degrees of sources stay. Raises ValueError for a share
    outside [0, 1], and for edge features, which would belong to other edges.
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
        changed = np.array(pairs)
        moved = np.flatnonzero(rng.random(changed.shape[1]) < share)
        changed[1, moved] = rng.integers(graph.num_nodes[edge_type[2]], size=len(moved))
        edges[edge_type] = changed
        if (reverse := reverse_of(graph, edge_type)) is not None and reverse != edge_type:
            edges[reverse] = changed[::-1]
    return hj.HeteroGraph.from_arrays(graph.num_nodes, {name: edges[name] for name in graph.edge_types},
                                      graph.features)


def reverse_of(graph: hj.HeteroGraph, edge_type: EdgeType) -> EdgeType | None:
    """The relation that has the same edges the other way, if there is one."""
    source, _, destination = edge_type
    edges = graph.host_edges()
    wanted = _sorted(edges[edge_type][::-1])
    for other in graph.edge_types:
        if (other[0], other[2]) == (destination, source) and np.array_equal(_sorted(edges[other]), wanted):
            return other
    return None


def _sorted(pairs: np.ndarray) -> np.ndarray:
    return pairs[:, np.lexsort(pairs)]
