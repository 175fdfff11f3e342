"""The Planetoid form of citation graphs (Yang et al., arXiv 1603.08861): pickles and a list of test nodes."""

from collections.abc import Mapping

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import csr_arrays, undirected
from hire_jax.data.unpickle import PickledCSR, load_arrays

PIECES = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


def parse_planetoid(files: Mapping[str, bytes], name: str, *, num_val: int = 500) -> dict[str, np.ndarray]:
    """The arrays of the npz form (type `node`, relation `node__to__node`, the public split) from Planetoid's
    files.

    allx and ally hold the nodes before the test range, tx and ty those in it, in the order of test.index. Ids
    in the test range that test.index lacks (15 in Citeseer) get no features and no label. Edges are taken in
    both directions, without self loops and duplicates. Training nodes are the first ones, as many as x has
    rows; validation nodes are the `num_val` that follow.

    Args:
        files: the bytes of each of PIECES. Check their origin first: unpickling is restricted, parsing trusts
            counts.
        name: the dataset's name, for errors.
        num_val: validation nodes.

    Raises:
        DatasetError: a file is not what it should be.
    """
    content = {piece: load_arrays(files[piece], f"ind.{name}.{piece}") for piece in PIECES[:-1]}
    x, tx, allx = (_matrix(content, piece, name) for piece in ("x", "tx", "allx"))
    ty, ally = (_one_hot(content, piece, name) for piece in ("ty", "ally"))
    graph = content["graph"]
    if not isinstance(graph, dict):
        raise DatasetError(
            f"ind.{name}.graph: expected a dict of neighbour lists, found {type(graph).__name__}"
        )
    test = np.array(files["test.index"].split(), dtype=np.int64)
    first, count = allx.shape[0], int(test.max()) + 1
    sizes = (len(ty), len(ally), len(np.unique(test)), int(test.min()))
    if sizes != (tx.shape[0], first, tx.shape[0], first) or len(test) != tx.shape[0]:
        raise DatasetError(
            f"ind.{name}.*: expected ty, ally and test.index to agree with tx ({tx.shape[0]} rows) and "
            f"allx ({first} rows), found (ty, ally, distinct test nodes, first test node) = {sizes}"
        )
    labels = np.full(count, -1, dtype=np.int32)
    labels[:first] = ally
    labels[test] = ty
    sources = np.repeat(list(graph), [len(neighbours) for neighbours in graph.values()])
    destinations = np.concatenate([np.asarray(neighbours, dtype=np.int64) for neighbours in graph.values()])
    return {
        "num_nodes/node": np.array(count, dtype=np.int32),
        **csr_arrays("x/node", *_stack([(np.arange(first), allx), (test, tx)]), shape=(count, allx.shape[1])),
        "edge/node__to__node": undirected(sources, destinations),
        "y/node": labels,
        "split/train": np.arange(x.shape[0], dtype=np.int32),
        "split/val": np.arange(x.shape[0], x.shape[0] + num_val, dtype=np.int32),
        "split/test": np.sort(test).astype(np.int32),
    }


def _matrix(content: Mapping[str, object], piece: str, name: str) -> PickledCSR:
    value = content[piece]
    if not isinstance(value, PickledCSR):
        raise DatasetError(f"ind.{name}.{piece}: expected a CSR matrix, found {type(value).__name__}")
    return value


def _one_hot(content: Mapping[str, object], piece: str, name: str) -> np.ndarray:
    value = content[piece]
    if not isinstance(value, np.ndarray) or value.ndim != 2 or (value.sum(axis=1) != 1).any():
        raise DatasetError(f"ind.{name}.{piece}: expected one-hot rows, found something else")
    return value.argmax(axis=1)


def _stack(blocks: list[tuple[np.ndarray, PickledCSR]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries (rows, columns, values) of several matrices, each with the node numbers of its rows."""
    rows = [np.repeat(nodes, np.diff(matrix.indptr)) for nodes, matrix in blocks]
    return (
        np.concatenate(rows),
        np.concatenate([matrix.indices for _, matrix in blocks]),
        np.concatenate([matrix.data for _, matrix in blocks]),
    )
