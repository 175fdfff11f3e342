"""Which heads `attention_map_kl` compares and how it weighs receivers, against loops; how sharp attention is."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.optimize import linear_sum_assignment

from hire_jax.losses import attention_map_kl, attention_reliability

# Of 8 receivers 0 and 5 have no edge, 2 has one; edges are in no order.
RECEIVERS = np.array([3, 1, 1, 4, 4, 1, 7, 7, 2, 6, 6, 3])
WEIGHTS = np.array([9.0, 0.5, 0.0, 2.0, 1.0, 3.0, 0.25, 1.5])
WHERE = np.array([True, True, True, False, True, True, True, True])
HEADS = ["index", "mean", "assign"]


def attention(seed, heads):
    """Softmaxed over the edges into each receiver."""
    weights = np.exp(1.5 * np.random.default_rng(seed).standard_normal((len(RECEIVERS), heads)))
    for i in set(RECEIVERS):
        weights[i == RECEIVERS] /= weights[i == RECEIVERS].sum(0)
    return weights


def divergence(student, teacher, weights, where):
    """Of one head of each, [E]: the weighted mean over receivers that have an edge."""
    total = above = 0.0
    for i in range(8):
        into = np.flatnonzero(i == RECEIVERS)
        if into.size and where[i]:
            total += weights[i]
            above += weights[i] * sum(teacher[e] * math.log(teacher[e] / student[e]) for e in into)
    return above / total if total else 0.0


def by_loop(student, teacher, weights=None, where=None, heads="index"):
    weights, where = np.ones(8) if weights is None else weights, np.ones(8, bool) if where is None else where
    if heads == "mean" or (heads == "index" and student.shape != teacher.shape):
        return divergence(student.mean(1), teacher.mean(1), weights, where)
    pairs = np.array([[divergence(s, t, weights, where) for s in student.T] for t in teacher.T])
    return pairs[linear_sum_assignment(pairs)].mean() if heads == "assign" else pairs.diagonal().mean()


@pytest.mark.parametrize(("heads", "h_s", "h_t"), [
    ("index", 3, 3), ("index", 2, 4), ("mean", 3, 3), ("mean", 4, 2), ("assign", 3, 3), ("assign", 2, 4),
    ("assign", 4, 2), ("assign", 1, 3)])
def test_values_equal_a_loop(heads, h_s, h_t):
    student, teacher = attention(1, h_s), attention(2, h_t)
    plain = ((None, None), (WEIGHTS, None)) if heads != "assign" else ()  # each is a program of its own
    for weights, where in (*plain, (WEIGHTS, WHERE)):
        expected = by_loop(student, teacher, weights, where, heads)
        assert expected > 1e-3
        with jax.enable_x64(True):
            value = attention_map_kl(student, teacher, RECEIVERS, 8, weights=weights, where=where, heads=heads)
            assert value.shape == () and value.dtype == jnp.float64
            np.testing.assert_allclose(value, expected, rtol=1e-10)
    if h_s == h_t:
        sides = student.astype("f4"), teacher.astype("f4")
        single = attention_map_kl(*sides, RECEIVERS, 8, weights=WEIGHTS.astype("f4"), where=WHERE, heads=heads)
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, expected, rtol=1e-5)


def test_the_three_ways_differ_where_heads_are_many():
    student, teacher = attention(1, 3), attention(2, 3)
    values = [float(attention_map_kl(student, teacher, RECEIVERS, 8, heads=heads)) for heads in HEADS]
    assert values[2] < values[0] - 0.01 and values[1] < values[0] - 0.01 and abs(values[1] - values[2]) > 0.01
    assert attention_map_kl(student, teacher, RECEIVERS, 8) == values[0]


# ------------------------------------------------------------------------------------------- heads without order


@pytest.mark.parametrize(("h_s", "h_t"), [(3, 3), (2, 4), (4, 2)])
def test_assigned_heads_have_no_order(h_s, h_t, rng):
    student, teacher = attention(3, h_s).astype("f4"), attention(4, h_t).astype("f4")
    of = jax.value_and_grad(partial(attention_map_kl, receivers=RECEIVERS, num_receivers=8, heads="assign"))
    value, gradient = of(student, teacher)
    for a, b in ((rng.permutation(h_s), rng.permutation(h_t)), (np.arange(h_s)[::-1], np.arange(h_t))):
        moved, slopes = of(student[:, a], teacher[:, b])
        np.testing.assert_allclose(moved, value, rtol=1e-5)
        np.testing.assert_allclose(slopes, gradient[:, a], rtol=1e-5, atol=1e-7)
    taken = np.abs(gradient).max(axis=0) > 0  # a head without a partner learns nothing
    assert taken.sum() == min(h_s, h_t)


def test_assigned_heads_never_cost_more_than_those_of_one_index():
    below = 0
    for seed in range(10):
        student, teacher = attention(seed, 3).astype("f4"), attention(seed + 50, 3).astype("f4")
        assign, index = (attention_map_kl(student, teacher, RECEIVERS, 8, heads=heads) for heads in ("assign", "index"))
        assert assign <= index * (1 + 1e-6)
        below += bool(assign < index * 0.99)
        shuffled = teacher[:, np.random.default_rng(seed).permutation(3)]
        assert attention_map_kl(shuffled, teacher, RECEIVERS, 8, heads="assign") == 0
    assert below > 5


# -------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("heads", HEADS)
def test_no_weights_are_equal_weights(heads):
    student, teacher = attention(1, 3).astype("f4"), attention(2, 3).astype("f4")
    call = jax.value_and_grad(partial(attention_map_kl, receivers=RECEIVERS, num_receivers=8, heads=heads))
    value, gradient = call(student, teacher)
    for weights in (np.ones(8), np.full(8, 7.0)) if heads != "index" else (np.full(8, 7), np.ones(8, bool), np.ones(8)):
        weighted, slopes = call(student, teacher, weights=weights)
        np.testing.assert_allclose(weighted, value, rtol=1e-6)
        np.testing.assert_allclose(slopes, gradient, rtol=1e-5, atol=1e-8)
    only = call(student, teacher, weights=(np.arange(8) == 4) * 0.125)
    expected = call(student, teacher, where=np.arange(8) == 4)
    np.testing.assert_allclose(only[0], expected[0], rtol=1e-6)
    assert abs(only[0] - value) > 1e-3
    nothing, slopes = call(student, teacher, weights=np.zeros(8))
    assert nothing == 0 and (np.asarray(slopes) == 0).all()


@pytest.mark.parametrize("heads", HEADS)
def test_what_a_receiver_of_weight_zero_holds_has_no_influence(heads):
    student, teacher = attention(1, 3).astype("f4"), attention(2, 3).astype("f4")
    call = jax.jit(jax.value_and_grad(
        lambda s, t, w: attention_map_kl(s, t, RECEIVERS, 8, weights=w, heads=heads)))
    weights = np.where(np.arange(8) == 4, 0, WEIGHTS).astype("f4")
    value, gradient = call(student, teacher, weights)
    for poison in (np.inf, np.nan):
        student[RECEIVERS == 4], teacher[RECEIVERS == 4] = poison, poison
        again, slopes = call(student, teacher, weights)
        assert again == value > 0
        np.testing.assert_array_equal(slopes, gradient)
    assert (np.asarray(gradient)[RECEIVERS == 4] == 0).all() and (np.asarray(gradient)[RECEIVERS == 7] != 0).any()
    assert not np.isfinite(call(student, teacher, WEIGHTS.astype("f4"))[0])  # otherwise it is seen


def test_weights_are_constants():
    student, teacher = attention(1, 2), attention(2, 2)
    slopes = jax.grad(lambda w: attention_map_kl(student, teacher, RECEIVERS, 8, weights=w))(jnp.asarray(WEIGHTS))
    np.testing.assert_array_equal(slopes, 0)


# ------------------------------------------------------------------------------------------------- transformations


@pytest.mark.parametrize("heads", HEADS)
def test_derivatives_equal_finite_differences(heads):
    with jax.enable_x64(True):
        teacher = attention(2, 2)
        call = jax.jit(partial(attention_map_kl, teacher_attention=teacher, receivers=RECEIVERS, num_receivers=8,
                               weights=WEIGHTS, where=WHERE, heads=heads))
        student = jnp.asarray(attention(1, 3))
        assert np.abs(jax.grad(call)(student)).max() > 1e-3
        check_grads(call, (student,), order=1)


@pytest.mark.parametrize("heads", ["mean", "assign"])
def test_jit_equals_eager_and_vmap_equals_a_loop(heads, users_jit):
    students, teachers = (jnp.asarray(np.stack([attention(s + k, 3) for s in range(3)]), jnp.float32) for k in (0, 9))
    weights = jnp.asarray(np.stack([WEIGHTS, WEIGHTS[::-1], np.ones(8)]), jnp.float32)
    call = jax.value_and_grad(lambda s, t, w: attention_map_kl(s, t, RECEIVERS, 8, weights=w, heads=heads))
    each = [call(*case) for case in zip(students, teachers, weights, strict=True)]
    assert len({round(float(value), 4) for value, _ in each}) == 3
    together = users_jit(jax.vmap(call))(students, teachers, weights)
    compiled = users_jit(call)(students[0], teachers[0], weights[0])
    for ours, one in ((compiled, each[0]), *((jax.tree.map(lambda x, k=k: x[k], together), each[k]) for k in range(3))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, one)


def test_broken_attention_is_seen_and_ends():
    """The search for an assignment stops where nothing is a number."""
    student, teacher = attention(1, 3), attention(2, 3)
    for side in (0, 1):
        sides = [student.copy(), teacher.copy()]
        sides[side][4, 1] = np.nan
        for heads in HEADS:
            assert np.isnan(attention_map_kl(*sides, RECEIVERS, 8, heads=heads))


def test_an_index_outside_is_nan_under_jit():
    student = attention(1, 2)
    for heads in ("mean", "assign"):
        call = jax.jit(lambda r, heads=heads: attention_map_kl(student, attention(2, 2), r, 8, heads=heads))
        assert call(RECEIVERS) > 0 and np.isnan(call(np.where(np.arange(12) == 3, 8, RECEIVERS)))


def test_wrong_arguments_are_named():
    call = partial(attention_map_kl, attention(1, 2), attention(2, 2), RECEIVERS, 8)
    for heads in ("best", None, 2):
        with pytest.raises(ValueError, match=f"heads: expected 'index', 'mean' or 'assign', got {heads!r}"):
            call(heads=heads)
    with pytest.raises(ValueError, match=r"weights: expected shape \(8,\), one number a row, got \(12,\)"):
        call(weights=np.ones(12))
    with pytest.raises(ValueError, match=r"weights: expected numbers of at least 0, got -1"):
        call(weights=-np.ones(8))


@pytest.mark.parametrize("heads", HEADS)
def test_without_edges_it_is_zero(heads):
    none = np.zeros(0, int)
    for size in (0, 4):
        assert attention_map_kl(np.zeros((0, 2)), np.zeros((0, 3)), none, size, heads=heads) == 0
    value = attention_map_kl(np.zeros((0, 2)), np.zeros((0, 3)), none, 4, weights=np.ones(4), heads=heads)
    assert value == 0


# ---------------------------------------------------------------------------------------------------- reliability


def test_attention_reliability_equals_a_loop():
    maps = attention(5, 3)
    expected = np.zeros(8)
    for i in range(8):
        into = np.flatnonzero(i == RECEIVERS)
        if into.size > 1:
            by_head = [1 + sum(maps[e, h] * math.log(maps[e, h]) for e in into) / math.log(into.size) for h in range(3)]
            expected[i] = sum(by_head) / 3
    assert (expected > 0.02).sum() == 5
    with jax.enable_x64(True):
        values = attention_reliability(maps, RECEIVERS, 8)
        assert values.dtype == jnp.float64
        np.testing.assert_allclose(values, expected, rtol=1e-10)
    single = jax.jit(lambda a: attention_reliability(a, RECEIVERS, 8))(maps.astype("f4"))
    assert single.dtype == jnp.float32 and single.shape == (8,)
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-6)
    assert attention_reliability(jnp.asarray(maps, jnp.bfloat16), RECEIVERS, 8).dtype == jnp.float32


def test_attention_reliability_is_one_of_a_single_choice_and_zero_of_none():
    """Into 0: all on one of three edges, into 1: all alike, into 2: one edge, into 3: none, into 4: half and half."""
    receivers = np.array([0, 1, 0, 1, 2, 0, 1, 4, 4, 4, 4])
    maps = np.float32([1, 1 / 3, 0, 1 / 3, 1, 0, 1 / 3, 0.5, 0.5, 0, 0])[:, None]
    values = attention_reliability(maps, receivers, 5)
    np.testing.assert_allclose(values, [1, 0, 0, 0, 0.5], atol=1e-6)
    assert (np.asarray(values) >= 0).all() and (np.asarray(values) <= 1).all()
    two = attention_reliability(np.concatenate([maps, maps[::-1]], axis=1), np.zeros(11, int), 1)
    assert 0 <= float(two[0]) <= 1  # weights that sum to more than 1 too
    np.testing.assert_array_equal(attention_reliability(np.zeros((0, 2)), np.zeros(0, int), 3), np.zeros(3))


def test_attention_reliability_is_a_constant_that_weighs_the_loss():
    student, teacher = attention(1, 2), attention(2, 2)

    def loss(teacher):
        weights = attention_reliability(teacher, RECEIVERS, 8)
        return attention_map_kl(student, teacher, RECEIVERS, 8, weights=weights)

    value, slopes = jax.value_and_grad(loss)(jnp.asarray(teacher))
    np.testing.assert_array_equal(slopes, 0)
    expected = by_loop(student, teacher, np.asarray(attention_reliability(teacher, RECEIVERS, 8), float))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.abs(jax.grad(lambda a: attention_reliability(a, RECEIVERS, 8).sum())(jnp.asarray(teacher))).max() == 0


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.ones(3), [0, 1, 1], 2), r"teacher_attention: expected shape \[E, H\], got teacher_attention \(3,\)"),
    ((np.ones((3, 0)), [0, 1, 1], 2), r"teacher_attention: expected shape \[E, H\]"),
    ((np.ones((3, 2)), [0, 1], 2), "receivers, teacher_attention: expected one receiver an edge"),
    ((np.ones((3, 2)), 3, 2), r"receivers: expected integers \[E\]"),
    ((np.ones((3, 2)), [0, 1, 1], 2.5), "num_receivers: expected an integer of at least 0, got 2.5"),
    ((np.ones((3, 2)), [0, 1, 1], None), "num_receivers: expected an integer of at least 0, got None"),
    ((np.ones((3, 2)), np.array([0.0, 1.0, 1.0]), 2), "receivers: expected integers"),
    ((np.ones((3, 2)), np.array([0, 1, 2]), 2), r"receivers: expected indices in \[0, 2\), got 2 at edge 2"),
    ((np.ones((3, 2)), np.array([0, -1, 1]), 2), r"receivers: expected indices in \[0, 2\), got -1 at edge 1"),
    ((np.ones((3, 2), bool), np.array([0, 1, 1]), 2), "teacher_attention: expected real numbers, got dtype bool"),
])
def test_wrong_arguments_of_attention_reliability_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        attention_reliability(*arguments)


def test_an_index_outside_makes_reliability_nan_under_jit():
    under_jit = jax.jit(lambda r: attention_reliability(np.ones((3, 2)), r, 2))(np.array([0, 1, 2]))
    assert np.isnan(under_jit).all()
