"""Feature losses against golden values, plain loops, closed forms, identities and their edge cases."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hire_jax.losses import attention_transfer, contrast, contrastive, cosine_embedding, hint, linear_cka, vid

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())
STUDENT = np.array([[1, 0, 2], [0, 1, 1], [2, 1, 0], [1, 1, 1.0]])
NARROW = np.array([[1, 1], [0, 2], [2, 0], [1, 0.5]])
TEACHER = np.array([[1, 1, 0], [0, 2, 1], [2, 0, 0], [1, 0.5, 1]])
LOG_VARIANCE = 0.4 * np.arange(5) - 0.7


def features(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def unit(row) -> np.ndarray:
    norm = math.sqrt(sum(x * x for x in row))
    return np.array([x / norm for x in row]) if norm > 0 else np.zeros(len(row))


def loop_hint(s, t) -> float:
    total = 0.0
    for s_v, t_v in zip(s, t, strict=True):
        total += sum((a - b) ** 2 for a, b in zip(s_v, t_v, strict=True)) / len(s_v)
    return total / len(s)


def loop_unit_hint(s, t) -> float:
    return loop_hint([unit(row) for row in s], [unit(row) for row in t])


def loop_attention_transfer(s, t, power=2) -> float:
    a, b = (unit([sum(abs(x) ** power for x in row) for row in side]) for side in (s, t))
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def loop_cosine_embedding(s, t) -> float:
    return sum(1 - unit(a) @ unit(b) for a, b in zip(s, t, strict=True)) / len(s)


def loop_contrastive(s, t, temperature=0.3) -> float:
    total = 0.0
    for v in range(len(s)):
        logits = [unit(s[v]) @ unit(row) / temperature for row in t]
        total += math.log(sum(math.exp(x) for x in logits)) - logits[v]
    return total / len(s)


def loop_linear_cka(s, t) -> float:
    """By the kernels [N, N] and Hilbert-Schmidt's H = I - 1/N, as the paper has it."""
    n = len(s)
    centre = np.eye(n) - 1 / n
    k, m = centre @ s @ s.T @ centre, centre @ t @ t.T @ centre
    return 1 - np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))


def loop_vid(s, t) -> float:
    total = 0.0
    for s_v, t_v in zip(s, t, strict=True):
        for mu, target, log_variance in zip(s_v, t_v, LOG_VARIANCE, strict=True):
            variance = math.exp(log_variance)
            density = math.exp(-((target - mu) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
            total -= math.log(density) + 0.5 * math.log(2 * math.pi)
    return total / len(s)


def unit_hint(s, t, where=None):
    return hint(s, t, normalise=True, where=where)


def cubed_attention(s, t, where=None):
    return attention_transfer(s, t, power=3, where=where)


def absolute_attention(s, t, where=None):
    return attention_transfer(s, t, power=1.0, where=where)


def warm_contrastive(s, t, where=None):
    return contrastive(s, t, temperature=0.3, where=where)


def fixed_vid(s, t, where=None):
    return vid(s, LOG_VARIANCE[: np.shape(s)[-1]], t, where=where)


LOOPS = {
    hint: loop_hint,
    unit_hint: loop_unit_hint,
    attention_transfer: loop_attention_transfer,
    cubed_attention: lambda s, t: loop_attention_transfer(s, t, 3),
    absolute_attention: lambda s, t: loop_attention_transfer(s, t, 1),
    cosine_embedding: loop_cosine_embedding,
    warm_contrastive: loop_contrastive,
    linear_cka: loop_linear_cka,
    fixed_vid: loop_vid,
}
POWERS = [cubed_attention, absolute_attention]
LOSSES = [loss for loss in LOOPS if loss not in POWERS]
CHEAP = [unit_hint, attention_transfer, cosine_embedding, linear_cka, fixed_vid]
ANY_WIDTH = [attention_transfer, *POWERS, linear_cka]


def compile_loss(loss):
    return jax.jit(jax.value_and_grad(lambda s, t, where=None: loss(s, t, where=where)))


COMPILED = {loss: compile_loss(loss) for loss in LOOPS}


@pytest.mark.parametrize(
    ("loss", "teacher", "expected"),
    [
        (unit_hint, TEACHER, GOLDEN["fitnet_l2norm_mse(ft3)"]),
        (attention_transfer, NARROW, GOLDEN["at_node_norm_mse(efficient-gnns form)"]),
        (lambda s, t: contrastive(s, t, temperature=0.075), TEACHER, GOLDEN["gcrd_nce_T0.075(ft3)"]),
        (linear_cka, NARROW, 1 - GOLDEN["linear_cka"]),
    ],
)
def test_golden_values(loss, teacher, expected):
    with jax.enable_x64(True):
        value = loss(STUDENT, teacher)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    single = loss(STUDENT.astype("f4"), teacher.astype("f4"))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "widths"), [(loss, (5, 5)) for loss in LOOPS] + [(loss, (3, 7)) for loss in ANY_WIDTH]
)
def test_values_equal_a_plain_loop(loss, widths):
    student, teacher = features(13, widths[0], seed=1), 0.5 + features(13, widths[1], seed=2)
    expected = LOOPS[loss](student, teacher)
    with jax.enable_x64(True):
        np.testing.assert_allclose(loss(student, teacher), expected, rtol=1e-11)
    single = loss(student.astype("f4"), teacher.astype("f4"))
    np.testing.assert_allclose(single, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_equal_finite_differences(loss):
    with jax.enable_x64(True):
        student, teacher = jnp.asarray(features(5, 3, seed=3)), jnp.asarray(features(5, 3, seed=4))
        where = jnp.array([True, False, True, True, True])
        check_grads(jax.jit(lambda s: loss(s, teacher, where=where)), (student,), order=1)


@pytest.mark.parametrize("power", [1, 1.5, 2.0, 2.5])
def test_second_derivatives_of_attention_transfer(power):
    with jax.enable_x64(True):
        student, teacher = features(4, 3, seed=3), jnp.asarray(features(4, 3, seed=4))
        if power >= 2:  # below, there is none at 0
            student[0, 1] = 0
        where = jnp.array([True, False, True, True])  # masked rows are zeros too
        gradient = jax.jit(jax.grad(lambda s: attention_transfer(s, teacher, power=power, where=where)))
        check_grads(gradient, (jnp.asarray(student),), order=1, modes=["fwd"])


def test_derivatives_by_temperature_and_log_variance():
    with jax.enable_x64(True):
        student, teacher = jnp.asarray(features(5, 3, seed=3)), jnp.asarray(features(5, 3, seed=4))
        where = jnp.array([True, False, True, True, True])
        check_grads(lambda x: contrastive(student, teacher, temperature=x, where=where), (jnp.asarray(0.4),), order=1)
        check_grads(lambda x: vid(student, x, teacher, where=where), (jnp.asarray(LOG_VARIANCE[:3]),), order=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_teacher_is_a_constant(loss):
    student, teacher = features(6, 3, seed=5), features(6, 3, seed=6)
    np.testing.assert_array_equal(jax.grad(lambda t: loss(student, t))(jnp.asarray(teacher)), 0)
    assert np.abs(COMPILED[loss](student, teacher)[1]).max() > 1e-3


def stacked(differentiated, *arguments):
    cases = [differentiated(*case) for case in zip(*arguments, strict=True)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *cases)


@pytest.mark.parametrize("loss", CHEAP)
def test_jit_equals_eager_and_vmap_equals_a_loop_above_32768_rows(loss, users_jit):
    n = 33_000  # above 32768 rows jit(vmap) has been miscompiled
    students = jnp.asarray(features(2, n, 3, seed=7), jnp.float32)
    teachers = 0.5 * students + jnp.asarray(features(2, n, 3, seed=8), jnp.float32)
    where = jnp.asarray(np.random.default_rng(9).random((2, n)) < 0.7)
    differentiated = jax.value_and_grad(lambda s, t, mask: loss(s, t, where=mask))
    values, gradients = stacked(differentiated, students, teachers, where)
    with jax.enable_x64(True):
        kept = [np.asarray(x[0], "f8")[np.asarray(where[0])] for x in (students, teachers)]
        np.testing.assert_allclose(values[0], loss(*kept), rtol=1e-5)

    size = float(jnp.abs(gradients).max())
    mapped_values, mapped_gradients = users_jit(jax.vmap(differentiated))(students, teachers, where)
    np.testing.assert_allclose(mapped_values, values, rtol=1e-5)
    np.testing.assert_allclose(mapped_gradients, gradients, rtol=1e-4, atol=1e-5 * size)
    value, gradient = users_jit(differentiated)(students[0], teachers[0], where[0])
    np.testing.assert_allclose(value, values[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, gradients[0], rtol=1e-4, atol=1e-5 * size)


def test_contrastive_jit_of_vmap_equals_a_loop_over_several_blocks(monkeypatch, users_jit):
    monkeypatch.setattr(contrast, "BLOCK_ENTRIES", 5000)
    n = 301  # 18 blocks of 16 rows and a rest; no other test has this shape, compiled for longer blocks
    students, teachers = (jnp.asarray(features(2, n, 4, seed=seed), jnp.float32) for seed in (10, 11))
    where = jnp.asarray(np.random.default_rng(9).random((2, n)) < 0.7)
    differentiated = jax.value_and_grad(lambda s, t, mask: contrastive(s, t, temperature=0.2, where=mask))
    values, gradients = stacked(differentiated, students, teachers, where)
    s, t = (np.array([unit(row) for row in np.asarray(x[0], "f8")[where[0]]]) for x in (students, teachers))
    logits = s @ t.T / 0.2
    np.testing.assert_allclose(values[0], np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits)), rtol=1e-5)

    mapped_values, mapped_gradients = users_jit(jax.vmap(differentiated))(students, teachers, where)
    np.testing.assert_allclose(mapped_values, values, rtol=1e-5)
    np.testing.assert_allclose(mapped_gradients, gradients, rtol=1e-4, atol=1e-8)


def test_contrastive_above_32768_rows_equals_the_closed_form_of_repeated_rows(users_jit):
    n, rng = 33_000, np.random.default_rng(12)
    few_s, few_t = features(3, 2, seed=13), features(4, 2, seed=14)
    of_s, of_t = rng.integers(3, size=n), rng.integers(4, size=n)
    logits = np.array([[unit(a) @ unit(b) / 0.2 for b in few_t] for a in few_s])
    totals = (np.exp(logits) * np.bincount(of_t)).sum(1)
    expected = np.mean(np.log(totals)[of_s] - logits[of_s, of_t])
    student, teacher = few_s[of_s].astype("f4"), few_t[of_t].astype("f4")
    eager = contrastive(student, teacher, temperature=0.2)
    compiled = users_jit(lambda s, t: contrastive(s, t, temperature=0.2))(student, teacher)
    np.testing.assert_allclose(eager, expected, rtol=1e-5)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)


def test_contrastive_keeps_no_square_matrix():
    rows = jax.ShapeDtypeStruct((20_000, 64), jnp.float32)  # the square matrix would take 1.6e9 bytes
    compiled = jax.jit(jax.value_and_grad(contrastive)).lower(rows, rows).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2e8


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_masked_rows_have_no_influence(loss, poison):
    student, teacher = features(6, 3, seed=15).astype("f4"), features(6, 3, seed=16).astype("f4")
    where = np.array([False, True, True, False, False, True])
    expected, expected_gradient = COMPILED[loss](student[where], teacher[where])
    student[0], student[3, 0], teacher[3], teacher[4, 1] = poison, poison, poison, poison
    value, gradient = COMPILED[loss](student, teacher, where)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[where], expected_gradient, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gradient[~where], 0)

    value, gradient = COMPILED[loss](student, teacher, np.zeros(6, bool))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_rows_give_zero_and_a_bad_unmasked_row_is_seen(loss):
    assert loss(jnp.zeros((0, 3)), jnp.zeros((0, 3))) == 0
    for bad in (0, 1):
        sides = [STUDENT.copy(), TEACHER.copy()]
        sides[bad][2, 1] = np.nan
        assert jnp.isnan(loss(*sides))


def test_masks_reach_the_gradient_of_log_variance():
    student, teacher, where = features(6, 5, seed=17), features(6, 5, seed=18), np.arange(6) < 3
    gradient = jax.grad(lambda x, mask: vid(student, x, teacher, where=mask))
    expected = 0.5 - 0.5 * np.mean((student - teacher)[:3] ** 2, axis=0) / np.exp(LOG_VARIANCE)
    np.testing.assert_allclose(gradient(jnp.asarray(LOG_VARIANCE), where), expected, rtol=1e-4)
    np.testing.assert_array_equal(gradient(jnp.asarray(LOG_VARIANCE), np.zeros(6, bool)), 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss):
    half = [jnp.asarray(features(6, 3, seed=seed), jnp.bfloat16) for seed in (19, 20)]
    value, gradient = COMPILED[loss](*half)
    expected, _ = COMPILED[loss](*(x.astype(jnp.float32) for x in half))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert gradient.dtype == jnp.bfloat16


def test_an_input_in_float64_widens_the_others():
    with jax.enable_x64(True):
        half, single, double = (jax.ShapeDtypeStruct((4, 5), dtype) for dtype in ("bfloat16", "float32", "float64"))
        for loss in LOSSES:
            if loss is not fixed_vid:  # its log_variance is in float64
                assert jax.eval_shape(loss, half, half).dtype == jnp.float32
                assert jax.eval_shape(loss, single, half).dtype == jnp.float32
            assert jax.eval_shape(loss, half, double).dtype == jnp.float64
        variances = jax.ShapeDtypeStruct((5,), jnp.bfloat16)
        assert jax.eval_shape(vid, half, variances, half).dtype == jnp.float32


ZERO_ROWS = {  # rows: both zero, the student's zero, the teacher's zero, equal, opposite; over the counted row's mean
    unit_hint: [0, 1 / 3, 1 / 3, 0, 4 / 3],
    cosine_embedding: [1, 1, 1, 0, 2],
}


@pytest.mark.parametrize("loss", list(ZERO_ROWS))
def test_values_of_zero_rows(loss):
    row, zero = [3.0, -1.0, 0.5], [0.0, 0.0, 0.0]
    student, teacher = np.array([zero, zero, row, row, row]), np.array([zero, row, zero, row, [-x for x in row]])
    for v, expected in enumerate(ZERO_ROWS[loss]):
        value, gradient = COMPILED[loss](student, teacher, np.arange(5) == v)
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-12)
        assert np.isfinite(gradient).all() and (np.abs(gradient[:2]) == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-30, 1e18])
def test_zero_rows_and_extreme_scales_stay_finite(loss, scale):
    student, teacher = (features(6, 3, seed=seed).astype("f4") for seed in (21, 22))
    student[1] = teacher[1] = student[2] = teacher[3] = 0
    for s, t in ((0 * student, teacher), (student, 0 * teacher), (0 * student, 0 * teacher)):
        value, gradient = COMPILED[loss](s, t)
        assert np.isfinite(value) and np.isfinite(gradient).all()
    value, gradient = COMPILED[loss](student * np.float32(scale), teacher)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "loss", [unit_hint, attention_transfer, cubed_attention, cosine_embedding, warm_contrastive, linear_cka]
)
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e37, 1e38])
def test_the_scale_of_features_has_no_influence(loss, scale):
    student, teacher = (features(6, 3, seed=seed).astype("f4") for seed in (21, 22))
    student /= np.abs(student).max()
    expected, expected_gradient = COMPILED[loss](student, teacher)
    value, gradient = COMPILED[loss](student * np.float32(scale), teacher * np.float32(1e-5 / scale**0.5))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    if scale < 1e37:  # above, the gradient is of numbers that float32 hardly holds
        wide = np.asarray(gradient, "f8") * scale
        np.testing.assert_allclose(wide, expected_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", [hint, unit_hint, attention_transfer, cubed_attention, cosine_embedding])
def test_the_loss_at_the_teacher_is_zero_and_grows_away_from_it(loss):
    teacher, direction = features(6, 3, seed=23).astype("f4"), features(6, 3, seed=24).astype("f4")
    value, gradient = COMPILED[loss](teacher, teacher)
    assert 0 <= value < 1e-15
    np.testing.assert_allclose(gradient, 0, atol=1e-8)
    near, _ = COMPILED[loss](teacher + np.float32(1e-3) * direction, teacher)
    far, _ = COMPILED[loss](teacher + np.float32(2e-3) * direction, teacher)
    np.testing.assert_allclose(far / near, 4, rtol=0.02)  # quadratic: digits remain however near


def test_cosine_embedding_is_half_the_width_times_unit_hint():
    student, teacher = features(9, 5, seed=25), features(9, 5, seed=26)
    np.testing.assert_allclose(cosine_embedding(student, teacher), 2.5 * unit_hint(student, teacher), rtol=1e-6)


def test_linear_cka_ignores_rotation_scale_and_offset():
    student, teacher = features(30, 4, seed=27), features(30, 6, seed=28)
    rotation, _ = np.linalg.qr(features(4, 4, seed=29))
    other, _ = np.linalg.qr(features(6, 6, seed=30))
    with jax.enable_x64(True):
        expected = linear_cka(student, teacher)
        np.testing.assert_allclose(linear_cka(3 * student @ rotation + 2, 0.1 * teacher @ other - 7), expected, 1e-11)
        np.testing.assert_allclose(linear_cka(student @ rotation, student), 0, atol=1e-14)
        assert 0.1 < expected < 1


def test_linear_cka_is_never_negative():
    for seed in range(20):
        rows = features(6, 3, seed=seed).astype("f4")
        value, gradient = COMPILED[linear_cka](rows, 3 * rows)
        assert 0 <= value < 2e-6
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-3, 1e30, 3e38])
def test_linear_cka_of_equal_rows_is_one(constant):
    rows, others = np.full((777, 3), constant, "f4"), features(777, 3, seed=31).astype("f4")
    for student, teacher in ((rows, others), (others, rows), (rows, rows)):
        value, gradient = COMPILED[linear_cka](student, teacher)
        assert value == 1
        np.testing.assert_array_equal(gradient, 0)
    where = np.arange(777) == 5
    assert COMPILED[linear_cka](others, others, where)[0] == 1


def test_linear_cka_of_large_offsets():
    student, teacher = features(500, 3, seed=32), features(500, 3, seed=33)
    shifted = (student + 1000).astype("f4")
    expected = loop_linear_cka(shifted.astype("f8"), teacher)
    np.testing.assert_allclose(linear_cka(shifted, teacher.astype("f4")), expected, rtol=1e-5)


def test_contrastive_of_equal_rows_is_the_logarithm_of_their_number():
    np.testing.assert_allclose(contrastive(np.ones((7, 2)), np.ones((7, 2))), math.log(7), rtol=1e-6)
    np.testing.assert_allclose(contrastive(np.zeros((7, 2)), np.ones((7, 2))), math.log(7), rtol=1e-6)
    value, gradient = COMPILED[warm_contrastive](STUDENT, TEACHER, np.arange(4) == 2)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_contrastive_holds_its_digits_at_low_temperatures():
    opposite = np.array([[1, 0], [0, 1.0]], "f4")
    for temperature in (0.05, 0.02):
        value = contrastive(opposite, opposite, temperature=temperature)
        np.testing.assert_allclose(value, math.log1p(math.exp(-1 / temperature)), rtol=1e-5)
        swapped = contrastive(opposite, opposite[::-1], temperature=temperature)
        np.testing.assert_allclose(swapped, 1 / temperature, rtol=1e-5)
    value, gradient = jax.value_and_grad(lambda s: contrastive(s, opposite[::-1], temperature=1e-3))(opposite)
    np.testing.assert_allclose(value, 1000, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, -500], [-500, 0]], rtol=1e-5)


def test_a_sample_is_a_subset_of_the_counted_rows_without_repetition():
    n, m = 12, 4
    student, teacher, where = features(n, 3, seed=34), features(n, 3, seed=35), np.arange(n) % 3 != 0
    teacher[~where] = np.nan
    call = jax.jit(
        jax.value_and_grad(lambda s, k: contrastive(s, teacher, temperature=0.3, where=where, sample=m, key=k))
    )
    drawn = set()
    for seed in range(10):
        value, gradient = call(student, jax.random.key(seed))
        rows = np.flatnonzero(np.abs(gradient).sum(1))
        assert len(rows) == m and where[rows].all()
        np.testing.assert_allclose(value, loop_contrastive(student[rows], teacher[rows]), rtol=1e-5)
        drawn |= set(rows.tolist())
    assert drawn == set(np.flatnonzero(where).tolist())
    np.testing.assert_array_equal(call(student, jax.random.key(3))[0], call(student, jax.random.key(3))[0])


def test_a_sample_of_all_rows_is_the_loss_itself():
    student, teacher, where = features(9, 3, seed=36), features(9, 3, seed=37), np.arange(9) < 5
    key = jax.random.PRNGKey(0)
    for mask, sample in ((None, 9), (where, 7)):
        value = contrastive(student, teacher, where=mask, sample=sample, key=key)
        np.testing.assert_allclose(value, contrastive(student, teacher, where=mask), rtol=1e-5)
    assert contrastive(student, teacher, where=np.zeros(9, bool), sample=4, key=key) == 0


@pytest.mark.parametrize("loss", [hint, attention_transfer, cosine_embedding, contrastive, linear_cka, fixed_vid])
@pytest.mark.parametrize(
    ("student", "teacher", "where", "message"),
    [
        (np.zeros((4, 3)), np.zeros((5, 3)), None, r"teacher: .*number of rows.* \(4, 3\) and teacher \(5, 3\)"),
        (np.zeros((4, 3)), np.zeros(3), None, r"^teacher: expected shape \[N, D\].* \(4, 3\) and teacher \(3,\)"),
        (np.zeros((2, 4, 3)), np.zeros((4, 3)), None, r"^student.*: .*\[N, D\].* \(2, 4, 3\) and teacher \(4, 3\)"),
        (np.zeros((4, 0)), np.zeros((4, 0)), None, r"^student.*: expected shape \[N, D\].* \(4, 0\)"),
        (np.zeros((4, 3), complex), np.zeros((4, 3)), None, r"^student.*: expected real numbers, got dtype complex"),
        (np.zeros((4, 3)), np.zeros((4, 3), bool), None, "^teacher: expected real numbers, got dtype bool"),
        (np.zeros((4, 3)), np.zeros((4, 3)), np.ones(3, bool), r"where: expected bool \(4,\).*got bool \(3,\)"),
        (np.zeros((4, 3)), np.zeros((4, 3)), np.ones(4, np.int32), r"where: .*got int32 \(4,\)"),
    ],
)
def test_wrong_arrays_are_named(loss, student, teacher, where, message):
    with pytest.raises(ValueError, match=message):
        loss(student, teacher, where=where)


@pytest.mark.parametrize("loss", [hint, cosine_embedding, contrastive, fixed_vid])
def test_another_width_asks_for_a_projection(loss):
    with pytest.raises(ValueError, match=r"student.*\(4, 3\) and teacher \(4, 2\); project the student"):
        loss(STUDENT, NARROW)


@pytest.mark.parametrize("power", [0.5, 0, -1, math.inf, math.nan, "2", None])
def test_wrong_powers_are_named(power):
    with pytest.raises(ValueError, match="power: expected a finite number of at least 1, got"):
        attention_transfer(STUDENT, TEACHER, power=power)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature: expected a positive finite number, got 0"),
        ({"temperature": math.nan}, "temperature: .*nan"),
        ({"temperature": np.ones(2)}, r"temperature: expected a scalar, got shape \(2,\)"),
        ({"sample": 2}, "key: expected together with sample="),
        ({"key": 0}, "sample: expected together with key="),
        ({"sample": 0, "key": 0}, "sample: expected an integer from 1 to the number of rows, 4, got 0"),
        ({"sample": 5, "key": 0}, "sample: .*, 4, got 5"),
        ({"sample": 2.0, "key": 0}, "sample: .*, 4, got 2.0"),
        ({"sample": True, "key": 0}, "sample: .*, 4, got True"),
    ],
)
def test_wrong_arguments_of_contrastive_are_named(change, message):
    if "key" in change:
        change = change | {"key": jax.random.key(change["key"])}
    with pytest.raises(ValueError, match=message):
        contrastive(STUDENT, TEACHER, **change)


@pytest.mark.parametrize("shape", [(), (2,), (4, 3), (1, 3)])
def test_a_log_variance_of_another_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"log_variance: expected shape \[D\].*and teacher \(4, 3\)"):
        vid(STUDENT, np.zeros(shape), TEACHER)


def test_a_complex_log_variance_is_named():
    with pytest.raises(ValueError, match="log_variance: expected real numbers, got dtype complex"):
        vid(STUDENT, np.zeros(3, complex), TEACHER)
