"""What parsers of original formats share: reading numpy files without trust, and the arrays of the npz form."""

import io
import zipfile

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.errors import DatasetError
from hire_jax.data.npy import read_array
from hire_jax.data.originals import READ_LIMIT, Originals, check_packing

Arrays = dict[str, np.ndarray]
MAX_WIDTH = 1 << 24  # columns of features: a matrix may state any number, and whoever transposes it allocates for each


def read_npy(files: Originals, name: str) -> np.ndarray:
    """An array from a .npy file, never by unpickling.

    Raises:
        DatasetError: the file is missing or damaged, holds objects, or states more than it has.
    """
    content = files.read(name)
    return read_array(io.BytesIO(content), len(content), f"{files.where}: {name}")


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
                check_packing(members[key], f"{where}: {key}")
                with archive.open(members[key]) as stream:
                    arrays[key] = read_array(stream, members[key].file_size, f"{where}: {key}")
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes surface as a dozen types
        raise DatasetError(f"{where}: expected a complete npz file, found one that cannot be read "
                           f"({type(error).__name__}: {str(error)[:200]})") from error
    return arrays


def only_npz(files: Originals) -> str:
    """The name of the one .npz file.

    Raises:
        DatasetError: there is none, or there are several.
    """
    found = sorted(name for name in files.openers if name.endswith(".npz"))
    if len(found) != 1:
        raise DatasetError(f"{files.where}: expected one .npz file, found {found[:12] or sorted(files.openers)[:12]}")
    return found[0]


def integers_below(values: np.ndarray, limit: int, where: str) -> np.ndarray:
    """`values` as int64, all from 0 to `limit` - 1.

    Raises:
        DatasetError: they are not integers, or one is out of range; the message begins with `where`.
    """
    if values.dtype.kind not in "iu":
        raise DatasetError(f"{where}: expected integers, found {describe(values)}")
    wrong = (values < 0) | (values >= limit)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        raise DatasetError(
            f"{where}: expected integers from 0 to {limit - 1}, found {values[tuple(index)]} at {index.tolist()}"
        )
    return values.astype(np.int64)


def finite_float32(values: np.ndarray, where: str) -> np.ndarray:
    """`values` as float32.

    Raises:
        DatasetError: they are not real numbers, or one is not finite in float32; the message begins with `where`.
    """
    if values.dtype.kind not in "fiub":
        raise DatasetError(f"{where}: expected real numbers, found {describe(values)}")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported below
        floats = values.astype(np.float32)
    wrong = ~np.isfinite(floats)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        raise DatasetError(
            f"{where}: expected numbers finite in float32, found {values[tuple(index)]} at {index.tolist()}"
        )
    return floats


def csr_entries(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, shape: tuple[int, int], where: str, *, once: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, values) of the entries of a CSR matrix that is not to be trusted; values as finite float32.

    Args:
        indptr, indices, data, shape: the matrix's parts.
        where: what errors begin with.
        once: whether no entry may stand there twice, as may the edges of an adjacency.

    Raises:
        DatasetError: the arrays do not make a matrix of that shape.
    """
    height, width = shape
    if height < 0 or not 0 <= width <= MAX_WIDTH:
        raise DatasetError(f"{where}: shape: expected rows and at most {MAX_WIDTH} columns, found {height}, {width}")
    for name, array in (("indptr", indptr), ("indices", indices), ("data", data)):
        if array.ndim != 1:
            raise DatasetError(f"{where}: {name}: expected a vector, found {describe(array)}")
    if len(indptr) != height + 1 or len(data) != len(indices):
        raise DatasetError(
            f"{where}: expected {height + 1} row limits (indptr) for {height} rows and as many values (data) as "
            f"columns (indices), found {len(indptr)}, {len(data)} and {len(indices)}"
        )
    limits = integers_below(indptr, len(indices) + 1, f"{where}: indptr")
    if limits[0] != 0 or limits[-1] != len(indices) or (np.diff(limits) < 0).any():
        raise DatasetError(
            f"{where}: indptr: expected numbers that rise from 0 to {len(indices)} without falling, "
            f"found {limits[0]} to {limits[-1]}{', falling between' if (np.diff(limits) < 0).any() else ''}"
        )
    columns = integers_below(indices, width, f"{where}: indices")
    rows = np.repeat(np.arange(height), np.diff(limits))
    places = rows * width + columns
    if once and not (np.diff(places) > 0).all():
        unique, counts = np.unique(places, return_counts=True)
        if len(unique) < len(places):
            row, column = divmod(int(unique[np.argmax(counts > 1)]), width)
            raise DatasetError(f"{where}: expected each entry once, found row {row}, column {column} twice")
    return rows, columns, finite_float32(data, f"{where}: data")


def sparse_entries(
    form: str, first: np.ndarray, second: np.ndarray, data: np.ndarray, shape: tuple[int, int], where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, values) of a sparse matrix in a form of scipy's, not to be trusted; values as finite float32.

    Args:
        form: "csr", "csc" or "coo".
        first, second: indptr and indices, or for "coo" the rows and columns.
        data: the values.
        shape: rows and columns, which the caller has checked: memory is taken for each row (or column, of "csc").
        where: what holds the matrix, for errors.

    Raises:
        DatasetError: as `csr_entries`.
    """
    if form == "csr":
        return csr_entries(first, second, data, shape, where)
    if form == "csc":
        columns, rows, values = csr_entries(first, second, data, (shape[1], shape[0]), where)
        return rows, columns, values
    if first.ndim != 1 or not first.shape == second.shape == data.shape:
        raise DatasetError(f"{where}: expected three vectors of one length (row, col, data), "
                           f"found {describe(first)}, {describe(second)} and {describe(data)}")
    rows = integers_below(first, shape[0], f"{where}: row")
    order = np.argsort(rows, kind="stable")
    limits = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return csr_entries(limits, second[order], data[order], shape, where)


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
    ordered = np.sort(sources.astype(np.int64) * width + destinations)
    unique = ordered[np.diff(ordered, prepend=-1) != 0]  # np.unique would hash, which takes ten times as long
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
