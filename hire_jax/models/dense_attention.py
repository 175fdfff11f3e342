"""Additive attention where a good part of all pairs is linked: over all pairs, without a matrix of them.

Metapaths through a hub type link a tenth to a half of all pairs of nodes (authors who share a venue). There the
edge lists cost more than the full matrix would: an edge gathers a row of values, a pair of the matrix is two
multiplications. The exponential is not taken for each pair either, because LeakyReLU(x) = max(x, c x) gives

  exp(LeakyReLU(v_i + u_j)) = max(exp(v_i) exp(u_j), exp(c v_i) exp(c u_j)),   0 <= c <= 1.

With e_ij that exponential where linked, e'_ij its product with LeakyReLU', k_ij the factor of dropout, t_i one over
sum_j e_ij, o_i = t_i sum_j e_ij k_ij x_j, and g the gradient of o,

  dv_i = t_i (g_i . sum_j e'_ij k_ij x_j - (g_i . o_i) sum_j e'_ij)
  du_j = x_j . sum_i e'_ij k_ij t_i g_i - sum_i e'_ij t_i (g_i . o_i)
  dx_j = sum_i e_ij k_ij t_i g_i

so that both passes are products of e and e' with narrow matrices; e_ij is taken relative to a bound of row i's scores.
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

# Pairs in a block of rows: 8 MiB of float32.
BLOCK_PAIRS = 2 ** 21

# In full float32: an accelerator's default would round the weights before it sums them.
product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


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
      [n, H, d] of values' dtype; a row without neighbours is 0. Arithmetic is float32. Differentiable once, in reverse
      mode.

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
    return _sums(slope, rate, adjacency, words, v, u, x, backward=False)[0]


def _attention_fwd(slope: float, rate: float, *operands: jax.Array) -> tuple[jax.Array, Any]:
    sums = _sums(slope, rate, *operands, backward=True)
    return sums[0], (*operands, *sums)


def _sums(slope: float, rate: float, *operands: jax.Array, backward: bool) -> tuple[jax.Array, ...]:
    """o [n, d] and t [n] of one head; for the backward pass also t_i sum_j e'_ij k_ij x_j and t_i sum_j e'_ij."""
    def run(adjacency: jax.Array, words: jax.Array, v: jax.Array, u: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        ones = jnp.ones_like(u)

        def block(start: jax.Array, size: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            weights, slopes = _weights(slope, _rows(adjacency, start, size), _rows(v, start, size), u)
            kept = _kept(words, rate, start, weights.shape)
            found = [product(weights * kept, x), product(weights, ones)]
            if backward:
                found += [product(weights * slopes * kept, x), product(weights * slopes, ones)]
            return tuple(_put(rows, new, start) for rows, new in zip(carry, found, strict=True))

        zeros = [jnp.zeros((v.shape[0], x.shape[1]), x.dtype), jnp.zeros_like(v)]
        values, total, *sloped = _over_rows(adjacency.shape, block, tuple(zeros * (2 if backward else 1)))
        scale = 1 / jnp.where(total >= jnp.finfo(total.dtype).tiny, total, 1)
        return scale[:, None] * values, scale, *((scale * x.T).T for x in sloped)

    return sequential_vmap(run)(*operands)


def _attention_bwd(slope: float, rate: float, residuals: Any, g: jax.Array) -> tuple:
    def run(adjacency: jax.Array, words: jax.Array, v: jax.Array, u: jax.Array, x: jax.Array, out: jax.Array,
            scale: jax.Array, sloped_values: jax.Array, sloped_total: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        along = jnp.sum(out * g, axis=1)

        def block(start: jax.Array, size: int, carry: tuple) -> tuple:
            seen, dx, attracted, repelled = carry
            # t_i goes into the weights, which it makes at most 1: of a row far below the others it is too large for g.
            weights, slopes = _weights(slope, _rows(adjacency, start, size), _rows(v, start, size), u,
                                       _rows(scale, start, size))
            kept = _kept(words, rate, start, weights.shape)
            fresh = start + jnp.arange(size) >= seen  # rows that two blocks share count once
            rows = jnp.where(fresh[:, None], _rows(g, start, size), 0)
            # Narrow rows times a wide block: the other way round the block would be transposed first.
            dx += product(rows.T, weights * kept)
            attracted += product(rows.T, weights * slopes * kept)
            repelled += product(jnp.where(fresh, _rows(along, start, size), 0), weights * slopes)
            return jnp.asarray(start + size, jnp.int32), dx, attracted, repelled

        start = jnp.zeros((), jnp.int32), jnp.zeros_like(x.T), jnp.zeros_like(x.T), jnp.zeros_like(u)
        _, dx, attracted, repelled = _over_rows(adjacency.shape, block, start)
        dv = jnp.sum(g * sloped_values, axis=1) - along * sloped_total
        return dv, jnp.sum(x.T * attracted, axis=0) - repelled, dx.T

    return None, None, *sequential_vmap(run)(*residuals, g)


_attention.defvjp(_attention_fwd, _attention_bwd)


def _weights(slope: float, adjacency: jax.Array, v: jax.Array, u: jax.Array,
             scale: jax.Array | float = 1.0) -> tuple[jax.Array, jax.Array]:
    """scale_i exp(LeakyReLU(v_i + u_j) - b_i) where linked, 0 elsewhere, and LeakyReLU'; b_i bounds row i's scores."""
    highest = jnp.max(u, initial=jnp.finfo(u.dtype).min / 4)
    bound = jax.nn.leaky_relu(v + highest, slope)
    straight = (scale * jnp.exp(v + highest - bound))[:, None] * jnp.exp(u - highest)
    sloped = (scale * jnp.exp(slope * (v + highest) - bound))[:, None] * jnp.exp(slope * (u - highest))
    weights = jnp.where(adjacency, jnp.maximum(straight, sloped), 0)
    return weights, jnp.where(v[:, None] + u >= 0, 1.0, slope)


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
