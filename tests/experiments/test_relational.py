"""Studies of the relation-level term: their data, their cells, and what is drawn from the lines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments import relational, relational_cells, relational_data
from experiments.configs.relational import NODE, STUDENT, STUDIES, Condition, Study, weighed
from experiments.keys import key, plain
from experiments.relational import Settings
from experiments.relational_cells import Setup, distances, with_node_level
from experiments.relational_report import words
from experiments.store import Cell, ResultStore
from hire_jax import Objective

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUIET = Console(quiet=True)
RELATIONS = [("actor", "in", "movie"), ("director", "of", "movie")]


@pytest.fixture(scope="module")
def dataset():
    return hj.data.synthetic_hetero({"movie": 60, "actor": 40, "director": 20}, RELATIONS, feature_width=6)


@pytest.fixture(scope="module")
def setup(dataset):
    return Setup("synthetic", dataset, "RGCN", Condition(), 2, epochs=2, hidden=32)


def test_smaller_shares_of_labels_lie_within_larger_ones_and_are_tested_on_the_same_nodes(dataset):
    labels, splits = np.asarray(dataset.labels), {}
    for share in (0.05, 0.1, 0.2):
        found = relational_data.relabelled(dataset, share)
        splits[share] = {part: np.asarray(mask) for part, mask in found.splits.items()}
        for c in range(dataset.num_classes):
            assert splits[share]["train"][labels == c].sum() == round(share * (labels == c).sum())
        np.testing.assert_array_equal(splits[share]["val"], dataset.splits["val"])
        np.testing.assert_array_equal(splits[share]["test"], splits[0.05]["test"])
        assert found.meta["split"] == f"{100 * share:g} % labels"
    assert not (splits[0.05]["train"] & ~splits[0.1]["train"]).any()
    assert not (splits[0.1]["train"] & ~splits[0.2]["train"]).any()
    other = relational_data.relabelled(dataset, 0.2, seed=1)
    assert not np.array_equal(other.splits["train"], splits[0.2]["train"])


@pytest.mark.parametrize(("share", "message"), [
    (0.3, "labels: expected a share above 0 and at most 0.2, got 0.3"), (0.0, "got 0"),
    (0.001, "labels: class 0 has .* too few for a share of 0.001")])
def test_shares_that_cannot_be_drawn_are_refused(dataset, share, message):
    with pytest.raises(ValueError, match=message):
        relational_data.relabelled(dataset, share)


def test_a_share_of_the_edges_leads_elsewhere_and_reverses_follow(dataset):
    graph = dataset.graph.add_reverse_relations()
    assert len(graph.edge_types) == 4
    before, found = graph.host_edges(), relational_data.rewired(graph, 0.5)
    assert found.edge_types == graph.edge_types and found.num_edges == graph.num_edges
    after = found.host_edges()
    for edge_type in RELATIONS:
        reverse = relational_data.reverse_of(found, edge_type)
        assert reverse is not None and reverse == relational_data.reverse_of(graph, edge_type)
        pairs = {name: {(e, *pair) for e in [0] for pair in edges[edge_type].T.tolist()}
                 for name, edges in (("before", before), ("after", after))}
        kept = len(pairs["before"] & pairs["after"]) / len(pairs["before"])
        assert 0.3 < kept < 0.75
        np.testing.assert_array_equal(np.bincount(after[edge_type][0], minlength=40),
                                      np.bincount(before[edge_type][0], minlength=40))
    for name, edges in relational_data.rewired(graph, 0.0).host_edges().items():
        np.testing.assert_array_equal(edges, before[name])
    with pytest.raises(ValueError, match=r"noise: expected a share from 0 to 1, got 1\.5"):
        relational_data.rewired(graph, 1.5)


def test_every_condition_is_other_data(setup):
    setups = [dataclasses.replace(setup, condition=condition) for condition in (
        Condition(), Condition(labels=0.05), Condition(labels=0.2), Condition(noise=0.5))]
    assert len({one.fingerprint for one in setups}) == 4
    assert [str(one.condition) for one in setups] == ["as it is", "5 % labels", "20 % labels", "50 % noise"]


def test_every_cell_has_a_key_of_its_own(setup):
    for study in STUDIES.values():
        jobs = setup.plan(study)
        assert len({key(job.config) for job in jobs}) == len(jobs) == 3 + 2 * (len(study.terms) + 3 * len(study.pairs))
        assert jobs[0].label == "teacher" and jobs[0].teacher is None and jobs[0].network.hidden == 32
        assert [job.objective for job in jobs[1:3]] == [STUDENT, NODE] and jobs[1].teacher is None
        assert all(job.teacher is not None and job.network.hidden == 8 for job in jobs[2:])
        alone = jobs[3:3 + (len(jobs) - 3) // 2]
        assert [with_node_level(job.objective) for job in alone] == [job.objective for job in jobs[3 + len(alone):]]


def test_the_command_line_knows_every_study():
    assert Settings().studies == tuple(STUDIES)


def test_a_pair_by_itself_is_the_term_of_two_types(setup, rng):
    sides = [{name: jnp.asarray(rng.normal(size=(5, 4)), jnp.float32) for name in ("movie", "actor", "director")}
             for _ in range(2)]
    weights = setup.each_pair()
    assert len(weights) == 3 and all(len(zeros) == 1 for zeros in weights)
    values = []
    for zeros in weights:
        pair = [name for name in sides[0] if name not in zeros]
        alone = hj.losses.type_pair_correlation(*({name: side[name] for name in pair} for side in sides))
        values.append(float(hj.losses.type_pair_correlation(*sides, weights=zeros)))
        np.testing.assert_allclose(values[-1], alone, rtol=1e-6)
    np.testing.assert_allclose(np.mean(values), hj.losses.type_pair_correlation(*sides), rtol=1e-6)


def test_a_row_says_what_taught_the_student():
    def name(objective, label="student"):
        config = plain({"label": label, "objective": objective}, "config")
        return words(Cell("", config, [0], {}, {}, {}, 0.0, ""))

    pair = Objective(type_pair_correlation=10.0, group_weights={"movie": 0.0})
    assert [name(one) for one in (STUDENT, NODE, pair, with_node_level(pair))] == [
        "student", "node-level", "beta 10, without movie", "node-level + beta 10, without movie"]
    assert name(STUDENT, "teacher") == "teacher"


def test_distances_are_the_mean_over_seeds(rng):
    def outputs():
        hidden = {name: jnp.asarray(rng.normal(size=(3, n, 4)), jnp.float32) for name, n in (("a", 5), ("b", 6))}
        return hj.ModelOutput(jnp.zeros((3, 5, 2)), (hidden, hidden, {"a": hidden["a"]}), ())

    students, teachers = outputs(), outputs()
    each = [hj.losses.type_pair_correlation(*(jax.tree.map(lambda x, i=i: x[i], side.hidden[1])
                                              for side in (students, teachers))) for i in range(3)]
    found = distances(students, teachers)
    assert list(found) == ["a - b"]
    np.testing.assert_allclose(found["a - b"], np.mean(each), rtol=1e-6)


@pytest.fixture
def pretended(monkeypatch):
    """Cells that are not trained; the labels of those asked for. The fourth is interrupted."""
    asked = []

    def train_cell(name, config, store, tracker, done, *, keep, record, facts, **arguments):
        asked.append(config["label"])
        if len(asked) == 4:
            raise KeyboardInterrupt
        if keep:
            store.save_arrays(key(config), {"x": np.zeros(1)})
        if record:
            scores = 0.5 + 0.01 * len(asked) + 0.001 * np.arange(config["seeds"])
            distances = {} if keep else {"actor - movie": 0.001}
            store.append(config, seeds=arguments["seeds"], metrics={"test_macro_f1": scores},
                         facts={"distances": distances} if distances else {})

    monkeypatch.setattr(relational_cells, "train_cell", train_cell)
    monkeypatch.setattr(relational_cells, "stored_parameters", lambda config, store: None)
    monkeypatch.setattr(hj, "predict", lambda model, params, graph: "what the teachers say")
    return asked


def test_a_study_is_resumed_and_drawn(pretended, dataset, tmp_path, monkeypatch):
    """A run that lost its teachers' parameters trains them again and writes no line twice."""
    study = Study(question="Which?", terms=weighed(1.0, 2.0), pairs=(10.0,),
                  conditions=(Condition(), Condition(noise=0.5)))
    monkeypatch.setitem(STUDIES, "variants", study)
    monkeypatch.setattr(relational, "load_named", lambda name, root: dataset)
    settings = Settings(out=tmp_path, studies=("variants",))
    with pytest.raises(SystemExit) as code:
        relational.main(settings, QUIET)
    assert code.value.code == 130 and pretended == ["teacher", "student", "student", "student"]
    (tmp_path / "arrays.jsonl").unlink()
    relational.main(settings, QUIET)
    cells = ResultStore(tmp_path).cells()
    assert len(cells) == len((tmp_path / "results.jsonl").read_text().splitlines()) == 2 * (3 + 2 * (2 + 3))
    assert len(pretended) == 4 + len(cells) - 3 + 1 and pretended.count("teacher") == 3

    names = ("variants-imdb_gtn-RGCN.md", "variants-imdb_gtn-RGCN.png")
    drawn = {name: (tmp_path / name).read_bytes() for name in names}
    text = drawn[names[0]].decode()
    assert text.count("| node-level + beta 10, without director |") == 4  # two conditions, two tables
    assert sum(line.startswith("| 50 % noise | ") for line in text.splitlines()) == 13 + 12
    assert "p (Holm)" in text and drawn[names[1]].startswith(b"\x89PNG")
    relational.main(dataclasses.replace(settings, render=True), QUIET)
    assert {name: (tmp_path / name).read_bytes() for name in names} == drawn and len(pretended) == 28
    with pytest.raises(SystemExit, match="no finished cell of the study 'variants'"):
        relational.main(dataclasses.replace(settings, render=True, seeds=3), QUIET)


@pytest.mark.slow
def test_a_study_is_trained_for_real(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(STUDIES, "variants", Study(question="Which?", terms=weighed(1.0)))
    monkeypatch.setattr(relational, "load_named", lambda name, root: dataset)
    relational.main(Settings(out=tmp_path, smoke=True, studies=("variants",)), QUIET)
    cells = list(ResultStore(tmp_path / "smoke").cells().values())
    pairs = {"actor - director", "actor - movie", "director - movie"}
    assert [set(cell.facts.get("distances", ())) for cell in cells] == [set(), *[pairs] * 4]
    curves = ResultStore(tmp_path / "smoke").histories()
    taught = [set(curves[cell.key]) & {"train_soft_target_kl", "train_type_pair_correlation"} for cell in cells]
    assert [len(terms) for terms in taught] == [0, 0, 1, 1, 2]
    text = (tmp_path / "smoke" / "variants-imdb_gtn-RGCN.md").read_text()
    rows = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| as it is | ")]
    names = ["student", "node-level", "beta 1", "node-level + beta 1"]
    assert rows == ["teacher", *names, *names]  # the second table is of distances
