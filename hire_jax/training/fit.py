"""`fit`: what the host does between chunks of epochs."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import flax.linen as nn
import jax
import numpy as np
import optax

from hire_jax.checkpoint import Checkpoints, graceful_stop
from hire_jax.distill import Objective
from hire_jax.models.output import ModelOutput
from hire_jax.teachers import RandomTeacher
from hire_jax.training.checks import LabelledGraph, check_finite
from hire_jax.training.epoch import Monitor, Params
from hire_jax.training.program import compile_fit
from hire_jax.training.result import FitResult, result_of


def fit(model: nn.Module, dataset: LabelledGraph, *, objective: Objective | None = None,
        teacher: ModelOutput | RandomTeacher | None = None, seeds: int | Sequence[int] = 10, epochs: int = 200,
        patience: int = 50, learning_rate: float | optax.Schedule = 5e-3, weight_decay: float = 1e-3,
        optimizer: optax.GradientTransformation | None = None, monitor: Monitor = "val_loss",
        devices: int | Sequence[jax.Device] | None = None, seed_batch: int | None = None, chunk: int = 10,
        initialise: Callable[[Params], Params] | None = None,
        progress: Callable[[int, Mapping[str, np.ndarray]], None] | None = None,
        checkpoints: Checkpoints | None = None, check_leaks: bool = True) -> FitResult:
    """Trains a node classifier on one graph for several seeds at once and keeps each seed's best parameters.

    Args:
      model: a Flax module with `apply(variables, graph, train=...) -> ModelOutput`.
      dataset: graph, labels and splits "train", "val", "test" (bool[N] masks).
      objective: the loss; plain cross-entropy when None.
      teacher: the teacher's `ModelOutput` on the same graph. With a leading axis of the number of seeds, seed i
        learns from teacher i; without, all learn from the one. Or a `hire_jax.teachers.RandomTeacher`, of which
        every step of every seed draws one.
      seeds: how many (0 .. n-1), or which.
      epochs: at most; patience: epochs without a better validation score after which a seed stops.
      learning_rate: a number or an optax schedule over epochs; weight_decay: both of AdamW (arXiv 1711.05101).
      optimizer: replaces AdamW with any optax transformation.
      monitor: what "best" means on the validation split: lowest "val_loss", or highest "val_accuracy" or
        "val_macro_f1". The first of equals is kept.
      devices: spreads the seeds over that many devices (or these). All run as many seeds: where the devices do not
        divide them, some repeat the last seed, which costs time and changes no number.
      seed_batch: how many seeds one device maps over at a time; the batches follow each other inside the same
        program. None takes all of them, but on a CPU no more than keep one layer's activations within 4 MiB:
        beyond its caches a wider program is slower (docs/performance.md). Numbers agree up to rounding.
      chunk: epochs between two looks of the host; it changes no number.
      initialise: takes the fresh variables of all seeds (every array with a leading axis of seeds) and returns those to
        begin with, e.g. `functools.partial(hire_jax.lift, backbone=result.params)`.
      progress: called as progress(epochs done, history so far) after every chunk.
      checkpoints: where all seeds' states are kept after every chunk. A run with the same arguments that finds one
        there goes on from it, to the same bits. SIGTERM then ends the process after the chunk, with exit code 0.
      check_leaks: refuses a dataset whose inputs tell labels or whose parts share nodes (`hire_jax.check_leaks`).

    Returns:
      A `FitResult`.

    Raises:
      ValueError: splits that are missing, empty or hold nodes without a label, a model whose logits do not fit the
        labels, a teacher that fits neither form or that no term of the objective asks for, an `initialise` that
        changes a shape, bad numbers.
      LeakError: `check_leaks` found labels among the inputs, or nodes in two parts.
      TrainingError: a loss became NaN or infinite; names the seed and the epoch.
      CheckpointError: no checkpoint can be read, or they are of another run.
    """
    start = time.perf_counter()
    program = compile_fit(model, dataset, objective=objective, teacher=teacher, seeds=seeds, epochs=epochs,
                          patience=patience, learning_rate=learning_rate, weight_decay=weight_decay,
                          optimizer=optimizer, monitor=monitor, devices=devices, seed_batch=seed_batch, chunk=chunk,
                          initialise=initialise, check_leaks=check_leaks)
    compile_seconds = time.perf_counter() - start

    start = time.perf_counter()
    state, count, done, earlier = program.state, len(program.seeds), 0, 0.0
    rounds = -(-epochs // chunk)
    records = {name: np.zeros((count, rounds * chunk), of_chunk.dtype) for name, of_chunk in program.records.items()}
    with ExitStack() as stack:
        stop = None
        if checkpoints is not None:
            stop = stack.enter_context(graceful_stop())
            if (found := checkpoints.restore({"state": state, "records": records})) is not None:
                done, records, earlier = found.step, found.state["records"], found.place.get("seconds", 0.0)
                state = jax.tree.map(lambda ours, theirs: jax.device_put(ours, theirs.sharding), found.state["state"],
                                     state)
        while done < epochs and (done == 0 or records["active"][:, done - 1].any()):
            state, of_chunk = program.run(state)
            for name, values in of_chunk.items():
                records[name][:, done:done + chunk] = np.asarray(values)[:count]
            done += chunk
            history = {name: values[:, :done] for name, values in records.items()}
            check_finite(history, program.seeds)
            if checkpoints is not None:
                checkpoints.save(done, {"state": state, "records": records},
                                 place={"seconds": earlier + time.perf_counter() - start})
            if progress is not None:
                progress(min(done, epochs), history)
            if stop is not None and stop.requested:
                checkpoints.wait()  # type: ignore[union-attr]  # it is what listens to the signal
                raise SystemExit(0)
        if checkpoints is not None:
            checkpoints.wait()
    history = {name: values[:, :done] for name, values in records.items()}
    seconds = earlier + time.perf_counter() - start
    state = jax.tree.map(lambda rows: rows[:count] if len(rows) > count else rows, state)
    return result_of(model, program.data, state, history, program.seeds, dataset.num_classes, seconds, compile_seconds)
