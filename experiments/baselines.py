"""The model zoo at its own strength: every model on every graph, many seeds, beside the published numbers.

A gain over a weak baseline is worth nothing, so this table comes before any distillation. For each dataset and
model it trains the configuration in experiments/configs/baselines.py and prints macro- and micro-F1 beside the
published mean and sd, with a mark (<) where ours is below published minus one sd. Finished cells are kept on disk:
a run that was stopped goes on where it was.

The graphs are not shipped: put NAME.npz files into a folder and name it with --root or HIRE_JAX_DATA.

Examples:
  python -m experiments.baselines --root FOLDER                     # six models, DBLP, ACM and IMDB of HGB, 10 seeds
  python -m experiments.baselines --datasets imdb_gtn --models RGCN MLP --seeds 3
  python -m experiments.baselines --datasets dblp_hgb/magnn acm_gtn imdb_gtn imdb_magnn
  python -m experiments.baselines --datasets cora citeseer pubmed --models GCN GAT GraphSAGE APPNP GCNII
  python -m experiments.baselines --tune                            # choose configurations on validation, 3 seeds
  python -m experiments.baselines --render                          # the table of what is finished
  python -m experiments.baselines --smoke                           # in a minute or so, to see that it runs
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import hire_jax as hj
from experiments.cells import train_cell
from experiments.configs import baselines as configs
from experiments.configs import planetoid
from experiments.configs.baselines import Baseline
from experiments.console import Tracker, track
from experiments.fingerprint import fingerprint
from experiments.keys import key
from experiments.memory import use_heap_for_large_arrays
from experiments.networks import build, optimizer_of, prepared
from experiments.reference import gtn, hgb
from experiments.reference import planetoid as homogeneous
from experiments.settings import TrainingSettings, load_named, provide_devices, resumable
from experiments.store import Cell, ResultStore

TUNING_SEEDS = 3
MODELS = tuple(dict.fromkeys((*configs.MODELS, *planetoid.START)))


@dataclasses.dataclass(frozen=True)
class Settings(TrainingSettings):
    """What to run."""

    seeds: int = 10
    out: Path = Path("runs/baselines")
    smoke: bool = False
    """The bundled IMDB, width 8, 2 seeds, 3 epochs: shows in a minute or so that everything runs. Kept in OUT/smoke."""
    datasets: tuple[str, ...] = configs.DATASETS
    """Names for `hire_jax.load_dataset`, as NAME or NAME/SPLIT."""
    models: tuple[str, ...] = configs.CORE
    """Architectures, as in `hire_jax.models`."""
    tune: bool = False
    """Instead: try the grid of the configuration file on validation and print what to write into it."""
    render: bool = False
    """Instead: train nothing, and print the table of the cells that are finished in --out."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One cell: a model on a dataset."""

    dataset: str
    model: str
    network: Baseline
    config: Mapping[str, Any]


def main(settings: Settings, console: Console | None = None) -> dict[tuple[str, str], Cell]:
    """Runs what is missing, prints the tables, writes table.md and results.csv; returns the cells by name.

    Ctrl-C leaves finished cells on disk, says where, and exits with status 130.
    """
    console = console or Console()
    use_heap_for_large_arrays()
    provide_devices(settings.devices)
    if settings.smoke:
        settings = dataclasses.replace(settings, datasets=("imdb_gtn",), seeds=2, epochs=3, out=settings.out / "smoke")
    unknown = [model for model in settings.models if model not in MODELS]
    if unknown:
        raise SystemExit(f"--models: unknown model {unknown[0]!r}; configured are {', '.join(MODELS)}")
    store = ResultStore(settings.out, checkpoints=settings.checkpoints)
    cells: dict[tuple[str, str], Cell] = {}
    with resumable(settings.out, console):
        for name in settings.datasets:
            dataset = load_named(name, settings.root)
            jobs = plan(name, dataset, settings)
            console.print(f"{dataset!r}\n{len(jobs)} cells; results in {settings.out}", soft_wrap=True, highlight=False)
            if not settings.render:
                run(jobs, dataset, settings, store, console)
            found = store.cells()
            if settings.tune:
                report_search(name, jobs, found, console)
            else:
                cells |= {(name, job.model): found[key(job.config)] for job in jobs if key(job.config) in found}
    if not settings.tune:
        report(cells, settings, store, console)
    return cells


def plan(name: str, dataset: hj.Dataset, settings: Settings) -> list[Job]:
    """The cells of one dataset: one for each model, or its whole grid."""
    data, jobs = fingerprint(dataset), []
    for model in settings.models:
        configured = planetoid if name in planetoid.DATASETS else configs
        if model not in configured.START:
            raise SystemExit(f"--models: {model} is not configured for {name}; {', '.join(configured.START)} are")
        if settings.tune and configured is planetoid:
            raise SystemExit(f"--tune: {name} has no grid; its networks are those of the papers")
        network = configured.baseline(name, model)
        if settings.epochs is not None:
            network = dataclasses.replace(network, epochs=settings.epochs)
        if settings.smoke:
            network = dataclasses.replace(network, hidden=8)
        for candidate in grid(model, network) if settings.tune else [network]:
            config = {"experiment": "baselines", "version": hj.__version__, "dataset": name, "data": data,
                      "split": dataset.meta["split"], "monitor": network.monitor, "model": model, "network": candidate,
                      "seeds": TUNING_SEEDS if settings.tune else settings.seeds}
            jobs.append(Job(name, model, candidate, config))
    return jobs


def grid(model: str, network: Baseline) -> list[Baseline]:
    """Every combination of `configs.SEARCH` that makes a difference to the model."""
    combinations = itertools.product(*configs.SEARCH.values())
    networks = [dataclasses.replace(network, **dict(zip(configs.SEARCH, values, strict=True)))
                for values in combinations]
    return [one for one in networks if model not in ("HAN", "MLP") or one.features != "target"]


def run(jobs: list[Job], dataset: hj.Dataset, settings: Settings, store: ResultStore, console: Console) -> None:
    """Trains every cell that is not finished yet, with a progress bar over them."""
    finished = store.cells()
    missing = [job for job in jobs if key(job.config) not in finished]
    done = 0
    with track(sum(job.network.epochs for job in missing), "starting", console=console) as tracker:
        for job in missing:
            train(job, dataset, settings, store, tracker, done)
            done += job.network.epochs
            tracker.update(done, f"{job.dataset}, {job.model}")


def train(job: Job, dataset: hj.Dataset, settings: Settings, store: ResultStore, tracker: Tracker, done: int) -> None:
    """Trains one cell and puts it on disk."""
    network = job.network
    optimizer = optimizer_of(job.model, network)
    train_cell(f"{job.dataset}, {job.model}", job.config, store, tracker, done,
               model=build(job.model, network, dataset), dataset=prepared(job.model, network, dataset),
               seeds=job.config["seeds"], epochs=network.epochs, patience=network.patience, monitor=network.monitor,
               learning_rate=network.learning_rate, weight_decay=network.weight_decay, optimizer=optimizer,
               devices=settings.devices)


# --------------------------------------------------------------------------------------------- reports


def report_search(name: str, jobs: list[Job], cells: Mapping[str, Cell], console: Console) -> None:
    """Prints every candidate's validation macro-F1, and each model's best as a line for the configuration."""
    for model in dict.fromkeys(job.model for job in jobs):
        candidates = [job for job in jobs if job.model == model]
        scores = [float(np.mean(cells[key(job.config)].metrics["val_macro_f1"])) for job in candidates]
        for job, score in zip(candidates, scores, strict=True):
            console.print(f"{name} {model} {_differences(model, job.network)}: {100 * score:.2f}", soft_wrap=True,
                          highlight=False)
        best = candidates[int(np.argmax(scores))]
        console.print(f'    ("{name}", "{model}"): {_differences(model, best.network)},', soft_wrap=True,
                      highlight=False)


def _differences(model: str, network: Baseline) -> dict[str, Any]:
    """What a candidate changes of the model's starting point."""
    start = dataclasses.asdict(configs.START[model])
    return {name: value for name, value in dataclasses.asdict(network).items() if value != start[name]}


def report(cells: Mapping[tuple[str, str], Cell], settings: Settings, store: ResultStore, console: Console) -> None:
    """Prints one table, ours beside the published; writes it as table.md, and all seeds as results.csv."""
    lines = [["dataset", "model", "macro-F1 %", "published", "micro-F1 %", "published", "min %", "collapsed",
              "parameters", "s / seed"]]
    for (name, model), cell in cells.items():
        published = _published(name, model)
        macro, micro = (hj.report.summarise(cell.metrics[f"test_{kind}_f1"]) for kind in ("macro", "micro"))
        seconds = (cell.facts["train_seconds"] + cell.facts["compile_seconds"]) / len(cell.seeds)
        lines.append([name, model, *_beside(macro, published["macro"]), *_beside(micro, published["micro"]),
                      f"{100 * macro.minimum:.1f}", f"{macro.collapsed}/{macro.n}", f"{cell.facts['parameters']:,}",
                      f"{seconds:.1f}"])
    rule = ["---", "---", *["---:"] * (len(lines[0]) - 2)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))
    note = ("Mean ± sd over seeds; published: as in experiments/reference; < : below published minus one sd, or below "
            "published where that has none. With one label a node micro-F1 is accuracy. min, collapsed: macro-F1 of "
            "the worst seed, seeds more than 5 points below the median.")
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "table.md").write_text(f"{text}\n\n{note}\n")
    store.write_csv()
    console.print(hj.report.rich_table([[*line[:6], line[7]] for line in lines]))  # what 80 columns hold
    console.print(note, soft_wrap=True, highlight=False)
    console.print(f"Seed-level lines, CSV and table: {settings.out}", soft_wrap=True, highlight=False)


def _published(name: str, model: str) -> dict[str, tuple[float, float | None] | None]:
    """{"macro": (mean, sd or None) in %, "micro": the same}, None where nothing is published."""
    if (accuracy := homogeneous.PUBLISHED.get(name, {}).get(model)) is not None:
        return {"macro": None, "micro": accuracy}
    row = {**hgb.PUBLISHED, **gtn.PUBLISHED}.get(name, {}).get(model)
    if row is None:
        return {"macro": None, "micro": None}
    return {"macro": (row.macro, row.macro_sd), "micro": None if row.micro is None else (row.micro, row.micro_sd)}


def _beside(ours: hj.report.Summary, published: tuple[float, float | None] | None) -> tuple[str, str]:
    """Our mean and sd, marked where it falls short, and the published ones."""
    text = f"{100 * ours.mean:.2f}" + (f" ± {100 * ours.sd:.2f}" if ours.n > 1 else "")
    if published is None:
        return text, "-"
    mean, sd = published
    return (text + (" <" if 100 * ours.mean < mean - (sd or 0) else ""),
            f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.baselines", description=__doc__))
