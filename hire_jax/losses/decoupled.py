"""Decoupled knowledge distillation: the true class and the others, weighted apart."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_scalars, real_array
from hire_jax.losses._divergence import kl_last_axis, softened
from hire_jax.losses._logits import checked_logits


def decoupled_kd(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 8.0,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """`soft_target_kl` taken apart: how sure of the true class, and how the rest is shared among the others.

    Let p_y be the softened probability of the true class y, and p^ that of the other classes given that it is none
    but these. For teacher t and student s::

        T² · mean_v  [ alpha · TCKD_v + beta · NCKD_v ]
        TCKD = KL( (p_y^t, 1 - p_y^t) || (p_y^s, 1 - p_y^s) );      NCKD = KL( p^^t || p^^s )

    `soft_target_kl` is TCKD + (1 - p_y^t) NCKD, and the loss is computed by this identity, as
    alpha KL + (beta - alpha (1 - p_y^t)) NCKD.

    Cost: O(N C) time and memory.
    Use: where the teacher is sure of most rows: in `soft_target_kl` that silences what it knows of the other classes.
    Pitfalls: the authors' alpha is 1, and their beta differs with the networks: from 2 to 8 on CIFAR-100 at T = 4, 0.5
      at T = 1 on ImageNet. They raise the loss over the first epochs; here a schedule may. Their code takes the other
      classes' softmax by subtracting 1000 from the true class's logit; the reduction is as here. Of two classes there
      is no other to tell apart, and NCKD is 0.

    Args:
      student_logits: [N, C], any real dtype, C of at least 2. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      labels: int [N], the true classes. A negative one means unlabelled: the teacher's most probable class, of
        which the teacher is surest, takes its place.
      alpha: weight of the true class's term, a number or a scalar array.
      beta: weight of the other classes' term.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A scalar in nats, not negative but for rounding, float32 (float64 where an input is). 0 with a zero gradient
      where no row is left. Where the teacher gives all other classes probability 0, NCKD is 0; where the student
      excludes with -inf one that the teacher allows, the loss is inf (NaN with a beta of 0). A label of C or more
      makes the loss NaN.

    Raises:
      ValueError: logits that are not both of one shape [N, C] with C of at least 2, labels that are not int [N],
        alpha or beta that are no scalars, a mask that is not bool [N], weights that are not [N], a temperature that
        is not a positive scalar.

    References:
      Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022. arXiv:2203.08679
    """
    given = checked_logits(student_logits, teacher_logits, where, weights, temperature)
    classes = given.student.shape[1]
    if classes < 2:
        raise ValueError(f"student_logits: expected at least 2 classes, got shape {given.student.shape}")
    target = real_array("labels", labels)
    if target.shape != given.student.shape[:1] or not jnp.issubdtype(target.dtype, jnp.integer):
        raise ValueError(f"labels: expected int ({len(given.student)},), got {target.dtype} {target.shape}")
    check_scalars(alpha=alpha, beta=beta)
    return given.mean(_by_row(given.student, given.teacher, target, given.temperature, alpha, beta))


@jax.jit  # one compilation, also where the caller runs op by op
def _by_row(
    student: jax.Array, teacher: jax.Array, labels: jax.Array, temperature: jax.Array, alpha: ArrayLike, beta: ArrayLike
) -> jax.Array:
    """alpha TCKD + beta NCKD of each row, [N]."""
    classes = student.shape[1]
    true = jnp.where(labels < 0, jnp.argmax(teacher, axis=-1), labels)
    others = jnp.arange(classes) != true[:, None]
    p = jax.nn.softmax(softened(teacher, temperature))
    of_others = jnp.sum(jnp.where(others, p, 0), axis=-1)  # 1 - p_y, small ones too

    # A row without any other class is no distribution: equal rows stand in, with divergence 0.
    by_student, by_teacher = (jnp.any(others & (z > -jnp.inf), axis=-1) for z in (student, teacher))
    known = (by_student & by_teacher)[:, None]
    rest_s, rest_t = (jnp.where(known, jnp.where(others, z, -jnp.inf), 0) for z in (student, teacher))
    nckd = jnp.where(by_teacher & ~by_student, jnp.inf, kl_last_axis(rest_s, rest_t, temperature))
    total = alpha * kl_last_axis(student, teacher, temperature) + (beta - alpha * of_others) * nckd
    total = jnp.where(jnp.isinf(nckd), beta * nckd, total)
    return jnp.where(true < classes, total, jnp.nan)
