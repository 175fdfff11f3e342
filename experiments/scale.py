"""A teacher and a student on a graph of ogbn-mag's size, trained by sampling: how fast, and in how much memory.

A synthetic graph with ogbn-mag's counts (hire_jax.data.mag_shaped: 1.9 million nodes of four types, 21 million edges
and their reverses, 128 dense features) is made once and kept on the disk. A two-layer RGCN is trained on it by
neighbour sampling, its outputs on all nodes are kept in files that are read row by row, and a smaller RGCN is trained
alone and by HIRE: soft targets and type-pair correlations on nodes drawn uniformly. Then a few steps of the teacher in
fresh processes show memory against the size of a batch and of the graph. Every part is a process of its own; finished
parts are kept, and a part that was stopped goes on from its last checkpoint.

Examples:
  python -m experiments.scale               # a twentieth of the size
  python -m experiments.scale --smoke       # to see that it runs
  python -m experiments.scale --full        # all of it

It writes OUT/results.jsonl, OUT/table.md and OUT/scale.png; graphs are in CACHE.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

import hire_jax as hj
from experiments.keys import key
from experiments.scale_figures import scale_figure
from experiments.scale_parts import arguments
from experiments.scale_plan import NETWORKS, Part, Scale, config, plan
from experiments.settings import resumable
from experiments.store import Cell, ResultStore

PRESETS: dict[str, dict[str, Any]] = {
    "default": {"share": 0.05, "num_classes": 64, "batch_size": 512, "steps": 200, "memory_batches": (128, 512, 1024),
                "memory_shares": (0.25, 0.5, 1.0)},
    "smoke": {"share": 0.002, "num_classes": 8, "batch_size": 64, "steps": 20, "memory_batches": (64,),
              "memory_shares": (1.0,)},
    "full": {"share": 1.0, "num_classes": 64, "batch_size": 1024, "steps": 500,
             "memory_batches": (256, 512, 1024, 2048), "memory_shares": (0.125, 0.25, 0.5, 1.0)},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to run. Numbers left at None come from the preset: a twentieth of the size, --smoke or --full."""

    full: bool = False
    """All of ogbn-mag's size."""
    smoke: bool = False
    """A tiny graph and few steps: shows that everything runs. Kept apart in OUT/smoke."""
    share: float | None = None
    """Of ogbn-mag's nodes and edges."""
    num_classes: int | None = None
    """Communities, which papers are classified into; ogbn-mag has 349."""
    noise: float = 0.6
    """Share of edges that leave their community."""
    feature_noise: float = 0.6
    """How much of a community's mean features is missing."""
    seed: int = 0
    """Of graph, networks and batches."""
    teacher_hidden: int = 64
    """Width of the teacher."""
    student_hidden: int = 16
    """Width of the student."""
    dropout: float = 0.2
    """Of both."""
    learning_rate: float = 0.01
    """At the first step; it falls to zero by a cosine."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    alpha: float = 3.0
    """Weight of the node-level term."""
    beta: float = 0.1
    """Weight of the relation-level term."""
    temperature: float = 2.0
    """Temperature of the node-level term."""
    batch_size: int | None = None
    """Seeds of a batch."""
    fanouts: tuple[int, ...] = (5, 5)
    """Neighbours of a node and relation, hop by hop."""
    steps: int | None = None
    """Training steps of each network, rounded to whole epochs where these are shorter."""
    validation_nodes: int = 4096
    """At most so many of them, drawn once."""
    workers: int = 2
    """Threads that make batches."""
    prefetch: int = 4
    """Batches made ahead."""
    devices: int = 1
    """One batch a device and step."""
    memory_batches: tuple[int, ...] | None = None
    """Seeds of a batch, for memory against them."""
    memory_shares: tuple[float, ...] | None = None
    """Shares of the graph, for memory against its size."""
    memory_steps: int = 6
    """Steps for a point of these curves."""
    out: Path = Path("runs/scale")
    """Folder for results; finished parts found there are not run again."""
    cache: Path | None = None
    """Folder for graphs; OUT/graphs when None."""


def main(settings: Settings, console: Console | None = None) -> dict[str, Cell]:
    """Runs what is missing, prints tables, writes files; returns {a part's label: its cell}.

    Ctrl-C leaves finished parts on disk, says where, and exits with status 130.

    Raises:
      SystemExit: a part failed, or both presets were asked for.
    """
    console = console or Console()
    if not console.is_terminal:  # a log is not to break the lines
        console.width = max(console.width, 140)
    if settings.full and settings.smoke:
        raise SystemExit("--full and --smoke: choose one")
    if settings.smoke:
        settings = dataclasses.replace(settings, out=settings.out / "smoke")
    scale, parts = resolved(settings), plan(resolved(settings))
    store, cache = ResultStore(settings.out), settings.cache or settings.out / "graphs"

    def finished() -> str:
        return f"{sum(store.finished(config(scale, part)) is not None for part in parts)} of {len(parts)}"

    console.print(f"{len(parts)} parts; results in {settings.out}, graphs in {cache}", soft_wrap=True, highlight=False)
    with resumable(settings.out, console, finished):
        for part in parts:
            if store.finished(config(scale, part)) is None:
                apart(scale, part, settings.out, cache)
    cells = store.cells()
    found = {part.label: cells[key(config(scale, part))] for part in parts}
    report(scale, parts, found, settings.out, console)
    return found


def resolved(settings: Settings) -> Scale:
    """The settings with the preset's numbers in place of None."""
    preset = PRESETS["full" if settings.full else "smoke" if settings.smoke else "default"]
    given = {name: value for name, value in vars(settings).items() if value is not None}
    values = preset | given
    values.setdefault("uniform", values["batch_size"])
    return Scale(**{field.name: values[field.name] for field in dataclasses.fields(Scale)})


def apart(scale: Scale, part: Part, out: Path, cache: Path) -> None:
    """One part in a process of its own. Raises SystemExit where that fails, which has said why."""
    command = [sys.executable, "-m", "experiments.scale_parts", arguments(scale, part, out, cache)]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, check=False)
    if done.returncode:
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode == 143:
            raise SystemExit(0)  # as `fit` ends at SIGTERM; `resumable` says so, and makes it 143 again
        raise SystemExit(f"{part.label}: its process ended with {done.returncode}; what was finished is in {out}")


def report(scale: Scale, parts: list[Part], cells: dict[str, Cell], out: Path, console: Console) -> None:
    """Prints the tables; writes table.md and the figure."""
    tables = {"The graphs": graph_lines(parts, cells), "The networks": network_lines(scale, cells),
              "Memory of training the teacher": memory_lines(parts, cells)}
    for title, lines in tables.items():
        console.print(hj.report.rich_table(lines, title=title))
    (out / "table.md").write_text("\n\n".join(f"## {title}\n\n{markdown(lines)}" for title, lines in tables.items())
                                  + "\n")
    networks: dict[str, Cell] = {kind: cells[Part(kind, scale.share).label] for kind in NETWORKS}
    points = [(part.share, part.batch_size, cells[part.label]) for part in parts if part.kind == "memory"]
    figure = scale_figure(networks, points, out / "scale.png", share=scale.share, batch_size=scale.batch_size,
                          sizes={part.share: cells[part.label] for part in parts if part.kind == "graph"})
    console.print(f"{sum(cell.seconds for cell in cells.values()):.0f} s in all. Lines, tables and figure: "
                  f"{out / 'results.jsonl'}, {out / 'table.md'}, {figure}", soft_wrap=True, highlight=False)


def graph_lines(parts: list[Part], cells: dict[str, Cell]) -> list[list[str]]:
    """One line a graph: what it has, and what making it took."""
    lines = [["share", "nodes", "edges", "generator s", "peak GiB", "with files s", "peak GiB", "GiB on disk"]]
    for part in parts:
        if part.kind == "graph":
            facts = cells[part.label].facts
            lines.append([f"{part.share:g}", f"{facts['nodes']:,}", f"{facts['edges']:,}",
                          f"{facts['generator_seconds']:.1f}", gib(facts["generator_peak_bytes"]),
                          f"{facts['seconds']:.1f}", gib(facts["peak_bytes"]), gib(facts["bytes_on_disk"])])
    return lines


def network_lines(scale: Scale, cells: dict[str, Cell]) -> list[list[str]]:
    """One line a network: speed, accuracy, memory."""
    lines = [["network", "parameters", "steps", "ms a step", "seeds/s", "nodes/s", "M edges/s", "waiting %", "val. %",
              "test %", "GiB training", "GiB at most"]]
    for kind in NETWORKS:
        cell = cells[Part(kind, scale.share).label]
        facts, metrics = cell.facts, {name: values[0] for name, values in cell.metrics.items()}
        seeds = facts["seeds_a_second"]
        lines.append([kind, f"{facts['parameters']:,}", f"{metrics['steps']:.0f}",
                      shown(seeds, lambda x: f"{1e3 * scale.batch_size * scale.devices / x:.0f}"),
                      shown(seeds, lambda x: f"{x:,.0f}"), shown(facts["nodes_a_second"], lambda x: f"{x:,.0f}"),
                      shown(facts["edges_a_second"], lambda x: f"{x / 1e6:.2f}"),
                      shown(facts["waited_share"], lambda x: f"{100 * x:.1f}"), f"{100 * metrics['val_accuracy']:.1f}",
                      f"{100 * metrics['test_accuracy']:.1f}", gib(facts["training"]["resident"]),
                      gib(facts["peak_bytes"])])
    return lines


def memory_lines(parts: list[Part], cells: dict[str, Cell]) -> list[list[str]]:
    """One line a point of the curves."""
    lines = [["share", "batch", "nodes a batch", "edges a batch", "GiB", "without mapped files", "before training"]]
    for part in parts:
        if part.kind == "memory":
            metrics = {name: values[0] for name, values in cells[part.label].metrics.items()}
            lines.append([f"{part.share:g}", f"{part.batch_size:,}", f"{metrics['nodes_a_batch']:,.0f}",
                          f"{metrics['edges_a_batch']:,.0f}", *(gib(metrics.get(name)) for name in
                                                                ("resident", "anonymous", "resident_before"))])
    return lines


def gib(number: float | None) -> str:
    """Bytes in GiB, or "-"."""
    return shown(number, lambda x: f"{x / 2**30:.2f}")


def shown(number: float | None, form: Any) -> str:
    """A number in a form, "-" for None."""
    return "-" if number is None else form(number)


def markdown(lines: list[list[str]]) -> str:
    """A table whose first line is its head."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.scale", description=__doc__))
