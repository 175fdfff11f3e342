"""The bench of whole trainings: ours against a peer that is made up, and its ratios on made-up seconds."""

import json
from types import SimpleNamespace

import pytest

import hire_jax as hj
from experiments import bench
from experiments.bench import Settings
from experiments.bench_training import FULL, summary

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_ratios_are_of_all_the_seeds_with_and_without_compilation():
    rows = summary({"one": 2.0, "ten": 10.0, "peer": 40.0}, {"one": 3.0, "ten": 5.0}, 10, FULL // 2)
    assert [row["contender"] for row in rows] == ["one", "ten", "peer"]
    assert [row["seconds_a_seed"] for row in rows] == [2, 1, 40]
    assert [row["seconds_all_seeds"] for row in rows] == [20, 10, 400]
    assert [row["times_ours"] for row in rows] == [2, 1, 40]
    assert [row["times_ours_full"] for row in rows] == pytest.approx([70 / 25, 1, 800 / 25])  # twice the epochs
    assert [row["compile_seconds"] for row in rows] == [3, 5, None]


def test_it_trains_ours_and_a_peer(tmp_path, monkeypatch, capsys):
    trained, fitted = [], []

    def fit(model, dataset, *, seeds, epochs, patience):
        fitted.append((seeds, epochs, patience))
        return SimpleNamespace(seconds=0.1 * seeds, compile_seconds=1.0)

    class Training:
        def __init__(self, model, dataset, *, epochs):
            trained.append((model, epochs))

        def epoch(self):
            trained.append("uncounted")

        def __call__(self):
            return 0.5  # seconds an epoch

    peer = SimpleNamespace(VERSIONS={"torch": "0"}, Training=Training, peers=lambda dataset, model: {"PyG": "network"})
    monkeypatch.setattr(bench, "_peer_module", lambda: peer)
    monkeypatch.setattr(hj, "fit", fit)
    monkeypatch.setattr(hj, "load_dataset", lambda name, download: hj.data.synthetic_hetero())
    settings = Settings(dataset=("synthetic",), peer="pyg", model="HeteroSAGE", hidden=8, layers=1, seeds=2,
                        training=True, training_epochs=4, peer_epochs=2, repeats=1, out=tmp_path)
    facts = bench.main(settings)
    assert trained == [("network", 2), "uncounted"] and fitted == [(1, 4, 4), (2, 4, 4)]
    result = facts["datasets"]["synthetic"]
    assert result["seconds"]["PyG"] == [2.0] and result["epochs"] == 4
    assert set(result["compile_seconds"]) == {"hire_jax, 1 seed", "hire_jax, 2 seeds"}
    assert json.loads((tmp_path / "training_heterosage.json").read_text())["datasets"]["synthetic"] == result
    printed = capsys.readouterr().out
    assert "2 epochs of it, times 2" in printed and "A seed of 2 takes" in printed
