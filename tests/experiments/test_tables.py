"""The paper tables: which cells there are, how an objective is chosen, resuming, and what is drawn from the lines."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments import tables, tables_cells, tables_costs, tables_figures, tables_report
from experiments.configs.tables import METHODS, TABLES
from experiments.keys import key
from experiments.statistics import ranking
from experiments.store import ResultStore
from experiments.tables import Settings
from experiments.tables_cells import Pair, shuffled, student_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUIET = Console(quiet=True)
TABLE = dataclasses.replace(TABLES["hire"], datasets=("imdb_gtn",), models=("RGCN",), seeds=4, tuning_seeds=2)


@pytest.fixture(scope="module")
def pair():
    return Pair("imdb_gtn", hj.load_dataset("imdb_gtn"), "RGCN", TABLE)


def quality(config) -> float:
    """What a cell pretends to reach: logits help most at temperature 2, a shuffled teacher harms."""
    objective = config["objective"]
    score = 0.5 + 0.05 * (objective.soft_target_kl > 0) - 0.01 * abs(objective.temperature - 2)
    score += 0.01 * (objective.type_pair_correlation == 5) + 0.02 * (objective.label_smoothing == 0.1)
    return score - 0.1 * config.get("shuffled", False) + 0.2 * (config["label"] == "teacher")


@pytest.fixture
def pretended(monkeypatch):
    """Cells that are not trained; the list of what was asked for."""
    asked = []

    def train_cell(name, config, store, tracker, done, *, teacher, **arguments):
        asked.append(config["label"])
        assert (teacher is None) == (not config["objective"].needs_teacher)
        scores = quality(config) + 0.001 * np.arange(config["seeds"]) ** 2
        names = [f"{split}_{kind}_f1" for split in ("val", "test") for kind in ("micro", "macro")]
        seeds = arguments["seeds"]
        assert seeds[0] == config["first_seed"] and len(seeds) == config["seeds"]
        if arguments["keep"]:
            store.save_arrays(key(config), {"x": np.zeros(1)})
        if not arguments["record"]:
            return
        store.append(config, seeds=seeds, metrics=dict.fromkeys(names, scores),
                     facts={"parameters": 100}, seconds=1)
        tracker.update(done + 1)

    monkeypatch.setattr(tables_cells, "train_cell", train_cell)
    monkeypatch.setattr(tables_cells, "stored_parameters", lambda config, store: {"params": np.zeros((9, 1))})
    monkeypatch.setattr(hj, "predict", lambda model, params, graph: "what the teachers say")
    monkeypatch.setattr(tables_cells, "shuffled", lambda outputs: outputs)
    facts = {"parameters": 100, "flops": 2e6, "p50_milliseconds": 1.0, "p95_milliseconds": 2.0, "peak_bytes": 2**20}
    monkeypatch.setattr(tables_costs, "costs", lambda pair, role: facts)
    return asked


def test_every_cell_has_a_place_and_a_key_of_its_own(pair):
    jobs = pair.plan({})
    labels = [job.label for job in jobs]
    assert labels[0] == "teacher" and labels[-7:] == list(METHODS)
    assert labels.count("HIRE (search)") == 6 and "shuffled teacher (search)" not in labels
    assert len({key(job.config) for job in jobs}) == len(jobs) == 1 + 5 * 6 + 7
    for job in jobs:
        assert job.config["seeds"] == (2 if job.label.endswith("(search)") else 4)
        assert (job.teacher is None) == (not job.objective.needs_teacher)
        assert job.network.hidden == (64 if job.label == "teacher" else 8)
        assert job.shuffled == job.config.get("shuffled", False) == (job.label == "shuffled teacher")
    other = dataclasses.replace(pair, table=dataclasses.replace(TABLE, setting="same size"))
    shared = {key(job.config) for job in other.plan({})} & {key(job.config) for job in jobs}
    assert shared == {key(pair.teacher().config)}  # the teacher of both settings is one cell


def test_every_grid_is_as_long_as_the_others():
    tuned = {name: method for name, method in METHODS.items() if len(method.grid) > 1}
    assert set(tuned) == set(METHODS) - {"student", "shuffled teacher"}
    for name, method in tuned.items():
        assert len(set(method.grid)) == TABLE.tries == 6, name


def test_a_compressed_student_has_a_quarter_of_the_parameters(pair, monkeypatch):
    pair.check()
    teacher = pair.networks["teacher"]
    assert student_of(teacher, "same size") == teacher
    assert student_of(dataclasses.replace(teacher, heads=8), "compressed").heads == 2
    monkeypatch.setattr(tables_cells, "LARGEST_SHARE", 0.1)
    with pytest.raises(SystemExit, match="RGCN: a compressed student has at most 10% of its teacher's 283,651 param"):
        dataclasses.replace(pair).check()


def test_the_shuffled_teacher_says_the_same_of_other_nodes():
    rng = np.random.default_rng(0)
    hidden = {"a": rng.random((2, 6, 3)), "b": rng.random((2, 4, 3))}
    outputs = jax.tree.map(jnp.asarray, hj.ModelOutput(rng.random((2, 6, 5)), (hidden, hidden), ()))
    found = shuffled(outputs)
    for before, after in zip(jax.tree.leaves(outputs), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(np.sort(after, axis=1), np.sort(before, axis=1))
        assert not np.array_equal(after, before)
    order = [int(np.flatnonzero((np.asarray(outputs.logits[0]) == row).all(axis=1))[0]) for row in found.logits[0]]
    assert sorted(order) == list(range(6))
    np.testing.assert_array_equal(found.hidden[1]["a"], np.asarray(hidden["a"], np.float32)[:, order])


def test_a_table_is_run_chosen_resumed_and_drawn(pretended, tmp_path, monkeypatch):
    limits = {"out": tmp_path, "datasets": ("imdb_gtn",), "models": ("RGCN", "HAN"), "seeds": 7}
    train, calls = tables_cells.train_cell, []

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        train(*args, **kwargs)

    monkeypatch.setattr(tables_cells, "train_cell", stopped)
    with pytest.raises(SystemExit) as code:
        tables.main(Settings(**limits), QUIET)
    assert code.value.code == 130 and len(pretended) == 19
    (tmp_path / "arrays.jsonl").unlink()  # parameters that are lost are trained again, and no line is written twice
    tables.main(Settings(**limits), QUIET)
    assert len(pretended) == 2 * 38 + 1 and pretended[19] == "teacher"
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("hire")}
    assert set(drawn) == {f"hire-part{end}" for end in (".md", ".tex", ".csv", "-imdb_gtn.png", "-ranks.png")}

    tables.main(Settings(**limits), QUIET)
    assert len(pretended) == 77
    fresh = tmp_path / "undisturbed"
    monkeypatch.setattr(tables_cells, "train_cell", train)
    tables.main(Settings(**(limits | {"out": fresh})), QUIET)
    (fresh / "results.csv").unlink()
    for folder in (tmp_path, fresh):  # from the lines alone
        monkeypatch.setattr(hj, "load_dataset", None)
        tables.main(Settings(**(limits | {"out": folder, "render": True})), QUIET)
        assert {name: (folder / name).read_bytes() for name in drawn} == drawn

    text = drawn["hire-part.md"].decode()
    assert "| imdb_gtn | RGCN | smoothing 0.1 | alpha 1, T 2 | beta 5 | alpha 4, T 2, beta 0.1 |" in text
    assert "- node-level: alpha 1; alpha 4; alpha 1, T 2; alpha 4, T 2; alpha 1, T 4; alpha 4, T 4\n" in text
    # ten of one sign in each of two tests: 2 / 2 ** 7, and twice that
    assert "| RGCN | HIRE | 0.031 |" in text and "| RGCN | node-level | - |" in text and "| 0.016 |" in text
    assert "the 2 tests of HIRE against the student are one family; with 7 seeds the smallest corrected p is 0" in text
    assert "2 of 2 pairs of a graph and a model have every method." in text
    assert "| shuffled teacher | -4.00 | 0 | 0 | 2 |" in text and "| 2 | 0 | 0 |" in text
    assert "| imdb_gtn | HAN | 100 / 100 | 2 / 2 | 1.0 / 1.0 | 2.0 / 2.0 | 1 / 1 |" in text
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 76 + 4 and {line["config"]["seeds"] for line in lines} == {0, 3, 7}
    starts = {line["config"]["label"].partition(" (")[2]: line["seeds"][0] for line in lines if line["seeds"]}
    assert starts == {"": 0, "search)": 2000} and lines[0]["seeds"][0] == 1000


def test_an_unfinished_table_is_drawn_as_far_as_it_is(pretended, tmp_path):
    limits = {"out": tmp_path, "datasets": ("imdb_gtn",), "models": ("RGCN",)}
    tables.main(Settings(**limits, methods=("student", "node-level")), QUIET)
    tables.main(Settings(**limits, render=True), QUIET)
    text = (tmp_path / "hire-part.md").read_text()
    assert "| RGCN | node-level |" in text and "| RGCN | HIRE |" not in text
    assert "0 of 1 pairs of a graph and a model have every method." in text
    with pytest.raises(SystemExit, match="no finished cell of the table 'hire_same_size'"):
        tables.main(Settings(out=tmp_path / "none", table="hire_same_size", render=True), QUIET)


def test_dry_run_counts_cells_and_trains_none(pretended, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "seconds_of_an_epoch", lambda pair, role: 0.1)
    limits = {"out": tmp_path, "datasets": ("imdb_gtn",), "models": ("RGCN",)}
    tables.main(Settings(**limits, dry_run=True), Console(width=200))
    printed = capsys.readouterr().out
    # 150 epochs of 0.1 s: 8 cells of 10 seeds, 30 of 3
    assert not pretended and f"{(8 * 10 + 30 * 3) * 150 * 0.1 / 3600:.1f} hours" in printed and "38" in printed


@pytest.mark.parametrize(("changes", "message"), [
    ({"models": ("MLP",)}, "--models: unknown 'MLP'; the table hire has RGCN, HAN, HGT, SimpleHGN"),
    ({"datasets": ("cora",)}, "--datasets: unknown 'cora'; the table hire has imdb_gtn, acm_hgb, dblp_hgb"),
    ({"methods": ("hint",)}, "--methods: unknown 'hint'; the table hire has student, label smoothing"),
    ({"seeds": 2}, "--seeds: the search takes the first 3 teachers, got 2 seeds"),
])
def test_unknown_names_are_said(changes, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        tables.main(Settings(out=tmp_path, **changes), QUIET)


def test_numbers_of_a_paper_stand_beside_ours(pretended, tmp_path, monkeypatch, capsys):
    limits = {"out": tmp_path, "datasets": ("imdb_gtn",), "models": ("RGCN",), "methods": ("student",)}
    tables.main(Settings(**limits), QUIET)
    tables.main(Settings(out=tmp_path, compare=True), Console(width=200))
    assert "has no rows of the table 'hire'" in capsys.readouterr().out
    reference = tmp_path / "tables.csv"
    monkeypatch.setattr(tables_report, "REFERENCE", reference)
    header = ",".join(tables_report.REFERENCE_FIELDS)
    reference.write_text(f"{header}\nhire,imdb_gtn,RGCN,teacher,test_micro_f1,61.5,0.4,a paper,7,no\n")
    tables.main(Settings(out=tmp_path, compare=True), Console(width=200))
    printed = capsys.readouterr().out
    assert "61.5±0.4" in printed and "a paper, p. 7, not verified" in printed
    reference.write_text(f"{header}\nhire,imdb_gtn,HGT,teacher,test_micro_f1,61.5,0.4,a paper,7,no\n")
    with pytest.raises(SystemExit, match="no finished cell with 'test_micro_f1' of imdb_gtn, HGT, teacher in"):
        tables.main(Settings(out=tmp_path, compare=True), QUIET)
    reference.write_text("table,value\n")
    with pytest.raises(SystemExit, match=r"expected the columns table, dataset, .*, got \['table', 'value'\]"):
        tables.main(Settings(out=tmp_path, compare=True), QUIET)


def test_methods_within_the_critical_difference_are_joined(tmp_path):
    assert tables_figures.cliques([1.0, 1.5, 2.6, 3.0], 1.2) == [(0, 1), (1, 2), (2, 3)]
    assert tables_figures.cliques([1.0, 1.1, 1.2], 1.0) == [(0, 2)] and tables_figures.cliques([1.0, 3.0], 1.0) == []
    found = ranking({name: np.random.default_rng(i).random(8) for i, name in enumerate(METHODS)})
    pictures = [tables_figures.rank_figure(found, tmp_path / f"{i}.png").read_bytes() for i in range(2)]
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG")


def test_costs_are_those_of_one_inference(monkeypatch):
    dataset = hj.data.synthetic_hetero({"movie": 30, "actor": 20}, [("actor", "in", "movie")], feature_width=6)
    small = Pair("synthetic", dataset, "RGCN", TABLE, hidden=32)
    monkeypatch.setattr(tables_costs, "REPEATS", 3)
    teacher, student = (tables_costs.costs(small, role) for role in ("teacher", "student"))
    for name in ("parameters", "flops", "peak_bytes"):
        assert teacher[name] > student[name] > 0, name
    assert 0 < teacher["p50_milliseconds"] <= teacher["p95_milliseconds"]
    assert tables_costs.seconds_of_an_epoch(small, "student") > 0


@pytest.mark.slow
def test_one_pair_is_trained_for_real(tmp_path, monkeypatch):
    """A teacher, its student and a shuffled one: the student learns from what its teacher says."""
    dataset = hj.data.synthetic_hetero({"movie": 30, "actor": 20}, [("actor", "in", "movie")], feature_width=6)
    monkeypatch.setattr(tables, "load_named", lambda name, root: dataset)
    tables.main(Settings(out=tmp_path, smoke=True, methods=("student", "node-level", "shuffled teacher")), QUIET)
    cells = ResultStore(tmp_path / "smoke").cells().values()
    labels = [cell.config["label"] for cell in cells]
    assert labels == ["teacher", "student", "node-level", "shuffled teacher", "cost of the teacher",
                      "cost of the student"]
    curves = ResultStore(tmp_path / "smoke").histories()
    taught = {cell.config["label"]: curves[cell.key] for cell in cells if cell.config.get("teacher")}
    assert set(taught) == {"node-level", "shuffled teacher"}
    assert all((curve["train_soft_target_kl"] > 0).all() for curve in taught.values())
    assert not np.allclose(*(curve["train_soft_target_kl"] for curve in taught.values()))
    assert (tmp_path / "smoke" / "hire-part.md").read_text().startswith("# HIRE, compressed students")


def test_lines_of_another_run_are_not_drawn(pretended, tmp_path):
    """Another number of epochs is another teacher and another student: the run that ended last is drawn, whole."""
    limits = {"out": tmp_path, "datasets": ("imdb_gtn",), "models": ("RGCN",), "methods": ("student", "node-level")}
    tables.main(Settings(**limits), QUIET)
    first = len(pretended)
    tables.main(Settings(**limits, epochs=5), QUIET)
    assert len(pretended) == 2 * first
    table = tables.asked(Settings(**limits))
    store = ResultStore(tmp_path)
    drawn = tables_report.cells_of(table, store)
    shown = {name[2]: cell.config["network"]["epochs"] for name, cell in drawn.items()}
    assert set(shown.values()) == {5} and {"teacher", "student", "node-level"} <= set(shown)
    assert sum("(search)" in name for name in shown) == 6


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_objective_can_be_computed_on_many_labels_too(table):
    """Those of the tables' grids, on the target's labels [N, C]; a term that cannot would stop a run in its middle."""
    rng = np.random.default_rng(0)
    rows = {"a": rng.random((6, 4), np.float32), "b": rng.random((3, 4), np.float32)}
    output = hj.ModelOutput(jnp.asarray(rng.random((6, 3), np.float32)), (rows, rows, {"a": rows["a"]}), ())
    for method in table.methods:
        for objective in table.grid(method):
            total, _ = objective(output, jnp.ones((6, 3), int), teacher=output, where=np.ones(6, bool))
            assert np.isfinite(total), method
