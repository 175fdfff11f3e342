"""Time and peak memory of every loss of hire_jax.losses against the number of rows, and of torch's usual formulation.

Value and gradient with respect to the student. 10^3, 10^3.5, ... rows of width 128, logits of 16 classes, 10 edges a
node, two types where a loss has types. Three forms:
  ours    each loss up to the size at which a call takes --seconds, needs --gib, or the loss refuses
  sample  with `sample=` beyond --sample rows, of losses that have it; the number of rows is then that of the draw's
          source
  torch   (--peer torch) as public codes write it, with full [n, n] matrices, on the CPU; value and gradient are
          compared with ours first

A process of its own for each loss and form finds peak memory beyond the inputs and how far it can go
(experiments.bench_losses_memory). Then this process takes times, medians of --repeats turns in which every form of the
loss has one call, compiled before. The growth printed is the exponent of time between the three largest sizes;
"quadratic" and "cubic" mark those near 2 and 3, in brackets those that are so by the algorithm while the sizes measured
do not show it.

Examples:
  python -m experiments.bench_losses --peer torch            # some 30 minutes
  python -m experiments.bench_losses --losses hint contrastive --max-rows 32000
  python -m experiments.bench_losses --smoke                 # in a minute, to see that it runs

It writes OUT/losses.json and losses.png.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import bench_losses_cases, bench_losses_figures
from experiments.bench import cpu_name
from experiments.bench_contenders import in_turns
from experiments.bench_growth import edge_counts, fit_slope
from experiments.bench_losses_cases import CASES, compiled, inputs, row_limit, takes_sample
from experiments.bench_losses_memory import Job, measure_apart, our_call, torch_call
from experiments.console import track
from experiments.environment import environment

SMALLEST = 1_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    losses: tuple[str, ...] = tuple(CASES)
    """Names of losses; all by default."""
    max_rows: int = 1_000_000
    """The largest number of rows."""
    sample: int = 4_096
    """Rows that losses with `sample=` draw; fewer where a loss allows fewer only."""
    seconds: float = 10.0
    """No size at which one call would take longer, by the growth of time between smaller ones."""
    gib: float = 8.0
    """No size at which one call would need more memory beyond its inputs."""
    repeats: int = 5
    """Turns that are timed, after two that are not."""
    peer: Literal["torch"] | None = None
    """Another library to measure beside ours."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file and the figure."""
    smoke: bool = False
    """200 rows, one turn, one process: shows in a minute that everything runs. Kept apart in OUT/smoke."""


def main(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints two tables, writes JSON and the figure; returns what the JSON holds.

    Raises:
      ValueError: a name that is no loss of the bench, or torch's value or gradient differs from ours.
    """
    console = console or Console()
    if not console.is_terminal:  # a log is not to cut the names
        console.width = max(console.width, 120)
    if unknown := sorted(set(settings.losses) - set(CASES)):
        raise ValueError(f"losses: expected names among {list(CASES)}, got {unknown}")
    if settings.smoke:
        settings = dataclasses.replace(settings, max_rows=200, sample=50, repeats=1, out=settings.out / "smoke")
    if settings.peer:
        for name in settings.losses:
            compare(name)
    jobs = [job for name in settings.losses for job in jobs_of(name, settings)]
    results: dict[str, dict[str, Any]] = {name: {} for name in settings.losses}
    with track(len(jobs) + len(results), "memory", console=console) as tracker:
        batches = [jobs] if settings.smoke else [[job] for job in jobs]
        done = 0
        for batch in batches:
            for job, measured in zip(batch, measure_apart(batch), strict=True):
                results[job.loss][job.form] = {"sample": job.sample} | measured
            done += len(batch)
            tracker.update(done, f"memory of {batch[-1].loss}, {batch[-1].form}")
        for name, forms in results.items():
            add_times(name, forms, settings.repeats)
            done += 1
            tracker.update(done, f"time of {name}")
    facts: dict[str, Any] = {
        "settings": dataclasses.asdict(settings) | {"out": str(settings.out), "losses": list(settings.losses)},
        "inputs": bench_losses_cases.DIMENSIONS | {"dtype": "float32"},
        "environment": environment() | {"cpu": cpu_name()} | _peer_version(settings),
        "memory": "bytes beyond the inputs, gradients included: rise of the resident set in a process of its own, "
                  "of ours at least XLA's own count of outputs and temporaries",
        "losses": results,
    }  # fmt: skip
    report(results, console)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "losses.json"
    path.write_text(json.dumps(facts, indent=1))
    try:
        bench_losses_figures.losses_figure(results, settings.out / "losses.png")
    except ImportError as error:
        console.print(f"No figure: {error}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"All raw times: {path}", soft_wrap=True, highlight=False)
    return facts


def jobs_of(name: str, settings: Settings) -> list[Job]:
    """The forms of a loss and the sizes to try: up to a refusal ours, from the draw's size on with `sample=`."""
    grid = row_counts(settings.max_rows)
    limit = row_limit(name)
    job = partial(Job, name, seconds=settings.seconds, bytes_limit=settings.gib * 2**30)
    if limit is not None:  # the largest size allowed is one, and where the grid begins beyond it, some below it are too
        below = [limit // 8, limit // 4, limit // 2] if limit < grid[0] else []
        grid = sorted({*below, limit, *grid} if limit <= grid[-1] else set(grid))
    jobs = [job("ours", grid)]
    if takes_sample(name):
        sample = settings.sample if limit is None else min(settings.sample, limit)
        if larger := [size for size in grid if size > sample]:
            jobs.append(job("sample", larger, sample))
    if settings.peer == "torch":
        jobs.append(job("torch", grid))
    return jobs


def row_counts(largest: int) -> list[int]:
    """Half powers of ten from 1000 to `largest`, which alone is taken where it is less."""
    return edge_counts(largest, SMALLEST) if largest >= SMALLEST else [largest]


def add_times(name: str, forms: dict[str, Any], repeats: int) -> None:
    """Replaces the one call's "seconds" of each measured size by those of its turns, and adds "growth"."""
    by_size: dict[int, dict[str, Any]] = {}
    for form, measured in forms.items():
        for row in measured["rows"]:
            by_size.setdefault(row["rows"], {})[form] = row
    for size, rows in by_size.items():
        calls = {form: torch_call(name, size) if form == "torch" else our_call(name, size, forms[form]["sample"])
                 for form in rows}  # fmt: skip
        for form, seconds in in_turns(calls, repeats).items():
            rows[form]["seconds"] = seconds
    for measured in forms.values():
        measured["growth"] = growth(measured["rows"])


def compare(name: str, rows: int = 100) -> None:
    """Torch's value and gradient against ours.

    Raises:
      ValueError: they differ by more than rounding.
    """
    from experiments.peers import torch_losses

    arguments = inputs(name, rows)
    program, on_device = compiled(name, rows, arguments)
    value, gradients = program(*on_device)
    tensors, leaves = torch_losses.tensors(arguments, CASES[name].learned)
    peer_value, peer_gradients = torch_losses.value_and_gradients(name, tensors, leaves)
    pairs = [(np.asarray(a), b.numpy()) for a, b in zip(jax.tree.leaves(gradients), peer_gradients, strict=True)]
    if name not in torch_losses.GRADIENT_ONLY:
        pairs.append((np.asarray(value), peer_value.numpy()))
    for ours, theirs in pairs:
        if (error := np.abs(ours - theirs).max() / np.abs(ours).max()) > 1e-4:
            raise ValueError(f"{name}: torch's formulation differs from ours by {error:.1g} of the largest number")


def growth(rows: Sequence[dict[str, Any]]) -> float | None:
    """Exponent of median time over the three largest sizes; None where there is one size only."""
    last = rows[-3:]
    if len(last) < 2:
        return None
    return fit_slope([row["rows"] for row in last], [float(np.median(row["seconds"])) for row in last])[0]


def mark(exponent: float | None) -> str:
    """What an exponent near 2 or 3 is called; else nothing."""
    if exponent is None or not 1.6 <= exponent < 3.5:
        return ""
    return "quadratic" if exponent < 2.5 else "cubic"


def _peer_version(settings: Settings) -> dict[str, str]:
    if settings.peer is None:
        return {}
    from experiments.peers import torch_losses

    return {"torch": torch_losses.VERSION}


# ----------------------------------------------------------------------------------------------- print


def report(results: dict[str, dict[str, Any]], console: Console) -> None:
    """Time and memory at powers of ten, the largest size measured, and why it is the largest."""
    measured = [form for forms in results.values() for form in forms.values()]
    sizes = sorted({row["rows"] for form in measured for row in form["rows"]})
    shown = [size for size in sizes if size in (10**3, 10**4, 10**5, 10**6)] or sizes[-2:]
    for title, unit in (("Value and gradient, ms (median)", 1e3), ("Peak memory beyond the inputs, MiB", 2**-20)):
        timing = unit == 1e3
        table = Table("loss", "form", *(f"{size:,}" for size in shown), "largest", "growth" if timing else "ended by",
                      title=title, title_justify="left")  # fmt: skip
        for name, forms in results.items():
            for form, facts in forms.items():
                values = {row["rows"]: float(np.median(row["seconds"])) if timing else row["memory"]
                          for row in facts["rows"]}  # fmt: skip
                cells = [_number(values[size] * unit) if values.get(size) is not None else "-" for size in shown]
                largest = f"{max(values):,}: {_number((values[max(values)] or 0) * unit)}" if values else "-"
                end = _growth_cell(facts["growth"], power_of(name, form)) if timing else _end_cell(facts["stopped"])
                label = form if form != "sample" else f"sample={facts['sample']}"
                table.add_row(name, label, *cells, largest, end)
        console.print(table)
    for name, forms in results.items():
        for form, facts in forms.items():
            if facts["stopped"] is not None:
                stop = facts["stopped"]
                console.print(f"{name}, {form}: not at {stop['rows']:,} rows ({stop['why']}): {stop['message']}",
                              soft_wrap=True, highlight=False, markup=False)  # fmt: skip


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _growth_cell(exponent: float | None, power: int) -> str:
    """The measured exponent and its mark; where the algorithm says otherwise, that in brackets."""
    by_algorithm = mark(power)
    bracket = f"({by_algorithm})" if by_algorithm and by_algorithm != mark(exponent) else ""
    measured = "-" if exponent is None else f"{exponent:.1f} {mark(exponent)}"
    return " ".join(f"{measured} {bracket}".split())


def power_of(name: str, form: str) -> int:
    """The power of rows with which time grows by the algorithm; with `sample=` only the draw is of all rows."""
    if form == "torch":
        from experiments.peers import torch_losses

        return torch_losses.POWER.get(name, 1)
    return CASES[name].power if form == "ours" else 1


def _end_cell(stopped: dict[str, Any] | None) -> str:
    return "" if stopped is None else f"{stopped['why']} at {stopped['rows']:,}"


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.bench_losses", description=__doc__))
