"""Graphs of PyTorch Geometric (arXiv 1903.02428), both ways. Only `to_pyg` imports torch and torch_geometric."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hire_jax.data import Dataset, DatasetError
from hire_jax.data.dataset import PARTS
from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.graph.checks import edge_name
from hire_jax.interop.labels import array_labels
from hire_jax.interop.masks import array_masks
from hire_jax.interop.tasks import Drawing, check_target, make_dataset
from hire_jax.interop.tensors import host_array, host_features
from hire_jax.sparse import SparseFeatures

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


def from_pyg(data: Any) -> HeteroGraph:
    """A graph from a `HeteroData`, or from a `Data` as node type "node" and relation "to".

    Features are `x`, dense or sparse; edge features `edge_attr`, then `edge_weight`, side by side where both are there.
    Other attributes are not read. A node type without `x` tells its size by `num_nodes`, or by `y` or a mask.

    Raises:
      GraphError: it is no such object, a size is not told, edges are not given as `edge_index`, or an array is not in
        order.
    """
    nodes, edges = _stores(data)
    counts = {name: _count(name, store) for name, store in nodes.items()}
    features = {name: host_features(store["x"], counts[name], f"features of {name!r}")
                for name, store in nodes.items() if _has(store, "x")}
    ends, edge_features = {}, {}
    for edge_type, store in edges.items():
        where = f"relation {edge_name(edge_type)}"
        if not _has(store, "edge_index"):
            raise GraphError(f"{where}: expected edge_index, found {sorted(map(str, store.keys()))}; a transposed "
                             "adjacency adj_t must be turned into edge_index first")
        ends[edge_type] = host_array(store["edge_index"], where)
        parts = [host_array(store[key], f"{where}: {key}") for key in ("edge_attr", "edge_weight") if _has(store, key)]
        if parts:
            edge_features[edge_type] = _side_by_side(where, parts)
    return HeteroGraph.from_arrays(counts, ends, features, edge_features)


def dataset_from_pyg(data: Any, *, target: str, split: int | None = None, seed: int = 0, train_per_class: int = 20,
                     val_per_class: int = 30, name: str = "pyg") -> Dataset:
    """A dataset for `hire_jax.fit` from a `HeteroData` or `Data` with labels.

    Args:
      data: as `from_pyg`. The target has `y`: class numbers [N] or [N, 1], or multi-hot rows [N, C]; -1 and NaN mean
        unlabelled. It may have `train_mask`, `val_mask` and `test_mask`. Without `val_mask` a fifth of the training
        nodes is held out; without any mask a split is drawn at random.
      target: the node type that has labels.
      split: for masks [N, S] of S splits, which one.
      seed, train_per_class, val_per_class: of what is drawn at random, as `hire_jax.data.random_split`.
      name: the dataset's name.

    Raises:
      GraphError: as `from_pyg`.
      DatasetError: there are no labels, or labels or masks are not in order.
    """
    drawing = Drawing(seed, train_per_class, val_per_class)
    nodes, _ = _stores(data)
    check_target(target, nodes)
    store, where = nodes[target], f"node type {target!r}"
    if not _has(store, "y"):
        raise DatasetError(f"{where}: expected labels y, found {sorted(map(str, store.keys()))}")
    graph = from_pyg(data)
    labels = array_labels(host_array(store["y"], f"{where}: y"), f"{where}: y")
    masks = {part: host_array(store[f"{part}_mask"], f"{where}: {part}_mask") for part in PARTS
             if _has(store, f"{part}_mask")}
    taken = array_masks(masks, graph.num_nodes[target], f"{where}: masks", split) if masks else None
    return make_dataset(graph, target, labels, taken, split="masks" if split is None else f"masks {split}",
                        where=where, drawing=drawing, name=name)


def to_pyg(graph: HeteroGraph | Dataset) -> "HeteroData":
    """A `HeteroData` of a graph, or of a dataset with `y` and masks; tensors are copies on the CPU.

    `x` is dense or sparse (COO) like the features, `edge_attr` holds edge features, `num_nodes` is always given.
    Positional encodings are left out.

    Raises:
      ImportError: torch or torch_geometric is not installed.
    """
    try:
        import torch
        from torch_geometric.data import HeteroData
    except ImportError as error:
        raise ImportError(f"to_pyg needs torch and torch_geometric, which you install yourself: {error}") from error

    def tensor(array: Any) -> "torch.Tensor":
        return torch.from_numpy(np.array(array))  # a copy: JAX's arrays are read-only, torch's are not

    dataset = graph if isinstance(graph, Dataset) else None
    graph = graph.graph if isinstance(graph, Dataset) else graph
    data = HeteroData()
    for name, count in graph.num_nodes.items():
        data[name].num_nodes = count
        x = graph.features.get(name)
        if isinstance(x, SparseFeatures):
            places = torch.stack([tensor(x.csr.rows), tensor(x.csr.cols)]).long()
            data[name].x = torch.sparse_coo_tensor(places, tensor(x.data), x.shape, check_invariants=True).coalesce()
        elif x is not None:
            data[name].x = tensor(x)
    for edge_type, ends in graph.host_edges().items():
        data[edge_type].edge_index = tensor(ends.astype(np.int64))
        if (features := graph.relations[edge_type].edges) is not None:
            data[edge_type].edge_attr = tensor(features)
    if dataset is not None:
        data[dataset.target].y = tensor(np.asarray(dataset.labels).astype(np.int64))
        for part in PARTS:
            data[dataset.target][f"{part}_mask"] = tensor(dataset.splits[part])
    return data


def _stores(data: Any) -> tuple[dict[str, Any], dict[EdgeType, Any]]:
    """The storages of node types and of edge types: mappings of attributes."""
    if hasattr(data, "node_types") and hasattr(data, "edge_types"):
        return ({name: data[name] for name in data.node_types},
                {edge_type: data[edge_type] for edge_type in data.edge_types})
    if hasattr(data, "edge_index") and hasattr(data, "keys"):
        return {"node": data}, {("node", "to", "node"): data}
    raise GraphError(f"expected a HeteroData or Data of PyTorch Geometric, found {type(data).__name__}")


def _has(store: Mapping[str, Any], key: str) -> bool:
    return key in store and store[key] is not None


def _count(node_type: str, store: Any) -> int:
    """The number of nodes, by what is there: PyG's own guess from the edges would leave out isolated nodes."""
    if _has(store, "num_nodes"):
        return store["num_nodes"]
    for key in ("x", "y", *(f"{part}_mask" for part in PARTS)):
        if _has(store, key) and len(getattr(store[key], "shape", ())):
            return int(store[key].shape[0])
    raise GraphError(f"node type {node_type!r}: expected num_nodes or x, found {sorted(map(str, store.keys()))}")


def _side_by_side(where: str, parts: list[np.ndarray]) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    if any(part.ndim not in (1, 2) for part in parts) or len({len(part) for part in parts}) > 1:
        raise GraphError(f"{where}: expected edge_attr and edge_weight of one length, "
                         f"found shapes {[list(part.shape) for part in parts]}")
    return np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=1)
