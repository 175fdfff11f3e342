"""Batches by their place and ahead of time: the same with any number of threads, and no thread that stays."""

import json
import re
import signal
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hire_jax import GraphError
from hire_jax.models import RGCN
from hire_jax.sampling import BatchLoader, BatchSource, HostGraph, batch_variables
from hire_jax.supervised import cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def host(planted):
    return HostGraph.from_graph(planted.graph)


def source_of(host, **changes):
    settings = {"target": "item", "nodes": np.arange(5, 45), "batch_size": 12, "fanouts": [3, 2], "uniform": {"tag": 2},
                "labels": np.arange(70) % 3, "seed": 5}
    return BatchSource(host, **(settings | changes))


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def seeds_of(batch):
    where = np.asarray(batch.seeds.where)
    return np.asarray(batch.ids["item"])[np.asarray(batch.seeds.index["item"])][where].tolist()


def sampling_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sampling")]


def test_an_epoch_has_every_node_once_in_an_order_of_its_own(host):
    source = source_of(host)
    epochs = [[seeds_of(source(epoch, index)) for index in range(len(source))] for epoch in (0, 1, 0)]
    assert len(source) == 4 and [len(seeds) for seeds in epochs[0]] == [12, 12, 12, 4]
    joined = [[node for seeds in epoch for node in seeds] for epoch in epochs]
    assert sorted(joined[0]) == sorted(joined[1]) == list(range(5, 45))
    assert joined[0] != joined[1] and joined[0] == joined[2]
    ordered = source_of(host, shuffle=False, nodes=[9, 3, 40, 2], batch_size=3)
    assert [seeds_of(ordered(7, index)) for index in range(2)] == [[9, 3, 40], [2]]


def test_a_batch_knows_its_rows(host):
    batch = source_of(host)(0, 3)
    assert batch.seeds.where.tolist() == [True] * 4 + [False] * 8
    ids = batch.ids["item"][batch.seeds.index["item"]]
    np.testing.assert_array_equal(batch.seeds.labels, ids % 3)
    assert batch.uniform.labels is None and batch.uniform.index["tag"].shape == (2,) and batch.seeds.teacher is None
    assert all(not np.any(batch.ids[name][number:]) for name, number in batch.real.items())
    assert source_of(host, labels=None, uniform=None)(0, 0).uniform is None


def test_a_batch_depends_on_its_place_alone(host):
    first, second = source_of(host), source_of(host)
    second(4, 1)
    assert_same(first(1, 2), second(1, 2))
    other = source_of(host, seed=6)
    assert seeds_of(other(1, 2)) != seeds_of(first(1, 2))
    edges = [source(0, 0).graph.host_edges() for source in (source_of(host, shuffle=False), source_of(
        host, shuffle=False, seed=6))]  # fmt: skip
    assert any(a.shape != b.shape or np.any(a != b) for a, b in zip(edges[0].values(), edges[1].values(), strict=True))


def test_every_batch_draws_anew(host):
    source = source_of(host, uniform={"user": 9}, shuffle=False)
    drawn = []
    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        batch = source(*place)
        drawn.append(tuple(np.sort(batch.ids["user"][batch.uniform.index["user"]])))
    assert len(set(drawn)) == 4


def test_orders_of_old_epochs_are_not_kept(host):
    source = source_of(host)
    for epoch in range(9):
        source.sample(epoch, 0)
    assert set(source._orders) == {7, 8}


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (2, 1), (3, 5), (2, 12)])
def test_threads_change_nothing(host, workers, prefetch):
    source = source_of(host)
    with BatchLoader(source, workers=workers, prefetch=prefetch) as loader:
        assert len(loader) == 4
        for epoch in range(3):
            batches = list(loader)
            assert len(batches) == 4 and isinstance(batches[0].ids["item"], jax.Array)
            for index, batch in enumerate(batches):
                assert_same(batch, source(epoch, index))
    assert not sampling_threads()


def test_a_run_can_go_on_from_where_it_was(host):
    source = source_of(host)
    with BatchLoader(source, workers=2) as loader:
        list(loader)
        rest = iter(loader)
        next(rest)
        state = json.loads(json.dumps(loader.state()))
        assert state == {"epoch": 1, "batch": 1}
        expected = [seeds_of(batch) for batch in (*rest, *loader)]
    with BatchLoader(source_of(host)) as loader:
        next(iter(loader))  # whatever was made ahead is of no use
        loader.restore(state)
        assert [seeds_of(batch) for batch in (*loader, *loader)] == expected
        assert len(expected) == 3 + 4 and loader.state() == {"epoch": 3, "batch": 0}
        for wrong in ({"epoch": 0, "batch": 4}, {"epoch": -1, "batch": 0}, {"epoch": 0, "batch": -1}):
            with pytest.raises(ValueError, match="expected an epoch from 0 on and a batch from 0 to 3"):
                loader.restore(wrong)


class Counted:
    """A source whose batches are their places; batch `fails` runs `how` first."""

    def __init__(self, fails=None, how=None):
        self.asked, self.fails, self.how = [], fails, how

    def __len__(self):
        return 10

    def __call__(self, epoch, index):
        self.asked.append(epoch * 10 + index)
        if self.asked[-1] == self.fails and self.how is not None:
            self.how()
        return np.array(epoch * 10 + index)


def test_no_more_is_made_ahead_than_asked_for():
    source = Counted()
    with BatchLoader(source, workers=3, prefetch=4) as loader:
        for number, batch in enumerate(loader):
            assert batch == number and max(source.asked) <= number + 4
        assert [int(batch) for batch in loader] == list(range(10, 20))
    assert sorted(source.asked)[:20] == list(range(20)) and len(source.asked) <= 24


def failing():
    raise RuntimeError("a damaged file")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_threads_error_comes_when_its_batch_is_due(workers):
    source, seen = Counted(4, failing), []
    with BatchLoader(source, workers=workers, prefetch=3) as loader:
        with pytest.raises(RuntimeError, match="a damaged file"):
            for batch in loader:
                seen.append(int(batch))
        assert seen == [0, 1, 2, 3] and loader.state() == {"epoch": 0, "batch": 4}
        with pytest.raises(RuntimeError, match="a damaged file"):  # it is made again, and fails again
            next(iter(loader))
        source.how = None
        assert [int(batch) for batch in loader] == [4, 5, 6, 7, 8, 9]
    assert not sampling_threads()


def test_an_error_in_the_loop_leaves_no_thread():
    with pytest.raises(ZeroDivisionError), BatchLoader(Counted(), workers=2) as loader:
        for _ in loader:
            1 / 0  # noqa: B018
    assert not sampling_threads()
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(iter(loader))
    loader.close()  # a second time


def test_ctrl_c_while_waiting_leaves_no_thread():
    """The signal comes while the main thread waits for the batch whose thread sends it."""
    source = Counted(3, lambda: (signal.raise_signal(signal.SIGINT), threading.Event().wait(0.2)))
    seen = []
    with pytest.raises(KeyboardInterrupt), BatchLoader(source, prefetch=1) as loader:
        for batch in loader:
            seen.append(int(batch))
    assert seen == [0, 1, 2] and not sampling_threads()


def test_a_loader_that_is_forgotten_leaves_no_thread():
    loader = BatchLoader(Counted(), workers=2)
    threads = [next(iter(loader)), *sampling_threads()][1:]
    del loader
    for thread in threads:
        thread.join(timeout=30)
    assert threads and not any(thread.is_alive() for thread in threads)


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


def test_a_run_is_compiled_once(host, parameters):
    assert compilations(host, parameters, source_of(host), epochs=5) == 1


def test_a_run_is_compiled_three_times_at_most(parameters):
    """Trials that tell nothing: the first batch is of nodes without neighbours, the last ones are of hubs."""
    degrees = np.repeat([0, 25, 0, 300, 200, 600], 4)
    receivers = np.repeat(np.arange(24), degrees)
    host = HostGraph.from_arrays(
        {"item": 24, "tag": 4000}, {("tag", "of", "item"): np.stack([np.arange(receivers.size) % 4000, receivers])},
        {"item": np.ones((24, 2)), "tag": np.ones((4000, 2))})
    source = BatchSource(host, target="item", nodes=np.arange(24), batch_size=4, fanouts=[-1, -1], shuffle=False,
                         labels=np.arange(24) % 3, trials=1)
    assert len(source.sizes) == 3
    sizes = [source(0, index).graph.num_nodes["tag"] for index in range(6)]
    assert sizes == [64, 128, 64, 4001, 4001, 4001]
    assert compilations(host, parameters, source, epochs=2) == 3


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
    ({"batch_size": 2.5}, TypeError, "cannot be interpreted as an integer"),
    ({"uniform": {"tag": 1.5}}, TypeError, "cannot be interpreted as an integer"),
    ({"fanouts": []}, ValueError, "fanouts must have at least one hop"),
    ({"teacher": SimpleNamespace(num_logits=70, num_rows={"shop": 3})}, GraphError,
     "the teacher's embeddings of 'shop' have 3 rows, but the graph has 0 nodes"),
    ({"teacher": SimpleNamespace(num_logits=71, num_rows={})}, GraphError, "the teacher's logits have 71 rows"),
])  # fmt: skip
def test_what_does_not_fit_is_named(host, change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        source_of(host, **change)


def test_places_that_an_epoch_does_not_have(host):
    source = source_of(host)
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"an epoch has the batches 0 to 3, got {index}"):
            source(0, index)
    for arguments in ({"workers": 0}, {"prefetch": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            BatchLoader(source, **arguments)
