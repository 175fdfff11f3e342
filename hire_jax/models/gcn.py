"""Graph convolution (GCN), arXiv 1609.02907, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import spmm


class GCNLayer(nn.Module, kw_only=True):
    """One graph convolution, without activation (arXiv 1609.02907, equation 2).

    h'_i = (sum_{j in N(i)} h_j / sqrt(d_i d_j) + h_i / d_i) W + b,   d_i = 1 + number of edges into i

    N(i) are the neighbours through all relations; W and b are one for all node types. With
    `normalise=False` and `self_loops=False` the layer is sum_{j in N(i)} h_j W + b.

    Input {type: [N, d]}, output {type: [N, features]} for `destinations`.
    """

    features: int
    normalise: bool = True
    self_loops: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str]) -> Hidden:
        width = next(iter(hidden.values())).shape[1]
        kernel = self.param("kernel", glorot, (width, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        scaled = {name: x * self._inverse_root_degree(graph, name, x.dtype) for name, x in hidden.items()}
        output = {}
        for destination in destinations:
            x = scaled[destination]
            total = x if self.self_loops else jnp.zeros_like(x)
            for source, block in graph.blocks_into(destination):
                total += spmm(block.by_source(), None, scaled[source])
            total *= self._inverse_root_degree(graph, destination, x.dtype)
            dtype = self.dtype or x.dtype
            output[destination] = total @ kernel.astype(dtype) + bias.astype(dtype)
        return output

    def _inverse_root_degree(self, graph: HeteroGraph, name: str, dtype: Any) -> jax.Array:
        """[N, 1]; 1 without normalisation."""
        if not self.normalise:
            return jnp.ones((1, 1), dtype)
        degree = jnp.full(graph.num_nodes[name], float(self.self_loops))
        for _, block in graph.blocks_into(name):
            degree += jnp.diff(block.csr.indptr)
        return jnp.where(degree > 0, degree, jnp.inf)[:, None].astype(dtype) ** -0.5


class GCN(NodeClassifier, kw_only=True):
    """GCN node classifier (arXiv 1609.02907): one weight matrix a layer, whatever the types.

    Types differ in the input projection alone, as in the homogenised baselines of HGB (arXiv 2112.14936). On a
    graph of one type this is GCN behind a linear projection. Arguments are those of `NodeClassifier`.
    """

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `GCNLayer`."""
        return GCNLayer(features=self.hidden, dtype=self.dtype)(graph, hidden, destinations), {}, None
