"""The model zoo on the field's graphs: one training configuration for every (dataset, model).

Command: python -m experiments.baselines
`python -m experiments.baselines --tune` tries for every pair the grid `SEARCH` on validation, 3 seeds each, and names
the highest macro-F1. It starts from what stands below: scores beside a configuration that was changed by hand
afterwards are those of the grid from START. What else differs from START was tried by hand, on validation too; comments
have the scores and say where something else decided.
"""

import dataclasses
from typing import Literal

from hire_jax.identity import LATER
from hire_jax.training import Monitor

Features = Literal["all", "target", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """One network and how it is trained: AdamW for at most `epochs`, the best validation epoch kept.

    `features` says which node types keep their features: "all", the labelled type alone ("target"), or "none". Types
    without features get a learned row a node, in SeHGNN a one-hot row, which is propagated. Where `l2` is not 0, it is
    added to the gradient before Adam, as torch's Adam has it, in place of AdamW's `weight_decay`; with `l2_layers` that
    is the decay of GCNII's convolutions or APPNP's first matrix, and `l2` of the other parameters. `norm=False` leaves
    out layer norm, and in GCN the first layer's matrix, `projection=False` the linear maps before and after the layers
    (`hire_jax.models.NodeClassifier`). `row_normalised` divides rows of sparse features by their sums. `hops` are also
    the propagations of SGC and APPNP.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 1  # of models with attention
    dropout: float = 0.5
    attention_dropout: float = 0.0
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    l2: float = dataclasses.field(default=0.0, metadata=LATER)
    l2_layers: float | None = dataclasses.field(default=None, metadata=LATER)
    norm: bool = dataclasses.field(default=True, metadata=LATER)
    projection: bool = dataclasses.field(default=True, metadata=LATER)
    row_normalised: bool = dataclasses.field(default=False, metadata=LATER)
    monitor: Monitor = dataclasses.field(default="val_macro_f1", metadata=LATER)
    readout_heads: int = dataclasses.field(default=1, metadata=LATER)  # of GAT without projection
    theta: float = dataclasses.field(default=0.5, metadata=LATER)  # of GCNII
    epochs: int = 150
    patience: int = 30
    features: Features = "all"
    hops: int = 2  # of SeHGNN: length of feature paths
    label_hops: int = 2  # and of label paths


MODELS = ("RGCN", "HAN", "HGT", "SimpleHGN", "GCN", "GAT", "HeteroSAGE", "IEHGCN", "SeHGNN", "MLP")
CORE = MODELS[:6]
DATASETS = ("dblp_hgb", "acm_hgb", "imdb_hgb")

# What every (dataset, model) starts from.
START: dict[str, Baseline] = {
    "RGCN": Baseline(),
    "HAN": Baseline(heads=8, layers=1),
    "HGT": Baseline(heads=4),
    "SimpleHGN": Baseline(heads=8),
    "GCN": Baseline(),
    "GAT": Baseline(heads=8),
    "HeteroSAGE": Baseline(),
    "IEHGCN": Baseline(),
    "SeHGNN": Baseline(label_hops=4),  # hops and label hops of its authors on DBLP
    "MLP": Baseline(),
}

# The grid, tried for every pair in full but for a value that changes nothing: HAN and MLP read the target's features
# alone.
SEARCH: dict[str, tuple] = {"features": ("all", "target", "none")}

# What differs from START; beside each the validation macro-F1 of the candidates all, target, none, by --tune
# (experiments/results/baselines_tune). Pairs that are not named here were not searched to the end and take START; a
# split, NAME/SPLIT, that is not named takes what its NAME has.
CHOSEN: dict[tuple[str, str], dict] = {
    ("dblp_hgb", "RGCN"): {"features": "none"},  # 90.8, 95.0, 95.1
    # With norm: 87.1, 85.0, 53.0. Form, depth, width, l2 and features as in HGB's code; by hand, 3 seeds each, dropout
    # 0.5, 0.7, 0.8: 91.8, 93.0, 93.9; 128 wide 92.5, 92.7, 94.2, and with 4 layers and dropout 0.7 94.0.
    ("dblp_hgb", "GCN"): {"norm": False, "features": "none", "layers": 3, "dropout": 0.8, "l2": 1e-6, "epochs": 300,
                          "patience": 50},
    ("dblp_hgb", "HGT"): {},  # 95.9, 94.3, 95.0
    # It stays at chance for 20 to 50 epochs, some seeds longer than the patience of START: those would stop untrained.
    ("dblp_hgb", "SimpleHGN"): {"features": "none", "epochs": 300, "patience": 100},  # 88.8, 94.2, 94.8
    # 88.2, 91.5, 95.5. By hand beside the grid, features none, 3 seeds each: 128 and 256 wide 95.0 and 94.9, attention
    # dropout 0.5 95.2, dropout 0.7 71.8 (a seed at chance); 3 and 4 layers for 300 epochs with a patience of 100, 95.0
    # (a seed stays at 92) and 96.7.
    ("dblp_hgb", "GAT"): {"features": "none", "layers": 4, "epochs": 300, "patience": 100},
    ("dblp_hgb", "HeteroSAGE"): {"features": "target"},  # 90.0, 94.9, 94.9
    ("dblp_hgb", "IEHGCN"): {"features": "none"},  # 92.5, 94.2, 94.8
    ("dblp_hgb", "SeHGNN"): {"features": "target"},  # 96.3, 96.4, 95.8
    ("dblp_hgb", "MLP"): {},  # 82.3, -, 26.0
    ("acm_hgb", "RGCN"): {},  # 96.7, 96.6, 87.8
    # With norm: 95.5 (10 seeds 95.7), 91.8, 70.1. Form, depth, width and l2 as in HGB's code, not chosen by validation;
    # by hand, 3 seeds each, all features 95.1, the target's 95.7 (10 seeds 95.4). With these, dropout 0.7 95.5 and 0.8
    # 95.3; 2 and 4 layers 94.6 and 80.4; 128 wide, dropout 0.5, 0.7, 0.8: 95.3 each.
    ("acm_hgb", "GCN"): {"norm": False, "features": "target", "layers": 3, "l2": 1e-6, "epochs": 300, "patience": 50},
    ("acm_hgb", "HGT"): {"features": "target"},  # 94.3, 96.4, 84.6
    # With two layers: 94.7, 95.4, 56.3. Tried by hand beside the grid, 3 seeds each: 3 layers 96.2, 4 layers 96.6;
    # dropout 0.6 94.8, learning rate 1e-3 for 300 epochs 93.2 (two layers). With four layers and a patience of 30 one
    # seed of ten stops on a plateau (89.1 on validation, the others 95.3 to 98.2). With four layers and this patience,
    # 10 seeds: 97.0, and 97.3 with 128 wide. 3 seeds each, without norm: 3 layers 96.6 (with an l2 of 1e-4 96.6 at a
    # rate of 5e-4 and 96.2 at 1e-3, there with attention dropout 0.5 96.6), 4 layers 97.0; 128 wide 96.2 and 96.0.
    # With norm and 4 layers: all features 94.2, attention dropout 0.5 96.4. In HGB's form and at its full width, 512 (3
    # layers, an l2 of 1e-4 at 5e-4, attention dropout 0.5), the first of 3 seeds had 96.4. Five folds of the 907
    # labelled nodes, one seed each: this 95.6; 64 wide 95.3, with 3 layers 95.3; HGB's form 64 wide (at 1e-3), 256 and
    # 512 wide 95.0, 94.9, 95.4.
    ("acm_hgb", "SimpleHGN"): {"hidden": 128, "features": "target", "layers": 4, "epochs": 300, "patience": 100},
    # 94.2, 95.2, 30.8. With the target's features two seeds of ten stay at chance for longer than a patience of 30.
    ("acm_hgb", "GAT"): {"features": "target", "epochs": 300, "patience": 100},
    ("imdb_hgb", "RGCN"): {},  # 67.1, 66.6, 17.1
    # 66.73, 66.74, 22.6: a tie, settled by the validation scores of 10 seeds, 66.3 and 65.8, after both had been run.
    ("imdb_hgb", "HGT"): {},
    ("imdb_hgb", "GCN"): {},  # 66.5, 64.9, 16.5
    ("imdb_hgb", "GAT"): {},  # 67.8, 67.2, 25.2
    # 65.2, 63.3, 36.5. By hand, 3 seeds each, 300 epochs with a patience of 100: 65.3; with AdamW's decay at 1e-2 65.6;
    # 3 layers 65.3; 3 and 5 layers at a learning rate of 1e-3 62.9 and 39.3. Dropout 0.6 as it starts: 63.8;
    # attention dropout 0.5 65.5. 300 epochs with a patience of 50: 128 wide 69.2 (with a decay of 1e-2 too), 256 wide
    # with that decay 68.8.
    ("imdb_hgb", "SimpleHGN"): {"hidden": 128, "epochs": 300, "patience": 50},
    # The features of dblp_hgb's configurations varied on its other split. The best are those of dblp_hgb again, but for
    # HGT: RGCN 89.1, 92.0, 93.9; HAN 92.9, -, 84.1; Simple-HGN 83.4, 88.2, 94.8; GCN 87.8, 89.0, 94.4; GAT 90.7, 89.8,
    # 95.5.
    ("dblp_hgb/magnn", "HGT"): {"features": "none"},  # 93.76, 94.38, 94.39
    ("acm_gtn", "RGCN"): {},  # 94.0, 93.7, 81.8
    ("acm_gtn", "HAN"): {},  # 95.3, -, 82.6
    ("acm_gtn", "HGT"): {"features": "target"},  # 93.8, 93.9, 82.1
    ("acm_gtn", "SimpleHGN"): {},  # 94.3, 92.5, 68.4
    ("acm_gtn", "GCN"): {},  # 92.7, 92.1, 77.0
    ("acm_gtn", "GAT"): {},  # 94.5, 93.7, 81.1
    ("imdb_gtn", "RGCN"): {},  # 70.1, 66.6, 48.4
    ("imdb_gtn", "HAN"): {},  # 67.1, -, 52.0
    ("imdb_gtn", "HGT"): {},  # 69.1, 66.4, 46.2
    ("imdb_gtn", "SimpleHGN"): {},  # 68.7, 59.5, 46.5
    ("imdb_gtn", "GCN"): {},  # 69.2, 67.4, 51.8
    ("imdb_gtn", "GAT"): {},  # 70.5, 68.8, 41.0
    ("imdb_magnn", "RGCN"): {},  # 60.5, 58.9, 42.6
    ("imdb_magnn", "HAN"): {},  # 57.3, -, 39.8
    ("imdb_magnn", "HGT"): {},  # 57.5, 55.9, 39.7
    ("imdb_magnn", "SimpleHGN"): {},  # 60.0, 56.6, 33.0
    ("imdb_magnn", "GCN"): {},  # 58.0, 57.0, 44.7
    ("imdb_magnn", "GAT"): {},  # 58.7, 57.7, 44.7
}


def baseline(dataset: str, model: str) -> Baseline:
    """The configuration of one pair, where the dataset is NAME or NAME/SPLIT; a split without its own takes NAME's."""
    own = dataset if (dataset, model) in CHOSEN else dataset.partition("/")[0]
    return dataclasses.replace(START[model], **CHOSEN.get((own, model), {}))
