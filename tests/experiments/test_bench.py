"""The bench: it runs, its hand count is of the order of XLA's, and it says what a missing peer needs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import experiments
import hire_jax as hj
from experiments import bench
from experiments.bench import Settings
from experiments.bench_contenders import OurEpochs, in_turns, network, ratio, with_metapaths
from experiments.bench_counts import Count, hand_count
from experiments.bench_floors import floors, machine_rates

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(experiments.__file__).resolve().parent.parent
MACHINE = {"matmul_flops": 1e11, "copy_bytes": 1e10, "cached_copy_bytes": 4e10}


@pytest.fixture(scope="module")
def dataset():
    return hj.load_dataset("imdb_gtn")


def run(*arguments, **environment):
    environment = {k: v for k, v in os.environ.items() if k != "HIRE_JAX_DATA"} | environment
    command = [sys.executable, "-m", "experiments.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_it_measures_a_dataset_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "machine_rates", lambda: MACHINE)
    settings = Settings(dataset=("synthetic",), hidden=8, layers=1, repeats=1, epochs=1, seeds=2, out=tmp_path)
    facts = bench.main(settings)
    assert json.loads((tmp_path / "bench.json").read_text())["datasets"] == json.loads(json.dumps(facts["datasets"]))
    result = facts["datasets"]["synthetic"]
    assert set(result["seconds"]) == {"hire_jax, 1 seed", "hire_jax, 2 seeds"}
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in result["seconds"].values())
    assert "2 seeds in one program" in capsys.readouterr().out


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    done = run("--smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "dblp_hgb is skipped" in done.stdout
    facts = json.loads((tmp_path / "smoke" / "bench.json").read_text())
    result = facts["datasets"]["imdb_gtn"]
    assert set(result["seconds"]) == {"hire_jax, 1 seed", "hire_jax, 2 seeds"}
    for seconds in result["seconds"].values():
        assert len(seconds) == 2 and min(seconds) > 0
    assert facts["environment"]["jax"] == jax.__version__
    assert result["seed_cost"] * 2 == pytest.approx(result["times_ours"]["hire_jax, 2 seeds"])


def test_a_missing_peer_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import of a missing package meets
    monkeypatch.delitem(sys.modules, "experiments.peers.pyg", raising=False)
    with pytest.raises(SystemExit) as stopped:
        bench.main(Settings(peer="pyg"))
    assert stopped.value.code == 2
    assert "pip install torch torch_geometric" in capsys.readouterr().err


def test_an_unknown_dataset_is_an_error_and_not_skipped():
    with pytest.raises(SystemExit, match=r"(?s)--dataset: .*Did you mean imdb_gtn"):
        list(bench._datasets(Settings(dataset=("imbd_gtn",)), Console(quiet=True)))


def test_without_names_nothing_is_fetched(tmp_path, monkeypatch):
    def no_connection(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setenv("HIRE_JAX_DATA", str(tmp_path))
    monkeypatch.delenv("HIRE_JAX_OFFLINE", raising=False)
    monkeypatch.setattr(socket, "create_connection", no_connection)
    monkeypatch.setattr(socket, "getaddrinfo", no_connection)
    console = Console(record=True, quiet=False, width=200)
    assert [name for name, _ in bench._datasets(Settings(), console)] == ["imdb_gtn"]
    assert "dblp_hgb is skipped" in console.export_text()


@pytest.mark.slow
def test_hand_count_is_of_the_order_of_the_compiled_count(dataset):
    model = network(dataset, Settings())
    analysis = OurEpochs(dataset, model, epochs=1).compiled.cost_analysis()
    bounds = floors(model, dataset, MACHINE, analysis)
    hand, compiled = bounds["hand count"], bounds["compiled"]
    assert 1 / 3 < hand["flops"] / compiled["flops"] < 3
    assert 1 / 5 < hand["bytes"] / compiled["bytes"] <= 1  # the compiler fuses less than the count supposes
    assert hand["floor_seconds"] == max(hand["flops"] / 1e11, hand["bytes"] / 4e10)
    assert hand["copy_floor_seconds"] == max(hand["flops"] / 1e11, hand["bytes"] / 1e10)


def test_hand_count_of_a_graph_small_enough_to_count():
    edges = np.array([[0, 1, 2], [0, 0, 1]])
    graph = hj.HeteroGraph.from_arrays({"a": 2, "b": 3}, {("b", "to", "a"): edges}, {"a": np.ones((2, 5))})
    splits = {"train": np.array([1, 0], bool), "val": np.array([0, 1], bool), "test": np.zeros(2, bool)}
    dataset = hj.Dataset(graph, "a", np.array([0, 1]), splits, 2, False, {})
    model = hj.models.RGCN(target="a", num_classes=2, hidden=4, layers=1)
    # input 2x5x4 (three passes); root 2x4x4, kernel 2x4x4 and classifier 2x4x2 (four); 3 entries of width 4
    products = 3 * 2 * 40 + 4 * 2 * (32 + 32 + 16) + 3 * 2 * 3 * 4
    parameters = 5 * 4 + 3 * 4 + 16 + 16 + 8
    numbers = 3 * (10 + 20 + 8) + 2 * 4 * (8 + 16 + 8) + 4 * (8 + 8 + 4) + 3 * (6 + (2 + 3) * 4) + 7 * 4 * (2 + 3 + 2)
    assert hand_count(model, dataset).total() == (products + 12 * parameters, 4 * (numbers + 9 * parameters))


def test_hand_count_of_attention_small_enough_to_count():
    count = Count()
    count.attention(10, 3, 5, 4, products=True)
    # scores and sum, each once forward (twice: training, validation), and backward by both of its operands
    assert count.operations == 2 * (2 + 2) * 2 * 10 * 4
    # 15 bits are less than 10 indices; q [3], k [5], v [5] and out [3], and the gradients of each
    assert count.numbers == 3 * 15 / 32 + 2 * (3 + 5 + 5 + 3) * 4 + (3 + 5 + 5 + 3 + 3 + 5 + 5) * 4
    count = Count()
    count.attention(10, 300, 5, 4, products=False)
    assert count.operations == (2 + 2) * 2 * 10 * 4
    assert count.numbers == 3 * 10 + 2 * (5 + 300) * 4 + (5 + 300 + 5) * 4


@pytest.mark.parametrize("name", ["RGCN", "HeteroSAGE", "HGT", "HAN"])
def test_hand_count_knows_every_matrix_of_the_model(name):
    settings = Settings(model=name, hidden=8)
    dataset = with_metapaths(hj.load_dataset("synthetic"), settings)
    model = network(dataset, settings)
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), dataset.graph))
    assert hand_count(model, dataset).parameters == sum(leaf.size for leaf in shapes if leaf.ndim > 1)


@pytest.mark.slow
def test_our_epochs_are_the_epochs_of_fit(dataset):
    model = network(dataset, Settings(hidden=8, layers=1))
    program = OurEpochs(dataset, model, seeds=2, epochs=3)
    assert program() > 0
    result = hj.fit(model, dataset, seeds=2, epochs=3, chunk=3)
    expected = result.metrics["best_epoch"], result.metrics["val_loss"]
    np.testing.assert_array_equal(program.state.best_epoch, expected[0])
    np.testing.assert_allclose(-program.state.best_score, expected[1], rtol=1e-4)


@pytest.mark.slow
def test_the_machine_has_rates():
    rates = machine_rates()
    assert set(rates) == {"matmul_flops", "copy_bytes", "cached_copy_bytes"}
    assert all(np.isfinite(rate) and rate > 1e6 for rate in rates.values())


def test_contenders_take_turns():
    calls = []
    contenders = {
        name: lambda name=name, value=value: (calls.append(name), value)[1]
        for name, value in (("ours", 2.0), ("peer", 6.0))
    }
    seconds = in_turns(contenders, 3)
    assert calls == ["ours", "peer"] * 5
    assert seconds == {"ours": [2.0] * 3, "peer": [6.0] * 3}
    assert ratio(seconds, "peer", "ours") == 3.0


@pytest.mark.parametrize(("graph", "name"), [("imdb_gtn", "RGCN"), ("synthetic", "RGCN"), ("imdb_gtn", "HeteroSAGE"),
                                             ("imdb_gtn", "HGT"), ("synthetic", "HGT"), ("imdb_gtn", "HAN")])
@pytest.mark.filterwarnings("default")
def test_the_peer_computes_the_same(graph, name):
    pytest.importorskip("torch_geometric")
    from experiments.peers import pyg

    dataset = hj.load_dataset(graph)
    if name == "HAN":
        dataset = dataset.with_graph(hj.metapaths.metapath_graph(dataset.graph, dataset.target))
    model = network(dataset, Settings(hidden=8, model=name))
    variables = model.init(jax.random.key(0), dataset.graph)
    logits = np.asarray(model.apply(variables, dataset.graph).logits)
    for peer in pyg.peers(dataset, model).values():
        assert pyg.difference(peer, variables, logits) < 1e-4
        assert all(np.isfinite(value) for value in pyg.Training(peer, dataset, epochs=1).epoch())
