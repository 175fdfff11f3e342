"""How fast a training step plus validation is: against PyG, for many seeds at once, against the machine.

Questions answered in one run for each dataset:
  peer    how long an epoch (one gradient step, one look at the validation nodes) takes here and in PyG. The two
          take turns, so that noise of the machine meets both; before that their logits are compared at equal
          parameters. Needs --peer pyg and `pip install torch torch_geometric`.
  seeds   what N seeds in one program cost against one seed.
  floor   how far the epoch is from what its arithmetic and its memory traffic must cost on this machine.
  memory  what each contender holds at its peak, measured in a process of its own (experiments/bench_memory.py says
          how). Needs --memory.

Another, instead of these, with --training: how long whole trainings of one and of many seeds take, compilation
apart, against as many of PyG's one after another (experiments/bench_training.py).

Times are medians over --repeats timings of --epochs epochs each, with their quartiles. A ratio is the median of the
ratios within each turn. Close other programs first: on a busy machine compare ratios, not times.

Examples:
  python -m experiments.bench                              # bundled IMDB, and DBLP where $HIRE_JAX_DATA has it
  python -m experiments.bench --peer pyg                   # the same against PyG
  python -m experiments.bench --dataset imdb_gtn --hidden 8 --seeds 20
  python -m experiments.bench --peer pyg --model HGT       # also HeteroSAGE and HAN
  python -m experiments.bench --peer pyg --memory          # peak memory beside each time
  python -m experiments.bench --peer pyg --training --dataset dblp_hgb
  python -m experiments.bench --micro                      # the measurements behind docs/performance.md
  python -m experiments.bench --smoke                      # in a minute, to see that it runs
"""

import dataclasses
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import hire_jax as hj
from experiments import bench_memory, bench_training
from experiments.bench_contenders import Contender, OurEpochs, in_turns, network, ratio, with_metapaths
from experiments.bench_floors import floors, machine_rates
from experiments.console import track
from experiments.environment import environment
from experiments.memory import use_heap_for_large_arrays
from hire_jax.data import DatasetError, DatasetNotFoundError

INSTALL = """--peer pyg needs torch and torch_geometric, which nothing else here uses: {error}.
Install them into this environment and run the command again:
  pip install torch torch_geometric"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    dataset: tuple[str, ...] = ()
    """Names for `hire_jax.load_dataset`. Without: imdb_gtn (bundled), and dblp_hgb if its file is here."""
    peer: Literal["none", "pyg"] = "none"
    """Time the same model in PyG too, in turns with ours."""
    model: Literal["RGCN", "HeteroSAGE", "HGT", "HAN"] = "RGCN"
    """Which network. HAN has one layer, on the metapaths proposed from the schema."""
    hidden: int = 64
    """Width of every layer."""
    layers: int = 2
    """Number of relational convolutions."""
    repeats: int = 20
    """Timings of each contender."""
    epochs: int = 10
    """Epochs in one timing."""
    seeds: int = 10
    """Seeds of the program that trains several at once."""
    out: Path = Path("runs/bench")
    """Folder for bench.json: environment, counts and all raw times."""
    memory: bool = False
    """Measure each contender's peak memory too, in a process of its own; Linux only."""
    training: bool = False
    """Instead: whole trainings of one and of --seeds seeds, in at most 3 of --repeats turns."""
    training_epochs: int = 20
    """Epochs of a whole training."""
    peer_epochs: int | None = None
    """Epochs of PyG's trainings that are timed, the rest being multiplied; without: --training-epochs."""
    micro: bool = False
    """Instead: the small measurements behind docs/performance.md, each against its alternative."""
    smoke: bool = False
    """Width 8, 2 seeds, 2 repeats of 2 epochs: shows in a minute that everything runs. Kept apart in OUT/smoke."""


def main(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints tables, writes OUT/bench.json; returns what it wrote.

    Exits with status 2 where the peer's packages are missing.
    """
    console = console or Console()
    if settings.smoke:
        settings = dataclasses.replace(settings, hidden=8, repeats=2, epochs=2, seeds=2, training_epochs=4,
                                       out=settings.out / "smoke")
    peer = _peer_module() if settings.peer == "pyg" else None
    if settings.micro:
        from experiments import bench_micro  # it builds on this module

        facts: dict[str, Any] = {"micro": bench_micro.run(settings, console)}
    elif settings.training:
        facts = {"heap": use_heap_for_large_arrays(), "datasets": {}}
        for name, dataset in _datasets(settings, console):
            facts["datasets"][name] = bench_training.run(name, dataset, settings, peer, console)
    else:
        facts = {"heap": use_heap_for_large_arrays(), "machine": machine_rates(), "datasets": {}}
        for name, dataset in _datasets(settings, console):
            facts["datasets"][name] = _measure(name, dataset, settings, facts["machine"], peer, console)
    versions = {} if peer is None else peer.VERSIONS
    facts = {
        "settings": dataclasses.asdict(settings) | {"out": str(settings.out)},
        "environment": environment() | versions | {"cpu": cpu_name()},
        **facts,
    }
    settings.out.mkdir(parents=True, exist_ok=True)
    name = "micro" if settings.micro else "training" if settings.training else "bench"
    if settings.model != "RGCN" and not settings.micro:
        name += f"_{settings.model.lower()}"
    path = settings.out / f"{name}.json"
    path.write_text(json.dumps(facts, indent=1))
    console.print(f"All raw times: {path}", soft_wrap=True, highlight=False)
    return facts


def _peer_module() -> Any:
    try:
        from experiments.peers import pyg
    except ImportError as error:
        print(INSTALL.format(error=error), file=sys.stderr)
        sys.exit(2)
    return pyg


def _datasets(settings: Settings, console: Console) -> Iterator[tuple[str, hj.Dataset]]:
    for name in settings.dataset or ("imdb_gtn", "dblp_hgb"):
        try:
            yield name, hj.load_dataset(name, download=bool(settings.dataset))
        except DatasetError as error:
            if settings.dataset or not isinstance(error, DatasetNotFoundError):
                raise SystemExit(f"--dataset: {error}") from error
            console.print(f"{name} is skipped: {str(error).splitlines()[1]}", soft_wrap=True, highlight=False)


# ------------------------------------------------------------------------------------------- a dataset


def _measure(
    name: str, dataset: hj.Dataset, settings: Settings, machine: Mapping[str, float], peer: Any, console: Console
) -> dict[str, Any]:
    """Everything about one dataset, measured, printed and returned."""
    console.rule(name)
    console.print(repr(dataset), soft_wrap=True, highlight=False)
    dataset = with_metapaths(dataset, settings)
    model = network(dataset, settings)
    ours, many = "hire_jax, 1 seed", f"hire_jax, {settings.seeds} seeds"
    contenders: dict[str, Contender] = {ours: (one := OurEpochs(dataset, model, epochs=settings.epochs))}
    agreement: dict[str, float] = {}
    if peer is not None:
        variables = one.variables()
        logits = np.asarray(jax.jit(partial(model.apply, train=False))(variables, dataset.graph).logits)
        for label, other in peer.peers(dataset, model).items():
            agreement[label] = peer.difference(other, variables, logits)
            console.print(f"{label}: logits differ by at most {agreement[label]:.1e} of the largest", highlight=False)
            if not agreement[label] <= 1e-3:
                raise SystemExit(f"{label} computes another function: times would mean nothing")
            contenders[label] = peer.Training(other, dataset, epochs=settings.epochs)
    contenders[many] = OurEpochs(dataset, model, seeds=settings.seeds, epochs=settings.epochs)
    analysis = OurEpochs(dataset, model, epochs=1).compiled.cost_analysis() or {}
    bounds = floors(model, dataset, machine, analysis)
    with track(settings.repeats + 2, f"{name}: {len(contenders)} contenders in turns", console=console) as tracker:
        seconds = in_turns(contenders, settings.repeats, tracker)
    memory = bench_memory.peaks(name, settings, list(contenders), console) if settings.memory else {}

    table = Table(
        f"epoch of {settings.model}",
        "ms",
        "quartiles",
        "times ours",
        *(["peak MiB"] if memory else []),
        title=f"{name}, width {settings.hidden}, {settings.layers} layers: one training step plus validation",
        title_justify="left",
    )
    for label, values in seconds.items():
        median, low, high = (1e3 * np.quantile(values, q) for q in (0.5, 0.25, 0.75))
        table.add_row(label, f"{median:.1f}", f"{low:.1f} - {high:.1f}", f"{ratio(seconds, label, ours):.2f}",
                      *([bench_memory.shown(memory[label])] if memory else []))
    console.print(table)
    if memory:
        console.print(f"peak MiB: {bench_memory.MEANING}", soft_wrap=True, highlight=False)
    each = ratio(seconds, many, ours) / settings.seeds
    console.print(
        f"{settings.seeds} seeds in one program: {np.median(seconds[many]):.4f} s an epoch, one seed alone "
        f"{np.median(seconds[ours]):.4f} s: {each:.2f} of the time of one seed for each seed",
        soft_wrap=True,
        highlight=False,
    )
    table = Table(
        "floor of one epoch",
        "GFLOP",
        "GB",
        "compute ms",
        "in cache ms",
        "large copy ms",
        "measured / floor",
        "/ floor, large copy",
        title=f"matrix products {machine['matmul_flops'] / 1e9:.0f} GFLOP/s; copies "
        f"{machine['copy_bytes'] / 1e9:.0f} GB/s, in cache {machine['cached_copy_bytes'] / 1e9:.0f} GB/s",
        title_justify="left",
    )
    for label, bound in bounds.items():
        times = (f"{1e3 * bound[key]:.1f}" for key in ("compute_seconds", "cached_seconds", "copy_seconds"))
        ratios = (f"{np.median(seconds[ours]) / bound[key]:.1f}" for key in ("floor_seconds", "copy_floor_seconds"))
        table.add_row(label, f"{bound['flops'] / 1e9:.2f}", f"{bound['bytes'] / 1e9:.3f}", *times, *ratios)
    console.print(table)
    console.print("compiled: XLA's own count, too low where a model goes over blocks of edges or pairs: a loop's body "
                  "counts once", soft_wrap=True, highlight=False)
    return {
        "seconds": seconds,
        "times_ours": {label: ratio(seconds, label, ours) for label in seconds},
        "seed_cost": each,
        "logits_difference": agreement,
        "floors": bounds,
        **({"memory": memory} if memory else {}),
    }


def cpu_name() -> str:
    """The processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.bench", description=__doc__))
