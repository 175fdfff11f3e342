"""Kullback-Leibler divergence of two softmax distributions, accurate however close or far they are."""

import jax
import jax.numpy as jnp
from jax import lax


def softened(logits: jax.Array, temperature: jax.Array) -> jax.Array:
    """logits / T; an infinite one stays as it is, with a derivative of 0 by T where a division has NaN."""
    infinite = jnp.isinf(logits)
    return jnp.where(infinite, logits, jnp.where(infinite, 0, logits) / temperature)


@jax.jit  # one compilation, also where the caller runs op by op
def kl_last_axis(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    """KL(softmax(teacher / T) || softmax(student / T)) over the last axis, accurate however close they are.

    The sum of p (log p - log q) cancels down to its rounding error where p and q are close, as all softened
    probabilities are at a high temperature, and T² then makes that error large. With
    d = (student - teacher) / T less its mean under p, the same divergence is ::

        log(1 + sum_c p_c (exp(d_c) - 1 - d_c)) - log(1 - m),     m = sum of q over classes where p = 0

    in which no term is negative, so nothing cancels, neither here nor in the derivative. Where exp(d) would
    overflow, or most of q lies where p = 0, the divergence is not small and the plain sum does better.
    """
    log_p = jax.nn.log_softmax(softened(teacher, temperature))
    log_q = jax.nn.log_softmax(softened(student, temperature))
    p = jnp.exp(log_p)
    support = p >= jnp.finfo(p.dtype).tiny  # smaller ones lack digits, and a processor may take them as 0

    excluded = support & (log_q == -jnp.inf)
    infinite = jnp.any(excluded, axis=-1)

    shift = jnp.where(support & ~excluded, student - teacher, 0) / temperature
    shift = shift - jnp.sum(p * shift, axis=-1, keepdims=True)
    missed = jnp.sum(jnp.where(support, 0, jnp.exp(log_q)), axis=-1)
    largest = 0.9 * jnp.log(jnp.finfo(p.dtype).max)
    close = jnp.all(jnp.where(support, shift, 0) <= largest, axis=-1) & (missed <= 0.5) & ~infinite

    # The form not chosen sees harmless inputs: otherwise its gradient puts 0 * inf into the other's.
    excess = jnp.sum(weighted_remainder(p, jnp.where(support & close[..., None], shift, 0)), axis=-1)
    near = jnp.log1p(excess) - jnp.log1p(-jnp.where(close, missed, 0))
    far = jnp.sum(p * jnp.where(support & ~close[..., None], log_p - _above_zero(log_q), 0), axis=-1)
    return jnp.where(close, near, jnp.where(infinite, jnp.inf, 0) + far)


@jax.custom_jvp
def _above_zero(log_q: jax.Array) -> jax.Array:
    """The logarithm of a probability, where that is 0 of the smallest normal number: gradients stay finite."""
    return jnp.where(log_q == -jnp.inf, jnp.log(jnp.finfo(log_q.dtype).tiny), log_q)


@_above_zero.defjvp
def _above_zero_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _above_zero(*primals), tangents[0]


def kl_by_receiver(
    student: jax.Array, teacher: jax.Array, receivers: jax.Array, counted: jax.Array, rows: int
) -> tuple[jax.Array, jax.Array]:
    """Whether each receiver has an edge that counts, [rows], and KL(softmax(teacher) || softmax(student)) over
    those edges, 0 without any.

    `kl_last_axis` over segments.
    """
    to = jnp.where(counted, receivers, rows)  # edges that do not count share a receiver of their own

    def total(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, to, rows + 1)

    def log_softmax(scores: jax.Array) -> jax.Array:
        top = lax.stop_gradient(jax.ops.segment_max(scores, to, rows + 1))
        scores = scores - top[to]
        return scores - jnp.log(total(jnp.exp(scores))[to])

    student, teacher = jnp.where(counted, student, 0), jnp.where(counted, teacher, 0)
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    p = jnp.exp(log_p)
    limits = jnp.finfo(p.dtype)
    support = ~(p < limits.tiny)

    shift = jnp.where(support, student - teacher, 0)
    shift = shift - total(p * shift)[to]
    missed = total(jnp.where(support, 0, jnp.exp(log_q)))
    largest = jax.ops.segment_max(jnp.where(support, shift, 0), to, rows + 1)
    close = (largest <= 0.9 * jnp.log(limits.max)) & (missed <= 0.5)
    near = jnp.log1p(total(weighted_remainder(p, jnp.where(support & close[to], shift, 0))))
    near = near - jnp.log1p(-jnp.where(close, missed, 0))
    far = total(p * jnp.where(support & ~close[to], log_p - log_q, 0))
    linked = jax.ops.segment_max(counted.astype(jnp.int32), to, rows + 1) > 0
    return linked[:rows], jnp.where(close, near, far)[:rows]


@jax.custom_jvp
def weighted_remainder(p: jax.Array, x: jax.Array) -> jax.Array:
    """p (exp(x) - 1 - x) elementwise, by the exponential's series where the subtraction would lose digits."""
    small = jnp.abs(x) < 0.5
    y = jnp.where(small, x, 0)
    series = jnp.ones_like(x)
    for k in range(15, 2, -1):  # the first term left out is below float64's rounding
        series = 1 + y * (1 / k) * series
    return p * jnp.where(small, 0.5 * jnp.square(y) * series, jnp.expm1(x) - x)


@weighted_remainder.defjvp
def _weighted_remainder_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (p, x), (dp, dx) = primals, tangents
    # Where p is tiny and exp(x) huge, they are multiplied first: with a cotangent in between p could vanish.
    change = (p * jnp.expm1(x)) * dx + weighted_remainder(jnp.ones_like(x), x) * dp
    return weighted_remainder(p, x), change
