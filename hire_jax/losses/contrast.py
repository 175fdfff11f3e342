"""Contrastive losses: each student row is to find its own teacher row among all."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._blocks import BLOCK_ENTRIES
from hire_jax.losses._checks import check_temperature, two_sides
from hire_jax.losses._reduce import HIGHEST, in_working_dtype, mean_rows, unit_rows, working_dtype
from hire_jax.losses._sample import sampled


def contrastive(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    where: ArrayLike | None = None,
    sample: int | None = None,
    key: ArrayLike | None = None,
) -> jax.Array:
    """Graph contrastive representation distillation: each student row is to find its own teacher row.

    With unit rows s_v of the student and t_v of the teacher, over the rows that count (InfoNCE)::

        mean_v  log [ sum_u exp(s_v · t_u / τ) / exp(s_v · t_v / τ) ]

    Row v's positive is the teacher's row v and its negatives are all other teacher rows; student rows are not
    compared with each other, nor is the roles' exchange added.

    CRD itself compares with a buffer of past features in place of the batch and sums a noise-contrastive
    estimate of both directions.

    Cost: O(N² D) time, O(N D) memory and some blocks of 4 million cosines. That is 61 MB at 20,000 rows of width 64,
      gradient included. All N² cosines are taken, and taken again for the gradient; the matrix is kept in neither pass.
      `sample` bounds the time.
    Use: where it matters that each node can be told from all others, more than that features are equal; no labels are
      needed.
    Pitfalls: both sides need one width. The value is not 0 at student = teacher, and with fewer negatives it is
      smaller, by about the logarithm of the rows' ratio, so it depends on the batch and on `sample`. The public code of
      G-CRD has τ = 0.075 and draws 8192 rows where there are more; otherwise it is the same.

    Args:
      student: [N, D], any real dtype. Half precision is raised to float32. The caller projects a student of
        another width than the teacher's first.
      teacher: [N, D]. A constant: no gradient flows into it.
      temperature: τ > 0, without unit; a number or a scalar array.
      where: bool [N], the rows that count, as positives and as negatives; all where None. What other rows
        hold, NaN included, has no influence.
      sample: take this many rows, drawn without replacement from those inside `where` (all of them where there
        are fewer), in place of all. From 1 to N.
      key: a `jax.random` key for the draw; with `sample` only.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). About log of the number of rows at
      random features. 0 with a zero gradient where no row or only one is left. A row of zeros has cosine 0 with
      all others, and the student's has a zero gradient.

    Raises:
      ValueError: features that are not both of one shape [N, D], a mask that is not bool [N], a temperature
        that is not a positive scalar, a sample that is not an integer from 1 to N, a sample without a key or a
        key without a sample.

    References:
      Joshi et al.: On Representation Knowledge Distillation for Graph Neural Networks, 2022. arXiv:2111.04964
      Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020. arXiv:1910.10699
    """
    students, teachers, mask = two_sides(student, teacher, where, one_width=True)
    check_temperature(temperature)
    students, teachers, mask = sampled(students, teachers, mask, sample, key)
    scale = jnp.asarray(temperature, working_dtype(students, teachers))
    return _contrastive(students, teachers, mask, scale)


@jax.jit
def _contrastive(student: jax.Array, teacher: jax.Array, where: jax.Array | None, temperature: jax.Array) -> jax.Array:
    student, teacher = in_working_dtype(student, teacher, where)
    n = len(student)
    if n == 0:
        return jnp.zeros((), student.dtype)
    s, t = unit_rows(student), unit_rows(teacher)
    index = jnp.arange(n)

    @partial(jax.checkpoint, prevent_cse=False)
    def of_row(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        """log(1 + sum over negatives of exp(x)), x = (s_v · t_u - s_v · t_v) / τ: never negative, small where it
        should be."""
        v, s_v, t_v = row
        x = (jnp.matmul(t, s_v, precision=HIGHEST) - jnp.sum(s_v * t_v)) / temperature
        negative = index != v if where is None else (index != v) & where
        x = jnp.where(negative, x, -jnp.inf)
        top = lax.stop_gradient(jnp.maximum(jnp.max(x), 0))  # of no influence, but exp does not overflow
        return top + jnp.log1p(jnp.expm1(-top) + jnp.sum(jnp.exp(x - top)))

    # Blocks of equal length, or nearly so.
    blocks = -(-n * n // BLOCK_ENTRIES)
    return mean_rows(lax.map(of_row, (index, s, t), batch_size=-(-n // min(blocks, n))), where)
