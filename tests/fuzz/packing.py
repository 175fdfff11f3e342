"""Values packed as files: numpy's, zip, gzip, text."""

import gzip
import io
import zipfile
from typing import Any

import numpy as np
import scipy.sparse

Files = dict[str, bytes]


def npy(array: Any) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def zipped(members: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    """An .npz file, as numpy's `savez_compressed` writes it."""
    return zipped({f"{key}.npy": npy(array) for key, array in arrays.items()})


def matrix(array: Any) -> scipy.sparse.csr_matrix:
    """A CSR matrix of float32."""
    return scipy.sparse.csr_matrix(np.asarray(array, np.float32))


def matrix_npz(array: Any) -> bytes:
    """A CSR matrix as scipy's `save_npz` writes it."""
    made = matrix(array)
    return npz(indices=made.indices, indptr=made.indptr, format=np.array(b"csr"), shape=np.array(made.shape),
               data=made.data)


def text(*lines: str) -> bytes:
    """Lines with their ends."""
    return "".join(f"{line}\n" for line in lines).encode()


def packed(*lines: str) -> bytes:
    """A gzip-compressed text."""
    return gzip.compress(text(*lines), mtime=0)
