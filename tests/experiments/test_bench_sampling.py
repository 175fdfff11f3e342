"""The bench of sampling on a few thousand edges."""

import json
import sys

import numpy as np
import pytest
from rich.console import Console

from experiments import bench_sampling
from experiments.bench_sampling import EDGES, NODES, Ours, Settings, arrays

SMALL = Settings(edges=4000, features=4, batch_size=16, fanouts=(3, 2), workers=2, batches=2, repeats=2)


def test_the_graph_has_the_proportions_it_says():
    nodes, edges, features = arrays(SMALL)
    assert set(nodes) == set(NODES) and len(edges) == 2 * len(EDGES)
    assert sum(array.shape[1] for array in edges.values()) == pytest.approx(4000, rel=0.01)
    for (source, relation, destination), array in edges.items():
        assert array[0].max() < nodes[source] and array[1].max() < nodes[destination]
        if not relation.startswith("rev_"):
            np.testing.assert_array_equal(edges[destination, f"rev_{relation}", source], array[::-1])
    assert {name: x.shape for name, x in features.items()} == {name: (count, 4) for name, count in nodes.items()}


def test_degrees_have_a_heavy_tail():
    _, edges, _ = arrays(Settings(edges=100_000, features=1))
    degrees = np.bincount(edges["paper", "cites", "paper"][1])
    assert degrees.max() > 5 * degrees.mean()


def test_it_measures_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_sampling, "memory_apart", lambda name, settings: settings.edges * 1000)
    facts = bench_sampling.main(Settings(**(vars(SMALL) | {"out": tmp_path})), Console(width=100))
    assert json.loads((tmp_path / "sampling.json").read_text()) == facts
    assert list(facts["seconds"]) == ["hire_jax, sample", "hire_jax, batch", "hire_jax, loader"]
    assert all(len(values) == 2 and min(values) > 0 for values in facts["seconds"].values())
    assert facts["memory"] == {"hire_jax": 4_000_000} and 16 < facts["nodes"] and 16 < facts["edges"]
    assert "4,000 edges, 16 seeds, neighbours [3, 2]" in capsys.readouterr().out


def test_contenders_go_through_the_run_batch_by_batch():
    ours, places = Ours(SMALL, arrays(SMALL)), []
    call = ours.timed(lambda epoch, index: places.append((epoch, index)))
    call(), call()
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_a_peer_that_draws_other_batches_is_refused():
    bench_sampling.compare((1000, 5000), (1040, 4800))
    with pytest.raises(ValueError, match="a batch of PyG has 1100 nodes, one of ours 1000"):
        bench_sampling.compare((1000, 5000), (1100, 5000))


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "experiments.peers.sampling", None)
    assert bench_sampling.peer_module(Console()) is None
    assert "PyG is left out" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_pyg_draws_batches_of_the_same_size():
    peer = pytest.importorskip("experiments.peers.sampling", exc_type=ImportError)
    given = arrays(SMALL)
    ours, theirs = Ours(SMALL, given), bench_sampling.their_loader(peer, SMALL, given)
    assert theirs() > 0 and theirs.sample_only() > 0
    for a, b in zip(ours.counts(), theirs.counts(), strict=True):  # of one draw each, and small ones
        assert abs(a - b) < 0.5 * a
