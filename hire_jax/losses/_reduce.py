"""Arithmetic shared by the losses: working precision, row masks, masked means, unit rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

HIGHEST = lax.Precision.HIGHEST  # of products whose small differences are compared


def working_dtype(*arrays: jax.Array) -> np.dtype:
    """float32, or float64 where an input has it: sums of small numbers are not left to half precision."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def zero_rows(rows: jax.Array, where: jax.Array | None) -> jax.Array:
    """Rows [N, ...] with those outside `where` (bool [N]) replaced by zeros.

    Losses mask their inputs with this *before* any arithmetic: a masked row that holds NaN or inf then
    reaches neither the value nor the gradient. Masking a result instead leaves 0 * NaN in the gradient.
    """
    if where is None:
        return rows
    return jnp.where(where.reshape(where.shape + (1,) * (rows.ndim - 1)), rows, 0)


def row_count(rows: int, where: jax.Array | None, dtype: np.dtype) -> jax.Array:
    """Number of rows inside `where`, as a scalar of `dtype`."""
    return jnp.asarray(rows, dtype) if where is None else jnp.sum(where).astype(dtype)


def mean_rows(values: jax.Array, where: jax.Array | None, weights: jax.Array | None = None) -> jax.Array:
    """Mean of `values` [N], weighted where `weights` [N] are given, over the rows inside `where`.

    0, with a zero gradient, where there is none. Rows of weight 0 are to be outside `where`.
    """
    if weights is None:
        return jnp.sum(zero_rows(values, where)) / jnp.maximum(row_count(len(values), where, values.dtype), 1)
    weights = zero_rows(weights.astype(values.dtype), where)
    total = jnp.sum(weights)
    return jnp.sum(weights * zero_rows(values, where)) / jnp.where(total == 0, 1, total)


def not_folded(teacher: jax.Array) -> jax.Array:
    """The same array, which XLA then does not compute with while compiling.

    Where a caller's `jax.jit` closes over the teacher's arrays, they are constants to XLA, and folding a sum
    over them takes it seconds for every hundred thousand rows. To be called inside a compiled function.
    """
    return lax.optimization_barrier(teacher)


def unit_rows(rows: jax.Array) -> jax.Array:
    """Rows [N, d] divided by their Euclidean norms; a row of zeros stays zero and gets a zero gradient."""
    return unit_rows_and_inverse_norms(rows)[0]


def unit_rows_and_inverse_norms(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unit rows [N, d] and what each row was multiplied by, [N, 1]; both 0 for a row of zeros.

    Each row is first divided by its largest entry, so that squares neither overflow nor vanish. A row whose
    largest entry is below the smallest normal number counts as zero.
    """
    limits = jnp.finfo(rows.dtype)
    peak = lax.stop_gradient(jnp.max(jnp.abs(rows), axis=-1, keepdims=True))
    empty = peak < limits.tiny
    # The reciprocal of the very largest numbers is below the normal ones, and a processor may flush it to 0.
    shrink = 1 / jnp.minimum(jnp.where(empty, 1, peak), limits.max / 8)
    scaled = rows * shrink
    squared = jnp.sum(jnp.square(scaled), axis=-1, keepdims=True)
    inverse = jnp.where(empty, 0, lax.rsqrt(jnp.where(empty, 1, squared)))
    return scaled * inverse, shrink * inverse


def in_working_dtype(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, *others: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both sides raised to the working precision, zero outside `where`. To be called inside a compiled function."""
    dtype = working_dtype(student, teacher, *others)
    return zero_rows(student, where).astype(dtype), zero_rows(not_folded(teacher), where).astype(dtype)


def shrunk(rows: jax.Array) -> jax.Array:
    """The array divided by its largest entry, taken as a constant; zeros where that is below the normal numbers.

    For functions that a common factor does not change: their value and gradient are the same, and squares
    neither overflow nor vanish.
    """
    limits = jnp.finfo(rows.dtype)
    peak = lax.stop_gradient(jnp.max(jnp.abs(rows), initial=0))
    empty = peak < limits.tiny
    # The reciprocal of the very largest numbers is below the normal ones, and a processor may flush it to 0.
    return rows * jnp.where(empty, 0, 1 / jnp.minimum(jnp.where(empty, 1, peak), limits.max / 8))


def one_less_cosine(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """1 - cos of each pair of rows, [N]; 1 where either is zero.

    Half the squared distance of unit rows: the subtraction from 1 would leave no digits where they are near.
    """
    s, t = unit_rows(student), unit_rows(teacher)
    # 1 - s·t = (||s - t||² + (1 - ||s||²) + (1 - ||t||²)) / 2, of which the last two are 0 or 1.
    zeros = sum((jnp.sum(jnp.square(side), axis=-1) < 0.5).astype(s.dtype) for side in (s, t))
    return 0.5 * (jnp.sum(jnp.square(s - t), axis=-1) + zeros)
