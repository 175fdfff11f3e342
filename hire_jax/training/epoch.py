"""The compiled parts of one seed: the state it carries through the epochs, how it begins, and one epoch."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.errors import LazyInitError

from hire_jax import metrics as scores
from hire_jax.distill import Objective
from hire_jax.graph import HeteroGraph
from hire_jax.models.output import ModelOutput
from hire_jax.supervised import cross_entropy
from hire_jax.teachers import RandomTeacher
from hire_jax.training.gradients import Params, gradient_of, parts_of, trained_of

Monitor = Literal["val_loss", "val_accuracy", "val_macro_f1"]


class SeedState(NamedTuple):
    """What a seed carries from epoch to epoch; the states of several seeds have a leading axis on every array."""

    key: jax.Array
    params: Params
    log_variances: dict[str, jax.Array]  # what the objective learns, {} without `uncertainty`
    opt_state: optax.OptState
    best_params: Params
    best_score: jax.Array  # larger is better
    best_epoch: jax.Array
    epoch: jax.Array  # epochs done


class Data(NamedTuple):
    """What all seeds read: the graph, its labels, and the splits as masks."""

    graph: HeteroGraph
    labels: jax.Array
    splits: dict[str, jax.Array]


def named_key(key: jax.Array, name: str) -> jax.Array:
    """A key for one purpose, split from `key` by name: adding a purpose never changes the others."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _initial_params(keys: jax.Array, graph: HeteroGraph, model: nn.Module) -> Params:
    """Variables for each key, from the shapes of the graph alone: the forward pass is neither run nor compiled."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), graph)
    try:
        return jax.vmap(lambda key: model.lazy_init(named_key(key, "init"), shapes))(keys)
    except LazyInitError:  # a model whose initial variables depend on the data
        return jax.jit(jax.vmap(lambda key: model.init(named_key(key, "init"), graph)))(keys)


def initial_states(seeds: jax.Array, graph: HeteroGraph, model: nn.Module, objective: Objective,
                   optimizer: optax.GradientTransformation,
                   initialise: Callable[[Params], Params] | None = None) -> SeedState:
    """States of all seeds, with a leading axis. Raises ValueError for an `initialise` that changes a shape."""
    keys = jax.vmap(jax.random.key)(seeds)
    params = _initial_params(keys, graph, model)
    if initialise is not None:
        params = replaced(params, initialise(params))
    log_variances = jax.tree.map(lambda s: jnp.zeros(len(seeds), s.dtype), objective.init())
    zeros = jnp.zeros(len(seeds), jnp.int32)
    opt_state = jax.vmap(optimizer.init)(trained_of(params, log_variances))
    return SeedState(key=jax.vmap(partial(named_key, name="dropout"))(keys), params=params,
                     log_variances=log_variances,
                     opt_state=jax.tree.map(jnp.copy, opt_state),  # some hold the parameters
                     best_params=jax.tree.map(jnp.copy, params),
                     best_score=jnp.full(len(seeds), -jnp.inf), best_epoch=zeros, epoch=jnp.copy(zeros))


def replaced(fresh: Params, given: Params) -> Params:
    """`given`, copied: the trainer gives its state away."""
    before, after = (jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree) for tree in (fresh, given))
    if before != after:
        raise ValueError("initialise must return variables of the structure, shapes and dtypes that it is given: "
                         f"expected {before}, got {after}")
    return jax.tree.map(jnp.array, given)


def is_active(state: SeedState, *, epochs: int, patience: int) -> jax.Array:
    """bool: whether a seed has epochs left, and patience."""
    return (state.epoch < epochs) & (state.epoch - state.best_epoch < patience)


def unrecorded(record: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """What stands in the place of a record after its seed's end: NaN, or False."""
    return jnp.full(record.shape, jnp.nan if jnp.issubdtype(record.dtype, jnp.floating) else False, record.dtype)


def train_epoch(state: SeedState, data: Data, teacher: ModelOutput | RandomTeacher | None, *, model: nn.Module,
                objective: Objective, optimizer: optax.GradientTransformation, monitor: Monitor, patience: int,
                epochs: int, num_classes: int) -> tuple[SeedState, dict[str, jax.Array]]:
    """One gradient step on the training nodes and one look at the validation nodes."""
    active = is_active(state, epochs=epochs, patience=patience)
    edges = {edge_type: (r.senders, r.receivers) for edge_type, r in data.graph.relations.items()}

    if isinstance(teacher, RandomTeacher):
        teacher = teacher.draw(jax.random.fold_in(named_key(state.key, "teacher"), state.epoch))

    def weighted(params: Params, log_variances: dict[str, jax.Array]) -> tuple[dict, dict]:
        rngs = {"dropout": jax.random.fold_in(state.key, state.epoch)}
        output = model.apply(params, data.graph, train=True, rngs=rngs)
        terms = objective.unweighted(output, data.labels, teacher=teacher, where=data.splits["train"], edges=edges)
        return objective.weighted(terms, epoch=state.epoch, log_variances=log_variances), terms

    key = jax.random.fold_in(named_key(state.key, "pcgrad"), state.epoch)
    value, terms, gradient = gradient_of(weighted, trained_of(state.params, state.log_variances), objective, key)
    updates, opt_state = optimizer.update(gradient, state.opt_state, trained_of(state.params, state.log_variances))
    params, log_variances = parts_of(
        optax.apply_updates(trained_of(state.params, state.log_variances), updates), objective)

    logits = logits_of(model, params, data.graph)
    seen = evaluate(logits, data, ("val",), num_classes)
    seen["val_loss"] = cross_entropy(logits, data.labels, where=data.splits["val"])
    score = -seen["val_loss"] if monitor == "val_loss" else seen[monitor]
    better = active & (score > state.best_score)
    best_params = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, state.best_params)
    records = {"train_loss": value, **{f"train_{name}": term for name, term in terms.items()},
               **{f"log_variance_{name}": s for name, s in state.log_variances.items()},
               **{name: seen[name] for name in ("val_loss", "val_accuracy", "val_macro_f1")}}
    records = {name: jnp.where(active, record, unrecorded(record)) for name, record in records.items()}
    records["active"] = active
    new = SeedState(key=state.key, params=params, log_variances=log_variances, opt_state=opt_state,
                    best_params=best_params, best_score=jnp.where(better, score, state.best_score),
                    best_epoch=jnp.where(better, state.epoch + 1, state.best_epoch), epoch=state.epoch + 1)
    # A finished seed that is mapped with others waits for them: it keeps its count, so that it cannot wake again.
    return new._replace(epoch=jnp.where(active, new.epoch, state.epoch)), records


def logits_of(model: nn.Module, params: Params, graph: HeteroGraph) -> jax.Array:
    """The logits without dropout."""
    output: Any = model.apply(params, graph, train=False)
    return output.logits


def evaluate(logits: jax.Array, data: Data, splits: Sequence[str], num_classes: int) -> dict[str, jax.Array]:
    """{"val_accuracy": ...}: accuracy, macro-F1 and micro-F1 of each of `splits`."""
    predictions = scores.predict(logits, multilabel=data.labels.ndim == 2)
    result = {}
    for split in splits:
        where = data.splits[split]
        result[f"{split}_accuracy"] = scores.accuracy(predictions, data.labels, where=where)
        for name, function in (("macro_f1", scores.macro_f1), ("micro_f1", scores.micro_f1)):
            result[f"{split}_{name}"] = function(predictions, data.labels, num_classes=num_classes, where=where)
    return result
