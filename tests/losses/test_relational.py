"""type_pair_correlation: its three variants against plain loops, identities, masks and wrong arguments."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from hire_jax.losses import type_pair_correlation
from hire_jax.losses.relational import Variant

NODES = {"actor": 7, "director": 4, "movie": 9}
# Only all_pairs works on columns of both sides together, so only there it matters which is the wider one.
WIDTHS = [("all_pairs", 3, 3), ("all_pairs", 2, 4), ("all_pairs", 4, 2), ("prototype", 3, 3), ("edges", 3, 3)]
VARIANTS: tuple[Variant, ...] = ("all_pairs", "prototype", "edges")
TO_ACTOR, TO_MOVIE = ("movie", "to", "actor"), ("director", "to", "movie")
EDGES = {
    TO_ACTOR: (np.array([0, 1, 1, 8, 3, 1]), np.array([6, 0, 2, 2, 5, 0])),  # one edge twice
    TO_MOVIE: (np.array([3, 0, 0]), np.array([2, 1, 7])),
    ("movie", "cites", "movie"): (np.array([0, 1]), np.array([1, 4])),
}


def embeddings(seed: int, width: int, nodes: dict[str, int] = NODES, lead: tuple[int, ...] = ()) -> dict:
    rng = np.random.default_rng(seed)
    return {t: 0.5 + rng.standard_normal((*lead, n, width)) for t, n in nodes.items()}


def masks(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t: rng.random(n) < 0.6 for t, n in NODES.items() if t != "director"}


def loss_of(variant: Variant):
    """The loss with edges where the variant takes them."""
    return partial(type_pair_correlation, variant=variant, edges=EDGES if variant == "edges" else None)


def compile_loss(variant: Variant):
    loss = loss_of(variant)
    return jax.jit(
        jax.value_and_grad(lambda student, teacher, where=None: loss(student, teacher, where=where))
    )


COMPILED = {variant: compile_loss(variant) for variant in VARIANTS}


def dot(x, y) -> float:
    return sum(float(a) * float(b) for a, b in zip(x, y, strict=True))


def unit(x) -> list[float]:
    norm = math.sqrt(dot(x, x))
    return [float(a) / norm if norm else 0.0 for a in x]


def cosine(x, y) -> float:
    return dot(unit(x), unit(y))


def loop_all_pairs(student, teacher, where) -> float:
    types, means = sorted(student), []
    for i, a in enumerate(types):
        for b in types[i + 1 :]:
            squares = [
                (cosine(teacher[a][u], teacher[b][v]) - cosine(student[a][u], student[b][v])) ** 2
                for u in range(len(student[a]))
                for v in range(len(student[b]))
                if where[a][u] and where[b][v]
            ]
            if squares:
                means.append(sum(squares) / len(squares))
    return sum(means) / len(means) if means else 0.0


def loop_prototype(student, teacher, where) -> float:
    def prototype(rows, mask):
        chosen = [unit(row) for row, inside in zip(rows, mask, strict=True) if inside]
        return [sum(column) / len(chosen) for column in zip(*chosen, strict=True)] if chosen else None

    p_s = {t: prototype(student[t], where[t]) for t in student}
    p_t = {t: prototype(teacher[t], where[t]) for t in teacher}
    types = sorted(t for t in student if p_s[t] is not None)
    squares = [
        (cosine(p_t[a], p_t[b]) - cosine(p_s[a], p_s[b])) ** 2
        for i, a in enumerate(types)
        for b in types[i + 1 :]
    ]
    return sum(squares) / len(squares) if squares else 0.0


def loop_edges(student, teacher, where) -> float:
    means = []
    for (a, _, b), (senders, receivers) in EDGES.items():
        squares = [
            (cosine(teacher[a][u], teacher[b][v]) - cosine(student[a][u], student[b][v])) ** 2
            for u, v in zip(senders, receivers, strict=True)
            if a != b and where[a][u] and where[b][v]
        ]
        if squares:
            means.append(sum(squares) / len(squares))
    return sum(means) / len(means) if means else 0.0


LOOPS = {"all_pairs": loop_all_pairs, "prototype": loop_prototype, "edges": loop_edges}


def full(where: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    return {t: np.ones(n, bool) for t, n in NODES.items()} | (where or {})


@pytest.mark.parametrize(("variant", "d_s", "d_t"), WIDTHS)
def test_values_and_gradients_equal_a_plain_loop(variant, d_s, d_t):
    student, teacher, step = embeddings(1, d_s), embeddings(2, d_t), 1e-5
    for where in (full(masks(3)), full(None)):
        expected = LOOPS[variant](student, teacher, where)
        assert expected > 1e-3
        with jax.enable_x64(True):
            value, gradient = COMPILED[variant](student, teacher, where)
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, expected, rtol=1e-11)
    for t, rows in student.items():
        for row in (0, 3):
            rows[row, 1] += step
            above = LOOPS[variant](student, teacher, where)
            rows[row, 1] -= 2 * step
            below = LOOPS[variant](student, teacher, where)
            rows[row, 1] += step
            np.testing.assert_allclose(
                gradient[t][row, 1], (above - below) / (2 * step), rtol=1e-6, atol=1e-9
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_derivatives_equal_finite_differences(variant):
    with jax.enable_x64(True):
        student, teacher = jax.tree.map(jnp.asarray, (embeddings(4, 2), embeddings(5, 4)))
        call = jax.jit(lambda s: loss_of(variant)(s, teacher, where=masks(6)))
        check_grads(call, (student,), order=1)
        if (
            variant == "all_pairs"
        ):  # with a derivative of its own, whose derivative may be wrong where it is right
            check_grads(jax.jit(jax.grad(call)), (student,), order=1, modes=["rev"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_teacher_is_a_constant(variant):
    student, teacher = embeddings(7, 3), embeddings(8, 3)
    gradient = jax.grad(lambda t: loss_of(variant)(student, t))(jax.tree.map(jnp.asarray, teacher))
    assert all((g == 0).all() for g in gradient.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_jit_equals_eager_and_vmap_equals_a_loop(variant, users_jit):
    sides = embeddings(9, 3, lead=(4,)), embeddings(10, 5, lead=(4,))  # teacher i with student i
    students, teachers = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), sides)
    where = masks(11)
    call = jax.value_and_grad(lambda s, t: loss_of(variant)(s, t, where=where))
    seeds = [jax.tree.map(lambda x, i=i: x[i], (students, teachers)) for i in range(4)]
    values, gradients = jax.tree.map(lambda *parts: jnp.stack(parts), *[call(*seed) for seed in seeds])

    def close(result, expected):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), result, expected)

    close(users_jit(call)(*seeds[0]), call(*seeds[0]))
    close(users_jit(jax.vmap(call))(students, teachers), (values, gradients))
    mapped = jax.vmap(lambda s, t: loss_of(variant)(s, t, where=where))
    close(users_jit(jax.grad(lambda s, t: jnp.sum(mapped(s, t))))(students, teachers), gradients)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_masked_rows_have_no_influence(variant, poison):
    student, teacher = jax.tree.map(lambda x: x.astype("f4"), (embeddings(12, 3), embeddings(13, 4)))
    where = full(masks(14))
    value, gradient = COMPILED[variant](student, teacher, where)
    for t, mask in where.items():
        student[t][~mask], teacher[t][~mask] = poison, poison
    poisoned_value, poisoned_gradient = COMPILED[variant](student, teacher, where)
    assert poisoned_value == value
    for t in NODES:
        np.testing.assert_array_equal(poisoned_gradient[t], gradient[t])
        np.testing.assert_array_equal(gradient[t][~where[t]], 0)

    nothing = jax.tree.map(np.zeros_like, full(None))
    value, gradient = COMPILED[variant](student, teacher, nothing)
    assert value == 0 and all((g == 0).all() for g in gradient.values())

    assert jnp.isnan(COMPILED[variant](jax.tree.map(lambda x: x * np.nan, student), teacher, where)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_type_without_rows_is_left_out_of_the_mean(variant):
    student, teacher = jax.tree.map(lambda x: x.astype("f4"), (embeddings(15, 3), embeddings(16, 4)))
    where = full(None) | {"director": np.zeros(NODES["director"], bool)}
    value, gradient = COMPILED[variant](student, teacher, where)
    without = [{t: x for t, x in side.items() if t != "director"} for side in (student, teacher)]
    edges = {TO_ACTOR: EDGES[TO_ACTOR]} if variant == "edges" else None
    expected = type_pair_correlation(*without, variant=variant, edges=edges)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert (gradient["director"] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_zeros(variant):
    student, teacher = embeddings(17, 3), embeddings(18, 4)
    for t in NODES:
        student[t][1], teacher[t][2] = 0, 0
    student["director"][:] = 0
    expected = LOOPS[variant](student, teacher, full(None))
    value, gradient = COMPILED[variant](
        *jax.tree.map(lambda x: x.astype("f4"), (student, teacher)), full(None)
    )
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert all(np.isfinite(g).all() and (g[1] == 0).all() for g in gradient.values())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30, 3e38])
def test_lengths_of_rows_do_not_matter(variant, scale):
    student, teacher = jax.tree.map(lambda x: x.astype("f4"), (embeddings(19, 3), embeddings(20, 4)))
    expected, gradient = COMPILED[variant](student, teacher, full(None))
    peak = {t: np.abs(x).max(axis=1, keepdims=True) for t, x in student.items()}
    scaled = {t: x / peak[t] * np.float32(scale) for t, x in student.items()}
    value, scaled_gradient = COMPILED[variant](scaled, teacher, full(None))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    if 1e-10 <= scale <= 1e10:
        for t in NODES:
            product = np.asarray(scaled_gradient[t]) * scale / peak[t]
            np.testing.assert_allclose(product, gradient[t], rtol=1e-3, atol=1e-6)


@st.composite
def two_sides(draw):
    seed, closeness = draw(st.integers(0, 2**31)), draw(st.sampled_from([1e-4, 1e-2, 1.0, 100.0]))
    rng = np.random.default_rng(seed)
    teacher = {t: rng.standard_normal((n, 3)) + draw(st.sampled_from([0.0, 3.0])) for t, n in NODES.items()}
    student = {t: x + closeness * rng.standard_normal(x.shape) for t, x in teacher.items()}
    return student, teacher, rng


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(two_sides())
def test_identities(variant, case):
    student, teacher, rng = case
    compiled = partial(COMPILED[variant], where=full(None))
    with jax.enable_x64(True):
        value, gradient = compiled(student, teacher)
        assert 0 <= value <= 4
        np.testing.assert_allclose(value, LOOPS[variant](student, teacher, full(None)), rtol=1e-6, atol=1e-15)
        same, same_gradient = compiled(teacher, teacher)
        assert 0 <= same < 1e-28 and all(np.abs(g).max() < 1e-14 for g in same_gradient.values())

        for side in (student, teacher):  # a loss of cosines moves no row along itself
            if side is student:
                along = {t: np.abs((gradient[t] * x).sum(axis=1)).max() for t, x in side.items()}
                assert max(along.values()) < 1e-12

        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        lengths = {t: np.exp(rng.standard_normal((n, 1))) for t, n in NODES.items()}
        moved = {t: lengths[t] * x @ rotation for t, x in student.items()}
        np.testing.assert_allclose(compiled(moved, teacher)[0], value, rtol=1e-6, atol=1e-15)
        if variant != "edges":
            order = {t: rng.permutation(n) for t, n in NODES.items()}
            permuted = [{t: x[order[t]] for t, x in side.items()} for side in (student, teacher)]
            np.testing.assert_allclose(compiled(*permuted)[0], value, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_order_of_dictionaries_does_not_matter(variant):
    student, teacher, where = embeddings(21, 3), embeddings(22, 3), masks(23)

    def turned(mapping):
        return dict(reversed(list(mapping.items()))) if mapping is not None else None

    edges = EDGES if variant == "edges" else None
    value = type_pair_correlation(student, teacher, variant=variant, edges=edges, where=where)
    other = type_pair_correlation(
        turned(student), teacher, variant=variant, edges=turned(edges), where=turned(where)
    )
    assert value == other


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_is_computed_in_float32(variant):
    student, teacher = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.bfloat16), (embeddings(24, 3), embeddings(25, 4))
    )
    value, gradient = COMPILED[variant](student, teacher)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (student, teacher))
    expected, expected_gradient = COMPILED[variant](*single, full(None))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for t in NODES:
        assert gradient[t].dtype == jnp.bfloat16
        np.testing.assert_allclose(
            gradient[t].astype(jnp.float32), expected_gradient[t], rtol=1e-2, atol=1e-5
        )


def test_self_relations_are_left_out_and_reverse_relations_count_for_themselves():
    student, teacher = embeddings(26, 3), embeddings(27, 3)
    call = partial(type_pair_correlation, student, teacher, variant="edges")
    one, other = call(edges={TO_ACTOR: EDGES[TO_ACTOR]}), call(edges={TO_MOVIE: EDGES[TO_MOVIE]})
    np.testing.assert_allclose(call(edges=EDGES), (one + other) / 2, rtol=1e-5)
    reverse = {("actor", "from", "movie"): EDGES[TO_ACTOR][::-1]}
    np.testing.assert_allclose(call(edges=EDGES | reverse), (2 * one + other) / 3, rtol=1e-5)


def test_relations_without_edges_are_left_out_of_the_mean():
    student, teacher = embeddings(28, 3), embeddings(29, 3)
    empty = np.zeros(0, np.int32)
    with_empty = EDGES | {("actor", "knows", "director"): (empty, empty)}
    value = type_pair_correlation(student, teacher, variant="edges", edges=with_empty)
    assert value == type_pair_correlation(student, teacher, variant="edges", edges=EDGES)
    only = {("actor", "knows", "director"): (empty, empty)}
    assert type_pair_correlation(student, teacher, variant="edges", edges=only) == 0


@pytest.mark.parametrize("where", [None, full(None)])
def test_an_index_outside_is_seen_under_jit(where):
    student, teacher = embeddings(30, 3), embeddings(31, 3)

    @jax.jit
    def call(senders):
        edges = {TO_ACTOR: (senders, jnp.array([0, 1]))}
        return type_pair_correlation(student, teacher, variant="edges", edges=edges, where=where)

    assert jnp.isfinite(call(jnp.array([0, 8])))
    assert jnp.isnan(call(jnp.array([0, 9])))


def test_an_index_outside_raises_where_it_is_a_constant_of_a_compiled_function():
    sides = embeddings(30, 3)
    edges = {TO_ACTOR: (np.array([0, 9]), np.array([0, 1]))}
    with pytest.raises(ValueError, match=r"senders: expected indices in \[0, 9\), got 9 at edge 1"):
        jax.jit(lambda s: type_pair_correlation(s, s, variant="edges", edges=edges))(sides)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "pairs"}, "variant: expected one of .*'all_pairs'.*got 'pairs'"),
        ({"edges": EDGES}, "edges: expected with variant='edges' only, got edges with variant='all_pairs'"),
        ({"variant": "edges"}, "edges: expected with variant='edges' only, got None with variant='edges'"),
        (
            {"student": embeddings(0, 3, {"movie": 9})},
            r"same node types, got \['movie'\] and \['actor', 'dir",
        ),
        ({"student": [1, 2]}, "student: expected a dictionary by node type, got list"),
        ({"where": np.ones(9, bool)}, "where: expected a dictionary by node type, got ndarray"),
        ({"where": {"film": np.ones(9, bool)}}, r"where: expected node types among .*got \['film'\]"),
        ({"where": {"movie": np.ones(8, bool)}}, r"where\['movie'\]: expected bool \(9,\).*got bool \(8,\)"),
        ({"where": {"movie": np.ones(9)}}, r"where\['movie'\]: expected bool \(9,\).*got float32"),
        (
            {"student": embeddings(0, 3, NODES | {"movie": 8})},
            r"same number of rows, got \(8, 3\) and \(9, 3\)",
        ),
        (
            {"teacher": embeddings(0, 3) | {"movie": np.ones((9, 2))}},
            r"teacher: expected one width.*\(9, 2\)",
        ),
        (
            {"teacher": embeddings(0, 3) | {"movie": np.ones(9)}},
            r"teacher\['movie'\]: expected shape.*\(9,\)",
        ),
        ({"student": embeddings(0, 0)}, r"student\['actor'\]: expected shape \[N, width\], got \(7, 0\)"),
        (
            {"student": embeddings(0, 3) | {"movie": np.ones((9, 3), bool)}},
            r"student\['movie'\].*got dtype bool",
        ),
        ({"variant": "edges", "edges": [1]}, "edges: expected a dictionary by edge type, got list"),
        ({"variant": "edges", "edges": {}}, "edges: expected at least one relation, got none"),
        (
            {"variant": "edges", "edges": {("movie", "cites", "movie"): ([0], [1])}},
            r"edges: expected a relation between different node types, got \[\('movie', 'cites', 'movie'\)\]",
        ),
        (
            {"variant": "edges", "edges": {("film", "to", "actor"): ([0], [1])}},
            r"edges\[\('film'.*types among",
        ),
        ({"variant": "edges", "edges": {"movie": ([0], [1])}}, r"edges\['movie'\]: expected \(source, rel"),
        (
            {"variant": "edges", "edges": {TO_ACTOR: ([0, 1], [1])}},
            r"senders, receivers: expected one length, got \(2,\) and \(1,\)",
        ),
        (
            {"variant": "edges", "edges": {TO_ACTOR: ([0], [1], [2])}},
            "expected .senders, receivers., got 3 arrays",
        ),
        (
            {"variant": "edges", "edges": {TO_ACTOR: ([0.0], [1])}},
            r"senders: expected integers .*float64 \(1,\)",
        ),
        (
            {"variant": "edges", "edges": {TO_ACTOR: ([[0]], [1])}},
            r"senders: expected integers .*int64 \(1, 1\)",
        ),
        (
            {"variant": "edges", "edges": {TO_ACTOR: ([0, 9], [1, 1])}},
            r"senders: .*in \[0, 9\), got 9 at edge 1",
        ),
        (
            {"variant": "edges", "edges": {TO_ACTOR: ([0], [-1])}},
            r"receivers: .*in \[0, 7\), got -1 at edge 0",
        ),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"student": embeddings(0, 3), "teacher": embeddings(0, 3)} | change
    with pytest.raises(ValueError, match=message):
        type_pair_correlation(**arguments)


@pytest.mark.parametrize("variant", ["all_pairs", "prototype"])
def test_one_type_has_no_pair(variant):
    alone = {"movie": np.ones((3, 2))}
    with pytest.raises(ValueError, match=r"at least two node types to correlate, got \['movie'\]"):
        type_pair_correlation(alone, alone, variant=variant)
