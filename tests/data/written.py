"""Bytes of files as numpy, scipy and zip write them, for tests of what reads them."""

import io
import zipfile

import numpy as np
import scipy.sparse


def npy(array: object) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=False)
    return stream.getvalue()


def sparse_npz(matrix: object) -> bytes:
    """What scipy's `save_npz` writes; an array is made a CSR matrix first."""
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, matrix if scipy.sparse.issparse(matrix) else scipy.sparse.csr_matrix(matrix))
    return stream.getvalue()


def repacked(archive: bytes, method: int) -> bytes:
    """The members of a zip archive, packed by another method."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as packed, zipfile.ZipFile(stream, "w", method) as again:
        for name in packed.namelist():
            again.writestr(name, packed.read(name))
    return stream.getvalue()
