"""Reading pickles that should hold arrays only, without the power to run code.

A pickle may name any importable function and call it. Here only the few names that numpy arrays, scipy's CSR
matrices and plain containers need can be found; a matrix becomes a `PickledCSR`, so scipy's classes take no
part.
"""

import io
import pickle
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from hire_jax.data.errors import DatasetError


class PickledCSR(NamedTuple):
    """A CSR matrix as it stood in a pickle."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, data: bytes, where: str):
        # Planetoid's files were written by Python 2: their bytes are text only under latin1.
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.where = where
        # A class of its own for every load: a pickle can set attributes on a Python class it can name.
        self.matrix = type("Matrix", (), {})
        reconstruct = np.empty(0).__reduce__()[0]  # numpy's own, under whichever private name it has today
        self.allowed: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): np.dtype,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("collections", "defaultdict"): defaultdict,
            ("__builtin__", "list"): list,
            ("builtins", "list"): list,
            ("scipy.sparse.csr", "csr_matrix"): self.matrix,
            ("scipy.sparse._csr", "csr_matrix"): self.matrix,
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise DatasetError(
                f"{self.where}: expected only arrays, CSR matrices and lists, found {module}.{name}; "
                "it was not loaded"
            )
        return self.allowed[module, name]


def load_arrays(data: bytes, where: str) -> np.ndarray | PickledCSR | dict[Any, Any]:
    """The one array, CSR matrix or dict of lists in a pickle; `where` names its origin in errors.

    Raises:
        DatasetError: the pickle is damaged, names anything else, or holds another kind of object.
    """
    unpickler = _ArraysOnly(data, where)
    try:
        value = unpickler.load()
        if isinstance(value, unpickler.matrix):
            state = vars(value)
            rows, columns = (int(size) for size in state["_shape"])
            value = PickledCSR(state["indptr"], state["indices"], state["data"], (rows, columns))
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes surface as nearly any type
        raise DatasetError(
            f"{where}: expected a pickle, found bytes that are none ({type(error).__name__}: {error})"
        ) from error
    arrays = value[:3] if isinstance(value, PickledCSR) else (value,)
    if isinstance(value, dict) or all(isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for a in arrays):
        return value
    raise DatasetError(
        f"{where}: expected numbers in an array or CSR matrix, or a dict, found {type(value).__name__}"
    )
