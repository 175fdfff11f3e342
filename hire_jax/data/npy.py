"""Arrays in numpy's file format, read without trust: never by unpickling, never more than is there."""

import math
from typing import IO

import numpy as np

from hire_jax.data.errors import DatasetError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    """The array in a .npy file; it may be read-only.

    Args:
        stream: the file.
        size: how many bytes it has.
        where: its origin, for errors.

    Raises:
        DatasetError: it is damaged, holds objects, or states more or less than it has.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version}")
        shape, by_column, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            raise ValueError("objects, which only pickle reads")
        # A short file may state a vast shape; numpy's own reader would allocate for it before it reads.
        stated, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
        if stated != there:
            raise ValueError(f"{stated} bytes stated by shape {list(shape)}, {there} there")
        content = stream.read(stated)
        if len(content) != stated:
            raise ValueError(f"{len(content)} of {stated} bytes")
        if dtype.kind == "b":  # a byte other than 0 and 1 would make a bool that is neither
            values = np.frombuffer(content, np.uint8) != 0
        else:
            values = np.frombuffer(content, dtype)
        return values.reshape(shape, order="F" if by_column else "C")
    except Exception as error:  # damaged bytes surface as a dozen types
        raise DatasetError(f"{where}: expected a plain array in numpy's format, found {type(error).__name__}: "
                           f"{str(error)[:200]}") from error
