"""The form of the heterophilous graphs (Platonov et al., arXiv 2302.11640): one npz file of plain arrays."""

import numpy as np

from hire_jax.data.dataset import describe
from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import (
    Arrays,
    csr_arrays,
    finite_float32,
    integers_below,
    only_npz,
    read_npz_members,
    undirected,
)
from hire_jax.data.originals import Originals

KEYS = ("node_features", "node_labels", "edges", "train_masks", "val_masks", "test_masks")


def parse_heterophilous(files: Originals, *, name: str | None = None, sparse_below: float = 0.1) -> Arrays:
    """The arrays of the npz form (type `node`, relation `node__to__node`, splits 0, 1, ...) from a heterophilous graph.

    | array | content |
    |---|---|
    | `node_features` | real numbers [N, F] |
    | `node_labels` | class numbers [N] |
    | `edges` | nodes [E, 2]; one direction of a link suffices |
    | `train_masks`, `val_masks`, `test_masks` | bool [S, N], one row a split |

    Edges are taken in both directions, without self loops and duplicates, as the authors take those of every file
    but the ones named `..._directed`. Features become CSR where they are bags of words, which their density tells: of
    Actor's and Chameleon's numbers 0.6 % and 0.5 % are not 0, of Tolokers' 52 %.

    Args:
        files: the npz file; others are not read.
        name: the npz file's name; not needed where there is but one.
        sparse_below: features become CSR if less than this share of them is not 0; 0 keeps all dense, 1 none but
            those without any 0.

    Raises:
        DatasetError: the file or an array is missing or not what it should be.
    """
    name = only_npz(files) if name is None else name
    where = f"{files.where}: {name}"
    arrays = read_npz_members(files, name, KEYS)
    features, edges = arrays["node_features"], arrays["edges"]
    if features.ndim != 2 or not features.size:
        raise DatasetError(f"{where}: node_features: expected numbers [N, F], found {describe(features)}")
    count = len(features)
    values = finite_float32(features, f"{where}: node_features")
    if arrays["node_labels"].shape != (count,):
        raise DatasetError(
            f"{where}: node_labels: expected one label for each of {count} nodes, "
            f"found {describe(arrays['node_labels'])}"
        )
    # Every class has a node, so that no class number reaches the number of nodes.
    labels = integers_below(arrays["node_labels"], count, f"{where}: node_labels")
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise DatasetError(f"{where}: edges: expected integers [E, 2], found {describe(edges)}")
    ends = integers_below(edges, count, f"{where}: edges").T
    return {
        "num_nodes/node": np.array(count, dtype=np.int32),
        **_features(values, sparse_below),
        "edge/node__to__node": undirected(ends[0], ends[1]),
        "y/node": labels.astype(np.int32),
        **_splits(arrays, count, where),
    }


def _features(values: np.ndarray, sparse_below: float) -> Arrays:
    if np.count_nonzero(values) >= sparse_below * values.size:
        return {"x/node": values}
    rows, columns = np.nonzero(values)
    return csr_arrays("x/node", rows, columns, values[rows, columns], shape=values.shape)


def _splits(arrays: Arrays, count: int, where: str) -> Arrays:
    masks = {part: arrays[f"{part}_masks"] for part in ("train", "val", "test")}
    number = masks["train"].shape[0] if masks["train"].ndim else 0
    for part, mask in masks.items():
        if mask.dtype != np.bool_ or not number or mask.shape != (number, count):
            raise DatasetError(
                f"{where}: {part}_masks: expected a bool mask of {count} nodes for each split, as many splits for "
                f"every part, found {describe(mask)}"
            )
        if not mask.any(axis=1).all():
            empty = int(np.argmin(mask.any(axis=1)))
            raise DatasetError(f"{where}: {part}_masks: expected nodes in every split, found none in split {empty}")
    shared = masks["train"].astype(int) + masks["val"] + masks["test"] > 1
    if shared.any():
        split, node = np.argwhere(shared)[0].tolist()
        raise DatasetError(f"{where}: expected each node in one part of a split, found node {node} in two of {split}")
    return {
        f"split/{split}/{part}": np.flatnonzero(mask[split]).astype(np.int32)
        for split in range(number)
        for part, mask in masks.items()
    }
