"""Losses between a student's and a teacher's logits."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_same_shape, check_temperature, check_where, real_array
from hire_jax.losses._divergence import kl_last_axis
from hire_jax.losses._reduce import mean_rows, working_dtype, zero_rows


def soft_target_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Kullback-Leibler divergence from the teacher's softened class probabilities to the student's.

    The student is to give each node the teacher's whole distribution, the ratios between unlikely classes
    included. With `p = softmax(z / T)` for teacher t and student s::

        T² · mean_v  sum_c  p_vc^t (log p_vc^t - log p_vc^s)

    The factor T² keeps the gradient's size about the same when T changes. At high T the loss tends to half
    the variance over classes of the logits' difference.

    Public codes differ. A mean over all entries (`reduction="mean"` of a KL loss) divides by the number of
    classes as well; some leave T² out, and their weight must then be tuned anew for each T. Here neither is
    done.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. A class to which the teacher gives probability 0 (logit -inf) has no term of its own, whatever
      the student's logit there, -inf included. A class that the teacher allows and the student excludes with
      -inf makes the loss inf, its gradient still finite. A row that is -inf throughout is no distribution and
      gives NaN.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], a temperature
        that is not a positive scalar.

    References:
      Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015. arXiv:1503.02531
    """
    student, teacher, scale, mask = _prepare(student_logits, teacher_logits, temperature, where)
    return scale**2 * mean_rows(kl_last_axis(student, teacher, scale), mask)


def bernoulli_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Soft targets for multi-label nodes, where each class is a yes-or-no question of its own.

    With `q = sigmoid(z / T)` for teacher t and student s::

        T² · mean_v  sum_c  [ q_vc^t log(q_vc^t / q_vc^s) + (1 - q_vc^t) log((1 - q_vc^t) / (1 - q_vc^s)) ]

    The paper treats exclusive classes; this is its divergence for the sigmoid outputs of multi-label data.
    Public codes often take the binary cross-entropy against `q^t` instead. Its gradient is the same, but it
    contains the teacher's entropy and so does not reach 0 at the teacher. A mean over classes is common too;
    here they are summed.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. Logits of -inf and inf stand for probabilities 0 and 1; where both sides agree on one it adds
      nothing.

    Raises:
      ValueError: logits that are not both of one shape [N, C], a mask that is not bool [N], a temperature
        that is not a positive scalar.

    References:
      Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015. arXiv:1503.02531
    """
    student, teacher, scale, mask = _prepare(student_logits, teacher_logits, temperature, where)
    by_class = kl_last_axis(_two_class_logits(student), _two_class_logits(teacher), scale)
    return scale**2 * mean_rows(jnp.sum(by_class, axis=-1), mask)


def _prepare(
    student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Checked, masked logits in working precision, the teacher's a constant; the temperature; the mask."""
    student = real_array("student_logits", student_logits)
    teacher = lax.stop_gradient(real_array("teacher_logits", teacher_logits))
    check_same_shape("[N, C]", student_logits=student, teacher_logits=teacher)
    check_temperature(temperature)
    mask = check_where(where, len(student))
    dtype = working_dtype(student, teacher)
    student, teacher = (zero_rows(logits, mask).astype(dtype) for logits in (student, teacher))
    return student, teacher, jnp.asarray(temperature, dtype), mask


def _two_class_logits(logits: jax.Array) -> jax.Array:
    """[..., C] logits of a sigmoid as [..., C, 2] of a softmax: (z, 0), shifted so that z = inf is usable."""
    return jnp.stack([jnp.minimum(logits, 0), -jnp.maximum(logits, 0)], axis=-1)
