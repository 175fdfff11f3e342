"""Constants that say how much each row counts, and rows taken about their mean."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import Masks, Rows, check_weights
from hire_jax.losses._reduce import row_count, zero_rows

RowWeights = dict[str, jax.Array | None]  # {node type: [N], or None where every row weighs 1}


def check_row_weights(
    row_weights: Mapping[str, ArrayLike] | None, where: Masks, rows: Rows
) -> tuple[Masks, RowWeights]:
    """The masks, less the rows of weight 0, and the weights, a type's largest that counts 1.

    Only their proportions matter within a type, and so neither sums nor products of two overflow. Where one that counts
    is not finite, all are NaN.
    """
    given = {} if row_weights is None else row_weights
    if not isinstance(given, Mapping):
        raise ValueError(f"row_weights: expected a dictionary by node type, got {type(given).__name__}")
    unknown = sorted(set(given) - set(rows))
    if unknown:
        raise ValueError(f"row_weights: expected node types among {list(rows)}, got {unknown}")
    masks, weights = dict(where), RowWeights(dict.fromkeys(rows))
    for t, value in given.items():
        name = f"row_weights[{t!r}]"
        masks[t], w = check_weights(value, where[t], len(rows[t]), name)
        if w is None:
            raise ValueError(f"{name}: expected one number a row, got None; leave {t!r} out where its rows weigh alike")
        weights[t] = scaled = _scaled(w, masks[t])
        if not isinstance(scaled, jax.core.Tracer) and bool(jnp.isnan(scaled).any()):
            raise ValueError(f"{name}: expected finite numbers in the rows that count, got {w}")
    return masks, weights


@jax.jit
def _scaled(weights: jax.Array, where: jax.Array) -> jax.Array:
    weights = zero_rows(weights.astype(jnp.promote_types(weights.dtype, jnp.float32)), where)
    peak = jnp.max(weights, initial=0)
    return weights / jnp.where(peak == 0, 1, jnp.where(jnp.isfinite(peak), peak, jnp.nan))


def total_weight(rows: int, where: jax.Array | None, weights: jax.Array | None, dtype: jnp.dtype) -> jax.Array:
    """The sum of the weights of the rows inside `where`, whose number it is where there are no weights."""
    if weights is None:
        return row_count(rows, where, dtype)
    return jnp.sum(zero_rows(weights.astype(dtype), where))


def weighted_rows(rows: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Each row [N, d] times its weight."""
    return rows if weights is None else weights.astype(rows.dtype)[:, None] * rows


@jax.jit
def centred_rows(rows: jax.Array, where: jax.Array | None, weights: jax.Array | None) -> jax.Array:
    """Rows [N, d] in a common unit of length, less their weighted mean over the rows inside `where`; others 0.

    The unit, a power of two near the largest entry, keeps sums from overflow; for functions that it does not change.
    Equal rows, and one alone, give zeros: the mean is corrected by the mean of what it leaves, and then has no
    rounding of its own that would pass for a direction.
    """
    limits = jnp.finfo(rows.dtype)
    rows = zero_rows(rows, where)
    peak = lax.stop_gradient(jnp.max(jnp.abs(rows), initial=0))
    exponent = jnp.clip(jnp.frexp(peak)[1], 3 - limits.maxexp, limits.maxexp - 3)
    rows = rows * jnp.ldexp(jnp.ones((), rows.dtype), -exponent)
    total = total_weight(len(rows), where, weights, rows.dtype)
    total = jnp.where(total == 0, 1, total)

    def mean(of: jax.Array) -> jax.Array:
        return jnp.sum(weighted_rows(of, weights), axis=0) / total

    rough = lax.stop_gradient(mean(rows))
    return zero_rows(rows - (rough + mean(zero_rows(rows - rough, where))), where)
