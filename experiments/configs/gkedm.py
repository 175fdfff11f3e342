"""GKEDM: attention in the place of a trained network's last convolution (arXiv 2403.15419, our reading).

Command: python -m experiments.gkedm
Cost: see docs/gkedm.md.

`BACKBONES` are the networks of the literature on these graphs, trained as there (experiments/configs/planetoid.py), all
64 wide and for at most 200 epochs. `MODULE` and `DISTILLATION` were chosen on validation accuracy (docs/gkedm.md
says from what).
"""

import dataclasses
from typing import Literal

from experiments.configs import planetoid
from experiments.configs.baselines import Baseline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """The second stage: `hire_jax.models.GKEDM` on a trained backbone, all of it fine-tuned."""

    heads: int = 8
    positions: int = 8  # Laplacian eigenvectors; 0 does without
    readout: Literal["convolution", "classifier"] = "convolution"
    attention_dropout: float = 0.0
    learning_rate: float = 1e-3
    l2: float = 5e-4
    backbone_rate: float = 0.1  # times learning_rate
    epochs: int = 200
    patience: int = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """Weights of the two terms of a student: attention maps (the paper's alpha) and logits at a temperature."""

    attention: float = 0.1
    logits: float = 1.0
    temperature: float = 2.0


BACKBONES: dict[str, Baseline] = {
    model: dataclasses.replace(planetoid.START[model], hidden=64, epochs=200)
    for model in ("GCN", "GAT", "GraphSAGE", "MoNet")
}
MODULE = Module()
DISTILLATION = Distillation()
ROOTED = ("GraphSAGE", "MoNet")  # layers with a map of the node's own row: the module keeps it as its residual
STUDENT_HIDDEN = 8  # width of the compact student
