"""`parallel.fit`: training on sampled batches, one a device, with checkpoints."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn

import flax.linen as nn
import jax
import numpy as np
import optax

from hire_jax.checkpoint import CheckpointError, Checkpoints, Stop, graceful_stop
from hire_jax.distill import Objective
from hire_jax.identity import identifying
from hire_jax.parallel.checks import check_model, check_objective, check_validation
from hire_jax.parallel.devices import Devices, Form
from hire_jax.parallel.evaluate import labels_of, scores_of
from hire_jax.parallel.programs import Programs
from hire_jax.parallel.result import SampledFit
from hire_jax.parallel.step import initial_state, mapped, seed_logits, train_step
from hire_jax.parallel.steps import Placed, Steps, agreed, failing_together
from hire_jax.sampling import BatchLoader, BatchSource
from hire_jax.training.checks import TrainingError, check_monitor
from hire_jax.training.epoch import Monitor, Params, named_key, replaced

Progress = Callable[[int, int, Mapping[str, float]], None]
AHEAD = 2  # steps that devices may have before them while the host goes on


def fit(model: nn.Module, source: BatchSource, *, validation: BatchSource | None = None,
        objective: Objective | None = None, epochs: int = 10, patience: int | None = None,
        learning_rate: float | optax.Schedule = 5e-3, weight_decay: float = 1e-3,
        optimizer: optax.GradientTransformation | None = None, monitor: Monitor = "val_loss", seed: int = 0,
        initialise: Callable[[Params], Params] | None = None, devices: int | Sequence[jax.Device] | None = None,
        form: Form = "jit", features: Mapping[str, Any] | None = None, workers: int = 1, prefetch: int = 2,
        timeout: float = 600.0, checkpoints: Checkpoints | None = None, every: int | None = None,
        progress: Progress | None = None) -> SampledFit:
    """Trains a node classifier on sampled batches and keeps the parameters of the best validation epoch.

    A step takes one batch on each device. Its loss is that of all of them together (`parallel.step`), so D devices do
    what one would with batches D times as large, whichever form the program has. Batches, dropout and the order of the
    nodes follow from the seeds alone: a run that goes on from a checkpoint ends with the bits of one that was never
    stopped, on the same machine with the same devices.

    Args:
      model: a Flax module with `apply(variables, graph, train=...) -> ModelOutput`, of at most as many layers as the
        source has hops.
      source: the training batches, with `labels`, and for distillation `teacher` and `uniform`: the supervised term is
        taken on the seeds, the others on the uniform nodes, or on the seeds where there are none.
      validation: batches of the validation nodes, with `labels` and `shuffle=False`; the same sample every epoch.
      objective: the loss; plain cross-entropy when None. Terms that read edges cannot be had in batches.
      epochs: at most; patience: epochs without a better validation score after which training stops.
      learning_rate: a number or an optax schedule over steps; weight_decay: both of AdamW (arXiv 1711.05101).
      optimizer: replaces AdamW with any optax transformation.
      monitor: lowest "val_loss", or highest "val_accuracy" or "val_macro_f1". The first of equals is kept.
      seed: of initial parameters and dropout; the source has its own.
      initialise: takes the fresh variables and returns those to begin with.
      devices: how many, or which; None takes one, or all where several processes work together.
      form: "jit" over a mesh, or "pmap".
      features: {type: [N, F]} of the source's `resident` types, which are kept whole on every device.
      workers, prefetch, timeout: of `BatchLoader`, in steps.
      checkpoints: where the state is kept after every epoch, and every `every` steps; a run that finds one there goes
        on from it, if model, objective, sources, seed, rates, monitor and devices are the same. SIGTERM then saves the
        state after the step, or before the validation that it interrupts, and ends the process with exit code 0.
      progress: called as progress(epoch, step, means of the epoch so far) after every step, and with the validation
        scores after an epoch.

    Returns:
      A `SampledFit`.

    Raises:
      ValueError: sources or an objective that do not fit, bad numbers.
      TrainingError: a loss became NaN or infinite; names epoch and step.
      MemoryError: a batch does not fit; names a smaller size.
      TimeoutError: a batch was not made in time.
      CheckpointError: no checkpoint can be read, or they are of another run; names what differs.
      ProcessFailed: another process did; a failure of one ends all.
    """
    run = Run(model, source, validation, Objective() if objective is None else objective,
              optimizer or optax.adamw(learning_rate, weight_decay=weight_decay), monitor=monitor, seed=seed,
              devices=Devices(devices, form=form))
    run.settings |= {"learning_rate": _plain(learning_rate), "weight_decay": weight_decay,
                     "optimizer": "adamw" if optimizer is None else "another"}
    for name, number in (("epochs", epochs), ("patience", patience), ("every", every)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if every is not None and checkpoints is None:
        raise ValueError("every is given, but no checkpoints=")
    if patience is not None and validation is None:
        raise ValueError("patience is given, but no validation=")
    try:
        with failing_together(), ExitStack() as stack:
            stop = stack.enter_context(graceful_stop()) if checkpoints is not None else Stop()
            loader = stack.enter_context(BatchLoader(run.steps, workers=workers, prefetch=prefetch, timeout=timeout,
                                                     put=lambda placed: placed))
            run.begin(features or {}, initialise, checkpoints, loader)
            start = time.perf_counter()
            while run.epoch < epochs and not run.out_of_patience(patience):
                for placed in run.waiting(loader):
                    asked = run.step(placed, stop.requested)
                    if progress is not None:
                        progress(run.epoch, run.index, run.means())
                    if asked:
                        run.leave(checkpoints, loader)
                    if (checkpoints is not None and every is not None and run.done % every == 0
                            and run.index < len(run.steps)):
                        run.save(checkpoints, loader)
                scores = run.end_epoch(partial(BatchLoader, workers=workers, timeout=timeout), stop)
                if scores is None:
                    run.leave(checkpoints, loader)
                if progress is not None:
                    progress(run.epoch, len(run.steps), scores)
                if checkpoints is not None:
                    run.save(checkpoints, loader)
            if checkpoints is not None:
                checkpoints.wait()
            agreed(0, False)  # that it is finished: the last checkpoint may have failed elsewhere
            return run.result(time.perf_counter() - start)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(f"a step on batches of {source.batch_size} seeds does not fit on a device; a source with "
                          f"batch_size={max(1, source.batch_size // 2)}, smaller fan-outs or fewer uniform nodes needs "
                          f"less, and so has validation ({str(error).splitlines()[0]})") from error


def _plain(value: Any) -> Any:
    """A setting as JSON holds it; of a function, which has no text of its own, that it is one."""
    return "a function" if callable(value) else value


class Run:
    """A run between its steps: what has been trained, seen and spent. `fit` is the order in which it goes on."""

    def __init__(self, model: nn.Module, source: BatchSource, validation: BatchSource | None, objective: Objective,
                 optimizer: optax.GradientTransformation, *, monitor: Monitor, seed: int, devices: Devices) -> None:
        check_objective(objective, source)
        if validation is not None:
            check_validation(validation, source)
        check_monitor(monitor)
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2^32 - 1, got {seed}")
        self.model, self.source, self.validation, self.objective = model, source, validation, objective
        self.optimizer, self.monitor, self.seed, self.devices = optimizer, monitor, seed, devices
        self.num_classes = check_model(model, source)
        self.steps = Steps(source, devices)
        # What decides a run's numbers, as far as it has a text: another run's checkpoint is not gone on from.
        self.settings: dict[str, Any] = {
            "model": repr(model), "source": self.steps.signature(), "monitor": monitor, "seed": seed,
            "validation": None if validation is None else validation.signature(),
            "objective": {name: repr(_plain(value)) for name, value in identifying(objective).items()
                          if name != "others"},
            "others": {name: _plain(weight) for name, weight in dict(objective.others).items()}}
        take = partial(train_step, model=model, objective=objective, optimizer=optimizer)
        ahead = devices.form == "jit"
        self._train = Programs(mapped(take, devices, donate=True), ahead=ahead)
        self._logits = Programs(mapped(partial(seed_logits, model=model), devices), ahead=ahead)
        self.epoch, self.index, self.done = 0, 0, 0  # epochs and their steps, all steps
        self.sums: dict[str, float] = {}
        self.counted = 0
        self.history: dict[str, list[float]] = {}
        self.best_epoch, self.best_score = 0, -np.inf
        self.waited, self.nodes, self.edges = 0.0, 0, 0
        self._pending: deque[dict[str, Any]] = deque()
        self.features: Any = {}
        self.state: Any = None
        self.best_params: Any = None

    def begin(self, features: Mapping[str, Any], initialise: Callable[[Params], Params] | None,
              checkpoints: Checkpoints | None, loader: BatchLoader) -> None:
        """Initial state, or that of the newest checkpoint."""
        if set(features) != set(self.source.resident):
            raise ValueError(f"features must be those of the source's resident types {sorted(self.source.resident)}, "
                             f"got {sorted(features)}")
        self.features = self.devices.everywhere(dict(features))
        key = named_key(jax.random.key(self.seed), "init")
        params = self.model.lazy_init(key, self.source.graph.shapes())
        if initialise is not None:
            params = replaced(params, initialise(params))
        state = initial_state(self.seed, params, self.objective, self.optimizer)
        self.best_params = jax.tree.map(np.array, params)  # copies: steps take over the state's memory
        found = None if checkpoints is None else checkpoints.restore({"state": state, "best": self.best_params})
        if found is not None:
            place = dict(found.place)
            for name, value in json.loads(json.dumps(self.settings)).items():
                if place["run"].get(name) != value:
                    raise CheckpointError(f"{found.path}: a checkpoint of another run; {name}: expected {value!r}, "
                                          f"found {place['run'].get(name)!r}")
            state, self.best_params = found.state["state"], found.state["best"]
            loader.restore(place["loader"])
            self.epoch, self.index, self.done = place["epoch"], place["step"], found.step
            self.sums, self.counted, self.history = place["sums"], place["counted"], place["history"]
            self.best_epoch = place["best_epoch"]
            self.best_score = -np.inf if place["best_score"] is None else place["best_score"]
        self.state = self.devices.everywhere(state)

    def save(self, checkpoints: Checkpoints, loader: BatchLoader) -> None:
        """Hands the state to the checkpoints, after every step has been seen to be finite."""
        self._settle(0)
        place = {"run": self.settings, "loader": loader.state(), "epoch": self.epoch, "step": self.index,
                 "sums": self.sums, "counted": self.counted, "history": self.history, "best_epoch": self.best_epoch,
                 "best_score": self.best_score if np.isfinite(self.best_score) else None}
        ended = self.index == 0 and self.validation is not None
        score = self._score({name: values[-1] for name, values in self.history.items()}) if ended else None
        checkpoints.save(self.done, {"state": self.devices.on_host(self.state), "best": self.best_params},
                         score=score, place=place)

    def leave(self, checkpoints: Checkpoints | None, loader: BatchLoader) -> NoReturn:
        """Ends the process with exit code 0 once the state is on the disk."""
        assert checkpoints is not None  # nobody else asks a run to stop
        self.save(checkpoints, loader)
        checkpoints.wait()
        raise SystemExit(0)

    def waiting(self, loader: BatchLoader) -> Iterator[Placed]:
        """The rest of the epoch, with the time that devices had to wait for it."""
        batches = iter(loader)
        while self.index < len(self.steps):  # a run that was stopped after its epoch's last step goes on behind it
            start = time.perf_counter()
            placed = next(batches)
            if not self._pending or all(value.is_ready() for value in self._pending[-1].values()):
                self.waited += time.perf_counter() - start
            yield placed

    def step(self, placed: Placed, asked: bool) -> bool:
        """One step; whether any process was asked to stop."""
        size, asked = agreed(placed.size, asked)
        if size != placed.size:  # another process's batches are larger
            placed = self.steps(self.epoch, self.index, at_least=size)
        epoch = self.devices.everywhere(np.int32(self.epoch))
        self.state, records = self._train(size, self.state, placed.batch, self.features, epoch)
        self._pending.append(records)
        self.index, self.done = self.index + 1, self.done + 1
        self.nodes, self.edges = self.nodes + placed.nodes, self.edges + placed.edges
        self._settle(AHEAD)
        return asked

    def means(self) -> dict[str, float]:
        """{"train_...": mean over the steps of the epoch that are finished}."""
        return {f"train_{name}": total / self.counted for name, total in self.sums.items()}

    def end_epoch(self, loader_of: Callable[..., BatchLoader], stop: Stop) -> dict[str, float] | None:
        """What the epoch gave: the means of its steps, and the validation scores. None, and nothing done, where a
        process is asked to stop first."""
        self._settle(0)
        scores = self.means()
        if self.validation is not None:
            logits = self.logits(self.validation, loader_of, stop)
            if logits is None:
                return None
            found = scores_of(logits, labels_of(self.validation), num_classes=self.num_classes)
            scores |= {f"val_{name}": value for name, value in found.items()}
            if not np.isfinite(found["loss"]):
                raise TrainingError(f"val_loss is {found['loss']} after epoch {self.epoch + 1}; a smaller "
                                    "learning_rate or another dtype may help")
        for name, value in scores.items():
            self.history.setdefault(name, []).append(value)
        self.epoch, self.index, self.sums, self.counted = self.epoch + 1, 0, {}, 0
        score = self._score(scores) if self.validation is not None else None
        if score is None or score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, -np.inf if score is None else score
            self.best_params = self.devices.on_host(self.state.params)
        return scores

    def logits(self, source: BatchSource, loader_of: Callable[..., BatchLoader], stop: Stop) -> np.ndarray | None:
        """[n, C]: of a source's nodes, in their order; None where a process is asked to stop."""
        steps, parts = Steps(source, self.devices), []
        with loader_of(steps, put=lambda placed: placed) as loader:
            for index, placed in enumerate(loader):
                size, asked = agreed(placed.size, stop.requested)
                if asked:
                    return None
                if size != placed.size:
                    placed = steps(0, index, at_least=size)
                logits = self._logits(size, self.state.params, placed.batch, self.features)
                parts.append(self.devices.on_host(logits))
        return np.concatenate(parts)[:source.nodes.size]  # beyond: what filled the last batches up

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether so many epochs have gone by without a better score."""
        return patience is not None and self.epoch - self.best_epoch >= patience

    def result(self, seconds: float) -> SampledFit:
        """What `fit` returns, after so many seconds of steps, validation and compiling."""
        compiling = self._train.seconds + self._logits.seconds
        metrics = {"best_epoch": float(self.best_epoch), "epochs": float(self.epoch), "steps": float(self.done)}
        metrics |= {name: values[self.best_epoch - 1] for name, values in self.history.items()
                    if name.startswith("val_")}
        return SampledFit(model=self.model, params=self.best_params, metrics=metrics,
                          history={name: np.array(values) for name, values in self.history.items()},
                          seconds=seconds - compiling, compile_seconds=compiling,
                          compilations=self._train.compiled + self._logits.compiled, waited_seconds=self.waited,
                          nodes=self.nodes, edges=self.edges)

    def _score(self, scores: Mapping[str, float]) -> float:
        return -scores["val_loss"] if self.monitor == "val_loss" else scores[self.monitor]

    def _settle(self, left: int) -> None:
        """Waits until no more than `left` steps are unfinished, and adds up what the finished ones gave."""
        while len(self._pending) > left:
            records = self._pending.popleft()
            step = self.done - len(self._pending)
            values = {name: float(value) for name, value in self.devices.on_host(records).items()}
            if not np.isfinite(values["loss"]):
                named = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise TrainingError(f"the loss is {values['loss']} at step {step} of all, in epoch {self.epoch + 1} "
                                    f"({named}); a smaller learning_rate or another dtype may help. Nothing of it was "
                                    "saved: what checkpoints hold is from before")
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
            self.counted += 1
