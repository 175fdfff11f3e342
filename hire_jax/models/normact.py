"""Layer norm followed by GELU, with a gradient written out by hand.

On a CPU flax's two take longer (docs/performance.md has both times), for three reasons: XLA's mean of squares over a
short row does not vectorise (a product with a vector does), its sum over many rows runs in two passes (a product needs
one), and what it keeps for the backward pass is more than the input and two numbers a row, from which the rest is
recomputed here.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

EPSILON = 1e-6
_C1 = np.float32(np.sqrt(2 / np.pi))
_C3 = np.float32(0.044715 * np.sqrt(2 / np.pi))


@jax.custom_vjp
def layer_norm_gelu(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """gelu(scale (x - mean) / sqrt(var + 1e-6) + bias) of every row.

    Layer norm (arXiv 1607.06450) over the last axis, GELU (arXiv 1606.08415) in its tanh form
    0.5 p (1 + tanh(sqrt(2 / pi) (p + 0.044715 p^3))).

    Args:
      x: float[N, d]; scale, bias: float32[d].

    Returns:
      float[N, d] of x's dtype; arithmetic is float32. Differentiable in reverse mode.
    """
    return _forward(x, scale, bias)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    mean, inverse = _moments(x.astype(jnp.float32))
    normal = (x.astype(jnp.float32) - mean) * inverse
    return _gelu(normal * scale + bias)[0].astype(x.dtype), (x, mean, inverse, scale, bias)


def _backward(residuals: Any, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale, bias = residuals
    normal = (x.astype(jnp.float32) - mean) * inverse
    g = g.astype(jnp.float32) * _gelu(normal * scale + bias)[1]
    along = g * scale
    dx = inverse * (along - _row_means(along) - normal * _row_means(along * normal))
    return dx.astype(x.dtype), _column_sums(g * normal), _column_sums(g)


layer_norm_gelu.defvjp(_forward, _backward)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[N, 1] each: the mean of a row and 1 / its standard deviation."""
    mean = _row_means(x)
    variance = jnp.maximum(_row_means(x * x) - mean * mean, 0)
    return mean, lax.rsqrt(variance + EPSILON)


def _gelu(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """GELU and its derivative."""
    square = p * p
    t = jnp.tanh(p * (_C1 + _C3 * square))
    half = 0.5 + 0.5 * t
    return p * half, half + (0.5 * p) * (1 - t * t) * (_C1 + 3 * _C3 * square)


def _row_means(x: jax.Array) -> jax.Array:
    """[N, 1]."""
    return jnp.matmul(x, jnp.full((x.shape[1], 1), 1 / x.shape[1], x.dtype), precision=lax.Precision.HIGHEST)


def _column_sums(x: jax.Array) -> jax.Array:
    """[d]."""
    return jnp.sum(x, axis=0)


class LayerNormGELU(nn.Module, kw_only=True):
    """`layer_norm_gelu` with its parameters, scale (1 at first) and bias (0)."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return layer_norm_gelu(x if self.dtype is None else x.astype(self.dtype), scale, bias)


class NormAct(nn.Module, kw_only=True):
    """Layer norm, then GELU, for each node type by itself.

    Without a norm narrow students were seen to collapse on some seeds in early trials: two classes merge and
    never part. With layer norm and GELU no seed of the tables in docs/hire.md does.
    """

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, hidden: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {name: LayerNormGELU(dtype=self.dtype, name=f"norm_{name}")(x) for name, x in hidden.items()}
