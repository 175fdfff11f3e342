"""The form of the co-purchase and co-author graphs (Shchur et al., arXiv 1811.05868): one npz file of CSR matrices."""

import io
import zipfile

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import (
    Arrays,
    csr_arrays,
    csr_entries,
    finite_float32,
    integers_below,
    only_npz,
    read_npy,
    undirected,
)
from hire_jax.data.originals import READ_LIMIT, Originals, check_packing
from hire_jax.data.unpickle import PickledCSR, load_arrays

_CSR = ("indptr", "indices", "data", "shape")
# What loaders of either scheme accept as the name of the same array; the first one found is taken.
_ADJACENCY = ("adj", "adj_matrix")
_ATTRIBUTES = ("attr", "node_attr", "attr_matrix")
_LABELS = ("labels", "node_label", "label")


def parse_gnn_benchmark(files: Originals, *, name: str | None = None) -> Arrays:
    """The arrays of the npz form (type `node`, relation `node__to__node`, no split) from a file of gnn-benchmark's or
    of GraphData's, a collection that publishes the same graphs in other files.

    | | gnn-benchmark | GraphData |
    |---|---|---|
    | adjacency, [N, N] | `adj_data`, `adj_indices`, `adj_indptr`, `adj_shape` | `adj_matrix`, a pickled CSR matrix |
    | attributes, [N, F] | `attr_data`, ... (or dense `attr_matrix`) | `node_attr` or `attr_matrix`, pickled or dense |
    | class numbers, [N] | `labels` | `node_label` or `label` |

    The keys on the left are those that gnn-benchmark's own gnnbench/data/io.py reads and writes. Those on the right
    were read in loaders, as the files themselves were not at hand: two that fetch from GraphData's address (GraphWar's
    and another project's) take `adj_matrix`, `node_attr` and `node_label`; `attr_matrix` and `label` are the keys of
    an earlier collection of its author's, GraphWarData. numpy pickles a sparse matrix as an array of one object, which
    `load_arrays` reads here. Other keys, such as the names of nodes and classes, are pickled too and never read.

    Every stored entry of the adjacency is an edge, whatever its weight, as the benchmark itself takes them; edges are
    taken in both directions, without self loops and duplicates. Attributes become CSR, without their zeros; all nodes
    are kept, not only the largest component's.

    Args:
        files: the npz file; others are not read.
        name: the npz file's name; not needed where there is but one.

    Raises:
        DatasetError: the file or an array is missing or not what it should be.
    """
    name = only_npz(files) if name is None else name
    members = _members(files, name)
    rows, columns, _, shape = _matrix(members, _ADJACENCY, once=False)
    count = shape[0]
    if shape[1] != count or not count:
        raise DatasetError(f"{members.where}: adjacency: expected a square matrix, found {list(shape)}")
    nodes, words, values, size = _matrix(members, _ATTRIBUTES, once=True)
    if size[0] != count:
        raise DatasetError(f"{members.where}: attributes: expected rows for {count} nodes, found {size[0]}")
    labels = read_npy(members, f"{_first(members, _LABELS)}.npy")
    where = f"{members.where}: labels"
    if labels.shape != (count,):
        raise DatasetError(f"{where}: expected one for each of {count} nodes, found {describe(labels)}")
    kept = values != 0
    return {
        "num_nodes/node": np.array(count, dtype=np.int32),
        **csr_arrays("x/node", nodes[kept], words[kept], values[kept], shape=size),
        "edge/node__to__node": undirected(rows, columns),
        # Every class has a node, so that no class number reaches the number of nodes.
        "y/node": integers_below(labels, count, where).astype(np.int32),
    }


def _members(files: Originals, name: str) -> Originals:
    """The members of an npz file, which is a zip archive, as files: arrays in numpy's format by their keys."""
    where = f"{files.where}: {name}"
    content = files.read(name)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            for info in infos:
                check_packing(info, f"{where}: {info.filename[:60]}")
            if sum(info.file_size for info in infos) > READ_LIMIT:
                raise DatasetError(f"{where}: expected arrays of at most {READ_LIMIT} bytes, found more")
            return Originals.of_files({info.filename: archive.read(info) for info in infos}, where)
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes surface as a dozen types
        raise DatasetError(f"{where}: expected a complete npz file, found one that cannot be read "
                           f"({type(error).__name__}: {str(error)[:200]})") from error


def _first(members: Originals, names: tuple[str, ...]) -> str:
    """The first of several names under which an array or the four arrays of a CSR matrix are there."""
    for name in names:
        if f"{name}.npy" in members.openers or f"{name}_indptr.npy" in members.openers:
            return name
    wanted = " or ".join(names)
    raise DatasetError(f"{members.where}: expected an array {wanted}, found {sorted(members.openers)[:20]}")


def _matrix(
    members: Originals, names: tuple[str, ...], *, once: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Rows, columns and values of a matrix's entries, however it is stored, and its shape."""
    key = _first(members, names)
    where = f"{members.where}: {key}"
    if f"{key}.npy" not in members.openers:
        indptr, indices, data, stated = (read_npy(members, f"{key}_{part}.npy") for part in _CSR)
        if stated.shape != (2,):
            raise DatasetError(f"{where}_shape: expected rows and columns, found {describe(stated)}")
        height, width = integers_below(stated, 1 << 31, f"{where}_shape").tolist()
        return *csr_entries(indptr, indices, data, (height, width), where, once=once), (height, width)
    pickled = _pickle(members.read(f"{key}.npy"))
    if pickled is None:
        dense = read_npy(members, f"{key}.npy")
        if dense.ndim != 2:
            raise DatasetError(f"{where}: expected a matrix, found {describe(dense)}")
        values = finite_float32(dense, where)
        rows, columns = np.nonzero(values)
        return rows, columns, values[rows, columns], (dense.shape[0], dense.shape[1])
    matrix = load_arrays(pickled, where)
    if not isinstance(matrix, PickledCSR):
        raise DatasetError(f"{where}: expected a CSR matrix, found {type(matrix).__name__}")
    return *csr_entries(*matrix, where, once=once), matrix.shape


def _pickle(data: bytes) -> bytes | None:
    """The pickle in a .npy file of one object; None where it has no objects, or is damaged."""
    stream = io.BytesIO(data)
    try:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[np.lib.format.read_magic(stream)](stream)
    except Exception:  # numpy raises many types here; `read_npy` says what is wrong
        return None
    return stream.read() if dtype.hasobject and shape == () else None
