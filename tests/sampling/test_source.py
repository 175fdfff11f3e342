"""Batches by their place: what is in them, what they depend on, how many sizes they have, what is refused."""

import pickle
import re
from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hire_jax import GraphError
from hire_jax.models import RGCN
from hire_jax.sampling import BatchLoader, BatchSource, HostGraph, batch_variables
from hire_jax.sampling.padding import sizes_of, smallest
from hire_jax.supervised import cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_an_epoch_has_every_node_once_in_an_order_of_its_own(source_of, seeds_of):
    source = source_of()
    epochs = [[seeds_of(source(epoch, index)) for index in range(len(source))] for epoch in (0, 1, 0)]
    assert len(source) == 4 and [len(seeds) for seeds in epochs[0]] == [12, 12, 12, 4]
    joined = [[node for seeds in epoch for node in seeds] for epoch in epochs]
    assert sorted(joined[0]) == sorted(joined[1]) == list(range(5, 45))
    assert joined[0] != joined[1] and joined[0] == joined[2]
    ordered = source_of(shuffle=False, nodes=[9, 3, 40, 2], batch_size=3)
    assert [seeds_of(ordered(7, index)) for index in range(2)] == [[9, 3, 40], [2]]


def test_a_batch_knows_its_rows(source_of):
    batch = source_of()(0, 3)
    assert batch.seeds.where.tolist() == [True] * 4 + [False] * 8
    ids = batch.nodes_of(batch.seeds)["item"]
    np.testing.assert_array_equal(batch.seeds.labels, ids % 3)
    assert batch.uniform.labels is None and batch.uniform.index["tag"].shape == (2,) and batch.seeds.teacher is None
    assert all(not np.any(batch.ids[name][number:]) for name, number in batch.real.items())
    assert source_of(labels=None, uniform=None)(0, 0).uniform is None


def test_a_batch_depends_on_its_place_alone(source_of, seeds_of, assert_same):
    first, second = source_of(), source_of()
    second(4, 1)
    assert_same(first(1, 2), second(1, 2))
    other = source_of(seed=6)
    assert seeds_of(other(1, 2)) != seeds_of(first(1, 2))
    edges = [source(0, 0).graph.host_edges() for source in (source_of(shuffle=False), source_of(
        shuffle=False, seed=6))]  # fmt: skip
    assert any(a.shape != b.shape or np.any(a != b) for a, b in zip(edges[0].values(), edges[1].values(), strict=True))


def test_every_batch_draws_anew(source_of):
    source = source_of(uniform={"user": 9}, shuffle=False)
    drawn = []
    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        batch = source(*place)
        drawn.append(tuple(np.sort(batch.nodes_of(batch.uniform)["user"])))
    assert len(set(drawn)) == 4


def test_orders_of_old_epochs_are_not_kept(source_of):
    source = source_of()
    for epoch in range(9):
        source.sample(epoch, 0)
    assert set(source._orders) == {7, 8}


def compilations(host, parameters, source, epochs):
    """How often a training step is traced, over all batches of some epochs."""
    model = RGCN(target="item", num_classes=3, hidden=4, layers=2)
    variables, traced = parameters(model, host.shapes()), []

    @jax.jit
    def step(variables, batch, key):
        traced.append(batch)

        def loss(variables):
            output = model.apply(batch_variables(variables, batch), batch.graph, train=True, rngs={"dropout": key})
            return cross_entropy(batch.seeds.of(output).logits, batch.seeds.labels, where=batch.seeds.where)

        return jax.tree.map(lambda x, g: x - 0.01 * g, variables, jax.grad(loss)(variables))

    with BatchLoader(source, workers=2) as loader:
        for epoch in range(epochs):
            for batch in loader:
                variables = step(variables, batch, jax.random.key(epoch))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    return len(traced)


def test_a_run_is_compiled_once(host, source_of, parameters):
    assert compilations(host, parameters, source_of(), epochs=5) == 1


def test_a_run_is_compiled_three_times_at_most(parameters):
    """Trials that tell nothing: hubs are at the second hop, and around the first batch there are none."""
    degrees, tags = np.repeat([0, 25, 0, 300, 200, 600], 4), 4000
    receivers = np.repeat(np.arange(24, 48), degrees)
    host = HostGraph.from_arrays({"item": 48, "tag": tags}, {
        ("tag", "of", "item"): np.stack([np.arange(receivers.size) % tags, receivers]),
        ("item", "to", "item"): np.stack([np.arange(24, 48), np.arange(24)])},
        {"item": np.ones((48, 2)), "tag": np.ones((tags, 2))})  # fmt: skip
    source = BatchSource(host, target="item", nodes=np.arange(24), batch_size=4, fanouts=[-1, -1], shuffle=False,
                         labels=np.arange(48) % 3, trials=1)
    assert len(source.sizes) == 3
    sizes = [source(0, index).graph.num_nodes["tag"] for index in range(6)]
    assert sizes == [64, 506, 64, 4001, 4001, 4001]  # 506**2 is nearly 64 * 4001
    assert compilations(host, parameters, source, epochs=2) == 3


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_with_hubs_do_not_take_the_bound(shuffle):
    """Trials drawn at random meet few of the hubs that every epoch has; without shuffling the first batch has all."""
    rng = np.random.default_rng(0)
    edges = np.stack([rng.integers(0, 20_000, 80_000), (3000 * rng.random(80_000) ** 3).astype(int)])
    host = HostGraph.from_arrays({"item": 3000, "user": 20_000}, {("user", "of", "item"): edges})
    source = BatchSource(host, target="item", nodes=np.arange(3000), batch_size=32, fanouts=[-1], shuffle=shuffle)
    needed = [sizes_of(source.sample(epoch, index), host) for epoch in range(2) for index in range(len(source))]
    taken = Counter(source.sizes.index(smallest(source.sizes, sizes)) for sizes in needed)
    assert taken == ({0: 167, 1: 21} if shuffle else {0: 188})
    typical, second = source.sizes[:2]
    assert second.edges["user", "of", "item"] < (10 if shuffle else 2) * typical.edges["user", "of", "item"]


@pytest.mark.parametrize("change, error, message", [
    ({"target": "shop"}, GraphError, "node type 'shop' is unknown"),
    ({"uniform": {"shop": 1}}, GraphError, "node type 'shop' is unknown"),
    ({"resident": ["shop"]}, GraphError, "node type 'shop' is unknown"),
    ({"uniform": {"tag": 0}}, ValueError, "uniform['tag'] must be at least 1"),
    ({"nodes": []}, ValueError, "nodes must be integers [n], at least one, got float64[0]"),
    ({"nodes": [1.0]}, ValueError, "nodes must be integers [n]"),
    ({"nodes": [3, 70]}, GraphError, "nodes must be in [0, 70), got 3 to 70"),
    ({"nodes": [-1]}, GraphError, "nodes must be in [0, 70), got -1 to -1"),
    ({"nodes": [3, 4, 3]}, ValueError, "nodes must be there once each"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"trials": 0}, ValueError, "trials must be at least 1, got 0"),
    ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ({"labels": np.zeros(69, int)}, GraphError, "labels have 69 rows, but the graph has 70 nodes of 'item'"),
    ({"labels": 3}, GraphError, "labels must be integers [N] or [N, C], got int64[]"),
    ({"batch_size": 2.5}, TypeError, "batch_size must be an integer, got 2.5"),
    ({"batch_size": True}, TypeError, "batch_size must be an integer, got True"),
    ({"uniform": {"tag": 1.5}}, TypeError, "uniform['tag'] must be an integer, got 1.5"),
    ({"fanouts": []}, ValueError, "fanouts must have at least one hop"),
    ({"fanouts": 5}, TypeError, "fanouts must have one entry a hop, such as [10, 10] for two, got 5"),
    ({"resident": "tag"}, TypeError, "resident must be a collection of node types such as ['tag'], got 'tag'"),
    ({"teacher": SimpleNamespace(num_logits=70, num_rows={"shop": 3})}, GraphError,
     "the teacher's embeddings of 'shop' have 3 rows, but the graph has 0 nodes"),
    ({"teacher": SimpleNamespace(num_logits=71, num_rows={})}, GraphError, "the teacher's logits have 71 rows"),
])  # fmt: skip
def test_what_does_not_fit_is_named(source_of, change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        source_of(**change)


def test_places_that_an_epoch_does_not_have(source_of):
    source = source_of()
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"an epoch has the batches 0 to 3, got {index}"):
            source(0, index)
    for epoch, index, error, message in ((-1, 0, ValueError, "epoch must be at least 0, got -1"),
                                         (0.0, 0, TypeError, "epoch must be an integer, got 0.0"),
                                         (0, 0.0, TypeError, "index must be an integer, got 0.0")):
        with pytest.raises(error, match=message):
            source(epoch, index)
        with pytest.raises(error, match=message):
            source.sample(epoch, index)
    for indices, size, message in (([-1], 0, "index must be at least 0, got -1"), ([], 0, "at least one batch"),
                                   ([0], 3, "at_least must be at most"), ([0], -1, "at_least must be at least 0")):
        with pytest.raises(ValueError, match=message):
            source.side_by_side(0, indices, at_least=size)


def test_types_that_cannot_be_drawn_or_kept_on_the_device(awkward):
    host = HostGraph.from_graph(awkward)
    settings = {"target": "paper", "nodes": [0], "batch_size": 1, "fanouts": [1]}
    with pytest.raises(GraphError, match="resident 'author' has sparse features"):
        BatchSource(host, **settings, resident=["paper", "author"])
    empty = HostGraph.from_arrays({"paper": 1, "none": 0}, {})
    with pytest.raises(ValueError, match=re.escape("uniform['none'] asks for nodes of a type that has none")):
        BatchSource(empty, **settings, uniform={"none": 2})


def test_the_order_of_arguments_does_not_matter(source_of, assert_same):
    one, other = ({"item": 3, "tag": 2}, {"tag": 2, "item": 3})
    assert_same(source_of(uniform=one)(0, 1), source_of(uniform=other)(0, 1))


@pytest.mark.parametrize("change", [
    {"nodes": np.arange(6, 46)}, {"batch_size": 11}, {"fanouts": [3, 3]}, {"replace": True}, {"seed": 6},
    {"uniform": {"tag": 3}}, {"shuffle": False}, {"graph": HostGraph.from_arrays({"item": 70, "tag": 12}, {})},
    {"fanouts": [{("a", "b", "c"): 3}, 2], "graph": HostGraph.from_arrays({"item": 70, "tag": 12, "a": 1, "c": 1},
                                                                          {("a", "b", "c"): [[0], [0]]})},
])  # fmt: skip
def test_a_signature_is_of_all_that_decides_which_batches(source_of, change):
    assert source_of().signature() == source_of(labels=None, trials=2).signature()
    assert source_of(**change).signature() != source_of().signature()


def test_a_copy_in_another_process_gives_the_same_batches(source_of, assert_same):
    source = source_of()
    copy = pickle.loads(pickle.dumps(source))
    assert copy.sizes == source.sizes and copy.signature() == source.signature()
    for place in ((0, 0), (3, 2)):
        assert_same(copy(*place), source(*place))
