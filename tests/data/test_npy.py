"""Reading .npy files without trust."""

import io
import struct
from typing import Any

import numpy as np
import pytest

from hire_jax.data import DatasetError
from hire_jax.data.npy import read_array


def read(data: bytes, size: int | None = None) -> np.ndarray:
    return read_array(io.BytesIO(data), len(data) if size is None else size, "here")


def stored(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def headed(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize("array", [
    np.arange(6, dtype=np.int32).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(7),
    np.zeros((0, 3)), np.array([1, 2], ">i8"), np.array(b"csr"), np.array(["a", "bc"]), np.array([True, False]),
])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_round_trip(array: np.ndarray, version: tuple[int, int]) -> None:
    found = read(stored(array, version=version))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_bytes_of_bools_become_bools() -> None:
    found = read(headed("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", b"\x00\x01\x02"))
    assert found.astype(int).tolist() == [0, 1, 1]


@pytest.mark.parametrize("data, says", [
    (b"", "ValueError: EOF"),
    (b"PK\x03\x04" * 9, "the magic string is not correct"),
    (stored([1, 2])[:-1], "16 bytes stated by shape \\[2\\], 15 there"),
    (stored([1, 2]) + b"x", "16 bytes stated by shape \\[2\\], 17 there"),
    (stored(np.array([None]), allow_pickle=True), "objects, which only pickle reads"),
    (headed("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (), }"), "objects"),
    (headed("{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000,), }"), "4000000000000 bytes stated"),
    (headed("{'descr': '<i4', 'fortran_order': False, 'shape': (-1,), }"), "-4 bytes stated"),
    (headed("{'descr': '<i4', 'fortran_order': False, 'shape': (-1, -1), }", b"1234"), "ValueError"),
    (headed("{'descr': '<i4', 'fortran_order': False, 'shape': (0, 10000000000000000000000), }"), "ValueError"),
    (headed("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }"), "ValueError"),
    (headed("9" * 9999), "Cannot parse header: .{1,200}$"),
    (headed("(" * 500), "TokenError|SyntaxError"),
    (stored([1, 2]).replace(b"NUMPY\x01", b"NUMPY\x03"), r"version \(3, 0\)"),
])
def test_damaged(data: bytes, says: str) -> None:
    with pytest.raises(DatasetError, match=f"^here: expected a plain array in numpy's format, found .*({says})"):
        read(data)


def test_size_that_the_stream_has_not() -> None:
    with pytest.raises(DatasetError, match="8 of 16 bytes"):
        read(stored([1, 2])[:-8], len(stored([1, 2])))
