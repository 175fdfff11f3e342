"""GKEDM's six claims (C1 to C6): the cells that test each, the difference each is about, and the verdict.

A claim is tested on every pair of a graph and a backbone by one paired difference, seed by seed. Over the pairs
Wilcoxon's p is corrected by Holm's method; a pair speaks for the claim where its difference is above 0 and the
corrected p below 0.05, against it where it is below 0. The claim

  holds                where more than half of the pairs speak for it and none against it
  does not hold        where more pairs speak against it than for it
  cannot be told       otherwise, as where no pair speaks either way
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import hire_jax as hj
from experiments.configs.gkedm import DISTILLATION, MODULE, STUDENT_HIDDEN
from experiments.gkedm_cells import Cells, Job, backbone_of, network
from experiments.networks import count_parameters
from experiments.statistics import holm

ALPHAS = (0.0, 0.01, 0.1, 1.0, 10.0)
DEPTHS = (2, 4, 8, 16)
NEAR = 0.01  # C5: "near" is within one point of accuracy

Scores = Mapping[str, np.ndarray]  # {label: test accuracy [S]}


@dataclasses.dataclass(frozen=True)
class Claim:
    """`rows` makes a claim's cells for one graph and backbone; `difference` is above 0 where the claim is right."""

    text: str
    measure: str
    rows: Callable[[Cells, str], list[Job]]
    baseline: str
    difference: Callable[[Scores, Scores], np.ndarray]  # of test and validation accuracy


def enhancement(cells: Cells, model: str) -> list[Job]:
    """Backbone, with the module, and the backbone at the module's number of parameters and epochs."""
    large = backbone_of(model)
    base = cells.alone("backbone", model, large)
    size = count_parameters(network(model, large, cells.dataset, MODULE), cells.dataset)
    return [base, cells.lifted("+ GKEDM", base, MODULE), cells.widened("wider backbone", model, large, size)]


def distillation(cells: Cells, model: str) -> list[Job]:
    """The large module as teacher, and a compact student of it with each kind of knowledge."""
    teacher = cells.lifted("+ GKEDM", cells.alone("backbone", model, backbone_of(model)), MODULE)
    start = cells.alone("compact backbone", model, backbone_of(model, hidden=STUDENT_HIDDEN))
    logits: dict[str, Any] = {"soft_target_kl": DISTILLATION.logits, "temperature": DISTILLATION.temperature}
    maps: dict[str, Any] = {"attention_map_kl": DISTILLATION.attention}
    objectives = {"student": {}, "+ logits": logits, "+ attention": maps, "+ both": logits | maps}
    return [teacher, *(cells.lifted(label, start, MODULE, objective=hj.Objective(**terms), teacher=teacher)
                       for label, terms in objectives.items())]


def sweep(cells: Cells, model: str) -> list[Job]:
    """The student of the attention maps at every weight alpha."""
    teacher, *_ = distillation(cells, model)
    start = cells.alone("compact backbone", model, backbone_of(model, hidden=STUDENT_HIDDEN))
    return [cells.lifted(f"alpha {alpha:g}", start, MODULE, teacher=teacher,
                         objective=hj.Objective(attention_map_kl=alpha)) for alpha in ALPHAS]


def depths(cells: Cells, model: str) -> list[Job]:
    """Backbone and module at every depth."""
    jobs = []
    for layers in DEPTHS:
        base = cells.alone(f"{layers} layers", model, backbone_of(model, layers=layers))
        jobs += [base, cells.lifted(f"{layers} layers + GKEDM", base, MODULE)]
    return jobs


def _best_other(scores: Scores, validation: Scores) -> np.ndarray:
    """Test accuracy of the other weight of highest validation accuracy: one chosen on test would seem better."""
    others = [label for label in scores if label != "alpha 0.1"]
    return scores[max(others, key=lambda label: float(np.mean(validation[label])))]


def _fall(scores: Scores, suffix: str) -> np.ndarray:
    return scores[f"{DEPTHS[0]} layers{suffix}"] - scores[f"{DEPTHS[-1]} layers{suffix}"]


CLAIMS: dict[str, Claim] = {
    "C1": Claim("The module raises the accuracy of several backbones (cost: parameters and ms a step in the tables).",
                "+ GKEDM less backbone", enhancement, "backbone",
                lambda scores, _: scores["+ GKEDM"] - scores["backbone"]),
    "C2": Claim("The gain is not that of its parameters.", "+ GKEDM less wider backbone",
                enhancement, "backbone", lambda scores, _: scores["+ GKEDM"] - scores["wider backbone"]),
    "C3": Claim("Attention-map distillation raises a student with the module.", "+ attention less student",
                distillation, "student", lambda scores, _: scores["+ attention"] - scores["student"]),
    "C4": Claim("alpha = 0.1 is the best weight of the attention maps.", "alpha 0.1 less the best other on validation",
                sweep, "alpha 0",
                lambda scores, validation: scores["alpha 0.1"] - _best_other(scores, validation)),
    "C5": Claim("A compact student stays near its large teacher (within one point).",
                "student + both less teacher, plus 1 point",
                distillation, "student", lambda scores, _: scores["+ both"] - scores["+ GKEDM"] + NEAR),
    "C6": Claim("Over-smoothing is eased: less is lost from 2 to 16 layers.", "loss of backbone less loss with GKEDM",
                depths, "2 layers", lambda scores, _: _fall(scores, "") - _fall(scores, " + GKEDM")),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One graph and backbone: the difference, and Wilcoxon's p corrected by Holm's method over all pairs."""

    dataset: str
    model: str
    difference: hj.report.PairedDifference
    corrected: float

    @property
    def says(self) -> int:
        """1 for the claim, -1 against it, 0 neither."""
        return int(np.sign(self.difference.mean)) if self.corrected < 0.05 else 0


def findings(claim: Claim, scores: Mapping[tuple[str, str], Scores],
             validation: Mapping[tuple[str, str], Scores]) -> list[Finding]:
    """The difference of every (graph, backbone)."""
    differences = {name: claim.difference(by_label, validation[name]) for name, by_label in scores.items()}
    pairs = {name: hj.report.paired_difference(d, np.zeros_like(d)) for name, d in differences.items()}
    corrected = holm([found.p_value for found in pairs.values()])
    return [Finding(*name, found, p) for (name, found), p in zip(pairs.items(), corrected, strict=True)]


def verdict(found: Sequence[Finding]) -> str:
    """By the rule at the top of this file, with the counts."""
    says = [finding.says for finding in found]
    better, worse = says.count(1), says.count(-1)
    if better > len(found) / 2 and not worse:
        word = "holds"
    elif worse > better:
        word = "does not hold"
    else:
        word = "cannot be told"
    return f"{word}: {better} of {len(found)} pairs for it, {worse} against, {len(found) - better - worse} neither"
