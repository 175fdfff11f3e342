"""Checks of arguments that every loss needs, so that a wrong call fails with the argument's name and its
shape.

Shapes, dtypes and Python numbers are looked at; the values inside arrays only of constants such as weights, and only
outside `jax.jit`, under which there are none.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

Rows = dict[str, jax.Array]  # {node type: [N, width]}
Masks = dict[str, jax.Array | None]  # {node type: bool [N], or None where every row counts}


def real_array(name: str, value: ArrayLike) -> jax.Array:
    """The argument as an array; complex and boolean ones are refused."""
    array = jnp.asarray(value)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def two_sides(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None, *, one_width: bool = False, name: str = "student"
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Features of student and teacher (a constant) and the mask, checked; `name` is the student's argument."""
    s = real_array(name, student)
    t = lax.stop_gradient(real_array("teacher", teacher))
    check_rows("[N, D]", **{name: s, "teacher": t})
    if one_width and s.shape != t.shape:
        raise ValueError(f"{name}, teacher: expected one width, got {name} {s.shape} and teacher {t.shape}; "
                         "project the student to the teacher's first")
    return s, t, check_where(where, len(s))


def check_rows(axes: str, **sides: jax.Array) -> None:
    """Arrays of as many rows, with `axes` such as "[N, D]"."""
    listed = " and ".join(f"{name} {array.shape}" for name, array in sides.items())
    for name, array in sides.items():
        if array.ndim != 2 or array.shape[1] == 0:
            raise ValueError(f"{name}: expected shape {axes}, got {listed}")
    if len({len(array) for array in sides.values()}) > 1:
        raise ValueError(f"{', '.join(sides)}: expected the same number of rows, got {listed}")


def check_same_shape(axes: str, **arrays: jax.Array) -> None:
    """All arrays have one shape with the axes in `axes`, such as "[N, C]"; only the first may be empty."""
    shapes = {name: array.shape for name, array in arrays.items()}
    listed = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
    for name, shape in shapes.items():
        if len(shape) != axes.count(",") + 1 or 0 in shape[1:]:
            raise ValueError(f"{name}: expected shape {axes}, got {listed}")
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{', '.join(shapes)}: expected one shape {axes}, got {listed}")


def check_where(where: ArrayLike | None, rows: int, name: str = "where") -> jax.Array | None:
    """A row mask as a boolean array of length `rows`; None stays None."""
    if where is None:
        return None
    mask = jnp.asarray(where)
    if mask.dtype != jnp.bool_ or mask.shape != (rows,):
        raise ValueError(f"{name}: expected bool ({rows},), one flag a row, got {mask.dtype} {mask.shape}")
    return mask


def non_negative(name: str, value: ArrayLike) -> jax.Array:
    """The argument as an array and a constant; negative numbers are refused where they are known."""
    given = jnp.asarray(value)
    array = lax.stop_gradient(real_array(name, given.astype(jnp.float32) if given.dtype == jnp.bool_ else given))
    if not isinstance(array, jax.core.Tracer) and bool(jnp.any(array < 0)):
        raise ValueError(f"{name}: expected numbers of at least 0, got {float(jnp.min(array))}")
    return array


def check_weights(
    weights: ArrayLike | None, where: jax.Array | None, rows: int, name: str = "weights"
) -> tuple[jax.Array | None, jax.Array | None]:
    """The row mask, less the rows of weight 0, and the weights (constants), both None where not given."""
    if weights is None:
        return where, None
    w = non_negative(name, weights)
    if w.shape != (rows,):
        raise ValueError(f"{name}: expected shape ({rows},), one number a row, got {w.shape}")
    counted = w != 0
    return counted if where is None else where & counted, w


def check_group_weights(weights: Mapping[Any, ArrayLike] | None, groups: list[Any]) -> jax.Array:
    """One weight (a constant) for each of `groups`, node types or edge types, in their order; 1 by default."""
    given = {} if weights is None else weights
    if not isinstance(given, Mapping):
        raise ValueError(f"weights: expected a dictionary, got {type(given).__name__}")
    unknown = [group for group in given if group not in groups]
    if unknown:
        raise ValueError(f"weights: expected entries among {groups}, got {unknown}")
    values = {group: real_array(f"weights[{group!r}]", value) for group, value in given.items()}
    for group, value in values.items():
        if value.shape != ():
            raise ValueError(f"weights[{group!r}]: expected a scalar, got shape {value.shape}")
    return lax.stop_gradient(jnp.stack([jnp.asarray(values.get(group, 1.0), jnp.float32) for group in groups]))


def check_temperature(temperature: ArrayLike) -> None:
    """A scalar; where it is known, as under a trace it is not, also positive and finite."""
    if jnp.shape(temperature) != ():
        raise ValueError(f"temperature: expected a scalar, got shape {jnp.shape(temperature)}")
    if not isinstance(temperature, jax.core.Tracer):
        value = np.asarray(temperature, float)
        if not (value > 0 and np.isfinite(value)):
            raise ValueError(f"temperature: expected a positive finite number, got {temperature!r}")


def check_scalars(**values: ArrayLike) -> None:
    """Every one is a number or a scalar array."""
    for name, value in values.items():
        if jnp.shape(value) != ():
            raise ValueError(f"{name}: expected a scalar, got shape {jnp.shape(value)}")


def check_typed_rows(
    student: Mapping[str, ArrayLike], teacher: Mapping[str, ArrayLike], where: Mapping[str, ArrayLike] | None
) -> tuple[Rows, Rows, Masks]:
    """The same three by node type, in sorted order, so that no result depends on the order of a dictionary.

    Student and teacher have the same types and row counts. Within each, all types have one width, because
    rows of different types are multiplied with each other.
    """
    masks = {} if where is None else where
    for name, given in (("student", student), ("teacher", teacher), ("where", masks)):
        if not isinstance(given, Mapping):
            raise ValueError(f"{name}: expected a dictionary by node type, got {type(given).__name__}")
    if set(student) != set(teacher):
        raise ValueError(
            f"student, teacher: expected the same node types, got {sorted(student)} and {sorted(teacher)}"
        )
    unknown = sorted(set(masks) - set(student))
    if unknown:
        raise ValueError(f"where: expected node types among {sorted(student)}, got {unknown}")

    types = sorted(student)
    students = {t: real_array(f"student[{t!r}]", student[t]) for t in types}
    teachers = {t: real_array(f"teacher[{t!r}]", teacher[t]) for t in types}
    for name, side in (("student", students), ("teacher", teachers)):
        shapes = {t: rows.shape for t, rows in side.items()}
        for t, shape in shapes.items():
            if len(shape) != 2 or shape[1] == 0:
                raise ValueError(f"{name}[{t!r}]: expected shape [N, width], got {shape}")
        if len({width for _, width in shapes.values()}) > 1:
            raise ValueError(f"{name}: expected one width for all node types, got {shapes}")
    for t in types:
        of_student, of_teacher = students[t].shape, teachers[t].shape
        if of_student[0] != of_teacher[0]:
            raise ValueError(
                f"student[{t!r}], teacher[{t!r}]: expected the same number of rows, "
                f"got {of_student} and {of_teacher}"
            )
    checked = {t: check_where(masks.get(t), len(students[t]), f"where[{t!r}]") for t in types}
    return students, teachers, checked
