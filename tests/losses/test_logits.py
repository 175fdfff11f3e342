"""Losses on logits against golden values, plain loops, identities and their edge cases."""

import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from hire_jax.losses import bernoulli_kl, decoupled_kd, dist, jensen_shannon, logit_mse, reverse_kl, soft_target_kl

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
STUDENT = np.array([[2, 0.5, -1], [0.1, 0.2, 0.3], [-1, 3, 0], [1.5, -0.5, 0.5]])
TEACHER = np.array([[3, 0, -2], [0, 1, 0.5], [-2, 4, 0], [0.5, -1, 2]])


def mse(student, teacher, *, temperature=1.0, **rest):
    """With a temperature that changes nothing."""
    return logit_mse(student, teacher, **rest)


def decoupled(student, teacher, **rest):
    """With labels that the arguments decide."""
    return decoupled_kd(student, teacher, jnp.argmin(teacher, axis=-1), alpha=0.7, beta=2.0, **rest)


LOSSES = [soft_target_kl, bernoulli_kl, reverse_kl, jensen_shannon, mse, decoupled, dist]
DIVERGENCES = [soft_target_kl, bernoulli_kl, reverse_kl, jensen_shannon]


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    exponentials = [math.exp(x - top) for x in row]
    return [e / sum(exponentials) for e in exponentials]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def sigmoids(array: np.ndarray) -> np.ndarray:
    return np.array([[sigmoid(x) for x in row] for row in array])


def loop_soft_target_kl(student, teacher, temperature=1.0, where=None) -> float:
    rows = [v for v in range(len(student)) if where is None or where[v]]
    total = 0.0
    for v in rows:
        p = softmax([z / temperature for z in teacher[v]])
        q = softmax([z / temperature for z in student[v]])
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
    return temperature**2 * total / max(len(rows), 1)


def loop_bernoulli_kl(student, teacher, temperature=1.0, where=None) -> float:
    rows = [v for v in range(len(student)) if where is None or where[v]]
    total = 0.0
    for v in rows:
        for z_s, z_t in zip(student[v], teacher[v], strict=True):
            q_t, q_s = sigmoid(z_t / temperature), sigmoid(z_s / temperature)
            n_t, n_s = sigmoid(-z_t / temperature), sigmoid(-z_s / temperature)
            total += q_t * math.log(q_t / q_s) + n_t * math.log(n_t / n_s)
    return temperature**2 * total / max(len(rows), 1)


def kl(p, q) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def loop_rows(of_row):
    """T² times the mean of `of_row(softened teacher, softened student, teacher, student)` over rows."""

    def loop(student, teacher, temperature=1.0, where=None) -> float:
        rows = [v for v in range(len(student)) if where is None or where[v]]
        total = 0.0
        for v in rows:
            p, q = (softmax([z / temperature for z in side[v]]) for side in (teacher, student))
            total += of_row(p, q, teacher[v], student[v])
        return temperature**2 * total / max(len(rows), 1)

    return loop


def row_jensen_shannon(p, q, *_):
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return 0.5 * kl(p, m) + 0.5 * kl(q, m)


def row_decoupled(p, q, t, s):
    y = min(range(len(t)), key=lambda c: t[c])
    rest = [[x / sum(side[:y] + side[y + 1 :]) for c, x in enumerate(side) if c != y] for side in (p, q)]
    return 0.7 * kl([p[y], 1 - p[y]], [q[y], 1 - q[y]]) + 2 * kl(*rest)


def correlation(a, b) -> float:
    a, b = ([x - sum(side) / len(side) for x in side] for side in (a, b))
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms > 0 else 0.0


def loop_dist(student, teacher, temperature=1.0, where=None) -> float:
    rows = [v for v in range(len(student)) if where is None or where[v]]
    p, q = ([softmax([z / temperature for z in side[v]]) for v in rows] for side in (teacher, student))
    inter = sum(1 - correlation(a, b) for a, b in zip(p, q, strict=True)) / len(rows)
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    intra = sum(1 - correlation(a, b) for a, b in columns) / len(p[0])
    return temperature**2 * (inter + intra)


LOOPS = {
    soft_target_kl: loop_soft_target_kl,
    bernoulli_kl: loop_bernoulli_kl,
    reverse_kl: loop_rows(lambda p, q, t, s: kl(q, p)),
    jensen_shannon: loop_rows(row_jensen_shannon),
    mse: lambda s, t, temperature, where: np.sum((s - t)[where] ** 2) / np.sum(where),
    decoupled: loop_rows(row_decoupled),
    dist: loop_dist,
}


def compile_loss(loss):
    """jit of value and gradient of (student, teacher, temperature, where); compiling once is quicker."""

    def call(student, teacher, temperature=1.0, where=None):
        return loss(student, teacher, temperature=temperature, where=where)

    return jax.jit(jax.value_and_grad(call))


COMPILED = {loss: compile_loss(loss) for loss in LOSSES}


def logits(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("temperature", [1, 2, 4])
def test_soft_target_kl_equals_the_golden_batchmean_times_squared_temperature(temperature):
    expected = GOLDEN[f"kl_tau{temperature}_batchmean_xT2"]
    with jax.enable_x64(True):
        value = soft_target_kl(jnp.asarray(STUDENT), jnp.asarray(TEACHER), temperature=temperature)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    single = soft_target_kl(STUDENT.astype("f4"), TEACHER.astype("f4"), temperature=temperature)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(1, 1), (13, 6)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_values_equal_a_plain_loop(loss, shape, temperature):
    shape = (1, 2) if shape == (1, 1) and loss in (decoupled, dist) else shape
    student, teacher, where = logits(*shape, seed=1), logits(*shape, seed=2), np.arange(shape[0]) % 3 != 1
    expected = LOOPS[loss](student, teacher, temperature, where)
    with jax.enable_x64(True):
        value, _ = COMPILED[loss](student, teacher, temperature, where)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-14)
    single, _ = COMPILED[loss](student.astype("f4"), teacher.astype("f4"), temperature, where)
    np.testing.assert_allclose(single, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradients_equal_the_closed_forms(temperature):
    student, teacher, where = logits(13, 6, seed=3), logits(13, 6, seed=4), np.arange(13) % 4 != 2

    with jax.enable_x64(True):
        scaled_s, scaled_t = student / temperature, teacher / temperature
        soft = [np.subtract(softmax(s), softmax(t)) for s, t in zip(scaled_s, scaled_t, strict=True)]
        hard = sigmoids(scaled_s) - sigmoids(scaled_t)
        for loss, difference in ((soft_target_kl, soft), (bernoulli_kl, hard)):
            expected = temperature / where.sum() * where[:, None] * np.array(difference)
            _, gradient = COMPILED[loss](student, teacher, temperature, where)
            np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_equal_finite_differences(loss):
    with jax.enable_x64(True):
        student, teacher = jnp.asarray(logits(4, 3, seed=5)), jnp.asarray(logits(4, 3, seed=6))
        where = jnp.array([True, False, True, True])
        call = jax.jit(lambda z, t: loss(z, teacher, temperature=t, where=where))
        check_grads(call, (student, jnp.asarray(1.5)), order=1)


def test_second_derivatives_equal_the_closed_forms():
    student, teacher = logits(1, 4, seed=5), logits(1, 4, seed=6)
    q, answers = np.array(softmax(student[0] / 2)), sigmoids(student / 2)[0]
    with jax.enable_x64(True):
        for loss, expected in (
            (soft_target_kl, np.diag(q) - np.outer(q, q)),
            (bernoulli_kl, np.diag(answers * (1 - answers))),
        ):
            hessian = jax.jit(jax.hessian(lambda z, loss=loss: loss(z[None], teacher, temperature=2.0)))
            np.testing.assert_allclose(hessian(jnp.asarray(student[0])), expected, rtol=1e-9, atol=1e-14)


def plain_kl(p, q):
    """From logarithms of probabilities."""
    return jnp.sum(jnp.exp(p) * (p - q)) / len(p)


PLAIN = {  # of softened logits
    soft_target_kl: lambda s, t: plain_kl(jax.nn.log_softmax(t), jax.nn.log_softmax(s)),
    reverse_kl: lambda s, t: plain_kl(jax.nn.log_softmax(s), jax.nn.log_softmax(t)),
    bernoulli_kl: lambda s, t: sum(plain_kl(jax.nn.log_sigmoid(x * t), jax.nn.log_sigmoid(x * s)) for x in (1, -1)),
}


@pytest.mark.parametrize("loss", PLAIN)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_derivatives_equal_the_plain_form_near_and_far(loss, order):
    near = np.array([[-1.5, 0, 3]])
    apart = np.array([[0.02, -0.01, 0], [0.9, -0.8, 0.3], [-1.2, 1.1, 2], [15, -15, 1]])
    student = np.concatenate([near + apart, [[2000, 0, -2000], [0, 1, 2], [-np.inf, 1, 0], [1, 2, 0], [1, 0, 2]]])
    teacher = np.concatenate([near + 0 * apart, [[0, 1, 2], [2000, 0, -2000], [-np.inf, 0, 2], [-np.inf, 0, 2]]])
    teacher = np.concatenate([teacher, [[-np.inf, 0, -np.inf]]])  # most of the student's share is in the others
    rows = slice(-2) if loss is reverse_kl else slice(None)  # where what the teacher excludes makes it infinite

    def derivatives(function, low):
        s, t = (jnp.asarray(np.where(np.isinf(z), low, z)[rows]) for z in (student, teacher))
        for derivative in (jax.jacrev, jax.jacfwd)[:order]:
            function = derivative(function, argnums=(0, 2))
        return jax.tree.leaves(jax.jit(function)(s, t, jnp.asarray(2.0)))

    def ours(s, t, temperature):
        return loss(s, t, temperature=temperature)

    def plain(s, t, temperature):
        return temperature**2 * PLAIN[loss](s / temperature, t / temperature)

    with jax.enable_x64(True):
        for found, expected in zip(derivatives(ours, -np.inf), derivatives(plain, -1e5), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_second_derivatives_do_not_overflow_before_the_value_does():
    hessian = jax.hessian(lambda s: soft_target_kl(s, jnp.zeros((1, 2))))(jnp.array([[0.0, 150.0]]))
    np.testing.assert_allclose(hessian, 0, atol=1e-6)  # q (1 - q) at a q of 1 and exp(75) within


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teacher_is_a_constant(loss):
    gradient = jax.grad(lambda t: loss(jnp.asarray(STUDENT), t, temperature=2.0))(jnp.asarray(TEACHER))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_jit_equals_eager_and_vmap_equals_a_loop(loss, users_jit):
    shape = (33000, 3)  # above 32768 rows jit(vmap) has been miscompiled
    students = jnp.asarray(logits(3, *shape, seed=7), jnp.float32)
    teachers = jnp.asarray(logits(3, *shape, seed=8), jnp.float32)
    where = jnp.asarray(np.random.default_rng(9).random((3, shape[0])) < 0.7)

    def call(student, teacher, mask):
        return loss(student, teacher, temperature=2.0, where=mask)

    differentiated = jax.value_and_grad(call)
    values, gradients = jax.tree.map(
        lambda *parts: jnp.stack(parts),
        *[differentiated(*case) for case in zip(students, teachers, where, strict=True)],
    )
    mapped_values, mapped_gradients = users_jit(jax.vmap(differentiated))(students, teachers, where)
    np.testing.assert_allclose(mapped_values, values, rtol=1e-5)
    np.testing.assert_allclose(mapped_gradients, gradients, rtol=1e-4, atol=1e-6 / shape[0])
    if loss in (soft_target_kl, bernoulli_kl):  # the others are compositions of the same
        summed = users_jit(jax.grad(lambda z: jnp.sum(jax.vmap(call)(z, teachers, where))))(students)
        np.testing.assert_allclose(summed, gradients, rtol=1e-4, atol=1e-6 / shape[0])
    value, gradient = users_jit(differentiated)(students[0], teachers[0], where[0])
    np.testing.assert_allclose(value, values[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, gradients[0], rtol=1e-4, atol=1e-6 / shape[0])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_masked_rows_have_no_influence(loss, poison):
    student, teacher = logits(6, 3, seed=10).astype("f4"), logits(6, 3, seed=11).astype("f4")
    where = np.array([True, False, True, False, False, True])
    expected, expected_gradient = COMPILED[loss](student[where], teacher[where], 2.0)
    student[1], student[3, 0], teacher[3], teacher[4, 1] = poison, poison, poison, poison
    value, gradient = COMPILED[loss](student, teacher, 2.0, where)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    atol = 1e-6 if loss is dist else 1e-8  # a difference of near numbers
    np.testing.assert_allclose(gradient[where], expected_gradient, rtol=1e-5, atol=atol)
    np.testing.assert_array_equal(gradient[~where], 0)

    value, gradient = COMPILED[loss](student, teacher, 2.0, np.zeros(6, bool))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_rows_give_zero(loss):
    assert loss(jnp.zeros((0, 3)), jnp.zeros((0, 3))) == 0


def test_a_bad_unmasked_row_is_seen():
    student = STUDENT.copy()
    student[2, 1] = np.nan
    for loss in LOSSES:
        assert jnp.isnan(loss(student, TEACHER))


def test_classes_of_teacher_probability_zero():
    student, teacher = STUDENT.astype("f4").copy(), TEACHER.astype("f4").copy()
    teacher[:, 2] = -np.inf
    value, gradient = COMPILED[soft_target_kl](student, teacher, 2.0)
    expected = loop_soft_target_kl(student.astype("f8"), np.where(np.isinf(teacher), -1e9, teacher), 2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all() and (gradient[:, 2] > 0).all()  # the student's mass there is to go

    student[:, 2] = -np.inf  # excluded by both: as if the class were not there
    value, gradient = COMPILED[soft_target_kl](student, teacher, 2.0)
    np.testing.assert_allclose(value, soft_target_kl(student[:, :2], teacher[:, :2], temperature=2.0), 1e-6)
    assert np.isfinite(gradient).all() and (gradient[:, 2] == 0).all()


def test_teacher_probabilities_that_vanish_by_rounding():
    student = jnp.array([[0.0, 1.0, 2.0], [300.0, 0.0, -300.0]])
    teacher = jnp.array([[0.0, 200.0, -200.0], [0.0, 500.0, -500.0]])
    value, gradient = COMPILED[soft_target_kl](student, teacher)
    expected = (math.log(sum(math.exp(x) for x in (0, 1, 2))) - 1 + 300) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_a_class_that_only_the_student_excludes():
    student, teacher = jnp.array([[0.0, -jnp.inf]]), jnp.array([[0.0, 0.0]])
    value, gradient = COMPILED[soft_target_kl](student, teacher)
    assert value == jnp.inf
    np.testing.assert_allclose(gradient, [[0.5, -0.5]], rtol=1e-6)


def test_certain_answers_of_bernoulli_kl():
    infinite = jnp.array([[-jnp.inf, jnp.inf, 0.5]])
    call = partial(COMPILED[bernoulli_kl], teacher=infinite)
    value, gradient = call(infinite)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
    value, gradient = call(jnp.array([[1.0, -2.0, 0.5]]))
    np.testing.assert_allclose(value, math.log1p(math.e) + math.log1p(math.e**2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[sigmoid(1), sigmoid(-2) - 1, 0]], rtol=1e-6, atol=1e-7)
    value, gradient = call(jnp.array([[jnp.inf, -jnp.inf, 0.5]]), temperature=2.0)
    assert value == jnp.inf
    np.testing.assert_allclose(gradient, [[2, -2, 0]], rtol=1e-6)  # T times the difference of probabilities
    value, gradient = COMPILED[bernoulli_kl](infinite, jnp.array([[1.0, -2.0, 0.5]]), 2.0)
    assert value == jnp.inf
    np.testing.assert_allclose(gradient, [[-2 * sigmoid(0.5), 2 * sigmoid(1), 0]], rtol=1e-6)


@pytest.mark.parametrize("loss", [*DIVERGENCES, decoupled])
@pytest.mark.parametrize("temperature", [1e-2, 0.1, 1.0, 10.0, 100.0, 1e3])
@pytest.mark.parametrize("distance", [1e-3, 0.1, 3.0])
def test_float32_holds_its_digits_at_every_temperature(loss, temperature, distance):
    teacher = logits(40, 7, seed=12).astype("f4")
    student = (teacher + distance * logits(40, 7, seed=13, scale=1.0)).astype("f4")
    value, gradient = COMPILED[loss](student, teacher, temperature)
    with jax.enable_x64(True):
        wide = student.astype("f8"), teacher.astype("f8")
        exact, exact_gradient = COMPILED[loss](*wide, temperature)
        if 0.1 <= temperature <= 10 and distance > 1e-3:  # elsewhere the loop fails, even in float64
            np.testing.assert_allclose(exact, LOOPS[loss](*wide, temperature), 1e-9)
    # At a low temperature probabilities are exponentials of large numbers: what digits they have
    # is a matter of the exponent's.
    tolerance = 1e-5 + 1e-6 / temperature
    np.testing.assert_allclose(value, exact, rtol=tolerance)
    error = np.abs(np.asarray(gradient) - np.asarray(exact_gradient)).max()
    largest = np.abs(exact_gradient).max()
    if loss is jensen_shannon:  # it vanishes where the sides share no class: then rounding is left
        largest = max(largest, 1e-3 * temperature / len(student))
    assert error <= tolerance * largest


def test_high_temperatures_approach_half_the_variance_of_the_difference():
    student, teacher = logits(9, 5, seed=14).astype("f4"), logits(9, 5, seed=15).astype("f4")
    expected = 0.5 * np.var(student - teacher, axis=1).mean()
    np.testing.assert_allclose(soft_target_kl(student, teacher, temperature=1e3), expected, rtol=1e-2)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss):
    student, teacher = logits(40, 7, seed=16), logits(40, 7, seed=17)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (student, teacher)]
    value, gradient = COMPILED[loss](*half, 3.0)
    expected, _ = COMPILED[loss](*(x.astype(jnp.float32) for x in half), 3.0)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert gradient.dtype == jnp.bfloat16


VALUES = st.floats(-30, 30, width=32)


@st.composite
def pairs_of_logits(draw):
    rows, classes = draw(st.sampled_from([(3, 1), (4, 5)]))
    numbers = st.lists(VALUES, min_size=rows * classes, max_size=rows * classes)
    student, teacher = (np.array(draw(numbers), "f4").reshape(rows, classes) for _ in range(2))
    return student, teacher, draw(st.sampled_from([0.1, 1.0, 7.0, 300.0]))


@pytest.mark.parametrize("loss", DIVERGENCES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(pairs_of_logits())
def test_identities(loss, case):
    student, teacher, temperature = case
    compiled = COMPILED[loss]
    value, gradient = compiled(student, teacher, temperature)
    assert value >= 0 and np.isfinite(value) and np.isfinite(gradient).all()
    with jax.enable_x64(True):
        exact, _ = compiled(student.astype("f8"), teacher.astype("f8"), temperature)
    np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-6 * temperature**2 * 1e-6)

    same, same_gradient = compiled(teacher, teacher, temperature)
    assert same == 0 and (same_gradient == 0).all()

    order = np.random.default_rng(0).permutation(len(student))
    np.testing.assert_allclose(compiled(student[order], teacher[order], temperature)[0], value, rtol=1e-5)


def test_a_constant_added_to_a_row_changes_nothing():
    shift = 50 * np.random.default_rng(18).standard_normal((4, 1))
    with jax.enable_x64(True):
        expected = soft_target_kl(STUDENT, TEACHER, temperature=2.0)
        np.testing.assert_allclose(
            soft_target_kl(STUDENT + shift, TEACHER - shift, temperature=2.0), expected, 1e-12
        )


def test_bernoulli_kl_of_one_class_is_soft_target_kl_of_two():
    student, teacher = logits(8, 1, seed=19), logits(8, 1, seed=20)
    two = [np.concatenate([z, np.zeros_like(z)], axis=1) for z in (student, teacher)]
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            bernoulli_kl(student, teacher, temperature=2), soft_target_kl(*two, temperature=2)
        )


def test_reverse_kl_is_soft_target_kl_with_the_roles_exchanged():
    for temperature in (0.5, 4.0):
        expected = soft_target_kl(TEACHER, STUDENT, temperature=temperature)
        np.testing.assert_allclose(reverse_kl(STUDENT, TEACHER, temperature=temperature), expected, rtol=1e-6)
    excluded = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, -jnp.inf]])
    value, gradient = COMPILED[reverse_kl](*excluded)
    assert value == jnp.inf and np.isfinite(gradient).all()


def test_jensen_shannon_is_symmetric_bounded_and_a_quarter_nearby():
    with jax.enable_x64(True):
        value, _ = COMPILED[jensen_shannon](STUDENT, TEACHER, 2.0)
        np.testing.assert_allclose(value, COMPILED[jensen_shannon](TEACHER, STUDENT, 2.0)[0], rtol=1e-12)
        near = TEACHER + 1e-5 * STUDENT
        quarter = soft_target_kl(near, TEACHER) / 4
        np.testing.assert_allclose(COMPILED[jensen_shannon](near, TEACHER)[0], quarter, rtol=1e-4)
    apart = jnp.array([[0.0, -jnp.inf, -jnp.inf]]), jnp.array([[-jnp.inf, 1.0, -jnp.inf]])
    value, gradient = COMPILED[jensen_shannon](*apart, 3.0)
    np.testing.assert_allclose(value, 9 * math.log(2), rtol=1e-6)
    assert np.isfinite(gradient).all()
    value, gradient = COMPILED[jensen_shannon](apart[0], jnp.array([[0.0, 0.0, -jnp.inf]]))
    np.testing.assert_allclose(value, row_jensen_shannon([0.5, 0.5, 0], [1, 0, 0]), rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_by_temperature_with_excluded_classes(loss):
    excluded = np.where(np.arange(3) == 1, -np.inf, TEACHER).astype("f4")
    for student in (STUDENT.astype("f4"), np.where(np.arange(3) == 1, -np.inf, STUDENT).astype("f4")):
        if loss in (reverse_kl, bernoulli_kl, mse) and np.isfinite(student).all():
            continue  # the student allows what the teacher excludes: infinite
        slope = jax.grad(lambda t, s=student: loss(s, excluded, temperature=t))(2.0)
        assert np.isfinite(slope)


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32_where_float64_is_on(loss):
    with jax.enable_x64(True):
        assert loss(STUDENT.astype("f4"), TEACHER.astype("f4")).dtype == jnp.float32
        assert loss(STUDENT, TEACHER.astype("f4")).dtype == jnp.float64


def test_logit_mse():
    student, teacher = STUDENT.astype("f4"), TEACHER.astype("f4")
    shift = np.float32([[1], [-3], [0], [9]])
    np.testing.assert_allclose(logit_mse(student, teacher), np.sum((student - teacher) ** 2) / 4, rtol=1e-6)
    centred = logit_mse(student + shift, teacher, centred=True)
    np.testing.assert_allclose(centred, logit_mse(student, teacher, centred=True), rtol=1e-5)
    np.testing.assert_allclose(centred / 6, soft_target_kl(student, teacher, temperature=1e3), rtol=1e-2)
    expected = np.sum((student - teacher)[:, [0, 2]] ** 2) / 4
    student[:, 1] = teacher[:, 1] = -np.inf
    value, gradient = jax.value_and_grad(logit_mse)(jnp.asarray(student), teacher)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_decoupled_kd_adds_up_to_soft_target_kl():
    labels = np.array([0, 1, 2, 1])
    with jax.enable_x64(True):
        for v in range(4):
            s, t, y = STUDENT[v : v + 1], TEACHER[v : v + 1], labels[v : v + 1]
            target, others = (decoupled_kd(s, t, y, alpha=a, beta=1 - a, temperature=2.0) for a in (1, 0))
            rest = 1 - softmax(t[0] / 2)[y[0]]
            np.testing.assert_allclose(target + rest * others, soft_target_kl(s, t, temperature=2.0), rtol=1e-10)
    unlabelled = decoupled_kd(STUDENT, TEACHER, np.full(4, -1))
    np.testing.assert_allclose(unlabelled, decoupled_kd(STUDENT, TEACHER, TEACHER.argmax(axis=1)), rtol=1e-6)
    assert np.isnan(decoupled_kd(STUDENT, TEACHER, np.array([0, 1, 2, 3])))
    assert decoupled_kd(TEACHER, TEACHER, labels) == 0


def test_decoupled_kd_without_other_classes():
    labels, sure = np.array([0]), np.float32([[0, -np.inf, -np.inf]])
    call = jax.value_and_grad(lambda s, t: decoupled_kd(s, t, labels))
    value, gradient = call(np.float32([[1, 0, -2]]), sure)
    np.testing.assert_allclose(value, kl([1, 0], [softmax([1, 0, -2])[0], 1]), rtol=1e-6)
    assert np.isfinite(gradient).all()
    value, gradient = call(sure, np.float32([[1, 0, -2]]))
    assert value == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, int)}, r"labels: expected int \(4,\), got int64 \(3,\)|int32 \(3,\)"),
        ({"labels": np.zeros(4)}, r"labels: expected int \(4,\), got float"),
        ({"alpha": np.ones(2)}, r"alpha: expected a scalar, got shape \(2,\)"),
        ({"beta": np.ones(2)}, r"beta: expected a scalar"),
        ({"student_logits": np.zeros((4, 1)), "teacher_logits": np.zeros((4, 1))}, "at least 2 classes"),
    ],
)
def test_wrong_arguments_of_decoupled_kd_are_named(change, message):
    arguments = {"student_logits": STUDENT, "teacher_logits": TEACHER, "labels": np.zeros(4, int)} | change
    with pytest.raises(ValueError, match=message):
        decoupled_kd(**arguments)


def test_dist_sees_neither_scale_nor_offset_of_probabilities():
    rng = np.random.default_rng(21)
    p = rng.dirichlet(np.ones(5), size=12)
    nearer = 0.4 * p + 0.6 / 5  # the same up to scale and offset, in rows and in columns
    with jax.enable_x64(True):
        assert abs(dist(np.log(nearer), np.log(p))) < 1e-12
        only_rows = dist(np.log(nearer), np.log(p[::-1]), inter=0.0)
        np.testing.assert_allclose(only_rows, dist(np.log(p), np.log(p[::-1]), inter=0.0), rtol=1e-9)
        both = dist(STUDENT, TEACHER, inter=2.0, intra=3.0)
        parts = 2 * dist(STUDENT, TEACHER, intra=0.0) + 3 * dist(STUDENT, TEACHER, inter=0.0)
        np.testing.assert_allclose(both, parts, rtol=1e-12)
    with pytest.raises(ValueError, match="intra: expected a scalar"):
        dist(STUDENT, TEACHER, intra=np.ones(2))


@pytest.mark.parametrize("temperature", [1.0, 1e3])
@pytest.mark.parametrize("distance", [1e-2, 1.0])
def test_dist_holds_its_digits_at_high_temperatures(temperature, distance):
    teacher = logits(40, 7, seed=12).astype("f4")
    student = (teacher + distance * logits(40, 7, seed=13, scale=1.0)).astype("f4")
    value, gradient = COMPILED[dist](student, teacher, temperature)
    with jax.enable_x64(True):
        exact, exact_gradient = COMPILED[dist](student.astype("f8"), teacher.astype("f8"), temperature)
    np.testing.assert_allclose(value, exact, rtol=1e-4)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=0, atol=1e-3 * np.abs(exact_gradient).max())


def test_dist_of_equal_probabilities_has_no_correlation():
    flat = np.zeros((3, 4), "f4")
    value, gradient = COMPILED[dist](flat, STUDENT[:3, [0, 1, 2, 0]].astype("f4"))
    assert value == 2 and np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [*DIVERGENCES, logit_mse, decoupled, partial(dist, intra=0.0)])
def test_weights_are_repetitions_of_rows(loss):
    weights = np.float32([2, 0, 1, 3])
    repeated = np.repeat(np.arange(4), weights.astype(int))
    student = STUDENT.astype("f4")
    expected = loss(student[repeated], TEACHER[repeated])
    np.testing.assert_allclose(loss(student, TEACHER, weights=weights), expected, rtol=1e-5)
    student[1] = np.nan  # of weight 0
    gradient = jax.grad(lambda s, w: loss(s, TEACHER, weights=w), argnums=(0, 1))(student, weights)
    assert np.isfinite(gradient[0]).all() and (gradient[0][1] == 0).all() and (gradient[1] == 0).all()
    where = np.array([True, True, False, False])
    expected = loss(student[:1], TEACHER[:1])
    np.testing.assert_allclose(loss(student, TEACHER, weights=weights, where=where), expected, rtol=1e-5)
    assert loss(student, TEACHER, weights=np.zeros(4)) == 0
    flags = np.array([True, False, True, True])
    np.testing.assert_allclose(loss(student, TEACHER, weights=flags), loss(student, TEACHER, where=flags), rtol=1e-6)
    with pytest.raises(ValueError, match=r"weights: expected numbers of at least 0, got -1\.0"):
        loss(student, TEACHER, weights=np.array([1, -1, 1, 1]))
    with pytest.raises(ValueError, match=r"weights: expected shape \(4,\), one number a row, got \(4, 1\)"):
        loss(student, TEACHER, weights=weights[:, None])


@pytest.mark.parametrize("loss", [*DIVERGENCES, dist, partial(decoupled_kd, labels=np.zeros(4, int)), logit_mse])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_logits": np.zeros((4, 2))}, r"student_logits \(4, 2\) and teacher_logits \(4, 3\)"),
        ({"teacher_logits": np.zeros(3)}, r"teacher_logits: expected shape \[N, C\].*teacher_logits \(3,\)"),
        ({"student_logits": np.zeros((2, 4, 3))}, r"student_logits: expected shape \[N, C\].*\(2, 4, 3\)"),
        ({"student_logits": np.zeros((4, 0)), "teacher_logits": np.zeros((4, 0))}, r"student_logits .4, 0."),
        (
            {"student_logits": np.zeros((4, 3), complex)},
            "student_logits: expected real numbers, got dtype com",
        ),
        ({"where": np.ones(3, bool)}, r"where: expected bool \(4,\).*got bool \(3,\)"),
        ({"where": np.ones(4, np.int32)}, r"where: expected bool \(4,\).*got int32 \(4,\)"),
        ({"where": np.ones((4, 1), bool)}, r"where: .*\(4, 1\)"),
        ({"temperature": 0}, "temperature: expected a positive finite number, got 0"),
        ({"temperature": -2.0}, "temperature: expected a positive finite number, got -2.0"),
        ({"temperature": float("nan")}, "temperature: .*nan"),
        ({"temperature": float("inf")}, "temperature: .*inf"),
        ({"temperature": np.float32(-1)}, "temperature: expected a positive"),
        ({"temperature": jnp.float32(-1)}, "temperature: expected a positive"),
        ({"temperature": np.ones(2)}, r"temperature: expected a scalar, got shape \(2,\)"),
    ],
)
def test_wrong_arguments_are_named(loss, change, message):
    if loss is logit_mse and "temperature" in change:
        return  # it has none
    arguments = {"student_logits": STUDENT, "teacher_logits": TEACHER} | change
    with pytest.raises(ValueError, match=message):
        loss(**arguments)
