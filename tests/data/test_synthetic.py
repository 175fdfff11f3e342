"""The generator: one seed one graph, the asked counts, planted structure that a linear model finds."""

import inspect
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from hire_jax.data import Dataset, GraphArrays, mag_shaped, synthetic_arrays, synthetic_hetero
from hire_jax.data.mag_shaped import MAG_EDGES, MAG_NODES
from hire_jax.data.planted import planted_communities
from hire_jax.sparse import SparseFeatures

NODES = {"a": 900, "b": 600, "c": 50}
RELATIONS = [("b", "to", "a"), ("a", "near", "a"), ("c", "has", "b")]


def edges(dataset: Dataset) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    return {
        edge_type: (np.asarray(relation.senders), np.asarray(relation.receivers))
        for edge_type, relation in dataset.graph.relations.items()
    }


def dense(features: Any) -> np.ndarray:
    """Features of either form as a host array."""
    return np.asarray(features.todense() if isinstance(features, SparseFeatures) else features)


def within(dataset: Dataset, num_classes: int, seed: int) -> float:
    """Share of edges whose ends are in one community, over all relations."""
    groups = {t: planted_communities(t, n, num_classes, seed) for t, n in dataset.graph.num_nodes.items()}
    same = [
        groups[s][senders] == groups[d][receivers]
        for (s, _, d), (senders, receivers) in edges(dataset).items()
    ]
    return float(np.concatenate(same).mean())


def test_default_graph() -> None:
    dataset = synthetic_hetero(seed=0)
    graph = dataset.graph
    assert graph.num_nodes == {"item": 300, "user": 200, "tag": 40}
    assert set(graph.edge_types) == {
        ("user", "buys", "item"),
        ("item", "rev_buys", "user"),
        ("item", "has", "tag"),
        ("tag", "rev_has", "item"),
        ("item", "similar", "item"),
        ("item", "rev_similar", "item"),
    }
    assert "tag" not in graph.features and dataset.target == "item" and dataset.num_classes == 3


def test_one_seed_one_graph() -> None:
    first, again, other = (synthetic_hetero(seed=seed) for seed in (5, 5, 6))
    for edge_type, (senders, receivers) in edges(first).items():
        np.testing.assert_array_equal(senders, edges(again)[edge_type][0])
        np.testing.assert_array_equal(receivers, edges(again)[edge_type][1])
        assert not np.array_equal(senders, edges(other)[edge_type][0])
    for node_type, features in first.graph.features.items():
        np.testing.assert_array_equal(dense(features), dense(again.graph.features[node_type]))
        assert not np.array_equal(dense(features), dense(other.graph.features[node_type]))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert all(np.array_equal(mask, again.splits[part]) for part, mask in first.splits.items())
    assert not np.array_equal(first.labels, other.labels)


def test_parts_are_independent() -> None:
    """A further relation leaves labels, splits, features and the other relations as they were."""
    small = synthetic_hetero(NODES, RELATIONS[:1], seed=1)
    large = synthetic_hetero(NODES, RELATIONS, seed=1)
    np.testing.assert_array_equal(small.labels, large.labels)
    np.testing.assert_array_equal(small.splits["train"], large.splits["train"])
    np.testing.assert_array_equal(dense(small.graph.features["a"]), dense(large.graph.features["a"]))
    np.testing.assert_array_equal(edges(small)["b", "to", "a"][0], edges(large)["b", "to", "a"][0])


@pytest.mark.parametrize("power_law", [None, 3.0])
def test_counts(power_law: float | None) -> None:
    degree = {RELATIONS[0]: 3.5, RELATIONS[1]: 2, RELATIONS[2]: 6}
    dataset = synthetic_hetero(
        NODES, RELATIONS, target="b", num_classes=4, mean_degree=degree, power_law=power_law, seed=2
    )
    counts = dataset.graph.num_edges
    for (source, relation, destination), mean in degree.items():
        assert counts[source, relation, destination] == round(mean * NODES[source])
        assert counts[destination, f"rev_{relation}", source] == round(mean * NODES[source])
    for (source, relation, destination), (senders, receivers) in edges(dataset).items():
        pairs = set(zip(senders.tolist(), receivers.tolist(), strict=True))
        assert len(pairs) == len(senders), "duplicate edges"
        if source == destination:
            assert (senders != receivers).all(), "self loops"
        if not relation.startswith("rev_"):
            back = edges(dataset)[destination, f"rev_{relation}", source]
            assert pairs == set(zip(back[1].tolist(), back[0].tolist(), strict=True))
    assert dataset.target == "b" and dataset.labels.shape == (600,)
    assert np.bincount(np.asarray(dataset.labels)).tolist() == [150] * 4
    np.testing.assert_array_equal(dataset.labels, planted_communities("b", 600, 4, 2))


def test_star_is_the_default_schema_and_reverse_can_be_left_out() -> None:
    dataset = synthetic_hetero({"a": 50, "b": 40, "c": 30}, reverse=False, mean_degree=2)
    assert set(dataset.graph.edge_types) == {("b", "to", "a"), ("c", "to", "a")}
    assert dataset.target == "a" and set(dataset.graph.features) == {"a", "b", "c"}


def test_homophily_follows_noise() -> None:
    shares = [
        within(synthetic_hetero(NODES, RELATIONS, noise=noise, num_classes=4, seed=3), 4, 3)
        for noise in (0.0, 0.4, 1.0)
    ]
    assert shares[0] == 1.0
    # 1 - noise * (1 - 1/4), from some 7,000 edges: a standard deviation of 0.006
    assert abs(shares[1] - 0.7) < 0.03 and abs(shares[2] - 0.25) < 0.03


def test_power_law_makes_hubs() -> None:
    kwargs: dict[str, Any] = {"mean_degree": 10, "reverse": False, "seed": 0}
    flat, heavy = (
        np.bincount(
            edges(synthetic_hetero({"a": 2000, "b": 2000}, power_law=p, **kwargs))["b", "to", "a"][1],
            minlength=2000,
        )
        for p in (None, 2.5)
    )
    assert flat.max() < 35 and heavy.max() > 100  # Poisson(10) against a tail
    assert np.median(heavy) < np.median(flat)


def test_sparse_features() -> None:
    dataset = synthetic_hetero(
        NODES,
        RELATIONS,
        feature_width={"a": 200, "b": 90},
        featureless=("c",),
        feature_density=0.05,
        num_classes=3,
        feature_noise=0.0,
    )
    features = dataset.graph.features
    assert set(features) == {"a", "b"}
    assert isinstance(features["a"], SparseFeatures) and features["a"].shape == (900, 200)
    assert features["b"].shape == (600, 90)
    values = dense(features["a"])
    counts = (values > 0).sum(axis=1)
    assert set(np.unique(values)) == {0.0, 1.0} and counts.min() >= 1 and counts.max() <= 10
    assert 0.035 < counts.mean() / 200 <= 0.05
    # without noise the communities share no word
    groups = planted_communities("a", 900, 3, 0)
    used = np.stack([(values[groups == c] > 0).any(axis=0) for c in range(3)])
    assert used.sum(axis=0).max() == 1


def test_dense_features() -> None:
    dataset = synthetic_hetero(NODES, RELATIONS, feature_density=1.0, feature_width=16)
    features = np.asarray(dataset.graph.features["a"])
    assert features.shape == (900, 16) and features.dtype == np.float32 and (features != 0).all()


def test_labels_and_split_sizes() -> None:
    dataset = synthetic_hetero(NODES, RELATIONS, label_rate=0.5, train_rate=0.1, val_rate=0.3)
    labelled = np.asarray(dataset.labels) >= 0
    assert labelled.sum() == 450
    assert [int(dataset.splits[part].sum()) for part in ("train", "val", "test")] == [45, 135, 270]
    np.testing.assert_array_equal(sum(np.asarray(m).astype(int) for m in dataset.splits.values()), labelled)


def test_multilabel() -> None:
    dataset = synthetic_hetero(NODES, RELATIONS, num_classes=4, multilabel=True, label_rate=0.5)
    labels = np.asarray(dataset.labels)
    assert dataset.multilabel and labels.shape == (900, 4)
    known = labels[labels[:, 0] >= 0]
    assert (
        len(known) == 450
        and (known.sum(axis=1) == 2).all()
        and (labels.min(axis=1) == labels[:, 0]).sum() >= 450
    )


def ridge_accuracy(dataset: Dataset) -> float:
    """Test accuracy of ridge regression on the target's features and its neighbours' mean features."""
    graph, target = dataset.graph, dataset.target
    parts = [dense(graph.features[target])] if target in graph.features else []
    for (source, _, destination), (senders, receivers) in edges(dataset).items():
        if destination == target and source in graph.features:
            shape = (graph.num_nodes[target], graph.num_nodes[source])
            sums = sp.csr_matrix((np.ones(len(senders)), (receivers, senders)), shape)
            mean = (
                sp.diags(1 / np.maximum(sums.sum(axis=1).A1 if hasattr(sums.sum(axis=1), "A1") else 1, 1))
                @ sums
            )
            parts.append(mean @ dense(graph.features[source]))
    x = np.concatenate([*parts, np.ones((graph.num_nodes[target], 1))], axis=1)
    labels, train, test = (
        np.asarray(a) for a in (dataset.labels, dataset.splits["train"], dataset.splits["test"])
    )
    gram = x[train].T @ x[train] + np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x[train].T @ np.eye(dataset.num_classes)[labels[train]])
    return float(((x[test] @ weights).argmax(axis=1) == labels[test]).mean())


def test_signal_is_learned_and_noise_takes_it_away() -> None:
    assert ridge_accuracy(synthetic_hetero(seed=0)) > 0.7
    lost = synthetic_hetero(seed=0, noise=1.0, feature_noise=1.0)
    assert ridge_accuracy(lost) < 0.5


def test_neighbours_alone_carry_the_signal() -> None:
    assert ridge_accuracy(synthetic_hetero(seed=0, featureless=("item", "tag"))) > 0.5


@pytest.mark.parametrize("options", [{}, {"power_law": 2.5, "feature_density": 1.0, "multilabel": True}])
def test_the_dataset_is_made_of_the_arrays(options: dict[str, Any]) -> None:
    arrays = synthetic_arrays(NODES, RELATIONS, seed=4, **options)
    dataset = synthetic_hetero(NODES, RELATIONS, seed=4, **options)
    assert dataset.graph.num_nodes == arrays.num_nodes and list(dataset.graph.edge_types) == list(arrays.edges)
    for edge_type, (senders, receivers) in edges(dataset).items():
        given = arrays.edges[edge_type]
        assert given.dtype == np.int32
        order = np.lexsort((given[0], given[1]))
        np.testing.assert_array_equal(given[:, order], [senders, receivers])
    for name, features in dataset.graph.features.items():
        np.testing.assert_array_equal(dense(features), dense(arrays.features[name]))
    np.testing.assert_array_equal(dataset.labels, arrays.labels)
    for part, mask in arrays.splits.items():
        np.testing.assert_array_equal(mask, dataset.splits[part])
    assert dataset.meta["arguments"] == arrays.arguments and dataset.multilabel == arrays.multilabel
    assert dataset.target == arrays.target and dataset.num_classes == arrays.num_classes


def test_the_dataset_takes_the_arguments_of_the_arrays() -> None:
    ours, theirs = inspect.signature(synthetic_hetero), inspect.signature(synthetic_arrays)
    assert ours.parameters == theirs.parameters
    assert ours.return_annotation is Dataset and theirs.return_annotation is GraphArrays
    with pytest.raises(TypeError, match="'edges'"):
        synthetic_hetero(edges=3)


def test_large_arrays_are_never_on_a_device() -> None:
    arrays = synthetic_arrays(NODES, RELATIONS, feature_density=1.0, num_classes=20, feature_width=8)
    forward, back = arrays.edges["b", "to", "a"], arrays.edges["a", "rev_to", "b"]
    assert np.shares_memory(forward, back), "a reverse relation takes memory of its own"
    assert all(type(x) is np.ndarray for x in [*arrays.features.values(), arrays.labels, *arrays.splits.values()])
    assert arrays.features["a"].shape == (900, 8), "dense features may be narrower than there are classes"


def test_dense_features_are_added_up_in_blocks_of_rows() -> None:
    """More rows than a block has: each is its community's mean and noise, from one stream."""
    arrays = synthetic_arrays({"a": 70_000, "b": 2}, feature_density=1.0, feature_width=4, feature_noise=0.0)
    groups = planted_communities("a", 70_000, 3, 0)
    for part in (slice(0, 65_536), slice(65_536, None)):
        means = [np.asarray(arrays.features["a"])[part][groups[part] == c].mean(axis=0) for c in range(3)]
        others = [np.asarray(arrays.features["a"])[groups == c].mean(axis=0) for c in range(3)]
        np.testing.assert_allclose(means, others, atol=0.1)  # 1,500 rows at least: a standard deviation of 0.026
        assert np.ptp(means, axis=0).max() > 0.5


def test_mag_shaped() -> None:
    assert sum(MAG_NODES.values()) == 1_939_743 and sum(MAG_EDGES.values()) == 21_111_007
    share, classes = 0.01, 8
    arrays, again, other = (mag_shaped(share, num_classes=classes, feature_width=16, seed=s) for s in (0, 0, 1))
    assert arrays.num_nodes == {name: round(count * share) for name, count in MAG_NODES.items()}
    assert arrays.target == "paper" and arrays.num_classes == classes and len(arrays.edges) == 2 * len(MAG_EDGES)
    same, drawn = 0, 0
    for (source, relation, destination), count in MAG_EDGES.items():
        found = arrays.edges[source, relation, destination]
        assert found.shape == (2, round(count * share))
        np.testing.assert_array_equal(arrays.edges[destination, f"rev_{relation}", source], found[::-1])
        np.testing.assert_array_equal(again.edges[source, relation, destination], found)
        assert not np.array_equal(other.edges[source, relation, destination], found)
        degrees = np.bincount(found[1], minlength=arrays.num_nodes[destination])
        assert degrees.max() > 5 * degrees.mean(), f"{relation} has no heavy tail"
        ends = [planted_communities(name, arrays.num_nodes[name], classes, 0)[ids]
                for name, ids in ((source, found[0]), (destination, found[1]))]
        same, drawn = same + int((ends[0] == ends[1]).sum()), drawn + count * share
    # 1 - 0.6 (1 - 1/8) = 0.475, less what repeats: dense spots lose more of their draws
    assert 0.38 < same / drawn < 0.48
    papers = arrays.num_nodes["paper"]
    assert [round(arrays.splits[part].sum() / papers, 2) for part in ("train", "val", "test")] == [0.85, 0.09, 0.06]
    assert all(x.shape == (arrays.num_nodes[name], 16) and x.dtype == np.float32
               for name, x in arrays.features.items()) and set(arrays.features) == set(MAG_NODES)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan")])
def test_mag_shaped_refuses(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        mag_shaped(share)


@pytest.mark.slow
def test_mag_shaped_at_full_size() -> None:
    arrays = mag_shaped()
    counts = {edge_type: found.shape[1] for edge_type, found in arrays.edges.items() if edge_type in MAG_EDGES}
    assert arrays.num_nodes == MAG_NODES and counts == dict(MAG_EDGES)
    assert all(x.shape == (MAG_NODES[name], 128) for name, x in arrays.features.items())


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"num_nodes": {}}, "target"),
        ({"num_nodes": {"a": 0}}, "num_nodes"),
        ({"relations": [("item", "to", "ghost")]}, "relations.*'ghost'"),
        ({"relations": [("item", "x", "tag"), ("item", "x", "tag")]}, "relations: expected each once"),
        ({"relations": [("item", "x", "tag"), ("tag", "rev_x", "item")]}, "reverse"),
        ({"target": "ghost"}, "target.*'ghost'"),
        ({"relations": [("ghost", "to", "item")]}, "relations.*'ghost'"),
        ({"featureless": ("ghost", "tag")}, "featureless.*'ghost'"),
        ({"feature_width": {"ghost": 9}}, "feature_width.*'ghost'"),
        ({"feature_width": 2}, "feature_width: expected at least 3 = num_classes"),
        ({"feature_width": 0, "feature_density": 1.0}, "feature_width: expected at least 1 for"),
        ({"num_classes": 1}, "num_classes"),
        ({"mean_degree": -1.0}, "mean_degree"),
        ({"mean_degree": float("nan")}, "mean_degree"),
        ({"mean_degree": 1000.0}, "mean_degree"),
        ({"mean_degree": {("user", "buys", "item"): 2.0}}, "mean_degree"),
        ({"noise": 1.5}, "noise"),
        ({"feature_noise": -0.1}, "feature_noise"),
        ({"feature_density": 0.0}, "feature_density"),
        ({"label_rate": 2.0}, "label_rate"),
        ({"train_rate": 0.7, "val_rate": 0.7}, "train_rate_plus_val_rate"),
        ({"power_law": 2.0}, "power_law"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        synthetic_hetero(**arguments)


def test_more_classes_than_nodes_of_a_type() -> None:
    """Communities that a small type lacks send their edges anywhere."""
    dataset = synthetic_hetero(
        {"a": 300, "b": 3}, [("a", "to", "b")], num_classes=6, mean_degree=1, feature_width=12
    )
    assert dataset.graph.num_edges["a", "to", "b"] == 300
