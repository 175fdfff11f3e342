"""Relations between node types class by class, and shares in classes for nodes of types that have no labels."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import Masks, Rows, check_group_weights, check_typed_rows, non_negative
from hire_jax.losses._edges import CheckedEdges, Edges, checked_edges, locate
from hire_jax.losses._reduce import HIGHEST, mean_rows, not_folded, unit_rows, working_dtype, zero_rows


def class_prototype_correlation(
    student: Mapping[str, ArrayLike],
    teacher: Mapping[str, ArrayLike],
    classes: Mapping[str, ArrayLike],
    *,
    where: Mapping[str, ArrayLike] | None = None,
    weights: Mapping[str, ArrayLike] | None = None,
) -> jax.Array:
    """The student keeps the teacher's correlations between the classes of one node type and those of another.

    A node v of type a belongs to class k by the share y_a[v, k]. With H^_a[v] the row of v divided by its norm, the
    prototype of class k in type a, and the correlations of two types' prototypes, are::

        P_a[k] = unit(sum_v y_a[v, k] H^_a[v]),    C_ab[k, l] = P_a[k] · P_b[l]

    and the loss::

        mean_ab  mean_kl  (C_ab[k, l]^t - C_ab[k, l]^s)²

    with the means over unordered pairs of types a != b, and over the classes k that a node of a has a share in and l
    that one of b has.

    This is ours: `type_pair_correlation` with `"prototype"`, the paper's idea by our reading, has one prototype a type,
    which keeps nothing of how the classes lie.

    Cost: O(N K (D_s + D_t)) time, O(N (D_s + D_t + K)) memory, with K classes.
    Use: on heterogeneous graphs, where the classes of one type are to stand to those of another as they do for the
      teacher; `neighbour_shares` gives shares to types without labels. The student may be narrower than the teacher.
    Pitfalls: soft shares that hardly differ from node to node, as after many hops or of an unsure teacher, give classes
      with near prototypes, and then the term says little more than one prototype a type. A class of few nodes counts
      as much as one of many.

    Args:
      student: {node type: [N, D_s]}, any real dtype, one D_s for all types. Half precision is raised to float32, and
        products are taken at the highest precision.
      teacher: {node type: [N, D_t]}, the same types and N. A constant: no gradient flows into it.
      classes: {node type: non-negative [N, K]}, each node's shares in K classes, constants, for instance the teacher's
        probabilities or a one-hot label. A type without an entry is left out. Rows need not sum to 1: a row of zeros
        belongs to no class.
      where: {node type: bool [N]}, the rows that count; a type without an entry counts as a whole. What other rows
        hold, NaN included, has no influence.
      weights: {node type: non-negative scalar} for a weighted mean over pairs, a pair weighing w_a w_b. 1 where there
        is no entry; constants.

    Returns:
      A scalar from 0 to 4 without unit, float32 (float64 where an input is). A pair of types without such classes is
      left out of the mean; where none is left, the loss is 0 with a zero gradient. A prototype of length 0 has cosine
      0 with all others. The float32 error of a cosine is about 1e-7, and equal sides give about 1e-14.

    Raises:
      ValueError: fewer than two node types with shares; negative shares; types, row counts, widths, masks, shares or
        weights that do not fit together.

    References:
      HIRE: Distilling High-order Relational Knowledge From Heterogeneous Graph Neural Networks. Neurocomputing 507,
        2022, whose second-order term this takes class by class. arXiv:2207.11887
    """
    students, teachers, masks = check_typed_rows(student, teacher, where)
    shares = _checked_shares("classes", classes, {t: len(rows) for t, rows in students.items()})
    if len(shares) < 2:
        raise ValueError(f"classes: expected shares of at least two node types among {list(students)}, "
                         f"got {list(shares)}")
    students, teachers = ({t: side[t] for t in shares} for side in (students, teachers))
    teachers = {t: lax.stop_gradient(rows) for t, rows in teachers.items()}
    return _between_classes(students, teachers, shares, {t: masks[t] for t in shares},
                            check_group_weights(weights, list(shares)))


@jax.jit  # one compilation, also where the caller runs op by op
def _between_classes(student: Rows, teacher: Rows, shares: Rows, where: Masks, weights: jax.Array) -> jax.Array:
    dtype = working_dtype(*student.values(), *teacher.values(), *shares.values())
    teacher, shares = ({t: not_folded(rows) for t, rows in constants.items()} for constants in (teacher, shares))
    columns, known = {}, []
    for t, rows in shares.items():
        rows = zero_rows(rows, where[t]).astype(dtype)
        peak = jnp.max(rows, axis=0, initial=0)
        known.append(~(peak < jnp.finfo(dtype).tiny))  # NaN is to be seen
        # A class in which all shares are tiny has a prototype as well: shares are taken relative to the largest.
        columns[t] = rows / jnp.where(known[-1], peak, 1)
    first, second = np.triu_indices(len(student), k=1)

    def cosines(side: Rows) -> jax.Array:
        """Of each pair of types, [pairs, K²]."""
        sums = [jnp.matmul(columns[t].T, unit_rows(zero_rows(rows, where[t]).astype(dtype)), precision=HIGHEST)
                for t, rows in side.items()]
        prototypes = jnp.stack([unit_rows(of_type) for of_type in sums])
        of_pairs = jnp.einsum("pkd,pld->pkl", prototypes[first], prototypes[second], precision=HIGHEST)
        return of_pairs.reshape(len(first), -1)

    classes = jnp.stack(known)
    both = (classes[first][:, :, None] & classes[second][:, None, :]).reshape(len(first), -1)
    of_pairs = jax.vmap(mean_rows)(jnp.square(cosines(teacher) - cosines(student)), both)
    importance = weights[first] * weights[second]
    return mean_rows(of_pairs, jnp.any(both, axis=1) & (importance != 0), importance)


def neighbour_shares(
    shares: Mapping[str, ArrayLike], edges: Edges, num_nodes: Mapping[str, int]
) -> dict[str, jax.Array]:
    """Shares in classes of every type that edges reach, as means over neighbours: for `classes=` of a loss.

    The types of `shares` are reached at hop 0. A type that relations from types of hop h reach, and none of before,
    is of hop h + 1; there, over the edges (u, v) of all relations from types of hop h::

        y[v] = mean_uv y[u];     0  where v has no such edge

    A relation leads from its source to its destination, so that a graph without reverse relations is gone through one
    way only. An edge given twice counts twice.

    Cost: O((N + E) K) time and O((N + E) K) memory for the relations in use, with K classes.
    Use: where one type has labels or a teacher's probabilities, and `class_prototype_correlation` is to compare the
      classes of others with its.
    Pitfalls: means over many neighbours, and over neighbours of neighbours, come near one another; the shares of a type
      some hops away hardly differ from node to node.

    Args:
      shares: {node type: non-negative [N, K]}, one K, constants; commonly of the target alone.
      edges: {(source, relation, destination): (senders int [E], receivers int [E])}, at least one relation.
      num_nodes: {node type: N}, of all types of `shares` and `edges`.

    Returns:
      {node type: [N, K]} of the types that are reached, those given included, float32 (float64 where an input is).
      Constants: no gradient flows into them. A type that is never reached is absent. The order of edges and relations
      makes no difference but in rounding. An edge index outside its type raises where indices are known, and makes all
      shares of the destination type NaN under `jax.jit`.

    Raises:
      ValueError: shares that are not non-negative [N, K] of one K, edges or numbers of nodes that do not fit together.

    References:
      Yang, Yan, Pan, Ye, Fan: Simple and Efficient Heterogeneous Graph Neural Network, 2022, carries labels so, along
        metapaths. arXiv:2207.02547
    """
    if not isinstance(num_nodes, Mapping):
        raise ValueError(f"num_nodes: expected a dictionary by node type, got {type(num_nodes).__name__}")
    counts = dict(sorted(num_nodes.items()))
    for t, number in counts.items():
        if not isinstance(number, (int, np.integer)) or number < 0:
            raise ValueError(f"num_nodes[{t!r}]: expected an integer of at least 0, got {number!r}")
    given = _checked_shares("shares", shares, counts)
    relations = checked_edges(edges, {t: jnp.zeros((number, 0)) for t, number in counts.items()})
    dtype = working_dtype(*given.values())
    reached = {t: rows.astype(dtype) for t, rows in given.items()}
    frontier = set(reached)
    while frontier:
        ahead = {name: ends for name, ends in relations.items() if name[0] in frontier and name[2] not in reached}
        new = {t: _mean_of_neighbours(reached, {name: ends for name, ends in ahead.items() if name[2] == t}, counts[t])
               for t in sorted({name[2] for name in ahead})}
        reached |= new
        frontier = set(new)
    return reached


def _mean_of_neighbours(shares: Rows, into: CheckedEdges, rows: int) -> jax.Array:
    """[rows, K]: the mean over the edges of all relations `into` one type."""
    like = next(iter(shares.values()))
    sums, degrees = jnp.zeros((rows, like.shape[1]), like.dtype), jnp.zeros(rows, like.dtype)
    missing = jnp.asarray(False)
    for (source, _, _), (senders, receivers) in into.items():
        if len(senders) == 0:
            continue
        if not (rows and len(shares[source])):  # then every index is outside
            missing = jnp.asarray(True)
            continue
        from_, _, outside_from = locate(senders, None, len(shares[source]))
        to, _, outside_to = locate(receivers, None, rows)
        sums += jax.ops.segment_sum(shares[source][from_], to, rows)
        degrees += jax.ops.segment_sum(jnp.ones_like(to, degrees.dtype), to, rows)
        missing |= jnp.any(outside_from | outside_to)
    return jnp.where(missing, jnp.nan, sums / jnp.maximum(degrees, 1)[:, None])


def _checked_shares(name: str, shares: Mapping[str, ArrayLike], rows: Mapping[str, int]) -> Rows:
    """{type: [N, K]}, checked, in sorted order."""
    if not isinstance(shares, Mapping):
        raise ValueError(f"{name}: expected a dictionary by node type, got {type(shares).__name__}")
    unknown = sorted(set(shares) - set(rows))
    if unknown or not shares:
        raise ValueError(f"{name}: expected node types among {list(rows)}, got {unknown or 'none'}")
    checked = {t: non_negative(f"{name}[{t!r}]", shares[t]) for t in sorted(shares)}
    for t, of_type in checked.items():
        if of_type.ndim != 2 or len(of_type) != rows[t] or of_type.shape[1] == 0:
            raise ValueError(f"{name}[{t!r}]: expected shape ({rows[t]}, K), got {of_type.shape}")
    if len({of_type.shape[1] for of_type in checked.values()}) > 1:
        raise ValueError(f"{name}: expected one number of classes for all node types, got "
                         f"{ {t: of_type.shape for t, of_type in checked.items()} }")
    return checked
