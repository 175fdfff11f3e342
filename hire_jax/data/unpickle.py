"""Reading pickles that should hold arrays only, without the power to run code or to take memory beyond their size.

`pickle_reader` writes down what a pickle would have made, and calls nothing. Here that is checked and made into arrays.
"""

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.pickle_reader import SPARSE, Made, read_pickle

MAX_DEPTH = 8  # of containers in containers
MAX_AXES = 4
_TYPE_CODES = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))
_OBJECT_CODES = frozenset(("O", "O4", "O8"))
_INT64 = np.iinfo(np.int64)


class PickledCSR(NamedTuple):
    """A CSR matrix as it stood in a pickle; whether its arrays agree is not checked."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]


class PickledSparse(NamedTuple):
    """A sparse matrix of any form as it stood in a pickle; whether its arrays agree is not checked.

    Attributes:
        form: "csr", "csc" or "coo".
        first, second: indptr and indices, or the rows and columns of COO.
        data: the values.
        shape: rows and columns.
    """

    form: str
    first: np.ndarray
    second: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]


Pickled: TypeAlias = (
    "np.ndarray | PickledSparse | bool | int | float | str | list[Pickled] | dict[str | int, Pickled]"
)


def load_arrays(data: bytes, where: str) -> np.ndarray | PickledCSR | dict[Any, Any]:
    """The one array, CSR matrix or dict of lists in a pickle; `where` names its origin in errors.

    Raises:
        DatasetError: the pickle is damaged, names anything else, or holds another kind of object.
    """
    value = load_nested(data, where)
    if isinstance(value, PickledSparse) and value.form == "csr":
        return PickledCSR(value.first, value.second, value.data, value.shape)
    if isinstance(value, np.ndarray | dict):
        return value
    raise DatasetError(f"{where}: expected numbers in an array or CSR matrix, or a dict, found {type(value).__name__}")


def load_nested(data: bytes, where: str) -> Pickled:
    """An array, sparse matrix, number or text, or lists and dicts of these, from a pickle of protocol 0 to 4.

    Tuples become lists, numpy's numbers Python's, an array of one object without axes (as numpy writes an object into
    an npz file) that object. Integers fit 64 bits. Arrays may be read-only.

    Args:
        data: the pickle, written by Python 2 or 3.
        where: its origin, for errors.

    Raises:
        DatasetError: the pickle is damaged, names or holds anything else, or states more than it has.
    """
    try:
        return _Content(where, budget=len(data)).value(read_pickle(data, where))
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes surface as nearly any type
        raise DatasetError(
            f"{where}: expected a pickle of arrays, found bytes that are none ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error


class _Content:
    """Makes arrays of what a pickle describes, each object once, however often the pickle refers to it."""

    def __init__(self, where: str, budget: int):
        self.where = where
        self.budget = budget  # bytes of arrays: in an honest pickle each array's stand once
        self.done: dict[int, Any] = {}  # by id, as all these objects live for as long as the loaded one

    def refuse(self, expected: str, found: str) -> DatasetError:
        return DatasetError(f"{self.where}: expected {expected}, found {found}")

    def value(self, found: Any, depth: int = 0) -> Pickled:
        """What `found` stands for."""
        if type(found) is int:
            if not _INT64.min <= found <= _INT64.max:
                raise self.refuse("integers of 64 bits", f"a value of type int with {found.bit_length()} bits")
            return found
        if isinstance(found, bool | float | str):
            return found
        if id(found) not in self.done:
            if depth > MAX_DEPTH:
                raise self.refuse(f"at most {MAX_DEPTH} containers in one another", "more")
            self.done[id(found)] = self  # marks what is being made
            self.done[id(found)] = self._made(found, depth)
        if self.done[id(found)] is self:
            raise self.refuse("lists and dicts that end", "one within itself")
        return self.done[id(found)]

    def _made(self, found: Any, depth: int) -> Pickled:
        if isinstance(found, list | tuple):
            return [self.value(item, depth + 1) for item in found]
        if isinstance(found, dict):
            return {key: self.value(item, depth + 1) for key, item in found.items()}
        kind = found.kind if isinstance(found, Made) else type(found).__name__
        if kind == "ndarray":
            if not isinstance(found.state, tuple) or len(found.state) != 5:
                raise self.refuse("arrays with their content", "one without")
            _, shape, stored, _, raw = found.state
            if isinstance(raw, list) and len(raw) == 1 and shape == () and _code(stored) in _OBJECT_CODES:
                return self.value(raw[0], depth + 1)
            return self._array(*found.state[1:])
        if kind == "scalar":
            stored, raw = found.arguments
            return self._array((), stored, False, raw).item()
        if kind in SPARSE:
            return self._sparse(kind, found.state)
        raise self.refuse("arrays, sparse matrices, numbers, texts, lists and dicts", kind)

    def _array(self, shape: Any, stored: Any, by_column: Any, raw: Any) -> np.ndarray:
        code = _code(stored)
        if code not in _TYPE_CODES:
            raise self.refuse("arrays of real numbers", f"an array of type {code[:20]!r}")
        dtype = np.dtype(code).newbyteorder(">" if stored.state[1] == ">" else "<")
        content = self._bytes(raw)
        if not isinstance(shape, tuple) or len(shape) > MAX_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise self.refuse(f"an array's shape as at most {MAX_AXES} counts", "something else")
        if math.prod(shape) * dtype.itemsize != len(content):
            raise self.refuse(f"an array of {len(content)} bytes", f"another shape stated for {code}")
        self.budget -= len(content)
        if self.budget < 0:
            raise self.refuse("each array's bytes once", "arrays that share them")
        if code == "b1":  # a byte other than 0 and 1 would make a bool that is neither
            values = np.frombuffer(content, np.uint8) != 0
        else:
            values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="), copy=False)
        return values.reshape(shape, order="F" if by_column else "C")

    def _bytes(self, raw: Any) -> bytes:
        if isinstance(raw, bytes):
            return raw
        if id(raw) not in self.done:
            text = raw
            if isinstance(raw, Made) and raw.kind == "encode":
                text, encoding = raw.arguments
                if encoding != "latin1":
                    raise self.refuse("an array's bytes as characters of latin1", "another encoding")
            if not isinstance(text, str):
                raise self.refuse("an array's bytes", type(text).__name__)
            self.done[id(raw)] = text.encode("latin1")
        return self.done[id(raw)]

    def _sparse(self, form: str, state: Any) -> PickledSparse:
        rows, columns = state["_shape"]
        if type(rows) is not int or type(columns) is not int:
            raise self.refuse("a sparse matrix's shape as two counts", "something else")
        if form == "coo":
            ends = state["coords"] if "coords" in state else (state["row"], state["col"])
        else:
            ends = state["indptr"], state["indices"]
        first, second, data = (self.value(part) for part in (*ends, state["data"]))
        if not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray) and isinstance(data, np.ndarray)):
            raise self.refuse(f"a sparse matrix ({form}) of three arrays", "something else")
        return PickledSparse(form, first, second, data, (rows, columns))


def _code(stored: Any) -> str:
    """The code of a dtype, such as "f4"; "" of anything else."""
    code = stored.arguments[0] if isinstance(stored, Made) and stored.kind == "dtype" else None
    return code if isinstance(code, str) else ""
