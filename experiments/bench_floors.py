"""What an epoch must at least cost: its arithmetic and memory traffic, at the rates the machine does both."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hire_jax as hj
from experiments.bench_counts import hand_count


def machine_rates(megabytes: float = 3.0) -> dict[str, float]:
    """What all cores together do: float32 operations a second in a matrix product, bytes a second in a copy.

    "copy" moves arrays far larger than the caches; "cached_copy" arrays of `megabytes`, about one layer of IMDB.
    Each is the best of some trials, and the product the better of numpy's and JAX's.
    """
    size, cores = 2048, os.cpu_count() or 1
    rng = np.random.default_rng(0)
    a = rng.standard_normal((size, size), np.float32)
    product, x = jax.jit(jnp.matmul), jnp.asarray(a)
    fastest = min(_best(lambda: a @ a), _best(lambda: jax.block_until_ready(product(x, x))))

    def copy(bytes_each: int, rounds: int) -> float:
        pairs = [(np.ones(bytes_each // 4, np.float32), np.zeros(bytes_each // 4, np.float32)) for _ in range(cores)]

        def work(pair: tuple[np.ndarray, np.ndarray]) -> None:
            for _ in range(rounds):
                np.copyto(pair[1], pair[0])

        with ThreadPoolExecutor(cores) as pool:
            seconds = _best(lambda: list(pool.map(work, pairs)))
        return 2 * bytes_each * cores * rounds / seconds  # read and written

    return {
        "matmul_flops": 2 * size**3 / fastest,
        "copy_bytes": copy(2**27, 1),
        "cached_copy_bytes": copy(int(megabytes * 2**20 / cores), 200),
    }


def _best(call: Callable[[], Any], trials: int = 15) -> float:
    seconds = []
    for _ in range(trials + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def floors(
    model: Any, dataset: hj.Dataset, machine: Mapping[str, float], analysis: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """{"hand count" | "compiled": operations, bytes and the seconds they must take}, for an epoch of one seed.

    `analysis` is XLA's own count of the program it made. It counts elementwise operations and every operand of every
    fused loop, but not the sparse products' arithmetic, which happens in a kernel it does not know, and a loop's body
    once, however often it is repeated.

    Bytes take `cached_seconds` at the rate of a copy within the caches, `copy_seconds` at that of a large one. What
    holds wherever the arrays are is "floor_seconds", the larger of arithmetic and `cached_seconds`;
    "copy_floor_seconds" is the larger of arithmetic and `copy_seconds`, a floor for arrays that the caches do not hold.
    """
    counts = {
        "hand count": hand_count(model, dataset).total(),
        "compiled": (analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0)),
    }
    bounds = {}
    for name, (flops, moved) in counts.items():
        compute, copy = flops / machine["matmul_flops"], moved / machine["copy_bytes"]
        cached = moved / max(machine["copy_bytes"], machine["cached_copy_bytes"])
        bounds[name] = {
            "flops": flops, "bytes": moved, "compute_seconds": compute, "cached_seconds": cached, "copy_seconds": copy,
            "floor_seconds": max(compute, cached), "copy_floor_seconds": max(compute, copy),
        }  # fmt: skip
    return bounds
