"""Static sizes: what nearly all batches take, and a last one that holds whatever is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax import SparseFeatures
from hire_jax.sampling import HostGraph, NeighbourSampler
from hire_jax.sampling.padding import Sizes, bound_of, ladder, sizes_of, smallest

TO = "a", "to", "b"


def sizes(a, b, edges, entries=0):
    return Sizes({"a": a, "b": b}, {TO: edges}, {"a": entries})


def test_a_ladder_of_three():
    first, second, third = ladder([sizes(1000, 90, 5000, 7), sizes(900, 110, 4000)], sizes(2000, 200, 10**6, 90),
                                  heaviest=sizes(1100, 90, 90_000, 7))
    assert first == sizes(1152, 128, 5504, 64)  # multiples of 64 above 1.1 times the largest of each
    assert second == sizes(1792, 200, 99_008, 90)  # 1.5 times that, the bound, and 1.1 times the heaviest
    assert third == sizes(2000, 200, 10**6, 90)
    assert first.holds(sizes(1152, 1, 0)) and not first.holds(sizes(1153, 1, 0)) and not first.holds(sizes(1, 1, 9999))


def test_the_second_step_is_half_the_way_to_a_bound_that_is_far():
    _, second, _ = ladder([sizes(1000, 90, 5000)], sizes(1152 * 100, 10**6, 5504 * 2))
    assert second == sizes(11520, 11313, 8320)


def test_a_ladder_never_exceeds_the_bound():
    assert ladder([sizes(1000, 90, 5000)], sizes(1010, 95, 5001)) == (sizes(1010, 95, 5001),)
    assert ladder([sizes(1, 1, 0)], sizes(100, 1, 0), heaviest=sizes(500, 1, 0)) == (sizes(64, 1, 0), sizes(100, 1, 0))


def test_the_smallest_step_that_holds():
    steps = sizes(10, 10, 10), sizes(20, 20, 20)
    assert [smallest(steps, sizes(n, 1, 1)).nodes["a"] for n in (1, 10, 11, 20)] == [10, 10, 20, 20]
    with pytest.raises(ValueError, match="more than the bound"):
        smallest(steps, sizes(1, 1, 21))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.lists(st.integers(-1, 4), min_size=1, max_size=3), st.booleans(), st.integers(0, 3))
def test_no_sample_exceeds_the_bound(seed, fanouts, replace, late):
    rng = np.random.default_rng(seed)
    counts = {"a": int(rng.integers(1, 12)), "b": int(rng.integers(1, 12))}
    number = int(rng.integers(0, 40))
    indptr = np.append(0, np.cumsum(rng.integers(0, 4, counts["a"])))
    words = SparseFeatures.from_csr(indptr, np.zeros(indptr[-1], int), np.ones(indptr[-1]), (counts["a"], 1))
    host = HostGraph.from_arrays(counts, {
        (s, "to", d): np.stack([rng.integers(0, counts[s], number), rng.integers(0, counts[d], number)])
        for s, d in (("a", "b"), ("b", "a"), ("a", "a"))}, {"a": words})
    sampler = NeighbourSampler(host, fanouts, replace=replace)
    seeds, others = (rng.permutation(counts[name])[:3] for name in ("a", "b"))
    sample = sampler.sample([(0, {"a": seeds}), (late, {"b": others})], rng)
    bound = bound_of(sampler, [(0, {"a": seeds.size}), (late, {"b": others.size})])
    assert bound.holds(sizes_of(sample, host))
    if all(fanout == -1 for fanout in fanouts):  # what the first hop brings is known exactly
        alone = bound_of(NeighbourSampler(host, [-1]), [(0, {"a": seeds.size})])
        degrees = np.sort(np.diff(host.relations["b", "to", "a"].indptr))[::-1]
        assert alone.edges["b", "to", "a"] == degrees[:seeds.size].sum()
        assert all(bound.nodes[name] <= count + 1 for name, count in counts.items())
        assert all(bound.edges[edge_type] <= number for edge_type in host.relations)
