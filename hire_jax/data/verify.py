"""Whether a dataset's arrays are what the registry says of it."""

from collections.abc import Mapping

import numpy as np

from hire_jax.data.dataset import PARTS
from hire_jax.data.npz import RawDataset
from hire_jax.data.registry import EdgeType, Entry


def differences(raw: RawDataset, known: Entry) -> list[str]:
    """Every count, name and size in which arrays differ from their entry, as "what: expected ..., found ...".

    What the registry does not know (widths of features that are only published, some sizes of splits and numbers of
    edges) is not compared, and a split that is not the default one may be missing: some come from files of their own.
    """
    expected: dict[str, object] = {
        "target": known.target, "classes": list(known.classes), "multilabel": known.multilabel,
        "node types": sorted(known.nodes), "relations": sorted("__".join(edge_type) for edge_type in known.edges)}
    found: dict[str, object] = {
        "target": raw.target, "classes": list(raw.classes), "multilabel": raw.multilabel,
        "node types": sorted(raw.num_nodes), "relations": sorted("__".join(edge_type) for edge_type in raw.edges)}
    for node_type, (count, width) in known.nodes.items():
        expected[f"nodes of {node_type}"], found[f"nodes of {node_type}"] = count, raw.num_nodes.get(node_type)
        if known.counts_from == "files":  # papers seldom state widths
            features = raw.features.get(node_type)
            expected[f"feature width of {node_type}"] = width
            found[f"feature width of {node_type}"] = None if features is None else features.shape[1]
    for edge_type, edges in known.edges.items():
        if edges is not None and edge_type in raw.edges:
            key = f"edges of {'__'.join(edge_type)}"
            expected[key], found[key] = edges, raw.edges[edge_type].shape[1]
    if known.splits is not None:
        expected |= {f"split {name!r}": sizes for name, sizes in known.splits.items()
                     if name in raw.splits or name == known.default_split}
        found |= {f"split {name!r}": sizes_of(parts) for name, parts in raw.splits.items()}
    return [f"{what}: expected {expected.get(what)}, found {found.get(what)}"
            for what in dict.fromkeys([*expected, *found]) if expected.get(what) != found.get(what)]


def sizes_of(parts: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Numbers of training, validation and test nodes of one split; 0 for a part that is not given."""
    train, val, test = (int(parts[part].sum()) if part in parts else 0 for part in PARTS)
    return train, val, test


def unpaired(edges: Mapping[EdgeType, np.ndarray]) -> list[EdgeType]:
    """The relations without one that is their exact reverse; every graph of the registry has both directions."""
    sets = {edge_type: _codes(array) for edge_type, array in edges.items()}
    backward = {edge_type: _codes(array[::-1]) for edge_type, array in edges.items()}
    return [edge_type for edge_type in edges
            if not any((s, d) == (edge_type[2], edge_type[0]) and np.array_equal(codes, backward[edge_type])
                       for (s, _, d), codes in sets.items())]


def _codes(edges: np.ndarray) -> np.ndarray:
    """The edges as sorted numbers, the same for the same set."""
    return np.sort(edges[0].astype(np.int64) << 32 | edges[1].astype(np.int64))


