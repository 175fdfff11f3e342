"""Columns of whatever a user has (lists, numpy, pandas, polars, pyarrow, torch) as plain numpy arrays."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from hire_jax.graph import GraphError
from hire_jax.interop.tensors import host_array


def plain_array(column: Any, where: str) -> np.ndarray:
    """A column as booleans, integers or floats, [N] or [N, F], or else as objects [N]; nothing is converted silently.

    A list of equal kinds becomes an array of that kind, integers beside floats become floats, vectors of one length
    become rows; strings, missing values and mixtures stay objects for the caller to accept or name.

    Args:
      column: the values, in order.
      where: what to call the column in errors.

    Raises:
      GraphError: it is no column (a string, a dict, a set, a single value), or of a dtype that is none of the above.
    """
    if isinstance(column, str | bytes | Mapping | Set):
        raise GraphError(f"{where}: expected a column of values in order, found {type(column).__name__}")
    if isinstance(column, np.ma.MaskedArray):
        return _of_items(column.tolist())
    array = _array_of(column, where)
    if array is None:
        if not isinstance(column, Iterable):
            raise GraphError(f"{where}: expected a column of values, found {shown(column)}")
        try:
            return _of_items(list(column))
        except Exception as error:  # the column is a stranger's object
            raise GraphError(f"{where}: expected a column of values, found {type(column).__name__} "
                             f"({type(error).__name__}: {error})") from error
    if array.dtype.kind in "biuf" and array.ndim in (1, 2):
        return array
    if array.dtype.kind in "UTO" and array.ndim == 1:  # T: numpy's variable-width strings
        return _of_items(array.tolist())
    raise GraphError(f"{where}: expected numbers [N] or [N, F] or strings [N], "
                     f"found {array.dtype} of shape {list(array.shape)}")


def missing(value: Any) -> bool:
    """Whether a value of a plain array says that there is none: None, NaN, the empty string."""
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return value is None or (isinstance(value, str) and not value)


def shown(value: Any) -> str:
    """A value as error messages write it: short, with its type."""
    if missing(value):
        return "nothing (a missing value)"
    value = value.item() if isinstance(value, np.generic) else value
    return f"{brief(value)} ({type(value).__name__})"


def brief(value: Any) -> str:
    """A value as Python writes it, of 60 characters at most."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a very large one"
    return text if len(text) <= 60 else text[:57] + "..."


def objects(items: Iterable[Any]) -> np.ndarray:
    """Python objects [N], whatever they are: sequences among them stay single objects."""
    return np.fromiter(items, dtype=object)


def _array_of(column: Any, where: str) -> np.ndarray | None:
    """The array that a column is or offers, None for plain sequences."""
    if isinstance(column, np.ndarray):
        return column
    if hasattr(column, "detach"):
        return host_array(column, where)
    if not hasattr(column, "__array__"):
        return None
    try:
        return np.asarray(column)
    except Exception as error:  # the column is a stranger's object
        raise GraphError(f"{where}: expected a column that converts to numpy, found {type(column).__name__} "
                         f"({type(error).__name__}: {error})") from error


def _of_items(items: list[Any]) -> np.ndarray:
    kinds = {type(item) for item in items}

    def only(*allowed: type) -> bool:
        return all(issubclass(kind, allowed) for kind in kinds)

    if not items:
        return np.zeros(0)
    if only(bool, np.bool_):
        return np.array(items, dtype=bool)
    try:
        if not any(issubclass(kind, bool) for kind in kinds):
            if only(int, np.integer):
                return np.array(items, dtype=np.int64)
            if only(int, float, np.integer, np.floating):
                return np.array(items, dtype=np.float64)
        if only(list, tuple, np.ndarray):
            rows = np.array(items)
            if rows.ndim == 2 and rows.dtype.kind in "biuf":
                return rows
    except (OverflowError, ValueError):  # numbers beyond 64 bits, rows of different lengths: no plain array
        pass
    return objects(items if kinds <= {str} else map(_plain, items))


def _plain(item: Any) -> Any:
    """An item without numpy's or pandas' clothes: their NA and NaT compare with nothing."""
    if type(item).__name__ in ("NAType", "NaTType"):
        return None
    return item.item() if isinstance(item, np.generic) else item
