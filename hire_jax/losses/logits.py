"""Losses between a student's and a teacher's logits."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.losses._divergence import kl_last_axis, kl_of_answers
from hire_jax.losses._logits import checked_logits


def soft_target_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Kullback-Leibler divergence from the teacher's softened class probabilities to the student's.

    The student is to give each node the teacher's whole distribution, the ratios between unlikely classes
    included. With `p = softmax(z / T)` for teacher t and student s::

        T² · mean_v  sum_c  p_vc^t (log p_vc^t - log p_vc^s)

    The factor T² keeps the gradient's size about the same when T changes. At high T the loss tends to half
    the variance over classes of the logits' difference.

    Cost: O(N C) time and memory.
    Use: the usual first term, where each row has one class. `bernoulli_kl` is its form for several.
    Pitfalls: a mean over all entries (`reduction="mean"` of a KL loss) divides by the number of classes as well; other
      public codes leave T² out, and their weight must then be tuned anew for each T. Here neither is done.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. A class to which the teacher gives probability 0 (logit -inf) has no term of its own, whatever
      the student's logit there, -inf included. A class that the teacher allows and the student excludes with
      -inf makes the loss inf, its gradient still finite. A row that is -inf throughout is no distribution and
      gives NaN.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], weights that are not [N], a
        temperature that is not a positive scalar.

    References:
      Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015. arXiv:1503.02531
    """
    given = checked_logits(student_logits, teacher_logits, where, weights, temperature)
    return given.mean(kl_last_axis(given.student, given.teacher, given.temperature))


def bernoulli_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Soft targets for multi-label nodes, where each class is a yes-or-no question of its own.

    With `q = sigmoid(z / T)` for teacher t and student s::

        T² · mean_v  sum_c  [ q_vc^t log(q_vc^t / q_vc^s) + (1 - q_vc^t) log((1 - q_vc^t) / (1 - q_vc^s)) ]

    The paper treats exclusive classes; this is its divergence for the sigmoid outputs of multi-label data.

    Cost: O(N C) time and memory.
    Use: where a row may have several labels, or none, and the supervised loss is a binary cross-entropy too.
    Pitfalls: public codes often take the binary cross-entropy against `q^t` instead. Its gradient is the same, but it
      contains the teacher's entropy and so does not reach 0 at the teacher. A mean over classes is common too; here
      they are summed, and the loss grows with C.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. Logits of -inf and inf stand for probabilities 0 and 1; where both sides agree on one it adds
      nothing.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], weights that are not [N], a
        temperature that is not a positive scalar.

    References:
      Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015. arXiv:1503.02531
    """
    given = checked_logits(student_logits, teacher_logits, where, weights, temperature)
    return given.mean(jnp.sum(kl_of_answers(given.student, given.teacher, given.temperature), axis=-1))


def logit_mse(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    centred: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The student's logits are to equal the teacher's. For logits z::

        mean_v  sum_c  (z_vc^s - z_vc^t)²

    With `centred` each row is first taken less its mean over classes, which a softmax does not see either; then
    `soft_target_kl` tends to this loss / (2 C) as T grows.

    Cost: O(N C) time and memory.
    Use: where logits themselves are to be met and no temperature is to be chosen; `centred` where they feed a softmax.
    Pitfalls: the paper has half of it, and public codes mostly take the mean over all entries, this loss / C: a weight
      taken from them does not fit here. Without `centred` a shift that changes no class probability costs something.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      centred: whether a common shift of a row's logits is to have no influence.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A non-negative scalar in squared logits, float32 (float64 where an input is). 0 with a zero gradient where no
      row is left. A class in which both sides are the same infinity adds nothing unless `centred`; any other
      infinite logit makes the loss inf or NaN.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], weights that are not
        [N].

    References:
      Ba, Caruana: Do Deep Nets Really Need to be Deep?, 2014. arXiv:1312.6184
    """
    given = checked_logits(student_logits, teacher_logits, where, weights)
    if centred:
        difference = given.student - given.teacher
        difference = difference - jnp.mean(difference, axis=-1, keepdims=True)
    else:
        equal = given.student == given.teacher  # also the infinite ones, whose difference is NaN
        difference = jnp.where(equal, 0, given.student - jnp.where(equal, 0, given.teacher))
    return given.mean(jnp.sum(jnp.square(difference), axis=-1))
