"""Tables of named columns, read one column at a time, with errors that name table, row and column."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hire_jax.graph import GraphError
from hire_jax.interop.values import missing, plain_array, shown

MAX_CELLS = 1 << 27  # of a one-hot or multi-hot matrix (512 MB); more comes of a column that is no category
FLOAT32_MAX = float(np.finfo(np.float32).max)


def row_number(row: int) -> str:
    """Where a row stands in a table that has no lines of its own."""
    return f", row {row}"


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
      what: what errors call it.
      names: the columns' names, distinct.
      read: gives a column, as it came, by its name.
      place: what errors add to `what` for a row, such as ", row 5" or ":7".
    """

    what: str
    names: tuple[str, ...]
    read: Callable[[str], Any]
    place: Callable[[int], str] = row_number

    @classmethod
    def of(cls, what: str, table: Any) -> "Table":
        """A table from a dict of columns, a pandas or polars DataFrame, or a pyarrow Table.

        Raises:
          GraphError: it has no columns, or they are not named by distinct strings.
        """
        found = next((getattr(table, name) for name in ("column_names", "keys", "columns") if hasattr(table, name)), ())
        names = tuple(found() if callable(found) else found)
        if not names or not hasattr(table, "__getitem__"):
            raise GraphError(f"{what}: expected a table of named columns, such as a dict of lists or a DataFrame, "
                             f"found {type(table).__name__}{'' if names else ' without columns'}")
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise GraphError(f"{what}: expected columns named by distinct strings, found {list(names)[:20]}")
        return cls(what, names, table.__getitem__)

    def error(self, column: str, row: int | None, expected: str, found: str) -> GraphError:
        """A GraphError that names the table, the row if there is one, and the column."""
        place = "" if row is None else self.place(row)
        return GraphError(f"{self.what}{place}, column {column!r}: expected {expected}, found {found}")

    def column(self, name: str, use: str, rows: int | None = None) -> np.ndarray:
        """A column by its name, as `plain_array` gives it; `use` says what it is for.

        Raises:
          GraphError: there is no such column, or it has not `rows` rows.
        """
        if name not in self.names:
            raise GraphError(f"{self.what}: expected a column {name!r} ({use}), found the columns {list(self.names)}")
        where = f"{self.what}, column {name!r}"
        try:
            values = self.read(name)
        except Exception as error:  # the table is a stranger's object
            raise GraphError(f"{where}: expected a column, found {type(error).__name__}: {error}") from error
        array = plain_array(values, where)
        if rows not in (None, len(array)):
            raise self.error(name, None, f"{rows} rows like the other columns", str(len(array)))
        return array

    def ids(self, name: str, use: str, rows: int | None = None) -> np.ndarray:
        """A column of ids: int64 [N], or strings as objects [N].

        Raises:
          GraphError: as `column`, or it does not hold integers only or non-empty strings only.
        """
        array = self.column(name, use, rows)
        if not len(array):
            return np.zeros(0, dtype=np.int64)
        whole = array.dtype.kind in "iu" and array.ndim == 1
        good = array <= np.iinfo(np.int64).max if whole else _like_first(array.tolist())
        if not good.all():
            row = int(np.argmin(good))
            hint = "; pandas makes floats of integers with missing values" if array.dtype.kind == "f" else ""
            raise self.error(name, row, "an id (integers below 2**63 throughout, or non-empty strings throughout)",
                             shown(array[row]) + hint)
        return array.astype(np.int64) if whole else array

    def numbers(self, name: str, rows: int) -> np.ndarray:
        """A column of finite numbers as float32 [N, F]; F is 1 for plain columns.

        Raises:
          GraphError: as `column`; or a value is no number, is missing or not finite, or is too large for float32.
        """
        array = self.column(name, "features", rows)
        if array.dtype == object:
            for row, value in enumerate(array.tolist()):
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if not number or missing(value) or abs(value) > FLOAT32_MAX:
                    raise self.error(name, row, "a finite number, or vectors of one length throughout",
                                     f"{shown(value)}; name the column in ignore=, or, if it tells kinds apart, in "
                                     "categorical=")
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float32)
        numbers = numbers[:, None] if numbers.ndim == 1 else numbers
        finite = np.isfinite(numbers).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise self.error(name, row, f"finite numbers up to {FLOAT32_MAX:.1e}", shown(array[row].tolist()))
        return numbers

    def one_hot(self, name: str, rows: int) -> tuple[np.ndarray, list[str]]:
        """A column of kinds as float32 [N, kinds], and the kinds in ascending order.

        Raises:
          GraphError: as `column`; or a value is missing or is no string, integer or boolean; kinds of values are
            mixed; or there are so many values that the matrix would be vast.
        """
        values = self.column(name, "categorical", rows).tolist()
        for row, value in enumerate(values):
            if missing(value) or not isinstance(value, str | int) or type(value) is not type(values[0]):
                raise self.error(name, row, "a kind (strings, integers or booleans throughout)", shown(value))
        kinds = {kind: number for number, kind in enumerate(sorted(set(values)))}
        if rows * len(kinds) > MAX_CELLS:
            raise self.error(name, None, f"at most {MAX_CELLS // rows} different values in {rows} rows",
                             str(len(kinds)))
        matrix = np.zeros((rows, len(kinds)), np.float32)
        matrix[np.arange(rows), [kinds[value] for value in values]] = 1.0
        return matrix, [str(kind) for kind in kinds]


def _like_first(values: list[Any]) -> np.ndarray:
    """bool [N]: which values are ids of the kind of the first, non-empty strings or integers of 64 bits."""
    if isinstance(values[0], str):
        return np.array([isinstance(value, str) and value != "" for value in values])
    return np.array([type(value) is int and -(1 << 63) <= value < 1 << 63 for value in values])
