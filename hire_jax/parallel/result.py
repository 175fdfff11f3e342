"""What training on batches returns."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class SampledFit:
    """What `parallel.fit` returns. E epochs.

    Attributes:
      model: as given.
      params: the variables of the best validation epoch, or the last ones without validation; numpy arrays.
      metrics: at those variables, {"val_loss", "val_accuracy", "val_macro_f1", "val_micro_f1"} by sampling, and
        "best_epoch" (from 1), "epochs" and "steps" done.
      history: {name: float[E]}: "train_loss" and the unweighted terms ("train_soft_target_kl", ...), means over an
        epoch's steps, and the validation scores.
      seconds: wall time without compiling; compile_seconds: of compiling; compilations: how many programs.
      waited_seconds: how long a batch was waited for, at most, while the devices had nothing to do.
      nodes, edges: in all batches of this process, without what fills them up.
      These last five are of this run alone, not of one that it took over.
    """

    model: nn.Module
    params: Any
    metrics: dict[str, float]
    history: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float
    compilations: int
    waited_seconds: float
    nodes: int
    edges: int

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))
