"""What a source and a loader are given, checked: each check gives back what it was given or says what is wrong."""

import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hire_jax.graph import GraphError
from hire_jax.sampling.features import SparseRows
from hire_jax.sampling.host import HostGraph
from hire_jax.teachers import TeacherRows


def checked_number(what: str, number: Any, least: int) -> int:
    """An integer that is at least `least`. Raises TypeError or ValueError with its name."""
    try:
        value = operator.index(number)
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {number!r}") from None
    if isinstance(number, bool | np.bool_):
        raise TypeError(f"{what} must be an integer, got {number!r}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, got {value}")
    return value


def checked_type(name: Any, graph: HostGraph) -> str:
    """A node type of the graph."""
    if name not in graph.counts:
        raise GraphError(f"node type {name!r} is unknown; the graph has {list(graph.counts)}")
    return name


def checked_nodes(nodes: Any, count: int) -> np.ndarray:
    """int32[n], at least one, each once and in [0, count)."""
    array = np.asarray(nodes)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"nodes must be integers [n], at least one, got {array.dtype}{list(array.shape)}")
    if array.min() < 0 or array.max() >= count:
        raise GraphError(f"nodes must be in [0, {count}), got {array.min()} to {array.max()}")
    if np.unique(array).size < array.size:
        raise ValueError("nodes must be there once each, but some repeat")
    return array.astype(np.int32)


def checked_uniform(uniform: Mapping[str, int], graph: HostGraph) -> dict[str, int]:
    """{type: number} of nodes, at most all of them, in the graph's order of types: what is drawn does not depend on
    that of the argument."""
    checked = {}
    for name, number in uniform.items():
        what = f"uniform[{checked_type(name, graph)!r}]"
        checked[name] = min(checked_number(what, number, 1), graph.counts[name])
        if not checked[name]:
            raise ValueError(f"{what} asks for nodes of a type that has none")
    return {name: checked[name] for name in graph.counts if name in checked}


def checked_resident(resident: Collection[str], graph: HostGraph) -> frozenset[str]:
    """Types whose features, if they have some, are a table of rows."""
    if isinstance(resident, str):
        raise TypeError(f"resident must be a collection of node types such as [{resident!r}], got {resident!r}")
    for name in resident:
        if isinstance(graph.features.get(checked_type(name, graph)), SparseRows):
            raise GraphError(f"resident {name!r} has sparse features, of which no rows can be taken within a step; "
                             "dense features can be resident")
    return frozenset(resident)


def known_labels(labels: Any, nodes: np.ndarray, target: str, count: int) -> np.ndarray:
    """The labels of `nodes`, and -1 for all others: an array in memory of its own, even where `labels` are mapped."""
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iub":
        raise GraphError(f"labels must be integers [N] or [N, C], got {array.dtype}{list(array.shape)}")
    if len(array) != count:
        raise GraphError(f"labels have {len(array)} rows, but the graph has {count} nodes of {target!r}")
    known = np.full(array.shape, -1, array.dtype if array.dtype.kind == "i" else np.int32)
    known[nodes] = array[nodes]
    return known


def check_teacher(teacher: TeacherRows, target: str, counts: Mapping[str, int]) -> None:
    """Raises GraphError unless the teacher has a row for each node."""
    found = {"logits": (target, teacher.num_logits)}
    found |= {f"embeddings of {name!r}": (name, rows) for name, rows in teacher.num_rows.items()}
    for what, (name, rows) in found.items():
        if rows != counts.get(name):
            raise GraphError(f"the teacher's {what} have {rows} rows, but the graph has {counts.get(name, 0)} nodes of "
                             f"{name!r}")


def check_places(epoch: int, indices: Sequence[int]) -> None:
    """Raises ValueError or TypeError unless an epoch's batches are asked for, at least one."""
    checked_number("epoch", epoch, 0)
    if not len(indices):
        raise ValueError("indices must name at least one batch")
    for index in indices:
        checked_number("index", index, 0)
