"""Where relational knowledge helps, and why: what is tried beside the relation-level term of the tables.

Command: python -m experiments.relational
Cost: see experiments/results/relational/README.md.

Every study varies one thing. Its objectives are trained with the relation-level term alone ("alone") and on top of the
node-level term ("with node-level"), whose weight and temperature are those that the HIRE table chose for RGCN on
imdb_gtn. All that is tried is printed; nothing is chosen.
"""

import dataclasses
from collections.abc import Sequence

from hire_jax import Objective

STUDENT = Objective()
NODE = Objective(soft_target_kl=4.0, temperature=2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """What is done to the data before teacher and student see it.

    labels: share of the target nodes that are training nodes; None leaves the split as it is.
    noise: share of the edges of every relation that lead to a node drawn at random instead.
    """

    labels: float | None = None
    noise: float = 0.0

    def __str__(self) -> str:
        words = [] if self.labels is None else [f"{100 * self.labels:g} % labels"]
        return ", ".join(words + ([f"{100 * self.noise:g} % noise"] if self.noise else [])) or "as it is"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One question: objectives compared with the plain student and with the node-level term alone.

    `pairs` adds each pair of node types by itself, with these weights of the term.
    """

    question: str
    terms: Sequence[Objective] = ()
    pairs: Sequence[float] = ()
    conditions: Sequence[Condition] = (Condition(),)


def weighed(*betas: float, **options: object) -> tuple[Objective, ...]:
    """The relation-level term with these weights."""
    return tuple(Objective(type_pair_correlation=beta, **options) for beta in betas)  # type: ignore[arg-type]


STUDIES: dict[str, Study] = {
    "variants": Study(
        question="Which variant: every node with every node, one prototype a type, or the ends of edges?",
        terms=(*weighed(1.0, 10.0, 100.0), *weighed(1.0, 10.0, 100.0, variant="prototype"),
               *weighed(1.0, 10.0, 100.0, variant="edges"))),
    "layers": Study(
        question="Which layers: the input projection (0), the hidden layer (1), or both?",
        terms=tuple(term for layers in ((0,), (1,), (0, 1)) for term in weighed(1.0, 10.0, layers=layers))),
    "pairs": Study(question="Which pairs of node types carry it?", pairs=(10.0,)),
    "forms": Study(
        question="Does another form help: centred correlations, hubs down-weighted, prototypes of classes, learned "
                 "weights of the terms?",
        terms=(*weighed(1.0, 10.0, 100.0, centred=True), *weighed(1.0, 10.0, hubs="degree"),
               *(Objective(others={"class_prototype_correlation": beta}) for beta in (1.0, 10.0)),
               Objective(type_pair_correlation=10.0, uncertainty=True))),
    "labels": Study(
        question="How does it change with the share of labels?", terms=weighed(1.0, 10.0),
        conditions=tuple(Condition(labels=share) for share in (0.01, 0.05, 0.2))),
    "noise": Study(
        question="How does it change with noise in the edges?", terms=weighed(1.0, 10.0),
        conditions=tuple(Condition(noise=share) for share in (0.0, 0.25, 0.5))),
}
