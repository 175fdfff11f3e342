"""Neighbour sampling beside PyG's `NeighborLoader`: on one graph, in one run, taking turns.

A graph in the proportions of ogbn-mag (papers, authors, institutions and fields; four relations and their reverses)
with heavy-tailed degrees. The same seeds a batch and neighbours a relation and hop, without replacement. Three pairs:

  sample   nodes and edges of a batch, renumbered: `BatchSource.sample` and PyG's `sample_from_nodes`
  batch    with features gathered, one after another in the calling thread. Ours are padded and hold both orders of
           every relation block, which gradients need and PyG sorts for in the step
  loader   the same, made ahead by --workers: our threads, PyG's processes

With --peer pyg, PyG's batches are compared in size with ours first. Without it, or where PyG has no sampling library
(pyg-lib or torch-sparse), ours are measured alone. Memory is what the largest resident set of building the loader from
the arrays and making some batches exceeds the one before it by, each in a process of its own and without further
workers (Linux).

Examples:
  python -m experiments.bench_sampling --peer pyg
  python -m experiments.bench_sampling --edges 1000000 --repeats 3

It writes OUT/sampling.json.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console

import hire_jax as hj
from experiments.bench import cpu_name
from experiments.bench_contenders import in_turns, ratio
from experiments.bench_memory import resident_rise
from experiments.console import track, warn
from experiments.environment import environment
from hire_jax.sampling import BatchLoader, BatchSource, HostGraph

TARGET, OURS, PYG = "paper", "hire_jax", "PyG"
FORMS = ("sample", "batch", "loader")
# ogbn-mag (arXiv 2005.00687): nodes of each type and edges of each relation, of which every one has its reverse here.
NODES = {"paper": 736_389, "author": 1_134_649, "institution": 8_740, "field": 59_965}
EDGES = {("author", "writes", "paper"): 7_145_660, ("paper", "cites", "paper"): 5_416_271,
         ("author", "of", "institution"): 1_043_998, ("paper", "about", "field"): 7_505_078}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    edges: int = 21_000_000
    """Edges of all relations, reverses included."""
    features: int = 128
    """Width of every type's features, float32."""
    batch_size: int = 1024
    """Seeds of a batch."""
    fanouts: tuple[int, ...] = (10, 10)
    """Neighbours of a node and relation, hop by hop."""
    workers: int = 2
    """Threads or processes of the loaders."""
    batches: int = 20
    """Batches of one timing."""
    repeats: int = 9
    """Turns that are timed, after two that are not."""
    peer: Literal["pyg"] | None = None
    """Another library to measure beside ours."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file."""


def arrays(settings: Settings) -> tuple[dict[str, int], dict[Any, np.ndarray], dict[str, np.ndarray]]:
    """Numbers of nodes, edges int32[2, E] and features of the graph."""
    share = settings.edges / (2 * sum(EDGES.values()))
    nodes = {name: max(2, round(count * share)) for name, count in NODES.items()}
    rng = np.random.default_rng(0)
    edges = {}
    for (source, relation, destination), count in EDGES.items():
        ends = [_heavy_tailed(nodes[name], max(1, round(count * share)), rng) for name in (source, destination)]
        edges[source, relation, destination] = np.stack(ends)
        edges[destination, f"rev_{relation}", source] = np.stack(ends[::-1])
    return nodes, edges, {name: rng.standard_normal((count, settings.features), dtype=np.float32)
                          for name, count in nodes.items()}  # fmt: skip


def _heavy_tailed(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """int32[draws] of `count` nodes; the expected degree falls with a node's rank r as r^(-0.41)."""
    ranks = (count * rng.random(draws) ** 1.7).astype(np.int64)
    return rng.permutation(count).astype(np.int32)[np.minimum(ranks, count - 1)]


class Ours:
    """Our side: one graph, and a contender for each form that goes through an endless run batch by batch."""

    def __init__(self, settings: Settings, given: Any) -> None:
        self.batches, self.place = settings.batches, 0
        self.graph = HostGraph.from_arrays(*given)
        self.source = BatchSource(self.graph, target=TARGET, nodes=np.arange(self.graph.counts[TARGET]),
                                  batch_size=settings.batch_size, fanouts=settings.fanouts)

    def timed(self, make: Callable[[int, int], Any]) -> Callable[[], float]:
        """A contender of `make(epoch, index)`: seconds a batch."""
        def call() -> float:
            start = time.perf_counter()
            for _ in range(self.batches):
                make(*divmod(self.place, len(self.source)))
                self.place += 1
            return (time.perf_counter() - start) / self.batches
        return call

    def batch(self, epoch: int, index: int) -> Any:
        """A batch on JAX's default device."""
        return jax.block_until_ready(jax.device_put(self.source(epoch, index)))

    def loaded(self, loader: BatchLoader) -> Callable[[], float]:
        """A contender of the loader: seconds a batch."""
        def endless() -> Any:
            while True:
                yield from loader

        batches = endless()

        def call() -> float:
            for _ in range(loader.prefetch):  # made while others had their turn
                next(batches)
            start = time.perf_counter()
            for _ in range(self.batches):
                jax.block_until_ready(next(batches))
            return (time.perf_counter() - start) / self.batches
        return call

    def counts(self) -> tuple[int, int]:
        """Nodes and edges of a batch."""
        sample = self.source.sample(0, 0)
        return (sum(ids.size for ids in sample.nodes.values()),
                sum(edges.senders.size for edges in sample.edges.values()))  # fmt: skip


def their_loader(peer: Any, settings: Settings, given: Any, workers: int = 0) -> Any:
    """PyG's loader of the same batches."""
    return peer.Loader(*given, target=TARGET, fanouts=settings.fanouts, batch_size=settings.batch_size,
                       workers=workers, batches=settings.batches)


def peer_module(console: Console) -> Any:
    """experiments.peers.sampling, or None and a warning that says why."""
    try:
        from experiments.peers import sampling
    except ImportError as error:
        warn(f"PyG is left out: {error}", console=console)
        return None
    return sampling


def main(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints a table, writes JSON; returns what it holds.

    Raises:
      ValueError: PyG's batches have other numbers of nodes or edges than ours, by more than a twentieth.
    """
    console = console or Console()
    if not console.is_terminal:  # a log is not to break the lines
        console.width = max(console.width, 120)
    peer = peer_module(console) if settings.peer else None
    given = arrays(settings)
    ours = Ours(settings, given)
    nodes, edges = ours.counts()
    with BatchLoader(ours.source, workers=settings.workers, prefetch=2 * settings.workers) as loader:
        contenders = {f"{OURS}, sample": ours.timed(ours.source.sample), f"{OURS}, batch": ours.timed(ours.batch),
                      f"{OURS}, loader": ours.loaded(loader)}
        if peer is not None:
            theirs = their_loader(peer, settings, given)
            compare((nodes, edges), theirs.counts())
            contenders |= {f"{PYG}, sample": theirs.sample_only, f"{PYG}, batch": theirs,
                           f"{PYG}, loader": their_loader(peer, settings, given, settings.workers)}
        with track(settings.repeats + 2, "sampling in turns", console=console) as tracker:
            seconds = in_turns(contenders, settings.repeats, tracker)
    names = [OURS] + [PYG] * (peer is not None)
    memory = {name: memory_apart(name, settings) for name in names}
    lines = [["form", "whose", "ms a batch", "quartiles", "seeds/s", "M edges/s", "times ours", "MiB"]]
    for form in FORMS:
        for name in names:
            label = f"{name}, {form}"
            low, median, high = np.quantile(seconds[label], [0.25, 0.5, 0.75])
            held = memory[name] if form == "batch" else None
            lines.append([form, name, f"{1e3 * median:.1f}", f"{1e3 * low:.1f} - {1e3 * high:.1f}",
                          f"{settings.batch_size / median:,.0f}", f"{edges / median / 1e6:.1f}",
                          "-" if name == OURS else f"{ratio(seconds, label, f'{OURS}, {form}'):.2f}",
                          "-" if held is None else f"{held / 2**20:,.0f}"])
    title = (f"{settings.edges:,} edges, {settings.batch_size} seeds, neighbours {list(settings.fanouts)}: "
             f"{nodes:,} nodes and {edges:,} edges a batch")
    console.print(hj.report.rich_table(lines, title=title))
    facts = {"settings": dataclasses.asdict(settings) | {"out": str(settings.out), "fanouts": list(settings.fanouts)},
             "nodes": nodes, "edges": edges, "seconds": seconds, "memory": memory,
             "sizes": [sum(size.edges.values()) for size in ours.source.sizes],
             "environment": environment() | {"cpu": cpu_name()} | ({} if peer is None else peer.VERSIONS)}
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "sampling.json"
    path.write_text(json.dumps(facts, indent=1))
    console.print(f"All raw times: {path}", soft_wrap=True, highlight=False)
    return facts


def compare(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    """Raises ValueError where batches differ in nodes or edges by more than what one draw differs from another by."""
    for what, a, b in zip(("nodes", "edges"), ours, theirs, strict=True):
        if abs(a - b) > 0.05 * a:
            raise ValueError(f"a batch of PyG has {b} {what}, one of ours {a}: times would mean nothing")


def memory_apart(name: str, settings: Settings) -> int | None:
    """The rise of the resident set of one contender, in a process of its own; None where it cannot be had."""
    plain = json.dumps(dataclasses.asdict(settings) | {"out": str(settings.out)})
    process = subprocess.run([sys.executable, "-m", "experiments.bench_sampling", "--memory-of", name, plain],
                             cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def _memory_of(name: str, settings: Settings) -> None:
    given = arrays(settings)
    peer = peer_module(Console(stderr=True)) if name == PYG else None

    def call() -> None:
        if name == OURS:
            ours = Ours(settings, given)
            ours.timed(ours.batch)()
        else:
            their_loader(peer, settings, given)()

    print(json.dumps(resident_rise(call)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory-of"]:
        _memory_of(sys.argv[2], Settings(**json.loads(sys.argv[3])))
    else:
        import tyro

        main(tyro.cli(Settings, prog="python -m experiments.bench_sampling", description=__doc__))
