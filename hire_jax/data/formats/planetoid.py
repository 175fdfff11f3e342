"""The Planetoid form of citation graphs (Yang et al., arXiv 1603.08861): pickles and a list of test nodes."""

from itertools import chain

import numpy as np

from hire_jax.data.formats.arrays import Arrays, csr_arrays, csr_entries, undirected
from hire_jax.data.formats.text import DIGITS, integer, shown
from hire_jax.data.originals import Originals
from hire_jax.data.unpickle import PickledCSR, load_arrays

PIECES = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


def parse_planetoid(files: Originals, name: str, *, num_val: int = 500) -> Arrays:
    """The arrays of the npz form (type `node`, relation `node__to__node`, the public split) from Planetoid's files.

    allx and ally hold the nodes before the test range, tx and ty those in it, in the order of test.index. Ids in the
    test range that test.index lacks (15 in Citeseer) get no features and no label. Edges are taken in both
    directions, without self loops and duplicates. Training nodes are the first ones, as many as x has rows;
    validation nodes are the `num_val` that follow.

    Unpickling is restricted to arrays, matrices and lists, and nothing that the files state is trusted. Whether they
    are the published ones, a checksum must tell.

    Args:
        files: ind.NAME.PIECE for each of PIECES.
        name: the NAME in the files' names.
        num_val: validation nodes, at least 1.

    Raises:
        DatasetError: a file is missing or not what it should be, or the files do not belong together.
        ValueError: `num_val` is less than 1.
    """
    if num_val < 1:
        raise ValueError(f"num_val: expected at least 1, found {num_val}")
    matrices = {piece: _matrix(files, _member(name, piece)) for piece in ("x", "tx", "allx")}
    classes = {piece: _one_hot(files, _member(name, piece)) for piece in ("y", "ty", "ally")}
    graph = _neighbours(files, _member(name, "graph"))
    test = _test_nodes(files, _member(name, "test.index"))
    _check_agreement(files, name, matrices, classes, test)
    first, count, num_train = len(classes["ally"]), int(test.max()) + 1, len(classes["y"])
    if num_train + num_val > first:
        expected = f"{num_train} training and {num_val} validation nodes before the test range"
        raise files.error(_member(name, "allx"), None, expected, f"{first} nodes")
    labels = np.full(count, -1, dtype=np.int32)
    labels[:first] = classes["ally"].argmax(axis=1)
    labels[test] = classes["ty"].argmax(axis=1)
    entries = {piece: csr_entries(*matrix, f"{files.where}: {_member(name, piece)}")
               for piece, matrix in matrices.items()}  # x is only checked: its rows are the first ones of allx
    rows, columns, values = entries["tx"]
    stacked = [np.concatenate(pair) for pair in zip(entries["allx"], (test[rows], columns, values), strict=True)]
    return {
        "num_nodes/node": np.array(count, dtype=np.int32),
        **csr_arrays("x/node", *stacked, shape=(count, matrices["allx"].shape[1])),
        "edge/node__to__node": _edges(files, _member(name, "graph"), graph, count),
        "y/node": labels,
        "split/train": np.arange(num_train, dtype=np.int32),
        "split/val": np.arange(num_train, num_train + num_val, dtype=np.int32),
        "split/test": np.sort(test).astype(np.int32),
    }


def _member(name: str, piece: str) -> str:
    return f"ind.{name}.{piece}"


def _check_agreement(
    files: Originals, name: str, matrices: dict[str, PickledCSR], classes: dict[str, np.ndarray], test: np.ndarray
) -> None:
    """Refuses files that are not of one graph."""
    first, num_test, num_train = len(classes["ally"]), len(classes["ty"]), len(classes["y"])
    rows = [matrices[piece].shape[0] for piece in ("x", "tx", "allx")]
    found = [[rows[0], num_train], [rows[1], num_test, len(test)], [rows[2], first, int(test.min())]]
    if found != [[num_train] * 2, [num_test] * 3, [first] * 3]:
        raise files.error(
            _member(name, "*"), None,
            "rows of x and y, then of tx, ty and test.index, then of allx and ally and the first test node to agree",
            ", then ".join(map(str, found)),
        )
    widths = [matrix.shape[1] for matrix in matrices.values()], [one_hot.shape[1] for one_hot in classes.values()]
    if any(len(set(several)) > 1 for several in widths):
        raise files.error(_member(name, "*"), None, "x, tx and allx to have equally many columns, and y, ty and ally",
                          f"{widths[0]} and {widths[1]}")
    if not np.array_equal(classes["y"], classes["ally"][:num_train]):
        raise files.error(_member(name, "y"), None, "the first rows of ally", "others")
    last = int(test.max())
    if last >= 2 * (first + num_test):  # Citeseer lacks 15 of 1,015; arrays are as long as the highest id says
        raise files.error(_member(name, "test.index"), None, f"most ids from {first} to {last}",
                          f"{num_test} of {last + 1 - first}")


def _matrix(files: Originals, member: str) -> PickledCSR:
    value = load_arrays(files.read(member), f"{files.where}: {member}")
    if not isinstance(value, PickledCSR):
        raise files.error(member, None, "a CSR matrix", type(value).__name__)
    if not all(0 <= size < 1 << 31 for size in value.shape):
        raise files.error(member, None, "a shape below 2**31", "another")  # perhaps too long to print
    return value


def _one_hot(files: Originals, member: str) -> np.ndarray:
    """A matrix of one-hot rows."""
    value = load_arrays(files.read(member), f"{files.where}: {member}")
    if (
        not isinstance(value, np.ndarray)
        or value.ndim != 2
        or not value.size
        or not ((value == 0) | (value == 1)).all()
        or (value.sum(axis=1) != 1).any()
    ):
        raise files.error(member, None, "one-hot rows", "something else")
    return value


def _test_nodes(files: Originals, member: str) -> np.ndarray:
    """Distinct node numbers, one a line."""
    seen: dict[int, int] = {}  # node -> line
    for line, text in files.lines(member):
        node = integer(text.strip())
        if node is None:
            raise files.error(member, line, f"a node's number of at most {DIGITS} digits", shown(text))
        if node in seen:
            raise files.error(member, line, f"node {node} once, found first in line {seen[node]}", "it again")
        seen[node] = line
    if not seen:
        raise files.error(member, None, "test nodes", "none")
    return np.fromiter(seen, dtype=np.int64, count=len(seen))


def _neighbours(files: Originals, member: str) -> dict[int, list[int]]:
    """A dict of lists, of what is to be nodes."""
    content = files.read(member)
    graph = load_arrays(content, f"{files.where}: {member}")
    if not isinstance(graph, dict):
        raise files.error(member, None, "a dict of neighbour lists", type(graph).__name__)
    for neighbours in graph.values():
        if not isinstance(neighbours, list):
            raise files.error(member, None, "lists of neighbours", f"a value of type {type(neighbours).__name__}")
    # A pickle may refer to one list again and again: a short one could state more links than memory holds.
    total = sum(len(neighbours) for neighbours in graph.values())
    if total > len(content):
        raise files.error(member, None, f"at most one link for each of its {len(content)} bytes", str(total))
    return graph


def _edges(files: Originals, member: str, graph: dict[int, list[int]], count: int) -> np.ndarray:
    """int32 [2, E]: both directions of the links in a dict of neighbour lists."""
    for node in chain(graph, chain.from_iterable(graph.values())):
        if type(node) is not int or not 0 <= node < count:
            # Anything may stand here: a number too long to print, lists too deep to.
            shown = node if type(node) is int and node.bit_length() < 64 else f"a value of type {type(node).__name__}"
            raise files.error(member, None, f"nodes from 0 to {count - 1}", str(shown))
    lengths = [len(neighbours) for neighbours in graph.values()]
    sources = np.repeat(np.fromiter(graph, dtype=np.int64, count=len(graph)), lengths)
    destinations = np.fromiter(chain.from_iterable(graph.values()), dtype=np.int64, count=len(sources))
    return undirected(sources, destinations)
