"""The cells of a study of the relation-level term: a teacher a condition, its plain student, and those it teaches."""

import dataclasses
import itertools
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

import hire_jax as hj
from experiments.cells import stored_parameters, train_cell
from experiments.configs import baselines
from experiments.configs.baselines import Baseline
from experiments.configs.relational import NODE, STUDENT, Condition, Study
from experiments.configs.tables import TEACHER_SEED
from experiments.console import Tracker
from experiments.fingerprint import fingerprint
from experiments.keys import key
from experiments.networks import build, prepared
from experiments.relational_data import conditioned
from experiments.store import ResultStore
from experiments.tables_cells import Job, student_of
from hire_jax.losses import type_pair_correlation
from hire_jax.terms import matched_layers


@dataclasses.dataclass(frozen=True)
class Setup:
    """One model on one graph under one condition. Teacher and student are the compressed setting's of the tables."""

    dataset_name: str
    dataset: hj.Dataset
    model: str
    condition: Condition
    seeds: int
    epochs: int | None = None
    hidden: int | None = None
    devices: int | None = None

    @property
    def networks(self) -> dict[str, Baseline]:
        """{"teacher": its network, "student": that of all methods}."""
        changes = {name: getattr(self, name) for name in ("hidden", "epochs") if getattr(self, name) is not None}
        teacher = dataclasses.replace(baselines.baseline(self.dataset_name, self.model), **changes)
        return {"teacher": teacher, "student": student_of(teacher, "compressed")}

    @cached_property
    def data(self) -> hj.Dataset:
        """The dataset under the condition, as the model reads it."""
        return prepared(self.model, self.networks["teacher"], conditioned(self.dataset, self.condition))

    @cached_property
    def fingerprint(self) -> str:
        """Of the data under the condition."""
        return fingerprint(self.data)

    def teacher(self) -> Job:
        """The teacher, with all seeds."""
        return self._job("teacher", "teacher", STUDENT, TEACHER_SEED)

    def student(self, objective: hj.Objective) -> Job:
        """A student of the teacher, or a plain one where the objective has no term of a teacher."""
        job = self._job("student", "student", objective, 0)
        if not objective.needs_teacher:
            return job
        teacher = self.teacher().config
        return dataclasses.replace(job, config={**job.config, "teacher": key(teacher)}, teacher=teacher)

    def plan(self, study: Study) -> list[Job]:
        """The cells of a study under this condition: teacher, plain student, node-level term, and every other term
        alone and with it."""
        pairs = [dataclasses.replace(hj.Objective(type_pair_correlation=beta), group_weights=only)
                 for beta in study.pairs for only in self.each_pair()]
        terms = [*study.terms, *pairs]
        both = [with_node_level(term) for term in terms]
        return [self.teacher(), *(self.student(objective) for objective in (STUDENT, NODE, *terms, *both))]

    def each_pair(self) -> list[dict[str, float]]:
        """For every pair of node types of the hidden layer the weights that leave it alone."""
        types = self._hidden_types()
        return [{name: 0.0 for name in types if name not in pair} for pair in itertools.combinations(types, 2)]

    def train(self, job: Job, store: ResultStore, tracker: Tracker, done: float, *, record: bool = True) -> None:
        """Trains one cell and puts it on disk; first its teacher again where the parameters of that are lost."""
        network, taught = job.network, job.label != "teacher"
        # Plain students are compared with the teacher too, but learn nothing from it.
        teacher = self._teacher_outputs(store, tracker, done) if taught else None
        model = build(self.model, network, self.data)

        def facts(result: hj.FitResult) -> Mapping[str, Any]:
            return {} if teacher is None else {"distances": distances(
                hj.predict(model, result.params, self.data.graph), teacher)}

        train_cell(f"{self.dataset_name}, {self.model}, {self.condition}, {job.label}", job.config, store, tracker,
                   done, keep=not taught, record=record, facts=facts, model=model, dataset=self.data,
                   objective=job.objective, teacher=None if job.teacher is None else teacher,
                   seeds=range(job.config["first_seed"], job.config["first_seed"] + self.seeds), epochs=network.epochs,
                   patience=network.patience, monitor=network.monitor, learning_rate=network.learning_rate,
                   weight_decay=network.weight_decay, devices=self.devices)

    def _teacher_outputs(self, store: ResultStore, tracker: Tracker, done: float) -> hj.ModelOutput:
        config = self.teacher().config
        if store.load_arrays(key(config)) is None:
            self.train(self.teacher(), store, tracker, done, record=store.finished(config) is None)
        return hj.predict(build(self.model, self.networks["teacher"], self.data), stored_parameters(config, store),
                          self.data.graph)

    def _hidden_types(self) -> list[str]:
        """The node types of the hidden layer that is matched."""
        model = build(self.model, self.networks["student"], self.data)
        output: Any = jax.eval_shape(lambda graph: model.init_with_output(jax.random.key(0), graph)[0], self.data.graph)
        return list(matched_layers(output.hidden, output.hidden, None, "type_pair_correlation")[0][0])

    def _job(self, label: str, role: str, objective: hj.Objective, first_seed: int) -> Job:
        network = self.networks[role]
        return Job(label, network, objective, {
            "experiment": "relational", "version": hj.__version__, "dataset": self.dataset_name,
            "split": self.data.meta["split"], "data": self.fingerprint, "model": self.model,
            "condition": self.condition, "label": label, "network": network, "objective": objective,
            "seeds": self.seeds, "first_seed": first_seed})


def with_node_level(term: hj.Objective) -> hj.Objective:
    """A term on top of the node-level one."""
    return dataclasses.replace(term, soft_target_kl=NODE.soft_target_kl, temperature=NODE.temperature)


def distances(students: hj.ModelOutput, teachers: hj.ModelOutput) -> dict[str, float]:
    """{"a - b": how far the students' correlations of two node types are from their teachers'}, the mean over seeds.

    The value of the relation-level term of one pair of types (all nodes with all nodes, hidden layer).
    """
    [(s, t), *_] = matched_layers(students.hidden, teachers.hidden, None, "type_pair_correlation")
    found = {}
    for a, b in itertools.combinations(s, 2):
        each = jax.vmap(type_pair_correlation)({a: s[a], b: s[b]}, {a: t[a], b: t[b]})
        found[f"{a} - {b}"] = float(np.mean(each))
    return found
