"""Losses on pairs, triplets, edges and attention: golden values, plain loops, masks, samples, invariances, errors."""

import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hire_jax.losses import (
    attention_map_kl,
    global_structure,
    local_structure,
    rkd,
    rkd_angle,
    rkd_distance,
    similarities,
    similarity_preserving,
    typed_local_structure,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
STUDENT = np.array([[1, 0, 2], [0, 1, 1], [2, 1, 0], [1, 1, 1.0]])
TEACHER = np.array([[1, 1], [0, 2], [2, 0], [1, 0.5]])
GOLDEN_EDGES = np.array([0, 1, 2, 3, 1, 2]), np.array([1, 1, 1, 2, 3, 3])

# Among 8 rows: an edge twice, a self loop, receivers with one edge (2) and with none (0, 5); 0 is on no edge.
SENDERS, RECEIVERS = np.array([1, 3, 3, 4, 2, 7, 6, 5, 4, 1]), np.array([3, 1, 1, 4, 4, 1, 7, 7, 2, 6])
KERNELS = ["cosine", "rbf", "poly", "linear"]
NODES = {"author": 5, "paper": 8}
TYPED_EDGES = {
    ("author", "writes", "paper"): (np.array([0, 1, 1, 4, 3, 3]), np.array([2, 2, 2, 0, 0, 7])),
    ("paper", "cites", "paper"): (SENDERS, RECEIVERS),
    ("paper", "by", "author"): (np.array([], int), np.array([], int)),
}
WHERE = np.array([True, False, True, True, True, False, True, True])


def of_edges(kernel):
    return partial(local_structure, senders=SENDERS, receivers=RECEIVERS, kernel=kernel)


LOSSES = {
    "rkd_distance": rkd_distance,
    "rkd_angle": rkd_angle,
    "sp_L1": partial(similarity_preserving, order=1),
    "sp_L2": similarity_preserving,
    "gsp": global_structure,
} | {f"lsp_{kernel}": of_edges(kernel) for kernel in KERNELS}
PAIRWISE = ["rkd_distance", "rkd_angle", "sp_L1", "sp_L2", "gsp"]
ONE_EACH = ["rkd_distance", "rkd_angle", "sp_L2", "gsp", "lsp_cosine"]
SAMPLED = {"rkd_distance": 16_384, "rkd_angle": 256, "sp_L2": 100_000}


def compile_loss(name):
    loss = LOSSES[name]
    return jax.jit(jax.value_and_grad(lambda s, t, where=None: loss(s, t, where=where)))


COMPILED = {name: compile_loss(name) for name in LOSSES}


def rows(seed: int, *shape: int) -> np.ndarray:
    return 0.3 + np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------------------------ plain loops


def dot(x, y) -> float:
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True))


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def unit(x) -> list[float]:
    norm = math.sqrt(dot(x, x))
    return [float(a) / norm if norm else 0.0 for a in x]


def loop_rkd_distance(student, teacher) -> float:
    def relative(side):
        d = [[math.sqrt(dot(a - b, a - b)) for b in side] for a in side]
        positive = [x for line in d for x in line if x > 0]
        mean = sum(positive) / len(positive) if positive else 1.0
        return [x / mean for line in d for x in line]

    both = zip(relative(student), relative(teacher), strict=True)
    return sum(huber(a - b) for a, b in both) / len(student) ** 2


def loop_rkd_angle(student, teacher) -> float:
    n, total = len(student), 0.0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                s, t = (dot(unit(x[j] - x[i]), unit(x[k] - x[i])) for x in (student, teacher))
                total += huber(s - t)
    return total / n**3


def loop_similarity_preserving(student, teacher, order) -> float:
    def profiles(side):
        gram = [[dot(a, b) for b in side] for a in side]
        norms = [sum(abs(x) ** order for x in line) ** (1 / order) or 1.0 for line in gram]
        return [x / norm for line, norm in zip(gram, norms, strict=True) for x in line]

    both = zip(profiles(student), profiles(teacher), strict=True)
    return sum((a - b) ** 2 for a, b in both) / len(student) ** 2


def loop_global_structure(student, teacher) -> float:
    n = range(len(student))
    squares = [
        (dot(unit(student[i]), unit(student[j])) - dot(unit(teacher[i]), unit(teacher[j]))) ** 2 for i in n for j in n
    ]
    return sum(squares) / len(squares)


def similarity(kernel, a, b) -> float:
    return {
        "cosine": lambda: dot(unit(a), unit(b)),
        "rbf": lambda: math.exp(-dot(a - b, a - b) / 2),
        "poly": lambda: dot(a, b) ** 2,
        "linear": lambda: dot(a, b),
    }[kernel]()


def log_softmax(scores) -> list[float]:
    top = max(scores)
    total = math.log(sum(math.exp(x - top) for x in scores))
    return [x - top - total for x in scores]


def loop_relation(source_s, dest_s, source_t, dest_t, edges, kernel, from_where, to_where) -> float | None:
    divergences = []
    for i in range(len(dest_s)):
        ends = [u for u, v in zip(*edges, strict=True) if v == i and from_where[u] and to_where[v]]
        if ends:
            p = log_softmax([similarity(kernel, dest_t[i], source_t[u]) for u in ends])
            q = log_softmax([similarity(kernel, dest_s[i], source_s[u]) for u in ends])
            divergences.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    return sum(divergences) / len(divergences) if divergences else None


def loop_local(kernel, student, teacher, where, edges=(SENDERS, RECEIVERS)) -> float:
    return loop_relation(student, student, teacher, teacher, edges, kernel, where, where) or 0.0


def loop_typed(kernel, student, teacher, where) -> float:
    means = [
        loop_relation(student[a], student[b], teacher[a], teacher[b], edges, kernel, where[a], where[b])
        for (a, _, b), edges in TYPED_EDGES.items()
    ]
    means = [mean for mean in means if mean is not None]
    return sum(means) / len(means) if means else 0.0


def loop_attention(student, teacher, receivers, size, where) -> float:
    if student.shape != teacher.shape:
        student, teacher = student.mean(1, keepdims=True), teacher.mean(1, keepdims=True)
    divergences = []
    for i in range(size):
        into = [e for e, v in enumerate(receivers) if v == i and where[i]]
        for head in range(student.shape[1] if into else 0):
            pairs = [(teacher[e, head], student[e, head]) for e in into]
            divergences.append(sum(a * math.log(a / b) for a, b in pairs if a > 0))
    return sum(divergences) / len(divergences) if divergences else 0.0


def loop(name, student, teacher, where=None) -> float:
    student, teacher = np.asarray(student, float), np.asarray(teacher, float)
    where = np.ones(len(student), bool) if where is None else where
    if name.startswith("lsp"):
        return loop_local(name.removeprefix("lsp_"), student, teacher, where)
    student, teacher = student[where], teacher[where]
    return {
        "rkd_distance": loop_rkd_distance,
        "rkd_angle": loop_rkd_angle,
        "sp_L1": partial(loop_similarity_preserving, order=1),
        "sp_L2": partial(loop_similarity_preserving, order=2),
        "gsp": loop_global_structure,
    }[name](student, teacher)


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (rkd_distance, "rkd_distance"),
        (rkd_angle, "rkd_angle"),
        (partial(similarity_preserving, order=1), "sp_L1"),
        (similarity_preserving, "sp_L2"),
        (global_structure, "gsp_cosine_mse"),
        (partial(local_structure, senders=GOLDEN_EDGES[0], receivers=GOLDEN_EDGES[1]), "lsp_cosine_kl_mean_over_dst"),
    ],
)
def test_values_equal_the_golden_ones(loss, golden):
    with jax.enable_x64(True):
        value = loss(jnp.asarray(STUDENT), jnp.asarray(TEACHER))
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, GOLDEN[golden], rtol=1e-6)
    single = loss(STUDENT.astype("f4"), TEACHER.astype("f4"))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, GOLDEN[golden], rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_values_equal_a_plain_loop(name):
    for (d_s, d_t), where in (((3, 5), None), ((4, 2), WHERE)):
        student, teacher = rows(1, 8, d_s), rows(2, 8, d_t)
        expected = loop(name, student, teacher, where)
        assert expected > 1e-4
        with jax.enable_x64(True):
            np.testing.assert_allclose(LOSSES[name](student, teacher, where=where), expected, rtol=1e-10)
    single = LOSSES[name](student.astype("f4"), teacher.astype("f4"), where=where)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=3e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_typed_values_equal_a_plain_loop(kernel):
    student = {t: rows(i, n, 3) for i, (t, n) in enumerate(NODES.items())}
    teacher = {t: rows(i + 5, n, 4) for i, (t, n) in enumerate(NODES.items())}
    full = {t: np.ones(n, bool) for t, n in NODES.items()}
    none = np.zeros(5, bool)
    for where in ({}, {"paper": WHERE}, {"paper": WHERE, "author": np.arange(5) != 1}, {"author": none}):
        expected = loop_typed(kernel, student, teacher, full | where)
        assert expected > 1e-4
        with jax.enable_x64(True):
            value = typed_local_structure(student, teacher, TYPED_EDGES, kernel=kernel, where=where)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
    reordered = dict(reversed(TYPED_EDGES.items()))
    with jax.enable_x64(True):
        same = typed_local_structure(student, teacher, reordered, kernel=kernel, where=where)
    assert same == value


def attention(seed: int, heads: int, edges: int = 10) -> np.ndarray:
    """Softmaxed over the edges into each of 8 receivers."""
    weights = np.exp(rows(seed, edges, heads))
    for i in set(RECEIVERS):
        weights[i == RECEIVERS] /= weights[i == RECEIVERS].sum(0)
    return weights


@pytest.mark.parametrize(("h_s", "h_t"), [(1, 1), (3, 3), (2, 4)])
def test_attention_equals_a_plain_loop(h_s, h_t):
    student, teacher = attention(1, h_s), attention(2, h_t)
    for where in (None, WHERE):
        mask = np.ones(8, bool) if where is None else where
        expected = loop_attention(student, teacher, RECEIVERS, 8, mask)
        assert expected > 1e-3
        with jax.enable_x64(True):
            value = attention_map_kl(student, teacher, RECEIVERS, 8, where=where)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        single = attention_map_kl(student.astype("f4"), teacher.astype("f4"), RECEIVERS, 8, where=where)
        np.testing.assert_allclose(single, expected, rtol=1e-5)


def test_blocks_of_rows_do_not_change_values_and_gradients():
    with jax.enable_x64(True):
        s, t = jnp.asarray(rows(3, 23, 3)), jnp.asarray(rows(4, 23, 5))
        where = jnp.asarray(np.arange(23) % 5 != 2)
        for loss, small in (
            (rkd._rkd_distance, 23 * 5 * 4),  # 4 rows a block, and one more to fill up
            (partial(similarities._similarity_preserving, order=1), 23 * 4),
            (partial(similarities._similarity_preserving, order=2), 1),
        ):
            one, many = (
                jax.value_and_grad(partial(loss, block_entries=entries))(s, t, where) for entries in (10**6, small)
            )
            np.testing.assert_allclose(many[0], one[0], rtol=1e-12)
            np.testing.assert_allclose(many[1], one[1], rtol=1e-9, atol=1e-15)


# -------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_equal_finite_differences(name):
    with jax.enable_x64(True):
        student, teacher = jnp.asarray(rows(5, 8, 2)), jnp.asarray(rows(6, 8, 4))
        where = WHERE if name in PAIRWISE else None  # which leaves few edges
        call = jax.jit(lambda s: LOSSES[name](s, teacher, where=where))
        assert np.abs(jax.grad(call)(student)).max() > 1e-4
        check_grads(call, (student,), order=1)


def test_typed_and_attention_derivatives_equal_finite_differences():
    with jax.enable_x64(True):
        student = {t: jnp.asarray(rows(i, n, 3)) for i, (t, n) in enumerate(NODES.items())}
        teacher = {t: jnp.asarray(rows(i + 5, n, 4)) for i, (t, n) in enumerate(NODES.items())}
        where = {"paper": WHERE}
        check_grads(
            jax.jit(lambda s: typed_local_structure(s, teacher, TYPED_EDGES, where=where)), (student,), order=1
        )
        for h_s in (2, 3):
            call = jax.jit(lambda s: attention_map_kl(s, attention(2, 3), RECEIVERS, 8, where=WHERE))
            check_grads(call, (jnp.asarray(attention(1, h_s)),), order=1)


def test_the_teacher_is_a_constant():
    student, teacher = jnp.asarray(STUDENT, jnp.float32), jnp.asarray(TEACHER, jnp.float32)
    for name in PAIRWISE:
        np.testing.assert_array_equal(jax.grad(LOSSES[name], argnums=1)(student, teacher), 0)
    local = jax.grad(lambda t: local_structure(student, t, *GOLDEN_EDGES))(teacher)
    np.testing.assert_array_equal(local, 0)
    typed = jax.grad(lambda t: typed_local_structure({"a": student}, {"a": t}, {("a", "r", "a"): GOLDEN_EDGES}))
    np.testing.assert_array_equal(typed(teacher), 0)
    weights = jnp.asarray(attention(1, 2)), jnp.asarray(attention(2, 2))
    both = jax.grad(lambda s, t: attention_map_kl(s, t, RECEIVERS, 8), argnums=(0, 1))(*weights)
    assert np.abs(both[0]).max() > 0
    np.testing.assert_array_equal(both[1], 0)


# ----------------------------------------------------------------------------------------------- jit and vmap


def close(result, expected, rtol=1e-4, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), result, expected)


@pytest.mark.parametrize("name", ONE_EACH)
def test_jit_equals_eager_and_vmap_equals_a_loop(name, users_jit):
    students, teachers = jnp.asarray(rows(7, 3, 8, 3), jnp.float32), jnp.asarray(rows(8, 3, 8, 4), jnp.float32)
    where = jnp.asarray(np.random.default_rng(9).random((3, 8)) < 0.8)
    call = jax.value_and_grad(lambda s, t, mask: LOSSES[name](s, t, where=mask))
    each = [call(*case) for case in zip(students, teachers, where, strict=True)]
    expected = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    assert (expected[0] > 0).all()
    close(users_jit(call)(students[0], teachers[0], where[0]), each[0])
    close(users_jit(jax.vmap(call))(students, teachers, where), expected)


def test_typed_and_attention_jit_equals_eager_and_vmap_equals_a_loop(users_jit):
    student = {t: jnp.asarray(rows(i, 3, n, 3), jnp.float32) for i, (t, n) in enumerate(NODES.items())}
    teacher = {t: jnp.asarray(rows(i + 5, 3, n, 4), jnp.float32) for i, (t, n) in enumerate(NODES.items())}
    typed = jax.value_and_grad(lambda s, t: typed_local_structure(s, t, TYPED_EDGES))
    weights = [jnp.asarray(np.stack([attention(10 * i + j, 2) for i in range(3)]), jnp.float32) for j in (0, 1)]
    maps = jax.value_and_grad(lambda s, t: attention_map_kl(s, t, RECEIVERS, 8))
    for call, sides in ((typed, (student, teacher)), (maps, weights)):
        each = [call(*jax.tree.map(lambda x, i=i: x[i], tuple(sides))) for i in range(3)]
        expected = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
        assert (expected[0] > 0).all()
        close(users_jit(jax.vmap(call))(*sides), expected)
        close(users_jit(call)(*jax.tree.map(lambda x: x[0], tuple(sides))), each[0])


def test_many_rows(users_jit):
    """Above 32768 rows jit has been miscompiled. `similarity_preserving` is quadratic, and is sampled here."""
    n, key = 33_000, jax.random.key(3)
    student, teacher = jnp.asarray(rows(10, n, 3), jnp.float32), jnp.asarray(rows(11, n, 4), jnp.float32)
    rng = np.random.default_rng(12)
    where = jnp.asarray(rng.random(n) < 0.7)
    ends = [jnp.asarray(rng.integers(0, n, 90_000)) for _ in range(2)]
    weights = jnp.asarray(rng.random((90_000, 2)), jnp.float32), jnp.asarray(rng.random((90_000, 2)), jnp.float32)
    typed = {("a", "r", "a"): tuple(ends)}
    for loss, sides in (
        (lambda s, t, w: rkd_distance(s, t, where=w, sample=500, key=key), (student, teacher)),
        (lambda s, t, w: rkd_angle(s, t, where=w, sample=20, key=key), (student, teacher)),
        (lambda s, t, w: similarity_preserving(s, t, where=w, sample=500, key=key), (student, teacher)),
        (lambda s, t, w: global_structure(s, t, where=w), (student, teacher)),
        (lambda s, t, w: local_structure(s, t, *ends, where=w), (student, teacher)),
        (lambda s, t, w: typed_local_structure({"a": s}, {"a": t}, typed, where={"a": w}), (student, teacher)),
        (lambda s, t, w: attention_map_kl(s, t, ends[1], n, where=w), weights),
    ):
        call = jax.value_and_grad(loss)
        value, gradient = call(*sides, where)
        assert np.isfinite(value) and value != 0 and (gradient != 0).any()
        close(users_jit(call)(*sides, where), (value, gradient), rtol=1e-4, atol=1e-8)


def test_cosines_of_many_rows_equal_the_matrix_in_blocks():
    n = 33_000
    student, teacher = rows(13, n, 2), rows(14, n, 2)
    s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (student, teacher))
    grams = [np.sum(np.square(a.T @ b)) for a, b in ((s, s), (t, t), (s, t))]
    expected = (grams[0] + grams[1] - 2 * grams[2]) / n**2
    np.testing.assert_allclose(global_structure(student.astype("f4"), teacher.astype("f4")), expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("name", ONE_EACH)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_masked_rows_have_no_influence(name, poison):
    student, teacher = rows(15, 8, 3).astype("f4"), rows(16, 8, 4).astype("f4")
    value, gradient = COMPILED[name](student, teacher, WHERE)
    if name in PAIRWISE:
        expected, of_subset = COMPILED[name](student[WHERE], teacher[WHERE])
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient[WHERE], of_subset, rtol=1e-4, atol=1e-6)
    student[~WHERE], teacher[~WHERE] = poison, poison
    poisoned, poisoned_gradient = COMPILED[name](student, teacher, WHERE)
    assert poisoned == value > 0
    np.testing.assert_array_equal(poisoned_gradient, gradient)
    np.testing.assert_array_equal(gradient[~WHERE], 0)

    value, gradient = COMPILED[name](student, teacher, np.zeros(8, bool))
    assert value == 0 and (gradient == 0).all()
    assert np.isnan(COMPILED[name](rows(15, 8, 3) * np.nan, rows(16, 8, 4), WHERE)[0])
    assert np.isnan(COMPILED[name](rows(15, 8, 3), rows(16, 8, 4) * np.nan, WHERE)[0])


def test_masked_rows_of_typed_and_attention():
    student = {t: rows(i, n, 3).astype("f4") for i, (t, n) in enumerate(NODES.items())}
    teacher = {t: rows(i + 5, n, 4).astype("f4") for i, (t, n) in enumerate(NODES.items())}
    where = {"paper": WHERE, "author": np.arange(5) != 1}
    typed = jax.value_and_grad(lambda s, t, w: typed_local_structure(s, t, TYPED_EDGES, where=w))
    maps = jax.value_and_grad(lambda s, t, w: attention_map_kl(s, t, RECEIVERS, 8, where=w))

    expected = typed(student, teacher, where)
    for t, mask in where.items():
        student[t][~mask], teacher[t][~mask] = np.nan, np.inf
    value, gradient = typed(student, teacher, where)
    close((value, gradient), expected, rtol=0, atol=0)
    value, gradient = typed(student, teacher, jax.tree.map(np.zeros_like, where))
    assert value == 0 and all((g == 0).all() for g in gradient.values())

    weights = attention(1, 2).astype("f4"), attention(2, 2).astype("f4")
    expected = maps(*weights, WHERE)
    left_out = ~WHERE[RECEIVERS] | (RECEIVERS == 7)
    where = WHERE & (np.arange(8) != 7)
    subset = maps(weights[0], weights[1], where)
    assert subset[0] != expected[0]
    for side in weights:
        side[left_out] = np.nan
    close(maps(*weights, where), subset, rtol=0, atol=0)
    assert (subset[1][left_out] == 0).all()
    value, gradient = maps(*weights, np.zeros(8, bool))
    assert value == 0 and (gradient == 0).all()
    assert np.isnan(maps(*weights, WHERE)[0])


@pytest.mark.parametrize("name", ONE_EACH)
def test_no_rows_give_zero(name):
    edges = dict(senders=np.zeros(0, int), receivers=np.zeros(0, int)) if name.startswith("lsp") else {}
    loss = LOSSES[name]
    assert loss(jnp.zeros((0, 3)), jnp.zeros((0, 2)), **edges) == 0


def test_no_edges_give_zero():
    none = np.zeros(0, int)
    value, gradient = jax.value_and_grad(local_structure)(rows(1, 4, 3), rows(2, 4, 2), none, none)
    assert value == 0 and (gradient == 0).all()
    typed = {("a", "r", "a"): (none, none)}
    assert typed_local_structure({"a": rows(1, 4, 3)}, {"a": rows(2, 4, 2)}, typed) == 0
    assert attention_map_kl(np.zeros((0, 2)), np.zeros((0, 3)), none, 4) == 0
    assert attention_map_kl(np.zeros((0, 2)), np.zeros((0, 3)), none, 0) == 0


# -------------------------------------------------------------------------------------------- degenerate inputs


@pytest.mark.parametrize("name", ONE_EACH)
def test_rows_of_zeros_and_equal_rows(name):
    student, teacher = rows(17, 8, 3).astype("f4"), rows(18, 8, 4).astype("f4")
    student[1], student[4], teacher[2], teacher[4] = 0, student[2], 0, teacher[3]
    value, gradient = COMPILED[name](student, teacher)
    np.testing.assert_allclose(value, loop(name, student, teacher), rtol=3e-5)
    assert np.isfinite(gradient).all()
    for constant in (np.zeros((8, 3), "f4"), np.full((8, 3), 1.7, "f4")):
        value, gradient = COMPILED[name](constant, teacher)
        np.testing.assert_allclose(value, loop(name, constant, teacher), rtol=3e-5)
        assert np.isfinite(gradient).all()
        value, gradient = COMPILED[name](student, constant)
        np.testing.assert_allclose(value, loop(name, student, constant), rtol=3e-5)
        assert np.isfinite(gradient).all()


def test_two_equal_rows_have_no_gradient_between_them():
    student = np.array([[0, 1], [0, 1], [3, 1]], "f4")
    teacher = np.array([[0], [1], [5]], "f4")
    for loss in (rkd_distance, rkd_angle):
        gradient = jax.grad(loss)(student, teacher)
        assert np.isfinite(gradient).all()
        np.testing.assert_allclose(gradient[:, 1], 0, atol=1e-7)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_do_not_matter(name, scale):
    student, teacher = rows(19, 8, 3).astype("f4"), rows(20, 8, 4).astype("f4")
    value, _ = COMPILED[name](student * np.float32(scale), teacher * np.float32(scale))
    np.testing.assert_allclose(value, loop(name, student, teacher), rtol=3e-5)


def test_near_rows_far_from_the_origin():
    """A Gram matrix in float32 would have no digit of these distances."""
    student, teacher = np.round(rows(21, 8, 3) * 64) / 64, rows(22, 8, 3)
    value = rkd_distance((student + 4096).astype("f4"), teacher.astype("f4"))
    np.testing.assert_allclose(value, loop_rkd_distance(student, teacher), rtol=1e-4)


@pytest.mark.parametrize("name", ONE_EACH)
def test_half_precision_is_raised(name):
    student, teacher = jnp.asarray(rows(23, 8, 3), jnp.bfloat16), jnp.asarray(rows(24, 8, 4), jnp.bfloat16)
    value, gradient = COMPILED[name](student, teacher)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, loop(name, student, teacher), rtol=3e-5)
    weights = jnp.asarray(attention(1, 2), jnp.bfloat16), jnp.asarray(attention(2, 2), jnp.bfloat16)
    value = attention_map_kl(*weights, RECEIVERS, 8)
    assert value.dtype == jnp.float32
    expected = loop_attention(*(np.asarray(w, float) for w in weights), RECEIVERS, 8, np.ones(8, bool))
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_local_structure_with_far_scores():
    """Scores up to hundreds apart: softmaxes that underflow on the teacher's side, on the student's, on both."""
    with jax.enable_x64(True):
        student, teacher = rows(25, 8, 3), rows(26, 8, 3)
        for a, b in ((1, 8), (8, 1), (8, 8)):
            expected = loop_local("linear", student * a, teacher * b, np.ones(8, bool))
            value, gradient = COMPILED["lsp_linear"](student * a, teacher * b)
            np.testing.assert_allclose(value, expected, rtol=1e-9)
            assert np.isfinite(gradient).all()
    for a, b in ((1, 20), (20, 1), (20, 20)):
        expected = loop_local("linear", student * a, teacher * b, np.ones(8, bool))
        value, gradient = COMPILED["lsp_linear"]((student * a).astype("f4"), (teacher * b).astype("f4"))
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        assert np.isfinite(gradient).all()


def test_local_structure_of_near_sides_keeps_its_digits():
    teacher = rows(27, 8, 3)
    student = teacher + 1e-4 * rows(28, 8, 3)
    expected = loop_local("cosine", student, teacher, np.ones(8, bool))
    value, _ = COMPILED["lsp_cosine"](student.astype("f4"), teacher.astype("f4"))
    np.testing.assert_allclose(value, expected, rtol=2e-2)  # of the inputs' rounding; 1e-9 of a sum of logarithms


def test_attention_with_zeros():
    student = np.array([[0.5], [0.5], [0.0], [1.0]], "f4")
    teacher = np.array([[1.0], [0.0], [0.5], [0.5]], "f4")
    call = jax.value_and_grad(lambda s: attention_map_kl(s, teacher, np.array([0, 0, 1, 1]), 3))
    value, gradient = call(student)
    tiny = float(np.finfo("f4").tiny)
    np.testing.assert_allclose(value, (math.log(2) + 0.5 * math.log(0.25 / tiny)) / 2, rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 0], [-1, 0, 0, -0.25], rtol=1e-6)


# --------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("name", ONE_EACH)
def test_equal_sides_give_zero(name):
    student = rows(29, 8, 3).astype("f4")
    value, gradient = COMPILED[name](student, student)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    weights = attention(1, 2).astype("f4")
    assert attention_map_kl(weights, weights, RECEIVERS, 8) == 0


@pytest.mark.parametrize("name", PAIRWISE)
def test_invariances(name):
    """Rotation and scale for all, shifts for those of distances and angles alone, order of rows for all."""
    with jax.enable_x64(True):
        student, teacher = rows(30, 8, 3), rows(31, 8, 4)
        value, _ = COMPILED[name](student, teacher)
        rotation, _ = np.linalg.qr(rows(32, 3, 3))
        shift = np.array([1.0, -2.0, 0.5])
        order = np.random.default_rng(33).permutation(8)
        np.testing.assert_allclose(COMPILED[name](3 * student @ rotation, teacher)[0], value, rtol=1e-9)
        np.testing.assert_allclose(COMPILED[name](student, 0.1 * teacher)[0], value, rtol=1e-9)
        np.testing.assert_allclose(COMPILED[name](student[order], teacher[order])[0], value, rtol=1e-9)
        moved = COMPILED[name](student + shift, teacher)[0]
        assert np.isclose(moved, value, rtol=1e-9) == name.startswith("rkd")
        longer = COMPILED[name](student * np.arange(1, 9)[:, None], teacher)[0]
        assert np.isclose(longer, value, rtol=1e-9) == (name == "gsp")


def test_one_edge_receivers_give_zero_and_edge_order_does_not_matter():
    student, teacher = rows(34, 8, 3), rows(35, 8, 4)
    one = np.arange(8), (np.arange(8) * 3) % 8
    order = np.random.default_rng(36).permutation(10)
    for kernel in KERNELS:
        value, gradient = jax.value_and_grad(partial(local_structure, kernel=kernel))(student, teacher, *one)
        assert value == 0 and (gradient == 0).all()
        with jax.enable_x64(True):
            values = [
                local_structure(student, teacher, SENDERS[o], RECEIVERS[o], kernel=kernel) for o in (order, order[::-1])
            ]
            np.testing.assert_allclose(values, loop_local(kernel, student, teacher, np.ones(8, bool)), rtol=1e-10)
    assert attention_map_kl(np.ones((8, 2)), np.ones((8, 2)), one[1], 8) == 0
    a, b = attention(1, 2), attention(2, 2)
    with jax.enable_x64(True):
        shuffled = attention_map_kl(a[order], b[order], RECEIVERS[order], 8)
        np.testing.assert_allclose(shuffled, attention_map_kl(a, b, RECEIVERS, 8), rtol=1e-12)


# ------------------------------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("name", SAMPLED)
def test_a_sample_is_some_of_the_counted_rows(name):
    """Each of 28 pairs of 8 rows has a value of its own, so the values tell which rows were drawn."""
    student, teacher = rows(37, 8, 3).astype("f4"), rows(38, 8, 4).astype("f4")
    loss, counted = LOSSES[name], np.flatnonzero(WHERE)
    triples = [(a, b, c) for a in range(8) for b in range(a) for c in range(b)]
    known = {u: float(loss(student[list(u)], teacher[list(u)])) for u in triples}
    poisoned = np.where(WHERE[:, None], student, np.nan)
    draw = jax.jit(lambda key, s, where: loss(s, teacher, where=where, sample=3, key=key))
    seen = set()
    for seed in range(12):
        for s, where in ((student, None), (poisoned, WHERE)):
            value = draw(jax.random.key(seed), s, where)
            drawn, nearest = min(known.items(), key=lambda item: abs(item[1] - value))
            np.testing.assert_allclose(value, nearest, rtol=1e-4)
            assert where is None or set(drawn) <= set(counted)
            seen.add(drawn)
    assert len(seen) > 8

    key, few = jax.random.key(0), np.arange(8) < 2
    everything = loss(student, teacher, where=WHERE)
    np.testing.assert_allclose(loss(student, teacher, where=WHERE, sample=8, key=key), everything, rtol=1e-6)
    np.testing.assert_allclose(loss(student, teacher, where=WHERE, sample=7, key=key), everything, rtol=1e-4)
    expected = loss(student[few], teacher[few])
    np.testing.assert_allclose(loss(student, teacher, where=few, sample=5, key=key), expected, rtol=1e-4, atol=1e-7)
    gradient = jax.grad(loss)(np.where(few[:, None], student, np.nan), teacher, where=few, sample=5, key=key)
    assert np.isfinite(gradient).all() and (gradient[2:] == 0).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_too_many_rows_are_refused(name):
    limit, key = SAMPLED[name], jax.random.key(0)
    student, teacher = jnp.zeros((limit + 1, 1)), jnp.zeros((limit + 1, 2))
    with pytest.raises(ValueError, match=rf"sample=.*{limit} rows.*\({limit + 1}, 1\).*\({limit + 1}, 2\)"):
        LOSSES[name](student, teacher)
    with pytest.raises(ValueError, match=f"sample=.*sample={limit + 1} "):
        LOSSES[name](student, teacher, sample=limit + 1, key=key)
    assert jax.eval_shape(lambda s, t: LOSSES[name](s, t, sample=limit, key=key), student, teacher).shape == ()
    assert jax.eval_shape(LOSSES[name], student[1:], teacher[1:]).shape == ()


@pytest.mark.parametrize("name", SAMPLED)
def test_wrong_samples(name):
    loss, key = partial(LOSSES[name], STUDENT, TEACHER), jax.random.key(0)
    for sample in (0, -3, 2.0, True, 5):
        with pytest.raises(ValueError, match="sample: expected an integer from 1 to the number of rows, 4, got"):
            loss(sample=sample, key=key)
    with pytest.raises(ValueError, match="key: expected together with sample="):
        loss(sample=2)
    with pytest.raises(ValueError, match="sample: expected together with key="):
        loss(key=key)


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ONE_EACH)
def test_wrong_arrays(name):
    loss = LOSSES[name]
    with pytest.raises(ValueError, match=r"student, teacher: .*\(8, 3\).*\(7, 3\)"):
        loss(np.zeros((8, 3)), np.zeros((7, 3)))
    with pytest.raises(ValueError, match=r"teacher: expected shape \[N, D\].*\(8, 3\).*\(8,\)"):
        loss(np.zeros((8, 3)), np.zeros(8))
    with pytest.raises(ValueError, match=r"student: expected shape \[N, D\].*\(8, 0\)"):
        loss(np.zeros((8, 0)), np.zeros((8, 3)))
    with pytest.raises(ValueError, match="teacher: expected real numbers"):
        loss(np.zeros((8, 3)), np.zeros((8, 3), complex))
    with pytest.raises(ValueError, match=r"where: expected bool \(8,\)"):
        loss(np.zeros((8, 3)), np.zeros((8, 3)), where=np.ones(7, bool))
    with pytest.raises(ValueError, match=r"where: expected bool \(8,\).*int"):
        loss(np.zeros((8, 3)), np.zeros((8, 3)), where=np.ones(8, int))


def test_wrong_options():
    with pytest.raises(ValueError, match="order: expected 1 or 2, got 3"):
        similarity_preserving(STUDENT, TEACHER, order=3)
    with pytest.raises(ValueError, match=r"kernel: expected one of .*'poly'.*got 'euclid'"):
        local_structure(STUDENT, TEACHER, *GOLDEN_EDGES, kernel="euclid")
    with pytest.raises(ValueError, match="kernel: expected one of"):
        typed_local_structure({"a": STUDENT}, {"a": TEACHER}, {("a", "r", "a"): GOLDEN_EDGES}, kernel="euclid")


@pytest.mark.parametrize("bad", [-1, 4])
def test_wrong_edges(bad):
    local = partial(local_structure, STUDENT, TEACHER)
    with pytest.raises(ValueError, match=r"senders, receivers: expected one length, got \(2,\) and \(3,\)"):
        local([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match=r"senders: expected integers \[E\]"):
        local([0.0], [1])
    with pytest.raises(ValueError, match=rf"senders: expected indices in \[0, 4\), got {bad} at edge 1"):
        local([0, bad], [1, 1])
    with pytest.raises(ValueError, match=rf"receivers: expected indices in \[0, 4\), got {bad} at edge 0"):
        local([0, 1], [bad, 1])
    traced = jax.jit(local)
    assert np.isfinite(traced(np.array([0, 1]), np.array([1, 1])))
    assert np.isnan(traced(np.array([0, bad]), np.array([1, 1])))
    assert np.isnan(traced(np.array([0, 1]), np.array([1, bad])))
    assert np.isnan(jax.jit(partial(local_structure, STUDENT[:0], TEACHER[:0]))(np.array([0]), np.array([0])))
    maps = jax.jit(lambda r: attention_map_kl(np.ones((2, 1)), np.ones((2, 1)), r, 4))
    assert maps(np.array([0, 1])) == 0 and np.isnan(maps(np.array([0, bad])))
    with pytest.raises(ValueError, match=rf"receivers: expected indices in \[0, 4\), got {bad} at edge 0"):
        attention_map_kl(np.ones((2, 1)), np.ones((2, 1)), np.array([bad, 1]), 4)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "edges: expected a dictionary"),
        ({}, "edges: expected at least one relation"),
        ({("a", "b"): GOLDEN_EDGES}, r"edges\[\('a', 'b'\)\]: expected \(source, relation, destination\)"),
        ({("a", "r", "z"): GOLDEN_EDGES}, r"edges\[.*\]: expected \(source, relation, destination\)"),
        ({("a", "r", "b"): (GOLDEN_EDGES[0],)}, r"edges\[.*\]: expected \(senders, receivers\), got 1 arrays"),
        ({("a", "r", "b"): ([0, 1], [0])}, r"edges\[.*\] senders, receivers: expected one length"),
        ({("a", "r", "b"): ([3], [0])}, r"edges\[.*\] senders: expected indices in \[0, 3\)"),
        ({("a", "r", "b"): ([0], [4])}, r"edges\[.*\] receivers: expected indices in \[0, 4\)"),
    ],
)
def test_wrong_typed_edges(edges, message):
    student, teacher = {"a": STUDENT[:3], "b": STUDENT}, {"a": TEACHER[:3], "b": TEACHER}
    with pytest.raises(ValueError, match=message):
        typed_local_structure(student, teacher, edges)


def test_wrong_typed_rows():
    edges = {("a", "r", "a"): GOLDEN_EDGES}
    with pytest.raises(ValueError, match="student, teacher: expected the same node types"):
        typed_local_structure({"a": STUDENT}, {"b": TEACHER}, edges)
    with pytest.raises(ValueError, match=r"where\['a'\]: expected bool \(4,\)"):
        typed_local_structure({"a": STUDENT}, {"a": TEACHER}, edges, where={"a": np.ones(3, bool)})


def test_wrong_attention():
    ones, into = np.ones((3, 2)), np.array([0, 1, 1])
    with pytest.raises(ValueError, match=r"student_attention, teacher_attention: .*\(3, 2\).*\(2, 2\)"):
        attention_map_kl(ones, ones[:2], into, 2)
    with pytest.raises(ValueError, match=r"student_attention: expected shape \[E, H\].*\(3,\)"):
        attention_map_kl(ones[:, 0], ones, into, 2)
    with pytest.raises(ValueError, match=r"receivers, student_attention: .*\(2,\) and \(3, 2\)"):
        attention_map_kl(ones, ones, into[:2], 2)
    with pytest.raises(ValueError, match="receivers: expected integers"):
        attention_map_kl(ones, ones, into * 1.0, 2)
    for size in (-1, 2.0, None):
        with pytest.raises(ValueError, match="num_receivers: expected an integer of at least 0"):
            attention_map_kl(ones, ones, into, size)
    with pytest.raises(ValueError, match=r"where: expected bool \(2,\)"):
        attention_map_kl(ones, ones, into, 2, where=np.ones(3, bool))
