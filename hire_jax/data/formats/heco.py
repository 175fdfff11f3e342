"""HeCo's form of heterogeneous graphs (Wang et al., arXiv 2105.09111): lists of links, numpy's and scipy's files.

| file | holds |
|---|---|
| `pa.txt`, ... | links, one a line: two node numbers with a tab between; the letters are those of the two types |
| `p_feat.npz`, ... | features of a type: scipy's `save_npz`; DBLP's `t_feat.npz` has the size of a plain .npy file |
| `labels.npy` | a number for each node of the target type; equal numbers, equal classes |
| `train_20.npy`, `val_20.npy`, `test_20.npy`, ... | nodes of the split with 20 training nodes a class; also 40, 60 |

Each type's nodes are numbered from 0. Metapath graphs (`pap.npz`), neighbour lists (`nei_a.npy`, a pickle) and positive
pairs (`pos.npz`) that stand beside them follow from the links and are not read.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hire_jax.data.dataset import PARTS, describe
from hire_jax.data.formats.arrays import (
    Arrays,
    both_directions,
    csr_arrays,
    finite_float32,
    integers_below,
    read_npy,
)
from hire_jax.data.formats.scipy_npz import read_sparse
from hire_jax.data.formats.text import integer, shown
from hire_jax.data.originals import Originals

SHOTS = (20, 40, 60)
_NPY_MAGIC = b"\x93NUMPY"
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class HeCoForm:
    """What the files of a dataset in HeCo's form hold.

    Attributes:
        nodes: {node type: count}, as published.
        links: {file: (type of the first number in a line, type of the second)}.
        target: the node type that has labels.
        num_classes: number of classes.
        features: {node type: file}; other types have none.
        shots: training nodes a class, of each split; the files' names end in them.
    """

    nodes: Mapping[str, int]
    links: Mapping[str, tuple[str, str]]
    target: str
    num_classes: int
    features: Mapping[str, str] = field(default_factory=dict)
    shots: tuple[int, ...] = SHOTS


HECO = {
    "acm_heco": HeCoForm(
        nodes={"paper": 4019, "author": 7167, "subject": 60},
        links={"pa.txt": ("paper", "author"), "ps.txt": ("paper", "subject")},
        target="paper",
        num_classes=3,
        features={"paper": "p_feat.npz", "author": "a_feat.npz"},
    ),
    "dblp_heco": HeCoForm(
        nodes={"author": 4057, "paper": 14328, "conference": 20, "term": 7723},
        links={"pa.txt": ("paper", "author"), "pc.txt": ("paper", "conference"), "pt.txt": ("paper", "term")},
        target="author",
        num_classes=4,
        features={"author": "a_feat.npz", "paper": "p_feat.npz", "term": "t_feat.npz"},
    ),
    "freebase_heco": HeCoForm(
        nodes={"movie": 3492, "actor": 33401, "director": 2502, "writer": 4459},
        links={"ma.txt": ("movie", "actor"), "md.txt": ("movie", "director"), "mw.txt": ("movie", "writer")},
        target="movie",
        num_classes=3,
    ),
    "aminer_heco": HeCoForm(
        nodes={"paper": 6564, "author": 13329, "reference": 35890},
        links={"pa.txt": ("paper", "author"), "pr.txt": ("paper", "reference")},
        target="paper",
        num_classes=4,
    ),
}


def parse_heco(files: Originals, form: HeCoForm) -> Arrays:
    """The arrays of the npz form, with splits heco_20, heco_40 and heco_60 (Wang et al., arXiv 2105.09111).

    Args:
        files: the files that `form` names, labels.npy and those of the splits.
        form: an entry of `HECO`.

    Raises:
        DatasetError: a file is missing or not what it should be, or has more nodes than `form` states.
    """
    arrays: Arrays = {f"num_nodes/{node_type}": np.array(count, np.int32) for node_type, count in form.nodes.items()}
    for node_type, name in form.features.items():
        arrays |= read_features(files, name, f"x/{node_type}", form.nodes[node_type])
    for name, (first, second) in form.links.items():
        links = read_links(files, name, (form.nodes[first], form.nodes[second]))
        arrays |= both_directions(first, second, *links)
    count = form.nodes[form.target]
    arrays[f"y/{form.target}"] = read_labels(files, "labels.npy", count, form.num_classes)
    return arrays | heco_splits(files, shots=form.shots, num_nodes=count)


def heco_splits(files: Originals, *, shots: tuple[int, ...] = SHOTS, num_nodes: int = _INT32_MAX) -> Arrays:
    """Only the splits of HeCo's form (Wang et al., arXiv 2105.09111), as split/heco_20/train and so on.

    Args:
        files: train_20.npy, val_20.npy, test_20.npy, and the same of the other `shots`.
        shots: training nodes a class.
        num_nodes: number of target nodes, where it is known.

    Raises:
        DatasetError: a file is missing, or is not a list of distinct nodes that no other part of its split has.
    """
    return read_splits(files, {f"heco_{count}": str(count) for count in shots}, num_nodes)


def read_splits(files: Originals, endings: Mapping[str, str], num_nodes: int) -> Arrays:
    """Splits whose parts stand in train_ENDING.npy, val_ENDING.npy and test_ENDING.npy.

    Args:
        endings: {name of the split: how its files' names end}.
        num_nodes: number of target nodes.

    Raises:
        DatasetError: as `heco_splits`.
    """
    arrays: Arrays = {}
    for split, ending in endings.items():
        taken = np.zeros(0, np.int64)
        for part in PARTS:
            name = f"{part}_{ending}.npy"
            nodes = read_npy(files, name)
            if nodes.ndim != 1 or not len(nodes):
                raise files.error(name, None, "a vector of at least one node", describe(nodes))
            nodes = np.sort(integers_below(nodes, num_nodes, f"{files.where}: {name}"))
            taken = np.sort(np.concatenate([taken, nodes]))
            twice = taken[1:] == taken[:-1]
            if twice.any():
                node = taken[np.argmax(twice)]
                raise files.error(name, None, f"each node once, in one part of the split {split}", f"node {node} again")
            arrays[f"split/{split}/{part}"] = nodes.astype(np.int32)
    return arrays


def read_links(files: Originals, name: str, counts: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(first, second) numbers of each line, which a tab or spaces separate.

    Args:
        counts: number of nodes of each type; the numbers are below.

    Raises:
        DatasetError: the file is missing or empty, or a line is anything else.
    """
    ends = array("i"), array("i")
    for line, text in files.lines(name):
        nodes = [integer(number) for number in text.split()]
        if len(nodes) != 2 or None in nodes:
            raise files.error(name, line, "two node numbers with a tab between", shown(text))
        for node, count, end in zip(nodes, counts, ends, strict=True):
            if node is None or node >= count:
                raise files.error(name, line, f"a node number below {count}", str(node))
            end.append(node)
    if not ends[0]:
        raise files.error(name, None, "at least one link", "none")
    first, second = (np.array(end, np.int64) for end in ends)
    return first, second


def read_labels(files: Originals, name: str, count: int, num_classes: int) -> np.ndarray:
    """int32 [count] from a .npy file of any numbers: the classes in the order of their numbers, from 0.

    HeCo's own loader gives labels this meaning, for it makes them one-hot by their distinct values.

    Raises:
        DatasetError: the file is missing or not `count` numbers of `num_classes` different values.
    """
    numbers = read_npy(files, name)
    if numbers.dtype.kind not in "iuf" or numbers.shape != (count,):
        raise files.error(name, None, f"numbers of shape [{count}]", describe(numbers))
    values, labels = np.unique(numbers, return_inverse=True)
    if len(values) != num_classes or not np.isfinite(values).all() or (values != np.round(values)).any():
        found = f"{len(values)}: {values[:10].tolist()}"
        raise files.error(name, None, f"{num_classes} different whole numbers", found)
    return labels.astype(np.int32)


def read_features(files: Originals, name: str, key: str, count: int) -> Arrays:
    """Features of a node type under `key`: CSR of what scipy's `save_npz` wrote, dense of what `numpy.save` did.

    The beginning of the file tells which, whatever its name.

    Raises:
        DatasetError: the file is missing or not a matrix of `count` rows.
    """
    where = f"{files.where}: {name}"
    if files.read(name).startswith(_NPY_MAGIC):
        dense = read_npy(files, name)
        if dense.ndim != 2 or len(dense) != count:
            raise files.error(name, None, f"numbers of shape [{count}, width]", describe(dense))
        return {key: finite_float32(dense, where)}
    rows, columns, values, width = read_sparse(files, name, count)
    kept = values != 0
    return csr_arrays(key, rows[kept], columns[kept], values[kept], shape=(count, width))
