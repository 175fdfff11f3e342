"""What `fit` returns, and the outputs of networks it trained."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from hire_jax.graph import HeteroGraph
from hire_jax.models.output import ModelOutput
from hire_jax.supervised import cross_entropy
from hire_jax.training.epoch import Data, Params, SeedState, evaluate, logits_of


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What `fit` returns. S seeds, E epochs.

    Attributes:
      model, graph: as given.
      params: the variables of the best validation epoch, every leaf with a leading axis S.
      metrics: {name: float[S]} at those variables: accuracy, macro-F1 and micro-F1 of each split as fractions
        ("test_accuracy", "val_macro_f1", ...), "val_loss", "best_epoch" (from 1) and "epochs" run.
      history: {name: float[S, E]}: "train_loss", "val_loss", "val_accuracy", "val_macro_f1" and the unweighted
        training terms ("train_soft_target_kl", ...), with `Objective(uncertainty=True)` also what it learned
        ("log_variance_soft_target_kl", ...); NaN after a seed's last epoch.
      seeds: the seeds, in the order of the leading axis.
      seconds: wall time without compilation, before and after a stop; compile_seconds: of compiling, after it.
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


def result_of(model: nn.Module, data: Data, state: SeedState, history: dict[str, np.ndarray],
              seeds: tuple[int, ...], num_classes: int, seconds: float, compile_seconds: float) -> FitResult:
    """The result of a finished run, with the scores of every split at the best parameters."""
    def final(params: Params, data: Data) -> dict[str, jax.Array]:
        logits = logits_of(model, params, data.graph)
        loss = cross_entropy(logits, data.labels, where=data.splits["val"])
        return evaluate(logits, data, ("train", "val", "test"), num_classes) | {"val_loss": loss}

    final_metrics = jax.jit(jax.vmap(final, in_axes=(0, None)))(state.best_params, data)
    active = history.pop("active")
    last = int(active.any(axis=0).sum())
    counts = {"best_epoch": np.asarray(state.best_epoch), "epochs": active.sum(axis=1)}
    return FitResult(model=model, graph=data.graph, params=state.best_params,
                     metrics={name: np.asarray(value) for name, value in (final_metrics | counts).items()},
                     history={name: values[:, :last] for name, values in history.items()}, seeds=seeds,
                     seconds=seconds, compile_seconds=compile_seconds)
