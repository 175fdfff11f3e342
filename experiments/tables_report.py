"""A table from its lines: rows with statistics, and Markdown, LaTeX, CSV and figures; nothing is trained or loaded.

The same lines always give the same bytes.
"""

import csv
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import hire_jax as hj
from experiments import tables_figures
from experiments.configs.baselines import Baseline
from experiments.configs.tables import METHODS, PRIMARY, TABLES, Table
from experiments.console import warn
from experiments.keys import plain
from experiments.reference import hgb
from experiments.statistics import detectable, holm, ranking, wins
from experiments.store import Cell, ResultStore
from experiments.tables_cells import student_of
from hire_jax.files import write_whole
from hire_jax.report import Record, metric_label, paired_difference, results_table

METRICS = ("test_macro_f1", "test_micro_f1")  # the first is compared: validation macro-F1 chose epochs and objectives
BASELINE = "student"
REFERENCE = Path(__file__).parent / "reference" / "tables.csv"
REFERENCE_FIELDS = ("table", "dataset", "model", "method", "metric", "value", "spread", "source", "page", "verified")

Cells = dict[tuple[str, str, str], Cell]  # by graph, model and label


def cells_of(table: Table, store: ResultStore) -> Cells:
    """The cells of the table: of every model and graph those that belong to the teacher that was finished last.

    What belongs to a teacher has its data, split and version, was taught by it, and has the student's network of it.
    Searches are under (graph, model, "LABEL (search) I").
    """
    lines = [cell for cell in store.cells().values() if cell.config.get("experiment") == "tables"]
    lines.sort(key=lambda cell: cell.finished_at)
    found: Cells = {}
    for dataset, model in itertools.product(table.datasets, table.models):
        of_pair = [cell for cell in lines if (cell.config["dataset"], cell.config["model"]) == (dataset, model)]
        teachers = [c for c in of_pair if c.config["label"] == "teacher" and c.config["seeds"] == table.seeds]
        if not teachers:
            continue
        teacher = teachers[-1]
        student = plain(student_of(Baseline(**teacher.config["network"]), table.setting), "student")
        found[dataset, model, "teacher"] = teacher
        for cell in of_pair:
            config, label = cell.config, cell.config["label"]
            same = all(config[name] == teacher.config[name] for name in ("data", "split", "version"))
            role = "teacher" if label == "cost of the teacher" else "student"
            network = config["network"] == (teacher.config["network"] if role == "teacher" else student)
            setting = config["setting"] == ("teacher" if role == "teacher" else table.setting)
            if not (same and network and setting and config.get("teacher", teacher.key) == teacher.key):
                continue
            if label.endswith("(search)"):
                if label.removesuffix(" (search)") in table.methods:
                    found[dataset, model, f"{label} {chosen(config['objective'])}"] = cell
            elif label.startswith("cost") or (label in table.methods and config["seeds"] == table.seeds):
                found[dataset, model, label] = cell
    return found


def records_of(table: Table, cells: Cells) -> dict[str, list[Record]]:
    """{graph: rows}, teacher first; the p of the primary method corrected by Holm's method over all graphs and models.

    Teachers have seeds of their own; a row pairs its i-th with the i-th of the others.
    """
    labels = ("teacher", *table.methods)
    names = [(d, m, label) for d in table.datasets for m in table.models for label in labels if (d, m, label) in cells]
    compared = [name for name in names if name[2] == PRIMARY and (*name[:2], BASELINE) in cells]
    p_values = [paired_difference(cells[name].metrics[METRICS[0]],
                                  cells[*name[:2], BASELINE].metrics[METRICS[0]]).p_value for name in compared]
    corrected = dict(zip(compared, holm(p_values), strict=True))
    rows: dict[str, list[Record]] = {}
    for name in names:
        dataset, model, label = name
        cell = cells[name]
        extra = {"p (Holm)": f"{corrected[name]:.3f}" if name in corrected else "-"}
        rows.setdefault(dataset, []).append(Record(
            model=model, method=label, seeds=range(len(cell.seeds)), metrics=cell.metrics,
            parameters=cell.facts["parameters"], extra=extra))
    return rows


def chosen(objective: Mapping[str, Any]) -> str:
    """An objective of a line in few words: all that differs from the cross-entropy alone."""
    short = {"soft_target_kl": "alpha", "temperature": "T", "type_pair_correlation": "beta",
             "label_smoothing": "smoothing"}
    default = plain(hj.Objective(), "objective")
    words = []
    for name in (*short, *(name for name in objective if name not in short)):
        value = objective.get(name)
        if name == "others":
            words += [f"{loss} {weight:g}" for loss, weight in objective["others"]]
        elif name in objective and value != default.get(name):
            words.append(f"{short.get(name, name)} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}")
    return ", ".join(words) or "-"


def render(name: str, table: Table, store: ResultStore, console: Console) -> list[Path]:
    """Prints the table and writes NAME.md, .tex, .csv, NAME-GRAPH.png and NAME-ranks.png into the store's folder.

    A table limited to some graphs, models or methods is NAME-part. Raises SystemExit where nothing is finished.
    """
    cells = cells_of(table, store)
    by_dataset = records_of(table, cells)
    if not by_dataset:
        raise SystemExit(f"{store.folder}: no finished cell of the table {name!r}")
    tables = {dataset: results_table(rows, baseline=BASELINE, metrics=METRICS, title=f"{dataset}, {table.seeds} seeds")
              for dataset, rows in by_dataset.items()}
    for shown in tables.values():
        console.print(shown.to_rich())
    whole = TABLES[name]
    if (table.datasets, table.models, table.methods) != (whole.datasets, whole.models, whole.methods):
        name += "-part"
    parts = (over_all(table, cells), choices(table, cells), teachers(table, cells), cost_table(table, cells))
    summary = "\n\n".join(part for part in parts if part)
    console.print(summary, soft_wrap=True, highlight=False, markup=False)
    text = f"# {table.title}\n\n" + "\n".join(t.to_markdown() for t in tables.values()) + "\n" + summary + "\n"
    written = [store.folder / f"{name}{suffix}" for suffix in (".md", ".tex", ".csv")]
    contents = (text, "\n".join(t.to_latex() for t in tables.values()), _csv(tables))
    for path, content in zip(written, contents, strict=True):
        write_whole(path, content.encode())
    try:
        written += tables_figures.draw(name, by_dataset, scores_of(table, cells), store.folder)
    except ImportError as error:
        warn(f"no figure: {error}", console=console)
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True, highlight=False)
    return written


def scores_of(table: Table, cells: Cells) -> dict[str, list[float]]:
    """{method: its mean on every graph and model that all methods have finished}."""
    blocks = [(d, m) for d in table.datasets for m in table.models
              if all((d, m, label) in cells for label in table.methods)]
    return {label: [float(np.mean(cells[*block, label].metrics[METRICS[0]])) for block in blocks]
            for label in table.methods} if blocks else {}


def over_all(table: Table, cells: Cells) -> str:
    """Wins, average ranks with their critical difference, and what the test can see."""
    scores = scores_of(table, cells)
    blocks = len(next(iter(scores.values()), ()))
    whole = len(table.datasets) * len(table.models)
    finished = f"{blocks} of {whole} pairs of a graph and a model have every method."
    family = sum((d, m, PRIMARY) in cells for d in table.datasets for m in table.models)
    effects = [detectable(table.seeds, alpha=0.05 / k) for k in (1, max(family, 1))]
    words = [f"{effect:g} standard deviations of the paired differences" if np.isfinite(effect) else
             "none, however large" for effect in effects]
    smallest = min(1, family * 2 / 2**table.seeds)
    power = (f"p (Holm): the {family} tests of {PRIMARY} against the {BASELINE} are one family; with {table.seeds} "
             f"seeds the smallest corrected p is {smallest:.2g}. The p of other methods stand alone. The true "
             f"difference that a test finds in 80 % of cases: by itself {words[0]}, as the first of the family "
             f"{words[1]}.")
    commits = sorted({str(cell.environment.get("git_commit", "unknown"))[:7] for cell in cells.values()})
    power += f" Compared is {metric_label(METRICS[0])}. Lines were made at {', '.join(commits)}."
    lines = ["## Over all graphs and models", "", finished, power]
    if blocks and BASELINE in scores:
        counts = wins(scores, BASELINE)
        ranks = ranking(scores) if blocks > 1 and len(scores) > 1 else None
        lines += ["", "| method | mean difference, points | wins | ties | losses | average rank |",
                  "| --- | ---: | ---: | ---: | ---: | ---: |"]
        for label, values in scores.items():
            d = 100 * (np.mean(values) - np.mean(scores[BASELINE]))
            won = ("-", "-", "-") if label == BASELINE else counts[label]
            rank = "-" if ranks is None else f"{ranks.ranks[label]:.2f}"
            lines.append(f"| {label} | {'-' if label == BASELINE else f'{d:+.2f}'} | " + " | ".join(map(str, won))
                         + f" | {rank} |")
        if ranks is not None:
            test = "Wilcoxon" if len(scores) == 2 else "Friedman"
            lines += ["", f"Ranks: 1 is best; differences below {ranks.critical_difference:.2f} are not significant "
                      f"(Nemenyi, 5 %), as far as {ranks.blocks} pairs that share graphs and models count as "
                      f"independent; {test}'s p {ranks.p_value:.3f}. Wins: means above the {BASELINE}'s."]
    return "\n".join(lines)


def choices(table: Table, cells: Cells) -> str:
    """The grids, as they were tried, and what was chosen."""
    lines = ["## What was tried", "", "Chosen by the mean of validation macro-F1 over seeds that are not in the table."]
    for label in table.methods:
        tried = list(dict.fromkeys(name[2].partition(" (search) ")[2] for name in cells
                                   if name[2].startswith(f"{label} (search) ")))
        if METHODS[label].like is not None:
            tried = [f"as chosen for {METHODS[label].like}, the teacher's nodes in another order"]
        lines.append(f"- {label}: {'; '.join(tried) or 'nothing to choose'}")
    tuned = [label for label in table.methods if len(METHODS[label].grid) > 1]
    lines += ["", "Chosen:", "", f"| graph | model | {' | '.join(tuned)} |", "| --- | --- |" + " --- |" * len(tuned)]
    for dataset in table.datasets:
        for model in table.models:
            found = [cells.get((dataset, model, label)) for label in tuned]
            if any(found):
                words = ["-" if cell is None else chosen(cell.config["objective"]) for cell in found]
                lines.append(f"| {dataset} | {model} | " + " | ".join(words) + " |")
    return "\n".join(lines)


def teachers(table: Table, cells: Cells) -> str:
    """Our teachers beside the published full models; empty where nothing is published."""
    lines = []
    for dataset in table.datasets:
        for model in table.models:
            cell, row = cells.get((dataset, model, "teacher")), hgb.PUBLISHED.get(dataset, {}).get(model)
            if cell is not None and row is not None:
                ours = hj.report.summarise(cell.metrics["test_micro_f1"])
                lines.append(f"| {dataset} | {model} | {100 * ours.mean:.1f} ± {100 * ours.sd:.1f} | "
                             f"{row.micro:.1f} ± {row.micro_sd:.1f} |")
    if not lines:
        return ""
    return "\n".join(["## Teachers", "", "Test micro-F1 in %; published: experiments/reference/hgb.py.", "",
                      "| graph | model | ours | published |", "| --- | --- | ---: | ---: |", *lines])


def cost_table(table: Table, cells: Cells) -> str:
    """Teacher and student beside each other; empty where nothing was measured."""
    lines = []
    for dataset in table.datasets:
        for model in table.models:
            pair = [cells.get((dataset, model, f"cost of the {role}")) for role in ("teacher", "student")]
            if None in pair:
                continue
            teacher, student = (cell.facts for cell in pair if cell is not None)
            both = [(f"{teacher[name] / scale:,.{digits}f}", f"{student[name] / scale:,.{digits}f}")
                    for name, scale, digits in (("parameters", 1, 0), ("flops", 1e6, 0), ("p50_milliseconds", 1, 1),
                                                ("p95_milliseconds", 1, 1), ("peak_bytes", 2**20, 0))]
            lines.append(f"| {dataset} | {model} | " + " | ".join(f"{a} / {b}" for a, b in both) + " |")
    if not lines:
        return ""
    return "\n".join(["## Compression", "", "Teacher / student; one inference on the whole graph. Operations and "
                      "memory: the compiled program's own count.", "",
                      "| graph | model | parameters | million operations | p50 ms | p95 ms | MiB |",
                      "| --- | --- | ---: | ---: | ---: | ---: | ---: |", *lines])


def compare(name: str, table: Table, store: ResultStore, console: Console) -> None:
    """Prints ours beside the numbers of a paper. Raises SystemExit for rows that name no cell of the table."""
    with open(REFERENCE, newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != REFERENCE_FIELDS:
            raise SystemExit(f"{REFERENCE}: expected the columns {', '.join(REFERENCE_FIELDS)}, got "
                             f"{reader.fieldnames}")
        rows = [row for row in reader if row["table"] == name]
    if not rows:
        console.print(f"{REFERENCE} has no rows of the table {name!r}. One row a number, in %, with its page: "
                      f"{', '.join(REFERENCE_FIELDS)}", soft_wrap=True, highlight=False)
        return
    cells = cells_of(table, store)
    lines = [["graph", "model", "method", "metric", "ours %", "paper %", "source"]]
    for row in rows:
        cell = cells.get((row["dataset"], row["model"], row["method"]))
        if cell is None or row["metric"] not in cell.metrics:
            raise SystemExit(f"{REFERENCE}: no finished cell with {row['metric']!r} of {row['dataset']}, "
                             f"{row['model']}, {row['method']} in {store.folder}")
        ours = hj.report.summarise(cell.metrics[row["metric"]])
        spread = f" ± {row['spread']}" if row["spread"] else ""
        source = f"{row['source']}, p. {row['page']}" + ("" if row["verified"] == "yes" else ", not verified")
        lines.append([row["dataset"], row["model"], row["method"], row["metric"],
                      f"{100 * ours.mean:.1f} ± {100 * ours.sd:.1f}", row["value"] + spread, source])
    console.print(hj.report.rich_table(lines))


def _csv(tables: Mapping[str, hj.report.ResultsTable]) -> str:
    """All graphs in one file, the graph in the first column."""
    lines: list[str] = []
    for dataset, table in tables.items():
        header, *rows = table.to_csv().splitlines()
        lines += ([] if lines else [f"dataset,{header}"]) + [f"{dataset},{row}" for row in rows]
    return "\n".join(lines) + "\n"
