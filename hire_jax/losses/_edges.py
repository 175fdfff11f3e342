"""Edges as two index arrays: checks, and what becomes of an index outside its rows."""

import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hire_jax.losses._checks import Rows

EdgeType = tuple[str, str, str]
Edges = Mapping[EdgeType, tuple[ArrayLike, ArrayLike]]
CheckedEdges = dict[EdgeType, tuple[jax.Array, jax.Array]]


def checked_edges(edges: Edges, rows: Rows) -> CheckedEdges:
    """Edges of all relations, checked, in sorted order."""
    if not isinstance(edges, Mapping):
        raise ValueError(f"edges: expected a dictionary by edge type, got {type(edges).__name__}")
    if not edges:
        raise ValueError("edges: expected at least one relation, got none")
    for edge_type in edges:
        name = f"edges[{edge_type!r}]"
        typed = isinstance(edge_type, tuple) and len(edge_type) == 3 and {edge_type[0], edge_type[2]} <= set(rows)
        if not typed:
            raise ValueError(f"{name}: expected (source, relation, destination), types among {list(rows)}")
        if len(edges[edge_type]) != 2:
            raise ValueError(f"{name}: expected (senders, receivers), got {len(edges[edge_type])} arrays")
    return {
        (a, r, b): checked_ends(f"edges[{(a, r, b)!r}] ", *edges[a, r, b], len(rows[a]), len(rows[b]))
        for a, r, b in sorted(edges)
    }


def checked_ends(
    prefix: str, senders: ArrayLike, receivers: ArrayLike, sources: int, destinations: int
) -> tuple[jax.Array, jax.Array]:
    """Both ends of edges as int [E], within their numbers of rows where that is known."""
    ends = (
        checked_index(f"{prefix}senders", senders, sources),
        checked_index(f"{prefix}receivers", receivers, destinations),
    )
    if ends[0].shape != ends[1].shape:
        shapes = f"{ends[0].shape} and {ends[1].shape}"
        raise ValueError(f"{prefix}senders, receivers: expected one length, got {shapes}")
    return ends


def checked_receivers(receivers: ArrayLike, num_receivers: int, **attention: jax.Array) -> tuple[jax.Array, int]:
    """The destination of every edge, one a row of the attention of that name, and the number of destinations."""
    try:
        size = operator.index(num_receivers)
    except TypeError:
        size = -1
    if size < 0:
        raise ValueError(f"num_receivers: expected an integer of at least 0, got {num_receivers!r}")
    index = checked_index("receivers", receivers, size)
    (name, rows), = attention.items()
    if len(index) != len(rows):
        raise ValueError(f"receivers, {name}: expected one receiver an edge, got {index.shape} and {rows.shape}")
    return index, size


def checked_index(name: str, index: ArrayLike, size: int) -> jax.Array:
    """Integers [E]; those known while tracing, a constant inside `jax.jit` included, are in [0, size)."""
    raw = index if isinstance(index, jax.Array) else np.asarray(index)
    if raw.ndim != 1 or not jnp.issubdtype(raw.dtype, jnp.integer):
        raise ValueError(f"{name}: expected integers [E], got {raw.dtype} {raw.shape}")
    if not isinstance(raw, jax.core.Tracer):
        known = np.asarray(raw)
        outside = np.flatnonzero((known < 0) | (known >= size))
        if outside.size:
            edge = int(outside[0])
            raise ValueError(f"{name}: expected indices in [0, {size}), got {known[edge]} at edge {edge}")
    return jnp.asarray(raw, jnp.int32)


def locate(index: jax.Array, where: jax.Array | None, rows: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Indices brought into [0, rows), whether each counts, and whether it was outside."""
    outside = (index < 0) | (index >= rows)
    index = jnp.clip(index, 0, rows - 1)
    return index, ~outside if where is None else where[index] & ~outside, outside
