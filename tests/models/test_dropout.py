"""Dropout's hash masks: their rate, their independence, and that both passes see the same one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.models.dropout import Dropout, keep_mask

KEY = jax.random.key(3)
mask = jax.jit(keep_mask, static_argnums=(1, 2))


def standard_score(hits, count, probability):
    """By how many standard deviations a binomial count is off."""
    return (hits - count * probability) / np.sqrt(count * probability * (1 - probability))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_is_the_rate(rate):
    masks = np.asarray(jax.jit(jax.vmap(lambda key: keep_mask(key, (500, 40), rate)))(jax.random.split(KEY, 50)))
    assert abs(standard_score((~masks).sum(), masks.size, rate)) < 4
    # and no key, row or column has a rate of its own
    for axes in ((1, 2), (0, 2), (0, 1)):
        dropped = (~masks).sum(axis=axes)
        scores = standard_score(dropped, masks.size // dropped.size, rate)
        assert np.abs(scores).max() < 5
        assert 0.5 < np.mean(scores ** 2) < 1.5  # a spread of independent draws, neither wider nor narrower


def test_extreme_rates():
    assert np.asarray(mask(KEY, (1000,), 0.0)).all()
    assert np.asarray(mask(KEY, (1000,), 1e-9)).all()
    assert not np.asarray(mask(KEY, (1000,), 1 - 1e-9)).any()


def test_a_mask_is_a_function_of_key_and_shape():
    first = np.asarray(mask(KEY, (64, 32), 0.5))
    np.testing.assert_array_equal(first, keep_mask(KEY, (64, 32), 0.5))
    assert (first != np.asarray(mask(jax.random.key(4), (64, 32), 0.5))).any()
    assert mask(KEY, (), 0.5).shape == () and mask(KEY, (0, 3), 0.5).shape == (0, 3)
    np.testing.assert_array_equal(np.asarray(mask(KEY, (2048,), 0.5)).reshape(64, 32), first)  # the flat index counts


def test_keys_and_neighbours_are_independent():
    """Agreement of masks with each other: by key, and with themselves moved along the index."""
    keys = jax.random.split(KEY, 64)
    masks = np.asarray(jax.jit(jax.vmap(lambda key: keep_mask(key, (4096,), 0.5)))(keys)) * 2.0 - 1
    correlation = masks @ masks.T / np.sqrt(4096)  # standard normal off the diagonal
    off = correlation[~np.eye(64, dtype=bool)]
    assert np.abs(off).max() < 5
    assert 0.9 < off.var() < 1.1
    for step in (1, 2, 3, 4, 8, 16, 31, 32, 64, 100, 128, 256, 512, 1000, 1024, 2048):
        score = (masks[:, step:] * masks[:, :-step]).sum() / np.sqrt(masks[:, step:].size)
        assert abs(score) < 4, f"elements {step} apart are correlated"


def test_consecutive_keys_are_independent():
    """Epochs and seeds use keys that differ by a counter."""
    folded = jax.vmap(lambda k: jax.random.fold_in(KEY, k))(jnp.arange(64))
    seeds = jax.vmap(jax.random.key)(jnp.arange(64))
    for keys in (folded, seeds):
        masks = np.asarray(jax.jit(jax.vmap(lambda key: keep_mask(key, (4096,), 0.5)))(keys)) * 2.0 - 1
        following = (masks[1:] * masks[:-1]).sum(axis=1) / np.sqrt(4096)
        assert np.abs(following).max() < 4.5
        assert abs((masks.sum(axis=0) ** 2).mean() / 64 - 1) < 0.1  # no element is special over the keys


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_patterns_of_eight_elements_occur_as_often_as_they_should(rate):
    """A chi-square test on bytes of the mask, and on pairs of distant bytes' low halves."""
    bits = np.asarray(mask(KEY, (1 << 19,), rate))
    probability = np.where((np.arange(256)[:, None] >> np.arange(8)) & 1, 1 - rate, rate).prod(axis=1)
    values = np.packbits(bits.reshape(-1, 8), axis=1, bitorder="little").ravel()
    expected = probability * values.size
    chi_square = ((np.bincount(values, minlength=256) - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) / np.sqrt(2 * 255) < 4
    pairs = (values[:-64] & 15) * 16 + (values[64:] & 15)
    half = np.where((np.arange(16)[:, None] >> np.arange(4)) & 1, 1 - rate, rate).prod(axis=1)
    expected = np.outer(half, half).ravel() * pairs.size
    chi_square = ((np.bincount(pairs, minlength=256) - expected) ** 2 / expected).sum()
    assert abs(chi_square - 255) / np.sqrt(2 * 255) < 4


def test_too_many_elements_are_refused():
    with pytest.raises(ValueError, match=r"at most 2\^32 elements, got shape \(65537, 65536\)"):
        keep_mask(KEY, (65537, 65536), 0.5)


# ------------------------------------------------------------------------------------------------- module


def dropped(x, rate=0.3, train=True, key=KEY):
    return Dropout(rate=rate).apply({}, x, train=train, rngs={"dropout": key})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kept_elements_are_scaled_exactly(dtype):
    x = jax.random.normal(jax.random.key(1), (50, 20)).astype(dtype)
    y = dropped(x)
    assert y.dtype == dtype
    kept = np.asarray(y) != 0
    assert 0.6 < kept.mean() < 0.8
    np.testing.assert_array_equal(np.asarray(y)[kept], np.asarray(x / (1 - 0.3))[kept])


def test_the_expectation_is_the_input():
    mean = jax.jit(jax.vmap(lambda key: dropped(jnp.ones(100), key=key)))(jax.random.split(KEY, 2000)).mean(axis=0)
    np.testing.assert_allclose(mean, 1, atol=5 * np.sqrt(0.3 / 0.7 / 2000))


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero():
    x = jnp.ones((50, 20))
    assert dropped(x, train=False) is x
    assert dropped(x, rate=0.0) is x
    assert Dropout(rate=0.5).apply({}, x, train=False) is x  # and no random stream is needed


def test_both_passes_see_one_mask():
    x = jnp.ones((50, 20))
    y, pull = jax.vjp(dropped, x)
    np.testing.assert_array_equal(pull(x)[0], y)
    y, pull = jax.vjp(jax.checkpoint(jax.jit(dropped)), x)
    np.testing.assert_array_equal(pull(x)[0], y)


def test_every_array_of_a_tree_has_its_own_mask():
    x = {"a": jnp.ones((40, 5)), "b": jnp.ones((40, 5))}
    y = dropped(x)
    assert set(y) == {"a", "b"}
    assert (np.asarray(y["a"]) != np.asarray(y["b"])).any()


def test_a_dictionary_keeps_its_order():
    """jax.tree sorts by name; a model that stacks what comes out must find it where it is without dropout."""
    x = {name: jnp.ones(64) for name in ("venue", "label", "author")}
    dropped = Dropout(rate=0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert list(dropped) == list(x)
    in_order = dict(sorted(x.items()))  # and the order says nothing about the masks
    again = Dropout(rate=0.5).apply({}, in_order, train=True, rngs={"dropout": jax.random.key(0)})
    assert list(again) == list(in_order)
    for name in x:
        np.testing.assert_array_equal(dropped[name], again[name])


def test_a_mapped_key_gives_every_member_its_mask():
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: dropped(jnp.ones((10, 4)), key=key))(keys)
    for k in range(3):
        np.testing.assert_array_equal(together[k], dropped(jnp.ones((10, 4)), key=keys[k]))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_outside_the_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"dropout rate must be in \[0, 1\), got"):
        dropped(jnp.ones(3), rate=rate, train=False)
