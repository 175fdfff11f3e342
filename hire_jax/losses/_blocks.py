"""Sums over all pairs of rows, in blocks: no [n, n] matrix is held, in neither direction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hire_jax.losses._reduce import not_folded, working_dtype, zero_rows

BLOCK_ENTRIES = 2**23  # numbers in a block of an [n, n] or [n, n, d] array; 32 MiB in float32


def prepared(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both sides in working precision with masked rows zero, each brought to largest entry about 1, and the mask
    as 0 and 1 in that dtype.

    For losses to which a side's scale is nothing, so that squares neither overflow nor vanish. The factor is a
    power of two, and exact: XLA may fuse a multiplication into the subtraction of two rows, and the difference of
    equal rows would be the product's rounding instead of 0.
    """
    dtype = working_dtype(student, teacher)
    limits = jnp.finfo(dtype)

    def scaled(rows: jax.Array) -> jax.Array:
        rows = zero_rows(rows, where).astype(dtype)
        peak = lax.stop_gradient(jnp.max(jnp.abs(rows), initial=0))
        exponent = jnp.clip(jnp.frexp(peak)[1], 3 - limits.maxexp, limits.maxexp - 3)
        return rows * jnp.ldexp(jnp.ones((), dtype), -exponent)

    counted = jnp.ones(len(student), dtype) if where is None else where.astype(dtype)
    return scaled(student), scaled(not_folded(teacher)), counted


def sum_over_rows(
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, ...]], counted: jax.Array, block_rows: int
) -> tuple[jax.Array, ...]:
    """Sums over blocks of `step(i, inside)`, each block recomputed for the gradient.

    i int [block] are row indices and `inside` is `counted` [n] at them, 0 for what fills up the last block.
    """
    rows = len(counted)
    if rows == 0:
        return (jnp.zeros((), counted.dtype),) * 2
    blocks = -(-rows // block_rows)
    size = -(-rows // blocks)
    i = jnp.arange(blocks * size)
    inside = jnp.where(i < rows, counted[jnp.minimum(i, rows - 1)], 0)
    index = jnp.minimum(i, rows - 1).reshape(blocks, size), inside.reshape(blocks, size)
    # One block's intermediate results only: no common subexpression crosses the loop's border.
    parts = lax.map(lambda block: jax.checkpoint(step, prevent_cse=False)(*block), index)
    return tuple(jnp.sum(part) for part in parts)
