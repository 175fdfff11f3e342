"""Losses on relations among the embeddings of one node type, and on the edges between nodes.

Distances, angles, similarities and attention are compared, never coordinates: widths may differ. Losses over
all pairs go through the rows in blocks and recompute a block for the gradient, so that no [n, n] matrix is held.
"""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._all_pairs import all_pairs
from hire_jax.losses._checks import Masks, Rows, check_typed_rows, check_where, real_array
from hire_jax.losses._reduce import mean_rows, not_folded, row_count, unit_rows, working_dtype, zero_rows
from hire_jax.losses.logits import _weighted_remainder
from hire_jax.losses.relational import CheckedEdges, Edges, _checked_index

Kernel = Literal["cosine", "rbf", "poly", "linear"]

HIGHEST = lax.Precision.HIGHEST

# Rows beyond which a loss wants `sample=`: quadratic with a factor d a pair, cubic, quadratic by matrix products.
DISTANCE_ROWS = 16_384
ANGLE_ROWS = 256
SIMILARITY_ROWS = 100_000

BLOCK_ENTRIES = 2**23  # numbers in a block of an [n, n] or [n, n, d] array; 32 MiB in float32


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

    Distances are sums of squared differences, not taken from a Gram matrix, whose subtraction leaves no digit of
    small ones. O(n² (d_s + d_t)) time; a block of differences is held, never an [n, n] matrix.

    The authors' code takes squared distances from a Gram matrix and raises them to at least 1e-12, so that equal
    rows have distance 1e-6 and count among the positive ones. Here their distance and its gradient are 0.

    Args:
      student: [N, d_s], any real dtype. Half precision is raised to float32.
      teacher: [N, d_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      sample: number of rows, drawn from those that count without replacement, to which the loss is confined; all
        where None. With no more rows than that, all are taken.
      key: a JAX random key for the draw; with `sample` only.

    Returns:
      A non-negative scalar without unit, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. A side whose rows are all equal has distances 0.

    Raises:
      ValueError: arrays that are not [N, width] of one N, a mask that is not bool [N], more than 16384 rows
        without `sample` or in it, a `sample` that is no positive integer, `sample` without `key` or the reverse.

    References:
      Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019. arXiv:1904.05068
    """
    s, t, mask = _sampled(*_two_sides(student, teacher, where), sample, key, DISTANCE_ROWS)
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

    O(n³ (d_s + d_t)) time: hence at most 256 rows. An [n, n] matrix, of one i at a time, is held.

    Args:
      student: [N, d_s], any real dtype. Half precision is raised to float32.
      teacher: [N, d_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      sample: number of rows, drawn from those that count without replacement, to which the loss is confined; all
        where None. With no more rows than that, all are taken.
      key: a JAX random key for the draw; with `sample` only.

    Returns:
      A scalar from 0 to 1.5 without unit, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. The gradient is that of a loss that depends on directions: it grows as two rows approach each other,
      and is 0 where they meet.

    Raises:
      ValueError: arrays that are not [N, width] of one N, a mask that is not bool [N], more than 256 rows without
        `sample` or in it, a `sample` that is no positive integer, `sample` without `key` or the reverse.

    References:
      Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019. arXiv:1904.05068
    """
    s, t, mask = _sampled(*_two_sides(student, teacher, where), sample, key, ANGLE_ROWS)
    return _rkd_angle(s, t, mask)


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
    not moved. Longer rows weigh more in every profile; `global_structure` compares cosines instead.

    O(n² (d_s + d_t)) time, and O(n) memory beyond one block of rows of G: the [n, n] matrices, whose
    row norms are needed, are never held as wholes.

    Args:
      student: [N, d_s], any real dtype. Half precision is raised to float32, and products are taken at the highest
        precision.
      teacher: [N, d_t]. A constant: no gradient flows into it.
      order: 1 or 2, the norm by which rows of G are divided.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.
      sample: number of rows, drawn from those that count without replacement, to which the loss is confined; all
        where None. With no more rows than that, all are taken.
      key: a JAX random key for the draw; with `sample` only.

    Returns:
      A scalar without unit, at most 4 / n, float32 (float64 where an input is). 0 with a zero gradient where no row
      is left. A row of zeros has similarity 0 to all nodes and a zero profile.

    Raises:
      ValueError: arrays that are not [N, width] of one N, an `order` other than 1 and 2, a mask that is not bool
        [N], more than 100,000 rows without `sample` or in it, a `sample` that is no positive integer, `sample`
        without `key` or the reverse.

    References:
      Tung, Mori: Similarity-Preserving Knowledge Distillation, 2019. arXiv:1907.09682
    """
    if order not in (1, 2):
        raise ValueError(f"order: expected 1 or 2, got {order!r}")
    s, t, mask = _sampled(*_two_sides(student, teacher, where), sample, key, SIMILARITY_ROWS)
    return _similarity_preserving(s, t, mask, order=int(order), block_entries=BLOCK_ENTRIES)


def global_structure(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """Global structure preserving: all cosines between nodes are kept.

    With H^ the rows of an embedding H [n, d] divided by their norms::

        ||H^_t H^_t' - H^_s H^_s'||_F² / n²

    The sum is over all n² ordered pairs; a row with itself adds 0. Each side may be rotated and each row scaled
    without effect.

    Exact, but neither matrix is formed, so there is no limit on n and no `sample`: it is `type_pair_correlation`
    of the type with a copy of itself, O(n (d_t + d_s)²) time and no memory of an embedding's size but for the
    gradient. Codes that form the [n, n] matrices must sample nodes on large graphs.

    Args:
      student: [N, d_s], any real dtype. Half precision is raised to float32, and products are taken at the highest
        precision, because small differences are compared.
      teacher: [N, d_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no influence.

    Returns:
      A scalar from 0 to 4 without unit, float32 (float64 where an input is). 0 with a zero gradient where no row is
      left. A row of zeros has cosine 0 with all rows, itself included, and a zero gradient.

    Raises:
      ValueError: arrays that are not [N, width] of one N, a mask that is not bool [N].

    References:
      Joshi, Liu, Xun, Lin, Foo: On Representation Knowledge Distillation for Graph Neural Networks, 2021, one of
      its baselines. arXiv:2111.04964
    """
    s, t, mask = _two_sides(student, teacher, where)
    if len(s) == 0:
        return jnp.zeros((), working_dtype(s, t))
    return all_pairs({"a": s, "b": s}, {"a": t, "b": t}, {"a": mask, "b": mask})


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

    with the mean over receivers that have an edge, and `kernel`

    - `"cosine"`: cos(a, b), 0 with a row of zeros;
    - `"rbf"`: exp(-||a - b||² / 2);
    - `"poly"`: (a · b)²;
    - `"linear"`: a · b.

    An edge given twice counts twice, and a self loop is an edge. A receiver with one edge adds 0.
    O(E (d_s + d_t)) time and memory.

    Public codes differ in the reduction: a KL loss may sum over all edges, or take the mean over edges, which gives
    each receiver a weight that depends on the graph's mean degree. Here the mean is over receivers.

    Args:
      student: [N, d_s], any real dtype. Half precision is raised to float32.
      teacher: [N, d_t]. A constant: no gradient flows into it.
      senders: int [E], each edge's source row, in any order.
      receivers: int [E], each edge's destination row.
      kernel: the similarity, as above.
      where: bool [N], the rows that count; all where None. An edge counts where both its ends do. What other rows
        hold, NaN included, has no influence.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is
      left. An index outside [0, N) raises where indices are known, and makes the loss NaN under `jax.jit`. `"poly"`
      and `"linear"` are unbounded: a similarity that overflows gives NaN.

    Raises:
      ValueError: arrays that are not [N, width] of one N, an unknown kernel, edges that are not two int [E] within
        [0, N), a mask that is not bool [N].

    References:
      Yang, Qiu, Song, Tao, Wang: Distilling Knowledge From Graph Convolutional Networks, 2020. arXiv:2003.10477
    """
    _check_kernel(kernel)
    s, t, mask = _two_sides(student, teacher, where)
    rows = {"": s}, {"": t}, {"": mask}
    edges = {("", "", ""): _checked_ends("", senders, receivers, len(s), len(s))}
    return _local_structure(*rows, edges, kernel=kernel)


def typed_local_structure(
    student: Mapping[str, ArrayLike],
    teacher: Mapping[str, ArrayLike],
    edges: Edges,
    *,
    kernel: Kernel = "cosine",
    where: Mapping[str, ArrayLike] | None = None,
) -> jax.Array:
    """`local_structure` of each relation of a heterogeneous graph, and the mean over relations.

    A node's incoming edges are compared within each relation on its own: for relation r with edges from type a to
    type b, the mean over nodes of b that have an edge of r of the divergence that `local_structure` gives; then the
    mean over relations of which an edge counts. Relations within one type take part.

    The paper treats graphs with one relation; a softmax over the edges of all relations into a node would be the
    other extension, and let the relation with most edges dominate. O(edges · (d_s + d_t)) time and memory.

    Args:
      student: {node type: [N, d_s]}, any real dtype, one d_s for all types. Half precision is raised to float32.
      teacher: {node type: [N, d_t]}, the same types and N. A constant: no gradient flows into it.
      edges: {(source, relation, destination): (senders int [E], receivers int [E])}, at least one relation.
      kernel: the similarity, as in `local_structure`.
      where: {node type: bool [N]}, the rows that count; a type without an entry counts as a whole. An edge counts
        where both its ends do. What other rows hold, NaN included, has no influence.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is
      left. An index outside its type raises where indices are known, and makes the loss NaN under `jax.jit`.

    Raises:
      ValueError: an unknown kernel; no relation; types, row counts, widths, masks or edges that do not fit together.

    References:
      Yang, Qiu, Song, Tao, Wang: Distilling Knowledge From Graph Convolutional Networks, 2020. arXiv:2003.10477
    """
    _check_kernel(kernel)
    students, teachers, masks = check_typed_rows(student, teacher, where)
    teachers = {t: lax.stop_gradient(rows) for t, rows in teachers.items()}
    return _local_structure(students, teachers, masks, _checked_edges(edges, students), kernel=kernel)


def attention_map_kl(
    student_attention: ArrayLike,
    teacher_attention: ArrayLike,
    receivers: ArrayLike,
    num_receivers: int,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The student's attention over each node's incoming edges follows the teacher's.

    With a_e the attention weight of edge e, which sums to 1 over the edges into a node, per head h::

        mean_i  mean_h  sum_{e into i}  a_eh^t (log a_eh^t - log a_eh^s)

    with the mean over receivers i that have an edge. Where the two have different numbers of heads, each side's
    weights are first averaged over its heads. This is our reading of GKEDM's attention distillation. O(E H) time
    and memory.

    Args:
      student_attention: [E, H_s] weights of at least 0, any real dtype. Half precision is raised to float32. Before
        the logarithm they are raised to the smallest normal number, below which there is no gradient.
      teacher_attention: [E, H_t]. A constant: no gradient flows into it. A weight of 0 adds 0, whatever the
        student's.
      receivers: int [E], each edge's destination, in any order.
      num_receivers: number of destinations, a Python integer.
      where: bool [num_receivers], the destinations that count; all where None. What edges into others hold, NaN
        included, has no influence.

    Returns:
      A scalar in nats, float32 (float64 where an input is). 0 with a zero gradient where no edge is left, and
      exactly 0 for equal weights. Not negative but for rounding, given weights that sum to 1; that they do is not
      looked at. An index outside [0, num_receivers) raises where indices are known, and makes the loss NaN under
      `jax.jit`.

    Raises:
      ValueError: weights that are not [E, H] of one E, receivers that are not int [E] within [0, num_receivers), a
        number of receivers that is no integer of at least 0, a mask that is not bool [num_receivers].

    References:
      Wu: Attention is all you need for boosting graph convolutional neural network, 2024, which names it GKEDM.
      arXiv:2403.15419
    """
    student = real_array("student_attention", student_attention)
    teacher = lax.stop_gradient(real_array("teacher_attention", teacher_attention))
    _check_rows("[E, H]", student_attention=student, teacher_attention=teacher)
    try:
        size = operator.index(num_receivers)
    except TypeError:
        size = -1
    if size < 0:
        raise ValueError(f"num_receivers: expected an integer of at least 0, got {num_receivers!r}")
    index = _checked_index("receivers", receivers, size)
    if len(index) != len(student):
        raise ValueError(
            f"receivers, student_attention: expected one receiver an edge, got {index.shape} and {student.shape}"
        )
    return _attention_map_kl(student, teacher, index, check_where(where, size), size=size)


# ------------------------------------------------------------------------------------------------- checks


def _check_rows(axes: str, **sides: jax.Array) -> None:
    """Two arrays of as many rows, with `axes` such as "[N, width]"."""
    (first, a), (second, b) = sides.items()
    listed = f"{first} {a.shape} and {second} {b.shape}"
    for name, array in sides.items():
        if array.ndim != 2 or array.shape[1] == 0:
            raise ValueError(f"{name}: expected shape {axes}, got {listed}")
    if len(a) != len(b):
        raise ValueError(f"{first}, {second}: expected the same number of rows, got {listed}")


def _two_sides(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Student, teacher (a constant) and mask, checked."""
    s = real_array("student", student)
    t = lax.stop_gradient(real_array("teacher", teacher))
    _check_rows("[N, width]", student=s, teacher=t)
    return s, t, check_where(where, len(s))


def _sampled(
    student: jax.Array,
    teacher: jax.Array,
    where: jax.Array | None,
    sample: int | None,
    key: ArrayLike | None,
    limit: int,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """`sample` of the rows inside `where`, the same of all three; more than `limit` rows are refused.

    Where fewer rows are inside, the rest are rows outside, which the mask that is returned leaves out.
    """
    rows, size = len(student), len(student)
    if sample is not None:
        positive = isinstance(sample, int | np.integer) and not isinstance(sample, bool) and sample > 0
        if not positive:
            raise ValueError(f"sample: expected a positive integer, got {sample!r}")
        size = min(rows, int(sample))
    if (key is None) != (sample is None):
        raise ValueError(f"key: expected a random key with sample= only, got key={key!r} with sample={sample!r}")
    if size > limit:
        raise ValueError(
            f"sample: expected sample= of at most {limit} rows with key=, got sample={sample!r} for "
            f"student {student.shape} and teacher {teacher.shape}"
        )
    if size == rows:
        return student, teacher, where
    order = jax.random.permutation(jnp.asarray(key), rows)
    if where is not None:
        order = order[jnp.argsort(~where[order], stable=True)]
    chosen = order[:size]
    return student[chosen], teacher[chosen], None if where is None else where[chosen]


def _check_kernel(kernel: str) -> None:
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel: expected one of {get_args(Kernel)}, got {kernel!r}")


def _checked_ends(
    prefix: str, senders: ArrayLike, receivers: ArrayLike, sources: int, destinations: int
) -> tuple[jax.Array, jax.Array]:
    """Both ends of edges as int [E], within their numbers of rows where that is known."""
    ends = (
        _checked_index(f"{prefix}senders", senders, sources),
        _checked_index(f"{prefix}receivers", receivers, destinations),
    )
    if ends[0].shape != ends[1].shape:
        shapes = f"{ends[0].shape} and {ends[1].shape}"
        raise ValueError(f"{prefix}senders, receivers: expected one length, got {shapes}")
    return ends


def _checked_edges(edges: Edges, rows: Rows) -> CheckedEdges:
    """Edges of all relations, checked, in sorted order."""
    if not isinstance(edges, Mapping):
        raise ValueError(f"edges: expected a dictionary by edge type, got {type(edges).__name__}")
    if not edges:
        raise ValueError("edges: expected at least one relation, got none")
    for edge_type in edges:
        name = f"edges[{edge_type!r}]"
        typed = isinstance(edge_type, tuple) and len(edge_type) == 3 and {edge_type[0], edge_type[2]} <= set(rows)
        if not typed:
            raise ValueError(f"{name}: expected (source, relation, destination), types among {list(rows)}")
        if len(edges[edge_type]) != 2:
            raise ValueError(f"{name}: expected (senders, receivers), got {len(edges[edge_type])} arrays")
    return {
        (a, r, b): _checked_ends(f"edges[{(a, r, b)!r}] ", *edges[a, r, b], len(rows[a]), len(rows[b]))
        for a, r, b in sorted(edges)
    }


# -------------------------------------------------------------------------------------------------- all pairs


@partial(jax.jit, static_argnames="block_entries")  # one compilation, also where the caller runs op by op
def _rkd_distance(student: jax.Array, teacher: jax.Array, where: jax.Array | None, *, block_entries: int) -> jax.Array:
    s, t, counted = _prepared(student, teacher, where)
    block_rows = max(1, block_entries // max(1, len(s) * max(s.shape[1], t.shape[1])))

    def inverse_mean(side: jax.Array) -> jax.Array:
        """1 / the mean positive distance; 1 where there is none."""

        def add(i: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
            distances = _distances(side[i], side) * inside[:, None] * counted
            return jnp.sum(distances), jnp.sum(distances > 0, dtype=side.dtype)

        total, positive = _sum_over_rows(add, counted, block_rows)
        return positive / jnp.where(positive > 0, total, 1) + (positive == 0)

    scale_s, scale_t = inverse_mean(s), inverse_mean(t)

    def huber(i: jax.Array, inside: jax.Array) -> tuple[jax.Array]:
        losses = optax.losses.huber_loss(scale_s * _distances(s[i], s), scale_t * _distances(t[i], t))
        return (jnp.sum(losses * inside[:, None] * counted),)

    return _sum_over_rows(huber, counted, block_rows)[0] / jnp.square(jnp.maximum(jnp.sum(counted), 1))


@jax.jit
def _rkd_angle(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    s, t, counted = _prepared(student, teacher, where)

    def cosines(side: jax.Array, i: jax.Array) -> jax.Array:
        """Of all angles at row i, [n, n]; 0 with a row that does not count."""
        arms = unit_rows((side - side[i]) * counted[:, None])
        return jnp.matmul(arms, arms.T, precision=HIGHEST)

    def huber(i: jax.Array, inside: jax.Array) -> tuple[jax.Array]:
        return (jnp.sum(optax.losses.huber_loss(cosines(s, i[0]), cosines(t, i[0]))) * inside[0],)

    return _sum_over_rows(huber, counted, block_rows=1)[0] / jnp.maximum(jnp.sum(counted), 1) ** 3


@partial(jax.jit, static_argnames=("order", "block_entries"))
def _similarity_preserving(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, *, order: int, block_entries: int
) -> jax.Array:
    s, t, counted = _prepared(student, teacher, where)

    def profiles(side: jax.Array, i: jax.Array) -> jax.Array:
        gram = jnp.matmul(side[i], side.T, precision=HIGHEST)
        if order == 2:
            return unit_rows(gram)
        norms = jnp.sum(jnp.abs(gram), axis=-1, keepdims=True)
        return gram / jnp.where(norms < jnp.finfo(gram.dtype).tiny, 1, norms)

    def squares(i: jax.Array, inside: jax.Array) -> tuple[jax.Array]:
        return (jnp.sum(jnp.square(profiles(t, i) - profiles(s, i)) * inside[:, None]),)

    block_rows = max(1, block_entries // max(1, len(s)))
    return _sum_over_rows(squares, counted, block_rows)[0] / jnp.square(jnp.maximum(jnp.sum(counted), 1))


def _prepared(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both sides in working precision with masked rows zero, each brought to largest entry about 1, and the mask
    as 0 and 1 in that dtype.

    For losses to which a side's scale is nothing, so that squares neither overflow nor vanish. The factor is a
    power of two, and exact: XLA may fuse a multiplication into the subtraction of two rows, and the difference of
    equal rows would be the product's rounding instead of 0.
    """
    dtype = working_dtype(student, teacher)
    limits = jnp.finfo(dtype)

    def scaled(rows: jax.Array) -> jax.Array:
        rows = zero_rows(rows, where).astype(dtype)
        peak = lax.stop_gradient(jnp.max(jnp.abs(rows), initial=0))
        exponent = jnp.clip(jnp.frexp(peak)[1], 3 - limits.maxexp, limits.maxexp - 3)
        return rows * jnp.ldexp(jnp.ones((), dtype), -exponent)

    counted = jnp.ones(len(student), dtype) if where is None else where.astype(dtype)
    return scaled(student), scaled(not_folded(teacher)), counted


def _distances(some: jax.Array, rows: jax.Array) -> jax.Array:
    """Euclidean distances [b, n] of rows [b, d] and [n, d]; the gradient of a distance 0 is 0."""
    squared = jnp.sum(jnp.square(some[:, None] - rows), axis=-1)
    apart = ~(squared < jnp.finfo(rows.dtype).tiny)  # NaN is to be seen
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


def _sum_over_rows(
    step: Callable[[jax.Array, jax.Array], tuple[jax.Array, ...]], counted: jax.Array, block_rows: int
) -> tuple[jax.Array, ...]:
    """Sums over blocks of `step(i, inside)`, each block recomputed for the gradient.

    i int [block] are row indices and `inside` is `counted` [n] at them, 0 for what fills up the last block.
    """
    rows = len(counted)
    if rows == 0:
        return (jnp.zeros((), counted.dtype),) * 2
    blocks = -(-rows // block_rows)
    size = -(-rows // blocks)
    i = jnp.arange(blocks * size)
    inside = jnp.where(i < rows, counted[jnp.minimum(i, rows - 1)], 0)
    index = jnp.minimum(i, rows - 1).reshape(blocks, size), inside.reshape(blocks, size)
    # One block's intermediate results only: no common subexpression crosses the loop's border.
    parts = lax.map(lambda block: jax.checkpoint(step, prevent_cse=False)(*block), index)
    return tuple(jnp.sum(part) for part in parts)


# ------------------------------------------------------------------------------------------------------ edges


@partial(jax.jit, static_argnames="kernel")
def _local_structure(student: Rows, teacher: Rows, where: Masks, edges: CheckedEdges, *, kernel: Kernel) -> jax.Array:
    """Mean over relations of the mean over receivers."""
    dtype = working_dtype(*student.values(), *teacher.values())
    s = {a: zero_rows(rows, where[a]).astype(dtype) for a, rows in student.items()}
    t = {a: zero_rows(not_folded(rows), where[a]).astype(dtype) for a, rows in teacher.items()}
    if kernel == "cosine":
        s, t = ({a: unit_rows(rows) for a, rows in side.items()} for side in (s, t))
    means, present = [], []
    for (source, _, destination), (senders, receivers) in edges.items():
        if len(senders) == 0:
            continue
        if not (len(s[source]) and len(s[destination])):  # then every index is outside
            means.append(jnp.full((), jnp.nan, dtype))
            present.append(jnp.asarray(True))
            continue
        from_, counts_from, outside_from = _ends(senders, where[source], len(s[source]))
        to, counts_to, outside_to = _ends(receivers, where[destination], len(s[destination]))
        counted = counts_from & counts_to
        of_student, of_teacher = (_similarity(x[destination][to], x[source][from_], kernel) for x in (s, t))
        linked, divergence = _kl_by_receiver(of_student, of_teacher, to, counted, len(s[destination]))
        mean = mean_rows(divergence, linked)
        means.append(jnp.where(jnp.any(outside_from | outside_to), jnp.nan, mean))
        present.append(jnp.any(linked) | jnp.any(outside_from | outside_to))
    if not means:
        return jnp.zeros((), dtype)
    return mean_rows(jnp.stack(means), jnp.stack(present))


@partial(jax.jit, static_argnames="size")
def _attention_map_kl(
    student: jax.Array, teacher: jax.Array, receivers: jax.Array, where: jax.Array | None, *, size: int
) -> jax.Array:
    dtype = working_dtype(student, teacher)
    if not (len(receivers) and size):  # an edge into none of 0 receivers is outside
        return jnp.full((), jnp.nan if len(receivers) else 0, dtype)
    to, counted, outside = _ends(receivers, where, size)
    q, p = (zero_rows(side, counted).astype(dtype) for side in (student, not_folded(teacher)))
    if q.shape != p.shape:
        q, p = (jnp.mean(side, axis=-1, keepdims=True) for side in (q, p))
    tiny = jnp.finfo(dtype).tiny
    support = ~(p < tiny)  # NaN is to be seen
    log_q = jnp.log(jnp.maximum(jnp.where(support, q, 1), tiny))
    by_edge = jnp.mean(jnp.where(support, p * (jnp.log(jnp.where(support, p, 1)) - log_q), 0), axis=-1)
    linked = jax.ops.segment_max(counted.astype(jnp.int32), to, size) > 0
    mean = jnp.sum(by_edge) / jnp.maximum(row_count(size, linked, dtype), 1)
    return jnp.where(jnp.any(outside), jnp.nan, mean)


def _ends(index: jax.Array, where: jax.Array | None, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Indices brought into [0, rows), whether each counts, and whether it was outside."""
    outside = (index < 0) | (index >= rows)
    index = jnp.clip(index, 0, rows - 1)
    return index, ~outside if where is None else where[index] & ~outside, outside


def _similarity(a: jax.Array, b: jax.Array, kernel: Kernel) -> jax.Array:
    """k(a, b) of each pair of rows, [E]; for `"cosine"` the rows have been given length 1."""
    if kernel == "rbf":
        return jnp.exp(-0.5 * jnp.sum(jnp.square(a - b), axis=-1))
    product = jnp.sum(a * b, axis=-1)
    return jnp.square(product) if kernel == "poly" else product


def _kl_by_receiver(
    student: jax.Array, teacher: jax.Array, receivers: jax.Array, counted: jax.Array, rows: int
) -> tuple[jax.Array, jax.Array]:
    """Whether each receiver has an edge that counts, [rows], and KL(softmax(teacher) || softmax(student)) over
    those edges, 0 without any.

    `_kl_last_axis` of logits.py, over segments: accurate however close the two are.
    """
    to = jnp.where(counted, receivers, rows)  # edges that do not count share a receiver of their own

    def total(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, to, rows + 1)

    def log_softmax(scores: jax.Array) -> jax.Array:
        top = lax.stop_gradient(jax.ops.segment_max(scores, to, rows + 1))
        scores = scores - top[to]
        return scores - jnp.log(total(jnp.exp(scores))[to])

    student, teacher = jnp.where(counted, student, 0), jnp.where(counted, teacher, 0)
    log_p, log_q = log_softmax(teacher), log_softmax(student)
    p = jnp.exp(log_p)
    limits = jnp.finfo(p.dtype)
    support = ~(p < limits.tiny)

    shift = jnp.where(support, student - teacher, 0)
    shift = shift - total(p * shift)[to]
    missed = total(jnp.where(support, 0, jnp.exp(log_q)))
    largest = jax.ops.segment_max(jnp.where(support, shift, 0), to, rows + 1)
    close = (largest <= 0.9 * jnp.log(limits.max)) & (missed <= 0.5)
    near = jnp.log1p(total(_weighted_remainder(p, jnp.where(support & close[to], shift, 0))))
    near = near - jnp.log1p(-jnp.where(close, missed, 0))
    far = total(p * jnp.where(support & ~close[to], log_p - log_q, 0))
    linked = jax.ops.segment_max(counted.astype(jnp.int32), to, rows + 1) > 0
    return linked[:rows], jnp.where(close, near, far)[:rows]
