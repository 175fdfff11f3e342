"""Shapes and dtypes of the public functions, written as types and checked at run time.

Axis names are bound within one call: where an argument and the result share one, their sizes must agree.
"""
# Shapes stand in the annotations as strings, which ruff takes for forward references.
# ruff: noqa: F722, F821

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, jaxtyped

import hire_jax as hj
from hire_jax import metrics, sparse
from hire_jax.supervised import cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compilation")

typed: Callable = jaxtyped(typechecker=beartype)
PATTERN = sparse.CSR.from_sorted(np.array([0, 0, 2]), np.array([1, 0, 1]), (3, 2))


def test_a_broken_contract_is_noticed():
    @typed
    def wrong(x: Float32[Array, "n d"]) -> Float32[Array, "d n"]:
        return x

    with pytest.raises(jaxtyping.TypeCheckError):
        wrong(jnp.zeros((2, 3)))


# ------------------------------------------------------------------------------------------------- losses


@typed
def soft_target_kl(s: Float[Array, "n c"], t: Float[Array, "n c"], w: Bool[Array, " n"]) -> Float32[Array, ""]:
    return hj.losses.soft_target_kl(s, t, temperature=2.0, where=w)


@typed
def bernoulli_kl(s: Float[Array, "n c"], t: Float[Array, "n c"], w: Bool[Array, " n"]) -> Float32[Array, ""]:
    return hj.losses.bernoulli_kl(s, t, where=w)


@typed
def type_pair_correlation(a_s: Float[Array, "n_a d_s"], b_s: Float[Array, "n_b d_s"], a_t: Float[Array, "n_a d_t"],
                          b_t: Float[Array, "n_b d_t"], variant: str) -> Float32[Array, ""]:
    edges = {("a", "r", "b"): (jnp.array([0, 1]), jnp.array([1, 0]))} if variant == "edges" else None
    return hj.losses.type_pair_correlation({"a": a_s, "b": b_s}, {"a": a_t, "b": b_t}, variant=variant, edges=edges)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_losses(rng, dtype):
    s, t = (jnp.asarray(rng.normal(size=(5, 3)), dtype) for _ in range(2))
    where = jnp.array([True, False, True, True, False])
    for loss in (soft_target_kl, bernoulli_kl):
        assert loss(s, t, where) > 0
    rows = [jnp.asarray(rng.normal(size=shape), dtype) for shape in ((5, 3), (4, 3), (5, 2), (4, 2))]
    for variant in ("all_pairs", "prototype", "edges"):
        assert type_pair_correlation(*rows, variant) > 0


@typed
def supervised(logits: Float[Array, "n c"], labels: Int[Array, " n"] | Int[Array, "n c"],
               where: Bool[Array, " n"]) -> Float32[Array, ""]:
    return cross_entropy(logits, labels, label_smoothing=0.1, where=where)


def test_cross_entropy(rng):
    logits, where = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), jnp.ones(4, bool)
    assert supervised(logits, jnp.array([0, 2, -1, 1]), where) > 0
    assert supervised(logits, jnp.array([[0, 1, 1], [1, 0, 0], [-1] * 3, [0, 0, 0]]), where) > 0


# ------------------------------------------------------------------------------------------------- sparse


@typed
def spmm(w: Float[Array, " e"], x: Float32[Array, "m *rest"], n: int) -> Float32[Array, "{n} *rest"]:
    return sparse.spmm(PATTERN, w, x)


@typed
def spmm_heads(w: Float[Array, "e h"], x: Float32[Array, "m h d"], n: int) -> Float32[Array, "{n} h d"]:
    return sparse.spmm(PATTERN, w, x)


@typed
def sddmm(a: Float32[Array, "n *h d"], b: Float32[Array, "m *h d"], e: int) -> Float32[Array, "{e} *h"]:
    return sparse.sddmm(PATTERN, a, b)


def test_products():
    for trailing in ((), (4,), (2, 4)):
        spmm(jnp.ones(3), jnp.ones((2, *trailing)), 3)
    spmm_heads(jnp.ones((3, 2)), jnp.ones((2, 2, 4)), 3)
    sddmm(jnp.ones((3, 4)), jnp.ones((2, 4)), 3)
    sddmm(jnp.ones((3, 2, 4)), jnp.ones((2, 2, 4)), 3)


@typed
def features_times(w: Float32[Array, "f d"], n: int) -> Float32[Array, "{n} d"]:
    return sparse.SparseFeatures.from_csr([0, 1, 1], [2], [1.0], (n, len(w))) @ w


@typed
def segments(x: Float32[Array, "e *rest"], seg: Int32[Array, " e"], mask: Bool[Array, " e"],
             n: int) -> tuple[Float32[Array, "{n} *rest"], ...]:
    return tuple(f(x, seg, n, where=mask) for f in (sparse.segment_sum, sparse.segment_mean, sparse.segment_max))


@typed
def softmax(x: Float[Array, "e *rest"], seg: Int32[Array, " e"], mask: Bool[Array, " e"]) -> Float[Array, "e *rest"]:
    result = sparse.segment_softmax(x, seg, 4, where=mask)
    assert result.dtype == x.dtype
    return result


def test_features_and_segments():
    features_times(jnp.ones((3, 5)), 2)
    seg, mask = jnp.array([0, 0, 3], jnp.int32), jnp.array([True, False, True])
    for trailing in ((), (2,)):
        segments(jnp.ones((3, *trailing)), seg, mask, 4)
        softmax(jnp.ones((3, *trailing)), seg, mask)
        softmax(jnp.ones((3, *trailing), jnp.bfloat16), seg, mask)


# ---------------------------------------------------------------------------------------- graph and models


@typed
def relation(senders: Int[np.ndarray, " e"], receivers: Int[np.ndarray, " e"], features: Float[np.ndarray, "e f"],
             ) -> tuple[Int32[Array, " e"], Int32[Array, " e"], Float32[Array, "e f"]]:
    graph = hj.HeteroGraph.from_arrays({"a": 3}, {("a", "r", "a"): np.stack([senders, receivers])},
                                       edge_features={("a", "r", "a"): features})
    found = graph.relations["a", "r", "a"]
    return found.senders, found.receivers, found.edges


def test_relations(rng):
    relation(rng.integers(0, 3, 6), rng.integers(0, 3, 6), rng.normal(size=(6, 2)))


@typed
def attention_model(graph: hj.HeteroGraph, n: int, c: int, d: int, h: int, e: int) -> tuple[
        Float32[Array, "{n} {c}"], Float32[Array, "{n} {d}"], Float32[Array, "{e} {h}"]]:
    model = hj.models.HGT(target="paper", num_classes=c, hidden=d, heads=h, layers=1)
    params = jax.eval_shape(model.init, jax.random.key(0), graph)
    output = jax.jit(model.apply)(jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params), graph)
    return output.logits, output.hidden[-1]["paper"], output.attention[0]["author", "writes", "paper"]


def test_models(awkward):
    attention_model(awkward, n=7, c=3, d=6, h=2, e=6)


# ------------------------------------------------------------------------------------------------ metrics


@typed
def scores(logits: Float[Array, "n c"], labels: Int[Array, " n"] | Int[Array, "n c"],
           where: Bool[Array, " n"]) -> tuple[Float32[Array, ""], ...]:
    predictions = metrics.predict(logits, multilabel=labels.ndim == 2)
    classes = logits.shape[1]
    return (metrics.accuracy(predictions, labels, where=where),
            metrics.macro_f1(predictions, labels, num_classes=classes, where=where),
            metrics.micro_f1(predictions, labels, num_classes=classes, where=where))


def test_metrics(rng):
    logits, where = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), jnp.ones(4, bool)
    scores(logits, jnp.array([0, 2, -1, 1]), where)
    scores(logits, jnp.array([[0, 1, 1], [1, 0, 0], [-1] * 3, [0, 0, 0]]), where)
