"""Sparse matrices as scipy's `save_npz` writes them, read without scipy and without trust."""

from collections.abc import Collection

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.formats.arrays import integers_below, read_npz_members, sparse_entries
from hire_jax.data.originals import Originals

ENDS = {"csr": ("indptr", "indices"), "csc": ("indptr", "indices"), "coo": ("row", "col")}
_INT32_MAX = np.iinfo(np.int32).max


def read_sparse(
    files: Originals, name: str, count: int, *, forms: Collection[str] = tuple(ENDS)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(rows, columns, float32 values, width) of a matrix of `count` rows, each entry once.

    Args:
        files, name: where it is.
        count: its rows.
        forms: which of "csr", "csc" and "coo" it may have.

    Raises:
        DatasetError: the file is missing or damaged, has another form, or is no matrix of `count` rows.
    """
    where = f"{files.where}: {name}"
    head = read_npz_members(files, name, ("format", "shape", "data"))
    kind, size = head["format"], head["shape"]
    text = kind.dtype.kind in "SU" and kind.ndim == 0
    form = next((form for form in forms if text and kind == np.array(form, kind.dtype.kind)), None)
    if form is None:
        found = repr(kind.tobytes()[:12]) if text else describe(kind)
        raise files.error(f"{name}: format", None, f"one of {list(forms)}", found)
    if size.shape != (2,):
        raise files.error(f"{name}: shape", None, "two counts", describe(size))
    rows, width = integers_below(size, _INT32_MAX, f"{where}: shape").tolist()
    if rows != count:
        raise files.error(f"{name}: shape", None, f"{count} rows", str(rows))
    ends = read_npz_members(files, name, ENDS[form])
    first, second = (ends[part] for part in ENDS[form])
    return *sparse_entries(form, first, second, head["data"], (rows, width), where), width
