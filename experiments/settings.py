"""What the command lines of the training experiments have in common: settings, and what Ctrl-C does.

tyro shows the strings below the fields as help; an experiment that sets another default repeats the field alone.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from rich.console import Console

import hire_jax as hj
from hire_jax.data import DatasetError


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Of every experiment that trains cells and keeps them on disk."""

    root: Path | None = None
    """Folder with dataset files."""
    seeds: int = 5
    """Seeds 0 .. n-1, trained together as one program."""
    epochs: int | None = None
    """At most this many epochs; None takes the configuration's."""
    out: Path = Path("runs")
    """Folder for results; finished cells found there are not run again."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings(RunSettings):
    """Of one whose seeds can be spread, and that can be tried out first."""

    devices: int | None = None
    """Spread the seeds over this many devices. On a CPU, makes so many of it, to try things out."""
    smoke: bool = False
    """Narrow models, few epochs, 2 seeds: shows in a minute or two that everything runs. Kept apart in OUT/smoke."""
    checkpoints: bool = False
    """Keep the state of the cell that is being trained, every ten epochs, in OUT/checkpoints: after a kill the same
    command goes on within the cell, to the same bits. For cells of many minutes; one process at a time. What is left
    there of cells that nobody trains any more may be deleted."""


@dataclasses.dataclass(frozen=True)
class GraphSettings:
    """Of an experiment on one graph."""

    dataset: str = "imdb_gtn"
    """A bundled name, or NAME of a NAME.npz in --root or $HIRE_JAX_DATA."""
    split: str | None = None
    """One of the dataset's splits; None takes its default."""


def provide_devices(count: int | None) -> None:
    """Makes `count` devices of a CPU where JAX has not looked for devices yet; other platforms have what they have."""
    if count is not None and count < 1:
        raise SystemExit(f"--devices: expected at least 1, got {count}")
    if count is not None and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError as error:  # it has looked: what is there must do, and `fit` says so where it does not
            if count > jax.device_count():
                raise SystemExit(f"--devices: JAX has {jax.device_count()} devices already, got {count}") from error


def load_named(name: str, root: Path | None = None, split: str | None = None) -> hj.Dataset:
    """A dataset of NAME or NAME/SPLIT, as the command lines take them. Exits where it cannot be had, and says why."""
    dataset, _, own = name.partition("/")
    try:
        return hj.load_dataset(dataset, root=root, split=split or own or None)
    except DatasetError as error:
        raise SystemExit(f"{name}: {error}") from error


@contextmanager
def resumable(out: Path, console: Console, finished: Callable[[], str] | None = None) -> Iterator[None]:
    """Ctrl-C inside says where the finished cells are, which stay on disk, and exits with status 130; SIGTERM, where
    `fit` with checkpoints turns it into an end with status 0, the same with 143.

    `finished` counts them, as in "2 of 3".
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 0:
            raise  # an error that says itself what it is
        cells = "Finished cells are" if finished is None else f"{finished()} cells are finished"
        console.print(f"\nStopped. {cells} in {out}; the same command goes on from there.", soft_wrap=True,
                      highlight=False)
        sys.exit(143 if isinstance(stop, SystemExit) else 130)
