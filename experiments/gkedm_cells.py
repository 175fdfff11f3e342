"""The cells of the GKEDM experiments: a backbone, the module on it, a student of the module, and how each is trained.

A cell names the cells it needs: the backbone it begins with, the teacher it learns from. `run` trains what is missing,
those first, and keeps the parameters of all that another cell needs.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import hire_jax as hj
from experiments.cells import stored_parameters, train_cell
from experiments.configs.baselines import Baseline
from experiments.configs.gkedm import BACKBONES, ROOTED, Module
from experiments.console import Tracker, track
from experiments.fingerprint import fingerprint
from experiments.keys import key
from experiments.networks import build, count_parameters, coupled_adam, row_normalised
from experiments.store import ResultStore


@dataclasses.dataclass(frozen=True)
class Job:
    """One cell. Without `module` it is the backbone alone; `start` gives the module its backbone's parameters."""

    label: str
    dataset: str
    model: str
    backbone: Baseline
    config: Mapping[str, Any]
    module: Module | None = None
    objective: hj.Objective = dataclasses.field(default_factory=hj.Objective)
    start: "Job | None" = None
    teacher: "Job | None" = None

    @property
    def epochs(self) -> int:
        """At most so many."""
        return (self.module or self.backbone).epochs


@dataclasses.dataclass(frozen=True)
class Cells:
    """Makes the cells of one graph; equal arguments give equal cells, whichever claim asks for them."""

    name: str
    dataset: hj.Dataset
    seeds: int
    epochs: int | None = None

    def alone(self, label: str, model: str, backbone: Baseline) -> Job:
        """A backbone by itself."""
        backbone = self._shortened(backbone)
        return Job(label, self.name, model, backbone, self._config(model, backbone, None, hj.Objective()))

    def lifted(self, label: str, start: Job, module: Module, *, objective: hj.Objective | None = None,
               teacher: Job | None = None) -> Job:
        """The module on the backbone that `start` trained, with or without a teacher."""
        module, objective = self._shortened(module), objective or hj.Objective()
        taught = teacher if objective.needs_teacher else None
        config = self._config(start.model, start.backbone, module, objective)
        config |= {"start": key(start.config), "teacher": None if taught is None else key(taught.config)}
        return Job(label, self.name, start.model, start.backbone, config, module, objective, start, taught)

    def widened(self, label: str, model: str, backbone: Baseline, parameters: int) -> Job:
        """The backbone at the smallest width with at least so many parameters, for as many epochs as two stages."""
        def enough(multiple: int) -> bool:
            wide = dataclasses.replace(backbone, hidden=multiple * backbone.heads)
            return count_parameters(network(model, wide, self.dataset), self.dataset) >= parameters

        multiple = 1 + bisect.bisect_left(range(1, 64 * 1024), True, key=enough)
        wide = dataclasses.replace(self._shortened(backbone), hidden=multiple * backbone.heads)
        wide = dataclasses.replace(wide, epochs=2 * wide.epochs)
        return Job(label, self.name, model, wide, self._config(model, wide, None, hj.Objective()))

    def _shortened(self, settings: Any) -> Any:
        return settings if self.epochs is None else dataclasses.replace(settings, epochs=self.epochs)

    def _config(self, model: str, backbone: Baseline, module: Module | None, objective: hj.Objective) -> dict:
        return {"experiment": "gkedm", "version": hj.__version__, "dataset": self.name,
                "split": self.dataset.meta["split"], "data": fingerprint(self.dataset), "model": model,
                "backbone": backbone, "module": module, "objective": objective, "seeds": self.seeds}


def network(model: str, backbone: Baseline, dataset: hj.Dataset, module: Module | None = None) -> Any:
    """The Flax module of a cell."""
    inner = build(model, backbone, dataset)
    if module is None:
        return inner
    return hj.models.GKEDM(backbone=inner, heads=module.heads, positions=module.positions > 0, readout=module.readout,
                           residual=model in ROOTED, attention_dropout=module.attention_dropout)


def with_needed(jobs: Iterable[Job]) -> dict[str, Job]:
    """{key: cell} of all cells and those they need, which come first."""
    ordered: dict[str, Job] = {}

    def need(job: Job) -> None:
        for other in (job.start, job.teacher):
            if other is not None:
                need(other)
        ordered.setdefault(key(job.config), job)

    for job in jobs:
        need(job)
    return ordered


def run(ordered: Mapping[str, Job], datasets: Mapping[str, hj.Dataset], store: ResultStore, console: Console,
        devices: int | None = None) -> None:
    """Trains every cell of `with_needed` that is not finished yet, with a progress bar over them."""
    finished = store.cells()
    kept = {key(other.config) for job in ordered.values() for other in (job.start, job.teacher) if other is not None}
    kept |= {name for name, job in ordered.items() if job.module is not None and job.teacher is None}  # to teach later
    missing = {name: job for name, job in ordered.items()
               if name not in finished or (name in kept and store.load_arrays(name) is None)}
    done = 0
    with track(sum(job.epochs for job in missing.values()), "starting", console=console) as tracker:
        for name, job in missing.items():
            train(job, datasets[job.dataset], store, tracker, done, devices=devices, keep=name in kept,
                  record=name not in finished)
            done += job.epochs
            tracker.update(done, f"{job.dataset}, {job.model}, {job.label}")


def train(job: Job, dataset: hj.Dataset, store: ResultStore, tracker: Tracker, done: int, *, devices: int | None,
          keep: bool, record: bool) -> None:
    """Trains one cell and puts it on disk, its parameters before its line."""
    stage = job.module or job.backbone
    optimizer = coupled_adam(stage.learning_rate, stage.l2)
    initialise, teacher = None, None
    if job.start is not None and job.module is not None:
        optimizer = hj.slow_backbone(optimizer, factor=job.module.backbone_rate)
        initialise = partial(hj.lift, backbone=stored_parameters(job.start.config, store))
    if job.teacher is not None:
        expert = network(job.teacher.model, job.teacher.backbone, dataset, job.teacher.module)
        teacher = hj.predict(expert, stored_parameters(job.teacher.config, store), dataset.graph, attention=True)
    train_cell(f"{job.dataset}, {job.model}, {job.label}", job.config, store, tracker, done, keep=keep, record=record,
               model=network(job.model, job.backbone, dataset, job.module), dataset=dataset, objective=job.objective,
               teacher=teacher, seeds=job.config["seeds"], epochs=job.epochs, patience=stage.patience,
               optimizer=optimizer, monitor="val_accuracy", devices=devices, initialise=initialise)


def positioned(dataset: hj.Dataset, k: int, cache: Path) -> hj.Dataset:
    """The dataset as the cells read it: rows of bags of words sum to 1, and k Laplacian positional encodings."""
    graph = row_normalised(dataset.graph)
    return dataset.with_graph(graph.with_positions(hj.positions.laplacian_positions(graph, k=k, cache=cache)))


def backbone_of(model: str, **changes: Any) -> Baseline:
    """The configuration of a backbone. Raises SystemExit for an unknown one."""
    if model not in BACKBONES:
        raise SystemExit(f"--backbones: unknown model {model!r}; configured are {', '.join(BACKBONES)}")
    return dataclasses.replace(BACKBONES[model], **changes)
