"""What the losses share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.losses import bernoulli_kl, soft_target_kl, type_pair_correlation
from hire_jax.losses._reduce import mean_rows, unit_rows, unit_rows_and_inverse_norms, zero_rows

EDGES = {("a", "to", "b"): (np.array([0, 1]), np.array([1, 2]))}


def two_types(variant, edges=None):
    def loss(student, teacher):
        sides = ({"a": x, "b": jnp.cos(x)} for x in (student, teacher))
        return type_pair_correlation(*sides, variant=variant, edges=edges)

    return loss


@pytest.mark.parametrize(
    "loss",
    [soft_target_kl, bernoulli_kl, two_types("all_pairs"), two_types("prototype"), two_types("edges", EDGES)],
)
def test_a_teacher_that_is_closed_over_is_not_computed_with_while_compiling(loss):
    # Folding constants of a hundred thousand rows takes XLA seconds a sum; the barrier is what prevents it.
    teacher = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
    lowered = jax.jit(jax.value_and_grad(lambda s: loss(s, teacher))).lower(teacher)
    assert "optimization_barrier" in lowered.as_text()


def test_mean_rows_of_nothing_is_zero():
    assert mean_rows(jnp.array([1.0, 2.0, 6.0]), jnp.array([True, False, True])) == 3.5
    assert mean_rows(jnp.array([jnp.nan]), jnp.array([False])) == 0
    assert mean_rows(jnp.zeros(0), None) == 0


def test_zero_rows_masks_the_first_axis():
    rows = jnp.full((2, 3, 2), jnp.nan)
    np.testing.assert_array_equal(zero_rows(rows, jnp.array([True, False]))[1], 0)
    assert jnp.isnan(zero_rows(rows, jnp.array([True, False]))[0]).all()


def test_unit_rows_of_extreme_lengths():
    limits = np.finfo(np.float32)
    direction = np.array([0.6, -0.8], np.float32)
    for length in (1e-37, 1e-20, 1.0, 1e20, limits.max):
        units, inverse = unit_rows_and_inverse_norms(jnp.asarray([length * direction, 0 * direction]))
        np.testing.assert_allclose(units, np.stack([direction, 0 * direction]), rtol=1e-6)
        if length <= 1e20:
            np.testing.assert_allclose(inverse[:, 0], np.array([1 / length, 0]), rtol=1e-6)
    for bad in (np.nan, np.inf):
        assert jnp.isnan(unit_rows(jnp.array([[bad, 1.0]]))).any()
