"""Where relational knowledge helps, and why: what is tried beside the relation-level term of the tables.

Command: python -m experiments.relational
Cost: see experiments/results/relational/README.md.

Every study varies one thing. Its terms are trained alone, beside the plain student, and on top of the node-level term,
beside that term by itself. The node-level term's weight and temperature are those that the HIRE table chose for RGCN on
imdb_gtn as it is, and stay as they are everywhere. All that is tried is printed; nothing is chosen.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hire_jax import Objective
from hire_jax.identity import LATER

STUDENT = Objective()
NODE = Objective(soft_target_kl=4.0, temperature=2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """What is done to the data before teacher and student see it.

    labels: share of the target nodes that are training nodes, with no more validation nodes than that; None leaves the
      split as it is.
    noise: share of the edges of every relation whose ends are mixed.
    features: which node types keep theirs. Those of others than the target may have been gathered along the true edges:
      on imdb_gtn they are the union of those of a node's movies.
    """

    labels: float | None = None
    noise: float = 0.0
    features: Literal["all", "target"] = dataclasses.field(default="all", metadata=LATER)

    def __str__(self) -> str:
        words = [] if self.labels is None else [f"{100 * self.labels:g} % labels"]
        words += [f"{100 * self.noise:g} % noise"] if self.noise or self.features == "target" else []
        return ", ".join(words) or "as it is"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One question: terms of an objective, each tried alone and with the node-level term.

    pairs: weights of the relation-level term with which each pair of node types is tried by itself.
    common: what all objectives of the study have, the plain student's and the node-level term's too.
    note: what has to be known to read its table.
    """

    question: str
    terms: Sequence[Objective] = ()
    pairs: Sequence[float] = ()
    conditions: Sequence[Condition] = (Condition(),)
    common: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""


def weighed(*betas: float, **options: Any) -> tuple[Objective, ...]:
    """The relation-level term with these weights."""
    return tuple(Objective(type_pair_correlation=beta, **options) for beta in betas)


STUDIES: dict[str, Study] = {
    "variants": Study(
        question="Which variant: every node with every node, one prototype a type, or the ends of edges?",
        terms=(*weighed(0.1, 1.0, 10.0, 100.0), *weighed(1.0, 10.0, 100.0, variant="prototype"),
               *weighed(1.0, 10.0, 100.0, variant="edges"))),
    "layers": Study(
        question="Which layers: the input projection (0), the hidden layer (where no layer is named), or both?",
        terms=tuple(term for layers in ((0,), None, (0, 1)) for term in weighed(1.0, 10.0, layers=layers))),
    "pairs": Study(
        question="Which pairs of node types carry it?", terms=weighed(10.0, 30.0), pairs=(10.0,),
        note="The term is a mean over its pairs: where there are three, a pair by itself with beta 10 pulls as hard as "
             "each of them with beta 30."),
    "forms": Study(
        question="Does another form help: correlations about the mean, hubs weighed down, prototypes of classes?",
        terms=(*weighed(1.0, 10.0, 100.0), *weighed(1.0, 10.0, 100.0, centred=True),
               *weighed(1.0, 10.0, hubs="degree"),
               *(Objective(others={"class_prototype_correlation": beta}) for beta in (1.0, 10.0)))),
    "learned": Study(
        question="Does it help to learn the weights of all terms beside the student (arXiv 1705.07115)?",
        terms=weighed(1.0, 10.0), common={"uncertainty": True},
        note="All students of this table learn the weight of each of their terms, the plain one too."),
    "labels": Study(
        question="How does it change with the share of labels?", terms=weighed(0.1, 1.0, 10.0),
        conditions=tuple(Condition(labels=share) for share in (0.01, 0.05, 0.2)),
        note="All seeds share one draw of the labelled nodes. There are as many validation nodes as training nodes, or "
             "all of the split's; the tested nodes are the same for every share."),
    "noise": Study(
        question="How does it change with noise in the edges?", terms=weighed(0.1, 1.0, 10.0),
        conditions=tuple(Condition(noise=share, features="target") for share in (0.0, 0.25, 0.5)),
        note="All seeds share one draw of the noise. Teacher and student see the same noisy graph; every node keeps "
             "its number of edges. Only the target has features: those of other types would tell the true edges."),
}
