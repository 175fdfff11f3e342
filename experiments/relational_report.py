"""A study of the relation-level term from its lines: a table and a figure, and where the type pairs stand.

The same lines always give the same bytes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hire_jax as hj
from experiments.configs.relational import NODE, STUDENT, Study
from experiments.keys import plain
from experiments.statistics import holm
from experiments.store import Cell
from experiments.tables_report import chosen
from hire_jax.files import write_whole
from hire_jax.report import PairedDifference, paired_difference, summarise

METRIC = "test_macro_f1"


@dataclasses.dataclass(frozen=True)
class Row:
    """A taught student beside the plain one and beside the one of the node-level term alone, of the same condition."""

    condition: str
    objective: str
    scores: Sequence[float]
    to_student: PairedDifference | None
    to_node: PairedDifference | None
    with_node: bool
    distances: Mapping[str, float]
    corrected: float | None = None


def rows_of(cells: Sequence[tuple[str, Cell]]) -> list[Row]:
    """The rows of (condition, cell), in their order; p of the terms with the node-level one corrected by Holm's
    method over them all."""
    plain_student, node = (plain(objective, "objective") for objective in (STUDENT, NODE))
    of = {(condition, str(cell.config["objective"])): cell for condition, cell in cells
          if cell.config["label"] == "student"}
    rows = []
    for condition, cell in cells:
        objective = cell.config["objective"]
        scores = cell.metrics[METRIC]
        first, second = of.get((condition, str(plain_student))), of.get((condition, str(node)))
        taught, name = cell.config["label"] == "student", words(cell)
        with_node = taught and objective["soft_target_kl"] > 0 and objective != node
        rows.append(Row(condition, name, scores,
                        None if first is None or cell is first else _difference(scores, first),
                        _difference(scores, second) if with_node and second is not None else None,
                        with_node, cell.facts.get("distances", {})))
    tested = [row for row in rows if row.to_node is not None]
    p_values = iter(holm([row.to_node.p_value for row in tested if row.to_node is not None]))
    return [row if row.to_node is None else dataclasses.replace(row, corrected=next(p_values)) for row in rows]


def words(cell: Cell) -> str:
    """What a row is called."""
    if cell.config["label"] == "teacher":
        return "teacher"
    objective = dict(cell.config["objective"])
    weights = dict(map(tuple, objective.pop("group_weights", ()))) if objective.get("group_weights") else {}
    if objective == plain(STUDENT, "objective"):
        return "student"
    if objective == plain(NODE, "objective"):
        return "node-level"
    with_node = objective["soft_target_kl"] > 0
    if with_node:
        objective |= {"soft_target_kl": 0.0, "temperature": 1.0}
    return ("node-level + " if with_node else "") + chosen(objective) + (
        f", without {' and '.join(weights)}" if weights else "")


def render(name: str, study: Study, cells: Sequence[tuple[str, Cell]], folder: Path, title: str) -> list[Path]:
    """Writes NAME.md and NAME.png into the folder. The cells come in the order of the table, with their condition."""
    rows = rows_of(cells)
    text = [f"# {title}", "", study.question, "", *table(rows), "", NOTE.format(seeds=len(rows[0].scores)), "",
            *distance_table(rows)]
    path = folder / f"{name}.md"
    write_whole(path, ("\n".join(text).rstrip() + "\n").encode())
    return [path, draw(rows, folder / f"{name}.png", title)]


NOTE = ("Test macro-F1 in %, mean ± sd over {seeds} seeds; differences paired by seed, in points, mean ± sd "
        "[95 % bootstrap interval], p of Wilcoxon's signed-rank test. p (Holm): of the rows with the node-level term "
        "against that term alone, corrected over this table.")


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a pipe table."""
    lines = ["| data | student taught by | macro-F1 | to the plain student | p | to node-level alone | p | p (Holm) |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        summary = summarise(row.scores)
        cells = [row.condition, row.objective, f"{100 * summary.mean:.1f} ± {100 * summary.sd:.1f}"]
        for difference in (row.to_student, row.to_node):
            cells += ["-", "-"] if difference is None else [_shown(difference), _p(difference.p_value)]
        lines.append(f"| {' | '.join([*cells, '-' if row.corrected is None else _p(row.corrected)])} |")
    return lines


def distance_table(rows: Sequence[Row]) -> list[str]:
    """How far each row's correlations of a pair of types are from the teacher's, times 1000."""
    pairs = list(dict.fromkeys(pair for row in rows for pair in row.distances))
    if not pairs:
        return []
    lines = ["## Distance to the teacher's correlations", "",
             "Of the best epoch's students, all nodes with all nodes in the hidden layer, times 1000, the mean over "
             "seeds: the relation-level term of one pair of node types.", "",
             f"| data | student taught by | {' | '.join(pairs)} |", f"| --- | --- |{' ---: |' * len(pairs)}"]
    return lines + [f"| {row.condition} | {row.objective} | "
                    + " | ".join(f"{1000 * row.distances[pair]:.2f}" for pair in pairs) + " |"
                    for row in rows if row.distances]


def draw(rows: Sequence[Row], path: Path, title: str) -> Path:
    """Differences with their intervals: terms alone against the plain student, terms with the node-level one against
    that one."""
    panels: list[tuple[str, list[tuple[str, PairedDifference]]]] = [
        ("alone, to the plain student", [(_named(row), row.to_student) for row in rows
                                         if row.to_student is not None and row.objective != "teacher"
                                         and not row.with_node]),
        ("with the node-level term, to that term alone", [(_named(row), row.to_node) for row in rows
                                                          if row.to_node is not None])]
    height = 1.2 + 0.24 * max(len(points) for _, points in panels)
    with hj.figures.new_figure(path, (11.0, height)) as figure:
        figure.suptitle(title)
        for axes, (heading, points) in zip(figure.subplots(1, 2), panels, strict=True):
            for i, (_, d) in enumerate(points):
                told_apart = d.low > 0 or d.high < 0
                axes.errorbar(100 * d.mean, i, xerr=[[100 * (d.mean - d.low)], [100 * (d.high - d.mean)]], fmt="o",
                              markersize=4, capsize=3, color="#0072B2" if told_apart else "#8C8C8C")
            axes.axvline(0, color="0.6", linewidth=0.8)
            axes.set_yticks(range(len(points)), [name for name, _ in points], fontsize=7)
            axes.invert_yaxis()
            axes.set(title=heading, xlabel="points of test macro-F1, mean and 95 % interval")
            axes.grid(axis="x", color="0.92")
    return path


def _named(row: Row) -> str:
    name = row.objective.removeprefix("node-level + ")
    return name if row.condition == "as it is" else f"{row.condition}: {name}"


def _difference(scores: Any, other: Cell) -> PairedDifference:
    return paired_difference(np.asarray(scores), np.asarray(other.metrics[METRIC]))


def _shown(d: PairedDifference) -> str:
    interval = "" if d.n == 1 else f" [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    return f"{100 * d.mean:+.1f} ± {100 * d.sd:.1f}{interval}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "<0.001"
