"""Gradient surgery against its rule, written out, and on gradients whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.conflicts import pcgrad


def by_rule(gradients, orders):
    left = []
    for i, order in enumerate(orders):
        own = gradients[i].copy()
        for j in order:
            if i != j and own @ gradients[j] < 0:
                own -= own @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
        left.append(own)
    return sum(left)


def tree(vector):
    return {"w": jnp.asarray(vector[:4].reshape(2, 2)), "b": (jnp.asarray(vector[4:]),)}


def flat(gradient):
    return np.concatenate([np.ravel(gradient["w"]), np.ravel(gradient["b"][0])])


def test_equals_the_rule_in_the_order_drawn():
    gradients = np.random.default_rng(0).normal(size=(3, 7)).astype("f4")
    gradients[1] -= 2 * gradients[0]
    key = jax.random.key(5)
    orders = [np.asarray(jax.random.permutation(k, 3)) for k in jax.random.split(key, 3)]
    result = jax.jit(lambda g, key: pcgrad([tree(x) for x in g], key))(gradients, key)
    np.testing.assert_allclose(flat(result), by_rule(gradients, orders), rtol=1e-5, atol=1e-6)


def test_two_opposed_gradients_lose_what_opposes():
    one, other = np.array([1, 0.0]), np.array([-1, 1.0])
    result = pcgrad([jnp.asarray(one), jnp.asarray(other)], jax.random.key(0))
    np.testing.assert_allclose(result, [0.5, 0.5 + 1], rtol=1e-6)  # (1/2, 1/2) and (0, 1)
    assert result @ one >= 0 and result @ other >= 0


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1e20), ("f4", 1e-20), ("f2", 300.0), (jnp.bfloat16, 1e30)])
def test_large_small_and_narrow_gradients(dtype, scale):
    gradients = [jnp.asarray([scale, 0], dtype), jnp.asarray([-scale, scale], dtype)]
    result = pcgrad(gradients, jax.random.key(0))
    assert result.dtype == gradients[0].dtype
    np.testing.assert_allclose(result.astype("f4") / np.float32(scale), [0.5, 1.5], rtol=1e-2)


def test_without_conflict_it_is_the_sum():
    gradients = [jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]), jnp.zeros(2)]
    np.testing.assert_allclose(pcgrad(gradients, jax.random.key(1)), [4, 1])
    np.testing.assert_allclose(pcgrad(gradients[:1], jax.random.key(1)), [1, 2])


def test_wrong_gradients_are_said():
    with pytest.raises(ValueError, match="gradients: expected at least one"):
        pcgrad([], jax.random.key(0))
    with pytest.raises(ValueError, match=r"gradients: expected arrays of one shape, got \[\(2, 3\)\] at 0 and"):
        pcgrad([jnp.ones((2, 3)), jnp.ones((3, 2))], jax.random.key(0))
    with pytest.raises(ValueError, match=r"gradients: expected one structure, got .* at 0 and .* at 1"):
        pcgrad([{"a": jnp.ones(2)}, {"b": jnp.ones(2)}], jax.random.key(0))
