"""One npz file as plain arrays by their keys, read without trust."""

import zipfile
from pathlib import Path

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.errors import DatasetError
from hire_jax.data.npy import read_array
from hire_jax.data.originals import check_packing


class NpzFile:
    """The arrays of one npz file and which of them were read, with errors that name the file and key.

    Raises:
        DatasetError: the file cannot be read, or holds something else than plain arrays, each under its own key.
    """

    def __init__(self, path: Path):
        self.path = path
        self.used: set[str] = set()
        self.arrays: dict[str, np.ndarray] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    key = info.filename.removesuffix(".npy")
                    if key in self.arrays:
                        raise self.error(key, "each key once", "it twice")
                    check_packing(info, f"{path}: {key}")
                    with archive.open(info) as stream:
                        self.arrays[key] = read_array(stream, info.file_size, f"{path}: {key}")
        except DatasetError:
            raise
        except Exception as error:  # damaged bytes surface as a dozen types, from zlib.error to RuntimeError
            raise DatasetError(
                f"{path}: expected a complete npz file of plain arrays, found a file that cannot be read "
                f"({type(error).__name__}: {str(error)[:200]}); it may be truncated: fetch or write it again"
            ) from error

    def error(self, key: str, expected: str, found: str) -> DatasetError:
        """A DatasetError that names the file and the key."""
        return DatasetError(f"{self.path}: {key}: expected {expected}, found {found}")

    def under(self, prefix: str) -> list[str]:
        """Keys below a prefix, sorted: types and relations have one order, however the file was written."""
        return sorted(key for key in self.arrays if key.startswith(prefix))

    def get(self, key: str, expected: str) -> np.ndarray:
        """The array under a key. Raises DatasetError where there is none."""
        if key not in self.arrays:
            near = [other for other in sorted(self.arrays) if other.split("/")[0] == key.split("/")[0]][:8]
            raise self.error(key, expected, "no such key" + (f", only {near}" if near else ""))
        self.used.add(key)
        return self.arrays[key]

    def integers(self, key: str, expected: str, ndim: int | None = None) -> np.ndarray:
        """The integers under a key. Raises DatasetError where there are none, or of another rank."""
        array = self.get(key, expected)
        if array.dtype.kind not in "iu" or ndim not in (None, array.ndim):
            raise self.error(key, expected, describe(array))
        return array

    def refuse_unknown(self, forms: str) -> None:
        """A key that nothing reads is a misspelt one; ignoring it would give a graph that lacks something.

        Args:
            forms: the keys that there may be, for the error.

        Raises:
            DatasetError: there is such a key.
        """
        unknown = sorted(set(self.arrays) - self.used)
        if unknown:
            raise self.error(unknown[0], f"a key of the form {forms}", "a key that has no meaning here")
