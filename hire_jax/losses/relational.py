"""Losses on relations between the embeddings of different node types."""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._all_pairs import all_pairs
from hire_jax.losses._checks import Masks, Rows, check_group_weights, check_typed_rows
from hire_jax.losses._edges import CheckedEdges, Edges, EdgeType, checked_edges
from hire_jax.losses._reduce import mean_rows, not_folded, unit_rows, working_dtype, zero_rows
from hire_jax.losses._row_weights import RowWeights, centred_rows, check_row_weights, total_weight, weighted_rows

Variant = Literal["all_pairs", "prototype", "edges"]


def type_pair_correlation(
    student: Mapping[str, ArrayLike],
    teacher: Mapping[str, ArrayLike],
    *,
    variant: Variant = "all_pairs",
    edges: Edges | None = None,
    where: Mapping[str, ArrayLike] | None = None,
    weights: Mapping[str, ArrayLike] | Mapping[EdgeType, ArrayLike] | None = None,
    centred: bool = False,
    row_weights: Mapping[str, ArrayLike] | None = None,
) -> jax.Array:
    """HIRE's second-order term: the student keeps the teacher's correlations between node types.

    Cosines are compared, not embeddings. Let H^_a be the rows of an embedding H_a [N_a, D] divided by their norms,
    C_ab = H^_a H^_b' [N_a, N_b], p_a the mean of H^_a's rows, and (u, v) the edges of a relation r from type a to
    type b; t and s stand for teacher and student. By `variant`::

        "all_pairs"  mean_ab  ||C_ab^t - C_ab^s||_F² / (N_a N_b)
        "prototype"  mean_ab  (cos(p_a^t, p_b^t) - cos(p_a^s, p_b^s))²
        "edges"      mean_r  mean_uv  (C_ab[u, v]^t - C_ab[u, v]^s)²

    - `"all_pairs"`: every node of a with every node of b, the mean over unordered pairs of types a != b. Exact, but
      C_ab is never formed.
    - `"prototype"`: one vector a type, the mean over the same pairs.
    - `"edges"`: linked nodes only. Relations within one type are left out, because the term is about different types.

    Rows may weigh w_v, for instance 1 / degree so that hubs do not count more than others. Every sum above over nodes
    or edges is then a weighted one::

        "all_pairs"  mean_ab  sum_uv w_u w_v (C_ab[u, v]^t - C_ab[u, v]^s)² / (sum_u w_u  sum_v w_v)
        "prototype"  p_a = sum_v w_v H^_a[v] / sum_v w_v
        "edges"      mean_r  sum_uv w_u w_v (C_ab[u, v]^t - C_ab[u, v]^s)² / sum_uv w_u w_v

    With `centred`, cosines become correlations about each type's mean::

        H_a[v] - sum_u w_u H_a[u] / sum_u w_u    in the place of    H_a[v]

    This is our reading, after the abstract's description: the paper's formulas were not at hand, and no
    public code of it exists.

    Cost: `"all_pairs"` O(N (D_s + D_t)²) time and no memory of an embedding's size but for the gradient, `"prototype"`
      O(N (D_s + D_t)) and `"edges"` O((N + E) (D_s + D_t)) time and memory, N and E of all types and relations.
      `centred` adds memory of both embeddings' size.
    Use: on heterogeneous graphs, for what the teacher knows of one type's nodes in terms of another's; the student may
      be narrower than the teacher. `centred` where all rows of a type point much the same way, so that cosines hardly
      differ; `row_weights` where a few hubs decide.
    Pitfalls: in `"edges"` a relation and its reverse are two relations, each with its own term: give one of them to
      count every link once. Centred rows depend on the lengths of rows, which the cosines themselves do not, and a type
      of one node has none. Public codes of related losses, such as similarity preserving, form the matrix of one type
      within a batch and normalise its rows instead of the embeddings'.

    Args:
      student: {node type: [N, D_s]}, any real dtype, one D_s for all types. Half precision is raised to
        float32, and products are taken at the highest precision, because small differences are compared.
      teacher: {node type: [N, D_t]}, the same types and N. A constant: no gradient flows into it.
      variant: which nodes are compared, as above.
      edges: {(source, relation, destination): (senders int [E], receivers int [E])}; for `"edges"` only.
      where: {node type: bool [N]}, the rows that count; a type without an entry counts as a whole. An edge
        counts where both its ends do. What other rows hold, NaN included, has no influence.
      weights: non-negative scalars for a weighted mean: {node type: w}, a pair of types weighing w_a w_b, or
        {(source, relation, destination): w} for `"edges"`. 1 where there is no entry; constants.
      centred: whether to take the mean of a type's rows that count from each of them, before they get length 1. Not
        with `"prototype"`.
      row_weights: {node type: non-negative [N]}, constants; 0 leaves a row out, and a type without an entry weighs 1
        everywhere. Only proportions within a type matter. One of a row that counts and that is not finite raises where
        it is known, and makes the loss NaN under `jax.jit`.

    Returns:
      A scalar from 0 to 4 without unit, float32 (float64 where an input is). A pair or relation of which
      nothing counts is left out of the mean; where none is left, the loss is 0 with a zero gradient. A row of
      zeros, or with `centred` one at its type's mean, has cosine 0 with all others, and its direction no gradient. An
      edge index outside its type raises where indices are known, and makes the loss NaN under `jax.jit`.

      `"all_pairs"` is never negative. Its float32 error was measured below 1e-6 in absolute terms. Where the
      sides differ row by row it is also below 1e-6 / r times the value, r the root mean square difference of
      unit rows; equal inputs give about 1e-15. Agreement up to a common rotation is seen only to the absolute
      error. A row's gradient was off by less than 1e-6 / (N · the row's norm), with `row_weights` by its share of the
      weights in the place of 1 / N. With `centred` this holds of the centred rows, of which rounding leaves fewer
      digits the shorter they are beside their mean.

    Raises:
      ValueError: an unknown variant; `edges` missing, or given to another variant; `centred` with `"prototype"`; fewer
        than two node types, or no relation between different ones; negative row weights; types, row counts, widths,
        masks, weights or edges that do not fit together.

    References:
      HIRE: Distilling High-order Relational Knowledge From Heterogeneous Graph Neural Networks.
        Neurocomputing 507, 2022. arXiv:2207.11887
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant: expected one of {get_args(Variant)}, got {variant!r}")
    if (edges is not None) != (variant == "edges"):
        given = "None" if edges is None else "edges"
        raise ValueError(f"edges: expected with variant='edges' only, got {given} with variant={variant!r}")
    if centred and variant == "prototype":
        raise ValueError("centred: expected False with variant='prototype', which compares the means of rows that "
                         "centring takes away, got True")
    students, teachers, masks = check_typed_rows(student, teacher, where)
    if len(students) < 2:
        raise ValueError(f"student: expected at least two node types to correlate, got {list(students)}")
    teachers = {t: lax.stop_gradient(rows) for t, rows in teachers.items()}
    masks, of_rows = check_row_weights(row_weights, masks, students)
    if centred:
        students, teachers = _centred(students, teachers, masks, of_rows)

    if edges is not None:
        relations = _between_types(edges, students)
        return _edges(students, teachers, masks, relations, check_group_weights(weights, list(relations)), of_rows)
    of_types = check_group_weights(weights, list(students))
    if variant == "prototype":
        return _prototype(students, teachers, masks, of_types, of_rows)
    return all_pairs(students, teachers, masks, of_types, of_rows)


@jax.jit
def _centred(student: Rows, teacher: Rows, where: Masks, row_weights: RowWeights) -> tuple[Rows, Rows]:
    dtype = working_dtype(*student.values(), *teacher.values())
    teacher = {t: not_folded(rows) for t, rows in teacher.items()}
    student, teacher = ({t: centred_rows(rows.astype(dtype), where[t], row_weights[t]) for t, rows in side.items()}
                        for side in (student, teacher))
    return student, teacher


@jax.jit  # one compilation, also where the caller runs op by op
def _prototype(
    student: Rows, teacher: Rows, where: Masks, weights: jax.Array, row_weights: RowWeights
) -> jax.Array:
    dtype = working_dtype(*student.values(), *teacher.values())
    counts = jnp.stack([total_weight(len(rows), where[t], row_weights[t], dtype) for t, rows in student.items()])
    teacher = {t: not_folded(rows) for t, rows in teacher.items()}
    first, second = np.triu_indices(len(student), k=1)

    def cosines(side: Rows) -> jax.Array:
        """One a pair of types, [pairs]. The sum of unit rows points where their mean does."""
        sums = [jnp.sum(weighted_rows(_units(rows, where[t], dtype), row_weights[t]), axis=0)
                for t, rows in side.items()]
        prototypes = unit_rows(jnp.stack(sums))
        return jnp.sum(prototypes[first] * prototypes[second], axis=-1)

    of_pairs = weights[first] * weights[second]
    present = (counts[first] != 0) & (counts[second] != 0) & (of_pairs != 0)  # NaN is to be seen
    return mean_rows(jnp.square(cosines(teacher) - cosines(student)), present, of_pairs)


@jax.jit
def _edges(
    student: Rows, teacher: Rows, where: Masks, edges: CheckedEdges, weights: jax.Array, row_weights: RowWeights
) -> jax.Array:
    dtype = working_dtype(*student.values(), *teacher.values())
    teacher = {t: not_folded(rows) for t, rows in teacher.items()}
    s, t = ({a: _units(rows, where[a], dtype) for a, rows in side.items()} for side in (student, teacher))
    means, present = [], []
    for (source, _, destination), (senders, receivers) in edges.items():
        counted = _take_mask(where[source], senders) & _take_mask(where[destination], receivers)
        of_student = jnp.sum(_take(s[source], senders) * _take(s[destination], receivers), axis=-1)
        of_teacher = jnp.sum(_take(t[source], senders) * _take(t[destination], receivers), axis=-1)
        of_edges = _edge_weights(row_weights[source], senders, row_weights[destination], receivers, counted)
        means.append(mean_rows(jnp.square(of_teacher - of_student), counted, of_edges))
        present.append(jnp.any(counted))
    return mean_rows(jnp.stack(means), jnp.stack(present) & (weights != 0), weights)


def _units(rows: jax.Array, where: jax.Array | None, dtype: np.dtype) -> jax.Array:
    return unit_rows(zero_rows(rows, where).astype(dtype))


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """rows[index], NaN for an index outside: the default, clamping, would compare a wrong node in silence."""
    return rows.at[index].get(mode="fill", fill_value=jnp.nan)


def _take_mask(where: jax.Array | None, index: jax.Array) -> jax.Array:
    """Whether each edge's end counts; an index outside does, so that its NaN is seen."""
    if where is None:
        return jnp.ones(index.shape, bool)
    return where.at[index].get(mode="fill", fill_value=True)


def _edge_weights(
    of_sources: jax.Array | None,
    senders: jax.Array,
    of_destinations: jax.Array | None,
    receivers: jax.Array,
    counted: jax.Array,
) -> jax.Array | None:
    """The product of both ends' weights, None where neither has any. An index outside weighs 1, as it counts.

    Each end's are taken relative to the largest of the edges that count: a product of small ones would vanish.
    """
    def relative(w: jax.Array) -> jax.Array:
        peak = jnp.max(jnp.where(counted, w, 0), initial=0)
        return w / jnp.where(peak == 0, 1, peak)

    ends = [relative(w.at[index].get(mode="fill", fill_value=1))
            for w, index in ((of_sources, senders), (of_destinations, receivers)) if w is not None]
    return math.prod(ends[1:], start=ends[0]) if ends else None


def _between_types(edges: Edges, rows: Rows) -> CheckedEdges:
    """Checked edges of the relations between different types."""
    between = {name: ends for name, ends in checked_edges(edges, rows).items() if name[0] != name[2]}
    if not between:
        raise ValueError(f"edges: expected a relation between different node types, got {sorted(edges)}")
    return between
