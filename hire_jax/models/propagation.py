"""Sums over neighbours without parameters, over all relations as if they were one."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.sparse import SparseFeatures, spmm

Hidden = dict[str, jax.Array]


def propagate(graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], *, normalise: bool = True,
              self_loops: bool = True) -> Hidden:
    """One step along the symmetrically normalised adjacency (arXiv 1609.02907, equation 2, without its weights).

      y_i = sum_{j in N(i)} h_j / sqrt(d_i d_j)  +  h_i / d_i,   d_i = 1 + number of edges into i

    N(i) are the neighbours through all relations. Without `self_loops` the last term and the 1 of d_i are left out;
    without `normalise` it is a plain sum. Input {type: [N, d]}, output the same for `destinations`.
    """
    scale = {name: _inverse_root_degree(graph, name, x.dtype, normalise, self_loops) for name, x in hidden.items()}
    scaled = {name: x * scale[name] for name, x in hidden.items()}
    output = {}
    for destination in destinations:
        x = scaled[destination]
        total = x if self_loops else jnp.zeros_like(x)
        for source, block in graph.blocks_into(destination):
            total += spmm(block.by_source(), None, scaled[source])
        output[destination] = total * scale[destination]
    return output


def map_first(hidden: Mapping[str, jax.Array | SparseFeatures], features: int) -> bool:
    """Whether a layer's linear map to `features` numbers is to come before propagation, with which it commutes.

    It is where rows get narrower by it, and where some are sparse, which cannot be propagated as they are.
    """
    return any(isinstance(x, SparseFeatures) or x.shape[1] > features for x in hidden.values())


def in_degree(graph: HeteroGraph, name: str) -> jax.Array:
    """float32[N]: the number of edges, through all relations, into each node of a type."""
    degree = jnp.zeros(graph.num_nodes[name])
    for _, block in graph.blocks_into(name):
        degree += jnp.diff(block.csr.indptr)
    return degree


def _inverse_root_degree(graph: HeteroGraph, name: str, dtype: Any, normalise: bool, self_loops: bool) -> jax.Array:
    """[N, 1]; 1 without normalisation, 0 for a node that nothing enters."""
    if not normalise:
        return jnp.ones((1, 1), dtype)
    degree = graph.refreshed({name: in_degree(graph, name)[:, None]}, graph.node_types)[name] + self_loops
    return jnp.where(degree > 0, degree, jnp.inf).astype(dtype) ** -0.5
