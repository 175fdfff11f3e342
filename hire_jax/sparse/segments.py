"""Sums, means, maxima and softmax over sorted segments: what a node makes of the entries that reach it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Array = jax.Array


def segment_sum(data: Array, segments: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Sum of data [E, ...] over each of `num_segments` segments (int[E], ascending); empty segments give 0.

    `where` (bool[E]) leaves entries out, whatever they hold. Sums run in float32 for narrower types.
    """
    if where is not None:
        data = jnp.where(_expand(where, data), data, 0)
    return jax.ops.segment_sum(_widened(data), segments, num_segments, indices_are_sorted=True).astype(data.dtype)


def segment_mean(data: Array, segments: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Mean of data [E, ...] over each segment; empty or wholly masked segments give 0."""
    wide = _widened(data)
    ones = jnp.ones(segments.shape, wide.dtype) if where is None else where.astype(wide.dtype)
    count = jax.ops.segment_sum(ones, segments, num_segments, indices_are_sorted=True)
    total = segment_sum(wide, segments, num_segments, where=where)
    mean = total / _expand(jnp.maximum(count, 1), total)
    return mean if wide.dtype == data.dtype else mean.astype(data.dtype)


def segment_max(data: Array, segments: Array, num_segments: int, *, where: Array | None = None,
                empty: float = 0.0) -> Array:
    """Maximum of data [E, ...] over each segment; empty or wholly masked segments give `empty`."""
    ones = jnp.ones(segments.shape, jnp.int32) if where is None else where.astype(jnp.int32)
    if where is not None:
        data = jnp.where(_expand(where, data), data, -jnp.inf)
    count = jax.ops.segment_sum(ones, segments, num_segments, indices_are_sorted=True)
    maximum = jax.ops.segment_max(data, segments, num_segments, indices_are_sorted=True)
    return jnp.where(_expand(count > 0, maximum), maximum, empty)


def segment_softmax(logits: Array, segments: Array, num_segments: int, *, where: Array | None = None) -> Array:
    """Softmax of logits [E, ...] within each segment (int[E], ascending).

    Masked entries get 0. A segment whose logits are all -inf gets zeros, with a finite gradient.
    """
    mask = None if where is None else [where]
    return joint_segment_softmax([logits], [segments], num_segments, where=mask)[0]


def joint_segment_softmax(logits: Sequence[Array], segments: Sequence[Array], num_segments: int, *,
                          where: Sequence[Array] | None = None) -> list[Array]:
    """One softmax over the union of several entry lists that share their segments.

    a^k_e = exp(s^k_e) / sum_l sum_{f : seg^l(f) = seg^k(e)} exp(s^l_f)

    The lists are the edges of different relations into the same destinations: they need not be merged and
    sorted again. Each logits[k] is [E_k, ...] with segments[k] int[E_k] ascending; the trailing axes agree.
    """
    masks: Sequence[Array | None] = [None] * len(logits) if where is None else where
    dtypes, logits = [s.dtype for s in logits], [_widened(s) for s in logits]
    # A NaN that is not masked counts, so that it shows in the result.
    valid = [s != -jnp.inf if m is None else _expand(m, s) & (s != -jnp.inf)
             for s, m in zip(logits, masks, strict=True)]
    top = jnp.asarray(-jnp.inf)
    for s, seg, ok in zip(logits, segments, valid, strict=True):
        top = jnp.maximum(top, jax.ops.segment_max(jnp.where(ok, s, -jnp.inf), seg, num_segments,
                                                   indices_are_sorted=True))
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0)).astype(logits[0].dtype)
    # The inner `where` keeps a masked NaN or an infinity from reaching exp, whose gradient it would poison.
    exps = [jnp.where(ok, jnp.exp(jnp.where(ok, s - top[seg], 0.0)), 0.0)
            for s, seg, ok in zip(logits, segments, valid, strict=True)]
    total = sum(jax.ops.segment_sum(e, seg, num_segments, indices_are_sorted=True)
                for e, seg in zip(exps, segments, strict=True))
    scale = 1.0 / jnp.where(total == 0, 1.0, total)
    return [(e * scale[seg]).astype(dtype) for e, seg, dtype in zip(exps, segments, dtypes, strict=True)]


def _widened(data: Array) -> Array:
    """float32 of narrower floating types: a sum of ones in bfloat16 stops at 256."""
    narrow = jnp.issubdtype(data.dtype, jnp.floating) and data.dtype.itemsize < 4
    return data.astype(jnp.float32) if narrow else data


def _expand(mask: Array, data: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (data.ndim - mask.ndim))
