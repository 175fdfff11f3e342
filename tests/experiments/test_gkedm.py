"""The GKEDM experiments: which cells a claim needs, its verdict, and both kinds of run from end to end."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments import gkedm, gkedm_cells, gkedm_claims, gkedm_figures
from experiments.configs.gkedm import BACKBONES, DISTILLATION, MODULE
from experiments.gkedm_cells import Cells, backbone_of, network
from experiments.gkedm_claims import CLAIMS, Finding, findings, verdict
from experiments.keys import key
from experiments.networks import count_parameters
from experiments.store import ResultStore

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUIET = Console(quiet=True)


def planted(seed=0):
    """Three communities of 20 papers with bags of words."""
    return hj.data.synthetic_hetero({"paper": 60}, [("paper", "cites", "paper")], reverse=False, feature_width=12,
                                    feature_density=0.3, feature_noise=0.2, noise=0.1, train_rate=0.3, val_rate=0.3,
                                    seed=seed)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Networks of a few numbers."""
    for model, backbone in BACKBONES.items():
        monkeypatch.setitem(BACKBONES, model, dataclasses.replace(backbone, hidden=8, heads=min(backbone.heads, 2)))
    small = dataclasses.replace(MODULE, heads=2, positions=2)
    for module in (gkedm, gkedm_claims):
        monkeypatch.setattr(module, "MODULE", small)
    monkeypatch.setattr(gkedm_claims, "STUDENT_HIDDEN", 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return gkedm_cells.positioned(planted(), 2, tmp_path_factory.mktemp("positions"))


# ------------------------------------------------------------------------------------------------------- verdicts


def found(*pairs):
    """Findings of (mean difference, corrected p)."""
    return [Finding("g", "m", hj.report.PairedDifference(mean, 0.0, mean, mean, p, 10), p) for mean, p in pairs]


FOR, AGAINST, RATHER, HARDLY = (0.02, 0.01), (-0.02, 0.01), (0.02, 0.2), (-0.02, 0.2)


@pytest.mark.parametrize(("pairs", "expected"), [
    ([FOR, FOR, HARDLY], "holds: 2 of 3 pairs for it, 0 against, 1 neither"),
    ([FOR, FOR, AGAINST], "cannot be told: 2 of 3 pairs for it, 1 against, 0 neither"),
    ([FOR, FOR, HARDLY, RATHER], "cannot be told: 2 of 4 pairs for it, 0 against, 2 neither"),  # no more than half
    ([FOR, AGAINST, AGAINST], "does not hold: 1 of 3 pairs for it, 2 against, 0 neither"),
    ([AGAINST, RATHER, RATHER], "does not hold: 0 of 3 pairs for it, 1 against, 2 neither"),
    ([HARDLY, HARDLY, RATHER], "cannot be told: 0 of 3 pairs for it, 0 against, 3 neither"),
    ([(0.0, 1.0), HARDLY, HARDLY], "cannot be told: 0 of 3 pairs for it, 0 against, 3 neither"),
    ([HARDLY, RATHER], "cannot be told: 0 of 2 pairs for it, 0 against, 2 neither"),
    ([FOR, HARDLY, HARDLY], "cannot be told: 1 of 3 pairs for it, 0 against, 2 neither"),
    ([(0.02, 0.05)], "cannot be told: 0 of 1 pairs for it, 0 against, 1 neither"),
])
def test_the_verdict_follows_its_rule(pairs, expected):
    assert verdict(found(*pairs)) == expected


def test_findings_are_paired_by_seed_and_corrected_over_all_pairs():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.7, 10)
    gain = rng.uniform(0.01, 0.02, 10)
    scores = {("cora", "GCN"): {"backbone": base, "+ GKEDM": base + gain, "wider backbone": base},
              ("cora", "GAT"): {"backbone": base, "+ GKEDM": base - gain, "wider backbone": base},
              ("citeseer", "GCN"): {"backbone": base, "+ GKEDM": base, "wider backbone": base}}
    result = findings(CLAIMS["C1"], scores, scores)
    assert [(f.dataset, f.model, f.says) for f in result] == [("cora", "GCN", 1), ("cora", "GAT", -1),
                                                              ("citeseer", "GCN", 0)]
    np.testing.assert_allclose(result[0].difference.mean, gain.mean())
    one = 2 / 2 ** 10  # all ten of one sign
    np.testing.assert_allclose([f.difference.p_value for f in result], [one, one, 1])
    np.testing.assert_allclose([f.corrected for f in result], [3 * one, 3 * one, 1])
    text = gkedm.markdown("+ GKEDM less backbone", result)
    assert "| cora | GCN | +1." in text and "| cora | GAT | -1." in text and text.count("\n") == 4
    assert "| citeseer | GCN | +0.0 ± 0.0 | [+0.0, +0.0] | 1.000 | 1.000 |" in text


SCORES = {
    "C1": ({"backbone": 0.5, "+ GKEDM": 0.6, "wider backbone": 0.9}, 0.1),
    "C2": ({"backbone": 0.1, "+ GKEDM": 0.6, "wider backbone": 0.5}, 0.1),
    "C3": ({"+ GKEDM": 0.9, "student": 0.5, "+ logits": 0.9, "+ attention": 0.6, "+ both": 0.9}, 0.1),
    "C4": ({"alpha 0": 0.5, "alpha 0.01": 0.8, "alpha 0.1": 0.7, "alpha 1": 0.1, "alpha 10": 0.2}, -0.1),
    "C5": ({"+ GKEDM": 0.7, "student": 0.1, "+ logits": 0.2, "+ attention": 0.3, "+ both": 0.695}, 0.005),
    "C6": ({"2 layers": 0.8, "2 layers + GKEDM": 0.7, "4 layers": 0, "4 layers + GKEDM": 0, "8 layers": 0,
            "8 layers + GKEDM": 0, "16 layers": 0.3, "16 layers + GKEDM": 0.6}, 0.4),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_reads_the_cells_it_makes(dataset, name):
    """Its difference is above 0 where it is right."""
    scores, expected = SCORES[name]
    jobs = CLAIMS[name].rows(Cells("planted", dataset, 2), "GCN")
    assert {job.label for job in jobs} == set(scores) and CLAIMS[name].baseline in scores
    assert len({key(job.config) for job in jobs}) == len(jobs) == len({job.label for job in jobs})
    test = {label: np.full(3, x) for label, x in scores.items()}
    np.testing.assert_allclose(CLAIMS[name].difference(test, test), expected, rtol=1e-6)


def test_the_other_weight_of_c4_is_chosen_on_validation():
    test = {label: np.full(3, x) for label, x in SCORES["C4"][0].items()}
    validation = test | {"alpha 10": np.full(3, 0.9)}
    np.testing.assert_allclose(CLAIMS["C4"].difference(test, validation), 0.7 - 0.2)


# ---------------------------------------------------------------------------------------------------------- cells


def keys(jobs):
    return {job.label: key(job.config) for job in jobs}


def test_equal_cells_have_one_key_whichever_claim_asks(dataset):
    cells = Cells("planted", dataset, 2)
    more, passed, alphas, depths = (keys(CLAIMS[name].rows(cells, "GCN")) for name in ("C1", "C3", "C4", "C6"))
    assert more["+ GKEDM"] == passed["+ GKEDM"] == depths["2 layers + GKEDM"]
    assert more["backbone"] == depths["2 layers"]
    assert passed["student"] == alphas["alpha 0"]  # which has no teacher
    assert DISTILLATION.attention == 0.1 and passed["+ attention"] == alphas["alpha 0.1"]
    assert keys(CLAIMS["C1"].rows(Cells("planted", dataset, 2), "GCN")) == more
    again = gkedm_cells.positioned(planted(), 3, None)  # positions are computed from the rest
    assert keys(CLAIMS["C3"].rows(Cells("planted", again, 2), "GCN")) == passed


def test_other_arguments_make_other_cells(dataset):
    cells = Cells("planted", dataset, 2)
    large, small = backbone_of("GCN"), backbone_of("GCN", hidden=4)
    base, compact = cells.alone("a", "GCN", large), cells.alone("b", "GCN", small)
    teacher = cells.lifted("c", base, MODULE)
    maps, logits = hj.Objective(attention_map_kl=0.1), hj.Objective(soft_target_kl=1.0)
    other = gkedm_cells.positioned(planted(seed=1), 2, None)
    jobs = [
        base, compact, teacher, cells.lifted("d", compact, MODULE),
        cells.lifted("d", base, dataclasses.replace(MODULE, heads=4)),
        cells.lifted("e", compact, MODULE, objective=maps, teacher=teacher),
        cells.lifted("e", compact, MODULE, objective=logits, teacher=teacher),
        cells.lifted("e", compact, MODULE, objective=maps, teacher=cells.lifted("d", compact, MODULE)),
        cells.alone("a", "GraphSAGE", large), cells.alone("a", "GCN", backbone_of("GCN", layers=3)),
        Cells("planted", dataset, 3).alone("a", "GCN", large), Cells("planted", dataset, 2, 5).alone("a", "GCN", large),
        Cells("other", dataset, 2).alone("a", "GCN", large), Cells("planted", other, 2).alone("a", "GCN", large)]
    assert len({key(job.config) for job in jobs}) == len(jobs)
    assert key(cells.alone("another label", "GCN", large).config) == key(base.config)
    student = cells.lifted("d", compact, MODULE, teacher=teacher)  # nothing asks for it
    assert student.teacher is None and key(student.config) == key(jobs[3].config)
    assert jobs[5].teacher is teacher and jobs[5].start is compact and jobs[5].config["teacher"] == key(teacher.config)
    short = Cells("planted", dataset, 2, 5)
    assert short.alone("a", "GCN", large).epochs == short.lifted("c", base, MODULE).epochs == 5
    assert base.epochs == BACKBONES["GCN"].epochs and teacher.epochs == MODULE.epochs


@pytest.mark.parametrize("model", ["GCN", "GAT"])
def test_the_wider_backbone_is_the_narrowest_with_enough_parameters(dataset, model):
    cells, large = Cells("planted", dataset, 2), backbone_of(model)
    asked = count_parameters(network(model, large, dataset, gkedm.MODULE), dataset)
    wider = cells.widened("wider backbone", model, large, asked)
    step = large.heads
    assert wider.backbone == dataclasses.replace(large, hidden=wider.backbone.hidden, epochs=2 * large.epochs)
    assert wider.backbone.hidden % step == 0 and wider.backbone.hidden > 8 and wider.start is None
    narrower = dataclasses.replace(large, hidden=wider.backbone.hidden - step)
    sizes = [count_parameters(network(model, backbone, dataset), dataset) for backbone in (narrower, wider.backbone)]
    assert sizes[0] < asked <= sizes[1]


def test_parameters_are_counted_without_making_them(dataset):
    assert count_parameters(network("GCN", backbone_of("GCN", hidden=4), dataset), dataset) == 12 * 4 + 4 + 4 * 3 + 3
    for model in BACKBONES:
        assert count_parameters(network(model, backbone_of(model), dataset, gkedm.MODULE), dataset) > 0


def test_cells_are_trained_after_those_they_need_and_once(dataset, tmp_path, monkeypatch):
    store, trained = ResultStore(tmp_path, environment={}), []

    def train(job, given, store, tracker, done, *, devices, keep, record):
        assert given is dataset
        trained.append((job.label, keep, record))
        if keep:
            store.save_arrays(key(job.config), {"x": np.zeros(1)})
        if record:
            store.append(job.config, seeds=[0], metrics={"test_accuracy": [0.5]}, seconds=1)

    monkeypatch.setattr(gkedm_cells, "train", train)
    jobs = CLAIMS["C3"].rows(Cells("planted", dataset, 1), "GCN")
    gkedm_cells.run(gkedm_cells.with_needed([jobs[-1]]), {"planted": dataset}, store, QUIET)
    assert trained == [("compact backbone", True, True), ("backbone", True, True), ("+ GKEDM", True, True),
                       ("+ both", False, True)]
    trained.clear()
    gkedm_cells.run(gkedm_cells.with_needed(jobs), {"planted": dataset}, store, QUIET)
    assert trained == [("student", True, True), ("+ logits", False, True), ("+ attention", False, True)]
    trained.clear()
    gkedm_cells.run(gkedm_cells.with_needed(jobs), {"planted": dataset}, store, QUIET)
    assert trained == []
    (tmp_path / "arrays.jsonl").unlink()  # parameters that are lost are trained again, results are not
    gkedm_cells.run(gkedm_cells.with_needed(jobs[:2]), {"planted": dataset}, store, QUIET)
    assert trained == [(label, True, False) for label in ("backbone", "+ GKEDM", "compact backbone", "student")]


def test_rows_of_words_sum_to_one_and_positions_are_given(dataset, tmp_path):
    rows = np.asarray(dataset.graph.features["paper"].todense())
    sums = rows.sum(axis=1)
    np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-5)
    assert (rows > 0).sum() == (np.asarray(planted().graph.features["paper"].todense()) > 0).sum()
    expected = hj.positions.laplacian_positions(planted().graph, k=2)["paper"]
    np.testing.assert_array_equal(dataset.graph.positions["paper"], expected)
    dense = hj.data.synthetic_hetero({"paper": 60}, [("paper", "cites", "paper")], feature_width=6, feature_density=1.0)
    same = gkedm_cells.positioned(dense, 2, tmp_path)
    assert same.graph.features["paper"] is dense.graph.features["paper"] and len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_run_is_said(tmp_path):
    with pytest.raises(SystemExit, match="--datasets: imdb_gtn has the node types actor, director, movie; the backb"):
        gkedm.main(gkedm.Settings(datasets=("imdb_gtn",), out=tmp_path), QUIET)
    with pytest.raises(SystemExit, match="--backbones: unknown model 'RGCN'; configured are GCN, GAT, GraphSAGE, MoN"):
        backbone_of("RGCN")


# ------------------------------------------------------------------------------------------------------ whole runs


def refuse(*args, **kwargs):
    raise AssertionError("a finished cell was trained again")


def test_smoke_trains_and_resumes(tmp_path, monkeypatch):
    settings = gkedm.Settings(smoke=True, out=tmp_path)
    console = Console(record=True, width=160, file=open(tmp_path / "log", "w"))
    with console.file:
        cells = gkedm.main(settings, console)
    printed, out = console.export_text(), tmp_path / "smoke"
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == len(cells) == 8 and {line["config"]["model"] for line in lines} == {"GCN"}
    for line in lines:
        assert line["seeds"] == [0, 1] and len(line["metrics"]["test_accuracy"]) == 2
        assert line["facts"]["parameters"] > 0 and max(line["metrics"]["epochs"]) <= 6  # the wider
    by_key, curves = {line["key"]: line["config"] for line in lines}, ResultStore(out).histories()
    taught = [line for line in lines if line["config"].get("teacher")]
    assert len(taught) == 3 and len({line["config"]["teacher"] for line in taught}) == 1
    for line in taught:
        config, curve = line["config"], curves[line["key"]]
        teacher, start = by_key[config["teacher"]], by_key[config["start"]]
        assert teacher["module"] and teacher["backbone"]["hidden"] == 8 and teacher["teacher"] is None
        assert start["module"] is None and start["backbone"]["hidden"] == 4 == config["backbone"]["hidden"]
        assert ("train_attention_map_kl" in curve) == (config["objective"].get("attention_map_kl", 0) > 0)
        assert ("train_soft_target_kl" in curve) == (config["objective"]["soft_target_kl"] > 0)
        assert all((curve[name] > 0).all() for name in curve if name.endswith("_kl"))
    for name, rows in (("enhancement", ("backbone", "+ GKEDM", "wider backbone")),
                       ("distillation", ("+ GKEDM", "student", "+ logits", "+ attention", "+ both"))):
        text = (out / f"{name}.md").read_text()
        assert all(f"| GCN | {row} |" in text for row in rows) and "citeseer, 2 seeds" in text
        assert (out / f"{name}-citeseer.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "results.csv").read_text().count("\n") == 1 + 8 * 2 and list((out / "positions").iterdir())
    assert "cells of 2 seeds" in printed and "+ attention" in printed

    monkeypatch.setattr(gkedm_cells, "train", refuse)
    assert gkedm.main(settings, QUIET) == cells


def accuracy(job):
    """What a cell pretends to reach: attention maps harm, logits help, and so does the module where layers are few."""
    value = 0.5 + 0.05 * job.objective.soft_target_kl - 0.01 * job.objective.attention_map_kl
    value += 0.02 - 0.003 * job.backbone.layers if job.module is not None else 0
    return value + 0.001 * job.backbone.hidden - 0.01 * job.backbone.layers


@pytest.fixture
def pretended(monkeypatch):
    """Cells that are not trained, on small graphs."""
    def train(job, dataset, store, tracker, done, *, devices, keep, record):
        if keep:
            store.save_arrays(key(job.config), {"x": np.zeros(1)})
        seeds = np.arange(job.config["seeds"])
        scores = accuracy(job) + 0.001 * seeds + (0.0001 * (1 + seeds) if job.module is not None else 0)
        store.append(job.config, seeds=seeds, metrics={"test_accuracy": scores, "test_macro_f1": scores,
                                                                   "val_accuracy": scores}, seconds=1,
                     facts={"parameters": 100, "milliseconds_per_step": 1.0})

    monkeypatch.setattr(gkedm_cells, "train", train)
    monkeypatch.setattr(hj, "load_dataset", lambda name, root=None, split=None: planted(seed=int(name[-1])))


VERDICTS = {"C1": "holds: 4 of 4", "C2": "holds: 4 of 4", "C3": "does not hold: 0 of 4 pairs for it, 4 against",
            "C4": "does not hold: 0 of 4 pairs for it, 4 against", "C5": "holds: 4 of 4",
            "C6": "does not hold: 0 of 4 pairs for it, 4 against"}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_tested_to_its_verdict(pretended, monkeypatch, tmp_path, capsys, claim):
    if claim in ("C1", "C2"):  # the width is found elsewhere, in seconds
        monkeypatch.setattr(Cells, "widened", lambda self, label, model, backbone, parameters: self.alone(
            label, model, dataclasses.replace(backbone, hidden=10)))
    settings = gkedm.Settings(out=tmp_path, claim=claim, datasets=("graph0", "graph1"), seeds=8)
    cells = gkedm.main(settings, Console(width=160))
    printed, text = capsys.readouterr().out, (tmp_path / f"{claim}.md").read_text()
    assert text.startswith(f"{claim}: {CLAIMS[claim].text}\n") and f"| {CLAIMS[claim].measure} |" in text
    assert f"**{VERDICTS[claim]}" in text and VERDICTS[claim] in printed
    for graph in ("graph0", "graph1"):
        assert f"{graph}, 8 seeds" in text and all(f"| {graph} | {model} |" in text for model in ("GCN", "GAT"))
    names = [f"{claim}.png"] if claim in ("C4", "C6") else [f"{claim}-graph0.png", f"{claim}-graph1.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    monkeypatch.setattr(gkedm_cells, "train", refuse)
    assert gkedm.main(settings, QUIET) == cells


def test_ctrl_c_keeps_finished_cells(pretended, monkeypatch, tmp_path, capsys):
    train, calls = gkedm_cells.train, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        train(*args, **kwargs)

    monkeypatch.setattr(gkedm_cells, "train", interrupted)
    settings = gkedm.Settings(out=tmp_path, claim="C6", datasets=("graph0",), seeds=2, backbones=("GCN",))
    with pytest.raises(SystemExit) as stopped:
        gkedm.main(settings, Console(width=300))
    assert stopped.value.code == 130
    assert f"Stopped. Finished cells are in {tmp_path}; the same command goes on" in capsys.readouterr().out
    assert len(ResultStore(tmp_path).cells()) == 3
    assert len(gkedm.main(settings, QUIET)) == 8 == len(calls) - 1


def test_a_figure_of_depths_tells_the_module_from_its_backbone(tmp_path, monkeypatch):
    axes = pytest.importorskip("matplotlib.axes").Axes
    records = [hj.report.Record(model, f"{layers} layers{suffix}", [0, 1], {"test_accuracy": [0.5, 0.6 + layers / 100]})
               for model in ("GCN", "GAT") for layers in (2, 16) for suffix in ("", " + GKEDM")]
    drawn, original = [], axes.errorbar

    def errorbar(self, x, y, *args, **options):
        drawn.append((options.get("label"), np.round(x).tolist(), np.round(y, 2).tolist(), options.get("fmt")))
        return original(self, x, y, *args, **options)

    monkeypatch.setattr(axes, "errorbar", errorbar)
    assert gkedm_figures.draw("C6", {"a": records, "b": records[:4]}, tmp_path) == [tmp_path / "C6.png"]
    lines = [(f"{model}{suffix}", [0, 1], [56.0, 63.0], dashes) for model in ("GCN", "GAT")
             for suffix, dashes in ((" + GKEDM", "-"), ("", "--"))]
    assert drawn == lines + lines[:2]
    assert (tmp_path / "C6.png").read_bytes().startswith(b"\x89PNG")
    bars = gkedm_figures.draw("enhancement", {"actor/0": records[:2]}, tmp_path)
    assert [path.name for path in bars] == ["enhancement-actor-0.png"] and bars[0].exists()
