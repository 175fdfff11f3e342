"""The cells of a study of the relation-level term: a teacher a condition, its plain student, and those it teaches."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np

import hire_jax as hj
from experiments.configs.relational import NODE, STUDENT, Condition, Study
from experiments.configs.tables import TABLES
from experiments.console import Tracker
from experiments.keys import key
from experiments.networks import build
from experiments.relational_data import conditioned
from experiments.store import ResultStore
from experiments.tables_cells import Job, Pair
from hire_jax.losses import type_pair_correlation
from hire_jax.terms import matched_layers


@dataclasses.dataclass(frozen=True)
class Setup:
    """One model on one graph under one condition: `pair` is that of the tables, on the data under the condition."""

    pair: Pair
    condition: Condition

    @classmethod
    def of(cls, dataset_name: str, dataset: hj.Dataset, model: str, condition: Condition, seeds: int,
           epochs: int | None = None, hidden: int | None = None, devices: int | None = None) -> "Setup":
        """Teacher and student of the tables' compressed setting. Raises ValueError for data that cannot have it."""
        table = dataclasses.replace(TABLES["hire"], setting="compressed", seeds=seeds)
        data = conditioned(dataset, condition)
        return cls(Pair(dataset_name, data, model, table, epochs, hidden, devices), condition)

    @cached_property
    def types(self) -> list[str]:
        """The node types of the hidden layer. Raises ValueError where there are not two of them."""
        model = build(self.pair.model, self.pair.networks["student"], self.pair.data)
        output: Any = jax.eval_shape(lambda graph: model.init_with_output(jax.random.key(0), graph)[0],
                                     self.pair.data.graph)
        return list(matched_layers(output.hidden, output.hidden, None, "type_pair_correlation")[0][0])

    def teacher(self) -> Job:
        """The teacher, with all seeds."""
        return self._of_study(self.pair.teacher())

    def student(self, objective: hj.Objective) -> Job:
        """A student beside the teacher, which a plain one does not learn from but is compared with."""
        job = self._of_study(self.pair.job("student", "student", objective, self.pair.table.seeds, 0))
        teacher = self.teacher().config
        return dataclasses.replace(job, config={**job.config, "teacher": key(teacher)}, teacher=teacher)

    def plan(self, study: Study) -> list[Job]:
        """The cells of a study under this condition."""
        return [self.teacher(), *(self.student(objective) for objective in objectives(study, self.types))]

    def outputs(self, job: Job, store: ResultStore, tracker: Tracker, done: float) -> hj.ModelOutput:
        """What the teachers of a student's seeds say. They are trained where their parameters are missing."""
        teacher = self.teacher()
        if store.load_arrays(key(teacher.config)) is None:
            self.train(teacher, None, store, tracker, done, record=store.finished(teacher.config) is None)
        return self.pair.outputs(job, store)

    def train(self, job: Job, teacher: hj.ModelOutput | None, store: ResultStore, tracker: Tracker, done: float, *,
              record: bool = True) -> None:
        """Trains one cell and puts it on disk: a teacher, or with the `outputs` of one a student."""
        def facts(result: hj.FitResult) -> Mapping[str, Any]:
            if teacher is None:
                return {}
            model = build(self.pair.model, job.network, self.pair.data)
            return {"distances": distances(hj.predict(model, result.params, self.pair.data.graph), teacher)}

        name = job.label if teacher is None else words(job.objective)
        self.pair.fit(f"{self.condition}, {name}", job, store, tracker, done, record=record, keep=teacher is None,
                      facts=facts, teacher=teacher if job.objective.needs_teacher else None)

    def _of_study(self, job: Job) -> Job:
        """The cell under the name of this experiment, and with its condition."""
        config = {name: value for name, value in job.config.items() if name != "setting"}
        return dataclasses.replace(job, config=config | {"experiment": "relational", "condition": self.condition})


def objectives(study: Study, types: Sequence[str]) -> list[hj.Objective]:
    """The objectives of a study: plain student, node-level term, every other term alone, and every one with it."""
    pairs = [hj.Objective(type_pair_correlation=beta, group_weights={name: 0.0 for name in types if name not in pair})
             for beta in study.pairs for pair in itertools.combinations(types, 2)]
    terms = [dataclasses.replace(term, **study.common) for term in (*study.terms, *pairs)]
    references = [dataclasses.replace(reference, **study.common) for reference in (STUDENT, NODE)]
    return [*references, *terms, *(with_node_level(term) for term in terms)]


def with_node_level(term: hj.Objective) -> hj.Objective:
    """A term on top of the node-level one."""
    return dataclasses.replace(term, soft_target_kl=NODE.soft_target_kl, temperature=NODE.temperature)


def words(objective: hj.Objective) -> str:
    """What a student is taught by."""
    said = ["node-level"] if objective.soft_target_kl else []
    if objective.type_pair_correlation:
        options = [f"beta {objective.type_pair_correlation:g}"]
        if objective.variant != "all_pairs":
            options.append({"prototype": "prototypes", "edges": "ends of edges"}[objective.variant])
        if objective.layers is not None:
            options.append(f"layer{'s' * (len(objective.layers) > 1)} {' and '.join(map(str, objective.layers))}")
        if objective.centred:
            options.append("about the mean")
        if objective.hubs is not None:
            options.append("hubs weighed down")
        if objective.group_weights:
            options.append(f"without {' and '.join(str(name) for name, _ in objective.group_weights)}")
        said.append(", ".join(options))
    for name, weight in dict(objective.others).items():
        said.append(f"beta {weight:g}, {'prototypes of classes' if name == 'class_prototype_correlation' else name}")
    return " + ".join(said) or "labels alone"



def distances(students: hj.ModelOutput, teachers: hj.ModelOutput) -> dict[str, float]:
    """{"a - b": how far the students' correlations of two node types are from their teachers'}, the mean over seeds.

    The value of the relation-level term of one pair of types: all nodes with all nodes, first hidden layer.
    """
    s, t = matched_layers(students.hidden, teachers.hidden, None, "type_pair_correlation")[0]
    found = {}
    for a, b in itertools.combinations(list(s), 2):
        each = jax.vmap(type_pair_correlation)({a: s[a], b: s[b]}, {a: t[a], b: t[b]})
        found[f"{a} - {b}"] = float(np.mean(each))
    return found
