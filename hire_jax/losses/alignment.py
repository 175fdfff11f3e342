"""Alignment of the two sides' kernels."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import two_sides
from hire_jax.losses._reduce import HIGHEST, in_working_dtype, row_count, shrunk, zero_rows


def linear_cka(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """One less the linear centred kernel alignment: the rows' similarities to each other are to agree.

    With S [N, D_s] and T [N, D_t], less their means over the rows that count::

        1 - ||S' T||_F² / (||S' S||_F ||T' T||_F)

    A rotation or a common factor of either side changes nothing. The kernels S S' are [N, N]; the form above needs
    the features' covariances only.

    Cost: O(N (D_s + D_t)²) time, O((N + D_s + D_t) (D_s + D_t)) memory.
    Use: where widths differ and the rows' similarities are to agree as a whole, whatever the basis and the scale.
    Pitfalls: CKA is used to compare trained networks, where the index itself is reported; it is 1 less this loss. It is
      the estimate of the paper, which for few rows lies above the true alignment, so small batches look more aligned
      than they are; some codes have an unbiased one.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32, and products are taken at the
        highest precision.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no
        influence.

    Returns:
      A scalar from 0 to 1 without unit, float32 (float64 where an input is). It is a difference from 1, so
      near agreement its error is that of 1 in the dtype, below 1e-6 where measured in float32. A side whose
      rows are all equal has no alignment: the loss is 1, with a zero gradient. So it is for a single row. 0
      with a zero gradient where no row is left.

    Raises:
      ValueError: features that are not [N, D_s] and [N, D_t], a mask that is not bool [N].

    References:
      Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, 2019.
        arXiv:1905.00414
    """
    students, teachers, mask = two_sides(student, teacher, where)
    return _linear_cka(students, teachers, mask)


@jax.jit
def _linear_cka(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    student, teacher = in_working_dtype(student, teacher, where)
    n = len(student)
    if n == 0:
        return jnp.zeros((), student.dtype)
    count = row_count(n, where, student.dtype)

    def centred(rows: jax.Array) -> jax.Array:
        """Less the mean, zero outside `where`, then shrunk. One of the rows is taken off first, so that equal
        rows give zeros and not the rounding of their mean; halving is exact, and the difference then finite."""
        one = lax.stop_gradient(rows[0] if where is None else rows[jnp.argmax(where)])
        rows = shrunk(zero_rows(0.5 * rows - 0.5 * one, where))
        return shrunk(zero_rows(rows - jnp.sum(rows, axis=0) / jnp.maximum(count, 1), where))

    def squared_product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(jnp.matmul(a.T, b, precision=HIGHEST) / jnp.maximum(count, 1)))

    s, t = centred(student), centred(teacher)
    # Both are 0 for a side without variance, whose part in the product above is then 0 too.
    of_s, of_t = squared_product(s, s), squared_product(t, t)
    norms = jnp.sqrt(jnp.where(of_s == 0, 1, of_s)) * jnp.sqrt(jnp.where(of_t == 0, 1, of_t))
    loss = 1 - squared_product(s, t) / norms
    loss = loss + lax.stop_gradient(jnp.maximum(-loss, 0))  # rounding can leave it below 0
    return jnp.where(count > 0, loss, 0)
