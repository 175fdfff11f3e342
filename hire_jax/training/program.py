"""The program `fit` runs: many seeds, mapped and spread over devices, through a chunk of epochs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hire_jax.distill import Objective
from hire_jax.graph import HeteroGraph
from hire_jax.models.output import ModelOutput
from hire_jax.teachers import RandomTeacher
from hire_jax.training import leaks
from hire_jax.training.checks import LabelledGraph, check_arguments, teacher_is_paired
from hire_jax.training.epoch import Data, Monitor, Params, SeedState, initial_states, is_active, train_epoch, unrecorded


class Program(NamedTuple):
    """`fit` before its first epoch.

    `run(state)` trains `chunk` epochs and gives (state, {name: [S, chunk]} records); it takes over the memory of
    the state it is given. `compiled` is the XLA program behind it, `data` what all its calls share,
    `records` the shapes of the records. Over devices that do not divide the seeds, S is larger than their number: what
    follows them is a copy of the last.
    """

    run: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    state: Any
    seeds: tuple[int, ...]
    data: Any
    compiled: Any
    records: Any


def compile_fit(model: nn.Module, dataset: LabelledGraph, *, objective: Objective | None = None,
                teacher: ModelOutput | RandomTeacher | None = None, seeds: int | Sequence[int] = 10, epochs: int = 200,
                patience: int = 50, learning_rate: float | optax.Schedule = 5e-3, weight_decay: float = 1e-3,
                optimizer: optax.GradientTransformation | None = None, monitor: Monitor = "val_loss",
                devices: int | Sequence[jax.Device] | None = None, seed_batch: int | None = None,
                chunk: int = 10, initialise: Callable[[Params], Params] | None = None,
                check_leaks: bool = True) -> Program:
    """Checks the arguments of `fit`, which are the same but for `progress`, and compiles without running an epoch."""
    objective = Objective() if objective is None else objective
    seed_list = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    check_arguments(dataset, seed_list, monitor, epochs=epochs, patience=patience, chunk=chunk,
                    **({} if seed_batch is None else {"seed_batch": seed_batch}))
    if check_leaks:
        leaks.check_leaks(dataset)
    if optimizer is None:  # flat: one update for all parameters instead of one for each array
        optimizer = optax.flatten(optax.adamw(learning_rate, weight_decay=weight_decay))
    data = Data(dataset.graph, jnp.asarray(dataset.labels), {k: jnp.asarray(v) for k, v in dataset.splits.items()})
    paired = teacher_is_paired(teacher, len(seed_list), data.labels.shape[0], dataset.num_classes)
    if teacher is not None and not objective.needs_teacher:
        raise ValueError("a teacher is given, but no distillation term has a weight; pass objective=Objective(...)")
    shapes = _output_shapes(model, data.graph)
    expected = (data.labels.shape[0], dataset.num_classes)
    if shapes.logits.shape != expected:
        raise ValueError(f"the model's logits are {list(shapes.logits.shape)}, but the dataset has labels for "
                         f"{list(expected)} (nodes, classes); check the model's target and num_classes")

    seed_epoch = partial(train_epoch, model=model, objective=objective, optimizer=optimizer, monitor=monitor,
                         patience=patience, epochs=epochs, num_classes=dataset.num_classes)
    mesh = _seed_mesh(devices, len(seed_list))
    # Devices that would have one seed less repeat the last one: all run one program, and its records are dropped.
    spare = 0 if mesh is None else -len(seed_list) % mesh.size
    if seed_batch is None:
        seed_batch = _cached_seeds(shapes) if jax.default_backend() == "cpu" else len(seed_list)
    if seed_batch == 1:
        run_seed = partial(_epochs_of_one, seed_epoch, partial(is_active, epochs=epochs, patience=patience), chunk)
    else:
        run_seed = partial(_scan_epochs, seed_epoch, chunk)
    run_chunk = partial(_over_seeds, run_seed, seed_batch, paired)
    if mesh is not None:
        over_seeds, everywhere = PartitionSpec("seed"), PartitionSpec()
        run_chunk = jax.shard_map(run_chunk, mesh=mesh, check_vma=False, out_specs=over_seeds,
                                  in_specs=(over_seeds, everywhere, over_seeds if paired else everywhere))

    state = initial_states(jnp.asarray(seed_list, jnp.uint32), data.graph, model, objective, optimizer,
                           initialise)
    if spare:
        state = _repeat_last(state, spare)
        teacher = _repeat_last(teacher, spare) if paired else teacher
    if mesh is not None:  # wherever the arrays were: a teacher may come from a fit on other devices
        split, copied = NamedSharding(mesh, over_seeds), NamedSharding(mesh, everywhere)
        state, data = jax.device_put(state, split), jax.device_put(data, copied)
        teacher = jax.device_put(teacher, split if paired else copied)
    lowered = jax.jit(run_chunk, donate_argnums=0).lower(state, data, teacher)
    compiled = lowered.compile()
    return Program(lambda state: compiled(state, data, teacher), state, seed_list, data, compiled, lowered.out_info[1])


def _repeat_last(tree: Any, times: int) -> Any:
    """Every array with its last row repeated at its end."""
    return jax.tree.map(lambda rows: jnp.concatenate([rows, jnp.repeat(rows[-1:], times, axis=0)]), tree)


def _over_seeds(run: Callable, batch: int, paired: bool, state: SeedState, data: Data,
                teacher: ModelOutput | RandomTeacher | None) -> tuple[SeedState, dict[str, jax.Array]]:
    """run(state, data, teacher) for every seed: one vmap, or several of `batch` seeds one after another."""
    if 1 < batch and batch >= state.epoch.shape[0]:
        return jax.vmap(run, in_axes=(0, None, 0 if paired else None))(state, data, teacher)
    size = None if batch == 1 else batch  # one at a time without a mapped axis of length 1, which costs time
    if paired:
        return jax.lax.map(lambda pair: run(pair[0], data, pair[1]), (state, teacher), batch_size=size)
    return jax.lax.map(lambda one: run(one, data, teacher), state, batch_size=size)


def _scan_epochs(epoch: Callable, length: int, state: SeedState, data: Data,
                 teacher: ModelOutput | RandomTeacher | None) -> tuple[SeedState, dict[str, jax.Array]]:
    return jax.lax.scan(lambda carry, _: epoch(carry, data, teacher), state, None, length=length)


def _epochs_of_one(epoch: Callable, active: Callable[[SeedState], jax.Array], length: int, state: SeedState, data: Data,
                   teacher: ModelOutput | RandomTeacher | None) -> tuple[SeedState, dict[str, jax.Array]]:
    """As `_scan_epochs`, but ends with its seed: one that has lost patience costs the seeds after it no time.

    Mapped over seeds it would go on to the last one's end, and select between old and new states at every epoch.
    """
    epoch = jax.jit(epoch)  # traced once, for its shapes and for the loop
    shapes = jax.eval_shape(epoch, state, data, teacher)[1]
    unwritten = {name: jnp.repeat(unrecorded(of)[None], length, axis=0) for name, of in shapes.items()}

    def more(carry: tuple[jax.Array, SeedState, dict[str, jax.Array]]) -> jax.Array:
        done, state, _ = carry
        return (done < length) & active(state)

    def step(carry: tuple[jax.Array, SeedState, dict[str, jax.Array]]) -> Any:
        done, state, records = carry
        state, seen = epoch(state, data, teacher)
        return done + 1, state, {name: records[name].at[done].set(value) for name, value in seen.items()}

    _, state, records = jax.lax.while_loop(more, step, (jnp.int32(0), state, unwritten))
    return state, records


def _output_shapes(model: nn.Module, graph: HeteroGraph) -> ModelOutput:
    return jax.eval_shape(lambda key: model.init_with_output(key, graph)[0], jax.random.key(0))


def _cached_seeds(shapes: ModelOutput) -> int:
    """How many seeds' activations of the largest layer stay within 4 MiB."""
    layers = [{"logits": shapes.logits}, *shapes.hidden]
    largest = max(sum(x.size * x.dtype.itemsize for x in layer.values()) for layer in layers)
    return max(1, 4 * 2 ** 20 // largest)


def _seed_mesh(devices: int | Sequence[jax.Device] | None, seeds: int) -> Mesh | None:
    """The devices that have a seed to run, on one axis."""
    if devices is None:
        return None
    if isinstance(devices, int):
        if not 1 <= devices <= jax.device_count():
            raise ValueError(f"devices must be 1 to {jax.device_count()}, the devices JAX sees, got {devices}")
        devices = jax.devices()[:devices]
    return Mesh(np.asarray(devices[:seeds]), ("seed",))
