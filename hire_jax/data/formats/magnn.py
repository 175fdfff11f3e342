"""MAGNN's form of the IMDB graph (Fu et al., arXiv 2002.01680): IMDB_processed.zip, and the split drawn for it."""

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.formats.arrays import (
    Arrays,
    both_directions,
    csr_arrays,
    integers_below,
    read_npy,
    read_npz_members,
    unique_edges,
)
from hire_jax.data.formats.scipy_npz import read_sparse
from hire_jax.data.originals import Originals

NODE_TYPES = ("movie", "director", "actor")  # in the order of their numbers; movies have labels and all links
NUM_CLASSES = 3
SPLIT_SEED = 1566911444
_ADJACENCY, _TYPES, _LABELS, _SPLIT = "adjM.npz", "node_types.npy", "labels.npy", "train_val_test_idx.npz"


def parse_magnn(files: Originals) -> Arrays:
    """The arrays of the npz form from MAGNN's IMDB_processed.zip (Fu et al., arXiv 2002.01680).

    Read are adjM.npz (CSR, all nodes), node_types.npy, features_0.npz to features_2.npz (CSR, by type), labels.npy
    and train_val_test_idx.npz; the lists of metapath instances beside them are not needed.

    Raises:
        DatasetError: a file is missing or not what it should be.
    """
    types = _integers(files, _TYPES, read_npy(files, _TYPES), None, len(NODE_TYPES))
    members = [np.flatnonzero(types == kind) for kind in range(len(NODE_TYPES))]
    for name, nodes in zip(NODE_TYPES, members, strict=True):
        if not len(nodes):
            raise files.error(_TYPES, None, f"nodes of the type {NODE_TYPES.index(name)} ({name})", "none")
    movies = len(members[0])
    arrays: Arrays = {}
    for kind, name in enumerate(NODE_TYPES):
        count = len(members[kind])
        arrays[f"num_nodes/{name}"] = np.array(count, np.int32)
        rows, columns, values, width = read_sparse(files, f"features_{kind}.npz", count, forms=("csr",))
        kept = values != 0
        arrays |= csr_arrays(f"x/{name}", rows[kept], columns[kept], values[kept], shape=(count, width))
    labels = _integers(files, _LABELS, read_npy(files, _LABELS), movies, NUM_CLASSES)
    arrays["y/movie"] = labels.astype(np.int32)
    return arrays | _read_links(files, types, members) | _read_split(files, movies)


def magnn_split(count: int, *, train: int, val: int, seed: int = SPLIT_SEED) -> Arrays:
    """The split that MAGNN's preprocessing draws (Fu et al., arXiv 2002.01680).

    Validation nodes are drawn from all nodes, then test nodes from those left, each by a permutation of numpy's
    legacy generator from the same seed, whose stream numpy guarantees. With 400 training and 400 validation nodes
    this gives the splits published for DBLP and IMDB.

    Args:
        count: labelled nodes.
        train: training nodes.
        val: validation nodes; all others are for testing.
        seed: from 0 to 2**32 - 1; the published splits have the default.

    Returns:
        sorted int32 node indices under "train", "val", "test".

    Raises:
        ValueError: a part would be empty, or the seed is out of range.
    """
    if min(train, val, count - train - val) < 1:
        raise ValueError(f"expected at least one node in each part, found {count} nodes, train={train}, val={val}")
    order = np.random.RandomState(seed).permutation(count)
    rest = order[val:][np.random.RandomState(seed).permutation(count - val)]
    parts = {"train": rest[count - val - train :], "val": order[:val], "test": rest[: count - val - train]}
    return {part: np.sort(nodes).astype(np.int32) for part, nodes in parts.items()}


def _read_links(files: Originals, types: np.ndarray, members: list[np.ndarray]) -> Arrays:
    """Movie-director and movie-actor edges, in both directions."""
    sources, destinations, values, width = read_sparse(files, _ADJACENCY, len(types), forms=("csr",))
    if width != len(types):
        raise files.error(_ADJACENCY, None, f"as many columns as nodes ({len(types)})", str(width))
    if (values != 1).any():
        raise files.error(_ADJACENCY, None, "links of weight 1", str(values[np.argmax(values != 1)]))
    # A movie's type is 0, no other is: of each link exactly one end is a movie.
    wrong = (types[sources] == 0) == (types[destinations] == 0)
    if wrong.any():
        first = int(np.argmax(wrong))
        ends = [f"{NODE_TYPES[types[node]]} {node}" for node in (sources[first], destinations[first])]
        raise files.error(_ADJACENCY, None, "links between a movie and a director or an actor", " to ".join(ends))
    if not np.array_equal(unique_edges(sources, destinations), unique_edges(destinations, sources)):
        raise files.error(_ADJACENCY, None, "every link in both directions", "one without its reverse")
    ranks = np.empty(len(types), np.int64)
    for nodes in members:
        ranks[nodes] = np.arange(len(nodes))
    arrays: Arrays = {}
    for kind, name in enumerate(NODE_TYPES[1:], start=1):
        chosen = types[destinations] == kind
        if not chosen.any():
            raise files.error(_ADJACENCY, None, f"links between movies and {name}s", "none")
        arrays |= both_directions("movie", name, ranks[sources[chosen]], ranks[destinations[chosen]])
    return arrays


def _read_split(files: Originals, count: int) -> Arrays:
    parts = ("train", "val", "test")
    lists = read_npz_members(files, _SPLIT, tuple(f"{part}_idx" for part in parts))
    taken = np.zeros(count, dtype=bool)
    arrays = {}
    for part in parts:
        key = f"{part}_idx"
        nodes = np.sort(_integers(files, f"{_SPLIT}: {key}", lists[key], None, count))
        if not len(nodes):
            raise files.error(f"{_SPLIT}: {key}", None, "at least one node", "none")
        repeated = taken[nodes]
        repeated[1:] |= nodes[1:] == nodes[:-1]
        if repeated.any():
            again = f"node {nodes[np.argmax(repeated)]} again"
            raise files.error(f"{_SPLIT}: {key}", None, "each node once, in one part", again)
        taken[nodes] = True
        arrays[f"split/{part}"] = nodes.astype(np.int32)
    return arrays


def _integers(files: Originals, name: str, array: np.ndarray, length: int | None, high: int) -> np.ndarray:
    """An integer vector of this length and of values below `high`, as int64."""
    if array.dtype.kind not in "iu" or array.ndim != 1 or length not in (None, len(array)):
        expected = f"integers of shape [{'N' if length is None else length}]"
        raise files.error(name, None, expected, describe(array))
    return integers_below(array, high, f"{files.where}: {name}")
