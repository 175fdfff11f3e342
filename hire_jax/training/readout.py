"""Columns of a matrix from which the classes of nodes can be read off without error, found exactly."""

import math
from typing import NamedTuple

import numpy as np

# A column is told from chance when so rare an event explains it otherwise.
CHANCE = 1e-6


class Entries(NamedTuple):
    """A sparse matrix by its entries, ordered by row. Entries of one place add up."""

    rows: np.ndarray  # int[E], ascending
    cols: np.ndarray  # int[E]
    values: np.ndarray  # float[E]
    width: int


Matrix = np.ndarray | Entries


class Classed(NamedTuple):
    """Nodes ordered by class. The classes that occur are counted from 0."""

    nodes: np.ndarray  # int[n], rows of a matrix
    groups: np.ndarray  # int[n], ascending: the class of each
    sizes: np.ndarray  # int[G], at least 1: the nodes of each class
    classes: np.ndarray  # int[G], ascending: the classes as they were given

    @classmethod
    def of(cls, nodes: np.ndarray, classes: np.ndarray) -> "Classed":
        """Orders distinct nodes (int[n]) by their classes (int[n], not negative)."""
        # Integers of 16 bits are sorted in linear time.
        order = np.argsort(classes.astype(np.min_scalar_type(classes.max(initial=0))), kind="stable")
        starts = np.diff(classes[order], prepend=-1) != 0
        groups = np.cumsum(starts) - 1
        return cls(nodes[order], groups, np.bincount(groups), classes[order][starts])


class Levels(NamedTuple):
    """Columns that follow the classes, with their level in each: the value itself, or 0 and 1 for zero and not."""

    columns: np.ndarray  # int[k], ascending
    levels: np.ndarray  # float[G, k]
    by_value: np.ndarray  # bool[k]

    def keep(self, which: np.ndarray) -> "Levels":
        """Some of the columns: bool[k]."""
        return Levels(self.columns[which], self.levels[:, which], self.by_value[which])


def telling_columns(matrix: Matrix, part: Classed, elsewhere: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The columns that are a function of the class: constant on the nodes of every class, and not on all nodes.

    Constant is the value, or else whether it is zero, so that a one-hot column is found as well when it is scaled,
    shifted, or divided by the sum of its row, and so is a column of class numbers. Two kinds of columns are left out:

      - those that few nodes could make so by chance: of the ways to deal the values to the nodes, at most `CHANCE` /
        width may follow the classes. One of a thousand columns needs 34 nodes in two even classes, or 7 in one class
        and 93 in the other;
      - those that follow the classes elsewhere too, but with exceptions, and so few of them that there may well be
        none on so many nodes: good words, not labels.

    Columns are dropped after a look at 8, then 128 nodes of each class; only what is left is looked up for all nodes.
    The time is linear in the matrix, and far less where no column tells anything.

    Args:
      matrix: float[N, F], or the entries of such a matrix.
      part: the nodes to look at.
      elsewhere: int[m], other nodes.
      labels: int[N], the class of every row; not negative for `elsewhere`.

    Returns:
      int[k], ascending; empty where the nodes have one class only.
    """
    width = matrix.width if isinstance(matrix, Entries) else matrix.shape[1]
    if part.sizes.size < 2 or not width:
        return np.zeros(0, int)
    rank = np.arange(part.nodes.size) - np.repeat(np.cumsum(part.sizes) - part.sizes, part.sizes)  # within its class
    columns = np.arange(width)
    for most in (8, 128, part.nodes.size):
        few = rank < most
        if isinstance(matrix, Entries):
            found = _sparse_levels(matrix, part.nodes[few], part.groups[few], columns)
        else:
            found = _dense_levels(matrix, part.nodes[few], part.groups[few], columns)
        columns = found.columns
        if not columns.size or few.all():
            break
    limit = math.log(CHANCE / width)
    found = found.keep(np.asarray([_log_chance(column, part.sizes) < limit for column in found.levels.T], bool))
    if not found.columns.size:
        return found.columns
    exceptions, sizes = _exceptions(matrix, found, part.classes, Classed.of(elsewhere, labels[elsewhere]))
    # Laplace's rule of succession: how likely a node of each class is to follow, by those of its class elsewhere.
    follows = np.where(sizes[:, None] > 0, (sizes[:, None] - exceptions + 1) / (sizes[:, None] + 2), 1)
    likely = part.sizes @ np.log(follows)
    return found.columns[(exceptions.sum(axis=0) == 0) | (likely < limit)]


def _exceptions(matrix: Matrix, found: Levels, classes: np.ndarray, other: Classed) -> tuple[np.ndarray, np.ndarray]:
    """How many of the other nodes do not have the level of their class, [G, k], and how many there are, [G]."""
    exceptions, sizes = np.zeros((classes.size, found.columns.size), int), np.zeros(classes.size, int)
    for name, nodes in zip(other.classes, np.split(other.nodes, np.cumsum(other.sizes)[:-1]), strict=False):
        group = int(np.searchsorted(classes, name))
        if group < classes.size and classes[group] == name:
            x = _block(matrix, nodes, found.columns)
            sizes[group] = nodes.size
            exceptions[group] = (np.where(found.by_value, x, x != 0) != found.levels[group]).sum(axis=0)
    return exceptions, sizes


def _dense_levels(matrix: np.ndarray, nodes: np.ndarray, groups: np.ndarray, columns: np.ndarray) -> Levels:
    """The columns, among those given, that follow the groups, which are ascending and without gaps."""
    x = matrix[nodes] if columns.size == matrix.shape[1] else matrix[np.ix_(nodes, columns)]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    every, some = np.logical_and.reduceat(x != 0, starts), np.logical_or.reduceat(x != 0, starts)
    by_value = (low == high).all(axis=0)
    levels = np.where(by_value, low, every)
    follow = (by_value | (every == some).all(axis=0)) & (levels != levels[0]).any(axis=0)
    return Levels(columns, levels, by_value).keep(follow)


def _sparse_levels(matrix: Entries, nodes: np.ndarray, groups: np.ndarray, columns: np.ndarray) -> Levels:
    """`_dense_levels` without what is zero: the time is that of sorting the nodes' entries in `columns`."""
    column, position, values = _entries(matrix, nodes, columns)
    sizes = np.bincount(groups)
    runs = column * sizes.size + groups[position]  # a run: one column in one group
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    if not starts.size:
        return Levels(np.zeros(0, int), np.zeros((sizes.size, 0)), np.zeros(0, bool))
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    group = runs[starts] % sizes.size
    found, column = np.unique(runs[starts] // sizes.size, return_inverse=True)
    first_run = np.searchsorted(column, np.arange(found.size))
    by_value = np.logical_and.reduceat(low == high, first_run)
    follow = np.logical_and.reduceat(np.diff(starts, append=runs.size) == sizes[group], first_run)
    kept = follow[column]
    levels = np.zeros((sizes.size, int(follow.sum())))
    levels[group[kept], (np.cumsum(follow) - 1)[column[kept]]] = np.where(by_value[column], low, 1)[kept]
    return Levels(found[follow], levels, by_value[follow]).keep((levels != levels[:1]).any(axis=0))


def _entries(matrix: Entries, nodes: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of some nodes in some columns that are not zero, one a place, ordered by column and then by node.

    Returns their columns, the positions of their nodes in `nodes`, and their values.
    """
    # In the rows' own type, or all of them would be converted.
    first, last = (np.searchsorted(matrix.rows, nodes.astype(matrix.rows.dtype), side) for side in ("left", "right"))
    counts = last - first
    entries = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    places = matrix.cols[entries].astype(np.int64) * nodes.size + np.repeat(np.arange(nodes.size), counts)
    if columns.size < matrix.width:
        kept = np.isin(matrix.cols[entries], columns)
        entries, places = entries[kept], places[kept]
    places, place = np.unique(places, return_inverse=True)
    values = np.bincount(place, weights=matrix.values[entries])
    places, values = places[values != 0], values[values != 0]
    return places // nodes.size, places % nodes.size, values


def _block(matrix: Matrix, nodes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float[n, k]: some rows and columns, dense."""
    if not isinstance(matrix, Entries):
        return matrix[np.ix_(nodes, columns)]
    column, position, values = _entries(matrix, nodes, columns)
    x = np.zeros((nodes.size, columns.size))
    x[position, np.searchsorted(columns, column)] = values
    return x


def _log_chance(levels: np.ndarray, sizes: np.ndarray) -> float:
    """The logarithm of the chance that a column's values, dealt to the nodes anew, follow the classes.

    Its levels join the classes into blocks. There are multinomial(nodes of each block) ways to deal the values; where
    classes are of one size, multinomial(classes of each block) of them follow the classes.
    """
    _, block = np.unique(levels, return_inverse=True)
    return _log_multinomial(np.bincount(block)) - _log_multinomial(np.bincount(block, weights=sizes))


def _log_multinomial(counts: np.ndarray) -> float:
    return math.lgamma(counts.sum() + 1) - sum(math.lgamma(count + 1) for count in counts)
