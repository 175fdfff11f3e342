"""A study of the relation-level term from its lines: a table and a figure, and where the type pairs stand.

Nothing is trained or loaded, and the same lines always give the same bytes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

import hire_jax as hj
from experiments.configs.relational import NODE, STUDENT, STUDIES, Condition, Study
from experiments.console import warn
from experiments.keys import key, plain
from experiments.relational_cells import objectives, words
from experiments.statistics import holm
from experiments.store import Cell, ResultStore
from hire_jax.files import write_whole
from hire_jax.report import PairedDifference, paired_difference, summarise

METRIC = "test_macro_f1"
NOTE = ("Test macro-F1 in %, mean ± sd over {seeds} seeds. A row is compared with the plain student, or with the "
        "node-level term alone where it has that term too: differences paired by seed, in points, mean ± sd [95 % "
        "bootstrap interval]; p: Wilcoxon's signed-rank test; p (Holm): corrected over all rows of this table that "
        "have the relation-level term. beta is the term's weight; the node-level term is alpha 4, T 2. {done} of "
        "{planned} cells are finished.")


@dataclasses.dataclass(frozen=True)
class Row:
    """A student beside the one it is compared with, of the same condition; a teacher beside none.

    tested: whether the row belongs to the family that Holm's method corrects.
    """

    condition: str
    name: str
    scores: Sequence[float]
    beside: str = "-"
    difference: PairedDifference | None = None
    tested: bool = False
    corrected: float | None = None
    distances: Mapping[str, float] = dataclasses.field(default_factory=dict)


def render(name: str, dataset: str, model: str, seeds: int, store: ResultStore, console: Console) -> list[Path]:
    """Prints a study and writes NAME-DATASET-MODEL.md and .png into the store's folder; [] where it has no lines."""
    study = STUDIES[name]
    rows, planned = rows_of(study, lines_of(dataset, model, seeds, store))
    if not rows:
        console.print(f"{name}: no finished cell", highlight=False)
        return []
    title = f"{name}: {dataset}, {model}, {seeds} seeds"
    note = NOTE.format(seeds=seeds, done=len(rows), planned=planned)
    text = "\n".join([f"# {title}", "", study.question, "", *table(rows), "", note, study.note, "",
                      *distance_table(rows)]).rstrip() + "\n"
    stem = store.folder / f"{name}-{dataset.replace('/', '-')}-{model}"
    paths = [stem.with_name(f"{stem.name}.md")]
    write_whole(paths[0], text.encode())
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    try:
        paths.append(draw(rows, stem.with_name(f"{stem.name}.png"), title))
    except ImportError as error:
        warn(f"no figure: {error}", console=console)
    console.print(f"Written: {', '.join(map(str, paths))}", soft_wrap=True, highlight=False)
    return paths


def lines_of(dataset: str, model: str, seeds: int, store: ResultStore) -> list[Cell]:
    """The cells of one graph, model and number of seeds, in the order in which they ended."""
    wanted = ("relational", dataset, model, seeds)
    found = [cell for cell in store.cells().values()
             if tuple(cell.config.get(name) for name in ("experiment", "dataset", "model", "seeds")) == wanted]
    return sorted(found, key=lambda cell: cell.finished_at)


def rows_of(study: Study, lines: Sequence[Cell]) -> tuple[list[Row], int]:
    """The rows of a study, condition by condition, and how many there would be of the whole of it.

    Of every condition the teacher that was finished last and the students beside it.
    """
    rows: list[Row] = []
    planned = 0
    for condition in study.conditions:
        of_condition = [cell for cell in lines if cell.config["condition"] == plain(condition, "condition")]
        teacher = next((c for c in reversed(of_condition) if c.config["label"] == "teacher"), None)
        students = [] if teacher is None else [c for c in of_condition if c.config.get("teacher") == teacher.key]
        types = list(dict.fromkeys(t for cell in students for pair in cell.facts["distances"]
                                   for t in pair.split(" - ")))
        if teacher is not None:
            rows.append(Row(str(condition), "teacher", teacher.metrics[METRIC]))
        new, count = _students(study, condition, types, {key(c.config["objective"]): c for c in students})
        rows += new
        planned += 1 + count
    p_values = [row.difference.p_value for row in rows if row.tested and row.difference is not None]
    corrected = iter(holm(p_values))
    return [dataclasses.replace(row, corrected=next(corrected)) if row.tested and row.difference is not None else row
            for row in rows], planned


def _students(study: Study, condition: Condition, types: Sequence[str], cells: Mapping[str, Cell]) -> tuple[
        list[Row], int]:
    """The rows of a condition's students, found by the keys of their objectives, and how many are planned."""
    student, node = (dataclasses.replace(reference, **study.common) for reference in (STUDENT, NODE))
    rows, wanted = [], objectives(study, types)
    for objective in wanted:
        cell = cells.get(key(objective))
        if cell is None:
            continue
        reference = student if objective in (student, node) or not objective.soft_target_kl else node
        beside = cells.get(key(reference)) if objective != student else None
        rows.append(Row(
            str(condition), words(objective), cell.metrics[METRIC], "-" if beside is None else words(reference),
            None if beside is None else paired_difference(cell.metrics[METRIC], beside.metrics[METRIC]),
            objective not in (student, node), distances=cell.facts["distances"]))
    return rows, len(wanted)


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a pipe table."""
    lines = ["| data | taught by | macro-F1 | compared with | difference | p | p (Holm) |",
             "| --- | --- | ---: | --- | ---: | ---: | ---: |"]
    for row in rows:
        summary, d = summarise(row.scores), row.difference
        interval = "" if d is None or d.n == 1 else f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        lines.append("| " + " | ".join([
            row.condition, row.name, f"{100 * summary.mean:.1f} ± {100 * summary.sd:.1f}", row.beside,
            "-" if d is None else f"{100 * d.mean:+.1f} ± {100 * d.sd:.1f}{interval}",
            *("-" if p is None else f"{p:.3f}" if p >= 0.0005 else "<0.001"
              for p in (d.p_value if d else None, row.corrected))]) + " |")
    return lines


def distance_table(rows: Sequence[Row]) -> list[str]:
    """How far each row's correlations of a pair of types are from the teacher's, times 1000."""
    pairs = list(dict.fromkeys(pair for row in rows for pair in row.distances))
    if not pairs:
        return []
    lines = ["## Distance to the teacher's correlations", "",
             "Of the students of the best epoch, all nodes with all nodes in the hidden layer, times 1000, the mean "
             "over seeds: the relation-level term of one pair of node types.", "",
             f"| data | taught by | {' | '.join(pairs)} |", f"| --- | --- |{' ---: |' * len(pairs)}"]
    return lines + [f"| {row.condition} | {row.name} | "
                    + " | ".join(f"{1000 * row.distances[pair]:.2f}" for pair in pairs) + " |"
                    for row in rows if row.distances]


def draw(rows: Sequence[Row], path: Path, title: str) -> Path:
    """Differences with their intervals, a panel for each student that rows are compared with."""
    compared = [row for row in rows if row.tested and row.difference is not None]
    panels = list(dict.fromkeys(row.beside for row in compared))
    height = 1.4 + 0.26 * max((sum(row.beside == beside for row in compared) for beside in panels), default=0)
    with hj.figures.new_figure(path, (11.0, height)) as figure:
        figure.suptitle(f"{title}\nblue: p (Holm) below 0.05")
        for axes, beside in zip(figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels, strict=False):
            points = [(row, row.difference) for row in compared if row.beside == beside and row.difference is not None]
            for i, (row, d) in enumerate(points):
                axes.errorbar(100 * d.mean, i, xerr=[[100 * (d.mean - d.low)], [100 * (d.high - d.mean)]], fmt="o",
                              markersize=4, capsize=3,
                              color="#0072B2" if row.corrected is not None and row.corrected < 0.05 else "#8C8C8C")
            axes.axvline(0, color="0.6", linewidth=0.8)
            names = [("" if row.condition == "as it is" else f"{row.condition}: ")
                     + row.name.removeprefix("node-level + ") for row, _ in points]
            axes.set_yticks(range(len(points)), names, fontsize=7)
            axes.set_ylim(len(points) - 0.5, -0.5)
            what = "alone, to the plain student" if beside == words(STUDENT) else "with node-level, to that term alone"
            axes.set(title=what, xlabel="points of test macro-F1, mean and 95 % interval")
            axes.grid(axis="x", color="0.92")
    return path
