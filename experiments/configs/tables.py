"""The tables of HIRE (arXiv 2207.11887, our reading): which cells they have, and what is tried for each method.

Command: python -m experiments.tables
Cost: `python -m experiments.tables --dry-run`.

A teacher is the network of experiments/configs/baselines.py at full width, but for `TEACHER`; a student is the same
architecture with the changes of `STUDENT`. Every method that has something to choose tries six objectives on
validation, 3 seeds each, and keeps the one of the highest validation score; the final cells train that one with 10
seeds. What is tried stands here and in the tables. The plain student has nothing to choose: its width, dropout and rate
are set here, not searched.
"""

import dataclasses
from typing import Any, Literal

from hire_jax import Objective

Setting = Literal["compressed", "same size"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """What a student learns from: the best of `grid` on validation, or what was chosen for the method `like`.

    `shuffled` gives it the outputs of its teacher in another order of nodes: a control that must not help.
    """

    grid: tuple[Objective, ...] = ()
    like: str | None = None
    shuffled: bool = False


METHODS: dict[str, Method] = {
    "student": Method(grid=(Objective(),)),
    "label smoothing": Method(grid=tuple(Objective(label_smoothing=e) for e in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4))),
    "node-level": Method(grid=tuple(Objective(soft_target_kl=alpha, temperature=t)
                                    for t in (1.0, 2.0, 4.0) for alpha in (1.0, 4.0))),
    "relation-level": Method(grid=tuple(Objective(type_pair_correlation=beta)
                                        for beta in (0.1, 0.5, 1.0, 5.0, 10.0, 100.0))),
    "HIRE": Method(grid=tuple(Objective(soft_target_kl=alpha, temperature=t, type_pair_correlation=beta)
                              for alpha, t in ((1.0, 1.0), (4.0, 2.0), (4.0, 4.0)) for beta in (0.1, 1.0))),
    # Each by itself. Between untrained networks on imdb_gtn the weighted terms are 0.06 to 10, the cross-entropy 1.2.
    # Not rkd_distance: on imdb_gtn its search took 828 s where the others take 6 to 124 s.
    "best other": Method(grid=tuple(Objective(others={name: weight}) for name, weight in (
        ("logit_mse", 0.1), ("logit_mse", 1.0), ("similarity_preserving", 1000.0), ("attention_transfer", 10_000.0),
        ("linear_cka", 1.0), ("linear_cka", 10.0)))),
    "shuffled teacher": Method(like="HIRE", shuffled=True),
}

PRIMARY = "HIRE"  # whose differences to the student are tested as one family; the p of others stand as they are
TEACHER_SEED, SEARCH_SEED = 1000, 2000  # where their seeds begin: no student starts as its teacher or was selected

STUDENT: dict[Setting, dict[str, Any]] = {
    "compressed": {"hidden": 8, "dropout": 0.2, "learning_rate": 1e-2},  # and at most two heads
    "same size": {},
}
# What teachers have in another way than experiments/configs/baselines.py, where it was changed after these tables.
TEACHER: dict[tuple[str, str], dict[str, Any]] = {
    ("acm_hgb", "SimpleHGN"): {"hidden": 64, "layers": 2, "epochs": 150, "patience": 30},
}
LARGEST_SHARE = 0.25  # of the teacher's parameters, in a compressed student


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """One table: every model on every graph, with each method."""

    title: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    methods: tuple[str, ...] = tuple(METHODS)
    setting: Setting = "compressed"
    seeds: int = 10
    tuning_seeds: int = 3
    tries: int = 6  # the first so many of every grid

    def grid(self, method: str) -> tuple[Objective, ...]:
        """The objectives of a method that are tried; those of the method it is `like`."""
        return METHODS[METHODS[method].like or method].grid[:self.tries]


TABLES: dict[str, Table] = {
    "hire": Table(title="HIRE, compressed students", datasets=("imdb_gtn", "acm_hgb", "dblp_hgb"),
                  models=("RGCN", "HAN", "HGT", "SimpleHGN")),
    "hire_same_size": Table(title="HIRE, students as large as their teachers", setting="same size",
                            datasets=("imdb_gtn", "acm_hgb", "dblp_hgb"), models=("RGCN", "HAN", "HGT", "SimpleHGN")),
    "hire_further_graphs": Table(title="HIRE, compressed students, further graphs", datasets=("acm_gtn", "imdb_hgb"),
                                 models=("RGCN", "HAN", "HGT", "SimpleHGN")),
}
