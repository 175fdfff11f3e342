"""Kullback-Leibler divergence of two distributions of softened logits, accurate however close or far they are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SMALL = 0.5  # where an exponential's series is taken


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
    overflow, or most of q lies where p = 0, the divergence is not small, and the plain difference of both sides'
    logarithms does better.
    """
    return _kl_last_axis(student, teacher, temperature)


@jax.custom_jvp
def _kl_last_axis(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    return _compared(student, teacher, temperature).value


@_kl_last_axis.defjvp
def _kl_last_axis_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """By the student's logits (q - p) / T, by the teacher's -p d / T, by T what follows from both."""
    student, teacher, temperature = primals
    c = _compared(student, teacher, temperature)
    near = c.support & c.close
    d = jnp.where(near, c.shift, 0)
    change = jnp.expm1(d)
    of_missed = c.missed * (1 + change)
    scale = jnp.exp(-jnp.log1p(c.excess))  # a quotient's derivative squares what may be huge
    by_student = c.p * (change - c.excess - of_missed) * scale
    by_student = jnp.where(near, by_student, c.q - jnp.where(c.support, c.p, 0))
    by_teacher = jnp.where(c.support, -c.p * c.shift, 0)
    # The sum of by_student b + by_teacher a, to which constants in a and b add nothing, so that b = a + d where near.
    a, b = (jnp.where(jnp.isinf(z), 0, z - _top(z)) / temperature for z in (teacher, student))
    b = b - c.mean
    by_both = c.p * (weighted_remainder(jnp.ones_like(d), d) - c.excess * (1 + d) - of_missed) * scale
    by_scale = jnp.where(near, by_student * d + by_both * a, by_student * b + by_teacher * a)
    d_student, d_teacher, d_temperature = tangents
    tangent = jnp.sum(by_student * d_student, axis=-1)
    tangent += jnp.sum(by_teacher * d_teacher - by_scale * d_temperature, axis=-1)
    return c.value, tangent / temperature


class _Compared(NamedTuple):
    """Arrays [..., C], [..., 1] and the divergence [...]."""

    p: jax.Array
    q: jax.Array
    support: jax.Array
    """Whether p is not 0."""
    mean: jax.Array
    """That of (student - teacher) / T under p, both less their largest."""
    shift: jax.Array
    """d of `kl_last_axis` where p is not 0."""
    close: jax.Array
    """Whether exp(d) overflows nowhere and most of q lies where p is not 0."""
    excess: jax.Array
    """The sum of p (exp(d) - 1 - d) where close, else 0."""
    missed: jax.Array
    """m where close, else 0."""
    value: jax.Array


def _compared(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> _Compared:
    p, log_sum_p = _softmax(teacher, temperature)
    q, log_sum_q = _softmax(student, temperature)
    support = ~(p < jnp.finfo(p.dtype).tiny)  # smaller ones lack digits, and a processor may take them as 0

    excluded = support & (student == -jnp.inf)
    infinite = jnp.any(excluded, axis=-1, keepdims=True)

    shift = student - teacher - (_top(student) - _top(teacher))
    shift = jnp.where(support & ~excluded, shift, 0) / temperature
    mean = jnp.sum(p * shift, axis=-1, keepdims=True)
    shift = shift - mean
    missed = jnp.sum(jnp.where(support, 0, q), axis=-1, keepdims=True)
    largest = 0.9 * jnp.log(jnp.finfo(p.dtype).max)
    close = jnp.all(jnp.where(support, shift, 0) <= largest, axis=-1, keepdims=True) & (missed <= 0.5) & ~infinite

    # The form not chosen sees harmless inputs: otherwise its gradient puts 0 * inf into the other's.
    missed = jnp.where(close, missed, 0)
    excess = jnp.sum(weighted_remainder(p, jnp.where(support & close, shift, 0)), axis=-1, keepdims=True)
    near = jnp.log1p(excess) - jnp.log1p(-missed)
    far = jnp.where(infinite, jnp.inf, 0) + (log_sum_q - log_sum_p - mean)
    return _Compared(p, q, support, mean, shift, close, excess, missed, jnp.where(close, near, far)[..., 0])


def _softmax(logits: jax.Array, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """softmax(logits / T) over the last axis, and [..., 1] the logarithm of its sum where the largest power is 1."""
    powers = jnp.exp(softened(logits - _top(logits), temperature))
    total = jnp.sum(powers, axis=-1, keepdims=True)
    return powers / total, jnp.log(total)


def _top(logits: jax.Array) -> jax.Array:
    return lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))


@jax.jit  # one compilation, also where the caller runs op by op
def kl_of_answers(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    """`kl_last_axis` of the two answers to each entry's own question, with p = sigmoid(z / T): elementwise.

    The teacher is a constant.
    """
    # Exchanging yes and no changes nothing: the teacher's p is then at most a half, so that 1 - p loses no digits.
    return _kl_of_yes(jnp.where(teacher > 0, -student, student), -jnp.abs(teacher), temperature)


@jax.custom_jvp
def _kl_of_yes(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    """`kl_of_answers` for teacher <= 0.

    With d = (student - teacher) / T and R(x) = exp(x) - 1 - x it is log(1 + p R((1 - p) d) + (1 - p) R(-p d)), in which
    nothing cancels; where d is not small, the plain log(1 - p + p exp(d)) - p d, with the student's logit b in place of
    the exponential, which could overflow.
    """
    a, b = softened(teacher, temperature), softened(student, temperature)
    d, near = _near(student, teacher, temperature)
    yes, other = jnp.exp(a), jnp.exp(-jnp.abs(b))
    no = 1 / (1 + yes)  # the probability
    p = yes * no
    excess = 0.5 * p * no * jnp.square(d) * (no * _remainder_series(no * d) + p * _remainder_series(-p * d))
    allowed = p >= jnp.finfo(p.dtype).tiny  # as in `kl_last_axis`
    linear = jnp.where(b > 0, no * b, 0) + jnp.where(allowed, p * (a - jnp.minimum(b, 0)), 0)
    value = jnp.log1p(jnp.where(near, excess, (other - yes) * no)) + jnp.where(near, 0, linear)
    return jnp.maximum(value, 0)


@_kl_of_yes.defjvp
def _kl_of_yes_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    student, teacher, temperature = primals
    by_student = _difference_of_yes(*primals)
    a, b = (jnp.where(jnp.isinf(z), 0, z) for z in (softened(teacher, temperature), softened(student, temperature)))
    d, near = _near(student, teacher, temperature)
    # With a fixed d the derivative by a is by_student - p (1 - p) d.
    p, change = jax.nn.sigmoid(a), jnp.expm1(d)
    by_teacher = p * (1 - p) * (weighted_remainder(jnp.ones_like(d), d) - p * d * change) / (1 + p * change)
    by_scale = jnp.where(near, by_student * d + by_teacher * a, by_student * b - p * (1 - p) * (b - a) * a)
    return _kl_of_yes(*primals), (by_student * tangents[0] - by_scale * tangents[2]) / temperature


@jax.custom_jvp
def _difference_of_yes(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    """sigmoid(student / T) - sigmoid(teacher / T) for teacher <= 0, accurate however close they are."""
    d, near = _near(student, teacher, temperature)
    p, change = jax.nn.sigmoid(softened(teacher, temperature)), jnp.expm1(d)
    far = jax.nn.sigmoid(softened(student, temperature)) - p
    return jnp.where(near, p * (1 - p) * change / (1 + p * change), far)


@_difference_of_yes.defjvp
def _difference_of_yes_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    def plain(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(softened(student, temperature)) - jax.nn.sigmoid(softened(teacher, temperature))

    return _difference_of_yes(*primals), jax.jvp(plain, primals, tangents)[1]


def _near(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(student - teacher) / T where that is small, 0 elsewhere; and where it is."""
    d = (student - teacher) / temperature
    near = jnp.abs(d) < SMALL
    return jnp.where(near, d, 0), near


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
    small = jnp.abs(x) < SMALL
    y = jnp.where(small, x, 0)
    return p * jnp.where(small, 0.5 * jnp.square(y) * _remainder_series(y), jnp.expm1(x) - x)


@weighted_remainder.defjvp
def _weighted_remainder_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (p, x), (dp, dx) = primals, tangents
    # Where p is tiny and exp(x) huge, they are multiplied first: with a cotangent in between p could vanish.
    change = (p * jnp.expm1(x)) * dx + weighted_remainder(jnp.ones_like(x), x) * dp
    return weighted_remainder(p, x), change


def _remainder_series(x: jax.Array) -> jax.Array:
    """(exp(x) - 1 - x) / (x² / 2) for |x| < SMALL."""
    series = jnp.ones_like(x)
    for k in range(15 if x.dtype == jnp.float64 else 9, 2, -1):  # the first term left out is below the rounding
        series = 1 + x * (1 / k) * series
    return series
