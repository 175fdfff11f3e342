"""The paper tables, with their statistics: every model on every graph with every method, 10 seeds, by seed paired.

A table (experiments/configs/tables.py) is run cell by cell: a teacher, the search of each method's objective on
validation, then its student with all seeds, all seeds of a cell as one compiled program. Finished cells are lines on
disk: a run that is stopped or killed loses the running cell at most, and the same command runs what is missing. Then
the table is drawn: Markdown, LaTeX, CSV, a figure a graph, and one of average ranks.

Examples:
  python -m experiments.tables --dry-run --root FOLDER           # which cells, and what they will cost
  python -m experiments.tables --root FOLDER                     # the HIRE table: hours on two cores
  python -m experiments.tables --table hire_same_size --datasets imdb_gtn --models RGCN
  python -m experiments.tables --smoke                           # one graph, one model, nothing chosen: a minute or two
  python -m experiments.tables --render --out experiments/results/tables   # draw again from the lines
  python -m experiments.tables --compare                         # beside numbers typed in from a paper
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rich.console import Console

import hire_jax as hj
from experiments import tables_report
from experiments.configs.tables import METHODS, TABLES, Table
from experiments.console import track
from experiments.keys import key
from experiments.memory import use_heap_for_large_arrays
from experiments.settings import TrainingSettings, load_named, provide_devices, resumable
from experiments.store import ResultStore
from experiments.tables_cells import Pair
from experiments.tables_costs import measure_costs, seconds_of_an_epoch


@dataclasses.dataclass(frozen=True)
class Settings(TrainingSettings):
    """What to run or draw."""

    seeds: int = 10
    out: Path = Path("runs/tables")
    table: Literal["hire", "hire_same_size", "hire_further_graphs"] = "hire"
    """One of experiments/configs/tables.py."""
    datasets: tuple[str, ...] | None = None
    """Of these graphs only."""
    models: tuple[str, ...] | None = None
    """Of these architectures only."""
    methods: tuple[str, ...] | None = None
    """These methods only; differences are to "student"."""
    dry_run: bool = False
    """Instead: print the cells and what they will cost, by four epochs of each network; keeps nothing."""
    render: bool = False
    """Instead: draw the table from the lines in --out; needs no dataset and trains nothing."""
    compare: bool = False
    """Instead: print ours beside the numbers in experiments/reference/tables.csv."""


def main(settings: Settings, console: Console | None = None) -> None:
    """Runs what is missing, then draws the table. Ctrl-C leaves finished cells on disk and exits with status 130."""
    console = console or Console()
    use_heap_for_large_arrays()
    provide_devices(settings.devices)
    table = asked(settings)
    if settings.smoke:
        settings = dataclasses.replace(settings, epochs=settings.epochs or 3, out=settings.out / "smoke")
    store = ResultStore(settings.out, checkpoints=settings.checkpoints)
    if settings.compare:
        tables_report.compare(settings.table, table, store, console)
        return
    if settings.dry_run:
        dry_run(table, settings, store, console)
        return
    if not settings.render:
        with resumable(settings.out, console):
            run(list(pairs(table, settings)), store, console)
        store.write_csv()
    tables_report.render(settings.table, table, store, console)


def asked(settings: Settings) -> Table:
    """The table with the settings' limits. Raises SystemExit for names that it does not have."""
    table = TABLES[settings.table]
    changes: dict = {"seeds": settings.seeds}
    if settings.smoke:
        changes |= {"datasets": ("imdb_gtn",), "models": ("RGCN",), "seeds": 2, "tuning_seeds": 1, "tries": 1}
    for name, known in (("datasets", table.datasets), ("models", table.models), ("methods", tuple(METHODS))):
        chosen = getattr(settings, name)
        if chosen is None:
            continue
        unknown = [one for one in chosen if one not in known]
        if unknown:
            raise SystemExit(f"--{name}: unknown {unknown[0]!r}; the table {settings.table} has {', '.join(known)}")
        changes[name] = chosen
    table = dataclasses.replace(table, **changes)
    if table.seeds < table.tuning_seeds:
        raise SystemExit(f"--seeds: the search takes the first {table.tuning_seeds} teachers, got {table.seeds} seeds")
    return table


def pairs(table: Table, settings: Settings) -> Iterator[Pair]:
    """The models on the graphs, in the order of the table's graphs."""
    for name in table.datasets:
        dataset = load_named(name, settings.root)
        for model in table.models:
            pair = Pair(name, dataset, model, table, settings.epochs, 32 if settings.smoke else None, settings.devices)
            pair.check()
            yield pair


def run(every: list[Pair], store: ResultStore, console: Console) -> None:
    """Trains every cell that is not finished yet, with a progress bar over them."""
    cells = store.cells()
    jobs = [job for pair in every for job in pair.plan(cells)]
    left = [job.network.epochs for job in jobs if key(job.config) not in cells]
    console.print(f"{len(jobs)} cells, {len(left)} to train; results in {store.folder}", soft_wrap=True,
                  highlight=False)
    done = 0
    with track(sum(left), "starting", console=console) as tracker:
        for pair in every:
            while job := next(pair.missing(store.cells()), None):
                pair.train(job, store, tracker, done)
                done += job.network.epochs
                tracker.update(done, f"{pair.dataset_name}, {pair.model}, {job.label}")
            measure_costs(pair, store)


def dry_run(table: Table, settings: Settings, store: ResultStore, console: Console) -> None:
    """Prints the cells of every model and graph and what they may cost."""
    cells, lines, whole = store.cells(), [["graph", "model", "cells", "to train", "s an epoch", "hours"]], 0.0
    count = len(table.datasets) * len(table.models)
    with track(count, "timing four epochs of each network", console=console) as tracker:
        for i, pair in enumerate(pairs(table, settings)):
            plan = pair.plan(cells)
            left = [job for job in plan if key(job.config) not in cells]
            seconds = {role: seconds_of_an_epoch(pair, role) for role in ("teacher", "student")}
            cost = sum(job.network.epochs * job.config["seeds"]
                       * seconds["teacher" if job.label == "teacher" else "student"] for job in left) / 3600
            whole += cost
            lines.append([pair.dataset_name, pair.model, str(len(plan)), str(len(left)),
                          f"{seconds['teacher']:.3f} / {seconds['student']:.3f}", f"{cost:.2f}"])
            tracker.update(i + 1)
    console.print(hj.report.rich_table(lines))
    console.print(f"About {whole:.1f} hours on this machine, with every cell at its last epoch (early stopping ends "
                  "most before) and without compilation and the terms of taught students. Seconds: one seed of "
                  "teacher / plain student.", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.tables", description=__doc__))
