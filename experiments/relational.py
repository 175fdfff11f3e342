"""Where relational knowledge helps, and why: the relation-level term of HIRE, one thing varied at a time.

Which variant of the term, which layers, which pairs of node types, which other forms, learned weights, how many labels,
how noisy the edges: every study (experiments/configs/relational.py) trains students by the term alone and by the term
on top of the node-level one, ten seeds as one program, and compares them with the plain student and with the node-level
term alone, paired by seed. Finished cells are lines on disk: a run that is stopped or killed goes on with the same
command.

Examples:
  python -m experiments.relational                                # all studies on imdb_gtn, RGCN
  python -m experiments.relational --studies variants layers
  python -m experiments.relational --dataset dblp_hgb --root FOLDER --studies labels
  python -m experiments.relational --smoke --studies pairs        # narrow, 3 epochs, 2 seeds: to try it out
  python -m experiments.relational --render --out experiments/results/relational   # draw again from the lines
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console

import hire_jax as hj
from experiments import relational_report
from experiments.configs.relational import STUDIES
from experiments.console import track
from experiments.keys import key
from experiments.memory import use_heap_for_large_arrays
from experiments.relational_cells import Setup, words
from experiments.settings import TrainingSettings, load_named, provide_devices, resumable
from experiments.store import ResultStore

StudyName = Literal["variants", "layers", "pairs", "forms", "learned", "labels", "noise"]


@dataclasses.dataclass(frozen=True)
class Settings(TrainingSettings):
    """What to run or draw."""

    seeds: int = 10
    out: Path = Path("runs/relational")
    dataset: str = "imdb_gtn"
    """A bundled name, or NAME of a NAME.npz in --root or $HIRE_JAX_DATA; NAME/SPLIT for another split."""
    model: Literal["RGCN", "HGT", "SimpleHGN", "HeteroSAGE", "IEHGCN"] = "RGCN"
    """One that has embeddings of several node types in its hidden layers."""
    studies: tuple[StudyName, ...] = get_args(StudyName)
    """These only."""
    render: bool = False
    """Instead: draw what is finished of them from the lines in --out; needs no dataset and trains nothing."""


def main(settings: Settings, console: Console | None = None) -> None:
    """Runs what is missing, then draws every study. Ctrl-C leaves finished cells on disk and exits with status 130."""
    console = console or Console()
    use_heap_for_large_arrays()
    provide_devices(settings.devices)
    if not settings.studies:
        raise SystemExit(f"--studies: expected at least one of {', '.join(STUDIES)}")
    if settings.smoke:
        settings = dataclasses.replace(settings, epochs=settings.epochs or 3, out=settings.out / "smoke", seeds=2)
    store = ResultStore(settings.out, checkpoints=settings.checkpoints)
    if not settings.render:
        setups = {name: setups_of(name, settings) for name in settings.studies}
        with resumable(settings.out, console):
            run(setups, store, console)
        store.write_csv()
    drawn = [relational_report.render(name, settings.dataset, settings.model, settings.seeds, store, console)
             for name in settings.studies]
    if not any(drawn):
        raise SystemExit(f"{store.folder}: no finished cell of {', '.join(settings.studies)} on {settings.dataset}, "
                         f"{settings.model} with {settings.seeds} seeds")


def setups_of(name: StudyName, settings: Settings) -> list[Setup]:
    """The conditions of a study, in its order. Raises SystemExit where the data cannot be brought under one."""
    dataset = load_named(settings.dataset, settings.root)
    setups = []
    for condition in STUDIES[name].conditions:
        try:
            setups.append(Setup.of(settings.dataset, dataset, settings.model, condition, settings.seeds,
                                   settings.epochs, 32 if settings.smoke else None, settings.devices))
            setups[-1].plan(STUDIES[name])
        except ValueError as error:
            raise SystemExit(f"--studies: {name!r} cannot be run on {settings.dataset} with {settings.model} "
                             f"({condition}): {error}") from error
    return setups


def run(setups: Mapping[StudyName, list[Setup]], store: ResultStore, console: Console) -> None:
    """Trains every cell that is not finished yet, with a progress bar over them; cells of two studies once."""
    jobs = {key(job.config): (setup, job) for name, of_study in setups.items() for setup in of_study
            for job in setup.plan(STUDIES[name])}
    finished = store.cells()
    left = {name: job for name, job in jobs.items() if name not in finished}
    console.print(f"{len(jobs)} cells, {len(left)} to train; results in {store.folder}", soft_wrap=True,
                  highlight=False)
    done, teacher = 0, None
    with track(sum(job.network.epochs for _, job in left.values()), "starting", console=console) as tracker:
        for setup, job in left.values():
            if job.teacher is not None and teacher != key(job.teacher):
                outputs: hj.ModelOutput = setup.outputs(job, store, tracker, done)
                teacher = key(job.teacher)
            if store.finished(job.config) is None:  # a teacher may have been trained for its student
                setup.train(job, None if job.teacher is None else outputs, store, tracker, done)
            done += job.network.epochs
            tracker.update(done, f"{setup.condition}, {job.label if job.teacher is None else words(job.objective)}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.relational", description=__doc__))
