"""Sparse attention of GKEDM's layer against the number of edges: time and memory of value and gradient.

`hire_jax.models.GKEDMLayer`, 8 heads, width 64, on random graphs of 10 edges a node; gradients by the input and all
parameters of a weighted sum of the output. With --peer pyg PyG's `TransformerConv` takes turns with it in the same
process, on the same parameters, after value and gradient were compared. Memory is what the largest resident set of a
call exceeds the one before it by, each in a process of its own (Linux), and XLA's own count beside it.

Examples:
  python -m experiments.bench_attention --peer pyg
  python -m experiments.bench_attention --edges 10000        # in seconds, to see that it runs

It writes OUT/attention.json.
"""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import hire_jax as hj
from experiments.bench import cpu_name
from experiments.bench_contenders import in_turns, ratio
from experiments.bench_memory import program_bytes, resident_rise
from experiments.console import track
from experiments.environment import environment

HEADS, WIDTH, EDGES_A_NODE = 8, 64, 10
LOOP = ("node", "to", "node")
OURS, PYG = "hire_jax", "PyG TransformerConv"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    edges: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Numbers of edges."""
    repeats: int = 7
    """Turns that are timed, after two that are not."""
    peer: Literal["pyg"] | None = None
    """Another library to measure beside ours."""
    out: Path = Path("runs/bench")
    """Folder for the JSON file."""


class Ours:
    """One call: value and gradients of our layer, compiled before; returns seconds."""

    def __init__(self, edges: int) -> None:
        random = np.random.default_rng(edges)
        self.nodes = max(edges // EDGES_A_NODE, 1)
        self.edges = random.integers(0, self.nodes, (2, edges))
        self.x, self.target = (random.normal(size=(self.nodes, WIDTH)).astype(np.float32) for _ in range(2))
        graph = hj.HeteroGraph.from_arrays({"node": self.nodes}, {LOOP: self.edges})
        layer = hj.models.GKEDMLayer(features=WIDTH, heads=HEADS, self_loops=False)
        self.variables = layer.init(jax.random.key(0), graph, {"node": jnp.asarray(self.x)}, "node")
        target = jnp.asarray(self.target)

        def loss(variables: Any, x: jax.Array) -> jax.Array:
            output: Any = layer.apply(variables, graph, {"node": x}, "node")
            return jnp.sum(output[0] * target)

        arguments = self.variables, jnp.asarray(self.x)
        self.program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments).compile()
        self.arguments = arguments

    def __call__(self) -> float:
        start = time.perf_counter()
        jax.block_until_ready(self.program(*self.arguments))
        return time.perf_counter() - start

    def value_and_gradient(self) -> tuple[float, np.ndarray]:
        """The loss, and its gradient by x."""
        value, (_, gradient) = self.program(*self.arguments)
        return float(value), np.asarray(gradient)


def contender(name: str, edges: int) -> Any:
    """Ours, or PyG's layer with our parameters."""
    ours = Ours(edges)
    if name == OURS:
        return ours
    from experiments.peers.attention import Attention

    return Attention(ours.x, ours.edges, ours.target, ours.variables["params"], heads=HEADS)


def main(settings: Settings, console: Console | None = None) -> dict[str, Any]:
    """Measures, prints a table, writes JSON; returns what it holds.

    Raises:
      ValueError: PyG's value or gradient differs from ours.
    """
    console = console or Console()
    names = [OURS] + [PYG] * (settings.peer is not None)
    rows: list[dict[str, Any]] = []
    with track(len(settings.edges) * (settings.repeats + 2 + len(names)), "attention", console=console) as tracker:
        done = 0
        for edges in settings.edges:
            contenders = {name: contender(name, edges) for name in names}
            if settings.peer is not None:
                compare(contenders)
            seconds = in_turns(contenders, settings.repeats)
            compiled = program_bytes(contenders[OURS].program)
            del contenders
            done += settings.repeats + 2
            tracker.update(done, f"{edges:,} edges: memory")
            memory = {name: memory_apart(name, edges) for name in names}
            done += len(names)
            tracker.update(done, f"{edges:,} edges")
            rows.append({"edges": edges, "seconds": seconds, "memory": memory, "compiled": compiled})
    lines = [["edges", "form", "ms", "times ours", "MiB", "MiB planned"]]
    for row in rows:
        for name in names:
            times = "-" if name == OURS else f"{ratio(row['seconds'], name, OURS):.1f}"
            held = row["memory"][name]
            lines.append([f"{row['edges']:,}", name, f"{1000 * np.median(row['seconds'][name]):.1f}", times,
                          "-" if held is None else f"{held / 2**20:,.0f}",
                          f"{row['compiled'] / 2**20:,.0f}" if name == OURS else "-"])
    console.print(hj.report.rich_table(lines, title=f"{HEADS} heads, width {WIDTH}, value and gradient"))
    versions: dict[str, str] = {}
    if settings.peer is not None:
        from experiments.peers import attention

        versions = attention.VERSIONS
    facts = {"heads": HEADS, "width": WIDTH, "edges_a_node": EDGES_A_NODE, "rows": rows,
             "environment": environment() | {"cpu": cpu_name()} | versions}
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "attention.json"
    path.write_text(json.dumps(facts, indent=1))
    console.print(f"All raw times: {path}", soft_wrap=True, highlight=False)
    return facts


def compare(contenders: dict[str, Any]) -> None:
    """Raises ValueError where value or gradient differ by more than float32's rounding explains."""
    (value, gradient), (theirs, their_gradient) = (contenders[name].value_and_gradient() for name in (OURS, PYG))
    scale = float(np.abs(their_gradient).max())
    near = abs(value - theirs) <= 1e-3 * (1 + abs(theirs))
    if not near or np.abs(gradient - their_gradient).max() > 1e-3 * scale:
        raise ValueError(f"PyG's value {theirs} or gradient differs from ours, {value}")


def memory_apart(name: str, edges: int) -> int | None:
    """The rise of the resident set during one call, in a process of its own; None where it cannot be had."""
    told = [sys.executable, "-m", "experiments.bench_attention", "--memory-of", name, str(edges)]
    process = subprocess.run(told, cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True,
                             check=True)
    return json.loads(process.stdout.splitlines()[-1])


def _memory_of(name: str, edges: int) -> None:
    call = contender(name, edges)
    call()  # what was left of building it is freed by now
    print(json.dumps(resident_rise(call) if jax.default_backend() == "cpu" else None))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory-of"]:
        _memory_of(sys.argv[2], int(sys.argv[3]))
    else:
        import tyro

        main(tyro.cli(Settings, prog="python -m experiments.bench_attention", description=__doc__))
