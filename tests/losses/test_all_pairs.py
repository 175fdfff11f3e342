"""The blocked arithmetic of all_pairs: its accuracy, its memory, and that blocks make no difference."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.losses import type_pair_correlation
from hire_jax.losses._all_pairs import BLOCK_ROWS, all_pairs

MIB = 2**20
NO_MASK = {"a": None, "b": None}
EVEN = {"a": None, "b": None}  # every row weighs 1


def normal(seed: int, rows: tuple[int, int], width: int, mean: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t: (mean + rng.standard_normal((n, width))).astype("f4") for t, n in zip("ab", rows, strict=True)}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def formed(student: dict, teacher: dict) -> tuple[float, dict[str, np.ndarray]]:
    """Value and gradient in float64 with both matrices formed, and derived by hand."""
    s, t = ({k: x.astype("f8") for k, x in side.items()} for side in (student, teacher))
    difference = unit(s["a"]) @ unit(s["b"]).T - unit(t["a"]) @ unit(t["b"]).T
    slopes = {"a": difference @ unit(s["b"]), "b": difference.T @ unit(s["a"])}
    gradient = {}
    for k, slope in slopes.items():
        units, norms = unit(s[k]), np.linalg.norm(s[k], axis=1, keepdims=True)
        across = slope - (slope * units).sum(axis=1, keepdims=True) * units
        gradient[k] = 2 / difference.size * across / norms
    return np.mean(difference**2), gradient


@partial(jax.jit, static_argnums=3)
def blocked(student, teacher, where=NO_MASK, block_rows=BLOCK_ROWS):
    return jax.value_and_grad(lambda s: all_pairs(s, teacher, where, jnp.ones(len(s)), EVEN, block_rows))(student)


def sides(kind: str, width: int, mean: float) -> tuple[dict, dict]:
    """A student that is in some way related to its teacher."""
    rows = (700, 500)
    teacher = normal(1, rows, width, mean)
    rotation = np.linalg.qr(np.random.default_rng(2).standard_normal((width, width)))[0]
    if kind == "far":
        student = normal(3, rows, width, mean)
    elif kind == "narrow":
        student = normal(3, rows, width // 4, mean)
    elif kind == "wide":
        student = normal(3, rows, width * 2, mean)
    elif kind == "rotated":
        student = {k: x @ rotation for k, x in teacher.items()}
    else:
        noise = normal(3, rows, width)
        student = {k: x + float(kind) * noise[k] for k, x in teacher.items()}
    return {k: x.astype("f4") for k, x in student.items()}, teacher


KINDS = ["far", "narrow", "wide", "rotated", "1e-1", "1e-2", "1e-3", "1e-4", "1e-5"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "mean"), [(8, 0.0), (8, 1.0), (64, 0.0), (64, 1.0)])
def test_float32_error_against_formed_matrices_in_float64(kind, width, mean):
    student, teacher = sides(kind, width, mean)
    value, gradient = blocked(student, teacher, NO_MASK, 256)
    expected, expected_gradient = formed(student, teacher)
    error = abs(float(value) - expected)
    assert value >= 0 and error < 1e-6
    if kind in ("far", "narrow", "wide"):
        assert error < 1e-5 * expected
    elif kind != "rotated":  # near: the subtraction of Gram matrices has no digit left below 1e-3
        r = np.sqrt(np.mean([((unit(student[k]) - unit(teacher[k])) ** 2).sum(axis=1).mean() for k in "ab"]))
        assert error < 1e-6 * (1 + 1 / r) * expected
    for k, x in student.items():
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        assert np.abs((gradient[k] - expected_gradient[k]) * norms).max() < 1e-6 / len(x)


def test_equal_sides_leave_the_square_of_rounding():
    teacher = normal(4, (700, 500), 16, 1.0)
    value, gradient = blocked(teacher, teacher)
    assert 0 <= value < 1e-13
    assert all(np.abs(g).max() < 1e-7 / len(g) for g in gradient.values())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block_rows", [7, 100, 101])
def test_blocks_make_no_difference(masked, block_rows):
    student, teacher = normal(5, (101, 64), 3), normal(6, (101, 64), 5)
    rng = np.random.default_rng(7)
    where = {"a": rng.random(101) < 0.5, "b": None} if masked else NO_MASK
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype("f8"), (student, teacher))
        value, gradient = blocked(*wide, where, block_rows)
        inside = {k: np.ones(len(student[k]), bool) if mask is None else mask for k, mask in where.items()}
        expected, expected_gradient = formed(*({k: x[inside[k]] for k, x in side.items()} for side in wide))
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        for k in "ab":
            np.testing.assert_allclose(gradient[k][inside[k]], expected_gradient[k], rtol=1e-9, atol=1e-18)
            np.testing.assert_array_equal(gradient[k][~inside[k]], 0)


def test_second_derivatives_pass_through_blocks():
    with jax.enable_x64(True):
        student, teacher = (
            jax.tree.map(lambda x: x.astype("f8"), normal(seed, (5, 4), 2)) for seed in (8, 9)
        )

        def hessian(block_rows):
            return jax.jit(jax.hessian(
                lambda s: all_pairs(s, teacher, NO_MASK, jnp.ones(len(s)), EVEN, block_rows)))(student)

        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-14), hessian(2), hessian(10))


def test_long_inputs_jit_equals_eager_and_vmap_equals_a_loop(users_jit):
    rows = (33000, 32769)  # above 32768 rows jit(vmap) has been miscompiled
    seeds = [normal(seed, rows, 4) for seed in (10, 11)]
    students = jax.tree.map(lambda *parts: jnp.stack(parts), *seeds)
    teacher = jax.tree.map(jnp.asarray, normal(12, rows, 6))
    call = jax.value_and_grad(lambda s: type_pair_correlation(s, teacher))
    eager = [call(jax.tree.map(jnp.asarray, seed)) for seed in seeds]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *eager)

    def close(result, expected):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6 / rows[1]), result, expected)

    close(users_jit(call)(jax.tree.map(lambda x: x[0], students)), eager[0])
    close(users_jit(jax.vmap(call))(students), stacked)

    def total(s):
        return jnp.sum(jax.vmap(lambda one: type_pair_correlation(one, teacher))(s))

    close(users_jit(jax.grad(total))(students), stacked[1])


def largest_intermediate(jaxpr) -> int:
    """Elements of the largest array that any equation makes, those inside loops and calls included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size")]
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                sizes.append(largest_intermediate(inner))
    return max(sizes)


@pytest.mark.parametrize("rows", [(300, 400), (30000, 20000)])
def test_no_matrix_of_all_pairs_is_formed(rows):
    student, teacher = normal(13, rows, 8), normal(14, rows, 16)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(lambda s: type_pair_correlation(s, teacher)))(student)
    assert largest_intermediate(jaxpr.jaxpr) <= max(rows) * (8 + 16)

    def forming(s):
        return jnp.sum((unit_jax(s["a"]) @ unit_jax(s["b"]).T) ** 2)

    def unit_jax(x):
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)

    assert largest_intermediate(jax.make_jaxpr(jax.jit(forming))(student).jaxpr) >= rows[0] * rows[1]


@pytest.mark.parametrize("masked", [False, True])
def test_a_million_by_a_million_nodes_are_planned_within_two_gigabytes(masked):
    """XLA's own account, at full size, of what value and gradient need beside their inputs."""
    rows, width = 1_000_000, 64
    side = {t: jax.ShapeDtypeStruct((rows, width), jnp.float32) for t in "ab"}
    where = {t: jax.ShapeDtypeStruct((rows,), jnp.bool_) for t in "ab"} if masked else None

    def call(student, teacher, where):
        return jax.value_and_grad(lambda s: type_pair_correlation(s, teacher, where=where))(student)

    plan = jax.jit(call).lower(side, side, where).compile().memory_analysis()
    gradient = 2 * rows * width * 4
    assert plan is not None
    assert plan.output_size_in_bytes >= gradient
    assert plan.output_size_in_bytes + plan.temp_size_in_bytes < 2 * gradient


MEASURE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from hire_jax.losses import type_pair_correlation

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

def rows_of(seed):
    rng, rows = np.random.default_rng(seed), np.empty((n, 64), np.float32)
    for start in range(0, n, 10_000):
        block = rows[start : start + 10_000]
        block[:] = rng.standard_normal(block.shape, np.float32)
    return jnp.asarray(rows)

n, compiled = int(sys.argv[1]), sys.argv[2] == "jit"
call = jax.value_and_grad(type_pair_correlation)
if compiled:
    side = {t: jax.ShapeDtypeStruct((n, 64), jnp.float32) for t in "ab"}
    call = jax.jit(call).lower(side, side).compile()
before = memory("VmRSS")
student, teacher = {"a": rows_of(0), "b": rows_of(1)}, {"a": rows_of(2), "b": rows_of(3)}
jax.block_until_ready((student, teacher))
inputs = sum(x.nbytes for x in [*student.values(), *teacher.values()])
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
value, gradient = jax.block_until_ready(call(student, teacher))
print(memory("VmHWM") - before - inputs, float(value))
"""


def measured_peak(rows: int, mode: str) -> int:
    """Bytes of resident memory that value and gradient add to a fresh process beyond their four inputs."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's account of a process's peak memory")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", MEASURE, str(rows), mode]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    peak, value = done.stdout.split()
    print(f"{rows} x {rows} nodes, {mode}: {int(peak) / MIB:.0f} MiB beyond the inputs")
    assert 0.9 / 32 < float(value) < 1.1 / 32  # independent directions in 64 dimensions: 2 / 64
    return int(peak)


@pytest.mark.slow
def test_measured_memory_of_a_hundred_thousand_nodes():
    # A tenth of two gigabytes, and 150 MiB for what does not grow: code, thread pools, blocks of rows.
    assert measured_peak(100_000, "jit") < 200e6 + 150 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_measured_memory_of_a_million_nodes(mode):
    assert measured_peak(1_000_000, mode) < 2e9
