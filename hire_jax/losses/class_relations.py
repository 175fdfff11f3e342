"""DIST: correlations of class probabilities in place of their values."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_scalars
from hire_jax.losses._divergence import softened
from hire_jax.losses._logits import checked_logits
from hire_jax.losses._reduce import mean_rows, one_less_cosine, zero_rows


def dist(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    inter: ArrayLike = 1.0,
    intra: ArrayLike = 1.0,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The student's class probabilities are to correlate with the teacher's, not to equal them.

    Pearson's correlation r leaves the scale and the offset of probabilities free. With `P = softmax(Z / T)` [N, C]::

        T² · [ inter · mean_v (1 - r(P_v,:^s, P_v,:^t))  +  intra · mean_c (1 - r(P_:,c^s, P_:,c^t)) ]

    inter: the classes of one node; intra: one class over all nodes that count.

    1 - r is computed as half the squared distance of centred unit rows, and probabilities less 1/C without a
    subtraction, so the loss keeps its digits near agreement and at a high temperature.

    Cost: O(N C) time and memory.
    Use: for a teacher much stronger than its student, with sharper probabilities than the student can reach.
    Pitfalls: the second term is a property of all rows together, so in mini-batches it depends on the batch. Equal
      sides give 0 only where no class has the same probability at all rows: such a class, or a single row, has no
      correlation and adds its share of T². The authors' code subtracts where digits are lost, and adds 1e-8 to the
      product of norms.

    Args:
      student_logits: [N, C], any real dtype. Half precision is raised to float32.
      teacher_logits: [N, C]. A constant: no gradient flows into it.
      inter: weight of the term over classes, a number or a scalar array.
      intra: weight of the term over nodes.
      temperature: T > 0, without unit; a number or a scalar array.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      weights: [N], non-negative, for a weighted mean over rows in the first term; the second knows only whether a
        row's weight is 0, and then leaves it out. A constant.

    Returns:
      A scalar from 0 to 2 T² (inter + intra) without unit, float32 (float64 where an input is). 0 with a zero
      gradient where no row is left. Probabilities that are all equal, in a row or in a column, have correlation 0
      and a zero gradient; a single row makes the second term 1.

    Raises:
      ValueError: logits that are not both of one shape [N, C], inter or intra that are no scalars, a mask that is
        not bool [N], weights that are not [N], a temperature that is not a positive scalar.

    References:
      Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, 2022. arXiv:2205.10536
    """
    given = checked_logits(student_logits, teacher_logits, where, weights, temperature)
    check_scalars(inter=inter, intra=intra)
    if len(given.student) == 0:
        return jnp.zeros((), given.student.dtype)
    by_row, by_class = _relations(given.student, given.teacher, given.temperature, given.where)
    rows = given.mean(by_row)
    any_row = jnp.ones((), bool) if given.where is None else jnp.any(given.where)
    columns = given.temperature**2 * jnp.where(any_row, jnp.mean(by_class), 0)
    return jnp.asarray(inter) * rows + jnp.asarray(intra) * columns


@jax.jit  # one compilation, also where the caller runs op by op
def _relations(
    student: jax.Array, teacher: jax.Array, temperature: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """1 - r of each row, [N], and of each class, [C]."""
    s, t = (_excess_probabilities(softened(logits, temperature)) for logits in (student, teacher))

    def over_rows(side: jax.Array) -> jax.Array:
        """[C, N], each class less its mean over the rows that count."""
        means = jax.vmap(lambda column: mean_rows(column, where), in_axes=1)(side)
        return zero_rows(side - means, where).T

    return one_less_cosine(s, t), one_less_cosine(over_rows(s), over_rows(t))


def _excess_probabilities(z: jax.Array) -> jax.Array:
    """softmax(z) - 1/C over the last axis, without subtracting near numbers."""
    below = jnp.expm1(z - jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True)))  # from -1 to 0
    return (below - jnp.mean(below, axis=-1, keepdims=True)) / jnp.sum(1 + below, axis=-1, keepdims=True)
