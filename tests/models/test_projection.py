"""The input projection and the norm between layers, against numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from hire_jax.models.normact import NormAct
from hire_jax.models.projection import InputProjection


@pytest.fixture(scope="module")
def projection(awkward):
    module = InputProjection(width=4)
    params = jax.jit(module.init, static_argnums=2)(jax.random.key(0), awkward, ("paper", "author", "venue"))
    bias = {name: jnp.arange(4.0) for name in ("bias_paper", "bias_author")}
    return module, {"params": params["params"] | bias}


def test_input_projection(awkward, projection):
    module, variables = projection
    hidden, params = module.apply(variables, awkward, ("paper", "author", "venue")), variables["params"]
    assert {name: x.shape for name, x in params.items()} == {
        "kernel_paper": (6, 4), "bias_paper": (4,), "kernel_author": (4, 4), "bias_author": (4,),
        "embedding_venue": (3, 4)}
    np.testing.assert_allclose(hidden["paper"], awkward.features["paper"] @ params["kernel_paper"] + np.arange(4),
                               rtol=1e-5, atol=1e-6)
    dense = awkward.features["author"].todense()
    np.testing.assert_allclose(hidden["author"], dense @ params["kernel_author"] + np.arange(4), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(hidden["venue"], params["embedding_venue"])


def test_only_the_types_asked_for_have_parameters(awkward):
    shapes = jax.eval_shape(lambda: InputProjection(width=4).init_with_output(jax.random.key(0), awkward, ["author"]))
    assert set(shapes[0]) == {"author"} and set(shapes[1]["params"]) == {"kernel_author", "bias_author"}


def test_input_projection_in_bfloat16(awkward, projection):
    _, variables = projection
    types = ("paper", "author", "venue")
    narrow: Any = InputProjection(width=4, dtype=jnp.bfloat16).apply(variables, awkward, types)
    wide = projection[0].apply(variables, awkward, types)
    for name in types:
        assert narrow[name].dtype == jnp.bfloat16
        np.testing.assert_allclose(narrow[name].astype(jnp.float32), wide[name], rtol=0.05, atol=0.05)


def test_norm_and_activation(rng):
    x = {"a": rng.normal(size=(5, 8)).astype(np.float32) * 7 + 3, "b": rng.normal(size=(2, 8)).astype(np.float32)}
    scale, bias = rng.normal(size=8).astype(np.float32), rng.normal(size=8).astype(np.float32)
    norms = {"norm_a": {"scale": scale, "bias": bias}, "norm_b": {"scale": np.ones(8), "bias": np.zeros(8)}}
    out: Any = NormAct().apply({"params": norms}, x)
    for name, (gain, shift) in {"a": (scale, bias), "b": (1, 0)}.items():
        centred = x[name] - x[name].mean(axis=1, keepdims=True)
        z = centred / np.sqrt((centred ** 2).mean(axis=1, keepdims=True) + 1e-6) * gain + shift
        gelu = z * (1 + erf(z / np.sqrt(2))) / 2
        np.testing.assert_allclose(out[name], gelu, atol=1e-3)  # flax's GELU is the tanh form
