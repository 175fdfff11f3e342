"""What a graph is built from, checked on the host: each check gives back what it was given or says what is wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from hire_jax.graph.types import EdgeType, Features
from hire_jax.sparse import SparseFeatures

INDEX_LIMIT = int(np.iinfo(np.int32).max)


class GraphError(ValueError):
    """A graph that cannot be built: the message names the type or relation, what was expected and what came."""


def edge_name(edge_type: EdgeType) -> str:
    """An edge type as error messages write it."""
    # Halves of surrogate pairs are strings, but nothing prints them.
    return "(" + ", ".join(map(str, edge_type)).encode(errors="backslashreplace").decode() + ")"


def shown(value: Any) -> str:
    """A value as error messages write it: not longer than can be read."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "one of very many digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def checked_mapping(what: str, value: Any) -> Mapping[Any, Any]:
    """An argument that maps types to something."""
    if not isinstance(value, Mapping):
        raise GraphError(f"{what} must map types to values, got {type(value).__name__}")
    return value


def checked_count(name: str, count: Any) -> int:
    """The number of nodes of one type."""
    if not isinstance(name, str):
        raise GraphError(f"a node type must be a string, got {shown(name)}")
    scalar = getattr(count, "ndim", None) == 0 and np.issubdtype(getattr(count, "dtype", object), np.integer)
    if isinstance(count, bool) or not (isinstance(count, int) or scalar):
        raise GraphError(f"num_nodes[{name!r}] must be an integer, got {shown(count)}")
    if count < 0:
        raise GraphError(f"num_nodes[{name!r}] must not be negative, got {shown(count)}")
    if count > INDEX_LIMIT:
        raise GraphError(f"num_nodes[{name!r}] must be at most {INDEX_LIMIT}, the largest int32, got {shown(count)}")
    return int(count)


def check_indices(edge_types: Iterable[EdgeType], counts: Mapping[str, int]) -> None:
    """Raises GraphError where int32 cannot number the pairs of a node and a relation between the same two types."""
    for (source, destination), several in Counter((start, end) for start, _, end in edge_types).items():
        needed = max(counts[source], counts[destination]) * several
        if needed > INDEX_LIMIT:
            raise GraphError(f"relations from {source!r} to {destination!r}: nodes times relations must be at most "
                             f"{INDEX_LIMIT}, the largest int32, got {needed}")


def checked_edge_type(edge_type: Any, counts: Mapping[str, int]) -> EdgeType:
    """An edge type whose two ends are node types."""
    if not (isinstance(edge_type, tuple) and len(edge_type) == 3 and all(isinstance(x, str) for x in edge_type)):
        raise GraphError(f"an edge type must be a tuple (source, relation, destination) of strings, got "
                         f"{shown(edge_type)}")
    for end, name in (("source", edge_type[0]), ("destination", edge_type[2])):
        if name not in counts:
            raise GraphError(f"relation {edge_name(edge_type)}: {end} type {name!r} is unknown; "
                             f"num_nodes has {sorted(counts)}")
    return edge_type


def checked_edges(edge_type: EdgeType, edges: Any, counts: Mapping[str, int]) -> np.ndarray:
    """One relation's edges as int64[2, E], each end a node."""
    required = f"relation {edge_name(edge_type)}: edges must have shape [2, E] (senders, receivers)"
    array = _array(required, edges)
    if array.ndim != 2 or array.shape[0] != 2:
        raise GraphError(f"{required}, got {list(array.shape)}")
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
    required = f"features of {name!r} must have shape [N, F]"
    array = _array(required, features)
    if array.ndim != 2:
        raise GraphError(f"{required}, got {list(array.shape)}")
    if array.shape[0] != count:
        raise GraphError(f"features of {name!r} have {array.shape[0]} rows, expected {count}")
    return jnp.asarray(_checked_numbers(f"features of {name!r}", array))


def checked_edge_features(edge_type: EdgeType, features: Any, count: int) -> np.ndarray:
    """One relation's edge features: `count` finite numbers, or rows of them."""
    required = f"relation {edge_name(edge_type)}: edge features must have shape [{count}] or [{count}, F]"
    array = _array(required, features)
    if array.ndim not in (1, 2) or array.shape[0] != count:
        raise GraphError(f"{required}, got {list(array.shape)}")
    return _checked_numbers(f"relation {edge_name(edge_type)}: edge features", array)


def _array(required: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, OverflowError) as error:  # lists of different lengths
        raise GraphError(f"{required}; {error}") from error


def _checked_numbers(what: str, array: np.ndarray) -> np.ndarray:
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
            or array.dtype == np.bool_ or array.dtype == jnp.bfloat16):
        raise GraphError(f"{what} must be numbers, got {array.dtype}")
    if array.dtype == jnp.bfloat16:
        kept = array
    else:
        # What JAX would make of it; its own conversion takes neither long doubles nor other byte orders.
        narrow = array.dtype.kind == "f" and array.dtype.itemsize <= 4
        dtype = array.dtype.newbyteorder("=") if narrow else jnp.result_type(float)
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported below
            kept = array.astype(dtype if array.dtype.kind == "f" else np.float32)
    finite = np.isfinite(kept)
    if not finite.all():
        first = np.unravel_index(int(np.argmin(finite)), array.shape)
        raise GraphError(f"{what}: the value at {tuple(int(i) for i in first)} is {array[first]}, expected a "
                         f"finite number ({int((~finite).sum())} such values; stored as {kept.dtype})")
    return kept
