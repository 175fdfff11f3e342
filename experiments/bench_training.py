"""Whole trainings: one seed and many in one program, against as many of PyG's one after another.

`python -m experiments.bench --training` runs it. Ours is `hire_jax.fit` for --training-epochs epochs without early
stopping: its own count of seconds, and apart from that what it took to compile. PyG trains one seed a turn, for
--peer-epochs epochs where that is given; N seeds are N times the median, since nothing is shared between them.
Building PyG's model and one epoch before the others are not counted. Compilation weighs the less the longer a training
is, so both ratios stand there: without it, and for FULL epochs with it. N seeds of one `fit` each compile N times.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import hire_jax as hj
from experiments.bench_contenders import PAUSE, network, with_metapaths
from experiments.console import track

FULL = 200  # epochs of `hire_jax.fit` by default
TURNS = 3


def run(name: str, dataset: hj.Dataset, settings: Any, peer: Any, console: Console) -> dict[str, Any]:
    """Everything about one dataset, measured, printed and returned.

    Args:
      name: of the dataset, for the title.
      dataset: what to train on.
      settings: of the bench.
      peer: the module experiments.peers.pyg, or None for ours alone.
      console: where to print.
    """
    dataset = with_metapaths(dataset, settings)
    model = network(dataset, settings)
    epochs, peer_epochs = settings.training_epochs, settings.peer_epochs or settings.training_epochs
    seconds: dict[str, list[float]] = {}
    compilation: dict[str, list[float]] = {}

    def ours(label: str, seeds: int) -> None:
        result = hj.fit(model, dataset, seeds=seeds, epochs=epochs, patience=epochs)
        seconds.setdefault(label, []).append(result.seconds)
        compilation.setdefault(label, []).append(result.compile_seconds)

    def theirs(label: str) -> None:
        training = peer.Training(peer.peers(dataset, model)[label], dataset, epochs=peer_epochs)
        training.epoch()  # the first is slower than what a long training repeats
        seconds.setdefault(label, []).append(training() * epochs)

    labels = [] if peer is None else list(peer.peers(dataset, model))
    many = f"hire_jax, {settings.seeds} seeds"
    trainings: list[tuple[str, Callable[[], None]]] = [
        ("hire_jax, 1 seed", lambda: ours("hire_jax, 1 seed", 1)), (many, lambda: ours(many, settings.seeds)),
        *((label, lambda label=label: theirs(label)) for label in labels),
    ]  # fmt: skip
    turns = min(settings.repeats, TURNS)
    with track(turns * len(trainings), f"{name}: {turns} turns of trainings", console=console) as tracker:
        for step in range(turns * len(trainings)):
            label, train = trainings[step % len(trainings)]
            time.sleep(PAUSE)
            train()
            tracker.update(step + 1, f"{name}: {label}")

    rows = summary({k: float(np.median(v)) for k, v in seconds.items()},
                   {k: float(np.median(v)) for k, v in compilation.items()}, settings.seeds, epochs)
    report(rows, f"{name}, {settings.model}, width {settings.hidden}: {epochs} epochs", console)
    if labels:
        scaled = "" if peer_epochs == epochs else f"{peer_epochs} epochs of it, times {epochs / peer_epochs:.3g}; "
        console.print(f"PyG: one seed was timed in each of {turns} turns ({scaled}the median), and {settings.seeds} "
                      f"seeds are {settings.seeds} times that; building its model and a first epoch are not counted.",
                      soft_wrap=True, highlight=False)
    cost = rows[1]["seconds_a_seed"] / rows[0]["seconds_a_seed"]
    console.print(f"A seed of {settings.seeds} takes {cost:.2f} of the time of a single one, without compilation.",
                  soft_wrap=True, highlight=False)
    return {"seconds": seconds, "compile_seconds": compilation, "epochs": epochs, "peer_epochs": peer_epochs,
            "summary": rows}  # fmt: skip


def summary(seconds: dict[str, float], compilation: dict[str, float], seeds: int, epochs: int) -> list[dict[str, Any]]:
    """A row of numbers for each contender, from medians: ours of one seed, ours of `seeds`, then PyG's of one.

    Args:
      seconds: of one call each, without compilation; the first two of ours are in this order.
      compilation: seconds of ours.
      seeds: how many our second trains at once, and how many trainings the ratios are of.
      epochs: in each training.
    """
    alone, many = list(compilation)
    counts = {alone: 1, many: seeds}
    totals = {label: seeds / counts.get(label, 1) * value for label, value in seconds.items()}  # of all the seeds
    # As many calls of `fit` as it takes to train them all, and each compiles.
    full = {label: compilation.get(label, 0.0) * seeds / counts.get(label, 1) + total * FULL / epochs
            for label, total in totals.items()}  # fmt: skip
    return [{"contender": label, "seconds_a_seed": value / counts.get(label, 1),
             "compile_seconds": compilation.get(label), "seconds_all_seeds": totals[label],
             "times_ours": totals[label] / totals[many], "times_ours_full": full[label] / full[many]}
            for label, value in seconds.items()]  # fmt: skip


def report(rows: list[dict[str, Any]], title: str, console: Console) -> None:
    """The table of `summary`."""
    table = Table("training", "s a seed", "s all seeds", "compile s", "times ours", f"{FULL} epochs + compile",
                  title=title, title_justify="left")
    for row in rows:
        compiled = row["compile_seconds"]
        table.add_row(row["contender"], f"{row['seconds_a_seed']:.2f}", f"{row['seconds_all_seeds']:.2f}",
                      "-" if compiled is None else f"{compiled:.1f}", f"{row['times_ours']:.2f}",
                      f"{row['times_ours_full']:.2f}")
    console.print(table)
