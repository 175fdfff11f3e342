"""soft_target_kl and bernoulli_kl against golden values, plain loops, identities and their edge cases."""

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

from hire_jax.losses import bernoulli_kl, soft_target_kl

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
STUDENT = np.array([[2, 0.5, -1], [0.1, 0.2, 0.3], [-1, 3, 0], [1.5, -0.5, 0.5]])
TEACHER = np.array([[3, 0, -2], [0, 1, 0.5], [-2, 4, 0], [0.5, -1, 2]])
LOSSES = [soft_target_kl, bernoulli_kl]


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


LOOPS = {soft_target_kl: loop_soft_target_kl, bernoulli_kl: loop_bernoulli_kl}


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


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teacher_is_a_constant(loss):
    gradient = jax.grad(lambda t: loss(jnp.asarray(STUDENT), t, temperature=2.0))(jnp.asarray(TEACHER))
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_jit_equals_eager_and_vmap_equals_a_loop(loss):
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
    mapped_values, mapped_gradients = jax.jit(jax.vmap(differentiated))(students, teachers, where)
    np.testing.assert_allclose(mapped_values, values, rtol=1e-5)
    np.testing.assert_allclose(mapped_gradients, gradients, rtol=1e-4, atol=1e-6 / shape[0])
    summed = jax.jit(jax.grad(lambda z: jnp.sum(jax.vmap(call)(z, teachers, where))))(students)
    np.testing.assert_allclose(summed, gradients, rtol=1e-4, atol=1e-6 / shape[0])
    value, gradient = jax.jit(differentiated)(students[0], teachers[0], where[0])
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
    np.testing.assert_allclose(gradient[where], expected_gradient, rtol=1e-5, atol=1e-8)
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
    value, gradient = call(jnp.array([[jnp.inf, -jnp.inf, 0.5]]))
    assert value == jnp.inf and np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES)
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
    assert error <= tolerance * np.abs(exact_gradient).max()


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


@pytest.mark.parametrize("loss", LOSSES)
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


@pytest.mark.parametrize("loss", LOSSES)
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
        ({"temperature": np.ones(2)}, r"temperature: expected a scalar, got shape \(2,\)"),
    ],
)
def test_wrong_arguments_are_named(loss, change, message):
    arguments = {"student_logits": STUDENT, "teacher_logits": TEACHER} | change
    with pytest.raises(ValueError, match=message):
        loss(**arguments)
