"""One cell of an experiment, trained and put on disk: the same for every script."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

import hire_jax as hj
from experiments.console import Tracker
from experiments.keys import key
from experiments.store import ResultStore


def train_cell(name: str, config: Mapping[str, Any], store: ResultStore, tracker: Tracker, done: float, *,
               keep: bool = False, record: bool = True,
               facts: Callable[[hj.FitResult], Mapping[str, Any]] = lambda result: {},
               **arguments: Any) -> hj.FitResult:
    """`hire_jax.fit(**arguments)` under a progress bar that stands at `done`; its result becomes a line of the store.

    Args:
      name: for the progress bar; config: what the line is found by.
      store: where the line goes, and the states on the way there if it keeps them.
      keep: keeps the parameters too, before the line, so that no finished cell is without them.
      record: False trains again what has a line, for its parameters.
      facts: what else the line says of the result.
    """
    shown = "val_accuracy" if arguments["monitor"] == "val_loss" else arguments["monitor"]

    def progress(epoch: int, history: Mapping[str, np.ndarray]) -> None:
        best = 100 * np.nanmean(np.nanmax(history[shown], axis=1))
        tracker.update(done + epoch, f"{name}: epoch {epoch}, best validation {best:.1f} %")

    tracker.update(done, f"{name}: compiling")
    start = time.perf_counter()
    with store.checkpoints(config) as checkpoints:
        result = hj.fit(**arguments, progress=progress, checkpoints=checkpoints)
    if keep:
        store.save_arrays(key(config), flax.traverse_util.flatten_dict(result.params, sep="/"))
    if record:
        epochs = float(np.sum(result.metrics["epochs"]))
        store.append(config, seeds=result.seeds, metrics=result.metrics, history=result.history,
                     facts={"parameters": result.num_parameters, "compile_seconds": result.compile_seconds,
                            "train_seconds": result.seconds, "milliseconds_per_step": 1000 * result.seconds / epochs,
                            **facts(result)},
                     seconds=time.perf_counter() - start)
    store.forget_checkpoints(config)
    return result


def stored_parameters(config: Mapping[str, Any], store: ResultStore) -> Any:
    """The parameters of a finished cell. Raises SystemExit where they are missing."""
    arrays = store.load_arrays(key(config))
    if arrays is None:
        raise SystemExit(f"{store.folder}: the cell {key(config)} is finished but its parameters are missing; remove "
                         "its line and those of the cells it teaches from results.jsonl to train them again")
    return flax.traverse_util.unflatten_dict({name: jnp.asarray(x) for name, x in arrays.items()}, sep="/")
