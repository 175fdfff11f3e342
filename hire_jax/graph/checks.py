"""What a graph is built from, checked on the host: each check gives back what it was given or says what is wrong."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from hire_jax.graph.types import EdgeType, Features
from hire_jax.sparse import SparseFeatures


class GraphError(ValueError):
    """A graph that cannot be built: the message names the type or relation, what was expected and what came."""


def edge_name(edge_type: EdgeType) -> str:
    """An edge type as error messages write it."""
    return "(" + ", ".join(map(str, edge_type)) + ")"


def checked_count(name: str, count: Any) -> int:
    """The number of nodes of one type."""
    if not isinstance(name, str):
        raise GraphError(f"a node type must be a string, got {name!r}")
    if isinstance(count, bool) or not np.issubdtype(np.asarray(count).dtype, np.integer) or np.ndim(count):
        raise GraphError(f"num_nodes[{name!r}] must be an integer, got {count!r}")
    if count < 0:
        raise GraphError(f"num_nodes[{name!r}] must not be negative, got {count}")
    return int(count)


def checked_edge_type(edge_type: Any, counts: Mapping[str, int]) -> EdgeType:
    """An edge type whose two ends are node types."""
    if not (isinstance(edge_type, tuple) and len(edge_type) == 3 and all(isinstance(x, str) for x in edge_type)):
        raise GraphError(f"an edge type must be a tuple (source, relation, destination) of strings, got {edge_type!r}")
    for end, name in (("source", edge_type[0]), ("destination", edge_type[2])):
        if name not in counts:
            raise GraphError(f"relation {edge_name(edge_type)}: {end} type {name!r} is unknown; "
                             f"num_nodes has {sorted(counts)}")
    return edge_type


def checked_edges(edge_type: EdgeType, edges: Any, counts: Mapping[str, int]) -> np.ndarray:
    """One relation's edges as int64[2, E], each end a node."""
    try:
        array = np.asarray(edges)
    except ValueError as error:  # lists of different lengths
        raise GraphError(f"relation {edge_name(edge_type)}: edges must have shape [2, E] (senders, receivers); "
                         f"{error}") from error
    if array.ndim != 2 or array.shape[0] != 2:
        raise GraphError(f"relation {edge_name(edge_type)}: edges must have shape [2, E] (senders, receivers), "
                         f"got {list(array.shape)}")
    if array.shape[1] == 0:
        return np.zeros((2, 0), np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise GraphError(f"relation {edge_name(edge_type)}: edges must be integers, got {array.dtype}")
    for row, end, name in ((0, "sender", edge_type[0]), (1, "receiver", edge_type[2])):
        bad = (array[row] < 0) | (array[row] >= counts[name])
        if bad.any():
            first = int(bad.argmax())
            raise GraphError(f"relation {edge_name(edge_type)}: {end} of edge {first} is {array[row, first]}, outside "
                             f"[0, {counts[name]}) of node type {name!r} ({int(bad.sum())} such edges)")
    return array.astype(np.int64)


def checked_features(name: str, features: Any, count: int) -> Features:
    """One node type's features: `count` rows of finite numbers."""
    if isinstance(features, SparseFeatures):
        if features.shape[0] != count:
            raise GraphError(f"features of {name!r} have {features.shape[0]} rows, expected {count}")
        return features
    array = np.asarray(features)
    if array.ndim != 2:
        raise GraphError(f"features of {name!r} must have shape [N, F], got {list(array.shape)}")
    if array.shape[0] != count:
        raise GraphError(f"features of {name!r} have {array.shape[0]} rows, expected {count}")
    return jnp.asarray(_checked_numbers(f"features of {name!r}", array))


def checked_edge_features(edge_type: EdgeType, features: Any, count: int) -> np.ndarray:
    """One relation's edge features: `count` finite numbers, or rows of them."""
    array = np.asarray(features)
    if array.ndim not in (1, 2) or array.shape[0] != count:
        raise GraphError(f"relation {edge_name(edge_type)}: edge features must have shape [{count}] or [{count}, F], "
                         f"got {list(array.shape)}")
    return _checked_numbers(f"relation {edge_name(edge_type)}: edge features", array)


def _checked_numbers(what: str, array: np.ndarray) -> np.ndarray:
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
            or array.dtype == np.bool_ or array.dtype == jnp.bfloat16):
        raise GraphError(f"{what} must be numbers, got {array.dtype}")
    if np.issubdtype(array.dtype, np.floating) or array.dtype == jnp.bfloat16:
        finite = np.isfinite(array)
        if not finite.all():
            first = np.unravel_index(int(np.argmin(finite)), array.shape)
            raise GraphError(f"{what}: the value at {tuple(int(i) for i in first)} is {array[first]}, expected a "
                             f"finite number ({int((~finite).sum())} such values)")
        return array
    return array.astype(np.float32)
