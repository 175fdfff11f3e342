"""The growth bench: its graphs have the sizes asked for, its fit is a power law's, and it writes what it measured."""

import json

import numpy as np
import pytest
from rich.console import Console

from experiments import bench_growth
from experiments.bench_growth import Settings, edge_counts, fit_slope, relation_counts, slope_facts
from experiments.bench_growth_figures import edges_figure, relations_figure

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_slope_of_a_power_law_is_its_exponent():
    edges = [1e5, 1e6, 1e7]
    slope, factor = fit_slope(edges, [3e-8 * e**1.25 for e in edges])
    assert slope == pytest.approx(1.25) and factor == pytest.approx(3e-8)


def test_the_fit_leaves_out_small_graphs_and_takes_medians():
    def row(edges, *seconds):
        return {"edges": edges, "seconds": list(seconds)}

    rows = [row(10_000, 9.0, 9.0, 9.0), row(100_000, 1.0, 1.0, 1.0), row(1_000_000, 10.0, 100.0, 10.0)]
    facts = slope_facts(rows)
    assert facts["from_edges"] == 100_000 and facts["slope"] == pytest.approx(1)
    assert facts["turns"] == pytest.approx([1, 2])
    assert slope_facts(rows[:2]) is None


def test_sizes():
    assert edge_counts(10_000_000) == [10_000, 32_000, 100_000, 320_000, 1_000_000, 3_200_000, 10_000_000]
    assert edge_counts(99_999) == [10_000, 32_000]
    assert relation_counts(128) == [2, 4, 8, 16, 32, 64, 128]
    assert relation_counts(100)[-1] == 64


@pytest.mark.parametrize(("make", "types", "pairs"),
                         [(bench_growth.between_one_pair, 2, 2), (bench_growth.between_own_pairs, 5, 8)])
def test_relations_share_the_edges(make, types, pairs):
    graph = make(8, 8_000, 800).graph
    assert len(graph.edge_types) == 8 and len(graph.node_types) == types and len(graph.blocks) == pairs
    assert sum(graph.num_nodes.values()) == 800
    assert all(count == 1000 for count in graph.num_edges.values())


def test_edges_are_those_asked_for():
    graph = bench_growth.between_types(10_000, 1_001).graph
    assert sum(graph.num_edges.values()) == 10_000 and sum(graph.num_nodes.values()) == 1_001


def test_nearby_edges_join_the_same_places():
    dataset = bench_growth.between_nearby(10_000, 1_001)
    like = bench_growth.between_types(10_000, 1_001)
    assert dataset.graph.num_edges == like.graph.num_edges and dataset.graph.num_nodes == like.graph.num_nodes
    for (source, _, destination), (senders, receivers) in dataset.graph.host_edges().items():
        n, m = dataset.graph.num_nodes[source], dataset.graph.num_nodes[destination]
        assert np.abs(senders - receivers * n / m).max() <= 102 and np.corrcoef(senders, receivers)[0, 1] > 0.9
        assert {0, n - 1} <= set(senders.tolist()) and {0, m - 1} <= set(receivers.tolist())


@pytest.mark.slow
def test_it_measures_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_growth, "edge_counts", lambda largest: [400, 800])
    monkeypatch.setattr(bench_growth, "FIT_FROM", 400)
    nearby = bench_growth.between_nearby
    monkeypatch.setattr(bench_growth, "between_nearby", lambda edges, nodes: nearby(edges, 2 * nodes))
    settings = Settings(model="HeteroSAGE", hidden=8, layers=1, max_relations=2, relation_edges=400, repeats=2,
                        out=tmp_path)
    facts = bench_growth.main(settings)
    name = "growth_heterosage"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.json", f"{name}_edges.png", f"{name}_relations.png"]  # fmt: skip
    assert json.loads((tmp_path / f"{name}.json").read_text()) == facts
    assert all([row["edges"] for row in rows] == [400, 800] for rows in facts["edges"].values())
    assert list(facts["edges"]) == list(facts["slope"]) == [bench_growth.ANYWHERE, bench_growth.NEARBY]
    assert [[row["nodes"] for row in rows] for rows in facts["edges"].values()] == [[40, 80], [80, 160]]
    assert all([row["relations"] for row in rows] == [2] for rows in facts["relations"].values())
    every = [*facts["edges"].values(), *facts["relations"].values()]
    for row in (row for rows in every for row in rows):
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0 and row["compile_seconds"] > 0
        assert row["memory_bytes"] > row["edges"] * 8  # at least the two ends of every edge
    printed = capsys.readouterr().out
    assert "Time grows as edges^" in printed and "2 relations, one pair of types: compiled in" in printed


def test_what_does_not_fit_is_left_out(monkeypatch, capsys):
    class Point:
        def __init__(self, dataset, settings):
            self.facts = {"memory_bytes": dataset}

        def __call__(self):
            return 1.0

    monkeypatch.setattr(bench_growth, "Point", Point)
    monkeypatch.setattr(bench_growth, "free_bytes", lambda: 1000)
    sizes = [("small", 100), ("large", 900), ("larger", 5000)]
    rows = bench_growth.measure(sizes, Settings(repeats=1), Console(), "edges")
    assert rows == [{"memory_bytes": 100, "seconds": [1.0]}]
    assert "large and what is larger is left out" in capsys.readouterr().out


def test_the_same_numbers_give_the_same_figures(tmp_path):
    rows = [{"edges": 10**k, "relations": 2**k, "seconds": [10.0 ** (k - 6)] * 3, "compile_seconds": k}
            for k in (4, 5, 6)]  # fmt: skip
    slope = {"slope": 1.0, "factor": 1e-6, "from_edges": 10**5}
    for name in ("a", "b"):
        edges_figure({"one": rows, "other": rows}, {"one": slope, "other": None}, tmp_path / f"edges_{name}.png",
                     title="made up")
        relations_figure({"one": rows, "other": rows}, tmp_path / f"relations_{name}.png")
    for kind in ("edges", "relations"):
        first, second = ((tmp_path / f"{kind}_{name}.png").read_bytes() for name in ("a", "b"))
        assert first == second and first.startswith(b"\x89PNG")
    edges_figure({"one": rows, "other": rows}, {"one": None, "other": None}, tmp_path / "no_line.png", title="made up")
    assert (tmp_path / "no_line.png").read_bytes() != (tmp_path / "edges_a.png").read_bytes()
