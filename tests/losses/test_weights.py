"""`weights=` of features, node types and relations: what a weighted mean must be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.losses import cosine_embedding, hint, type_pair_correlation, typed_local_structure

pytestmark = pytest.mark.usefixtures("quick_compilation")

TO, BACK, SELF = ("a", "to", "b"), ("b", "back", "c"), ("a", "self", "a")
EDGES = {TO: ([0, 1, 2], [1, 1, 0]), BACK: ([0, 3], [2, 2]), SELF: ([0, 2, 1], [1, 1, 0])}


def rows(seed: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t: rng.normal(size=(n, width)).astype("f4") for t, n in {"a": 3, "b": 4, "c": 5}.items()}


STUDENT, TEACHER = rows(0, 3), rows(1, 4)


@pytest.mark.parametrize("loss", [hint, cosine_embedding, partial(hint, normalise=True)])
def test_weights_of_rows_are_repetitions(loss):
    student, teacher = STUDENT["b"].copy(), rows(2, 3)["b"]
    weights = np.array([2, 0, 1, 3])
    repeated = np.repeat(np.arange(4), weights)
    expected = loss(student[repeated], teacher[repeated])
    student[1] = np.nan  # of weight 0
    value, gradient = jax.value_and_grad(lambda s: loss(s, teacher, weights=weights))(jnp.asarray(student))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all() and (gradient[1] == 0).all() and (gradient[0] != 0).any()
    assert loss(student, teacher, weights=np.zeros(4)) == 0
    with pytest.raises(ValueError, match=r"weights: expected shape \(4,\), one number a row, got \(3,\)"):
        loss(student, teacher, weights=weights[:3])


def pair(loss, names):
    return loss({t: STUDENT[t] for t in names}, {t: TEACHER[t] for t in names})


@pytest.mark.parametrize("variant", ["all_pairs", "prototype"])
def test_weights_of_types_weigh_their_pairs(variant):
    loss = partial(type_pair_correlation, variant=variant)
    parts = {names: pair(loss, names) for names in (("a", "b"), ("a", "c"), ("b", "c"))}
    weights = {"a": 2.0, "c": 0.5}
    shares = {("a", "b"): 2.0, ("a", "c"): 1.0, ("b", "c"): 0.5}
    expected = sum(shares[names] * parts[names] for names in parts) / 3.5
    weighted = jax.jit(lambda s, w: loss(s, TEACHER, weights=w))
    np.testing.assert_allclose(weighted(STUDENT, weights), expected, rtol=1e-5)
    np.testing.assert_allclose(weighted(STUDENT, {"c": 0.0}), parts["a", "b"], rtol=1e-5)
    np.testing.assert_allclose(weighted(STUDENT, {}), sum(parts.values()) / 3, rtol=1e-5)
    assert weighted(STUDENT, {"a": 0.0, "b": 0.0}) == 0
    slopes, of_weights = jax.grad(weighted, argnums=(0, 1))(STUDENT, weights)
    exact = jax.jit(jax.grad(
        lambda s: sum(shares[n] * loss({t: s[t] for t in n}, {t: TEACHER[t] for t in n}) for n in shares)))
    for t, slope in exact(STUDENT).items():
        np.testing.assert_allclose(slopes[t], slope / 3.5, rtol=1e-4, atol=1e-7)
    assert all(slope == 0 for slope in of_weights.values())
    stacked = jax.vmap(lambda w: loss(STUDENT, TEACHER, weights={"a": w}))(jnp.array([2.0, 1.0]))
    np.testing.assert_allclose(stacked[1], sum(parts.values()) / 3, rtol=1e-5)


@pytest.mark.parametrize("loss", [typed_local_structure, partial(type_pair_correlation, variant="edges")])
def test_weights_of_relations(loss):
    call = loss if loss is typed_local_structure else lambda s, t, edges, **rest: loss(s, t, edges=edges, **rest)
    parts = {name: call(STUDENT, TEACHER, {name: EDGES[name]}) for name in (TO, BACK)}
    edges = {name: EDGES[name] for name in (BACK, TO)}
    value = call(STUDENT, TEACHER, edges, weights={TO: 3})
    np.testing.assert_allclose(value, (3 * parts[TO] + parts[BACK]) / 4, rtol=1e-5)
    np.testing.assert_allclose(call(STUDENT, TEACHER, edges, weights={TO: 0}), parts[BACK], rtol=1e-5)
    assert call(STUDENT, TEACHER, edges, weights={TO: 0, BACK: 0}) == 0


def test_wrong_weights_are_named():
    with pytest.raises(ValueError, match=r"weights: expected entries among \['a', 'b', 'c'\], got \['d'\]"):
        type_pair_correlation(STUDENT, TEACHER, weights={"d": 1})
    with pytest.raises(ValueError, match=r"weights\['a'\]: expected a scalar, got shape \(2,\)"):
        type_pair_correlation(STUDENT, TEACHER, weights={"a": np.ones(2)})
    with pytest.raises(ValueError, match="weights: expected a dictionary, got list"):
        typed_local_structure(STUDENT, TEACHER, EDGES, weights=[1, 2])
    with pytest.raises(ValueError, match=r"weights: expected entries among .*self.*got .*'no'"):
        typed_local_structure(STUDENT, TEACHER, EDGES, weights={("a", "no", "b"): 1})
