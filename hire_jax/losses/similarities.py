"""Losses on the similarities of all nodes to each other."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.losses._all_pairs import all_pairs
from hire_jax.losses._blocks import BLOCK_ENTRIES, prepared, sum_over_rows
from hire_jax.losses._checks import two_sides
from hire_jax.losses._reduce import HIGHEST, unit_rows, working_dtype
from hire_jax.losses._sample import sampled

SIMILARITY_ROWS = 100_000  # beyond which `sample=` is wanted: quadratic, by matrix products


def similarity_preserving(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    order: int = 2,
    where: ArrayLike | None = None,
    sample: int | None = None,
    key: ArrayLike | None = None,
) -> jax.Array:
    """Similarity-preserving distillation: each node keeps its profile of similarities to all nodes.

    G = H H' of the embeddings H [n, d], and G~ is G with each row divided by its L1 or L2 norm::

        ||G~^t - G~^s||_F² / n²

    The paper has `order=2` and rows that are a batch's images. Each side may be rotated and scaled without effect,
    not moved.

    Cost: O(N² (D_s + D_t)) time, O(N (D_s + D_t)) memory and one block of rows of G. The [N, N] matrices, whose row
      norms are needed, are never held as wholes.
    Use: where widths differ and each node's similarities to all others are to be kept, the lengths of rows included.
    Pitfalls: quadratic, so more than 100,000 rows want `sample`. Longer rows weigh more in every profile;
      `global_structure` compares cosines instead, in linear time. The loss is at most 4 / n and shrinks as rows are
      added: the weight is to grow with N.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32, and products are taken at the highest
        precision.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      order: 1 or 2, the norm by which rows of G are divided.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      sample: number of rows, from 1 to N, to which the loss is confined, drawn from those that count without
        replacement (all of them where there are fewer); all rows where None.
      key: a JAX random key for the draw; with `sample` only.

    Returns:
      A non-negative scalar without unit, float32 (float64 where an input is). 0 with a zero gradient where no row is
      left. A row of zeros has similarity 0 to all nodes and a zero profile.

    Raises:
      ValueError: arrays that are not [N, width] of one N, an `order` other than 1 and 2, a mask that is not bool
        [N], more than 100,000 rows without `sample` or in it, a `sample` that is no integer from 1 to N, `sample`
        without `key` or the reverse.

    References:
      Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019. arXiv:1907.09682
    """
    if order not in (1, 2):
        raise ValueError(f"order: expected 1 or 2, got {order!r}")
    s, t, mask = sampled(*two_sides(student, teacher, where), sample, key, SIMILARITY_ROWS)
    return _similarity_preserving(s, t, mask, order=int(order), block_entries=BLOCK_ENTRIES)


def global_structure(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """Global structure preserving: all cosines between nodes are kept.

    With H^ the rows of an embedding H [n, d] divided by their norms::

        ||H^_t H^_t' - H^_s H^_s'||_F² / n²

    The sum is over all n² ordered pairs; a row with itself adds 0. Each side may be rotated and each row scaled
    without effect.

    Exact, but neither matrix is formed: it is `type_pair_correlation` of a type with itself.

    Cost: O(N (D_s + D_t)²) time, O((D_s + D_t)²) memory beyond a block of rows, and the gradient's O(N D_s).
    Use: where widths differ and all cosines between nodes are to be kept, also on large graphs: there is no limit on N.
    Pitfalls: codes that form the [N, N] matrices must sample nodes on large graphs, so their values are a sample's. The
      lengths of rows are not compared.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32, and products are taken at the highest
        precision, because small differences are compared.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.

    Returns:
      A scalar from 0 to 4 without unit, float32 (float64 where an input is). 0 with a zero gradient where no row is
      left. A row of zeros has cosine 0 with all rows, itself included, and a zero gradient.

    Raises:
      ValueError: arrays that are not [N, width] of one N, a mask that is not bool [N].

    References:
      Joshi et al.: On Representation Knowledge Distillation for Graph Neural Networks, 2022, one of
        its baselines. arXiv:2111.04964
    """
    s, t, mask = two_sides(student, teacher, where)
    if len(s) == 0:
        return jnp.zeros((), working_dtype(s, t))
    return all_pairs({"nodes": s}, {"nodes": t}, {"nodes": mask}, jnp.ones(1), {"nodes": None})


@partial(jax.jit, static_argnames=("order", "block_entries"))
def _similarity_preserving(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, *, order: int, block_entries: int
) -> jax.Array:
    s, t, counted = prepared(student, teacher, where)

    def profiles(side: jax.Array, i: jax.Array) -> jax.Array:
        gram = jnp.matmul(side[i], side.T, precision=HIGHEST)
        if order == 2:
            return unit_rows(gram)
        norms = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
        return gram / jnp.where(norms < jnp.finfo(gram.dtype).tiny, 1, norms)

    def squares(i: jax.Array, inside: jax.Array) -> tuple[jax.Array]:
        return (jnp.sum(jnp.square(profiles(t, i) - profiles(s, i)) * inside[:, None]),)

    block_rows = max(1, block_entries // max(1, len(s)))
    return sum_over_rows(squares, counted, block_rows)[0] / jnp.square(jnp.maximum(jnp.sum(counted), 1))
