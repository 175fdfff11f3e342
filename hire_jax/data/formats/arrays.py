"""What parsers of original formats share: reading numpy files without trust, and the arrays of the npz form."""

import io
import zipfile

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.originals import READ_LIMIT, Originals

Arrays = dict[str, np.ndarray]


def read_npy(files: Originals, name: str) -> np.ndarray:
    """An array from a .npy file, never by unpickling.

    Raises:
        DatasetError: the file is missing or damaged, holds objects, or states more than it has.
    """
    return _array(files.read(name), f"{files.where}: {name}")


def read_npz_members(files: Originals, name: str, keys: tuple[str, ...]) -> Arrays:
    """Arrays from a .npz file, by their keys; other members, such as arrays of objects, are not touched.

    Raises:
        DatasetError: the file or a key is missing, or an array is damaged, holds objects, or states more than it has.
    """
    where = f"{files.where}: {name}"
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(files.read(name))) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for key in keys:
                if key not in members:
                    raise DatasetError(f"{where}: expected an array {key!r}, found {sorted(members)[:20]}")
                if members[key].file_size > READ_LIMIT:
                    raise DatasetError(f"{where}: {key}: expected at most {READ_LIMIT} bytes, found more")
                arrays[key] = _array(archive.read(members[key]), f"{where}: {key}")
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes surface as a dozen types
        raise DatasetError(f"{where}: expected a complete npz file, found one that cannot be read "
                           f"({type(error).__name__}: {error})") from error
    return arrays


def _array(data: bytes, where: str) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"version {version}")
        shape, _, dtype = read_header[version](stream)
        # A short file may state a vast shape, which numpy would allocate before it reads.
        stated = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if not dtype.hasobject and stated != len(data) - stream.tell():
            raise ValueError(f"{stated} bytes stated by shape {list(shape)}, {len(data) - stream.tell()} there")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:
        raise DatasetError(f"{where}: expected a plain array in numpy's format, found {type(error).__name__}: "
                           f"{error}") from error


def csr_arrays(
    key: str, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, *, shape: tuple[int, int]
) -> Arrays:
    """The four arrays of CSR features under `key`, from their entries in any order."""
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return {
        f"{key}/indptr": indptr.astype(np.int32),
        f"{key}/indices": columns[order].astype(np.int32),
        f"{key}/data": values[order].astype(np.float32),
        f"{key}/shape": np.array(shape, dtype=np.int32),
    }


def unique_edges(sources: np.ndarray, destinations: np.ndarray) -> np.ndarray:
    """int32 [2, E]: sorted by source, then destination, without duplicates."""
    width = int(destinations.max(initial=0)) + 1
    unique = np.unique(sources.astype(np.int64) * width + destinations)
    return np.stack([unique // width, unique % width]).astype(np.int32)


def both_directions(source: str, destination: str, sources: np.ndarray, destinations: np.ndarray, *,
                    relation: str = "to", reverse: str = "to") -> Arrays:
    """A relation and its reverse, sorted, without duplicates: the npz form has every relation in both directions.

    Args:
        source, destination: node types.
        sources, destinations: int [E], the ends of the edges.
        relation, reverse: names of the two relations.
    """
    return {f"edge/{source}__{relation}__{destination}": unique_edges(sources, destinations),
            f"edge/{destination}__{reverse}__{source}": unique_edges(destinations, sources)}


def undirected(sources: np.ndarray, destinations: np.ndarray) -> np.ndarray:
    """int32 [2, E]: both directions of every edge, sorted, without self loops and duplicates."""
    proper = sources != destinations
    ends = sources[proper], destinations[proper]
    return unique_edges(np.concatenate(ends), np.concatenate(ends[::-1]))
