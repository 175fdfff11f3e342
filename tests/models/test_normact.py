"""Layer norm and GELU in one, against flax's two."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.models.normact import layer_norm_gelu


def two_steps(x, scale, bias):
    return nn.gelu(nn.LayerNorm().apply({"params": {"scale": scale, "bias": bias}}, x))


@pytest.fixture
def arrays(rng):
    x, g = rng.normal(size=(2, 40_000, 12)).astype(np.float32)
    return x * 3 + 1, rng.normal(size=12).astype(np.float32), rng.normal(size=12).astype(np.float32), g


def test_value_and_gradient_equal_the_two_steps(arrays):
    *operands, g = arrays
    value, pullback = jax.vjp(layer_norm_gelu, *operands)
    expected, expected_pullback = jax.vjp(two_steps, *operands)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(pullback(g), expected_pullback(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_jit_and_vmap_change_nothing(arrays):
    x, scale, bias, g = arrays

    def both(x, scale, bias, g):
        value, pullback = jax.vjp(layer_norm_gelu, x, scale, bias)
        return value, pullback(g)

    once = both(x, scale, bias, g)
    several = jax.jit(jax.vmap(both, in_axes=(0, None, 0, 0)))(
        jnp.stack([x, x[::-1]]), scale, jnp.stack([bias, bias]), jnp.stack([g, g[::-1]]))
    for one, two in zip(jax.tree.leaves(once), jax.tree.leaves(several), strict=True):
        np.testing.assert_allclose(one, two[0], rtol=1e-4, atol=2e-4)


def test_a_row_without_variance_is_its_bias():
    x, bias = jnp.full((3, 8), 5.0), jnp.arange(8.0) - 4
    value, pullback = jax.vjp(layer_norm_gelu, x, jnp.ones(8), bias)
    np.testing.assert_allclose(value, jnp.broadcast_to(nn.gelu(bias), (3, 8)), rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in pullback(jnp.ones((3, 8))))


def test_half_precision_is_raised_inside(rng):
    x = jnp.asarray(rng.normal(size=(50, 16)) + 30, jnp.bfloat16)
    value, pullback = jax.vjp(layer_norm_gelu, x, jnp.ones(16), jnp.zeros(16))
    assert value.dtype == jnp.bfloat16 and pullback(value)[0].dtype == jnp.bfloat16
    expected = two_steps(x.astype(jnp.float32), jnp.ones(16), jnp.zeros(16))
    np.testing.assert_allclose(value.astype(jnp.float32), expected, atol=0.02)
