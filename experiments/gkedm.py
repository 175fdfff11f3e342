"""GKEDM on homogeneous graphs: an attention module lifts a trained network and passes its attention maps on.

For every backbone: the network alone; with the module in the place of its last convolution, fine-tuned; the network
made wider until it has as many parameters, trained for as many epochs; then a compact network with the module as a
student, alone, with the teacher's logits, with its attention maps, and with both. Seed i's teacher teaches seed i's
student. Finished cells are kept on disk: a run that was stopped goes on where it was.

With --claim it tests one of the paper's claims instead, on every graph and backbone asked for, and gives a verdict
(experiments/gkedm_claims.py has the rule): C1 accuracy, C2 parameters, C3 attention-map distillation, C4 the
weight alpha = 0.1, C5 the compact student, C6 depth.

Examples:
  python -m experiments.gkedm                                   # bundled Citeseer, GCN and GAT, 5 seeds
  python -m experiments.gkedm --smoke                           # the same in a minute, to see that it runs
  python -m experiments.gkedm --claim C4 --seeds 10 --backbones GCN GAT GraphSAGE
  python -m experiments.gkedm --claim C1 --root FOLDER --datasets cora citeseer actor/0
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.console import Console

import hire_jax as hj
from experiments import gkedm_figures
from experiments.configs.gkedm import MODULE
from experiments.console import warn
from experiments.gkedm_cells import Cells, Job, positioned, run, with_needed
from experiments.gkedm_claims import CLAIMS, Finding, Scores, distillation, enhancement, findings, verdict
from experiments.keys import key
from experiments.memory import use_heap_for_large_arrays
from experiments.settings import TrainingSettings, load_named, provide_devices, resumable
from experiments.store import Cell, ResultStore


@dataclasses.dataclass(frozen=True)
class Settings(TrainingSettings):
    """What to run. Networks are those of experiments/configs/gkedm.py."""

    out: Path = Path("runs/gkedm")
    smoke: bool = False
    """One backbone, 3 epochs, 2 seeds: shows in a minute that everything runs. Kept apart in OUT/smoke."""
    datasets: tuple[str, ...] = ("citeseer",)
    """Graphs of one node type: NAME or NAME/SPLIT for `hire_jax.load_dataset`."""
    backbones: tuple[str, ...] = ("GCN", "GAT")
    """Networks the module is put on."""
    claim: Literal["C1", "C2", "C3", "C4", "C5", "C6"] | None = None
    """Instead of the overview: the cells, the table, the figure and the verdict of one claim."""


def main(settings: Settings, console: Console | None = None) -> dict[str, Cell]:
    """Runs what is missing, prints the tables, writes the files; returns the cells by their keys.

    Ctrl-C leaves finished cells on disk, says where, and exits with status 130.
    """
    console = console or Console()
    use_heap_for_large_arrays()
    provide_devices(settings.devices)
    if settings.smoke:
        settings = dataclasses.replace(settings, seeds=2, epochs=3, backbones=settings.backbones[:1],
                                       out=settings.out / "smoke")
    datasets = {name: load(name, settings) for name in settings.datasets}
    cells = {name: Cells(name, dataset, settings.seeds, settings.epochs) for name, dataset in datasets.items()}
    tables = [Table(part, baseline, {(name, model): make(cells[name], model)
                                     for name in datasets for model in settings.backbones})
              for part, make, baseline in parts(settings)]
    store = ResultStore(settings.out, checkpoints=settings.checkpoints)
    for dataset in datasets.values():
        console.print(f"{dataset!r}", soft_wrap=True, highlight=False)
    every = with_needed(job for table in tables for rows in table.jobs.values() for job in rows)
    console.print(f"{len(every)} cells of {settings.seeds} seeds on {jax.device_count()} {jax.default_backend()} "
                  f"device(s); results in {settings.out}", soft_wrap=True, highlight=False)
    with resumable(settings.out, console):
        run(every, datasets, store, console, settings.devices)
    report(tables, settings, store, console)
    return store.cells()


@dataclasses.dataclass(frozen=True)
class Table:
    """The cells of one table a graph; differences are to the row `baseline`."""

    name: str
    baseline: str
    jobs: Mapping[tuple[str, str], list[Job]]  # by graph and backbone


def parts(settings: Settings) -> list[tuple[str, Callable[[Cells, str], list[Job]], str]]:
    """Name, rows and baseline of each table: those of a claim, or what the module adds and what it passes on."""
    if settings.claim is not None:
        claim = CLAIMS[settings.claim]
        return [(settings.claim, claim.rows, claim.baseline)]
    return [("enhancement", enhancement, "backbone"), ("distillation", distillation, "student")]


def load(name: str, settings: Settings) -> hj.Dataset:
    """A dataset of NAME or NAME/SPLIT, with positional encodings. Raises SystemExit for one of several node types."""
    dataset = load_named(name, settings.root)
    if len(dataset.graph.node_types) > 1:
        raise SystemExit(f"--datasets: {name} has the node types {', '.join(dataset.graph.node_types)}; the backbones "
                         "here read features of one type")
    return positioned(dataset, max(MODULE.positions, 1), settings.out / "positions")


def report(tables: Sequence[Table], settings: Settings, store: ResultStore, console: Console) -> None:
    """Prints the tables and the verdict; writes NAME.md and NAME.png, NAME being a table's."""
    cells, written = store.cells(), []
    settings.out.mkdir(parents=True, exist_ok=True)
    for table in tables:
        by_dataset = {dataset: [record(job, cells[key(job.config)]) for model in settings.backbones
                                for job in table.jobs[dataset, model]] for dataset in settings.datasets}
        texts = []
        for dataset, records in by_dataset.items():
            rendered = hj.report.results_table(records, baseline=table.baseline,
                                               title=f"{dataset}, {settings.seeds} seeds")
            console.print(rendered.to_rich())
            texts.append(rendered.to_markdown())
        if settings.claim is not None:
            claim = CLAIMS[settings.claim]
            found = findings(claim, accuracies(table, cells, "test"), accuracies(table, cells, "val"))
            text = f"{settings.claim}: {claim.text}\n\n{markdown(claim.measure, found)}\n\n**{verdict(found)}.**\n"
            console.print(text, soft_wrap=True, highlight=False, markup=False)
            texts.insert(0, text)
        path = settings.out / f"{table.name}.md"
        path.write_text("\n".join(texts))
        written.append(path)
        try:
            written += gkedm_figures.draw(table.name, by_dataset, settings.out)
        except ImportError as error:
            warn(f"no figure: {error}", console=console)
    store.write_csv()
    console.print(f"Seed-level lines and CSV, tables and figures: {settings.out / 'results.jsonl'}, "
                  f"{settings.out / 'results.csv'}, {', '.join(map(str, written))}", soft_wrap=True, highlight=False)


def accuracies(table: Table, cells: Mapping[str, Cell], split: str) -> dict[tuple[str, str], Scores]:
    """{(graph, backbone): {label: accuracy of every seed}} of a table."""
    return {pair: {job.label: np.asarray(cells[key(job.config)].metrics[f"{split}_accuracy"]) for job in jobs}
            for pair, jobs in table.jobs.items()}


def record(job: Job, cell: Cell) -> hj.report.Record:
    """A cell as a row of a table."""
    return hj.report.Record(model=job.model, method=job.label, seeds=cell.seeds, metrics=cell.metrics,
                            parameters=cell.facts["parameters"],
                            extra={"ms a step": round(cell.facts["milliseconds_per_step"], 1)})


def markdown(measure: str, found: list[Finding]) -> str:
    """The differences of a claim in points of test accuracy, one line a graph and backbone."""
    lines = [f"| graph | backbone | {measure} | 95 % interval | p | p (Holm) |", "| --- | --- | ---: | ---: | ---: | "
             "---: |"]
    for finding in found:
        d = finding.difference
        lines.append(f"| {finding.dataset} | {finding.model} | {100 * d.mean:+.1f} ± {100 * d.sd:.1f} | "
                     f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}] | {d.p_value:.3f} | {finding.corrected:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.gkedm", description=__doc__))
