"""The small measurements behind docs/performance.md: each choice of the package against its alternative.

`python -m experiments.bench --micro` runs them all. The alternatives of one choice take turns; a ratio is the time
over that of the first row of its group, the median over turns.
"""

import ctypes
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCSR
from rich.console import Console
from rich.table import Table

import hire_jax as hj
from experiments import bench_contenders
from experiments.console import track
from experiments.memory import use_heap_for_large_arrays
from hire_jax import sparse
from hire_jax.graph import RelationBlock
from hire_jax.models.dense_attention import dense_attention
from hire_jax.models.dropout import Dropout
from hire_jax.models.normact import layer_norm_gelu

Group = dict[str, bench_contenders.Contender]


def run(settings: Any, console: Console) -> dict[str, dict[str, list[float]]]:
    """{measurement: {form: seconds of every timing}}; also prints them as one table."""
    name = settings.dataset[0] if settings.dataset else "imdb_gtn"
    dataset = hj.load_dataset(name)
    seeds, width = settings.seeds, settings.hidden
    groups: dict[str, Callable[[], Group]] = {
        **{f"heap, {seeds} seeds, {batch} at a time": partial(_heap, dataset, batch, settings) for batch in (1, seeds)},
        "sparse product": partial(_product, dataset, width),
        "gradient of it": partial(_gradient, dataset, width),
        "4 heads": partial(_heads, dataset, width),
        **{f"4 heads, {edges:,} edges": partial(_blocks, edges, width) for edges in (20_000, 200_000)},
        "dropout": partial(_dropout, dataset, width),
        "layer norm and GELU": partial(_norm, dataset, width),
        "constant weights": partial(_transposed, dataset, width),
        **{f"attention, {share:.0%} of pairs": partial(_pairs, share) for share in (0.02, 0.05, 0.1, 0.3)},
        **{f"{seeds} seeds, product of width {w}": partial(_folding, dataset, w, seeds) for w in (4, 8, 16, 32, 64)},
        **{
            f"{seeds} seeds, RGCN of width {w}, products": partial(_folded_epochs, dataset, w, settings)
            for w in (16, 32)
        },
        **{f"{seeds} seeds, RGCN of width {w}": partial(_seed_batches, dataset, w, settings) for w in (8, 64)},
    }
    table = Table("measurement", "form", "ms", "quartiles", "ratio", title=name, title_justify="left")
    results: dict[str, dict[str, list[float]]] = {}
    with track(len(groups), "micro", console=console) as tracker:
        for done, (title, make) in enumerate(groups.items(), 1):
            contenders = make()
            if not contenders:
                continue
            results[title] = seconds = bench_contenders.in_turns(contenders, settings.repeats)
            first = next(iter(seconds))
            for form, values in seconds.items():
                median, low, high = (1e3 * np.quantile(values, q) for q in (0.5, 0.25, 0.75))
                table.add_row(
                    title if form == first else "", form, f"{median:.2f}", f"{low:.2f} - {high:.2f}",
                    f"{bench_contenders.ratio(seconds, form, first):.2f}",
                )  # fmt: skip
            table.add_section()
            tracker.update(done, title)
    console.print(table)
    return results


def timed(function: Callable[..., Any], *arguments: Any) -> bench_contenders.Contender:
    """The compiled function as a contender: compiled here, so that what it reads of the package is read now.

    A timing is of 5 calls, after one that wakes threads and caches.
    """
    compiled = jax.jit(function).lower(*arguments).compile()

    def contender() -> float:
        jax.block_until_ready(compiled(*arguments))
        start = time.perf_counter()
        for _ in range(5):
            jax.block_until_ready(compiled(*arguments))
        return (time.perf_counter() - start) / 5

    return contender


def _pattern(dataset: hj.Dataset) -> RelationBlock:
    """The relation block with the most edges."""
    return max(dataset.graph.blocks.values(), key=lambda block: block.csr.num_entries)


def _normal(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def _product(dataset: hj.Dataset, width: int) -> Group:
    """The CSR kernel against a sorted segment_sum."""
    block = _pattern(dataset)
    x = _normal(block.csr.shape[1], width)
    return {"spmm": timed(sparse.spmm, block.csr, block.mean, x),
            "segment_sum": timed(sparse.spmm_reference, block.csr, block.mean, x)}  # fmt: skip


def _gradient(dataset: hj.Dataset, width: int) -> Group:
    """The transposed product against segment_sum's gradient, and the one JAX derives for BCSR @ x."""
    block = _pattern(dataset)
    csr = block.csr
    x, dy = _normal(csr.shape[1], width), _normal(csr.shape[0], width)

    def bcsr(csr: hj.sparse.CSR, weights: jax.Array, x: jax.Array) -> jax.Array:
        return BCSR((weights, csr.cols, csr.indptr), shape=csr.shape) @ x

    def gradient(form: Callable[..., jax.Array]) -> bench_contenders.Contender:
        return timed(jax.grad(lambda x, csr, w, dy: jnp.vdot(form(csr, w, x), dy)), x, csr, block.mean, dy)

    return {"spmm": gradient(sparse.spmm), "segment_sum": gradient(sparse.spmm_reference), "BCSR @ x": gradient(bcsr)}


def _heads(dataset: hj.Dataset, width: int) -> Group:
    """Weights [E, 4]: the segment form in blocks of edges, against one kernel call a head."""
    csr, heads = _pattern(dataset).csr, 4
    weights, x = _normal(csr.num_entries, heads), _normal(csr.shape[1], heads, width // heads)

    def a_call_each(csr: hj.sparse.CSR, weights: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.stack([sparse.spmm(csr, weights[:, h], x[:, h]) for h in range(heads)], axis=1)

    return {"segment form": timed(sparse.spmm, csr, weights, x),
            "a kernel call a head": timed(a_call_each, csr, weights, x)}  # fmt: skip


def _blocks(edges: int, width: int) -> Group:
    """Scores of random edges and the sum by them, with their gradients: in blocks of edges, or all edges at once."""
    rng, nodes, heads = np.random.default_rng(0), 5000, 4
    csr = sparse.CSR.from_sorted(np.sort(rng.integers(0, nodes, edges)), rng.integers(0, nodes, edges), (nodes, nodes))
    x = _normal(nodes, heads, width // heads)

    def gradient(block_bytes: int) -> bench_contenders.Contender:
        with mock.patch.object(sparse.kernels, "_BLOCK_BYTES", block_bytes):
            # A new function each time, as in `_folding`.
            attend = jax.grad(lambda a, b: jnp.sum(sparse.spmm(csr, sparse.sddmm(csr, a, b), b) ** 2), argnums=(0, 1))
            return timed(attend, x, x)

    return {"blocks": gradient(sparse.kernels._BLOCK_BYTES), "all at once": gradient(2**60)}


def _dropout(dataset: hj.Dataset, width: int) -> Group:
    """Mask and product, forward and backward, of all nodes' embeddings."""
    x = _normal(sum(dataset.graph.num_nodes.values()), width)

    def gradient(apply: Callable[[jax.Array, jax.Array], Any]) -> bench_contenders.Contender:
        return timed(jax.grad(lambda x, key: jnp.sum(apply(x, key) ** 2)), x, jax.random.key(0))

    def hashed(x: jax.Array, key: jax.Array) -> Any:
        return Dropout(rate=0.5).apply({}, x, train=True, rngs={"dropout": key})

    def threefry(x: jax.Array, key: jax.Array) -> Any:
        return nn.Dropout(rate=0.5).apply({}, x, deterministic=False, rngs={"dropout": key})

    return {"hashed index": gradient(hashed), "threefry bits": gradient(threefry)}


def _norm(dataset: hj.Dataset, width: int) -> Group:
    """Value and gradient of all nodes' embeddings: written out by hand, against flax's two steps."""
    x, ones, zeros = _normal(sum(dataset.graph.num_nodes.values()), width), jnp.ones(width), jnp.zeros(width)

    def two_steps(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
        normal: Any = nn.LayerNorm().apply({"params": {"scale": scale, "bias": bias}}, x)
        return nn.gelu(normal)

    def both(function: Callable[..., Any]) -> bench_contenders.Contender:
        def value_and_pullback(x: jax.Array, scale: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
            value, pullback = jax.vjp(function, x, scale, bias)
            return value, pullback(dy)

        return timed(value_and_pullback, x, ones, zeros, x)

    return {"by hand": both(layer_norm_gelu), "flax": both(two_steps)}


def _transposed(dataset: hj.Dataset, width: int) -> Group:
    """The gradient of sparse features times a matrix: their values in transposed order at hand, or gathered."""
    features = max((x for x in dataset.graph.features.values() if isinstance(x, hj.SparseFeatures)),
                   key=lambda x: x.nnz)
    kernel, dy = _normal(features.shape[1], width), _normal(features.shape[0], width)

    def gradient(t_data: jax.Array | None) -> bench_contenders.Contender:
        def product(kernel: jax.Array, dy: jax.Array, csr: Any, data: jax.Array, t_data: jax.Array | None) -> jax.Array:
            return jnp.vdot(sparse.spmm(csr, data, kernel, t_weights=t_data), dy)

        return timed(jax.grad(product), kernel, dy, features.csr, features.data, t_data)

    return {"at hand": gradient(features.t_data), "gathered": gradient(None)}


def _pairs(share: float) -> Group:
    """Attention with 8 heads of width 8 between 2048 nodes, value and gradient: all pairs, or the edges alone."""
    nodes, heads = 2048, 8
    linked = np.random.default_rng(0).random((nodes, nodes)) < share
    rows, columns = np.nonzero(linked)
    csr = sparse.CSR.from_sorted(rows, columns, (nodes, nodes))
    v, u, x = _normal(nodes, heads), _normal(nodes, heads), _normal(nodes, heads, 8)

    def edges(v: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        scores = nn.leaky_relu(sparse.edge_sum(csr, v, u), 0.2)
        return sparse.spmm(csr, sparse.segment_softmax(scores, csr.rows, nodes), x)

    def gradient(function: Callable[..., jax.Array]) -> bench_contenders.Contender:
        return timed(jax.value_and_grad(lambda *a: jnp.sum(function(*a) ** 2), argnums=(0, 1, 2)), v, u, x)

    return {"all pairs": gradient(partial(dense_attention, jnp.asarray(linked))), "edges": gradient(edges)}


def _folding(dataset: hj.Dataset, width: int, seeds: int) -> Group:
    """The product under vmap over seeds: a block-diagonal pattern, against seeds folded into the width."""
    block = _pattern(dataset)
    x = _normal(seeds, block.csr.shape[1], width)

    def batched(fold_below: int) -> bench_contenders.Contender:
        with mock.patch.object(sparse.kernels, "_FOLD_BELOW", fold_below):
            # A new function each time, so that JAX cannot answer from what it traced under the other bound.
            return timed(jax.vmap(lambda csr, w, x: sparse.spmm(csr, w, x), (None, None, 0)), block.csr, block.mean, x)

    return {"block-diagonal": batched(0), "folded": batched(2**30)}


def _folded_epochs(dataset: hj.Dataset, width: int, settings: Any) -> Group:
    """The same two forms in whole epochs, with as many seeds at a time as `fit` takes."""
    group: Group = {}
    for name, fold_below in (("block-diagonal", 0), ("folded", 2**30)):
        with mock.patch.object(sparse.kernels, "_FOLD_BELOW", fold_below):
            group[name] = bench_contenders.OurEpochs(
                dataset, _rgcn(dataset, width, settings), seeds=settings.seeds, epochs=settings.epochs
            )
    return group


def _rgcn(dataset: hj.Dataset, width: int, settings: Any) -> hj.models.RGCN:
    return bench_contenders.network(dataset, dataclasses.replace(settings, hidden=width))


def _seed_batches(dataset: hj.Dataset, width: int, settings: Any) -> Group:
    """Epochs of all seeds, mapped over one at a time, or more of them together; `fit` chooses by a 4 MiB rule."""
    return {
        f"{batch} at a time": bench_contenders.OurEpochs(
            dataset, _rgcn(dataset, width, settings), seeds=settings.seeds, epochs=settings.epochs, seed_batch=batch
        )
        for batch in (1, 2, 5, 10)
        if batch <= settings.seeds
    }


def _heap(dataset: hj.Dataset, batch: int, settings: Any) -> Group:
    """An epoch of all seeds, with glibc's own thresholds and with memory.use_heap_for_large_arrays."""
    if not use_heap_for_large_arrays():  # not glibc: nothing to compare
        return {}
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    program = bench_contenders.OurEpochs(
        dataset, bench_contenders.network(dataset, settings), seeds=settings.seeds, epochs=settings.epochs,
        seed_batch=batch,
    )

    def default() -> float:
        mallopt(-3, 32 << 20)  # the largest values that glibc's moving thresholds reach on their own
        mallopt(-1, 64 << 20)
        return program()

    def heap() -> float:
        use_heap_for_large_arrays()
        return program()

    return {"glibc's default": default, "heap": heap}
