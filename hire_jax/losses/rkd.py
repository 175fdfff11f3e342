"""Relational knowledge distillation: distances between rows, angles between triplets of them."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from hire_jax.losses._blocks import BLOCK_ENTRIES, prepared, sum_over_rows
from hire_jax.losses._checks import two_sides
from hire_jax.losses._reduce import HIGHEST, unit_rows
from hire_jax.losses._sample import sampled

# Rows beyond which `sample=` is wanted: time quadratic with a factor d a pair, and cubic.
DISTANCE_ROWS = 16_384
ANGLE_ROWS = 256


def rkd_distance(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    sample: int | None = None,
    key: ArrayLike | None = None,
) -> jax.Array:
    """Relational knowledge distillation of distances: near nodes stay near and far ones far.

    With d_ij the Euclidean distance of rows i and j, m the mean of the positive ones on that side, and
    `huber(x)` = x² / 2 where |x| < 1 and |x| - 1/2 elsewhere::

        mean_ij  huber(d_ij^s / m^s - d_ij^t / m^t)

    The mean is over all n² ordered pairs, a row with itself included, which adds 0. Each side may be moved,
    rotated and scaled without effect.

    Distances are sums of squared differences, not taken from a Gram matrix.

    Cost: O(N² (D_s + D_t)) time, O(N (D_s + D_t)) memory and a block of differences.
    Use: where widths differ and the nodes' distances to each other are to be kept, up to a common factor.
    Pitfalls: quadratic, so more than 16,384 rows want `sample`. The authors' code takes squared distances from a Gram
      matrix, whose subtraction leaves no digit of small ones, and raises them to at least 1e-12, so that equal rows
      have distance 1e-6 and count among the positive ones. Here their distance and its gradient are 0.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      sample: number of rows, from 1 to N, to which the loss is confined, drawn from those that count without
        replacement (all of them where there are fewer); all rows where None.
      key: a JAX random key for the draw; with `sample` only.

    Returns:
      A non-negative scalar without unit, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. A side whose rows are all equal has distances 0.

    Raises:
      ValueError: arrays that are not [N, width] of one N, a mask that is not bool [N], more than 16384 rows
        without `sample` or in it, a `sample` that is no integer from 1 to N, `sample` without `key` or the reverse.

    References:
      Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019. arXiv:1904.05068
    """
    s, t, mask = sampled(*two_sides(student, teacher, where), sample, key, DISTANCE_ROWS)
    return _rkd_distance(s, t, mask, block_entries=BLOCK_ENTRIES)


def rkd_angle(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    sample: int | None = None,
    key: ArrayLike | None = None,
) -> jax.Array:
    """Relational knowledge distillation of angles: the shape of every triangle of nodes is kept.

    With `e_ij` = (x_j - x_i) / ||x_j - x_i||, 0 where the two are equal, and `huber` as in `rkd_distance`::

        mean_ijk  huber(e_ij^s · e_ik^s - e_ij^t · e_ik^t)

    The mean is over all n³ ordered triplets. Those in which i is one of j and k are among them, as in the authors'
    code, and add 0; those with j = k add 0 unless the rows i and j are equal on one side. Each side may be moved,
    rotated and scaled without effect.

    Cost: O(N³ (D_s + D_t)) time, O(N (N + D_s + D_t)) memory. An [N, N] matrix, of one i at a time, is held.
    Use: beside `rkd_distance` or in its place, where the directions between nodes matter more than how far apart they
      are; widths may differ.
    Pitfalls: cubic, so more than 256 rows want `sample`. The gradient is that of a loss that depends on directions: it
      grows as two rows approach each other, and is 0 where they meet.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      sample: number of rows, from 1 to N, to which the loss is confined, drawn from those that count without
        replacement (all of them where there are fewer); all rows where None.
      key: a JAX random key for the draw; with `sample` only.

    Returns:
      A scalar from 0 to 1.5 without unit, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left.

    Raises:
      ValueError: arrays that are not [N, width] of one N, a mask that is not bool [N], more than 256 rows without
        `sample` or in it, a `sample` that is no integer from 1 to N, `sample` without `key` or the reverse.

    References:
      Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019. arXiv:1904.05068
    """
    s, t, mask = sampled(*two_sides(student, teacher, where), sample, key, ANGLE_ROWS)
    return _rkd_angle(s, t, mask)


@partial(jax.jit, static_argnames="block_entries")  # one compilation, also where the caller runs op by op
def _rkd_distance(student: jax.Array, teacher: jax.Array, where: jax.Array | None, *, block_entries: int) -> jax.Array:
    s, t, counted = prepared(student, teacher, where)
    block_rows = max(1, block_entries // max(1, len(s) * max(s.shape[1], t.shape[1])))

    def inverse_mean(side: jax.Array) -> jax.Array:
        """1 / the mean positive distance; 1 where there is none."""

        def add(i: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
            distances = _distances(side[i], side) * inside[:, None] * counted
            return jnp.sum(distances), jnp.sum(distances > 0, dtype=side.dtype)

        total, positive = sum_over_rows(add, counted, block_rows)
        return positive / jnp.where(positive > 0, total, 1) + (positive == 0)

    scale_s, scale_t = inverse_mean(s), inverse_mean(t)

    def huber(i: jax.Array, inside: jax.Array) -> tuple[jax.Array]:
        losses = optax.losses.huber_loss(scale_s * _distances(s[i], s), scale_t * _distances(t[i], t))
        return (jnp.sum(losses * inside[:, None] * counted),)

    return sum_over_rows(huber, counted, block_rows)[0] / jnp.square(jnp.maximum(jnp.sum(counted), 1))


@jax.jit
def _rkd_angle(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    s, t, counted = prepared(student, teacher, where)

    def cosines(side: jax.Array, i: jax.Array) -> jax.Array:
        """Of all angles at row i, [n, n]; 0 with a row that does not count."""
        arms = unit_rows((side - side[i]) * counted[:, None])
        return jnp.matmul(arms, arms.T, precision=HIGHEST)

    def huber(i: jax.Array, inside: jax.Array) -> tuple[jax.Array]:
        return (jnp.sum(optax.losses.huber_loss(cosines(s, i[0]), cosines(t, i[0]))) * inside[0],)

    return sum_over_rows(huber, counted, block_rows=1)[0] / jnp.maximum(jnp.sum(counted), 1) ** 3


def _distances(some: jax.Array, rows: jax.Array) -> jax.Array:
    """Euclidean distances [b, n] of rows [b, d] and [n, d]; the gradient of a distance 0 is 0."""
    squared = jnp.sum(jnp.square(some[:, None] - rows), axis=-1)
    apart = ~(squared < jnp.finfo(rows.dtype).tiny)  # NaN is to be seen
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
