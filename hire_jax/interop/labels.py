"""Labels, from a column of class names or from an array of class numbers, as `Dataset` holds them."""

import re
from typing import Any, NamedTuple

import numpy as np

from hire_jax.data import DatasetError
from hire_jax.interop.table import MAX_CELLS, Table
from hire_jax.interop.values import missing, shown

MAX_CLASSES = 100_000  # class numbers above say that the array holds something else
_INTEGER = re.compile(r"0|-?[1-9]\d{0,17}", re.ASCII)


class Labels(NamedTuple):
    """int32 [N] class numbers or multi-hot [N, C], -1 where unlabelled, and the names of the classes."""

    values: np.ndarray
    classes: list[str]
    multilabel: bool


def column_labels(table: Table, column: str, separator: str | None, rows: int) -> Labels:
    """Labels from a column of class names or numbers; the classes are its distinct values in ascending order.

    Missing values and the number -1 mean unlabelled. Strings that are all integers count as integers.

    Args:
      table: the target's table.
      column: the labels' column.
      separator: what separates the classes of a node in a multi-label task, spaces around it left out; None for one
        class a node.
      rows: how many there are.

    Raises:
      DatasetError: a value is no class, kinds of values are mixed, no node or only one class is labelled, or there are
        so many classes that the multi-hot matrix would be vast.
    """
    array = table.column(column, "the labels", rows)
    if array.ndim == 2:
        return array_labels(array, f"{table.what}, column {column!r}")
    values = [_class(table, column, row, value) for row, value in enumerate(array.tolist())]
    parts: list[list[Any]]
    parts = [[] if value is None else [value] if separator is None else
             [part.strip() for part in str(value).split(separator)] for value in values]
    names = [name for names in parts for name in names]
    if names and all(isinstance(name, str) and _INTEGER.fullmatch(name) for name in names):
        parts = [[int(name) for name in names] for names in parts]
    parts = [[] if names == [-1] else names for names in parts]
    kind: type = next((type(names[0]) for names in parts if names), str)
    for row, names in enumerate(parts):
        bad = any(name == "" or type(name) is not kind or (isinstance(name, int) and name < 0) for name in names)
        if bad or len(set(names)) < len(names):
            raise _error(table, column, row, f"{'a class' if separator is None else 'distinct classes'}, strings or "
                         "integers from 0 like the other rows; nothing or -1 for unlabelled", shown(values[row]))
    classes: list[Any] = sorted({name for names in parts for name in names})
    if len(classes) < 2:
        raise _error(table, column, None, "at least two classes", f"{len(classes)}")
    number = {name: i for i, name in enumerate(classes)}
    if separator is None:
        labels = np.array([number[names[0]] if names else -1 for names in parts], np.int32)
    else:
        if rows * len(classes) > MAX_CELLS:
            raise _error(table, column, None, f"at most {MAX_CELLS // rows} classes of {rows} nodes", str(len(classes)))
        labels = np.zeros((rows, len(classes)), np.int32)
        for row, names in enumerate(parts):
            labels[row, [number[name] for name in names] or slice(None)] = 1 if names else -1
    return Labels(labels, [str(name) for name in classes], separator is not None)


def array_labels(array: np.ndarray, where: str) -> Labels:
    """Labels from class numbers [N] or [N, 1], kept as they are, or from multi-hot rows [N, C]; -1 or NaN: unlabelled.

    Args:
      array: integers, or floats or booleans that stand for them.
      where: what to call the array in errors.

    Raises:
      DatasetError: the array has another form or holds something else.
    """
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2) or not array.size:
        raise DatasetError(f"{where}: expected class numbers [N] or multi-hot rows [N, C], "
                           f"found {array.dtype} of shape {list(array.shape)}")
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), -1, array)
    multilabel = array.ndim == 2
    highest = 1 if multilabel else MAX_CLASSES - 1
    wrong = (array < -1) | (array > highest) | (array != np.floor(array))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DatasetError(f"{where}: expected integers from -1 (unlabelled) to {highest}, "
                           f"found {shown(array[place])} at {list(place)}")
    labels = array.astype(np.int32)
    count = labels.shape[1] if multilabel else int(labels.max()) + 1
    if multilabel:
        mixed = (labels < 0).any(axis=1) & (labels >= 0).any(axis=1)
        if mixed.any():
            row = int(np.argmax(mixed))
            raise DatasetError(f"{where}: expected rows all -1 or free of -1, "
                               f"found {labels[row].tolist()} in row {row}")
    if count < 2 or (labels < 0).all():
        raise DatasetError(f"{where}: expected labels of at least two classes, found {count} class(es)")
    return Labels(labels, [str(i) for i in range(count)], multilabel)


def _class(table: Table, column: str, row: int, value: Any) -> int | str | None:
    if missing(value):
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():  # pandas' integers with missing values
        return int(value)
    if not isinstance(value, int | str):
        raise _error(table, column, row, "a class: a string, an integer or a boolean", shown(value))
    return value


def _error(table: Table, column: str, row: int | None, expected: str, found: str) -> DatasetError:
    return DatasetError(str(table.error(column, row, expected, found)))
