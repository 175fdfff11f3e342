"""The sampler: which nodes and edges, how many, with what probability, and what it refuses."""

import re
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hire_jax import GraphError
from hire_jax.sampling import HostGraph, NeighbourSampler
from hire_jax.sampling.neighbours import distinct_places

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")


def stream(seed=0):
    return np.random.default_rng(seed)


def random_graph(seed=0, papers=60, authors=40, edges=300):
    rng = stream(seed)
    return HostGraph.from_arrays({"paper": papers, "author": authors}, {
        WRITES: np.stack([rng.integers(0, authors, edges), (papers * rng.random(edges) ** 2).astype(int)]),
        CITES: np.stack([rng.integers(0, papers, edges), (papers * rng.random(edges) ** 2).astype(int)]),
        ("paper", "rev_writes", "author"): np.stack([rng.integers(0, papers, edges), rng.integers(0, authors, edges)])})


def global_edges(sample, edge_type):
    edges = sample.edges[edge_type]
    return sample.nodes[edge_type[0]][edges.senders], sample.nodes[edge_type[2]][edges.receivers]


def distances(host, seeds, hops):
    """{type: how many hops each node is from the seeds, `hops` + 1 where more}, by searching breadth first."""
    far = {name: np.full(count, hops + 1) for name, count in host.counts.items()}
    for name, ids in seeds.items():
        far[name][ids] = 0
    for hop in range(hops):
        for (source, _, destination), incoming in host.relations.items():
            receivers = np.repeat(np.arange(host.counts[destination]), np.diff(incoming.indptr))
            np.minimum.at(far[source], incoming.senders[far[destination][receivers] == hop], hop + 1)
    return far


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanouts", [[2], [3, 2], [-1, 2, 0], [-1, -1], [{WRITES: 2, CITES: -1,
                                                                           ("paper", "rev_writes", "author"): 0}, 4]])
def test_every_node_met_has_its_fan_out(fanouts, replace):
    host = random_graph()
    sampler = NeighbourSampler(host, fanouts, replace=replace)
    seeds = np.array([7, 0, 33])
    sample = sampler.sample([(0, {"paper": seeds})], stream())
    assert set(sample.nodes["paper"][:3]) == set(seeds)
    np.testing.assert_array_equal(sample.nodes["paper"][sample.rows[0]["paper"]], seeds)
    assert all(np.unique(ids).size == ids.size for ids in sample.nodes.values())
    depth = {"paper": np.full(60, 99), "author": np.full(40, 99)}  # the hop each node was met at
    depth["paper"][seeds] = 0
    for hop, fanout in enumerate(sampler.fanouts):
        for edge_type in host.relations:
            senders, receivers = global_edges(sample, edge_type)
            incoming, of_hop = host.relations[edge_type], depth[edge_type[2]][receivers] == hop
            counts = np.bincount(receivers[of_hop], minlength=incoming.indptr.size - 1)
            degree, k = np.diff(incoming.indptr), fanout[edge_type]
            expected = degree if k == -1 else np.where(degree > 0, k, 0) if replace else np.minimum(degree, k)
            np.testing.assert_array_equal(counts, np.where(depth[edge_type[2]] == hop, expected, 0))
            met = depth[edge_type[0]]
            met[senders[of_hop]] = np.minimum(met[senders[of_hop]], hop + 1)
    for name, ids in sample.nodes.items():  # nobody is there without a reason
        np.testing.assert_array_equal(np.sort(ids), np.flatnonzero(depth[name] < 99))


@pytest.mark.parametrize("replace", [False, True])
def test_edges_are_those_of_the_graph(replace):
    host = random_graph()
    sample = NeighbourSampler(host, [3, 3], replace=replace).sample([(0, {"author": np.arange(9)})], stream())
    for edge_type, edges in sample.edges.items():
        senders, receivers = global_edges(sample, edge_type)
        incoming = host.relations[edge_type]
        np.testing.assert_array_equal(incoming.senders[edges.entries], senders)
        assert np.all((incoming.indptr[receivers] <= edges.entries) & (edges.entries < incoming.indptr[receivers + 1]))
        assert np.all(np.diff(edges.receivers) >= 0)
        if not replace:
            assert np.unique(edges.entries).size == edges.entries.size
    assert any(edges.senders.size for edges in sample.edges.values())


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_all_neighbours_are_the_graph_around_the_seeds(hops):
    host = random_graph(edges=90)
    seeds = {"paper": np.array([59, 41]), "author": np.array([3])}
    sample = NeighbourSampler(host, [-1] * hops).sample([(0, seeds)], stream())
    far = distances(host, seeds, hops)
    for name, ids in sample.nodes.items():
        np.testing.assert_array_equal(np.sort(ids), np.flatnonzero(far[name] <= hops))
    for edge_type, edges in sample.edges.items():
        receivers = np.repeat(np.arange(host.counts[edge_type[2]]), np.diff(host.relations[edge_type].indptr))
        expected = np.flatnonzero(far[edge_type[2]][receivers] < hops)
        np.testing.assert_array_equal(np.sort(edges.entries), expected)


def test_what_enters_later_has_fewer_hops_around_it():
    host = random_graph(edges=90)
    groups = [(0, {"paper": np.array([59])}), (1, {"author": np.array([3, 8])}), (2, {"author": np.array([5])})]
    sample = NeighbourSampler(host, [-1, -1]).sample(groups, stream())
    far = distances(host, groups[0][1], 2)
    for late, nodes in groups[1:]:
        for name, reach in distances(host, nodes, 2 - late).items():
            far[name] = np.minimum(far[name], np.where(reach <= 2 - late, reach + late, 3))
    for name, ids in sample.nodes.items():
        np.testing.assert_array_equal(np.sort(ids), np.flatnonzero(far[name] <= 2))
    for (_, nodes), rows in zip(groups, sample.rows, strict=True):
        for name, ids in nodes.items():
            np.testing.assert_array_equal(sample.nodes[name][rows[name]], ids)


@given(st.integers(1, 12), st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(0, 9))
def test_places_are_distinct_and_inside(count, extra, seed):
    populations = count + np.array(extra)
    places = distinct_places(populations, count, stream(seed))
    assert places.shape == (count, populations.size) and places.min() >= 0 and np.all(places < populations)
    assert np.all(np.diff(np.sort(places, axis=0), axis=0) > 0)


@pytest.mark.parametrize("population, count", [(5, 2), (6, 5), (4, 3)])
def test_every_set_of_places_is_as_likely(population, count):
    draws = 20_000
    places = np.sort(distinct_places(np.full(draws, population), count, stream()), axis=0)
    seen = Counter(map(tuple, places.T.tolist()))
    share = 1 / len(seen)
    assert len(seen) == {(5, 2): 10, (6, 5): 6, (4, 3): 4}[population, count]
    deviation = max(abs(number / draws - share) for number in seen.values())
    assert deviation < 5 * np.sqrt(share * (1 - share) / draws)


def test_neighbours_with_replacement_are_as_likely():
    host = HostGraph.from_arrays({"a": 5}, {("a", "to", "a"): [[1, 2, 3, 4], [0, 0, 0, 0]]})
    sample = NeighbourSampler(host, [20_000], replace=True).sample([(0, {"a": np.array([0, 1])})], stream())
    senders, receivers = global_edges(sample, ("a", "to", "a"))
    shares = np.bincount(senders, minlength=5) / 20_000
    assert set(receivers) == {0}  # node 1 has no neighbour to draw
    assert shares[0] == 0 and np.abs(shares[1:] - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 20_000)


def test_the_same_stream_gives_the_same_sample_in_any_thread():
    host = random_graph()
    sampler = NeighbourSampler(host, [3, 2])

    def drawn(seed):
        sample = sampler.sample([(0, {"paper": np.arange(5)})], stream(seed))
        return [*sample.nodes.values(), *(array for edges in sample.edges.values() for array in edges)]

    expected, found = [drawn(seed) for seed in range(20)], {}
    threads = [threading.Thread(target=lambda some=some: found.update({s: drawn(s) for s in some}))
               for some in (range(0, 20, 2), range(1, 20, 2), range(20))]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(20):
        for a, b in zip(expected[seed], found[seed], strict=True):
            np.testing.assert_array_equal(a, b)
    assert any(a.shape != b.shape or np.any(a != b) for a, b in zip(expected[0], expected[1], strict=True))


def test_an_error_within_a_sample_leaves_no_trace(monkeypatch):
    host = random_graph()
    sampler, groups = NeighbourSampler(host, [3, 2]), [(0, {"paper": np.arange(5)})]
    expected = sampler.sample(groups, stream())
    cites = host.relations[CITES]
    with monkeypatch.context() as patch:
        patch.setitem(host.relations, CITES, cites.__class__(cites.indptr, cites.senders[:3]))
        with pytest.raises(IndexError):
            sampler.sample(groups, stream())
    again = sampler.sample(groups, stream())
    for name, ids in expected.nodes.items():
        np.testing.assert_array_equal(again.nodes[name], ids)


@pytest.mark.parametrize("fanouts, error, message", [
    ([], ValueError, "fanouts must have at least one hop"),
    ([2, -2], ValueError, "fanouts[1] of (author, writes, paper) must be an integer, -1 for all neighbours, got -2"),
    (5, TypeError, "fanouts must have one entry a hop, such as [10, 10] for two, got 5"),
    ({WRITES: [2, 2]}, TypeError, "fanouts must have one entry a hop"),
    ("22", TypeError, "fanouts must have one entry a hop"),
    ([True], ValueError, "got True"),
    ([2.0], ValueError, "got 2.0"),
    ([{WRITES: 1, CITES: 1}], GraphError, "fanouts[0] lacks (paper, rev_writes, author)"),
    ([{WRITES: 1, CITES: 1, ("paper", "rev_writes", "author"): 1, ("a", "b", "c"): 1}], GraphError,
     "fanouts[0] has (a, b, c)"),
])  # fmt: skip
def test_fan_outs_that_do_not_fit(fanouts, error, message):
    with pytest.raises(error, match=re.escape(message)):
        NeighbourSampler(random_graph(), fanouts)


@pytest.mark.parametrize("hop, nodes, error, message", [
    (0, {"paper": [60]}, GraphError, "nodes to sample around: got 60 to 60 of type 'paper', but the graph has 60"),
    (0, {"paper": [3, -1]}, GraphError, "nodes to sample around: got -1 to 3 of type 'paper'"),
    (0, {"venue": [0]}, GraphError, "nodes to sample around: type 'venue' is unknown; the graph has ['paper'"),
    (0, {"venue": []}, GraphError, "type 'venue' is unknown"),
    (0, {"paper": np.ones(60, bool)}, GraphError, "those of type 'paper' must be integers [n], got bool[60]"),
    (0, {"paper": [1.7]}, GraphError, "must be integers [n], got float64[1]"),
    (0, {"paper": [[1, 2]]}, GraphError, "must be integers [n], got int64[1, 2]"),
    (-1, {"paper": [1]}, ValueError, "a set of nodes must enter at hop 0, the seeds', or later, got -1"),
    (0.5, {"paper": [1]}, TypeError, "cannot be interpreted as an integer"),
])  # fmt: skip
def test_what_cannot_be_sampled_around(hop, nodes, error, message):
    with pytest.raises(error, match=re.escape(message)):
        NeighbourSampler(random_graph(), [1]).sample([(hop, nodes)], stream())


def test_no_nodes_at_all_are_sampled_around():
    sample = NeighbourSampler(random_graph(), [1]).sample([(0, {"paper": []})], stream())
    assert not sample.nodes["paper"].size and sample.rows[0]["paper"].shape == (0,)
