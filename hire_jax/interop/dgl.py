"""Graphs of DGL, the Deep Graph Library (arXiv 1909.01315), read through their own methods; DGL is not imported.

DGL gets no more releases and could not be installed where this was written. It is tested on an object with the same
methods and attributes (`ntypes`, `canonical_etypes`, `num_nodes`, `edges`, `nodes[...].data`), not on DGL itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hire_jax.data import Dataset, DatasetError
from hire_jax.data.dataset import PARTS
from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.graph.checks import edge_name
from hire_jax.interop.labels import array_labels
from hire_jax.interop.masks import array_masks
from hire_jax.interop.tasks import Drawing, check_target, make_dataset
from hire_jax.interop.tensors import host_array, host_features
from hire_jax.interop.values import brief


def from_dgl(graph: Any, *, features: str | None = "feat", edge_features: str | None = None) -> HeteroGraph:
    """A graph from a `DGLGraph`, heterogeneous or not.

    Args:
      graph: the graph; its node and edge numbers are kept.
      features: the name of features in the nodes' data. Types without data of that name have no features; None: none.
      edge_features: the same of the edges' data.

    Raises:
      GraphError: it is no such object, no type has data of a name that was asked for, or an array is not in order.
    """
    types, relations = _types(graph)
    counts = {name: int(graph.num_nodes(name)) for name in types}
    x = {name: host_features(tensor, counts[name], f"features of {name!r}")
         for name, tensor in _named("features", features, {name: graph.nodes[name].data for name in types}).items()}
    data = {} if edge_features is None else {edge_type: graph.edges[edge_type].data for edge_type in relations}
    attributes = {edge_type: host_array(tensor, f"relation {edge_name(edge_type)}: {edge_features}")
                  for edge_type, tensor in _named("edge_features", edge_features, data).items()}
    ends = {}
    for edge_type in relations:
        where = f"relation {edge_name(edge_type)}"
        senders, receivers = graph.edges(form="uv", order="eid", etype=edge_type)  # in the order of the edges' data
        ends[edge_type] = [host_array(senders, where), host_array(receivers, where)]
    return HeteroGraph.from_arrays(counts, ends, x, attributes)


def dataset_from_dgl(graph: Any, *, target: str, label: str = "label", split: int | None = None,
                     features: str | None = "feat", edge_features: str | None = None, seed: int = 0,
                     train_per_class: int = 20, val_per_class: int = 30, name: str = "dgl") -> Dataset:
    """A dataset for `hire_jax.fit` from a `DGLGraph` with labels.

    Args:
      graph, features, edge_features: as `from_dgl`.
      target: the node type that has labels.
      label: the name of its labels: class numbers [N] or [N, 1], or multi-hot rows [N, C]; -1 and NaN mean unlabelled.
        Masks are "train_mask", "val_mask" and "test_mask", of bool or of 0 and 1; what is absent is drawn as in
        `dataset_from_pyg`.
      split, seed, train_per_class, val_per_class, name: as `dataset_from_pyg`.

    Raises:
      GraphError: as `from_dgl`.
      DatasetError: there are no labels, or labels or masks are not in order.
    """
    drawing = Drawing(seed, train_per_class, val_per_class)
    types, _ = _types(graph)
    check_target(target, dict.fromkeys(types))
    data, where = graph.nodes[target].data, f"node type {target!r}"
    if not isinstance(label, str) or label not in data:
        raise DatasetError(f"{where}: expected labels {brief(label)}, found {sorted(data.keys())}")
    imported = from_dgl(graph, features=features, edge_features=edge_features)
    labels = array_labels(host_array(data[label], f"{where}: {label}"), f"{where}: {label}")
    masks = {part: _mask(host_array(data[f"{part}_mask"], f"{where}: {part}_mask")) for part in PARTS
             if f"{part}_mask" in data}
    taken = array_masks(masks, imported.num_nodes[target], f"{where}: masks", split) if masks else None
    return make_dataset(imported, target, labels, taken, split="masks" if split is None else f"masks {split}",
                        where=where, drawing=drawing, name=name)


def _types(graph: Any) -> tuple[list[str], list[EdgeType]]:
    for attribute in ("ntypes", "canonical_etypes", "num_nodes", "nodes", "edges"):
        if not hasattr(graph, attribute):
            raise GraphError(f"expected a DGLGraph, found {type(graph).__name__} without {attribute}")
    return list(graph.ntypes), [(source, relation, destination)
                                for source, relation, destination in graph.canonical_etypes]


def _named(option: str, name: str | None, data: Mapping[Any, Mapping[str, Any]]) -> dict[Any, Any]:
    """The tensors of one name by type, where a type has it."""
    if name is None:
        return {}
    if not isinstance(name, str):
        raise GraphError(f"{option}: expected a name or None, found {brief(name)}")
    found = {key: tensors[name] for key, tensors in data.items() if name in tensors}
    others = sorted({other for tensors in data.values() for other in tensors.keys()})
    if not found and (others or option == "edge_features"):
        raise GraphError(f"{option}: expected data named {name!r} of one type at least, found {others}; "
                         f"{option}=None takes none")
    return found


def _mask(mask: np.ndarray) -> np.ndarray:
    """Masks of 0 and 1, as older DGL datasets have them, as bool."""
    return mask.astype(bool) if mask.dtype == np.uint8 and mask.max(initial=0) <= 1 else mask
