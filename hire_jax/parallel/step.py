"""One step on one batch a device: the loss of all batches together, and its gradient on every device.

What all devices' batches give is gathered before the loss is taken. So the step is that of one device on all of them:
the supervised term is the mean over all seeds, short last batches included, and the relation-level term knows the pairs
between nodes of different batches. The loss itself is computed on every device anew: with `uniform` nodes a batch and
D devices, all_pairs compares D times as many nodes of a type on each.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from hire_jax.distill import Objective
from hire_jax.parallel.axis import AXIS, gathered, shared
from hire_jax.parallel.devices import Devices
from hire_jax.sampling.batches import Batch, Rows, batch_variables
from hire_jax.training.epoch import Params, named_key
from hire_jax.training.gradients import gradient_of, parts_of, trained_of


class StepState(NamedTuple):
    """What training carries from step to step."""

    seed: jax.Array  # uint32, of dropout
    step: jax.Array  # int32, steps done
    params: Params
    log_variances: dict[str, jax.Array]  # what the objective learns, {} without `uncertainty`
    opt_state: optax.OptState


def initial_state(seed: int, params: Params, objective: Objective, optimizer: optax.GradientTransformation
                  ) -> StepState:
    """The state before the first step."""
    log_variances = objective.init()
    opt_state = jax.tree.map(jnp.copy, optimizer.init(trained_of(params, log_variances)))  # some hold the parameters
    return StepState(seed=jnp.uint32(seed), step=jnp.int32(0), params=params, log_variances=log_variances,
                     opt_state=opt_state)


def train_step(state: StepState, batch: Batch, features: dict[str, jax.Array], epoch: jax.Array, *, model: nn.Module,
               objective: Objective, optimizer: optax.GradientTransformation
               ) -> tuple[StepState, dict[str, jax.Array]]:
    """One gradient step, within a program mapped over `AXIS`: on this device's batch, for the loss of all.

    Args:
      batch: this device's; features: {type: [N, F]} of types whose features batches come without.
      epoch: int32, for weights that are schedules.

    Returns:
      the new state and {"loss": total, term: its unweighted value}, the same on every device.
    """
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    rngs = {"dropout": jax.random.fold_in(named_key(key, "dropout"), jax.lax.axis_index(AXIS))}
    batch = batch.with_features(features)

    def weighted(params: Params, log_variances: dict[str, jax.Array]) -> tuple[dict, dict]:
        output = model.apply(batch_variables(shared(params), batch), batch.graph, train=True, rngs=rngs)
        terms = joint_terms(objective, output, batch)
        return objective.weighted(terms, epoch=epoch, log_variances=log_variances), terms

    trained = trained_of(state.params, state.log_variances)
    value, terms, gradient = gradient_of(weighted, trained, objective, named_key(key, "pcgrad"))
    updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
    params, log_variances = parts_of(optax.apply_updates(trained, updates), objective)
    new = StepState(state.seed, state.step + 1, params, log_variances, opt_state)
    return new, {"loss": value, **terms}


def joint_terms(objective: Objective, output: Any, batch: Batch) -> dict[str, jax.Array]:
    """{term: value} of all devices' batches: the supervised one on the seeds, the others on the uniform nodes where
    there are some, else on the seeds that count."""
    seeds: Any
    seeds, taken = gathered((_without_index(batch.seeds), batch.seeds.of(output)))
    where = seeds.where
    others = [name for name in objective.terms if name != "supervised"]
    found = objective.unweighted(taken, seeds.labels, where=where, only=("supervised",))
    if others and batch.uniform is None:  # "all" rows are all that count: others only fill a batch up
        objective = dataclasses.replace(objective, distil_rows="train")
    elif batch.uniform is not None:
        seeds, taken = gathered((_without_index(batch.uniform), batch.uniform.of(output)))
        # Nodes of the epoch, the only ones whose labels are there.
        where = None if seeds.labels is None else labelled(seeds.labels)
    found |= objective.unweighted(taken, seeds.labels, teacher=seeds.teacher, where=where, only=others)
    return {name: found[name] for name in objective.terms}


def labelled(labels: jax.Array) -> jax.Array:
    """bool[n]: the rows with a label."""
    return labels >= 0 if labels.ndim == 1 else (labels >= 0).all(axis=1)


def seed_logits(params: Params, batch: Batch, features: dict[str, jax.Array], *, model: nn.Module) -> jax.Array:
    """[devices * n, C]: the logits of all devices' seeds without dropout, within a program mapped over `AXIS`."""
    batch = batch.with_features(features)
    output: Any = model.apply(batch_variables(params, batch), batch.graph, train=False)
    return gathered(batch.seeds.of(output).logits)


def mapped(function: Callable, devices: Devices, *, donate: bool = False) -> Any:
    """`function(carried, batch, *constants)` over all devices.

    `batch` is one a device (`Devices.one_each`); `carried`, `constants` and the results are whole on every device
    (`Devices.everywhere`). With `donate`, the memory of `carried` is taken over.
    """
    donated = (0,) if donate else ()
    if devices.form == "pmap":
        return jax.pmap(function, axis_name=AXIS, devices=list(devices.mesh.devices.flat), donate_argnums=donated)
    whole, each = PartitionSpec(), PartitionSpec(AXIS)

    def own(carried: Any, batch: Any, *constants: Any) -> Any:
        return function(carried, jax.tree.map(partial(jnp.squeeze, axis=0), batch), *constants)

    def over_devices(carried: Any, batch: Any, *constants: Any) -> Any:
        specs = (whole, each, *[whole] * len(constants))
        return jax.shard_map(own, mesh=devices.mesh, in_specs=specs, out_specs=whole, check_vma=False)(
            carried, batch, *constants)

    return jax.jit(over_devices, donate_argnums=donated)


def _without_index(rows: Rows) -> Rows:
    """What is known of the rows, without their places in the batch, which mean nothing among other devices' rows."""
    return Rows(index={}, where=rows.where, labels=rows.labels, teacher=rows.teacher, target=rows.target)
