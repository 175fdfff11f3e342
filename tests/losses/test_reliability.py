"""Reliabilities of a teacher's rows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.losses import correctness_reliability, entropy_reliability, soft_target_kl

LOGITS = np.float32([[0, 0, 0, 0], [0, -np.inf, -np.inf, -np.inf], [1, 1, -np.inf, -np.inf], [2, 1, 0, -1]])


def test_entropy_reliability_equals_a_plain_loop():
    values = entropy_reliability(LOGITS, temperature=2.0)
    p = [math.exp(z / 2) for z in (2, 1, 0, -1)]
    entropy = -sum(x / sum(p) * math.log(x / sum(p)) for x in p)
    np.testing.assert_allclose(values, [0, 1, 0.5, 1 - entropy / math.log(4)], atol=1e-6)
    assert values.dtype == jnp.float32
    answers = entropy_reliability(np.float32([[0, np.inf], [-np.inf, 0.5]]), multilabel=True)
    q = 1 / (1 + math.exp(-0.5))
    unsure = (q * math.log(q) + (1 - q) * math.log(1 - q)) / math.log(2)
    np.testing.assert_allclose(answers, [0.5, (1 + 1 + unsure) / 2], atol=1e-6)
    assert (jax.grad(lambda z: entropy_reliability(z).sum())(LOGITS[3:]) == 0).all()


def test_entropy_reliability_holds_its_digits_at_high_temperatures():
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype("f4")
    for scale in (1.0, 0.1):
        values = entropy_reliability(scale * logits, temperature=1e3)
        with jax.enable_x64(True):
            exact = entropy_reliability((scale * logits).astype("f8"), temperature=1e3)
        variance = np.var(scale * logits.astype("f8") / 1e3, axis=1) / (2 * math.log(4))
        np.testing.assert_allclose(exact, variance, rtol=1e-2)
        np.testing.assert_allclose(values, exact, rtol=1e-4)


def test_correctness_reliability():
    labels = np.array([0, 1, -1, 0])
    np.testing.assert_allclose(correctness_reliability(LOGITS, labels), [1, 0, 1, 1])
    weights = correctness_reliability(LOGITS, labels, wrong=0.25, unlabelled=0.5)
    np.testing.assert_allclose(weights, [1, 0.25, 0.5, 1])
    traced = jax.jit(lambda wrong: correctness_reliability(LOGITS, labels, wrong=wrong))(0.25)
    np.testing.assert_allclose(traced, [1, 0.25, 1, 1])
    several = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [-1, -1, -1, -1], [1, 1, 0, 1]])
    np.testing.assert_allclose(correctness_reliability(LOGITS, several, wrong=0.2), [1, 0.8, 1, 0.8])


def test_a_reliability_weighs_a_loss():
    student, teacher = np.float32([[0, 1], [1, 0]]), np.float32([[3, 0], [0, 0]])
    value = soft_target_kl(student, teacher, weights=entropy_reliability(teacher))
    np.testing.assert_allclose(value, soft_target_kl(student[:1], teacher[:1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropy_reliability(np.zeros((3, 1))), r"teacher_logits: expected shape \[N, C\].*\(3, 1\)"),
        (lambda: entropy_reliability(np.zeros(3)), r"teacher_logits: .*\(3,\)"),
        (lambda: entropy_reliability(LOGITS, temperature=0), "temperature: expected a positive"),
        (lambda: correctness_reliability(LOGITS, np.zeros(3, int)), r"labels: expected int \(4,\) or \(4, 4\), got"),
        (lambda: correctness_reliability(LOGITS, np.zeros(4)), "labels: expected int"),
        (lambda: correctness_reliability(LOGITS, np.zeros(4, int), wrong=-1), "wrong: expected a number of at least"),
        (lambda: correctness_reliability(LOGITS, np.zeros(4, int), unlabelled=-1), "unlabelled: expected"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
