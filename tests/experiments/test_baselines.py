"""The baselines' experiment from end to end, on the bundled graph."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments import baselines, networks
from experiments.configs import baselines as configs
from experiments.configs import planetoid
from experiments.reference import gtn, hgb
from experiments.reference import planetoid as homogeneous
from experiments.store import Cell
from hire_jax.data.registry import entries

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODELS = ("HAN", "MLP")  # a graph made from the dataset's, and the dataset's own


def test_smoke_trains_and_resumes(tmp_path):
    settings = baselines.Settings(smoke=True, models=MODELS, out=tmp_path)
    cells = baselines.main(settings, Console(width=200))
    assert set(cells) == {("imdb_gtn", model) for model in MODELS}
    for cell in cells.values():
        assert len(cell.metrics["test_macro_f1"]) == 2 and np.isfinite(cell.metrics["test_macro_f1"]).all()
    table = (tmp_path / "smoke" / "table.md").read_text()
    assert all(f"| imdb_gtn | {model} |" in table for model in MODELS)
    lines = (tmp_path / "smoke" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["config"]["model"] for line in lines] == list(MODELS)
    assert baselines.main(settings, Console(width=200)) == cells
    assert (tmp_path / "smoke" / "results.jsonl").read_text().splitlines() == lines  # nothing was trained twice
    more = dataclasses.replace(settings, models=(*MODELS, "GCN"), render=True)
    assert baselines.main(more, Console(width=200)) == cells  # and nothing at all when only rendered


def test_tuning_prints_the_best_on_validation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(configs, "SEARCH", {"dropout": (0.0, 0.9)})
    settings = baselines.Settings(smoke=True, models=("MLP",), tune=True, out=tmp_path)
    assert baselines.main(settings, Console(width=200)) == {}
    lines = [json.loads(line) for line in (tmp_path / "smoke" / "results.jsonl").read_text().splitlines()]
    scores = {line["config"]["network"]["dropout"]: np.mean(line["metrics"]["val_macro_f1"]) for line in lines}
    assert set(scores) == {0.0, 0.9} and all(len(line["seeds"]) == baselines.TUNING_SEEDS for line in lines)
    best = max(scores, key=scores.__getitem__)
    assert f'("imdb_gtn", "MLP"): {{\'hidden\': 8, \'dropout\': {best}, \'epochs\': 3}},' in capsys.readouterr().out


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="--models: unknown model 'GTN'; configured are RGCN, HAN"):
        baselines.main(baselines.Settings(models=("GTN",), out=tmp_path), Console())
    assert not list(tmp_path.iterdir())


def test_every_configured_model_exists():
    assert set(configs.START) == set(configs.MODELS) and set(configs.CORE) < set(configs.MODELS)
    assert all(hasattr(hj.models, model) for model in configs.MODELS)
    assert not hgb.PUBLISHED.keys() & gtn.PUBLISHED.keys()
    for published in (hgb.PUBLISHED, gtn.PUBLISHED):
        assert all(set(models) <= set(configs.MODELS) for models in published.values())
    assert all(set(models) <= set(planetoid.START) for models in homogeneous.PUBLISHED.values())
    names = {field.name for field in dataclasses.fields(configs.Baseline)}
    for (dataset, model), changes in planetoid.CHOSEN.items():
        assert dataset in planetoid.DATASETS and model in planetoid.START and set(changes) <= names
    for (dataset, model), changes in configs.CHOSEN.items():
        assert dataset.partition("/")[0] in entries() and model in configs.MODELS and set(changes) <= names


def test_published_numbers_stand_beside_the_right_metric():
    assert baselines._published("cora", "GAT") == {"macro": None, "micro": (83.0, 0.7)}
    assert baselines._published("cora", "GCN") == {"macro": None, "micro": (81.5, None)}
    assert baselines._published("dblp_hgb", "GAT") == {"macro": (93.83, 0.27), "micro": (93.39, 0.30)}
    assert baselines._published("dblp_hgb", "MLP") == {"macro": None, "micro": None}
    assert baselines._published("acm_gtn", "HAN") == {"macro": (92.45, None), "micro": (92.33, None)}
    assert baselines._published("acm_gtn", "GAT") == {"macro": (92.49, None), "micro": None}
    assert baselines._published("dblp_hgb/magnn", "GAT") == {"macro": None, "micro": None}  # of another split
    half = hj.report.summarise([0.5, 0.5])
    assert baselines._beside(hj.report.summarise([0.5]), None) == ("50.00", "-")
    assert baselines._beside(half, None) == ("50.00 ± 0.00", "-")
    assert baselines._beside(half, (51.0, 1.0)) == ("50.00 ± 0.00", "51.00 ± 1.00")
    assert baselines._beside(half, (51.1, 1.0)) == ("50.00 ± 0.00 <", "51.10 ± 1.00")
    assert baselines._beside(half, (50.0, None)) == ("50.00 ± 0.00", "50.00")
    assert baselines._beside(half, (50.1, None)) == ("50.00 ± 0.00 <", "50.10")


def test_a_split_without_a_configuration_takes_its_datasets(monkeypatch):
    monkeypatch.setitem(configs.CHOSEN, ("dblp_hgb", "RGCN"), {"hidden": 3})
    monkeypatch.setitem(configs.CHOSEN, ("dblp_hgb/magnn", "RGCN"), {"hidden": 5})
    assert [configs.baseline(name, "RGCN").hidden for name in ("dblp_hgb", "dblp_hgb/magnn", "dblp_hgb/hgb:1", "new")
            ] == [3, 5, 3, configs.START["RGCN"].hidden]


@pytest.mark.parametrize("model", planetoid.START)
def test_homogeneous_models_are_built_as_configured(model):
    dataset = hj.load_dataset("citeseer")
    network = planetoid.baseline("cora", model)
    built = networks.build(model, network, dataset)
    assert type(built).__name__ == model and built.num_classes == 6
    if isinstance(built, hj.models.NodeClassifier):
        assert not built.projection and not built.norm and built.hidden == network.hidden
    rows = networks.prepared(model, network, dataset).graph.features["node"].todense()
    np.testing.assert_allclose(rows.sum(axis=1)[np.asarray(dataset.labels) >= 0], 1, rtol=1e-5)


@pytest.mark.parametrize(("model", "l2_layers", "apart"), [
    ("GCN", None, []), ("GCNII", 0.5, ["['params']['layers']['convolution']['kernel']"]),
    ("APPNP", 0.5, ["['params']['SharedDense_0']['kernel']"])])
def test_decay_in_the_gradient_and_another_for_what_is_set_apart(model, l2_layers, apart):
    dataset = hj.load_dataset("citeseer")
    network = dataclasses.replace(planetoid.baseline("cora", model), layers=2, learning_rate=0.1, l2=0.02,
                                  l2_layers=l2_layers)
    shapes = jax.eval_shape(networks.build(model, network, dataset).init, jax.random.key(0), dataset.graph)
    rng = np.random.default_rng(0)
    params, gradient = (jax.tree.map(lambda x: rng.normal(size=x.shape), shapes) for _ in range(2))
    optimizer = networks.optimizer_of(model, network)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    seen = []
    for (path, update), x, g in zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params),
                                    jax.tree.leaves(gradient), strict=True):
        seen.append(jax.tree_util.keystr(path))
        decayed = g + (0.5 if seen[-1] in apart else 0.02) * x
        np.testing.assert_allclose(update, -0.1 * np.sign(decayed), atol=2e-3)  # Adam's first step
    assert set(apart) < set(seen)


def test_what_the_authors_set_apart_is_configured():
    assert {(dataset, model): (network.l2, network.l2_layers, network.monitor)
            for dataset, model in (("cora", "GCN"), ("pubmed", "APPNP"), ("cora", "GCNII"), ("pubmed", "GCNII"))
            for network in [planetoid.baseline(dataset, model)]} == {
        ("cora", "GCN"): (5e-4, None, "val_accuracy"), ("pubmed", "APPNP"): (0.0, 5e-3, "val_accuracy"),
        ("cora", "GCNII"): (5e-4, 1e-2, "val_loss"), ("pubmed", "GCNII"): (5e-4, 5e-4, "val_loss")}


def test_without_a_decay_in_the_gradient_it_is_adamw():
    assert networks.optimizer_of("RGCN", configs.START["RGCN"]) is None


def test_a_model_without_a_configuration_is_named(tmp_path):
    settings = baselines.Settings(datasets=("citeseer",), models=("RGCN",), out=tmp_path)
    with pytest.raises(SystemExit, match="RGCN is not configured for citeseer; GCN, GAT"):
        baselines.main(settings, Console(quiet=True))


def test_the_grid_leaves_out_what_changes_nothing(monkeypatch):
    monkeypatch.setattr(configs, "SEARCH", {"features": ("all", "target", "none"), "dropout": (0.1, 0.2)})
    kept = {model: [x.features for x in baselines.grid(model, configs.START[model])] for model in configs.MODELS}
    assert kept["RGCN"] == kept["SeHGNN"] == ["all", "all", "target", "target", "none", "none"]
    assert kept["HAN"] == kept["MLP"] == ["all", "all", "none", "none"]


@pytest.mark.parametrize(("features", "kept"), [("all", {"movie", "director", "actor"}), ("target", {"movie"}),
                                                ("none", set())])
def test_features_are_kept_as_configured(features, kept):
    dataset = hj.load_dataset("imdb_gtn")
    read = networks.prepared("RGCN", configs.Baseline(features=features), dataset)
    assert set(read.graph.features) == kept


def test_sehgnn_reads_types_without_features():
    dataset = hj.load_dataset("imdb_gtn")
    graph = networks.prepared("SeHGNN", configs.Baseline(features="target"), dataset).graph
    nodes = dataset.graph.num_nodes
    widths = {name: x.shape[1] for name, x in graph.features.items() if not name.startswith("label:")}
    assert widths == {"movie": 1256, "director-movie": nodes["director"], "actor-movie": nodes["actor"],
                      "movie-director-movie": 1256, "movie-actor-movie": 1256}


def test_only_training_labels_are_propagated():
    dataset = hj.load_dataset("imdb_gtn")
    hot = networks.training_labels(dataset)
    train = np.asarray(dataset.splits["train"])
    assert np.array_equal(hot.sum(axis=1), train) and np.array_equal(hot.argmax(axis=1)[train], dataset.labels[train])


def cell(values):
    metrics = {"test_macro_f1": values, "test_micro_f1": values}
    facts = {"parameters": 1234, "train_seconds": 1.0, "compile_seconds": 1.0}
    return Cell(key="k", config={}, seeds=list(range(len(values))), metrics=metrics, facts=facts, environment={},
                seconds=2.0, finished_at="")


@pytest.mark.parametrize(("mean", "mark"), [(0.9110, True), (0.9112, False), (0.95, False)])
def test_a_shortfall_is_marked_below_published_minus_one_sd(mean, mark):
    summary = hj.report.summarise([mean, mean])
    text, beside = baselines._beside(summary, (91.61, 0.5))
    assert text.endswith(" <") == mark and beside == "91.61 ± 0.50"


def test_the_table_counts_collapsed_seeds(tmp_path):
    settings = baselines.Settings(out=tmp_path)
    baselines.report({("dblp_hgb", "RGCN"): cell([0.9, 0.91, 0.92, 0.5])}, settings, baselines.ResultStore(tmp_path),
                     Console(width=200))
    row = (tmp_path / "table.md").read_text().splitlines()[2]
    assert "| 50.0 | 1/4 | 1,234 | 0.5 |" in row and "80.75" in row and row.count(" <") == 2
