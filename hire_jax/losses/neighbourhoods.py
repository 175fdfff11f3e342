"""Losses on each node's similarities to its neighbours."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import Masks, Rows, check_group_weights, check_typed_rows, two_sides
from hire_jax.losses._divergence import kl_by_receiver
from hire_jax.losses._edges import CheckedEdges, Edges, EdgeType, checked_edges, checked_ends, locate
from hire_jax.losses._reduce import mean_rows, not_folded, unit_rows, working_dtype, zero_rows

Kernel = Literal["cosine", "rbf", "poly", "linear"]


def local_structure(
    student: ArrayLike,
    teacher: ArrayLike,
    senders: ArrayLike,
    receivers: ArrayLike,
    *,
    kernel: Kernel = "cosine",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Local structure preserving: each node keeps the distribution of its similarities to its neighbours.

    For a receiver i and its incoming edges e from senders j(e)::

        p_e = softmax over the edges into i of k(h_i, h_j(e))
        mean_i  sum_e  p_e^t (log p_e^t - log p_e^s)

    with the mean over receivers that have an edge, and k(a, b) by `kernel`::

        "cosine"  cos(a, b), 0 with a row of zeros        "poly"    (a · b)²
        "rbf"     exp(-||a - b||² / 2)                    "linear"  a · b

    An edge given twice counts twice, and a self loop is an edge. A receiver with one edge adds 0.

    Cost: O((N + E) (D_s + D_t)) time and memory.
    Use: on graphs of one relation, where widths differ and each node is to keep which neighbours it is most like.
    Pitfalls: public codes differ in the reduction: a KL loss may sum over all edges, or take the mean over edges, which
      gives each receiver a weight that depends on the graph's mean degree. Here the mean is over receivers. Their
      kernels differ too: exp(-||a - b||_1 / 100) for "rbf" in the authors' code, the square of the cosine for "poly" in
      another. `"rbf"` of features far apart is 0 for all pairs, and without a gradient: normalise them first. `"poly"`
      and `"linear"` are unbounded: a similarity that overflows gives NaN.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      senders: int [E], each edge's source row, in any order.
      receivers: int [E], each edge's destination row.
      kernel: the similarity, as above.
      where: bool [N], the rows that count; all where None. An edge counts where both its ends do. What other rows
        hold, NaN included, has no influence.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is
      left. An index outside [0, N) raises where indices are known, and makes the loss NaN under `jax.jit`.

    Raises:
      ValueError: arrays that are not [N, width] of one N, an unknown kernel, edges that are not two int [E] within
        [0, N), a mask that is not bool [N].

    References:
      Yang, Qiu, Song, Tao, Wang: Distilling Knowledge From Graph Convolutional Networks, 2020. arXiv:2003.10477
    """
    _check_kernel(kernel)
    s, t, mask = two_sides(student, teacher, where)
    rows = {"": s}, {"": t}, {"": mask}
    edges = {("", "", ""): checked_ends("", senders, receivers, len(s), len(s))}
    return _local_structure(*rows, edges, jnp.ones(1), kernel=kernel)


def typed_local_structure(
    student: Mapping[str, ArrayLike],
    teacher: Mapping[str, ArrayLike],
    edges: Edges,
    *,
    kernel: Kernel = "cosine",
    where: Mapping[str, ArrayLike] | None = None,
    weights: Mapping[EdgeType, ArrayLike] | None = None,
) -> jax.Array:
    """`local_structure` of each relation of a heterogeneous graph, and the mean over relations.

    A node's incoming edges are compared within each relation on its own. With p_e = softmax over the edges e of
    relation r into node i of the kernel of e's ends, as in `local_structure`::

        mean_r  mean_i  sum_e  p_e^t (log p_e^t - log p_e^s)

    with the mean over nodes i that have an edge of r, then over relations of which an edge counts. Relations within
    one type take part.

    Cost: O((N + E) (D_s + D_t)) time and memory, N and E of all types and relations.
    Use: `local_structure` on heterogeneous graphs, where each relation is to have its say however many edges it has.
    Pitfalls: the paper treats graphs with one relation; a softmax over the edges of all relations into a node would be
      the other extension, and let the relation with most edges dominate. A relation and its reverse are two relations,
      and both count.

    Args:
      student: {node type: [N, D_s]}, any real dtype, one D_s for all types. Half precision is raised to float32.
      teacher: {node type: [N, D_t]}, the same types and N. A constant: no gradient flows into it.
      edges: {(source, relation, destination): (senders int [E], receivers int [E])}, at least one relation.
      kernel: the similarity, as in `local_structure`.
      where: {node type: bool [N]}, the rows that count; a type without an entry counts as a whole. An edge counts
        where both its ends do. What other rows hold, NaN included, has no influence.
      weights: {(source, relation, destination): non-negative scalar} for a weighted mean over relations; 1 where there
        is no entry; constants.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is
      left. An index outside its type raises where indices are known, and makes the loss NaN under `jax.jit`.

    Raises:
      ValueError: an unknown kernel; no relation; types, row counts, widths, masks, weights or edges that do not fit
        together.

    References:
      Yang, Qiu, Song, Tao, Wang: Distilling Knowledge From Graph Convolutional Networks, 2020. arXiv:2003.10477
    """
    _check_kernel(kernel)
    students, teachers, masks = check_typed_rows(student, teacher, where)
    teachers = {t: lax.stop_gradient(rows) for t, rows in teachers.items()}
    relations = checked_edges(edges, students)
    return _local_structure(students, teachers, masks, relations, check_group_weights(weights, list(relations)),
                            kernel=kernel)


def _check_kernel(kernel: str) -> None:
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel: expected one of {get_args(Kernel)}, got {kernel!r}")


@partial(jax.jit, static_argnames="kernel")
def _local_structure(
    student: Rows, teacher: Rows, where: Masks, edges: CheckedEdges, weights: jax.Array, *, kernel: Kernel
) -> jax.Array:
    """Weighted mean over relations of the mean over receivers."""
    dtype = working_dtype(*student.values(), *teacher.values())
    s = {a: zero_rows(rows, where[a]).astype(dtype) for a, rows in student.items()}
    t = {a: zero_rows(not_folded(rows), where[a]).astype(dtype) for a, rows in teacher.items()}
    if kernel == "cosine":
        s, t = ({a: unit_rows(rows) for a, rows in side.items()} for side in (s, t))
    means, present, counted_weights = [], [], []
    for ((source, _, destination), (senders, receivers)), weight in zip(edges.items(), weights, strict=True):
        if len(senders) == 0:
            continue
        counted_weights.append(weight)
        if not (len(s[source]) and len(s[destination])):  # then every index is outside
            means.append(jnp.full((), jnp.nan, dtype))
            present.append(jnp.asarray(True))
            continue
        from_, counts_from, outside_from = locate(senders, where[source], len(s[source]))
        to, counts_to, outside_to = locate(receivers, where[destination], len(s[destination]))
        counted = counts_from & counts_to
        of_student, of_teacher = (_similarity(x[destination][to], x[source][from_], kernel) for x in (s, t))
        linked, divergence = kl_by_receiver(of_student, of_teacher, to, counted, len(s[destination]))
        mean = mean_rows(divergence, linked)
        means.append(jnp.where(jnp.any(outside_from | outside_to), jnp.nan, mean))
        present.append(jnp.any(linked) | jnp.any(outside_from | outside_to))
    if not means:
        return jnp.zeros((), dtype)
    of_relations = jnp.stack(counted_weights)
    return mean_rows(jnp.stack(means), jnp.stack(present) & (of_relations != 0), of_relations)


def _similarity(a: jax.Array, b: jax.Array, kernel: Kernel) -> jax.Array:
    """k(a, b) of each pair of rows, [E]; for `"cosine"` the rows have been given length 1."""
    if kernel == "rbf":
        return jnp.exp(-0.5 * jnp.sum(jnp.square(a - b), axis=-1))
    product = jnp.sum(a * b, axis=-1)
    return jnp.square(product) if kernel == "poly" else product
