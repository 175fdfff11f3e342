"""HIRE on a heterogeneous graph: trains a teacher, then a smaller student with and without its knowledge.

For every model the teacher is trained first, then the same student alone and with each kind of distillation;
seed i's teacher teaches seed i's student. Finished cells are kept on disk: a run that was stopped goes on
where it was. Results: a table here, and in --out seed-level JSON lines, a CSV and a figure.

Examples:
  python -m experiments.hire                                    # bundled IMDB, RGCN and HGT, 5 seeds
  python -m experiments.hire --smoke                            # the same in two minutes, to see that it runs
  python -m experiments.hire --variants all_pairs prototype edges --seeds 10
  python -m experiments.hire --dataset dblp_hgb --split magnn --root FOLDER --models RGCN
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from rich.console import Console

import hire_jax as hj
from experiments.cells import stored_parameters, train_cell
from experiments.configs.hire import DISTILLATION, TRAINING, Distillation, Network
from experiments.console import Tracker, track
from experiments.fingerprint import fingerprint
from experiments.keys import key
from experiments.memory import use_heap_for_large_arrays
from experiments.settings import GraphSettings, TrainingSettings, load_named, provide_devices, resumable
from experiments.store import Cell, ResultStore

Method = Literal["plain", "node", "relation", "hire"]
Variant = Literal["all_pairs", "prototype", "edges"]


@dataclasses.dataclass(frozen=True)
class Settings(TrainingSettings, GraphSettings):
    """What to run. Numbers left at None come from experiments/configs/hire.py."""

    out: Path = Path("runs/hire")
    models: tuple[str, ...] = ("RGCN", "HGT")
    """Architectures: teacher and student are of the same kind."""
    methods: tuple[Method, ...] = ("plain", "node", "relation", "hire")
    """plain: no teacher. node: KL on logits. relation: type-pair correlations. hire: both."""
    variants: tuple[Variant, ...] = ("all_pairs",)
    """Of the relation-level term: every pair of nodes, one prototype a type, or the ends of edges."""
    teacher_hidden: int | None = None
    """Width of the teacher."""
    student_hidden: int | None = None
    """Width of the student."""
    alpha: float | None = None
    """Weight of the node-level term."""
    beta: float | None = None
    """Weight of the relation-level term."""
    temperature: float | None = None
    """Temperature of the node-level term."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the layers; parameters and losses stay float32."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One cell: a network, trained alone or by the teacher."""

    model: str
    label: str
    network: Network
    objective: hj.Objective
    config: Mapping[str, Any]
    teacher: "Job | None" = None  # of a student that has one


def main(settings: Settings, console: Console | None = None) -> list[hj.report.Record]:
    """Runs what is missing, prints the table, writes the files; returns the records of all cells.

    Ctrl-C leaves finished cells on disk, says where, and exits with status 130.
    """
    console = console or Console()
    use_heap_for_large_arrays()
    provide_devices(settings.devices)
    if settings.smoke:
        settings = dataclasses.replace(settings, seeds=max(2, settings.devices or 0), epochs=8, teacher_hidden=16,
                                       student_hidden=4, out=settings.out / "smoke")
    dataset = load_named(settings.dataset, settings.root, settings.split)
    check_relations(settings, dataset)
    jobs = list(plan(settings, dataset))
    store = ResultStore(settings.out, checkpoints=settings.checkpoints)
    console.print(f"{dataset!r}\n{len(jobs)} cells of {settings.seeds} seeds on {jax.device_count()} "
                  f"{jax.default_backend()} device(s); results in {settings.out}", soft_wrap=True, highlight=False)

    def finished() -> str:
        return f"{sum(store.finished(job.config) is not None for job in jobs)} of {len(jobs)}"

    with resumable(settings.out, console, finished):
        run(jobs, settings, dataset, store, console)
    return report(jobs, settings, store, console)


def plan(settings: Settings, dataset: hj.Dataset) -> Iterator[Job]:
    """The cells of a run, each model's teacher first."""
    for model in settings.models:
        if model not in TRAINING:
            raise SystemExit(f"--models: unknown model {model!r}; configured are {', '.join(TRAINING)}")
        teacher, student = (_override(network, epochs=settings.epochs, hidden=hidden) for network, hidden in
                            zip(TRAINING[model], (settings.teacher_hidden, settings.student_hidden), strict=True))
        weights = _override(DISTILLATION[model], alpha=settings.alpha, beta=settings.beta,
                            temperature=settings.temperature)
        shared = {"experiment": "hire", "version": hj.__version__, "dataset": settings.dataset,
                  "split": dataset.meta["split"], "data": fingerprint(dataset), "model": model,
                  "seeds": settings.seeds, "dtype": settings.dtype}
        plain = hj.Objective()
        expert = Job(model, "teacher", teacher, plain,
                     {**shared, "label": "teacher", "network": teacher, "objective": plain})
        yield expert
        for label, objective in objectives(settings, weights).items():
            teaches = expert if objective.needs_teacher else None
            config = {**shared, "label": label, "network": student, "objective": objective,
                      "teacher": None if teaches is None else key(teaches.config)}
            yield Job(model, label, student, objective, config, teaches)


def check_relations(settings: Settings, dataset: hj.Dataset) -> None:
    """Stops before any training when relation-level knowledge is asked for where there is none."""
    if not {"relation", "hire"} & set(settings.methods):
        return
    for model in settings.models:
        layers = TRAINING[model][1].layers if model in TRAINING else 2
        needed = dataset.graph.receptive_field(dataset.target, layers)
        if any(len(types) < 2 for types in needed[1:-1]) or len(needed) < 3:
            raise SystemExit(f"--methods: relation and hire correlate two node types, but a hidden layer of {model} on "
                             f"{settings.dataset} knows only {needed[-2]}; use --methods plain node")


def objectives(settings: Settings, weights: Distillation) -> dict[str, hj.Objective]:
    """{label: objective} of the students asked for."""
    node: dict[str, Any] = {"soft_target_kl": weights.alpha, "temperature": weights.temperature}
    found = {}
    for method in settings.methods:
        if method == "plain":
            found["student"] = hj.Objective()
        elif method == "node":
            found["+ node"] = hj.Objective(**node)
        else:
            for variant in settings.variants:
                suffix = "" if settings.variants == ("all_pairs",) else f" ({variant})"
                relation: dict[str, Any] = {"type_pair_correlation": weights.beta, "variant": variant}
                if method == "relation":
                    found["+ relation" + suffix] = hj.Objective(**relation)
                else:
                    found["HIRE" + suffix] = hj.Objective(**node, **relation)
    return found


def run(jobs: list[Job], settings: Settings, dataset: hj.Dataset, store: ResultStore, console: Console) -> None:
    """Trains every cell that is not finished yet, with a progress bar over them."""
    missing = [job for job in jobs if store.finished(job.config) is None]
    outputs: dict[str, hj.ModelOutput] = {}  # the latest teacher's, by the key of its config
    done = 0
    with track(sum(job.network.epochs for job in missing), "starting", console=console) as tracker:
        for job in missing:
            teacher = None
            if job.teacher is not None:
                teacher_key = key(job.teacher.config)
                if teacher_key not in outputs:
                    outputs = {teacher_key: teacher_outputs(job.teacher, settings, dataset, store)}
                teacher = outputs[teacher_key]
            result = train(job, settings, dataset, store, teacher, tracker, done)
            if job.label == "teacher":
                outputs = {key(job.config): result.outputs()}
            done += job.network.epochs
            tracker.update(done, f"{job.model}, {job.label}")


def train(job: Job, settings: Settings, dataset: hj.Dataset, store: ResultStore, teacher: hj.ModelOutput | None,
          tracker: Tracker, done: int) -> hj.FitResult:
    """Trains one cell and puts it on disk, a teacher with its parameters."""
    # Exact agreement of all labels is rare where a node has several, so there F1 decides.
    return train_cell(f"{job.model}, {job.label}", job.config, store, tracker, done, keep=job.label == "teacher",
                      model=build(job, settings, dataset), dataset=dataset, objective=job.objective, teacher=teacher,
                      seeds=settings.seeds, epochs=job.network.epochs, patience=job.network.patience,
                      monitor="val_macro_f1" if dataset.multilabel else "val_accuracy",
                      learning_rate=job.network.learning_rate, weight_decay=job.network.weight_decay,
                      devices=settings.devices)


def teacher_outputs(teacher: Job, settings: Settings, dataset: hj.Dataset, store: ResultStore) -> hj.ModelOutput:
    """The outputs of a teacher trained in an earlier run, from its stored parameters."""
    return hj.predict(build(teacher, settings, dataset), stored_parameters(teacher.config, store), dataset.graph)


def build(job: Job, settings: Settings, dataset: hj.Dataset) -> Any:
    """The Flax module of a cell."""
    arguments: dict[str, Any] = {"hidden": job.network.hidden, "layers": job.network.layers,
                                 "dropout": job.network.dropout}
    if job.model == "HGT":
        arguments["heads"] = job.network.heads
    if settings.dtype != "float32":
        arguments["dtype"] = jnp.dtype(settings.dtype)
    return getattr(hj.models, job.model)(target=dataset.target, num_classes=dataset.num_classes, **arguments)


def report(jobs: list[Job], settings: Settings, store: ResultStore, console: Console) -> list[hj.report.Record]:
    """Prints the table of all cells; writes results.csv, table.md, table.csv and hire.png."""
    cells, histories = store.cells(), store.histories()
    records = []
    for job in jobs:
        cell: Cell = cells[key(job.config)]
        records.append(hj.report.Record(model=job.model, method=job.label, seeds=cell.seeds, metrics=cell.metrics,
                                        parameters=cell.facts["parameters"], history=histories.get(cell.key, {})))
    title = f"{settings.dataset}, {settings.seeds} seeds"
    table = hj.report.results_table(records, baseline="student", title=title)
    console.print(table.to_rich())
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "table.md").write_text(table.to_markdown())
    (settings.out / "table.csv").write_text(table.to_csv())
    store.write_csv()
    figure = hj.figures.hire_figure(records, settings.out / "hire.png", title=title)
    seconds = sum(cells[key(job.config)].seconds for job in jobs)
    console.print(f"{len(jobs)} cells, {seconds:.0f} s of training and compiling. Seed-level lines, CSV and figure: "
                  f"{settings.out / 'results.jsonl'}, {settings.out / 'results.csv'}, {figure}",
                  soft_wrap=True, highlight=False)
    return records


def _override(config: Any, **changes: Any) -> Any:
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.hire", description=__doc__))
