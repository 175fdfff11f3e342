"""One part of experiments.scale, in a process of its own, so that its peak of memory is its own.

    python -m experiments.scale_parts JSON

JSON holds the scale, the part, and the folders for results and graphs. Its result is one line of the store.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

import hire_jax as hj
from experiments.console import Tracker, track
from experiments.keys import key, plain
from experiments.memory import use_heap_for_large_arrays
from experiments.scale_graph import MappedGraph, folder_of, make, opened, whole
from experiments.scale_memory import Watch, largest_resident_set
from experiments.scale_plan import Part, Scale, config
from experiments.store import ResultStore
from hire_jax.parallel import SampledFit
from hire_jax.sampling import BatchSource
from hire_jax.teachers import TeacherError, TeacherRows, save_teacher_rows

LAYERS = 2
Found = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]  # metrics, facts and history, as `ResultStore` takes them


def run(scale: Scale, part: Part, out: Path, cache: Path, console: Console) -> None:
    """Does one part and puts it on disk.

    Args:
      scale, part: what to do.
      out: folder of the results; cache: of the graphs.
      console: for progress.
    """
    use_heap_for_large_arrays()
    store = ResultStore(out, console=console, checkpoints=True)
    start = time.perf_counter()
    if part.kind == "graph":
        metrics, facts, history = _graph(scale, part, cache, console)
    else:
        graph = opened(scale.recipe(part.share), cache)
        metrics, facts, history = (_memory(scale, part, graph) if part.kind == "memory" else
                                   _network(scale, part, graph, store, console))
    store.append(config(scale, part), seeds=[scale.seed], metrics=metrics, facts=facts, history=history,
                 seconds=time.perf_counter() - start)
    store.forget_checkpoints(config(scale, part))


def _graph(scale: Scale, part: Part, cache: Path, console: Console) -> Found:
    """Makes a graph that is not there yet."""
    if not folder_of(scale.recipe(part.share), cache).exists():
        console.print(f"{part.label}: making it", highlight=False)
        make(scale.recipe(part.share), cache, largest_resident_set)
    graph = opened(scale.recipe(part.share), cache)
    splits = {name: int(mask.sum()) for name, mask in graph.splits.items()}
    facts = graph.facts | {"nodes": graph.nodes, "edges": graph.edges, "counts": graph.host.counts, "splits": splits}
    return {"nodes": [graph.nodes], "edges": [graph.edges]}, facts, {}


def _network(scale: Scale, part: Part, graph: MappedGraph, store: ResultStore, console: Console) -> Found:
    """Trains a network by sampling, then takes its outputs on the whole graph; a teacher's are kept."""
    expert = config(scale, Part("teacher", part.share))
    rows = store.folder / "teachers" / key(expert)
    teacher = None
    if part.kind == "HIRE":
        try:
            teacher = TeacherRows(rows, config=plain(expert, "config"))
        except (FileNotFoundError, TeacherError) as error:
            raise SystemExit(f"{error}\nTo train that teacher again, remove the line of {key(expert)} from "
                             f"{store.folder / 'results.jsonl'}") from error
    with Watch() as training:
        result = _trained(scale, part, graph, teacher, store, console)
    start = time.perf_counter()
    console.print(f"{part.label}: outputs on the whole graph", highlight=False)
    with Watch() as forward:
        output = jax.block_until_ready(jax.jit(result.model.apply)(result.params, whole(graph)))
    right = np.asarray(output.logits).argmax(axis=1) == graph.labels
    seconds = time.perf_counter() - start
    peak = largest_resident_set()
    if part.kind == "teacher":
        # The relation-level term reads the layers between projection and last alone; the others need no place.
        kept = output._replace(hidden=({}, *output.hidden[1:-1], {}), attention=())
        save_teacher_rows(rows, kept, config=plain(expert, "config"))
    metrics = {"test_accuracy": [float(right[graph.splits["test"]].mean())],
               "train_accuracy": [float(right[graph.splits["train"]].mean())],
               **{name: [value] for name, value in result.metrics.items()}}
    facts = {"parameters": result.num_parameters, "train_seconds": result.seconds,
             "compile_seconds": result.compile_seconds, "compilations": result.compilations,
             "whole_seconds": seconds, "training": training.found(), "whole": forward.found(), "peak_bytes": peak,
             **_rates(result, scale)}
    return metrics, facts, {name: values[None] for name, values in result.history.items()}


def _trained(scale: Scale, part: Part, graph: MappedGraph, teacher: TeacherRows | None, store: ResultStore,
             console: Console) -> SampledFit:
    """`hire_jax.parallel.fit` on a random part of the training nodes that is as large as the steps can see."""
    hidden = scale.teacher_hidden if part.kind == "teacher" else scale.student_hidden
    # The types of the layers between the projection and the last, which the relation-level term compares.
    types = graph.host.shapes().receptive_field(graph.target, LAYERS)[1]
    objective = hj.Objective() if teacher is None else hj.Objective(
        soft_target_kl=scale.alpha, type_pair_correlation=scale.beta, temperature=scale.temperature)
    uniform = None if teacher is None else dict.fromkeys(types, scale.uniform)
    at_once = scale.batch_size * scale.devices
    epochs = -(-scale.steps * at_once // int(graph.splits["train"].sum()))
    in_epoch = -(-scale.steps // epochs)
    nodes = _some(graph.splits["train"], in_epoch * at_once, scale.seed)
    source = _source(scale, graph, nodes, scale.batch_size, uniform=uniform, teacher=teacher)
    validation = _source(scale, graph, _some(graph.splits["val"], scale.validation_nodes, scale.seed),
                         scale.batch_size, shuffle=False)
    with (track(epochs * in_epoch, part.label, console=console) as tracker,
          store.checkpoints(config(scale, part)) as checkpoints):
        tracker.update(0, f"{part.label}: compiling")  # a first step with that in it tells nothing of the others
        return hj.parallel.fit(
            _model(scale, graph, hidden), source, validation=validation, objective=objective, epochs=epochs,
            learning_rate=optax.cosine_decay_schedule(scale.learning_rate, epochs * in_epoch),
            weight_decay=scale.weight_decay, monitor="val_accuracy", seed=scale.seed, devices=scale.devices,
            workers=scale.workers, prefetch=scale.prefetch, checkpoints=checkpoints,
            every=max(1, epochs * in_epoch // 5), progress=_progress(tracker, part.label, in_epoch))


def _memory(scale: Scale, part: Part, graph: MappedGraph) -> Found:
    """Memory of a few steps of the teacher on batches of the part's size."""
    with Watch() as before:
        pass
    with Watch() as training:
        nodes = _some(graph.splits["train"], scale.memory_steps * part.batch_size * scale.devices, scale.seed)
        result = hj.parallel.fit(
            _model(scale, graph, scale.teacher_hidden), _source(scale, graph, nodes, part.batch_size), epochs=1,
            learning_rate=scale.learning_rate, weight_decay=scale.weight_decay, seed=scale.seed,
            devices=scale.devices, workers=scale.workers, prefetch=scale.prefetch)
    steps = result.metrics["steps"] * scale.devices
    found = {"nodes_a_batch": [result.nodes / steps], "edges_a_batch": [result.edges / steps]}
    found |= {f"{name}_before": [value] for name, value in before.found().items() if value is not None}
    found |= {name: [value] for name, value in training.found().items() if value is not None}
    return found, {}, {}


def _model(scale: Scale, graph: MappedGraph, hidden: int) -> Any:
    return hj.models.RGCN(target=graph.target, num_classes=graph.num_classes, hidden=hidden, layers=LAYERS,
                          dropout=scale.dropout)


def _source(scale: Scale, graph: MappedGraph, nodes: np.ndarray, batch_size: int, **options: Any) -> BatchSource:
    return BatchSource(graph.host, target=graph.target, nodes=nodes, batch_size=batch_size, fanouts=scale.fanouts,
                       labels=graph.labels, seed=scale.seed, **options)


def _some(mask: np.ndarray, number: int, seed: int) -> np.ndarray:
    """At most so many nodes of a split, drawn uniformly."""
    nodes = np.flatnonzero(mask)
    if nodes.size <= number:
        return nodes
    return np.random.default_rng(seed).choice(nodes, number, replace=False)


def _rates(result: SampledFit, scale: Scale) -> dict[str, float | None]:
    """Nodes and edges of batches a second, reverses included, and the share of the time that devices waited; None of a
    run that found all steps done."""
    if not result.nodes:
        return dict.fromkeys(("nodes_a_second", "edges_a_second", "seeds_a_second", "waited_share"))
    seeds = result.metrics["steps"] * scale.batch_size * scale.devices
    return {"nodes_a_second": result.nodes / result.seconds, "edges_a_second": result.edges / result.seconds,
            "seeds_a_second": seeds / result.seconds, "waited_share": result.waited_seconds / result.seconds}


def _progress(tracker: Tracker, label: str, in_epoch: int) -> Any:
    def progress(epoch: int, step: int, values: Mapping[str, float]) -> None:
        shown = "".join(f", {name.replace('_', ' ')} {values[name]:.3f}" for name in ("train_loss", "val_accuracy")
                        if name in values)
        tracker.update(epoch * in_epoch + step, label + shown)
    return progress


def main(text: str) -> None:
    """Runs the part that `text` describes; Ctrl-C and SIGTERM end it quietly, as the parent says what is to be said."""
    job = json.loads(text)
    with _quiet_interrupt():
        run(Scale.from_json(job["scale"]), Part(**job["part"]), Path(job["out"]), Path(job["cache"]), Console())


def arguments(scale: Scale, part: Part, out: Path, cache: Path) -> str:
    """What `main` takes."""
    return json.dumps({"scale": dataclasses.asdict(scale), "part": dataclasses.asdict(part),
                       "out": str(out.absolute()), "cache": str(cache.absolute())})


@contextlib.contextmanager
def _quiet_interrupt() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as stop:
        sys.exit(stop.code or 143)  # the 0 with which `fit` ends at SIGTERM would tell that the part is finished


if __name__ == "__main__":
    main(sys.argv[1])
