"""Studies of the relation-level term: their data, their cells, and what is drawn from the lines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import hire_jax as hj
from experiments import relational, relational_data, tables_cells
from experiments.configs.relational import NODE, STUDENT, STUDIES, Condition, Study, weighed
from experiments.keys import key, plain
from experiments.relational import Settings
from experiments.relational_cells import Setup, distances, objectives, with_node_level, words
from experiments.relational_report import METRIC, rows_of
from experiments.statistics import holm
from experiments.store import Cell, ResultStore

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUIET = Console(quiet=True)
RELATIONS = [("actor", "in", "movie"), ("director", "of", "movie")]


@pytest.fixture(scope="module")
def dataset():
    return hj.data.synthetic_hetero({"movie": 60, "actor": 40, "director": 20}, RELATIONS, feature_width=6)


@pytest.fixture(scope="module")
def setup(dataset):
    return Setup.of("synthetic", dataset, "RGCN", Condition(), 2, epochs=2, hidden=32)


def test_smaller_shares_of_labels_lie_within_larger_ones_and_are_tested_on_the_same_nodes(dataset):
    labels, splits = np.asarray(dataset.labels), {}
    for share in (0.05, 0.1, 0.2):
        found = relational_data.relabelled(dataset, share)
        splits[share] = {part: np.asarray(mask) for part, mask in found.splits.items()}
        for c in range(dataset.num_classes):
            known = (np.asarray(dataset.splits["val"]) & (labels == c)).sum()
            wanted = round(share * (labels == c).sum())
            assert splits[share]["train"][labels == c].sum() == wanted
            assert splits[share]["val"][labels == c].sum() == min(wanted, known)
        assert not (splits[share]["val"] & ~np.asarray(dataset.splits["val"])).any()
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


def test_a_share_of_the_edges_leads_elsewhere_and_nothing_else_changes(dataset):
    graph = dataset.graph.add_reverse_relations()
    assert len(graph.edge_types) == 4
    before, found = graph.host_edges(), relational_data.rewired(graph, 0.5)
    assert found.edge_types == graph.edge_types and found.num_edges == graph.num_edges
    after = found.host_edges()
    for edge_type in graph.edge_types:
        assert found.reverse_of(edge_type) == graph.reverse_of(edge_type) is not None
        for side, name in ((0, edge_type[0]), (1, edge_type[2])):  # degrees, at both ends
            np.testing.assert_array_equal(*(np.bincount(edges[edge_type][side], minlength=graph.num_nodes[name])
                                            for edges in (before, after)))
        pairs = [set(map(tuple, edges[edge_type].T.tolist())) for edges in (before, after)]
        assert 0.3 < len(pairs[0] & pairs[1]) / len(pairs[0]) < 0.75
    for name, edges in relational_data.rewired(graph, 0.0).host_edges().items():
        np.testing.assert_array_equal(edges, before[name])
    with pytest.raises(ValueError, match=r"noise: expected a share from 0 to 1, got 1\.5"):
        relational_data.rewired(graph, 1.5)
    symmetric = hj.HeteroGraph.from_arrays({"p": 3}, {("p", "links", "p"): [[0, 1], [1, 0]]})
    with pytest.raises(ValueError, match=r"noise: the relation \('p', 'links', 'p'\) is its own reverse"):
        relational_data.rewired(symmetric, 0.5)


def test_noise_leaves_no_features_but_the_targets(dataset):
    found = relational_data.conditioned(dataset, Condition(noise=0.25, features="target"))
    assert set(found.graph.features) == {"movie"} and set(dataset.graph.features) == {"movie", "actor", "director"}


def test_every_condition_is_other_data(dataset):
    setups = [Setup.of("synthetic", dataset, "RGCN", condition, 2) for condition in (
        Condition(), Condition(labels=0.05), Condition(labels=0.2), Condition(features="target"),
        Condition(noise=0.5, features="target"))]
    assert len({one.pair.fingerprint for one in setups}) == 5
    names = ["as it is", "5 % labels", "20 % labels", "0 % noise", "50 % noise"]
    assert [str(one.condition) for one in setups] == names


def test_every_cell_has_a_key_of_its_own(setup):
    for study in STUDIES.values():
        jobs = setup.plan(study)
        assert len({key(job.config) for job in jobs}) == len(jobs) == 3 + 2 * (len(study.terms) + 3 * len(study.pairs))
        assert jobs[0].label == "teacher" and jobs[0].teacher is None and jobs[0].network.hidden == 32
        references = [dataclasses.replace(one, **study.common) for one in (STUDENT, NODE)]
        assert [job.objective for job in jobs[1:3]] == references
        assert all(job.config["teacher"] == key(jobs[0].config) and job.network.hidden == 8 for job in jobs[1:])
        alone = jobs[3:3 + (len(jobs) - 3) // 2]
        assert [with_node_level(job.objective) for job in alone] == [job.objective for job in jobs[3 + len(alone):]]
        assert len({words(job.objective) for job in jobs[1:]}) == len(jobs) - 1


def test_the_command_line_knows_every_study():
    assert Settings().studies == tuple(STUDIES)


def test_a_pair_by_itself_is_the_term_of_two_types(setup, rng):
    sides = [{name: jnp.asarray(rng.normal(size=(5, 4)), jnp.float32) for name in ("movie", "actor", "director")}
             for _ in range(2)]
    study = Study(question="Which?", pairs=(10.0,))
    weights = [dict(objective.group_weights) for objective in objectives(study, setup.types)[2:5]]
    assert len(weights) == 3 and all(len(zeros) == 1 for zeros in weights)
    values = []
    for zeros in weights:
        pair = [name for name in sides[0] if name not in zeros]
        alone = hj.losses.type_pair_correlation(*({name: side[name] for name in pair} for side in sides))
        values.append(float(hj.losses.type_pair_correlation(*sides, weights=zeros)))
        np.testing.assert_allclose(values[-1], alone, rtol=1e-6)
    np.testing.assert_allclose(np.mean(values), hj.losses.type_pair_correlation(*sides), rtol=1e-6)


@pytest.mark.parametrize(("objective", "said"), [
    (STUDENT, "labels alone"), (NODE, "node-level"), (weighed(0.1)[0], "beta 0.1"),
    (weighed(10.0, variant="edges", layers=(0, 1))[0], "beta 10, ends of edges, layers 0 and 1"),
    (weighed(1.0, centred=True, hubs="degree")[0], "beta 1, about the mean, hubs weighed down"),
    (with_node_level(weighed(1.0, group_weights={"movie": 0.0})[0]), "node-level + beta 1, without movie"),
    (hj.Objective(others={"class_prototype_correlation": 10.0}), "beta 10, prototypes of classes"),
])
def test_a_row_says_what_taught_the_student(objective, said):
    assert words(objective) == said


def cell(condition, objective, scores, label="student", at=0):
    config = {"experiment": "relational", "dataset": "d", "model": "m", "seeds": len(scores), "condition": condition,
              "label": label, "objective": objective} | ({"teacher": f"{condition} {at}"} if label == "student" else {})
    name = f"{condition} {at}" if label == "teacher" else f"{config}"
    return Cell(name, plain(config, "config"), list(range(len(scores))), {METRIC: scores},
                {"distances": {"a - b": 0.1}}, {}, 0.0, f"{at:02}")


def test_every_row_is_compared_within_its_condition_and_corrected_over_the_table():
    """Against sums by hand: seven seeds, one other term alone and with the node-level one, two conditions."""
    term, conditions = weighed(1.0)[0], (Condition(), Condition(noise=0.5))
    study = Study(question="Which?", terms=(term,), conditions=conditions)
    rng = np.random.default_rng(0)
    scores = {(c, o): rng.random(7).tolist() for c in conditions for o in (STUDENT, NODE, term, with_node_level(term))}
    lines = [cell(c, STUDENT, [0.9] * 7, "teacher") for c in conditions]
    lines += [cell(c, o, values) for (c, o), values in scores.items()]
    rows, planned = rows_of(study, lines)
    assert planned == len(rows) == 2 * (1 + 4) and [row.tested for row in rows] == 2 * [False, False, False, True, True]
    p_values = []
    for row, objective in zip(rows, 2 * [None, STUDENT, NODE, term, with_node_level(term)], strict=True):
        condition = conditions[row.condition != "as it is"]
        reference = {None: None, STUDENT: None, NODE: STUDENT, term: STUDENT, with_node_level(term): NODE}[objective]
        if reference is None:
            assert row.difference is None and row.corrected is None and row.beside == "-"
            continue
        a, b = scores[condition, objective], scores[condition, reference]
        assert row.beside == words(reference) and row.name == words(objective)
        np.testing.assert_allclose(row.difference.mean, np.mean(np.subtract(a, b)))
        p_values += [stats.wilcoxon(np.subtract(a, b)).pvalue] if row.tested else []
    assert len(p_values) == 4 and [row.corrected for row in rows if row.tested] == holm(p_values)
    # Of two runs the one whose teacher ended last, though another has more cells; what is missing is counted.
    again = [cell(conditions[0], STUDENT, [0.8] * 7, "teacher", at=1), cell(conditions[0], NODE, [0.7] * 7, at=1)]
    rows, planned = rows_of(study, lines + again)
    assert planned == 10 and [row.name for row in rows[:3]] == ["teacher", "node-level", "teacher"]
    assert rows[1].difference is None and rows[0].scores == [0.8] * 7


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
    """Cells that are not trained; what was asked for. The fourth is interrupted."""
    asked = []

    def train_cell(name, config, store, tracker, done, *, keep, record, facts, **arguments):
        asked.append(name)
        assert (arguments["teacher"] is None) == (not arguments["objective"].needs_teacher)
        if len(asked) == 4:
            raise KeyboardInterrupt
        if keep:
            store.save_arrays(key(config), {"x": np.zeros(1)})
        if record:
            scores = 0.5 + 0.01 * len(asked) + 0.001 * np.arange(config["seeds"])
            distances = {} if keep else {"actor - director": 0.1, "actor - movie": 0.1, "director - movie": 0.1}
            store.append(config, seeds=arguments["seeds"], metrics={METRIC: scores}, facts={"distances": distances})

    monkeypatch.setattr(tables_cells, "train_cell", train_cell)
    monkeypatch.setattr(tables_cells, "stored_parameters", lambda config, store: None)
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
    assert code.value.code == 130
    assert pretended == [f"as it is, {name}" for name in ("teacher", "labels alone", "node-level", "beta 1")]
    (tmp_path / "arrays.jsonl").unlink()
    relational.main(settings, QUIET)
    cells = ResultStore(tmp_path).cells()
    assert len(cells) == len((tmp_path / "results.jsonl").read_text().splitlines()) == 2 * (3 + 2 * (2 + 3))
    assert len(pretended) == 4 + len(cells) - 3 + 1 and pretended.count("as it is, teacher") == 2

    names = ("variants-imdb_gtn-RGCN.md", "variants-imdb_gtn-RGCN.png")
    drawn = {name: (tmp_path / name).read_bytes() for name in names}
    text = drawn[names[0]].decode()
    assert text.count("| node-level + beta 10, without director |") == 4  # two conditions, two tables
    assert sum(line.startswith("| 50 % noise | ") for line in text.splitlines()) == 13 + 12
    assert "26 of 26 cells are finished" in text and drawn[names[1]].startswith(b"\x89PNG")
    monkeypatch.setattr(relational, "load_named", None)  # from the lines alone
    relational.main(dataclasses.replace(settings, render=True, studies=("layers", "variants")), QUIET)
    assert {name: (tmp_path / name).read_bytes() for name in names} == drawn and len(pretended) == 28
    with pytest.raises(SystemExit, match="no finished cell of variants on imdb_gtn, RGCN with 3 seeds"):
        relational.main(dataclasses.replace(settings, render=True, seeds=3), QUIET)


def test_what_the_data_cannot_have_is_refused_before_anything_is_trained(pretended, dataset, tmp_path, monkeypatch):
    many = dataclasses.replace(dataset, labels=jnp.ones((60, 3), jnp.int32), multilabel=True)
    monkeypatch.setattr(relational, "load_named", lambda name, root: many)
    with pytest.raises(SystemExit, match=r"--studies: 'labels' cannot be run on imdb_gtn with RGCN .* multi-label"):
        relational.main(Settings(out=tmp_path, studies=("variants", "labels")), QUIET)
    alone = hj.data.synthetic_hetero({"movie": 60}, [("movie", "to", "movie")], feature_width=6)
    monkeypatch.setattr(relational, "load_named", lambda name, root: alone)
    with pytest.raises(SystemExit, match=r"--studies: 'variants' cannot be run .* has only the node types"):
        relational.main(Settings(out=tmp_path, studies=("variants",)), QUIET)
    with pytest.raises(SystemExit, match="--studies: expected at least one of variants, layers"):
        relational.main(Settings(out=tmp_path, studies=()), QUIET)
    assert not pretended


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
    names = ["labels alone", "node-level", "beta 1", "node-level + beta 1"]
    assert rows == ["teacher", *names, *names]  # the second table is of distances
