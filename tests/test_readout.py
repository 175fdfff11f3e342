"""`telling_columns` against its definition, on matrices small and large, dense and sparse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hire_jax.training import readout
from hire_jax.training.readout import Classed, Entries, telling_columns

NONE = np.zeros(0, int)


def test_chance_is_that_of_dealing_the_values():
    """3 zeros and 3 ones for two classes of 3: 2 of 20 ways follow the classes. A value for each node: all do."""
    assert np.exp(readout._log_chance(np.array([0.0, 1.0]), np.array([3, 3]))) == pytest.approx(2 / 20)
    assert np.exp(readout._log_chance(np.array([0.0, 1.0, 1.0]), np.array([2, 2, 2]))) == pytest.approx(3 / 15)
    assert np.exp(readout._log_chance(np.arange(9.0), np.ones(9, int))) == pytest.approx(1)


@pytest.mark.parametrize(("nodes", "found"), [(32, False), (34, True)])
def test_how_many_nodes_a_column_among_a_thousand_needs(nodes, found):
    x, labels = np.zeros((nodes, 1000)), np.arange(nodes) % 2
    x[::2, 7] = 1
    assert telling_columns(x, Classed.of(np.arange(nodes), labels), NONE, labels).tolist() == [7] * found


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("per_class", [10, 60, 600])
def test_every_node_is_looked_at(per_class, first):
    """Also where a look at some of each class finds no exception."""
    labels = np.repeat([0, 1, 2, 3, 4, 5], per_class)
    nodes = Classed.of(np.arange(labels.size), labels)
    for place in (-1, -per_class, per_class - 1):
        x = np.stack([labels, np.where(labels == 2, 1.0, 0.0)], axis=1)
        x[place, int(not first)] = 0.0 if x[place, int(not first)] else 0.5
        rows, cols = np.nonzero(x)
        for matrix in (x, Entries(rows, cols, x[rows, cols], 2)):
            assert telling_columns(matrix, nodes, NONE, labels).tolist() == [int(first)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([3, 20, 300]))
def test_telling_columns_are_those_of_the_definition(seed, classes, count):
    """Dense and sparse alike, whatever the order of nodes, with columns that are spoiled by one node."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    x = rng.integers(-1, 2, (count, 12)).astype(float) * (rng.random((count, 12)) < 0.5)
    x[:, 2:10] = rng.integers(-1, 3, (classes, 8))[labels]
    x[:, 6:10] *= rng.integers(1, 3, (count, 4))  # only whether they are zero follows the class
    spoiled = rng.random(12) < 0.3
    x[rng.integers(count), spoiled] += 1
    nodes = rng.permutation(count)[:rng.integers(1, count + 1)]

    expected = []
    for column in range(12):
        for values in (x[:, column], x[:, column] != 0):
            of_class = [np.unique(values[nodes][labels[nodes] == c]) for c in np.unique(labels[nodes])]
            if all(one.size == 1 for one in of_class) and np.unique(np.concatenate(of_class)).size > 1:
                expected.append(column)
    rows, cols = np.nonzero(x)
    entries = Entries(rows.astype(np.int32), cols.astype(np.int32), x[rows, cols], 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readout, "CHANCE", 1e9)  # every column counts
        for matrix in (x, x.astype(np.float32), entries):
            found = telling_columns(matrix, Classed.of(nodes, labels[nodes]), NONE, labels)
            assert found.tolist() == sorted(set(expected))


@pytest.mark.parametrize(("wrong", "found"), [(0.0, True), (0.02, False), (0.1, False), (0.3, True), (1.0, True)])
@pytest.mark.parametrize("kind", ["value", "zero"])
def test_a_good_word_is_no_label(kind, wrong, found):
    """Right for 60 nodes and wrong for 2 or 10 % of 600 others: one of many words may be so. For 30 %, none is.

    The last column is the class itself.
    """
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 220)
    x = np.zeros((660, 3))
    x[:, 2] = labels
    x[:, 1] = (labels == 1) * (rng.random(660) + 1 if kind == "zero" else 1)
    part, others = np.arange(60), np.arange(60, 660)
    flip = others[:round(600 * wrong)]
    x[flip, 1] = np.where(labels[flip] == 1, 0, 1)
    rows, cols = np.nonzero(x)
    for matrix in (x, Entries(rows, cols, x[rows, cols], 3)):
        assert telling_columns(matrix, Classed.of(part, labels[part]), others, labels).tolist() == [1, 2][not found:]


def test_classes_that_are_not_elsewhere_say_nothing_of_it():
    """Of the classes 0, 1 and 3 only 1 is elsewhere, with exceptions; 2 is there alone."""
    labels = np.concatenate([np.tile([0, 1, 3], 20), np.tile([1, 2], 50)])
    x = (labels == 1).astype(float)[:, None]
    part, others = np.arange(60), np.arange(60, 160)
    nodes = Classed.of(part, labels[part])
    x[others[1::2]] = 1  # whatever a class has that the part does not know
    assert telling_columns(x, nodes, others, labels).tolist() == [0]
    x[others[:4:2]] = 0
    assert telling_columns(x, nodes, others, labels).tolist() == []
    x[others[::2]] = 0
    assert telling_columns(x, nodes, others, labels).tolist() == [0]
