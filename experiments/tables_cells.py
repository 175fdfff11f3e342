"""The cells of a table: teachers, students, and the search for each method's objective.

For one model on one graph: the teacher is trained with all seeds; every objective of a method's grid then trains a few
students of seeds of their own, taught by the first of those teachers; the one of the highest validation score trains
the student with all seeds. A cell is found by its configuration, whichever table asks for it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

import hire_jax as hj
from experiments.cells import stored_parameters, train_cell
from experiments.configs import baselines
from experiments.configs.baselines import Baseline
from experiments.configs.tables import (
    LARGEST_SHARE,
    METHODS,
    SEARCH_SEED,
    STUDENT,
    TEACHER,
    TEACHER_SEED,
    Method,
    Setting,
    Table,
)
from experiments.console import Tracker
from experiments.fingerprint import fingerprint
from experiments.keys import key
from experiments.networks import build, count_parameters, prepared
from experiments.store import Cell, ResultStore


@dataclasses.dataclass(frozen=True)
class Job:
    """One cell; `teacher` is the configuration of the cell it learns from."""

    label: str
    network: Baseline
    objective: hj.Objective
    config: Mapping[str, Any]
    teacher: Mapping[str, Any] | None = None
    shuffled: bool = False


@dataclasses.dataclass(frozen=True)
class Pair:
    """One model on one graph of a table, and how its cells are planned and trained."""

    dataset_name: str
    dataset: hj.Dataset
    model: str
    table: Table
    epochs: int | None = None
    hidden: int | None = None
    devices: int | None = None

    @property
    def networks(self) -> dict[str, Baseline]:
        """{"teacher": its network, "student": that of all methods}."""
        teacher = dataclasses.replace(baselines.baseline(self.dataset_name, self.model),
                                      **TEACHER.get((self.dataset_name, self.model), {}))
        if self.hidden is not None:
            teacher = dataclasses.replace(teacher, hidden=self.hidden)
        if self.epochs is not None:
            teacher = dataclasses.replace(teacher, epochs=self.epochs)
        return {"teacher": teacher, "student": student_of(teacher, self.table.setting)}

    @cached_property
    def data(self) -> hj.Dataset:
        """The dataset as the model reads it; teacher and student read the same."""
        return prepared(self.model, self.networks["teacher"], self.dataset)

    @cached_property
    def fingerprint(self) -> str:
        """Of the dataset."""
        return fingerprint(self.dataset)

    def check(self) -> None:
        """Raises SystemExit where a compressed student is too large."""
        sizes = {role: count_parameters(build(self.model, network, self.data), self.data)
                 for role, network in self.networks.items()}
        if self.table.setting == "compressed" and sizes["student"] > LARGEST_SHARE * sizes["teacher"]:
            raise SystemExit(f"{self.dataset_name}, {self.model}: a compressed student has at most "
                             f"{LARGEST_SHARE:.0%} of its teacher's {sizes['teacher']:,} parameters, but this one has "
                             f"{sizes['student']:,}; see STUDENT in experiments/configs/tables.py")

    def teacher(self) -> Job:
        """The teacher, with all seeds."""
        return self.job("teacher", "teacher", hj.Objective(), self.table.seeds, TEACHER_SEED)

    def candidates(self, label: str) -> list[Job]:
        """The search of a method: every objective of its grid with the first seeds; none where nothing is chosen."""
        grid = self.table.grid(label)
        if len(grid) < 2:
            return []
        return [self._student(f"{label} (search)", objective, self.table.tuning_seeds, METHODS[label], SEARCH_SEED)
                for objective in grid]

    def final(self, label: str, objective: hj.Objective) -> Job:
        """A method's student with all seeds."""
        return self._student(label, objective, self.table.seeds, METHODS[label])

    def chosen(self, label: str, cells: Mapping[str, Cell]) -> hj.Objective | None:
        """The objective of a method, by validation; None while its search is not finished."""
        grid = self.table.grid(label)
        if len(grid) == 1:
            return grid[0]
        found = [cells.get(key(job.config)) for job in self.candidates(METHODS[label].like or label)]
        scores = [float(np.mean(cell.metrics[self.monitor])) for cell in found if cell is not None]
        return grid[int(np.argmax(scores))] if len(scores) == len(grid) else None

    @property
    def monitor(self) -> str:
        """The validation score that decides epochs and objectives."""
        return self.networks["teacher"].monitor

    def missing(self, cells: Mapping[str, Cell]) -> Iterator[Job]:
        """What can be trained next, the teacher first; what a choice decides comes once the search is done."""
        teacher = self.teacher()
        if key(teacher.config) not in cells:
            yield teacher
        for label in self.table.methods:
            for job in self.candidates(METHODS[label].like or label):
                if key(job.config) not in cells:
                    yield job
            objective = self.chosen(label, cells)
            if objective is not None and key((job := self.final(label, objective)).config) not in cells:
                yield job

    def plan(self, cells: Mapping[str, Cell]) -> list[Job]:
        """Every cell of the pair; the first of its grid stands for an objective that is not chosen yet."""
        jobs = [self.teacher(), *(job for label in self._searched() for job in self.candidates(label))]
        for label in self.table.methods:
            jobs.append(self.final(label, self.chosen(label, cells) or self.table.grid(label)[0]))
        return jobs

    def _searched(self) -> list[str]:
        """The methods whose search the table's methods need, each once."""
        return list(dict.fromkeys(METHODS[label].like or label for label in self.table.methods))

    def train(self, job: Job, store: ResultStore, tracker: Tracker, done: float, *, record: bool = True) -> None:
        """Trains one cell and puts it on disk; first its teacher again where the parameters of that are lost."""
        if job.teacher is not None and store.load_arrays(key(job.teacher)) is None:
            self.train(self.teacher(), store, tracker, done, record=False)
        self.fit(f"{self.dataset_name}, {self.model}, {job.label}", job, store, tracker, done, record=record,
                 keep=job.label == "teacher", teacher=None if job.teacher is None else self.outputs(job, store))

    def fit(self, name: str, job: Job, store: ResultStore, tracker: Tracker, done: float, **arguments: Any) -> None:
        """Trains one cell as its network says; `arguments` are further ones of `train_cell`, such as its teacher."""
        network = job.network
        train_cell(name, job.config, store, tracker, done, model=build(self.model, network, self.data),
                   dataset=self.data, objective=job.objective,
                   seeds=range(job.config["first_seed"], job.config["first_seed"] + job.config["seeds"]),
                   epochs=network.epochs, patience=network.patience, monitor=network.monitor,
                   learning_rate=network.learning_rate, weight_decay=network.weight_decay, devices=self.devices,
                   **arguments)

    def outputs(self, job: Job, store: ResultStore) -> hj.ModelOutput:
        """What the teachers of a taught cell's seeds say. Raises SystemExit where their parameters are missing."""
        assert job.teacher is not None
        params = jax.tree.map(lambda x: x[:job.config["seeds"]], stored_parameters(job.teacher, store))
        outputs = hj.predict(build(self.model, self.networks["teacher"], self.data), params, self.data.graph)
        return shuffled(outputs) if job.shuffled else outputs

    def _student(self, label: str, objective: hj.Objective, seeds: int, method: Method, first_seed: int = 0) -> Job:
        job = self.job(label, "student", objective, seeds, first_seed)
        if not objective.needs_teacher:
            return job
        teacher = self.teacher().config
        config = {**job.config, "teacher": key(teacher), "shuffled": method.shuffled}
        return dataclasses.replace(job, config=config, teacher=teacher, shuffled=method.shuffled)

    def job(self, label: str, role: str, objective: hj.Objective, seeds: int, first_seed: int) -> Job:
        """A cell of the teacher's or the student's network, which learns from no teacher yet."""
        network = self.networks[role]
        return Job(label, network, objective, {
            "experiment": "tables", "version": hj.__version__, "dataset": self.dataset_name,
            "split": self.dataset.meta["split"], "data": self.fingerprint, "model": self.model, "label": label,
            "setting": "teacher" if role == "teacher" else self.table.setting, "network": network,
            "objective": objective, "seeds": seeds, "first_seed": first_seed})


def student_of(teacher: Baseline, setting: Setting) -> Baseline:
    """The student's network of a teacher's."""
    changes = STUDENT[setting]
    if setting == "compressed":
        changes = changes | {"heads": min(teacher.heads, 2), "hidden": min(teacher.hidden // 4, changes["hidden"])}
    return dataclasses.replace(teacher, **changes)


def shuffled(outputs: hj.ModelOutput, seed: int = 0) -> hj.ModelOutput:
    """The outputs of every seed with their nodes in one other order a type: right on the whole, wrong on each node."""
    def rows(x: jax.Array) -> jax.Array:
        nodes = x.shape[1]  # one order for all arrays of so many nodes, so that a type's layers stay in step
        return x[:, np.random.default_rng((seed, nodes)).permutation(nodes)]

    return hj.ModelOutput(rows(outputs.logits), jax.tree.map(rows, outputs.hidden), ())
