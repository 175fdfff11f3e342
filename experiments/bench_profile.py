"""Where the time of an epoch goes: every operation of the compiled program, by what it is for.

A chunk of epochs (one gradient step, one look at the validation nodes each) runs under `jax.profiler`. What an
operation is for is read from the name that XLA keeps of the code it was made from: the pass (training forward,
backward, validation) and the kind (matrix products, those that sum over rows for the gradient of weights apart; sparse
products; norm and GELU; dropout; what else the model does). Profiling slows an epoch a little: the time without it is
printed beside.

An operation lasts from its call to its end, waiting for a thread included. A moment in which several last is divided
among them, so that all of them and the moments without any add up to the time of the chunk; where more wait than there
are cores, shares are rough. An operation fused of several counts by the one name that XLA keeps, and one that XLA
writes anew has none: such products, and sums over many rows, stand under "other".

Examples:
  python -m experiments.bench_profile                                  # RGCN on the bundled IMDB
  python -m experiments.bench_profile --dataset dblp_hgb --model HGT
  python -m experiments.bench_profile --synthetic-edges 3200000        # the graph of experiments.bench_growth
  python -m experiments.bench_profile --smoke                          # in seconds, to see that it runs

It writes OUT/profile_DATASET_MODEL.json.
"""

import dataclasses
import gzip
import itertools
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console

import hire_jax as hj
from experiments.bench import cpu_name
from experiments.bench_contenders import OurEpochs, network
from experiments.bench_growth import between_types
from experiments.environment import environment
from experiments.memory import use_heap_for_large_arrays
from experiments.settings import load_named

PASSES = ("forward", "backward", "validation", "other")
KINDS = ("matrix products", "weights' gradients", "sparse products", "norm and GELU", "dropout", "rest of the model",
         "loss, AdamW, scores", "without a name")
NOTHING = "no operation"
# They only hold others, which are counted themselves.
CONTAINERS = {"while", "call", "conditional"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to look at."""

    dataset: str = "imdb_gtn"
    """NAME or NAME/SPLIT for `hire_jax.load_dataset`."""
    synthetic_edges: int | None = None
    """Instead of --dataset: edges between any nodes, ten a node, as in experiments.bench_growth."""
    model: Literal["RGCN", "HeteroSAGE", "HGT"] = "RGCN"
    """Which network; HGT has 4 heads. In a loop, as HAN's over pairs, XLA keeps no names to tell passes by."""
    hidden: int = 64
    """Width of every layer."""
    layers: int = 2
    """Number of relational convolutions."""
    epochs: int = 10
    """Epochs that are profiled; four times as many run before them, to warm up and to time."""
    longest: int = 10
    """How many single operations are listed."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file."""
    smoke: bool = False
    """Width 8 and 2 epochs: shows in seconds that everything runs. Kept apart in OUT/smoke."""


class Operation(NamedTuple):
    """One operation of the compiled program."""

    shape: str  # of its result
    code: str  # XLA's word for what it is
    origin: str  # the path of names in the traced code
    over_rows: bool  # a product that sums over the rows of both its sides


def main(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Trains, profiles, prints a table and a list, writes JSON; returns what it holds."""
    console = console or Console()
    if settings.smoke:
        settings = dataclasses.replace(settings, hidden=8, epochs=2, out=settings.out / "smoke")
    name, dataset = load(settings)
    use_heap_for_large_arrays()
    epochs = OurEpochs(dataset, network(dataset, settings), epochs=settings.epochs)
    epochs()
    plain = 1e3 * float(np.median([epochs() for _ in range(3)]))
    operations = operations_of(epochs.compiled.as_text())
    profiled, intervals = profile(epochs, operations)
    taken = {operation: 1e3 * seconds / settings.epochs
             for operation, seconds in shares(intervals, profiled * settings.epochs).items()}
    table = by_purpose(taken, operations, settings.model)
    facts = {
        "settings": dataclasses.asdict(settings) | {"out": str(settings.out)},
        "environment": environment() | {"cpu": cpu_name()},
        "milliseconds": plain, "milliseconds_profiled": 1e3 * profiled,
        "by_purpose": {kind: {which: table[kind, which] for which in PASSES} for kind in (*KINDS, NOTHING)},
        "operations": {operation: {"milliseconds": taken[operation], **operations[operation]._asdict()}
                       for operation in sorted(taken, key=lambda operation: -taken[operation])
                       if operation != NOTHING},
    }  # fmt: skip
    report(name, facts, settings, console)
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / f"profile_{name}_{settings.model.lower()}.json"
    path.write_text(json.dumps(facts, indent=1))
    console.print(f"All operations: {path}", soft_wrap=True, highlight=False)
    return facts


def load(settings: Settings) -> tuple[str, hj.Dataset]:
    """The graph and its name. Exits where an option cannot be used."""
    for option, least in (("epochs", 1), ("longest", 0), ("synthetic_edges", 1000)):
        value = getattr(settings, option)
        if value is not None and value < least:
            raise SystemExit(f"--{option.replace('_', '-')}: expected {least} or more, got {value}")
    if settings.synthetic_edges is not None:
        return (f"synthetic_{settings.synthetic_edges}",
                between_types(settings.synthetic_edges, settings.synthetic_edges // 10))
    return settings.dataset.replace("/", "_"), load_named(settings.dataset)


def report(name: str, facts: Mapping[str, Any], settings: Settings, console: Console) -> None:
    """Prints the time by purpose, and the operations that take longest."""
    console.print(f"{name}, {settings.model}, width {settings.hidden}: an epoch takes {facts['milliseconds']:.2f} ms, "
                  f"under the profiler {facts['milliseconds_profiled']:.2f} ms", soft_wrap=True, highlight=False)
    total = sum(sum(row.values()) for row in facts["by_purpose"].values())
    lines = [["ms", *PASSES, "sum", "%"]]
    for kind, row in facts["by_purpose"].items():
        ms = sum(row.values())
        lines.append([kind, *(f"{row[which]:.2f}" if row[which] else "-" for which in PASSES), f"{ms:.2f}",
                      f"{100 * ms / total:.0f}"])
    console.print(hj.report.rich_table(lines))
    console.print("The longest operations, ms an epoch:", highlight=False)
    for operation, known in list(facts["operations"].items())[:settings.longest]:
        origin = "/".join(known["origin"].split("/")[-3:])
        console.print(f"{known['milliseconds']:8.2f}  {operation} {known['shape']} {origin}", soft_wrap=True,
                      highlight=False, markup=False)


# ------------------------------------------------------------------------------------- reading the profile


def operations_of(program: str) -> dict[str, Operation]:
    """{name: operation} of a compiled program's text."""
    found = {}
    for line in program.splitlines():
        if match := re.match(r"\s*(?:ROOT )?%([\w.\-]+) = (\S+|\(.*?\)) ([\w\-]+)\(", line):
            name, shape, code = match.groups()
            origin = re.search(r'op_name="([^"]*)"', line)
            over_rows = "lhs_contracting_dims={0}, rhs_contracting_dims={0}" in line
            shape = re.sub(r"\{.*?\}|/\*.*?\*/", "", shape)  # layouts and XLA's own comments
            found[name] = Operation(shape, code, origin.group(1) if origin else "", over_rows)
    return found


def profile(epochs: OurEpochs, operations: Mapping[str, Operation]) -> tuple[float, list[tuple[str, float, float]]]:
    """Seconds an epoch, and (operation, begin, end) in seconds of each that ran, those left out that only hold others.

    Raises:
      RuntimeError: the profile has no operation of the program.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            seconds = epochs()
        traces = sorted(Path(folder).rglob("*.trace.json.gz"))
        if not traces:
            raise RuntimeError(f"jax.profiler left no trace, jax {jax.__version__}")
        with gzip.open(traces[-1], "rt") as file:
            events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    intervals = [interval for interval in intervals_of(events)
                 if interval[0] in operations and operations[interval[0]].code not in CONTAINERS]
    if not intervals:
        raise RuntimeError(f"jax.profiler saw no operation of the program, jax {jax.__version__} on "
                           f"{jax.default_backend()}")
    return seconds, intervals


def intervals_of(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """(operation, begin, end) in seconds. One that goes on after its call ends where the trace says "end: NAME".

    Where a trace has not as many ends of an operation as calls, its calls alone are counted.
    """
    begun: dict[str, list[tuple[float, float]]] = {}
    ended: dict[str, list[float]] = {}
    for event in events:
        begin, end = 1e-6 * event["ts"], 1e-6 * (event["ts"] + event.get("dur", 0))
        if "hlo_op" in (event.get("args") or {}):
            begun.setdefault(event["args"]["hlo_op"], []).append((begin, end))
        elif event["name"].startswith("end: "):
            ended.setdefault(event["name"].removeprefix("end: "), []).append(end)
    found = []
    for name, calls in begun.items():
        calls, ends = sorted(calls), sorted(ended.get(name, []))
        if len(ends) != len(calls):
            ends = [end for _, end in calls]
        found += [(name, begin, max(end, last)) for (begin, end), last in zip(calls, ends, strict=True)]
    return found


def shares(intervals: Iterable[tuple[str, float, float]], seconds: float) -> dict[str, float]:
    """{operation: seconds}: each moment divided among those that run in it; `NOTHING` is the rest of `seconds`."""
    marks = sorted([(begin, 1, name) for name, begin, _ in intervals] + [(end, -1, name) for name, _, end in intervals])
    running: Counter[str] = Counter()
    taken: dict[str, float] = defaultdict(float)
    before = marks[0][0] if marks else 0.0
    for moment, change, name in marks:
        if number := running.total():  # an operation may run twice at once
            for one, times in running.items():
                taken[one] += (moment - before) * times / number
        running[name] += change
        if not running[name]:
            del running[name]
        before = moment
    taken[NOTHING] = max(seconds - sum(taken.values()), 0.0)
    return dict(taken)


def by_purpose(taken: Mapping[str, float], operations: Mapping[str, Operation],
               model: str) -> dict[tuple[str, str], float]:
    """{(kind, pass): the sum of its operations}, 0 where it has none."""
    table = dict.fromkeys(itertools.product((*KINDS, NOTHING), PASSES), 0.0)
    for name, amount in taken.items():
        table[(NOTHING, "other") if name == NOTHING else purpose(name, operations[name], model)] += amount
    return table


def purpose(name: str, operation: Operation, model: str) -> tuple[str, str]:
    """(kind, pass) of one operation of a program that trains `model`, from its origin."""
    origin, product = operation.origin, operation.code == "dot" or name.startswith("ynn_fusion")
    if operation.over_rows:
        return "weights' gradients", "backward"
    if not origin:
        return "matrix products" if product else "without a name", "other"
    of_model = re.search(rf"(transpose\()?(jvp\()?\b{model}\b", origin)
    if of_model is None:
        return "loss, AdamW, scores", "other"
    which = "backward" if of_model[1] else "forward" if of_model[2] else "validation"
    if "bcsr_dot_general" in origin:
        kind = "sparse products"
    elif "NormAct" in origin or "LayerNormGELU" in origin:
        kind = "norm and GELU"
    elif "Dropout" in origin:
        kind = "dropout"
    elif product or origin.endswith("dot_general"):
        kind = "matrix products"
    else:
        kind = "rest of the model"
    return kind, which


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.bench_profile", description=__doc__))
