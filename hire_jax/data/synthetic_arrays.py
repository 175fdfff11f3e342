"""The arrays of a heterogeneous graph with planted communities, on the host.

Every node of every type belongs to one of C communities. Edges and feature words prefer the community of the
node they start from; `noise` and `feature_noise` say how often they do not. The target type's label is its
community, so that both features and neighbours tell about it. A stochastic block model with typed nodes
(Holland et al., Social Networks 5, 1983; in the degree-corrected form of Karrer and Newman, arXiv 1008.3926,
where a power law is asked for).
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hire_jax.data.dataset import labelled
from hire_jax.data.planted import Pool, draw_edges, draw_features, planted_communities, stream_of, stream_seed
from hire_jax.data.splits import random_order
from hire_jax.graph import EdgeType
from hire_jax.sparse import SparseFeatures

DEFAULT_NODES = {"item": 300, "user": 200, "tag": 40}
DEFAULT_RELATIONS = (("user", "buys", "item"), ("item", "has", "tag"), ("item", "similar", "item"))
DEFAULT_FEATURELESS = ("tag",)


@dataclasses.dataclass(frozen=True)
class GraphArrays:
    """A typed graph with labels and splits, as numpy's arrays; only `SparseFeatures` are on a device.

    Attributes:
        num_nodes: {node type: count}.
        edges: {edge type: int32 [2, E]}, senders above receivers; a reverse relation is a view of the other's.
        features: {node type: float32 [N, F] or SparseFeatures}; types may be missing.
        target: the type with labels.
        labels: int32 [N], or [N, C] with multilabel; -1 is unlabelled.
        splits: {"train" | "val" | "test": bool [N]}.
        num_classes: C.
        multilabel: whether a node has several labels.
        arguments: what the graph was made with, as plain values.

    `HeteroGraph.from_arrays(a.num_nodes, a.edges, a.features)` is the graph on the device,
    `hire_jax.sampling.HostGraph.from_arrays` of the same arguments one that batches are sampled from.
    """

    num_nodes: dict[str, int]
    edges: dict[EdgeType, np.ndarray]
    features: dict[str, np.ndarray | SparseFeatures]
    target: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    num_classes: int
    multilabel: bool
    arguments: dict[str, Any]


def synthetic_arrays(
    num_nodes: Mapping[str, int] | None = None,
    relations: Sequence[EdgeType] | None = None,
    *,
    target: str | None = None,
    num_classes: int = 3,
    mean_degree: float | Mapping[EdgeType, float] = 4.0,
    noise: float = 0.2,
    power_law: float | None = None,
    reverse: bool = True,
    feature_width: int | Mapping[str, int] = 64,
    feature_density: float = 0.1,
    feature_noise: float = 0.5,
    featureless: Collection[str] | None = None,
    multilabel: bool = False,
    label_rate: float = 1.0,
    train_rate: float = 0.2,
    val_rate: float = 0.2,
    seed: int = 0,
) -> GraphArrays:
    """A heterogeneous graph with planted communities. One seed, one graph, whatever the device.

    Every part (a type's communities, a relation's edges, a type's features, the split) draws from a stream of
    its own, named after it: adding a relation leaves the rest of the graph as it was. Time and memory grow
    linearly with nodes and edges, but for sorting.

    Args:
        num_nodes: {node type: count}. Default: 300 items, 200 users, 40 tags.
        relations: (source, relation, destination). Default: the three of the default graph, or for other node
            types a star, (type, "to", target) for every type that is not the target.
        target: the type with labels; default the first of `num_nodes`.
        num_classes: communities C, dealt out evenly within each type.
        mean_degree: edges per source node, one number or one a relation; a relation gets round(mean_degree *
            sources) distinct edges, or fewer where a heavy tail or small communities repeat the same pairs
            too often.
        noise: share of edges whose destination is drawn from all communities; the others stay in the
            source's. The expected share of edges within a community is 1 - noise * (1 - 1/C).
        power_law: exponent (> 2) of the expected degrees' distribution; None draws nodes uniformly.
        reverse: adds (destination, "rev_" + relation, source) for every relation.
        feature_width: columns F of a type's features, one number or one a type; of words at least C.
        feature_density: share of non-zero features, at most 1; 1 gives dense Gaussian features instead of
            words.
        feature_noise: share of words drawn from the whole vocabulary; the others come from the community's
            own C-th of it. In dense features, the community's mean vector is weighted by 1 - feature_noise,
            beside unit noise.
        featureless: types without features. Default: "tag" in the default graph, otherwise none.
        multilabel: label community c with the classes c and c + 1 modulo C, as multi-hot rows.
        label_rate: share of target nodes with a label.
        train_rate: share of labelled nodes for training.
        val_rate: share of labelled nodes for validation; the rest is for testing.
        seed: non-negative.

    Returns:
        `GraphArrays` whose features are float32, `SparseFeatures` unless feature_density is 1.

    Raises:
        ValueError: an argument is out of range or names an unknown type; the message says which.
    """
    if num_nodes is None:
        num_nodes = DEFAULT_NODES
        relations = DEFAULT_RELATIONS if relations is None else relations
        featureless = DEFAULT_FEATURELESS if featureless is None else featureless
    target = next(iter(num_nodes), "") if target is None else target
    if relations is None:
        relations = [(node_type, "to", target) for node_type in num_nodes if node_type != target]
    featureless = () if featureless is None else featureless
    widths = {
        node_type: feature_width.get(node_type, 0) if isinstance(feature_width, Mapping) else feature_width
        for node_type in num_nodes
        if node_type not in featureless
    }
    degrees = {
        relation: mean_degree.get(relation, 0.0) if isinstance(mean_degree, Mapping) else mean_degree
        for relation in relations
    }
    if len(degrees) != len(relations) or (
        reverse and set(degrees) & {_reversed(relation) for relation in relations}
    ):
        raise ValueError(
            f"relations: expected each once, and none equal to another's reverse, found {list(relations)}"
        )
    if isinstance(mean_degree, Mapping) and set(mean_degree) != set(degrees):
        odd = sorted(set(mean_degree) ^ set(degrees))[0]
        raise ValueError(
            f"mean_degree: expected exactly the relations {list(degrees)}, found {odd} in one only"
        )
    _check_types(
        num_nodes,
        target=[target],
        relations=[end for source, _, destination in degrees for end in (source, destination)],
        featureless=featureless,
        feature_width=feature_width if isinstance(feature_width, Mapping) else (),
    )
    _check_rates(
        noise=noise,
        feature_noise=feature_noise,
        label_rate=label_rate,
        train_rate=train_rate,
        val_rate=val_rate,
        train_rate_plus_val_rate=train_rate + val_rate,
    )
    if not 0 < feature_density <= 1:
        raise ValueError(f"feature_density: expected a number above 0, at most 1, found {feature_density}")
    _check_counts(num_nodes, degrees, widths, num_classes, 1 if feature_density == 1 else num_classes)
    if power_law is not None and not power_law > 2:
        raise ValueError(f"power_law: expected an exponent above 2, found {power_law}")
    if seed < 0:
        raise ValueError(f"seed: expected a non-negative integer, found {seed}")

    groups = {
        node_type: planted_communities(node_type, count, num_classes, seed)
        for node_type, count in num_nodes.items()
    }
    pools = {
        node_type: Pool(group, num_classes, power_law, stream_of(seed, "degree", node_type))
        for node_type, group in groups.items()
    }
    edges: dict[EdgeType, np.ndarray] = {}
    for edge_type, degree in degrees.items():
        source, _, destination = edge_type
        found = draw_edges(
            pools[source],
            pools[destination],
            round(degree * num_nodes[source]),
            noise,
            source == destination,
            stream_of(seed, "edge", *edge_type),
        )
        edges[edge_type] = found
        if reverse:
            edges[_reversed(edge_type)] = found[::-1]
    features = {
        node_type: draw_features(
            groups[node_type],
            width,
            num_classes,
            feature_density,
            feature_noise,
            stream_of(seed, "feature", node_type),
        )
        for node_type, width in widths.items()
    }
    labels = _labels(groups[target], num_classes, multilabel)
    order = random_order(len(labels), stream_seed(seed, "split", target))
    labels[order[round(label_rate * len(order)) :]] = -1
    masks = _masks(order[labelled(labels)[order]], len(labels), train_rate, val_rate)
    return GraphArrays(
        num_nodes=dict(num_nodes),
        edges=edges,
        features=features,
        target=target,
        labels=labels,
        splits=masks,
        num_classes=num_classes,
        multilabel=multilabel,
        arguments={
            "mean_degree": {"__".join(relation): degree for relation, degree in degrees.items()},
            "noise": noise,
            "power_law": power_law,
            "feature_density": feature_density,
            "feature_noise": feature_noise,
            "label_rate": label_rate,
            "train_rate": train_rate,
            "val_rate": val_rate,
            "seed": seed,
        },
    )


def _reversed(edge_type: EdgeType) -> EdgeType:
    return edge_type[2], f"rev_{edge_type[1]}", edge_type[0]


def _labels(groups: np.ndarray, num_classes: int, multilabel: bool) -> np.ndarray:
    if not multilabel:
        return groups.astype(np.int32)
    labels = np.zeros((len(groups), num_classes), dtype=np.int32)
    rows = np.arange(len(groups))
    labels[rows, groups] = 1
    labels[rows, (groups + 1) % num_classes] = 1
    return labels


def _masks(order: np.ndarray, count: int, train_rate: float, val_rate: float) -> dict[str, np.ndarray]:
    """Masks over all nodes from the labelled ones in random order."""
    ends = [0, round(train_rate * len(order)), round((train_rate + val_rate) * len(order)), len(order)]
    masks = {}
    for part, start, end in zip(("train", "val", "test"), ends[:-1], ends[1:], strict=True):
        masks[part] = np.zeros(count, dtype=bool)
        masks[part][order[start:end]] = True
    return masks


def _check_types(num_nodes: Mapping[str, int], **named: Iterable[str]) -> None:
    for argument, node_types in named.items():
        for node_type in node_types:
            if node_type not in num_nodes:
                raise ValueError(f"{argument}: expected types among {list(num_nodes)}, found {node_type!r}")


def _check_rates(**rates: float) -> None:
    for argument, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"{argument}: expected a number from 0 to 1, found {rate}")


def _check_counts(
    num_nodes: Mapping[str, int],
    degrees: Mapping[EdgeType, float],
    widths: Mapping[str, int],
    num_classes: int,
    least_width: int,
) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, found {num_classes}")
    for node_type, count in num_nodes.items():
        if count < 1:
            raise ValueError(f"num_nodes: expected at least 1 {node_type}, found {count}")
    for relation, degree in degrees.items():
        if not 0 <= degree < math.inf:
            raise ValueError(f"mean_degree: expected a finite number from 0 for {relation}, found {degree}")
    for node_type, width in widths.items():
        if width < least_width:
            classes = " = num_classes, among which words are shared out," if least_width > 1 else ""
            raise ValueError(
                f"feature_width: expected at least {least_width}{classes} for {node_type} "
                f"(name it in featureless to have none), found {width}"
            )
