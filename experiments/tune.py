"""Chooses HIRE's weights on validation accuracy: first alpha and T of the node-level term, then beta beside them.

The teacher and every student are those of experiments/configs/hire.py. Test accuracy is not looked at. Cells are
kept on disk like those of experiments.hire, so a stopped search goes on where it was.

Example:
  python -m experiments.tune --models RGCN HGT
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import hire_jax as hj
from experiments import hire
from experiments.keys import key
from experiments.memory import use_heap_for_large_arrays
from experiments.settings import GraphSettings, RunSettings, load_named, resumable
from experiments.store import ResultStore

TEMPERATURES = (1.0, 2.0, 4.0)
ALPHAS = (0.5, 1.0, 4.0)
BETAS = (0.1, 1.0, 10.0, 100.0)


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings, GraphSettings):
    """What to search."""

    seeds: int = 3
    out: Path = Path("runs/tune")
    models: tuple[str, ...] = ("RGCN", "HGT")
    """Architectures to tune, each by itself."""
    variant: hire.Variant = "all_pairs"
    """Of the relation-level term."""


def main(settings: Settings, console: Console | None = None) -> dict[str, hj.Objective]:
    """Runs both searches, prints every cell, and returns {model: best objective}; Ctrl-C as in experiments.hire."""
    console = console or Console()
    use_heap_for_large_arrays()
    dataset = load_named(settings.dataset, settings.root, settings.split)
    store = ResultStore(settings.out)
    common = hire.Settings(dataset=settings.dataset, split=settings.split, root=settings.root, seeds=settings.seeds,
                           methods=("plain", "node"), epochs=settings.epochs, out=settings.out)
    best = {}
    with resumable(settings.out, console):
        for model in settings.models:
            teacher, plain, node = hire.plan(dataclasses.replace(common, models=(model,)), dataset)
            grid = {f"T {t:g}, alpha {a:g}": hj.Objective(soft_target_kl=a, temperature=t)
                    for t in TEMPERATURES for a in ALPHAS}
            scores = _search(model, [teacher, plain, *_jobs(node, grid)], common, dataset, store, console)
            chosen = grid[max(grid, key=lambda label: scores[label])]
            grid = {f"beta {b:g}": dataclasses.replace(chosen, type_pair_correlation=b, variant=settings.variant)
                    for b in BETAS}
            scores = _search(model, [teacher, *_jobs(node, grid)], common, dataset, store, console)
            best[model] = grid[max(grid, key=lambda label: scores[label])]
            console.print(f"{model}: {best[model]}", soft_wrap=True, highlight=False)
    return best


def _jobs(like: hire.Job, grid: Mapping[str, hj.Objective]) -> list[hire.Job]:
    return [dataclasses.replace(like, label=label, objective=objective,
                                config={**like.config, "label": label, "objective": objective})
            for label, objective in grid.items()]


def _search(model: str, jobs: list[hire.Job], settings: hire.Settings, dataset: hj.Dataset, store: ResultStore,
            console: Console) -> dict[str, float]:
    """{label: mean validation accuracy} of all cells."""
    hire.run(jobs, settings, dataset, store, console)
    cells = store.cells()
    scores = {job.label: float(np.mean(cells[key(job.config)].metrics["val_accuracy"])) for job in jobs}
    table = Table("cell", "validation accuracy %", title=f"{model}, {settings.seeds} seeds", box=box.SIMPLE_HEAD)
    for label, score in scores.items():
        table.add_row(label, f"{100 * score:.1f}")
    console.print(table)
    return scores


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.tune", description=__doc__))
