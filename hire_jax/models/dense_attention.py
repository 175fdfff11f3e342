"""Additive attention where a good part of all pairs is linked: over all pairs, without a matrix of them.

Metapaths through a hub type link a tenth to a half of all pairs of nodes (authors who share a venue). There the
edge lists cost more than the full matrix would: an edge gathers a row of values, a pair of the matrix is two
multiplications. The exponential is not taken for each pair either, because LeakyReLU(x) = max(x, c x) gives

  exp(LeakyReLU(v_i + u_j)) = max(exp(v_i) exp(u_j), exp(c v_i) exp(c u_j)),   0 <= c <= 1.

Rows are taken in blocks that stay in the caches, and the backward pass computes them again (the idea of
arXiv 2205.14135), so memory is linear in the nodes. Heads and mapped seeds follow one another.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap

from hire_jax.models.dropout import keep_at

# Pairs in a block of rows: 4 MiB of float32.
BLOCK_PAIRS = 2 ** 20


def dense_attention(adjacency: jax.Array, scores: jax.Array, sources: jax.Array, values: jax.Array, *,
                    negative_slope: float = 0.2, rate: float = 0.0, key: jax.Array | None = None) -> jax.Array:
    """m_i = sum_j a_ij x_j, a_i the softmax over {j : adjacency_ij} of LeakyReLU(v_i + u_j), for every head.

    Args:
      adjacency: bool[n, m].
      scores, sources: v [n, H] and u [m, H].
      values: x [m, H, d].
      negative_slope: c in [0, 1].
      rate, key: dropout of a, drawn with `key`; a rate of 0 draws nothing.

    Returns:
      [n, H, d] of values' dtype; a row without neighbours is 0. Arithmetic is float32.

    A row all of whose neighbours' u lie more than 80 below the largest u of all would be lost to underflow.

    Raises:
      ValueError: negative_slope outside [0, 1], or rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"negative_slope must be in [0, 1], got {negative_slope}")
    heads = values.shape[1]
    words = jnp.zeros((heads, 2), jnp.uint32) if key is None else jax.random.bits(key, (heads, 2), jnp.uint32)
    one_head = jax.vmap(partial(_attention, negative_slope, rate), in_axes=(None, 0, 1, 1, 1), out_axes=1)
    operands = (x.astype(jnp.float32) for x in (scores, sources, values))
    return one_head(adjacency, words, *operands).astype(values.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(slope: float, rate: float, adjacency: jax.Array, words: jax.Array, v: jax.Array, u: jax.Array,
               x: jax.Array) -> jax.Array:
    return _attention_fwd(slope, rate, adjacency, words, v, u, x)[0]


def _attention_fwd(slope: float, rate: float, adjacency: jax.Array, words: jax.Array, v: jax.Array, u: jax.Array,
                   x: jax.Array) -> tuple[jax.Array, Any]:
    def run(adjacency: jax.Array, words: jax.Array, v: jax.Array, u: jax.Array,
            x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def block(start: jax.Array, size: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            weights, _ = _weights(slope, _rows(adjacency, start, size), _rows(v, start, size), u)
            total = jnp.sum(weights, axis=1)
            scale = 1 / jnp.where(total > 0, total, 1)
            out = scale[:, None] * (weights * _kept(words, rate, start, weights.shape) @ x)
            return _put(carry[0], out, start), _put(carry[1], scale, start)

        return _over_rows(adjacency.shape, block, (jnp.zeros((v.shape[0], x.shape[1]), x.dtype), jnp.zeros_like(v)))

    out, scale = sequential_vmap(run)(adjacency, words, v, u, x)
    return out, (adjacency, words, v, u, x, out, scale)


def _attention_bwd(slope: float, rate: float, residuals: Any, g: jax.Array) -> tuple:
    def run(adjacency: jax.Array, words: jax.Array, v: jax.Array, u: jax.Array, x: jax.Array, out: jax.Array,
            scale: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        along = jnp.sum(out * g, axis=1)

        def block(start: jax.Array, size: int, carry: tuple) -> tuple:
            (dv, seen), du, dx = carry
            weights, slopes = _weights(slope, _rows(adjacency, start, size), _rows(v, start, size), u)
            kept = _kept(words, rate, start, weights.shape)
            of_rows = _rows(g, start, size)
            alpha = weights * _rows(scale, start, size)[:, None]
            ds = alpha * slopes * (kept * (of_rows @ x.T) - _rows(along, start, size)[:, None])
            # Rows that two blocks share get the same dv twice, but add to the sums over rows once.
            fresh = (start + jnp.arange(size) >= seen)[:, None]
            dx += (alpha * kept).T @ jnp.where(fresh, of_rows, 0)
            du += jnp.sum(jnp.where(fresh, ds, 0), axis=0)
            return (_put(dv, jnp.sum(ds, axis=1), start), jnp.asarray(start + size, jnp.int32)), du, dx

        start = ((jnp.zeros_like(v), jnp.zeros((), jnp.int32)), jnp.zeros_like(u), jnp.zeros_like(x))
        (dv, _), du, dx = _over_rows(adjacency.shape, block, start)
        return dv, du, dx

    return None, None, *sequential_vmap(run)(*residuals, g)


_attention.defvjp(_attention_fwd, _attention_bwd)


def _weights(slope: float, adjacency: jax.Array, v: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """exp(LeakyReLU(v_i + u_j) - t_i) where linked, 0 elsewhere, and LeakyReLU's derivative; t_i bounds row i."""
    highest = jnp.max(u, initial=jnp.finfo(u.dtype).min / 4)
    bound = jax.nn.leaky_relu(v + highest, slope)
    straight = jnp.exp(v + highest - bound)[:, None] * jnp.exp(u - highest)
    sloped = jnp.exp(slope * (v + highest) - bound)[:, None] * jnp.exp(slope * (u - highest))
    weights = jnp.where(adjacency, jnp.maximum(straight, sloped), 0)
    return weights, jnp.where(straight >= sloped, 1.0, slope)


def _kept(words: jax.Array, rate: float, start: jax.Array, shape: tuple[int, ...]) -> jax.Array | float:
    """The dropout factor of each pair of a block: 0 or 1 / (1 - rate)."""
    if rate == 0:
        return 1.0
    row, column = (lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 1))
    index = (row + start.astype(jnp.uint32)) * jnp.uint32(shape[1]) + column
    return jnp.where(keep_at(words, index, rate), 1 / (1 - rate), 0.0)


def _rows(x: jax.Array, start: jax.Array, size: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, start, size)


def _put(x: jax.Array, rows: jax.Array, start: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice_in_dim(x, rows, start, 0)


def _over_rows(shape: tuple[int, ...], block: Callable[..., Any], carry: Any) -> Any:
    """carry = block(start, size, carry) over blocks of equal size; the last is moved back to end with the rows."""
    rows, columns = shape
    blocks = max(1, -(-rows * columns // BLOCK_PAIRS))
    size = -(-rows // blocks) if rows else 0
    blocks = -(-rows // size) if size else 0

    def body(index: jax.Array, carry: Any) -> Any:
        return block(jnp.minimum(index * size, rows - size), size, carry)

    return lax.fori_loop(0, blocks, body, carry)
