"""The HIRE experiment end to end on a tiny synthetic graph, stopped, resumed and repeated."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments import hire

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[2]


def settings(out, **changes):
    """Those of --smoke, so that the command line below loads what this process compiled."""
    arguments = {"dataset": "synthetic", "models": ("RGCN",), "methods": ("plain", "hire"), "seeds": 2, "epochs": 8,
                 "teacher_hidden": 16, "student_hidden": 4, "out": out}
    return hire.Settings(**(arguments | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its folder, records and what it printed."""
    out = tmp_path_factory.mktemp("hire")
    console = Console(record=True, width=100, file=open(out / "log", "w"))
    with console.file:
        records = hire.main(settings(out), console)
    return out, records, console.export_text()


def test_run_writes_lines_tables_and_figure(finished):
    out, records, printed = finished
    assert [record.method for record in records] == ["teacher", "student", "HIRE"]
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["config"]["label"] for line in lines] == ["teacher", "student", "HIRE"]
    for line in lines:
        assert len(line["metrics"]["test_accuracy"]) == 2 and line["seeds"] == [0, 1]
        assert line["facts"]["parameters"] > 0
        assert {"jax", "git_commit"} <= line["environment"].keys()
    assert lines[2]["config"]["teacher"] == lines[0]["key"]
    assert (out / "hire.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "results.csv").read_text().count("\n") == 1 + 3 * 2
    assert "HIRE" in printed and "difference" in (out / "table.md").read_text()


def test_second_run_trains_nothing_and_prints_the_same(finished, monkeypatch):
    out, records, _ = finished

    def refuse(*args, **kwargs):
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(hj, "fit", refuse)
    again = hire.main(settings(out), Console(quiet=True))
    assert [r.metrics for r in again] == [r.metrics for r in records]


def test_ctrl_c_keeps_finished_cells_and_resumes_from_the_stored_teacher(finished, tmp_path, monkeypatch, capsys):
    _, records, _ = finished
    fit, calls = hj.fit, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:  # the student that has a teacher
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(hj, "fit", interrupted)
    with pytest.raises(SystemExit) as stopped:
        hire.main(settings(tmp_path), Console(width=200))
    assert stopped.value.code == 130
    assert f"2 of 3 cells are finished in {tmp_path}" in capsys.readouterr().out
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2

    monkeypatch.setattr(hj, "fit", fit)
    resumed = hire.main(settings(tmp_path), Console(quiet=True))
    # A fresh run in another folder, stopped and resumed, gives the undisturbed run's numbers exactly.
    assert [r.metrics for r in resumed] == [r.metrics for r in records]


def test_methods_and_variants_become_objectives():
    chosen = hire.objectives(settings(Path(), methods=("plain", "node", "relation", "hire"),
                                      variants=("all_pairs", "edges")),
                             hire.Distillation(alpha=2.0, beta=3.0, temperature=4.0))
    assert list(chosen) == ["student", "+ node", "+ relation (all_pairs)", "+ relation (edges)", "HIRE (all_pairs)",
                            "HIRE (edges)"]
    assert chosen["HIRE (edges)"] == hj.Objective(soft_target_kl=2.0, type_pair_correlation=3.0, temperature=4.0,
                                                  variant="edges")
    assert not chosen["student"].needs_teacher


def test_unknown_model_is_named(tmp_path):
    with pytest.raises(SystemExit, match="unknown model 'GAT'; configured are RGCN, HGT"):
        hire.main(settings(tmp_path, models=("GAT",)), Console(quiet=True))


def test_changed_data_is_another_cell(tmp_path):
    first, second = hj.data.synthetic_hetero(seed=0), hj.data.synthetic_hetero(seed=1)
    assert hire.fingerprint(first) == hire.fingerprint(hj.data.synthetic_hetero(seed=0)) != hire.fingerprint(second)


def test_relation_level_on_one_node_type_is_refused_before_training(tmp_path):
    with pytest.raises(SystemExit, match="use --methods plain node"):
        hire.main(settings(tmp_path, dataset="citeseer"), Console(quiet=True))


@pytest.mark.slow
def test_seeds_over_fake_devices(finished, tmp_path):
    _, records, _ = finished
    spread = hire.main(settings(tmp_path, devices=2, methods=()), Console(quiet=True))
    np.testing.assert_allclose(spread[0].metrics["val_loss"], records[0].metrics["val_loss"], rtol=1e-4)


@pytest.mark.slow
def test_command_line_smoke(tmp_path):
    command = [sys.executable, "-m", "experiments.hire", "--smoke", "--dataset", "synthetic", "--models", "RGCN",
               "--methods", "plain", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "smoke" / "hire.png").exists() and "student" in done.stdout


def test_help_explains_every_option():
    done = subprocess.run([sys.executable, "-m", "experiments.hire", "--help"], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, check=True)
    for option in ("--dataset", "--models", "--seeds", "--out", "--smoke", "--devices", "--variants", "--root"):
        assert option in done.stdout
    assert "Examples" in done.stdout
