"""What an epoch of RGCN must at least cost: its arithmetic and memory traffic, and what the machine does of both."""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hire_jax as hj


def hand_count(model: hj.models.RGCN, dataset: hj.Dataset) -> tuple[float, float]:
    """What an epoch must at least do: (floating-point operations, bytes), from sizes alone.

    An epoch is two forward passes (training, validation), one backward pass and AdamW:

      matrix product [n, k] [k, m]   2 n k m operations; nk + km + nm numbers. The backward pass is two of
                                     them, or one where the left side is data
      sparse product, E entries      2 E d; 2 E + (rows + columns) d. One backward (weights get no gradient)
      norm, GELU and dropout [n, d]  no operations counted; 2 n d forward, 3 n d backward
      AdamW and best parameters      12 operations a parameter; 5 numbers read, 4 written

    Everything elementwise is taken to be fused, an operand to be read once however often it is gathered, and a
    number to be 4 bytes: a floor, not an estimate.
    """
    graph, width = dataset.graph, model.hidden
    operations = numbers = parameters = 0.0

    def matrix(n: int, k: int, m: int, *, backward: int = 2, copies: int = 1) -> None:
        nonlocal operations, numbers, parameters
        operations += (2 + backward) * 2 * n * k * m
        numbers += (2 + backward) * (n * k + k * m + n * m)
        parameters += k * m * copies

    def sparse(entries: int, rows: int, columns: int) -> None:
        nonlocal operations, numbers
        operations += 3 * 2 * entries * width
        numbers += 3 * (2 * entries + (rows + columns) * width)

    def norm_act(n: int) -> None:
        nonlocal numbers
        numbers += 7 * n * width

    needed = graph.receptive_field(model.target, model.layers)
    for name in needed[0]:
        features, count = graph.features.get(name), graph.num_nodes[name]
        if isinstance(features, hj.SparseFeatures):
            sparse(features.nnz, count, features.shape[1])
            parameters += features.shape[1] * width
        elif features is not None:
            matrix(count, features.shape[1], width, backward=1)
        else:
            parameters += count * width
        norm_act(count)
    for types in needed[1:]:
        for destination in types:
            count = graph.num_nodes[destination]
            matrix(count, width, width)
            for source, block in graph.blocks_into(destination):
                relations, sources = block.num_relations, graph.num_nodes[source]
                rows = min(sources, count) if relations == 1 else sources
                matrix(rows, width, relations * width)
                sparse(block.csr.num_entries, count, sources * relations)
            norm_act(count)
    matrix(graph.num_nodes[model.target], width, model.num_classes)
    return operations + 12 * parameters, 4 * (numbers + 9 * parameters)


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

    The hand count is RGCN's alone.
    `analysis` is XLA's own count of the program it made. It counts elementwise operations and every operand of every
    fused loop, but not the sparse products' arithmetic, which happens in a kernel it does not know. The bandwidth is
    the larger of the two measured, so that the floor holds wherever the arrays are.
    """
    counts = {
        **({"hand count": hand_count(model, dataset)} if isinstance(model, hj.models.RGCN) else {}),
        "compiled": (analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0)),
    }
    bandwidth = max(machine["copy_bytes"], machine["cached_copy_bytes"])
    bounds = {}
    for name, (flops, moved) in counts.items():
        compute, memory = flops / machine["matmul_flops"], moved / bandwidth
        bounds[name] = {
            "flops": flops, "bytes": moved, "compute_seconds": compute, "memory_seconds": memory,
            "floor_seconds": max(compute, memory),
        }  # fmt: skip
    return bounds
