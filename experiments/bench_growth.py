"""How time, memory and compilation of a training step grow with edges and with relations, on synthetic graphs.

Two questions, answered in one run:
  edges      10^4, 10^4.5, ... 10^7 edges in four relations between papers and authors. Nodes grow with the edges at
             --degree edges a node, as a graph of one kind does when there is more of it; so arrays leave the caches
             on the way, and the step between two sizes that does so is steeper than the rest. --nodes fixes them.
             Twice, one after the other: with edges between any nodes, and between nodes of nearby numbers, where
             rows that a sparse product reads soon after one another lie close together in memory.
             Printed: the slope of log time against log edges, fitted from 10^5 edges on.
  relations  2, 4, ... 128 relations, with all edges together and all nodes fixed, in two layouts: all relations
             between one pair of types (and back), where the package makes one product of them, and every relation
             from a node type of its own (and back), where it cannot. Printed: the seconds 128 of them compile.

Time is that of an epoch of `hire_jax.fit`, ten to a call as there: value and gradient of the loss, AdamW, and a look
at the validation nodes. Medians over --repeats turns, every size once a turn. Compile seconds are those of one call
of `compile_fit`, tracing and the first parameters included. Memory is what XLA's analysis of the compiled program
says: arguments (graph, parameters and optimiser state), results that take none of their places, and temporaries;
not the interpreter, nor what building the graph took. A size that does not fit the free memory is left out.

Examples:
  python -m experiments.bench_growth                             # RGCN, to 10^7 edges
  python -m experiments.bench_growth --model HGT --max-edges 1000000
  python -m experiments.bench_growth --smoke                     # in a minute, to see that it runs

It writes OUT/growth.json, growth_edges.png and growth_relations.png ("growth_hgt..." for another model than RGCN).
"""

import dataclasses
import gc
import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import hire_jax as hj
from experiments import bench_growth_figures
from experiments.bench import cpu_name
from experiments.bench_contenders import OurEpochs, in_turns, network
from experiments.bench_memory import program_bytes
from experiments.console import track
from experiments.environment import environment
from experiments.memory import use_heap_for_large_arrays

CHUNK = 10  # epochs a call, as in `fit`: at every call a large program's temporaries are mapped and faulted in anew
FIT_FROM = 100_000  # edges from which on the slope is fitted: below, fixed costs of a step count
ONE_PAIR, OWN_PAIRS = "one pair of types", "a pair each"
ANYWHERE, NEARBY = "any nodes", "nodes of nearby numbers"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    model: Literal["RGCN", "HeteroSAGE", "HGT"] = "RGCN"
    """Which network; HGT has 4 heads."""
    hidden: int = 64
    """Width of every layer."""
    layers: int = 2
    """Number of relational convolutions."""
    max_edges: int = 10_000_000
    """The largest number of edges. RGCN needs some 3 GiB at 10^7 edges, HGT far more."""
    degree: float = 10.0
    """Edges a node, over all relations and at every number of edges."""
    nodes: int | None = None
    """Instead of --degree: this many nodes at every number of edges."""
    max_relations: int = 128
    """The largest number of relations, those in the other direction included."""
    relation_edges: int = 100_000
    """Edges of all relations together, where the number of relations grows."""
    repeats: int = 5
    """Timings of each size."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file and the two plots."""
    smoke: bool = False
    """One layer of width 8, 2 repeats, to 10^5.5 edges and 4 relations: shows in a minute that everything runs. Kept
    apart in OUT/smoke."""


class Point:
    """One graph and the compiled epochs of the model on it; calling it trains, and returns seconds an epoch."""

    def __init__(self, dataset: hj.Dataset, settings: Settings) -> None:
        graph = dataset.graph
        model = network(dataset, settings)
        edges = sum(graph.num_edges.values())
        start = time.perf_counter()
        self.epochs = OurEpochs(dataset, model, epochs=CHUNK)
        compile_seconds = time.perf_counter() - start
        self.facts: dict[str, Any] = {
            "edges": edges, "nodes": sum(graph.num_nodes.values()), "relations": len(graph.edge_types),
            "node_types": len(graph.node_types), "compile_seconds": compile_seconds,
            "memory_bytes": program_bytes(self.epochs.compiled),
        }  # fmt: skip

    def __call__(self) -> float:
        return self.epochs()


def main(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints three tables and two slopes, writes JSON and plots; returns what the JSON holds."""
    console = console or Console()
    if settings.smoke:
        settings = dataclasses.replace(settings, hidden=8, layers=1, repeats=2, max_edges=320_000,
                                       max_relations=4, relation_edges=10_000, out=settings.out / "smoke")
    heap = use_heap_for_large_arrays()
    Point(between_types(1_000, 100), settings)()  # what only the first program of a process costs
    by_edges = {
        layout: measure(((str(e), make(e, settings.nodes or round(e / settings.degree)))
                         for e in edge_counts(settings.max_edges)), settings, console, f"edges between {layout}")
        for layout, make in ((ANYWHERE, between_types), (NEARBY, between_nearby))
    }
    nodes = settings.nodes or round(settings.relation_edges / settings.degree)
    by_relations = {
        layout: measure(((str(r), make(r, settings.relation_edges, nodes))
                         for r in relation_counts(settings.max_relations)), settings, console, layout)
        for layout, make in ((ONE_PAIR, between_one_pair), (OWN_PAIRS, between_own_pairs))
    }
    slope = {layout: slope_facts(rows) for layout, rows in by_edges.items()}
    facts: dict[str, Any] = {
        "settings": dataclasses.asdict(settings) | {"out": str(settings.out)},
        "environment": environment() | {"cpu": cpu_name(), "heap": heap},
        "memory": "XLA's analysis of the compiled program: arguments, results beside them, temporaries",
        "edges": by_edges, "relations": by_relations, "slope": slope,
    }  # fmt: skip
    report(facts, settings, console)

    name = "growth" if settings.model == "RGCN" else f"growth_{settings.model.lower()}"
    settings.out.mkdir(parents=True, exist_ok=True)
    paths = [settings.out / f"{name}{end}" for end in (".json", "_edges.png", "_relations.png")]
    paths[0].write_text(json.dumps(facts, indent=1))
    title = f"{settings.model}, width {settings.hidden}, {settings.layers} layers"
    try:
        bench_growth_figures.edges_figure(by_edges, slope, paths[1], title=title)
        bench_growth_figures.relations_figure(by_relations, paths[2], title=title)
    except ImportError as error:
        console.print(f"No plots: {error}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"All raw times: {paths[0]}", soft_wrap=True, highlight=False)
    return facts


def measure(datasets: Iterable[tuple[str, hj.Dataset]], settings: Settings, console: Console,
            what: str) -> list[dict[str, Any]]:
    """A row of facts for every dataset: sizes, memory, compile seconds, and the seconds of its turns."""
    points: dict[str, Point] = {}
    for name, dataset in datasets:
        point, free = Point(dataset, settings), free_bytes()
        if free is not None and point.facts["memory_bytes"] > 0.8 * free:
            console.print(f"{what}: {name} and what is larger is left out: its program needs "
                          f"{point.facts['memory_bytes'] / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
                          soft_wrap=True, highlight=False)
            break
        points[name] = point
    with track(settings.repeats + 2, f"{what}: {len(points)} sizes in turns", console=console) as tracker:
        seconds = in_turns(points, settings.repeats, tracker)
    rows = [point.facts | {"seconds": seconds[name]} for name, point in points.items()]
    del points
    gc.collect()
    return rows


# --------------------------------------------------------------------------------------------- graphs


def edge_counts(largest: int, smallest: int = 10_000) -> list[int]:
    """Half powers of ten from `smallest` to `largest`, rounded to two digits."""
    counts = [smallest * 10 ** (step // 2) * (1.0 if step % 2 == 0 else 3.2) for step in range(20)]
    return [round(count) for count in counts if count <= largest]


def relation_counts(largest: int) -> list[int]:
    """2, 4, 8, ... up to `largest`."""
    return [2**power for power in range(1, largest.bit_length()) if 2**power <= largest]


def between_types(edges: int, nodes: int) -> hj.Dataset:
    """Papers that cite papers and authors who write them, both ways: four relations with a quarter of the edges."""
    counts = {"paper": nodes // 2, "author": nodes - nodes // 2}
    relations = [("author", "writes", "paper"), ("paper", "cites", "paper")]
    return _synthetic(counts, relations, edges)


def between_nearby(edges: int, nodes: int) -> hj.Dataset:
    """`between_types` with as many edges, each between nodes that stand at about the same place of their type.

    Reverse relations are drawn by themselves, and are not the same links.
    """
    dataset, rng = between_types(edges, nodes), np.random.default_rng(0)
    graph, drawn = dataset.graph, {}
    for (source, relation, destination), count in graph.num_edges.items():
        ends = graph.num_nodes[source], graph.num_nodes[destination]
        place = np.sort(rng.random(count))
        drawn[source, relation, destination] = np.stack([
            np.clip((place * n).astype(np.int64) + rng.integers(-50, 51, count), 0, n - 1) for n in ends])
    return dataset.with_graph(hj.HeteroGraph.from_arrays(dict(graph.num_nodes), drawn, dict(graph.features)))


def between_one_pair(relations: int, edges: int, nodes: int) -> hj.Dataset:
    """Half of the relations from authors to papers, the others back."""
    counts = {"paper": nodes // 2, "author": nodes - nodes // 2}
    return _synthetic(counts, [("author", f"relation{i}", "paper") for i in range(relations // 2)], edges)


def between_own_pairs(relations: int, edges: int, nodes: int) -> hj.Dataset:
    """A star: half of the relations each from a type of its own to papers, the others back."""
    types = relations // 2
    rest = nodes - nodes // 2
    counts = {f"type{i}": (rest + i) // types for i in range(types)}
    return _synthetic({"paper": nodes // 2} | counts, [(name, "to", "paper") for name in counts], edges)


def _synthetic(counts: dict[str, int], relations: list[tuple[str, str, str]], edges: int) -> hj.Dataset:
    """The package's generator, every relation with as many edges as the next, its reverse added; 64 features."""
    degree = {relation: edges / (2 * len(relations)) / counts[relation[0]] for relation in relations}
    return hj.data.synthetic_hetero(counts, relations, mean_degree=degree, feature_width=64, feature_density=1.0)


# ------------------------------------------------------------------------------------ memory and slope


def free_bytes() -> int | None:
    """Memory that new arrays may take, of the accelerator or else of the machine; None where the system hides it."""
    if stats := jax.devices()[0].memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def fit_slope(edges: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(a, b) of seconds = b * edges^a, by least squares in logarithms; of two sizes or more."""
    slope, constant = np.polyfit(np.log(edges), np.log(seconds), 1)
    return float(slope), math.exp(constant)


def slope_facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The fit over the medians from FIT_FROM edges on, and the smallest and largest slope of a single turn.

    None where fewer than two sizes are that large.
    """
    large = [row for row in rows if row["edges"] >= 0.99 * FIT_FROM]  # a generator may miss some edges
    if len(large) < 2:
        return None
    edges = [row["edges"] for row in large]
    slope, factor = fit_slope(edges, [float(np.median(row["seconds"])) for row in large])
    turns = [fit_slope(edges, seconds)[0] for seconds in zip(*(row["seconds"] for row in large), strict=True)]
    return {"from_edges": edges[0], "slope": slope, "factor": factor, "turns": [min(turns), max(turns)]}


# ----------------------------------------------------------------------------------------------- print


def report(facts: dict[str, Any], settings: Settings, console: Console) -> None:
    """Three tables, the slopes, and the compile seconds of the most relations."""
    title = f"{settings.model}, width {settings.hidden}, {settings.layers} layers: one training step plus validation"
    for layout, rows in facts["edges"].items():
        table = Table("edges", "nodes", "ms", "quartiles", "slope", "MiB", "compile s",
                      title=f"{title}, edges between {layout}", title_justify="left")
        before = None
        for row in rows:
            median, *quartiles = (float(np.quantile(row["seconds"], q)) for q in (0.5, 0.25, 0.75))
            local = "" if before is None else f"{fit_slope(*zip(before, (row['edges'], median), strict=True))[0]:.2f}"
            table.add_row(f"{row['edges']:,}", f"{row['nodes']:,}", f"{1e3 * median:.1f}",
                          " - ".join(f"{1e3 * value:.1f}" for value in quartiles), local,
                          f"{row['memory_bytes'] / 2**20:.0f}", f"{row['compile_seconds']:.1f}")
            before = row["edges"], median
        console.print(table)
        if (slope := facts["slope"][layout]) is None:
            console.print(f"No slope: fewer than two sizes of {FIT_FROM:,} edges or more.", highlight=False)
        else:
            low, high = slope["turns"]
            console.print(f"Time grows as edges^{slope['slope']:.2f} from {slope['from_edges']:,} edges on "
                          f"({low:.2f} to {high:.2f} in single turns), edges between {layout}.", soft_wrap=True,
                          highlight=False)
    table = Table("relations", "between", "ms", "quartiles", "MiB", "compile s", title_justify="left",
                  title=f"{settings.relation_edges:,} edges in all")
    for layout, rows in facts["relations"].items():
        for row in rows:
            median, *quartiles = (1e3 * float(np.quantile(row["seconds"], q)) for q in (0.5, 0.25, 0.75))
            table.add_row(str(row["relations"]), layout, f"{median:.1f}", " - ".join(f"{q:.1f}" for q in quartiles),
                          f"{row['memory_bytes'] / 2**20:.0f}", f"{row['compile_seconds']:.1f}")
        table.add_section()
    console.print(table)
    for layout, rows in facts["relations"].items():
        if rows:
            console.print(f"{rows[-1]['relations']} relations, {layout}: compiled in "
                          f"{rows[-1]['compile_seconds']:.1f} s.", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Settings, prog="python -m experiments.bench_growth", description=__doc__))
