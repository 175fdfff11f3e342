"""A sampled graph, padded: the blocks, features and relations that a `HeteroGraph` of the same edges would have."""

import tracemalloc

import jax
import numpy as np
import pytest

from hire_jax import HeteroGraph, SparseFeatures
from hire_jax.sampling import HostGraph, NeighbourSampler
from hire_jax.sampling.padding import sizes_of
from hire_jax.sampling.patterns import padded_graph

SEEDS = [(0, {"paper": np.array([4, 0])})]


def padded(graph, fanouts, groups=SEEDS, *, more=(0, 0, 0), seed=0, **options):
    host = HostGraph.from_graph(graph)
    sample = NeighbourSampler(host, fanouts).sample(groups, np.random.default_rng(seed))
    sizes = sizes_of(sample, host)
    for part, extra in zip((sizes.nodes, sizes.edges, sizes.entries), more, strict=True):
        part.update({name: size + extra for name, size in part.items()})
    return sample, padded_graph(host, sample, sizes, **options)


@pytest.mark.parametrize("more", [(0, 0, 0), (4, 7, 3), (0, 5, 0), (30, 1, 40)])
@pytest.mark.parametrize("fanouts", [[-1, -1, -1], [2, 1], [0]])
def test_it_is_the_graph_that_would_be_built_of_its_edges(awkward, fanouts, more):
    _, ours = padded(awkward, fanouts, more=more)
    theirs = HeteroGraph.from_arrays(ours.num_nodes, ours.host_edges(), ours.features)
    assert ours.edge_types == awkward.edge_types and ours.node_types == awkward.node_types
    assert ours.blocks.keys() == theirs.blocks.keys()
    for pair, block in ours.blocks.items():
        other = theirs.blocks[pair]
        assert block.edge_types == other.edge_types and block.adjacency is None and block.csr.shape == other.csr.shape
        for name in ("rows", "indptr", "t_rows", "t_indptr"):  # the same whatever the order within a row
            np.testing.assert_array_equal(getattr(block.csr, name), getattr(other.csr, name))
        np.testing.assert_array_equal(block.mean, other.mean)
        np.testing.assert_array_equal(block.t_mean, np.asarray(block.mean)[block.csr.t_entries])
        np.testing.assert_array_equal(block.csr.t_rows, block.csr.cols[block.csr.t_entries])
        np.testing.assert_array_equal(block.csr.t_cols, block.csr.rows[block.csr.t_entries])
        order = np.lexsort((block.csr.cols, block.csr.rows))
        np.testing.assert_array_equal(block.csr.cols[order], np.asarray(other.csr.cols)[
            np.lexsort((other.csr.cols, other.csr.rows))])
        for edge_type, values in block.split(block.csr.rows).items():  # each relation's entries in its own order
            np.testing.assert_array_equal(values, ours.relations[edge_type].receivers)
            np.testing.assert_array_equal(block.split(block.csr.cols)[edge_type] // len(block.edge_types),
                                          ours.relations[edge_type].senders)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), graph.relations) for graph in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("more", [(0, 1, 1), (3, 20, 9)])
def test_what_fills_up_is_among_dummies(awkward, more):
    sample, graph = padded(awkward, [-1, -1], more=more)
    for (source, relation, destination), edges in sample.edges.items():
        padding = graph.relations[source, relation, destination]
        size = edges.senders.size
        np.testing.assert_array_equal(padding.senders[:size], edges.senders)
        assert np.all(padding.senders[size:] >= sample.nodes[source].size)
        assert np.all(padding.receivers[size:] >= sample.nodes[destination].size)
        assert padding.senders.size == size + more[1] and padding.n_edge.tolist() == [size + more[1]]
    if more[0]:  # evenly, so that no row is long
        counts = np.bincount(padding.receivers[size:])[sample.nodes[destination].size:]
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("more", [(0, 0, 0), (2, 2, 6)])
def test_features_are_those_of_the_nodes(awkward, more):
    positions = {"paper": np.arange(14, dtype=np.float32).reshape(7, 2)}
    sample, graph = padded(awkward.with_positions(positions), [-1, -1], more=more)
    papers, authors = sample.nodes["paper"], sample.nodes["author"]
    assert set(graph.features) == {"paper", "author"}
    for rows, whole in ((graph.features["paper"], np.asarray(awkward.features["paper"])),
                        (graph.positions["paper"], positions["paper"])):
        np.testing.assert_array_equal(rows[:papers.size], whole[papers])
        assert len(rows) == papers.size + 1 + more[0] and not np.any(rows[papers.size:])
    words = graph.features["author"]
    assert words.shape == (authors.size + 1 + more[0], 4)
    whole = np.asarray(awkward.features["author"].todense())
    np.testing.assert_array_equal(words.todense()[:authors.size], whole[authors])
    assert not np.any(words.todense()[authors.size:])
    np.testing.assert_array_equal(words.t_data, words.data[words.csr.t_entries])
    weights = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    gradient = jax.grad(lambda w: (words @ w)[:authors.size].sum())(weights)
    np.testing.assert_allclose(gradient, np.repeat(whole[authors].sum(0)[:, None], 2, axis=1))


def test_edge_features_go_with_their_edges(awkward_arrays, rng):
    nodes, edges, _ = awkward_arrays
    writes = "author", "writes", "paper"
    values = rng.normal(size=(6, 2)).astype(np.float32)
    graph = HeteroGraph.from_arrays(nodes, edges, edge_features={writes: values})
    sample, batch = padded(graph, [2], more=(1, 3, 0))
    entries = sample.edges[writes].entries
    np.testing.assert_array_equal(batch.relations[writes].edges[:entries.size],
                                  np.asarray(graph.relations[writes].edges)[entries])
    assert batch.relations[writes].edges.shape == (entries.size + 3, 2)


def test_large_arrays_are_not_copied_to_a_cpu(awkward):
    _, graph = padded(awkward, [-1], more=(100, 0, 0))
    assert graph.features["paper"].ctypes.data % 64 == 0 == graph.features["paper"].size % 6
    assert jax.device_put(graph.features["paper"]).unsafe_buffer_pointer() == graph.features["paper"].ctypes.data


@pytest.mark.parametrize("columns", [slice(None), slice(8)])
def test_rows_of_a_map_are_read_alone(tmp_path, columns):
    """Of one in Fortran's order too, and of some columns of another."""
    values = np.arange(20_000 * 32, dtype=np.float32).reshape(20_000, 32)
    np.save(tmp_path / "x.npy", np.asfortranarray(values) if columns == slice(None) else values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")[:, columns]
    assert not mapped.flags.c_contiguous
    host = HostGraph.from_arrays({"a": 20_000}, {}, {"a": mapped})
    sample = NeighbourSampler(host, [1]).sample([(0, {"a": np.array([19_999, 3])})], np.random.default_rng(0))
    sizes = sizes_of(sample, host)
    tracemalloc.start()
    try:
        graph = padded_graph(host, sample, sizes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(graph.features["a"][:2], values[:, columns][sample.nodes["a"]])
    assert peak < 100_000  # of which the map has 2,560,000 or a quarter


def test_features_can_be_left_out(awkward):
    _, graph = padded(awkward, [-1], without={"author"})
    assert set(graph.features) == {"paper"}


def test_types_without_nodes_and_features_without_columns():
    nothing = SparseFeatures.from_csr([0], np.zeros(0, int), np.zeros(0, np.float32), (0, 3))
    graph = HeteroGraph.from_arrays(
        {"paper": 5, "none": 0, "bare": 2}, {("none", "of", "paper"): np.zeros((2, 0), int),
                                             ("bare", "of", "paper"): [[1], [4]]},
        {"none": nothing, "bare": np.zeros((2, 0))})
    sample, batch = padded(graph, [2, 2], more=(0, 2, 2))
    assert sample.nodes["none"].size == 0 and batch.num_nodes == {"paper": 3, "none": 1, "bare": 2}
    assert batch.features["none"].shape == (1, 3) and batch.features["bare"].shape == (2, 0)
    assert batch.blocks["none", "paper"].csr.cols.tolist() == [0, 0]
