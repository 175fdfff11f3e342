"""The compiled training loop: a whole run of many seeds is one program.

Epochs run inside `lax.scan` in chunks; between chunks the host moves a progress bar, looks for losses that
are not finite, and stops when every seed has run out of patience. Nothing in a seed's numbers depends on the
chunk length or on which other seeds run beside it.
"""

import dataclasses
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hire_jax import metrics as scores
from hire_jax.distill import Objective, cross_entropy
from hire_jax.graph import HeteroGraph
from hire_jax.models.output import ModelOutput

Params = Any
Monitor = Literal["val_loss", "val_accuracy", "val_macro_f1"]


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


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What `fit` returns. S seeds, E epochs.

    Attributes:
      model, graph: as given.
      params: the variables of the best validation epoch, every leaf with a leading axis S.
      metrics: {name: float[S]} at those variables: accuracy, macro-F1 and micro-F1 of each split as fractions
        ("test_accuracy", "val_macro_f1", ...), "val_loss", "best_epoch" (from 1) and "epochs" run.
      history: {name: float[S, E]}: "train_loss", "val_loss", "val_accuracy", "val_macro_f1" and the unweighted
        training terms ("train_soft_target_kl", ...); NaN after a seed's last epoch.
      seeds: the seeds, in the order of the leading axis.
      seconds: wall time of the run without compilation; compile_seconds: of compiling it.
    """

    model: nn.Module
    graph: HeteroGraph
    params: Params
    metrics: dict[str, np.ndarray]
    history: dict[str, np.ndarray]
    seeds: tuple[int, ...]
    seconds: float
    compile_seconds: float

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers of one seed's network."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params)) // len(self.seeds)

    def outputs(self, *, attention: bool = False) -> ModelOutput:
        """The model's output of every seed, each array with a leading axis S: the teacher of a paired student.

        Attention maps, often the largest arrays of all, come with `attention=True` only.
        """
        return predict(self.model, self.params, self.graph, attention=attention)


class _SeedState(NamedTuple):
    key: jax.Array
    params: Params
    opt_state: optax.OptState
    best_params: Params
    best_score: jax.Array  # larger is better
    best_epoch: jax.Array
    epoch: jax.Array  # epochs done


class _Data(NamedTuple):
    graph: HeteroGraph
    labels: jax.Array
    splits: dict[str, jax.Array]


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A key for one purpose, split from `key` by name: adding a purpose never changes the others."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def predict(model: nn.Module, params: Params, graph: HeteroGraph, *, attention: bool = False) -> ModelOutput:
    """The output of several trained networks, one a seed, without dropout.

    Args:
      params: variables with a leading axis S on every leaf, as in `FitResult.params`.
      attention: whether to keep the attention maps; otherwise they are not computed and the field is ().

    Returns:
      A `ModelOutput` whose arrays have a leading axis S.
    """
    def output(params: Params, graph: HeteroGraph) -> ModelOutput:
        full: Any = model.apply(params, graph, train=False)
        return full if attention else full._replace(attention=())

    return jax.jit(jax.vmap(output, in_axes=(0, None)))(params, graph)


def fit(model: nn.Module, dataset: LabelledGraph, *, objective: Objective | None = None,
        teacher: ModelOutput | None = None, seeds: int | Sequence[int] = 10, epochs: int = 200, patience: int = 50,
        learning_rate: float | optax.Schedule = 5e-3, weight_decay: float = 1e-3,
        optimizer: optax.GradientTransformation | None = None, monitor: Monitor = "val_loss",
        devices: int | Sequence[jax.Device] | None = None, seed_batch: int | None = None, chunk: int = 10,
        progress: Callable[[int, Mapping[str, np.ndarray]], None] | None = None) -> FitResult:
    """Trains a node classifier on one graph for several seeds at once and keeps each seed's best parameters.

    Args:
      model: a Flax module with `apply(variables, graph, train=...) -> ModelOutput`.
      dataset: graph, labels and splits "train", "val", "test" (bool[N] masks).
      objective: the loss; plain cross-entropy when None.
      teacher: the teacher's `ModelOutput` on the same graph. With a leading axis of the number of seeds, seed i
        learns from teacher i; without, all learn from the one.
      seeds: how many (0 .. n-1), or which.
      epochs: at most; patience: epochs without a better validation score after which a seed stops.
      learning_rate: a number or an optax schedule over epochs; weight_decay: both of AdamW (arXiv 1711.05101).
      optimizer: replaces AdamW with any optax transformation.
      monitor: what "best" means on the validation split: lowest "val_loss", or highest "val_accuracy" or
        "val_macro_f1". The first of equals is kept.
      devices: spreads the seeds over that many devices (or these); their number must divide the seeds.
      seed_batch: how many seeds one device maps over at a time; the batches follow each other inside the same
        program. None takes all of them, but on a CPU no more than keep one layer's activations within 4 MiB:
        beyond its caches a wider program is slower (docs/performance.md). Numbers agree up to rounding.
      chunk: epochs between two looks of the host; it changes no number.
      progress: called as progress(epochs done, history so far) after every chunk.

    Returns:
      A `FitResult`.

    Raises:
      ValueError: splits that are missing or empty, a model whose logits do not fit the labels, a teacher that
        fits neither form or that no term of the objective asks for, bad numbers.
      TrainingError: a loss became NaN or infinite; names the seed and the epoch.
    """
    start = time.perf_counter()
    program = compile_fit(model, dataset, objective=objective, teacher=teacher, seeds=seeds, epochs=epochs,
                          patience=patience, learning_rate=learning_rate, weight_decay=weight_decay,
                          optimizer=optimizer, monitor=monitor, devices=devices, seed_batch=seed_batch, chunk=chunk)
    compile_seconds = time.perf_counter() - start

    start = time.perf_counter()
    parts: list[dict[str, np.ndarray]] = []
    history: dict[str, np.ndarray] = {}
    state = program.state
    for _ in range(0, epochs, chunk):
        state, records = program.run(state)
        parts.append({name: np.asarray(values) for name, values in records.items()})
        history = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
        _check_finite(history, program.seeds)
        if progress is not None:
            progress(min(history["active"].shape[1], epochs), history)
        if not history["active"][:, -1].any():
            break
    seconds = time.perf_counter() - start
    return _result(model, program.data, state, history, program.seeds, dataset.num_classes, seconds, compile_seconds)


class Program(NamedTuple):
    """`fit` before its first epoch.

    `run(state)` trains `chunk` epochs and gives (state, {name: [S, chunk]} records); it takes over the memory of
    the state it is given. `compiled` is the XLA program behind it, `data` what all its calls share.
    """

    run: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    state: Any
    seeds: tuple[int, ...]
    data: Any
    compiled: Any


def compile_fit(model: nn.Module, dataset: LabelledGraph, *, objective: Objective | None = None,
                teacher: ModelOutput | None = None, seeds: int | Sequence[int] = 10, epochs: int = 200,
                patience: int = 50, learning_rate: float | optax.Schedule = 5e-3, weight_decay: float = 1e-3,
                optimizer: optax.GradientTransformation | None = None, monitor: Monitor = "val_loss",
                devices: int | Sequence[jax.Device] | None = None, seed_batch: int | None = None,
                chunk: int = 10) -> Program:
    """Checks the arguments of `fit`, which are the same but for `progress`, and compiles without running an epoch."""
    objective = Objective() if objective is None else objective
    seed_list = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    _check_arguments(dataset, seed_list, monitor, epochs=epochs, patience=patience, chunk=chunk,
                     **({} if seed_batch is None else {"seed_batch": seed_batch}))
    if optimizer is None:  # flat: one update for all parameters instead of one for each array
        optimizer = optax.flatten(optax.adamw(learning_rate, weight_decay=weight_decay))
    data = _Data(dataset.graph, jnp.asarray(dataset.labels), {k: jnp.asarray(v) for k, v in dataset.splits.items()})
    paired = _teacher_is_paired(teacher, len(seed_list), data.labels.shape[0], dataset.num_classes)
    if teacher is not None and not objective.needs_teacher:
        raise ValueError("a teacher is given, but no distillation term has a weight; pass objective=Objective(...)")
    shapes = _output_shapes(model, data.graph)
    expected = (data.labels.shape[0], dataset.num_classes)
    if shapes.logits.shape != expected:
        raise ValueError(f"the model's logits are {list(shapes.logits.shape)}, but the dataset has labels for "
                         f"{list(expected)} (nodes, classes); check the model's target and num_classes")

    seed_epoch = partial(_epoch, model=model, objective=objective, optimizer=optimizer, monitor=monitor,
                         patience=patience, epochs=epochs, num_classes=dataset.num_classes)
    mesh = _seed_mesh(devices, len(seed_list))
    if seed_batch is None:
        seed_batch = _cached_seeds(model, data.graph) if jax.default_backend() == "cpu" else len(seed_list)
    run_chunk = partial(_over_seeds, partial(_scan_epochs, seed_epoch, chunk), seed_batch, paired)
    if mesh is not None:
        over_seeds, everywhere = PartitionSpec("seed"), PartitionSpec()
        run_chunk = jax.shard_map(run_chunk, mesh=mesh, check_vma=False, out_specs=over_seeds,
                                  in_specs=(over_seeds, everywhere, over_seeds if paired else everywhere))

    state = _initial_states(jnp.asarray(seed_list, jnp.uint32), data.graph, model, optimizer)
    if mesh is not None:  # wherever the arrays were: a teacher may come from a fit on other devices
        split, copied = NamedSharding(mesh, over_seeds), NamedSharding(mesh, everywhere)
        state, data = jax.device_put(state, split), jax.device_put(data, copied)
        teacher = jax.device_put(teacher, split if paired else copied)
    compiled = jax.jit(run_chunk, donate_argnums=0).lower(state, data, teacher).compile()
    return Program(lambda state: compiled(state, data, teacher), state, seed_list, data, compiled)


# ------------------------------------------------------------------------------- one seed, compiled parts


@partial(jax.jit, static_argnums=2)
def _initial_params(keys: jax.Array, graph: HeteroGraph, model: nn.Module) -> Params:
    return jax.vmap(lambda key: model.init(named_key(key, "init"), graph))(keys)


def _initial_states(seeds: jax.Array, graph: HeteroGraph, model: nn.Module,
                    optimizer: optax.GradientTransformation) -> _SeedState:
    """States of all seeds, with a leading axis."""
    keys = jax.vmap(jax.random.key)(seeds)
    params = _initial_params(keys, graph, model)
    zeros = jnp.zeros(len(seeds), jnp.int32)
    return _SeedState(key=jax.vmap(partial(named_key, name="dropout"))(keys), params=params,
                      opt_state=jax.tree.map(jnp.copy, jax.vmap(optimizer.init)(params)),  # some hold the parameters
                      best_params=jax.tree.map(jnp.copy, params),
                      best_score=jnp.full(len(seeds), -jnp.inf), best_epoch=zeros, epoch=jnp.copy(zeros))


def _over_seeds(run: Callable, batch: int, paired: bool, state: _SeedState, data: _Data,
                teacher: ModelOutput | None) -> tuple[_SeedState, dict[str, jax.Array]]:
    """run(state, data, teacher) for every seed: one vmap, or several of `batch` seeds one after another."""
    if 1 < batch and batch >= state.epoch.shape[0]:
        return jax.vmap(run, in_axes=(0, None, 0 if paired else None))(state, data, teacher)
    size = None if batch == 1 else batch  # one at a time without a mapped axis of length 1, which costs time
    if paired:
        return jax.lax.map(lambda pair: run(pair[0], data, pair[1]), (state, teacher), batch_size=size)
    return jax.lax.map(lambda one: run(one, data, teacher), state, batch_size=size)


def _scan_epochs(epoch: Callable, length: int, state: _SeedState, data: _Data,
                 teacher: ModelOutput | None) -> tuple[_SeedState, dict[str, jax.Array]]:
    return jax.lax.scan(lambda carry, _: epoch(carry, data, teacher), state, None, length=length)


def _epoch(state: _SeedState, data: _Data, teacher: ModelOutput | None, *, model: nn.Module, objective: Objective,
           optimizer: optax.GradientTransformation, monitor: Monitor, patience: int, epochs: int,
           num_classes: int) -> tuple[_SeedState, dict[str, jax.Array]]:
    """One gradient step on the training nodes and one look at the validation nodes."""
    active = (state.epoch < epochs) & (state.epoch - state.best_epoch < patience)
    edges = {edge_type: (r.senders, r.receivers) for edge_type, r in data.graph.relations.items()}

    def loss(params: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
        rngs = {"dropout": jax.random.fold_in(state.key, state.epoch)}
        output = model.apply(params, data.graph, train=True, rngs=rngs)
        return objective(output, data.labels, teacher=teacher, where=data.splits["train"], edges=edges)

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    logits = _logits(model, params, data.graph)
    seen = _evaluate(logits, data, ("val",), num_classes)
    seen["val_loss"] = cross_entropy(logits, data.labels, where=data.splits["val"])
    score = -seen["val_loss"] if monitor == "val_loss" else seen[monitor]
    better = active & (score > state.best_score)
    best_params = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, state.best_params)
    records = {"train_loss": value, **{f"train_{name}": term for name, term in terms.items()},
               **{name: seen[name] for name in ("val_loss", "val_accuracy", "val_macro_f1")}}
    records = {name: jnp.where(active, record, jnp.nan) for name, record in records.items()} | {"active": active}
    new = _SeedState(key=state.key, params=params, opt_state=opt_state, best_params=best_params,
                     best_score=jnp.where(better, score, state.best_score),
                     best_epoch=jnp.where(better, state.epoch + 1, state.best_epoch), epoch=state.epoch + 1)
    # A finished seed only waits for the others: it keeps its count, so that it cannot wake again.
    return new._replace(epoch=jnp.where(active, new.epoch, state.epoch)), records


def _logits(model: nn.Module, params: Params, graph: HeteroGraph) -> jax.Array:
    output: Any = model.apply(params, graph, train=False)
    return output.logits


def _evaluate(logits: jax.Array, data: _Data, splits: Sequence[str], num_classes: int) -> dict[str, jax.Array]:
    predictions = scores.predict(logits, multilabel=data.labels.ndim == 2)
    result = {}
    for split in splits:
        where = data.splits[split]
        result[f"{split}_accuracy"] = scores.accuracy(predictions, data.labels, where=where)
        for name, function in (("macro_f1", scores.macro_f1), ("micro_f1", scores.micro_f1)):
            result[f"{split}_{name}"] = function(predictions, data.labels, num_classes=num_classes, where=where)
    return result


def _result(model: nn.Module, data: _Data, state: _SeedState, history: dict[str, np.ndarray],
            seeds: tuple[int, ...], num_classes: int, seconds: float, compile_seconds: float) -> FitResult:
    def final(params: Params, data: _Data) -> dict[str, jax.Array]:
        logits = _logits(model, params, data.graph)
        loss = cross_entropy(logits, data.labels, where=data.splits["val"])
        return _evaluate(logits, data, ("train", "val", "test"), num_classes) | {"val_loss": loss}

    final_metrics = jax.jit(jax.vmap(final, in_axes=(0, None)))(state.best_params, data)
    active = history.pop("active")
    last = int(active.any(axis=0).sum())
    counts = {"best_epoch": np.asarray(state.best_epoch), "epochs": active.sum(axis=1)}
    return FitResult(model=model, graph=data.graph, params=state.best_params,
                     metrics={name: np.asarray(value) for name, value in (final_metrics | counts).items()},
                     history={name: values[:, :last] for name, values in history.items()}, seeds=seeds,
                     seconds=seconds, compile_seconds=compile_seconds)


# ----------------------------------------------------------------------------------- checks on the host


def _check_arguments(dataset: LabelledGraph, seeds: tuple[int, ...], monitor: str, **counts: int) -> None:
    if not seeds:
        raise ValueError("seeds must name at least one seed")
    if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2 ** 32:
        raise ValueError(f"seeds must be distinct, from 0 to 2^32 - 1, got {list(seeds)}")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if monitor not in ("val_loss", "val_accuracy", "val_macro_f1"):
        raise ValueError(f"monitor must be 'val_loss', 'val_accuracy' or 'val_macro_f1', got {monitor!r}")
    for split in ("train", "val", "test"):
        if split not in dataset.splits:
            raise ValueError(f"the dataset has no split {split!r}; it has {sorted(dataset.splits)}")
        mask = np.asarray(dataset.splits[split])
        if mask.dtype != np.bool_ or mask.shape != dataset.labels.shape[:1]:
            raise ValueError(f"split {split!r} must be a mask bool[{dataset.labels.shape[0]}], got "
                             f"{mask.dtype}{list(mask.shape)}")
        if not mask.any():
            raise ValueError(f"split {split!r} holds no node")


def _teacher_is_paired(teacher: ModelOutput | None, seeds: int, nodes: int, classes: int) -> bool:
    if teacher is None or teacher.logits.shape == (nodes, classes):
        return False
    if teacher.logits.shape != (seeds, nodes, classes):
        raise ValueError(f"the teacher's logits must be [{nodes}, {classes}], or [{seeds}, {nodes}, {classes}] with "
                         f"one teacher a seed, got {list(teacher.logits.shape)}")
    return True


def _check_finite(history: dict[str, np.ndarray], seeds: tuple[int, ...]) -> None:
    losses = {name: history[name] for name in ("train_loss", "val_loss")}
    bad = {name: history["active"] & ~np.isfinite(values) for name, values in losses.items()}
    any_bad = np.logical_or(*bad.values())
    if any_bad.any():
        epoch = int(np.argmax(any_bad.any(axis=0)))  # the first: a step's own loss is the cause, validation the sequel
        seed = int(np.argmax(any_bad[:, epoch]))
        name = next(name for name in losses if bad[name][seed, epoch])
        raise TrainingError(f"{name} of seed {seeds[seed]} is {losses[name][seed, epoch]} at epoch {epoch + 1}; "
                            "a smaller learning_rate or another dtype may help")


def _output_shapes(model: nn.Module, graph: HeteroGraph) -> ModelOutput:
    return jax.eval_shape(lambda key: model.init_with_output(key, graph)[0], jax.random.key(0))


def _cached_seeds(model: nn.Module, graph: HeteroGraph) -> int:
    """How many seeds' activations of the largest layer stay within 4 MiB."""
    shapes = _output_shapes(model, graph)
    layers = [{"logits": shapes.logits}, *shapes.hidden]
    largest = max(sum(x.size * x.dtype.itemsize for x in layer.values()) for layer in layers)
    return max(1, 4 * 2 ** 20 // largest)


def _seed_mesh(devices: int | Sequence[jax.Device] | None, seeds: int) -> Mesh | None:
    if devices is None:
        return None
    if isinstance(devices, int):
        if not 1 <= devices <= jax.device_count():
            raise ValueError(f"devices must be 1 to {jax.device_count()}, the devices JAX sees, got {devices}")
        devices = jax.devices()[:devices]
    if seeds % len(devices):
        raise ValueError(f"the number of seeds ({seeds}) must be a multiple of devices ({len(devices)})")
    return Mesh(np.asarray(devices), ("seed",))
