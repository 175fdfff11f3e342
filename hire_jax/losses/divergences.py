"""Other divergences between softened class probabilities than Hinton's: from the student, and symmetric."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.losses._divergence import kl_last_axis, softened
from hire_jax.losses._logits import checked_logits


def reverse_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Kullback-Leibler divergence from the student's softened class probabilities to the teacher's.

    The roles of `soft_target_kl` exchanged: the student is to put no probability where the teacher has little (it is
    mode-seeking). With `p = softmax(z / T)`::

        T² · mean_v  sum_c  p_vc^s (log p_vc^s - log p_vc^t)

    Where the two are near, both directions agree to second order.

    Cost: O(N C) time and memory.
    Use: for a student too small to follow the teacher's whole distribution: it may then keep to the likely classes.
    Pitfalls: what the teacher also allows may be left out, at little cost. With a teacher that
      excludes a class the loss is infinite until the student does too.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no row is
      left. A class that the teacher excludes with a logit of -inf and the student allows makes the loss inf, its
      gradient still finite; where both exclude it, it adds nothing. A row that is -inf throughout is no
      distribution and gives NaN.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], weights that are not
        [N], a temperature that is not a positive scalar.

    References:
      Gu, Dong, Wei, Huang: MiniLLM: Knowledge Distillation of Large Language Models, 2023. arXiv:2306.08543
    """
    given = checked_logits(student_logits, teacher_logits, where, weights, temperature)
    return given.mean(kl_last_axis(given.teacher, given.student, given.temperature))


def jensen_shannon(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Jensen-Shannon divergence of softened class probabilities: symmetric, and bounded.

    With `p = softmax(z / T)` and m = (p^s + p^t) / 2::

        T² · mean_v  1/2 sum_c [ p_vc^t log(p_vc^t / m_vc) + p_vc^s log(p_vc^s / m_vc) ]

    It is computed as 1/2 sum_c m_c [ (1+u) log(1+u) + (1-u) log(1-u) ] with u = (p^t - p^s) / (p^t + p^s), in which
    no term is negative.

    Cost: O(N C) time and memory.
    Use: where a bound is wanted, so that no row, however far from the teacher, outweighs the others.
    Pitfalls: near agreement it is a quarter of `soft_target_kl`, so the weight is another. Its gradient vanishes in
      classes that only one side allows, so a student that starts far from a confident teacher learns slowly. The form
      above, which public codes have, loses its digits where the sides are near.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A scalar from 0 to T² log 2 in nats, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. Logits of -inf are probabilities of 0, on either side. A row that is -inf throughout is no
      distribution and gives NaN.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], weights that are not
        [N], a temperature that is not a positive scalar.

    References:
      Lin: Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory, 1991; no arXiv
        id, being older than arXiv.
      Agarwal et al.: On-Policy Distillation of Language Models, 2023, for distillation. arXiv:2306.13649
    """
    given = checked_logits(student_logits, teacher_logits, where, weights, temperature)
    return given.mean(_jensen_shannon_last_axis(given.student, given.teacher, given.temperature))


@jax.jit  # one compilation, also where the caller runs op by op
def _jensen_shannon_last_axis(student: jax.Array, teacher: jax.Array, temperature: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(softened(teacher, temperature))
    log_q = jax.nn.log_softmax(softened(student, temperature))
    p, q = jnp.exp(log_p), jnp.exp(log_q)

    # r = log q - log p. Near each other, the difference of logits has more digits than that of logarithms.
    both = (student > -jnp.inf) & (teacher > -jnp.inf)
    shift = jnp.where(both, student - jnp.where(both, teacher, 0), 0) / temperature
    shift = shift - jnp.sum(p * shift, axis=-1, keepdims=True)
    close = jnp.all(both & (jnp.abs(shift) < 1), axis=-1, keepdims=True)
    small = jnp.where(close, shift, 0)
    near = small - jnp.log1p(jnp.sum(p * jnp.expm1(small), axis=-1, keepdims=True))
    neither = (log_p == -jnp.inf) & (log_q == -jnp.inf)
    far = jnp.where(neither, 0, log_q) - jnp.where(neither, 0, log_p)
    return 0.25 * jnp.sum((p + q) * _spread(jnp.where(close, near, far)), axis=-1)


def _spread(r: jax.Array) -> jax.Array:
    """(1+u) log(1+u) + (1-u) log(1-u) with u = tanh(r / 2), elementwise."""
    r = jnp.clip(r, -80, 80)  # beyond, u is 1 and a sigmoid's logarithm only makes inf
    u = jnp.tanh(0.5 * r)
    small = jnp.abs(u) < 0.3
    squared = jnp.square(jnp.where(small, u, 0))
    series = jnp.zeros_like(r)
    for k in range(14, 0, -1):  # the first term left out is below float64's rounding
        series = squared * (1 / (k * (2 * k - 1)) + series)
    large = jnp.where(small, 1, r)
    plain = 2 * math.log(2) + 2 * (
        jax.nn.sigmoid(large) * jax.nn.log_sigmoid(large) + jax.nn.sigmoid(-large) * jax.nn.log_sigmoid(-large)
    )
    return jnp.where(small, series, plain)
