"""`centred=` and `row_weights=` of type_pair_correlation, against plain loops and float64."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.losses import type_pair_correlation
from hire_jax.losses._all_pairs import all_pairs
from hire_jax.losses._row_weights import centred_rows, check_row_weights
from tests.losses.slopes import assert_slopes

NODES = {"a": 6, "b": 4, "c": 5}
EDGES = {("a", "to", "b"): (np.array([0, 5, 2, 2, 1]), np.array([3, 1, 0, 0, 2])),
         ("c", "to", "a"): (np.array([4, 0]), np.array([1, 5])), ("a", "to", "a"): (np.array([0]), np.array([1]))}
RNG = np.random.default_rng(0)
WEIGHTS = {"a": np.array([0.5, 0, 3, 1, 2, 0.1]), "b": np.array([2, 1, 1, 0.25])}
WHERE = {"a": np.array([True, True, True, False, True, True]), "c": np.array([True, False, True, True, True])}
FORMS = [("all_pairs", False), ("all_pairs", True), ("prototype", False), ("edges", False), ("edges", True)]


def rows(seed: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t: 1 + rng.standard_normal((n, width)) for t, n in NODES.items()}


def compiled_of(variant: Any, centred: bool):
    def loss(student, teacher, where, weights, edges):
        return type_pair_correlation(student, teacher, variant=variant, edges=edges if variant == "edges" else None,
                                     where=where, row_weights=weights, centred=centred)

    return jax.value_and_grad(loss)


COMPILED = {form: jax.jit(compiled_of(*form)) for form in FORMS}


def evaluate(form, student, teacher, where: Any = WHERE, weights: Any = WEIGHTS, edges: Any = EDGES):
    """In float64 where an input is: one compilation a form serves most tests."""
    with jax.enable_x64(True):
        value, gradient = COMPILED[form](student, teacher, where, weights, edges)
    return np.asarray(value), {t: np.asarray(slope) for t, slope in gradient.items()}


def single(*trees):
    return jax.tree.map(lambda x: x.astype("f4"), trees)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def by_loop(student, teacher, where, weights, variant, centred) -> float:
    """Formed one pair of nodes at a time, of the nodes that count."""
    w = {t: [weights.get(t, np.ones(n))[v] if where.get(t, np.ones(n, bool))[v] else 0.0 for v in range(n)]
         for t, n in NODES.items()}
    sides = []
    for side in (teacher, student):
        units = {}
        for t, x in side.items():
            counted = [v for v in range(len(x)) if w[t][v] > 0]
            mean = sum(w[t][v] * x[v] for v in counted) / sum(w[t]) if centred else 0
            units[t] = {v: unit(x[v] - mean) for v in counted}
        sides.append(units)
    means = []

    def change(a, u, b, v):
        return (sides[0][a][u] @ sides[0][b][v] - sides[1][a][u] @ sides[1][b][v]) ** 2

    if variant == "edges":
        for (a, _, b), (senders, receivers) in EDGES.items():
            ends = [(u, v) for u, v in zip(senders, receivers, strict=True) if w[a][u] * w[b][v] > 0 and a != b]
            if ends:
                means.append(sum(w[a][u] * w[b][v] * change(a, u, b, v) for u, v in ends)
                             / sum(w[a][u] * w[b][v] for u, v in ends))
        return float(np.mean(means))
    for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
        if variant == "all_pairs":
            total = sum(w[a][u] * w[b][v] * change(a, u, b, v) for u in sides[0][a] for v in sides[0][b])
            means.append(total / (sum(w[a]) * sum(w[b])))
        else:
            p = [{t: unit(sum(w[t][v] * x for v, x in units[t].items())) for t in (a, b)} for units in sides]
            means.append((p[0][a] @ p[0][b] - p[1][a] @ p[1][b]) ** 2)
    return float(np.mean(means))


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_equal_a_plain_loop(form):
    student, teacher = rows(1, 3), rows(2, 4)
    loop = partial(by_loop, where=WHERE, weights=WEIGHTS, variant=form[0], centred=form[1])
    value, gradient = evaluate(form, student, teacher)
    expected = loop(student, teacher)
    assert expected > 1e-3
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    assert_slopes(partial(loop, teacher=teacher), student, gradient, (("a", 2), ("b", 3), ("c", 0)))
    for t, row in (("a", 1), ("a", 3), ("c", 1)):  # of weight 0, and masked
        assert (gradient[t][row] == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_nodes_and_edges_and_a_common_rotation_do_not_matter(form):
    student, teacher = rows(12, 3), rows(13, 4)
    order = {t: RNG.permutation(n) for t, n in NODES.items()}
    place = {t: np.argsort(x) for t, x in order.items()}
    turned = {name: (place[name[0]][senders][::-1], place[name[2]][receivers][::-1])
              for name, (senders, receivers) in EDGES.items()}
    rotation = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    moved = {t: 1e3 * x[order[t]] @ rotation for t, x in student.items()}
    if form[1]:  # a type may be moved as a whole
        moved["b"] += 7e3
    value, _ = evaluate(form, student, teacher)
    other, _ = evaluate(form, moved, {t: x[order[t]] for t, x in teacher.items()}, edges=turned,
                        **{name: {t: x[order[t]] for t, x in given.items()}
                           for name, given in (("where", WHERE), ("weights", WEIGHTS))})
    np.testing.assert_allclose(other, value, rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_masked_rows_and_rows_of_weight_zero_have_no_influence(form):
    student, teacher, weights = rows(7, 3), rows(8, 4), {t: w.astype(float) for t, w in WEIGHTS.items()}
    value, gradient = evaluate(form, student, teacher, weights=weights)
    for t, row in (("a", 1), ("a", 3), ("c", 1)):
        student[t][row], teacher[t][row] = np.nan, np.inf
    weights["a"][3] = np.nan
    poisoned, slopes = evaluate(form, student, teacher, weights=weights)
    assert poisoned == value and value > 1e-3
    jax.tree.map(np.testing.assert_array_equal, slopes, gradient)
    nothing = jax.tree.map(np.zeros_like, weights)
    value, gradient = evaluate(form, student, teacher, weights=nothing)
    assert value == 0 and all((slope == 0).all() for slope in gradient.values())
    student["b"][0] = np.nan
    assert np.isnan(evaluate(form, student, teacher, weights=weights)[0])


@pytest.mark.parametrize("form", FORMS[:3])
def test_weights_are_repetitions(form):
    """Only proportions matter."""
    student, teacher = rows(5, 3), rows(6, 4)
    counts = {"a": np.array([2, 0, 1, 3, 1, 1]), "b": np.array([1, 4, 0, 1])}
    again = {t: np.repeat(np.arange(n), counts.get(t, np.ones(n, int))) for t, n in NODES.items()}
    everything = {t: np.ones(len(mask), bool) for t, mask in WHERE.items()}
    repeated = ({t: x[again[t]] for t, x in side.items()} for side in (student, teacher))
    expected = type_pair_correlation(*repeated, variant=form[0], centred=form[1])
    for scale in (1.0, 1e-250, 1e307):
        value, _ = evaluate(form, student, teacher, everything, {t: scale * n for t, n in counts.items()})
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_jit_equals_eager_and_vmap_equals_a_loop():
    call, (weights,) = compiled_of("all_pairs", True), single(WEIGHTS)
    teacher, *seeds = (jax.tree.map(jnp.asarray, *single(rows(seed, 3 + (seed == 9)))) for seed in (9, 10, 11))
    several = jax.jit(jax.vmap(call, in_axes=(0, None, None, None, None)))(
        jax.tree.map(lambda *x: jnp.stack(x), *seeds), teacher, WHERE, weights, EDGES)
    for i, seed in enumerate(seeds):
        eager = call(seed, teacher, WHERE, weights, EDGES)
        exact = evaluate(("all_pairs", True), *jax.tree.map(lambda x: np.asarray(x, "f8"), (seed, teacher)))
        for value, gradient in (eager, jax.tree.map(lambda x, i=i: x[i], several)):
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), (value, gradient), exact)


def test_blocks_make_no_difference():
    student, teacher = rows(14, 3), rows(15, 4)
    with jax.enable_x64(True):
        where, weights = check_row_weights(WEIGHTS, {t: WHERE.get(t) for t in NODES}, student)
        blocked = jax.jit(jax.value_and_grad(lambda s: all_pairs(s, teacher, where, jnp.ones(3), weights, 4)))(student)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-16), blocked,
                 evaluate(("all_pairs", False), student, teacher))


def test_near_sides_keep_their_digits_in_float32():
    """The error of `type_pair_correlation`'s docstring, at a difference whose square is 1e-6 and below."""
    rng = np.random.default_rng(15)
    teacher = {t: rng.standard_normal((n, 16)).astype("f4") for t, n in (("a", 700), ("b", 500))}
    weights = {t: rng.random(len(x)).astype("f4") for t, x in teacher.items()}
    call = jax.jit(lambda s, t, w: type_pair_correlation(s, t, centred=True, row_weights=w))
    assert 0 <= call(teacher, teacher, weights) < 1e-13
    for noise in (1e-2, 1e-3, 1e-4):
        student = {t: (x + noise * rng.standard_normal(x.shape)).astype("f4") for t, x in teacher.items()}
        units = []
        for side in (student, teacher):
            wide = {t: x - np.average(x.astype("f8"), axis=0, weights=weights[t]) for t, x in side.items()}
            units.append({t: x / np.linalg.norm(x, axis=1, keepdims=True) for t, x in wide.items()})
        squares = (units[0]["a"] @ units[0]["b"].T - units[1]["a"] @ units[1]["b"].T) ** 2
        expected = np.average(squares, weights=np.outer(weights["a"].astype("f8"), weights["b"]))
        r = np.sqrt(np.mean([((units[0][t] - units[1][t]) ** 2).sum(axis=1).mean() for t in "ab"]))
        assert abs(float(call(student, teacher, weights)) - expected) < 1e-6 * (1 + 1 / r) * expected


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3e38])
def test_centring_neither_overflows_nor_vanishes(scale):
    direction = np.random.default_rng(16).uniform(-1, 1, (50, 3)).astype("f4")
    x = np.float32(scale) * direction
    units = np.asarray(centred_rows(jnp.asarray(x), None, None))
    expected = x.astype("f8") - x.astype("f8").mean(axis=0)
    np.testing.assert_allclose(units / np.abs(units).max(), expected / np.abs(expected).max(), atol=1e-6)


@pytest.mark.parametrize("weights", [None, np.array([0.1, 0.7, 0.3, 0.9, 0.2, 0.6, 0.35], "f4")])
@pytest.mark.parametrize("number", [0, 1, 3, 7])
def test_equal_rows_and_one_alone_leave_no_direction(weights: Any, number, users_jit):
    """A mean off by its rounding would leave rows that get length 1."""
    x = np.full((7, 3), [0.1, -3.3e5, 0.7], np.float32)
    where = np.arange(7) < number
    x[number:] = 5
    for call in (centred_rows, users_jit(centred_rows)):
        assert (np.asarray(call(x, where, weights)) == 0).all()


def test_a_type_of_equal_rows_has_cosine_0():
    student, teacher = rows(17, 3), rows(18, 4)
    student["b"][:] = student["b"][0]
    value, gradient = evaluate(("all_pairs", True), student, teacher)
    assert value > 0 and all(np.isfinite(slope).all() for slope in gradient.values())
    assert (gradient["b"] == 0).all() and np.abs(gradient["a"]).max() > 0


def test_half_precision_is_centred_in_float32():
    student, teacher = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (rows(19, 3), rows(20, 4)))
    value, gradient = evaluate(("edges", True), student, teacher)
    wide = jax.tree.map(lambda x: np.asarray(x, "f8"), (student, teacher))
    assert value.dtype == jnp.float32 and gradient["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, evaluate(("edges", True), *wide)[0], rtol=1e-5)


def test_weights_and_the_teacher_are_constants():
    def call(teacher, weights):
        return type_pair_correlation(rows(21, 3), teacher, variant="edges", edges=EDGES, centred=True,
                                     row_weights=weights)

    slopes = jax.jit(jax.grad(call, argnums=(0, 1)))(*single(rows(22, 4), WEIGHTS))
    assert all((slope == 0).all() for slope in jax.tree.leaves(slopes))


def test_an_index_outside_is_seen_under_jit():
    student, teacher = rows(23, 3), rows(24, 4)
    outside = EDGES | {("c", "to", "a"): (np.array([4, 0]), np.array([6, 5]))}
    assert np.isfinite(evaluate(("edges", False), student, teacher)[0])
    assert np.isnan(evaluate(("edges", False), student, teacher, edges=outside)[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_seen_under_jit_where_its_row_counts(form, bad):
    student, teacher = rows(27, 3), rows(28, 4)
    weights = {"a": np.array([1, 1, bad, 1, 1, 1.0])}
    assert np.isnan(evaluate(form, student, teacher, weights=weights)[0])
    where = WHERE | {"a": np.array([True, True, False, True, True, True])}
    assert np.isfinite(evaluate(form, student, teacher, where=where, weights=weights)[0])


def test_only_the_proportions_of_weights_matter_however_small_those_of_linked_nodes_are():
    """Node 5 of type a, which has no edge, weighs 1 where the others weigh 1e-24."""
    sides = single(rows(29, 3), rows(30, 4))
    edges = {("a", "to", "b"): (np.array([0, 1, 2]), np.array([0, 1, 2]))}
    small = {"a": np.array([1e-24] * 5 + [1], "f4"), "b": np.array([1e-24] * 3 + [1], "f4")}
    found, expected = (type_pair_correlation(*sides, variant="edges", edges=edges, row_weights=weights)
                       for weights in (small, None))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("change", "message"), [
    ({"row_weights": {"b": np.array([1, np.inf, 1, 1])}}, r"row_weights\['b'\]: expected finite numbers in the rows"),
    ({"centred": True, "variant": "prototype"}, "centred: expected False with variant='prototype'.*got True"),
    ({"row_weights": [1]}, "row_weights: expected a dictionary by node type, got list"),
    ({"row_weights": {"a": None}}, r"row_weights\['a'\]: expected one number a row, got None; leave 'a' out where"),
    ({"row_weights": {"d": np.ones(3)}}, r"row_weights: expected node types among \['a', 'b', 'c'\], got \['d'\]"),
    ({"row_weights": {"a": np.ones(5)}}, r"row_weights\['a'\]: expected shape \(6,\), one number a row, got \(5,\)"),
    ({"row_weights": {"b": np.array([1, 1, -2.0, 1])}}, r"row_weights\['b'\]: expected numbers of at least 0, got -2"),
    ({"row_weights": {"b": np.ones(4) * 1j}}, r"row_weights\['b'\]: expected real numbers, got dtype complex"),
])
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        type_pair_correlation(rows(25, 3), rows(26, 3), **change)
