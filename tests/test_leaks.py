"""`check_leaks`: planted leaks of every kind are found, graphs without any pass, and `fit` asks it."""

import dataclasses
import os
import re
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import hire_jax as hj
from hire_jax.data import random_split, synthetic_hetero
from hire_jax.metapaths import metapath_graph, propagated_graph
from hire_jax.training import LeakError, check_leaks, fit

FOLDER = os.environ.get("HIRE_JAX_DATA")
REAL = ("acm_gtn", "acm_hgb", "actor", "amazon_photo", "chameleon_filtered", "citeseer", "coauthor_cs", "cora",
        "dblp_hgb", "imdb_gtn", "imdb_hgb", "imdb_magnn", "pubmed", "tolokers")
pytestmark = pytest.mark.usefixtures("quick_compilation")
PARTS = ("train", "val", "test")
WORDS = 40


@pytest.fixture(scope="module")
def clean():
    """240 items of three classes, in thirds for training, validation and testing; 60 users."""
    return synthetic_hetero({"item": 240, "user": 60}, feature_width=WORDS, feature_density=0.2, feature_noise=0.3,
                            train_rate=1 / 3, val_rate=1 / 3)


@pytest.fixture(scope="module")
def clean_multi():
    return synthetic_hetero({"item": 240, "user": 60}, feature_width=WORDS, feature_density=0.2, num_classes=5,
                            multilabel=True, train_rate=1 / 3, val_rate=1 / 3)


def words(dataset):
    return np.array(dataset.graph.features["item"].todense())


def with_features(dataset, x, sparse=False):
    if sparse:
        csr = scipy.sparse.csr_matrix(x)
        x = hj.SparseFeatures.from_csr(csr.indptr, csr.indices, csr.data, csr.shape)
    else:
        x = jnp.asarray(x, jnp.float32)
    return dataset.with_graph(dataclasses.replace(dataset.graph, features=dataset.graph.features | {"item": x}))


def rows_of(dataset, parts):
    return np.logical_or.reduce([np.asarray(dataset.splits[part]) for part in parts])


def hot_of(dataset):
    labels = np.asarray(dataset.labels)
    return labels.astype(float) if dataset.multilabel else np.eye(dataset.num_classes)[labels]


def columns_of(kind, dataset):
    hot, labels = hot_of(dataset), np.asarray(dataset.labels)
    return {"one-hot": hot[:, [2, 0, 1]], "scaled": 3 * hot - 1.5, "complement": 1 - hot, "one class": hot[:, [1]],
            "number": labels[:, None], "number from one": labels[:, None] + 1.0,
            "code": np.array([[0.3, 0.3], [0.3, -2.0], [1.5, -2.0]])[labels]}[kind]


# ---------------------------------------------------------------------------------------- what must be found


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("parts", [("test",), ("val",), ("train",), PARTS])
@pytest.mark.parametrize("kind", ["one-hot", "scaled", "complement", "one class", "number", "number from one", "code"])
def test_copies_of_labels_among_the_words_are_found(clean, kind, parts, sparse):
    """In any columns, and where the other rows have random numbers or nothing."""
    x, leak, rng = words(clean), columns_of(kind, clean), np.random.default_rng(1)
    places = np.sort(rng.permutation(WORDS)[:leak.shape[1]])
    for others in (np.zeros_like(leak), rng.integers(0, 3, leak.shape)):
        x[:, places] = np.where(rows_of(clean, parts)[:, None], leak, others)
        where = ", ".join(f"'{part}' (80 nodes)" for part in parts)
        with pytest.raises(LeakError) as caught:
            check_leaks(with_features(clean, x, sparse))
        columns = ", ".join(map(str, places))
        assert str(caught.value).startswith(f"features of 'item', columns {columns}: they follow the class without an "
                                            f"exception in {where}, so that a model can read what it should predict;")


@pytest.mark.parametrize("sparse", [False, True])
def test_normalised_rows_hide_nothing(clean, sparse):
    x = np.concatenate([words(clean), hot_of(clean)], axis=1)
    x /= x.sum(axis=1, keepdims=True)
    with pytest.raises(LeakError, match=r"columns 40, 41, 42: they follow the class"):
        check_leaks(with_features(clean, x, sparse))


@pytest.mark.parametrize("sparse", [False, True])
def test_labels_of_many_classes_are_found(clean_multi, sparse):
    x, rows = words(clean_multi), rows_of(clean_multi, ["val"])
    x[rows, 9] = np.asarray(clean_multi.labels)[rows, 3]
    with pytest.raises(LeakError, match=r"^features of 'item', columns 9: they follow label 3 .* in 'val' \(80"):
        check_leaks(with_features(clean_multi, x, sparse))


def test_a_long_list_is_cut(clean):
    with pytest.raises(LeakError, match=r"columns 0, 1, 2, 3, 4, 5, 6, 7 and 4 more: they"):
        check_leaks(with_features(clean, np.tile(hot_of(clean), 4)))


def test_what_is_zero_is_not_stored(clean):
    """Entries of one place add up: to some number for the class 0, and to 1 - 1 for the others."""
    labels, rng = np.asarray(clean.labels), np.random.default_rng(0)
    first = np.where(labels == 0, rng.random(240), 1.0)
    data = np.stack([first, np.where(labels == 0, 0.5, -1.0)], axis=1).ravel()
    x = hj.SparseFeatures.from_csr(2 * np.arange(241), np.full(480, 3), data, (240, 5))
    with pytest.raises(LeakError, match="columns 3: they"):
        check_leaks(clean.with_graph(dataclasses.replace(clean.graph, features={"item": x})))


def test_bfloat16_is_read(clean):
    x = np.concatenate([words(clean), hot_of(clean)], axis=1)
    dataset = with_features(clean, x)
    features = {"item": dataset.graph.features["item"].astype(jnp.bfloat16)}
    with pytest.raises(LeakError, match="columns 40, 41, 42: they"):
        check_leaks(clean.with_graph(dataclasses.replace(clean.graph, features=features)))


def test_positions_are_read_too(clean):
    positions = np.random.default_rng(0).normal(size=(240, 4)).astype(np.float32)
    check_leaks(clean.with_graph(clean.graph.with_positions({"item": positions})))
    positions[:, 2] = np.asarray(clean.labels)
    with pytest.raises(LeakError, match=r"^positions of 'item', columns 2: they follow the class"):
        check_leaks(clean.with_graph(clean.graph.with_positions({"item": positions})))


@pytest.mark.parametrize("name", ["genre", "{0}", "%s"])
def test_nodes_that_stand_for_classes_are_found(clean, name):
    """A link to the class is its one-hot row. Links that the items do not receive cannot be read."""
    links = np.stack([np.asarray(clean.labels), np.arange(240)])

    def graph(edge_type, edges):
        counts = {"item": 240, "user": 60, name: 5}
        return clean.with_graph(hj.HeteroGraph.from_arrays(counts, clean.graph.host_edges() | {edge_type: edges}))

    check_leaks(graph(("item", "has", name), links[::-1]))
    twice = np.concatenate([links, links[:, :100]], axis=1)  # a repeated link tells no more
    for edges in (links, twice):
        with pytest.raises(LeakError, match=re.escape(f"links of relation {(name, 'of', 'item')}, from nodes 0, 1, 2: "
                                                      "they follow the class without an exception in 'train'")):
            check_leaks(graph((name, "of", "item"), edges))
    others = np.random.default_rng(0).integers(0, 5, (1, 240))
    check_leaks(graph((name, "of", "item"), np.concatenate([others, links[1:]])))


def test_labels_that_come_along_a_metapath_are_found(clean):
    """Each item's own card says its label: two steps away in the graph, among SeHGNN's features at once."""
    own = np.tile(np.arange(240), (2, 1))
    edges = {("card", "of", "item"): own, ("class", "on", "card"): np.stack([np.asarray(clean.labels), own[0]])}
    cards = hj.HeteroGraph.from_arrays({"item": 240, "card": 241, "class": 3}, edges,
                                       {"card": np.concatenate([hot_of(clean), np.zeros((1, 3))])})
    check_leaks(clean.with_graph(cards))
    with pytest.raises(LeakError, match=r"^features of 'card-item', columns 0, 1, 2: "):
        check_leaks(clean.with_graph(propagated_graph(cards, "item", hops=1)))


# -------------------------------------------------------------------------------------------- what must pass


def test_training_labels_of_others_are_no_leak(clean):
    """SeHGNN's label features: the diagonal is removed, so that nothing of a node's own label is in them."""
    rows = rows_of(clean, ["train"])
    labels = np.where(rows[:, None], hot_of(clean), 0)
    graph = propagated_graph(clean.graph, "item", hops=2, labels=labels, label_hops=2)
    assert any(name.startswith("label:") for name in graph.node_types)
    check_leaks(clean.with_graph(graph))
    check_leaks(clean.with_graph(metapath_graph(clean.graph, "item")))
    with pytest.raises(LeakError, match=r"'label:own', columns 0, 1, 2: .* in 'train' \(80 nodes\), so"):
        check_leaks(clean.with_graph(hj.HeteroGraph.from_arrays(
            graph.num_nodes | {"label:own": 240}, {}, graph.features | {"label:own": labels})))


def test_links_among_labelled_nodes_are_no_leak(clean):
    """Not even where one of them is linked with all others of its class, and with no other node."""
    labels = np.asarray(clean.labels)
    hubs = np.array([int(np.argmax(labels == c)) for c in labels])
    edges = {("item", "like", "item"): np.stack([hubs, np.arange(240)])}
    check_leaks(clean.with_graph(clean.graph.add_relations(edges)))


def test_one_exception_is_none(clean):
    """What is found is exact: a column that is wrong for one node of each part says no more than a good word."""
    for sparse in (False, True):
        leak = hot_of(clean)[:, [0]]
        for part in PARTS:
            leak[np.flatnonzero(rows_of(clean, [part]))[-1]] -= 1
        check_leaks(with_features(clean, np.concatenate([words(clean), leak], axis=1), sparse))


def test_a_good_word_is_no_leak(clean):
    """It is right for the 80 nodes of a part and wrong for 5 of the 160 others."""
    word = hot_of(clean)[:, 1]
    check = np.flatnonzero(~rows_of(clean, ["val"]))[::32]
    word[check] = 1 - word[check]
    check_leaks(with_features(clean, word[:, None]))


@pytest.mark.parametrize("sparse", [False, True])
def test_what_says_nothing_of_labels_passes(clean, sparse):
    rng = np.random.default_rng(0)
    for x in (np.eye(240), np.ones((240, 3)), np.zeros((240, 3)), np.zeros((240, 0)), rng.normal(size=(240, 300)),
              rng.integers(0, 2, (240, 300)), np.arange(240)[:, None]):
        check_leaks(with_features(clean, x, sparse))


def test_few_nodes_prove_nothing():
    """Each of 12 test nodes has a class of its own, or its word by chance; the same column on 60 nodes is a leak."""
    def task(labels, x, test):
        splits = {"train": ~test, "val": np.zeros(test.size, bool), "test": test}
        graph = hj.HeteroGraph.from_arrays({"item": test.size}, {}, {"item": x})
        return SimpleNamespace(graph=graph, labels=labels, splits=splits)

    test = np.arange(72) < 12
    labels = np.where(test, np.arange(72), 12)
    x = np.random.default_rng(0).normal(size=(72, 4))
    check_leaks(task(labels, x, test))
    check_leaks(task(labels, labels[:, None], test))
    pairs = np.where(test, np.arange(72) // 6, np.arange(72) % 2)
    check_leaks(task(pairs, np.where(test, pairs, 5)[:, None], test))
    with pytest.raises(LeakError, match=r"in 'train' \(60 nodes\),"):
        check_leaks(task(pairs, pairs[:, None], test))


def test_nodes_without_a_label_are_not_asked(clean):
    """In a part or outside of all: what a column says of them is no label."""
    labels = np.asarray(clean.labels).copy()
    bare = np.flatnonzero(rows_of(clean, PARTS))[::7]
    x = np.concatenate([words(clean), hot_of(clean)], axis=1)
    x[bare, WORDS:] = np.random.default_rng(0).integers(0, 2, (bare.size, 3))
    check_leaks(with_features(clean, x))
    labels[bare] = -1
    changed = with_features(clean, x)
    with pytest.raises(LeakError, match="columns 40, 41, 42: they"):
        check_leaks(SimpleNamespace(graph=changed.graph, labels=labels, splits=changed.splits))
    check_leaks(SimpleNamespace(graph=changed.graph, labels=np.full(240, -1), splits=changed.splits))
    check_leaks(SimpleNamespace(graph=changed.graph, labels=np.full((240, 4), -1), splits=changed.splits))


@pytest.mark.parametrize("settings", [
    {}, {"feature_density": 1.0, "feature_noise": 0.2}, {"noise": 0.0}, {"multilabel": True, "num_classes": 5},
    {"num_nodes": {"paper": 400, "author": 100}, "num_classes": 8, "power_law": 2.5, "label_rate": 0.7}])
def test_synthetic_graphs_pass(settings):
    for seed in range(2):
        check_leaks(synthetic_hetero(**settings, seed=seed))


@pytest.mark.parametrize("name", REAL)
def test_real_graphs_pass(name):
    there = FOLDER is not None and (Path(FOLDER) / f"{name}.npz").is_file()
    if not there and name not in ("citeseer", "imdb_gtn"):  # which are bundled
        pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
    dataset = hj.load_dataset(name, root=FOLDER if there else None)
    check_leaks(dataset)
    for seed in range(3):
        check_leaks(dataclasses.replace(dataset, splits=random_split(np.asarray(dataset.labels), seed=seed)))


def test_a_node_in_two_parts_is_found(clean):
    splits = {part: np.array(mask) for part, mask in clean.splits.items()}
    splits["test"][shared := np.flatnonzero(splits["train"])[[3, 5]]] = True
    with pytest.raises(LeakError, match=f"splits 'train' and 'test' share 2 nodes, the first of them {shared[0]};"):
        check_leaks(SimpleNamespace(graph=clean.graph, labels=clean.labels, splits=splits))


class Classifier(nn.Module):
    """One layer on the items' own features."""

    @nn.compact
    def __call__(self, graph, *, train=False):
        return hj.ModelOutput(nn.Dense(3)(graph.features["item"]), ({},), ({},))


def test_fit_refuses_leaks_unless_they_are_meant(clean):
    leaky = with_features(clean, hot_of(clean))
    with pytest.raises(LeakError, match="columns 0, 1, 2: they"):
        fit(Classifier(), leaky, seeds=1, epochs=1)
    shared = SimpleNamespace(graph=leaky.graph, labels=leaky.labels, num_classes=3, multilabel=False,
                             splits=dict(leaky.splits) | {"val": leaky.splits["train"]})
    with pytest.raises(LeakError, match="splits 'train' and 'val' share 80 nodes"):
        fit(Classifier(), shared, seeds=1, epochs=1)
    result = fit(Classifier(), shared, seeds=1, epochs=40, learning_rate=0.1, check_leaks=False)
    assert result.metrics["test_accuracy"].min() > 0.99


def test_fit_refuses_nodes_without_a_label_always(clean):
    labels = np.array(clean.labels)
    labels[first := int(np.flatnonzero(clean.splits["val"])[4])] = -1
    bare = SimpleNamespace(graph=clean.graph, labels=labels, num_classes=3, multilabel=False, splits=clean.splits)
    with pytest.raises(ValueError, match=f"'val' must hold labelled nodes, got 1 .*, the first of them {first}"):
        fit(Classifier(), bare, seeds=1, epochs=1, check_leaks=False)
