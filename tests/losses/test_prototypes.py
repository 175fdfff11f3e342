"""class_prototype_correlation and neighbour_shares against plain loops."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.losses import class_prototype_correlation, neighbour_shares, type_pair_correlation
from tests.losses.slopes import assert_slopes

NODES = {"a": 6, "b": 4, "c": 5}
WHERE = {"a": np.array([True, True, True, False, True, True]), "c": np.array([True, False, True, True, True])}


def rows(seed: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t: 0.5 + rng.standard_normal((n, width)) for t, n in NODES.items()}


def classes(seed: int, types=("a", "b", "c")) -> dict[str, np.ndarray]:
    """Shares in 4 classes; nobody in `b` is of class 2."""
    rng = np.random.default_rng(seed)
    found = {t: rng.dirichlet(np.ones(4), NODES[t]) for t in types}
    if "b" in found:
        found["b"][:, 2] = 0
    return found


def loss(student, teacher, shares, where, weights):
    return class_prototype_correlation(student, teacher, shares, where=where, weights=weights)


COMPILED = jax.jit(jax.value_and_grad(loss))
PLAIN: dict[str, float] = {"a": 1.0, "b": 1.0}


def evaluate(student, teacher, shares, where: Any = WHERE, weights: Any = PLAIN):
    """In float64 where an input is: one compilation serves most tests."""
    with jax.enable_x64(True):
        value, gradient = COMPILED(student, teacher, shares, where, weights)
    return np.asarray(value), {t: np.asarray(slope) for t, slope in gradient.items()}


def single(*trees):
    return jax.tree.map(lambda x: x.astype("f4"), trees)


def unit(x: np.ndarray) -> np.ndarray:
    length = np.sqrt(x @ x)
    return x / length if length else x


def by_loop(student, teacher, shares, where, weights) -> float:
    """One class at a time."""
    prototypes: list[dict] = [{}, {}]
    for found, side in zip(prototypes, (student, teacher), strict=True):
        for t, y in shares.items():
            counted = [v for v in range(len(y)) if where.get(t, np.ones(len(y), bool))[v]]
            for k in range(y.shape[1]):
                if sum(y[v, k] for v in counted) > 0:
                    found[t, k] = unit(np.sum([y[v, k] * unit(side[t][v]) for v in counted], axis=0))
    total, importance = 0.0, 0.0
    for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
        changes = [(prototypes[1][a, k] @ prototypes[1][b, m] - prototypes[0][a, k] @ prototypes[0][b, m]) ** 2
                   for k in range(4) for m in range(4) if (a, k) in prototypes[0] and (b, m) in prototypes[0]]
        if changes:
            w = weights.get(a, 1) * weights.get(b, 1)
            total, importance = total + w * np.mean(changes), importance + w
    return total / importance


@pytest.mark.parametrize("weights", [{"a": 2.0, "b": 0.5}, {"a": 0.0, "b": 1.0}])
def test_values_and_gradients_equal_a_plain_loop(weights):
    student, teacher, shares = rows(1, 3), rows(2, 4), classes(3)
    loop = partial(by_loop, shares=shares, where=WHERE, weights=weights)
    value, gradient = evaluate(student, teacher, shares, weights=weights)
    assert value > 1e-3
    np.testing.assert_allclose(value, loop(student, teacher), rtol=1e-11)
    assert_slopes(partial(loop, teacher=teacher), student, gradient, (("a", 2), ("b", 3), ("c", 0)))


def test_one_class_is_one_prototype_a_type():
    student, teacher = single(rows(4, 3), rows(5, 4))
    ones = {t: np.ones((n, 1)) for t, n in NODES.items()}
    value, expected = jax.jit(lambda s, t: (class_prototype_correlation(s, t, ones),
                                            type_pair_correlation(s, t, variant="prototype")))(student, teacher)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert expected > 1e-3


def test_masked_rows_have_no_influence():
    student, teacher, shares = rows(6, 3), rows(7, 4), classes(8)
    value, gradient = evaluate(student, teacher, shares)
    for t, row in (("a", 3), ("c", 1)):
        student[t][row], teacher[t][row], shares[t][row] = np.nan, np.inf, np.nan
        assert (gradient[t][row] == 0).all()
    poisoned, slopes = evaluate(student, teacher, shares)
    assert poisoned == value and value > 1e-3
    jax.tree.map(np.testing.assert_array_equal, slopes, gradient)
    value, gradient = evaluate(student, teacher, shares, where={t: np.zeros(len(x), bool) for t, x in WHERE.items()})
    assert value == 0 and all((slope == 0).all() for slope in gradient.values())
    for t, place in (("b", shares), ("a", student)):  # of a row that counts it is seen, in shares as in rows
        kept, place[t][0] = place[t][0].copy(), np.nan
        assert np.isnan(evaluate(student, teacher, shares)[0])
        place[t][0] = kept


def test_order_rotation_lengths_and_the_unit_of_shares_do_not_matter():
    student, teacher, shares, rng = rows(9, 3), rows(10, 4), classes(11), np.random.default_rng(12)
    order = {t: rng.permutation(n) for t, n in NODES.items()}
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    value, _ = evaluate(student, teacher, shares)
    moved = {t: (np.exp(rng.standard_normal((len(x), 1))) * x @ rotation)[order[t]] for t, x in student.items()}
    scaled = {t: (y * np.array([1, 1e-30, 1e200, 1e-200]))[order[t]] for t, y in shares.items()}
    other, _ = evaluate(moved, {t: x[order[t]] for t, x in teacher.items()}, scaled,
                        {t: x[order[t]] for t, x in WHERE.items()})
    np.testing.assert_allclose(other, value, rtol=1e-10)


def test_float32_jit_equals_eager_and_vmap_equals_a_loop():
    teacher, *seeds = (jax.tree.map(jnp.asarray, *single(rows(seed, 4))) for seed in (13, 14, 13))
    (shares,) = single(classes(16))
    call = jax.value_and_grad(loss)
    several = jax.jit(jax.vmap(call, in_axes=(0, None, None, None, None)))(
        jax.tree.map(lambda *x: jnp.stack(x), *seeds), teacher, shares, WHERE, PLAIN)
    first, same = (jax.tree.map(lambda x, i=i: x[i], several) for i in range(2))
    close = partial(jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6))
    close(first, call(seeds[0], teacher, shares, WHERE, PLAIN))
    close(first, evaluate(*jax.tree.map(lambda x: np.asarray(x, "f8"), (seeds[0], teacher, shares))))
    assert first[0].dtype == jnp.float32 and first[0] > 1e-3
    assert same[0] < 1e-13 and all(np.abs(slope).max() < 1e-6 for slope in same[1].values())


def test_types_without_classes_are_left_out_and_the_rest_is_constant():
    student, teacher, shares = single(rows(17, 3), rows(18, 4), classes(19, ("a", "c")))
    without = ({t: x for t, x in side.items() if t != "b"} for side in (student, teacher))
    call = jax.jit(jax.value_and_grad(class_prototype_correlation, argnums=(0, 1, 2)))
    value, (slopes, *constants) = call(student, teacher, shares)
    np.testing.assert_allclose(value, jax.jit(class_prototype_correlation)(*without, shares), rtol=1e-5)
    assert (slopes["b"] == 0).all() and np.abs(slopes["a"]).max() > 0
    assert all((slope == 0).all() for slope in jax.tree.leaves(constants))


@pytest.mark.parametrize(("change", "message"), [
    ({"classes": [1]}, "classes: expected a dictionary by node type, got list"),
    ({"classes": {}}, r"classes: expected node types among \['a', 'b', 'c'\], got none"),
    ({"classes": {"d": np.ones((3, 2))}}, r"classes: expected node types among \['a', 'b', 'c'\], got \['d'\]"),
    ({"classes": classes(0, ("b",))}, r"shares of at least two node types among \['a', 'b', 'c'\], got \['b'\]"),
    ({"classes": {"a": np.ones((5, 2)), "b": np.ones((4, 2))}}, r"classes\['a'\]: expected shape \(6, K\), got \(5, 2"),
    ({"classes": {"a": np.ones((6, 2)), "b": np.ones((4, 3))}}, r"one number of classes .*'a': \(6, 2\), 'b': \(4, 3"),
    ({"classes": {"a": -np.ones((6, 2)), "b": np.ones((4, 2))}}, r"classes\['a'\]: expected numbers of at least 0"),
    ({"weights": {"d": 1.0}}, r"weights: expected entries among \['a', 'b', 'c'\], got \['d'\]"),
    ({"student": {"a": np.ones((6, 2))}}, "student, teacher: expected the same node types"),
])
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        class_prototype_correlation(**{"student": rows(20, 3), "teacher": rows(21, 4), "classes": classes(22)} | change)


# ------------------------------------------------------------------------------------------- neighbour_shares

COUNTS = {"t": 4, "x": 3, "y": 3, "z": 2, "alone": 2}
EDGES = {("t", "r", "x"): (np.array([0, 1, 1, 3]), np.array([0, 0, 0, 2])),
         ("t", "s", "x"): (np.array([2]), np.array([0])),
         ("t", "r", "y"): (np.array([3, 0]), np.array([1, 1])),
         ("x", "r", "z"): (np.array([0, 1, 2]), np.array([0, 0, 1])),
         ("y", "r", "z"): (np.array([1]), np.array([0])),
         ("x", "r", "y"): (np.array([0]), np.array([0])),  # y is reached before
         ("y", "r", "t"): (np.array([0]), np.array([0])),
         ("alone", "r", "t"): (np.array([0]), np.array([0]))}
SHARES = np.array([[1, 0], [0.25, 0.75], [0.5, 0.5], [0, 1]])
CARRIED = jax.jit(lambda shares, edges: neighbour_shares(shares, edges, COUNTS))


def test_shares_are_means_over_neighbours_hop_by_hop():
    found = CARRIED({"t": SHARES}, EDGES)
    x = np.stack([(SHARES[0] + 2 * SHARES[1] + SHARES[2]) / 4, np.zeros(2), SHARES[3]])
    y = np.stack([np.zeros(2), (SHARES[3] + SHARES[0]) / 2, np.zeros(2)])
    z = np.stack([(x[0] + x[1] + y[1]) / 3, x[2]])
    assert set(found) == {"t", "x", "y", "z"}
    for name, expected in (("t", SHARES), ("x", x), ("y", y), ("z", z)):
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)
        assert found[name].dtype == jnp.float32
    started = CARRIED({"t": SHARES, "x": np.ones((3, 2))}, EDGES)
    np.testing.assert_allclose(started["y"], [[1, 1], y[1], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(started["x"], 1)


def test_order_and_jit_make_no_difference_and_shares_are_constants():
    found = CARRIED({"t": SHARES}, EDGES)
    turned = {name: (s[::-1], r[::-1]) for name, (s, r) in EDGES.items()}
    eager = neighbour_shares({"t": SHARES}, dict(reversed(EDGES.items())), COUNTS)
    for other in (CARRIED({"t": SHARES}, turned), eager):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), other, found)
    slope = jax.grad(lambda y: CARRIED({"t": y}, EDGES)["x"].sum())(jnp.asarray(SHARES))
    assert (slope == 0).all()


def test_relations_without_edges_and_types_without_nodes():
    none = np.zeros(0, int)
    found = neighbour_shares({"t": SHARES}, {("t", "r", "x"): (none, none), ("t", "r", "e"): (none, none)},
                             {"t": 4, "x": 3, "e": 0})
    assert found["e"].shape == (0, 2) and (found["x"] == 0).all()


@pytest.mark.parametrize("count", [3, 0])
def test_an_index_outside_is_seen(count):
    ends = np.array([0]), np.array([3])
    with pytest.raises(ValueError, match=rf"receivers: expected indices in \[0, {count}\), got 3 at edge 0"):
        neighbour_shares({"t": SHARES}, {("t", "r", "x"): ends}, {"t": 4, "x": count})
    found = jax.jit(lambda e: neighbour_shares({"t": SHARES}, {("t", "r", "x"): e}, {"t": 4, "x": count}))(ends)
    assert np.isnan(found["x"]).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"num_nodes": [4]}, "num_nodes: expected a dictionary by node type, got list"),
    ({"num_nodes": COUNTS | {"x": 3.0}}, r"num_nodes\['x'\]: expected an integer of at least 0, got 3.0"),
    ({"num_nodes": COUNTS | {"x": -3}}, r"num_nodes\['x'\]: expected an integer of at least 0, got -3"),
    ({"num_nodes": {"t": 4}}, r"edges\[\('t', 'r', 'x'\)\]: expected .*types among \['t'\]"),
    ({"shares": {"t": SHARES[:3]}}, r"shares\['t'\]: expected shape \(4, K\), got \(3, 2\)"),
    ({"shares": {"t": SHARES - 1}}, r"shares\['t'\]: expected numbers of at least 0, got -1"),
    ({"shares": {"u": SHARES}}, r"shares: expected node types among .*got \['u'\]"),
    ({"edges": {}}, "edges: expected at least one relation, got none"),
])
def test_wrong_shares_are_named(change, message):
    given: dict[str, Any] = {"shares": {"t": SHARES}, "edges": {("t", "r", "x"): ([0], [0])}, "num_nodes": COUNTS}
    with pytest.raises(ValueError, match=message):
        neighbour_shares(**given | change)
