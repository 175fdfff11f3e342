"""HIRE: a heterogeneous GNN teaches a smaller one of its kind (arXiv 2207.11887, our reading of the abstract).

Command: python -m experiments.hire
Cost: see docs/hire.md.

`TRAINING[model]` are teacher and student of one architecture, set after a handful of trials on imdb_gtn, not by a
recorded search. `DISTILLATION[model]`, the weights and the temperature of the distillation terms, were chosen by
`python -m experiments.tune` on validation accuracy. Both are the default on other graphs.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One network and how it is trained: AdamW for at most `epochs`, best validation accuracy kept."""

    hidden: int
    layers: int = 2
    heads: int = 1  # of models with attention
    dropout: float = 0.5
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    epochs: int = 100
    patience: int = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """alpha weighs the node-level term at temperature T, beta the relation-level term."""

    alpha: float = 1.0
    beta: float = 1.0
    temperature: float = 2.0


TRAINING: dict[str, tuple[Network, Network]] = {  # (teacher, student)
    "RGCN": (Network(hidden=64), Network(hidden=8, dropout=0.2, learning_rate=1e-2)),
    "HGT": (Network(hidden=64, heads=4), Network(hidden=8, heads=2, dropout=0.2, learning_rate=1e-2)),
}

DISTILLATION: dict[str, Distillation] = {
    "RGCN": Distillation(alpha=1.0, temperature=2.0, beta=0.1),
    "HGT": Distillation(alpha=1.0, temperature=1.0, beta=0.1),
}
