"""What `fit` asks of its dataset, its arguments, its teacher and its losses, checked on the host."""

from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

from hire_jax.data.dataset import labelled
from hire_jax.graph import HeteroGraph
from hire_jax.models.output import ModelOutput
from hire_jax.teachers import RandomTeacher


class TrainingError(RuntimeError):
    """A run that cannot go on: the message names the seed and the epoch."""


class LabelledGraph(Protocol):
    """What `fit` needs of a dataset; `hire_jax.data.Dataset` is one."""

    @property
    def graph(self) -> HeteroGraph: ...
    @property
    def labels(self) -> jax.Array: ...
    @property
    def splits(self) -> Mapping[str, jax.Array]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def multilabel(self) -> bool: ...


def check_arguments(dataset: LabelledGraph, seeds: tuple[int, ...], monitor: str, **counts: int) -> None:
    """Raises ValueError for seeds, counts, a monitor or splits that `fit` cannot use."""
    if not seeds:
        raise ValueError("seeds must name at least one seed")
    if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2 ** 32:
        raise ValueError(f"seeds must be distinct, from 0 to 2^32 - 1, got {list(seeds)}")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    check_monitor(monitor)
    for split in ("train", "val", "test"):
        if split not in dataset.splits:
            raise ValueError(f"the dataset has no split {split!r}; it has {sorted(dataset.splits)}")
        mask = np.asarray(dataset.splits[split])
        if mask.dtype != np.bool_ or mask.shape != dataset.labels.shape[:1]:
            raise ValueError(f"split {split!r} must be a mask bool[{dataset.labels.shape[0]}], got "
                             f"{mask.dtype}{list(mask.shape)}")
        if not mask.any():
            raise ValueError(f"split {split!r} holds no node")
        if (bare := mask & ~labelled(np.asarray(dataset.labels))).any():
            raise ValueError(f"split {split!r} must hold labelled nodes, got {int(bare.sum())} without a label, the "
                             f"first of them {int(bare.argmax())}")


def check_monitor(monitor: str) -> None:
    """Raises ValueError for a score that no run is chosen by."""
    if monitor not in ("val_loss", "val_accuracy", "val_macro_f1"):
        raise ValueError(f"monitor must be 'val_loss', 'val_accuracy' or 'val_macro_f1', got {monitor!r}")


def teacher_is_paired(teacher: ModelOutput | RandomTeacher | None, seeds: int, nodes: int, classes: int) -> bool:
    """Whether each seed has its own teacher; raises ValueError for one that fits neither form."""
    if isinstance(teacher, RandomTeacher):
        if teacher.outputs.logits.shape[1:] != (nodes, classes):
            raise ValueError(f"the random teacher's logits must be [teachers, {nodes}, {classes}], got "
                             f"{list(teacher.outputs.logits.shape)}")
        return False
    if teacher is None or teacher.logits.shape == (nodes, classes):
        return False
    if teacher.logits.shape != (seeds, nodes, classes):
        raise ValueError(f"the teacher's logits must be [{nodes}, {classes}], or [{seeds}, {nodes}, {classes}] with "
                         f"one teacher a seed, got {list(teacher.logits.shape)}")
    return True


def check_finite(history: dict[str, np.ndarray], seeds: tuple[int, ...]) -> None:
    """Raises TrainingError for the first epoch of `history` with a loss that is not finite."""
    losses = {name: history[name] for name in ("train_loss", "val_loss")}
    bad = {name: history["active"] & ~np.isfinite(values) for name, values in losses.items()}
    any_bad = np.logical_or(*bad.values())
    if any_bad.any():
        epoch = int(np.argmax(any_bad.any(axis=0)))  # the first: a step's own loss is the cause, validation the sequel
        seed = int(np.argmax(any_bad[:, epoch]))
        name = next(name for name in losses if bad[name][seed, epoch])
        raise TrainingError(f"{name} of seed {seeds[seed]} is {losses[name][seed, epoch]} at epoch {epoch + 1}; "
                            "a smaller learning_rate or another dtype may help")
