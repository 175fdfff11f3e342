"""What teacher and student cost: parameters, operations, latency and memory of one inference on the whole graph.

Operations and memory are the compiled program's own count; latency is measured, so it is worth something on a quiet
machine only.
"""

import time
from typing import Any, Literal

import jax
import numpy as np

import hire_jax as hj
from experiments.bench_memory import program_bytes
from experiments.networks import build, count_parameters
from experiments.store import ResultStore
from experiments.tables_cells import Pair

REPEATS = 50


def measure_costs(pair: Pair, store: ResultStore) -> None:
    """Puts the costs of a pair's teacher and student into the store, unless they are there."""
    for role in ("teacher", "student"):
        config = cost_config(pair, role)
        if store.finished(config) is None:
            start = time.perf_counter()
            store.append(config, seeds=[], metrics={}, facts=costs(pair, role), seconds=time.perf_counter() - start)


def cost_config(pair: Pair, role: str) -> dict[str, Any]:
    """What the line of a network's costs is found by."""
    teacher = dict(pair.teacher().config)
    return teacher | {"label": f"cost of the {role}", "network": pair.networks[role], "seeds": 0,
                      "setting": "teacher" if role == "teacher" else pair.table.setting}


def costs(pair: Pair, role: Literal["teacher", "student"]) -> dict[str, float]:
    """{"parameters", "flops", "p50_milliseconds", "p95_milliseconds", "peak_bytes"} of one inference."""
    model, graph = build(pair.model, pair.networks[role], pair.data), pair.data.graph
    params = jax.jit(model.init)(jax.random.key(0), graph)
    run = jax.jit(lambda params, graph: model.apply(params, graph).logits).lower(params, graph).compile()
    analysis: Any = run.cost_analysis()
    seconds = []
    for _ in range(REPEATS + 5):  # the first few warm the caches
        start = time.perf_counter()
        jax.block_until_ready(run(params, graph))
        seconds.append(time.perf_counter() - start)
    p50, p95 = 1000 * np.percentile(seconds[5:], [50, 95])
    return {"parameters": count_parameters(model, pair.data), "flops": float(analysis["flops"]),
            "p50_milliseconds": round(float(p50), 3), "p95_milliseconds": round(float(p95), 3),
            "peak_bytes": program_bytes(run)}


def seconds_of_an_epoch(pair: Pair, role: str) -> float:
    """Of one seed of a network by itself, compilation not counted."""
    network = pair.networks[role]
    result = hj.fit(build(pair.model, network, pair.data), pair.data, seeds=1, epochs=4, chunk=4,
                    monitor=network.monitor)
    return result.seconds / 4


