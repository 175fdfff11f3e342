"""GKEDM: attention in the place of a trained network's last convolution (arXiv 2403.15419, our reading).

Command: python -m experiments.gkedm
Cost: see docs/gkedm.md.

`BACKBONES` are the networks of the literature on these graphs and trained as there: Adam with the decay `l2` in the
gradient, features whose rows sum to 1. `MODULE` and `DISTILLATION` were chosen on validation accuracy (docs/gkedm.md
says from what).
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """One network without a projection and how it is trained: at most `epochs`, best validation accuracy kept."""

    hidden: int = 64
    layers: int = 2
    heads: int = 1  # of GAT
    dropout: float = 0.5
    attention_dropout: float = 0.0
    learning_rate: float = 1e-2
    l2: float = 5e-4
    epochs: int = 200
    patience: int = 100


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


BACKBONES: dict[str, Backbone] = {
    "GCN": Backbone(),
    "GAT": Backbone(heads=8, dropout=0.6, attention_dropout=0.6, learning_rate=5e-3),
    "GraphSAGE": Backbone(),
    "MoNet": Backbone(),
}
MODULE = Module()
DISTILLATION = Distillation()
ROOTED = ("GraphSAGE", "MoNet")  # layers with a map of the node's own row: the module keeps it as its residual
STUDENT_HIDDEN = 8  # width of the compact student
