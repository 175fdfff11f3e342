"""Gaussian mixture convolution (MoNet), arXiv 1611.08402, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.projection import glorot
from hire_jax.models.propagation import in_degree
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import edge_sum, spmm

# Fans are those of one kernel's matrix, so the middle axis is excluded from them.
_kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=2, batch_axis=1)


class MoNetLayer(nn.Module, kw_only=True):
    """One mixture-model convolution, without activation (arXiv 1611.08402, equations 9 to 11).

      u_ij = tanh(A (1 / sqrt(d_i), 1 / sqrt(d_j)) + c),   d the number of edges into a node, at least 1
      w_k(u) = exp(-1/2 sum_c ((u_c - mu_kc) / sigma_kc)^2)
      h'_i = sum_k mean_{j in N(i)} w_k(u_ij) W_k h_j + W_0 h_i + b

    N(i) are the neighbours through all relations; the mean of none is 0, and with `aggregation="sum"` it is a sum. The
    parameters A, c, mu, 1 / sigma and W are one for all relations. 1 / sigma is what is learned, as in DGL.

    Input {type: [N, d]}, dense or `SparseFeatures`; output {type: [N, features]} for `destinations`. Raises ValueError
    for another aggregation and fewer than one kernel.
    """

    features: int
    kernels: int = 3
    aggregation: Literal["mean", "sum"] = "mean"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str]) -> Hidden:
        if self.aggregation not in ("mean", "sum"):
            raise ValueError(f"aggregation must be 'mean' or 'sum', got {self.aggregation!r}")
        if self.kernels < 1:
            raise ValueError(f"kernels must be at least 1, got {self.kernels}")
        d, dtype = next(iter(hidden.values())).shape[1], self.dtype or next(iter(hidden.values())).dtype
        kernel = self.param("kernel", _kernel_init, (d, self.kernels, self.features)).astype(dtype)
        root = self.param("root", glorot, (d, self.features)).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        matrix = self.param("coordinates", glorot, (2, 2))
        offset = self.param("coordinates_bias", nn.initializers.zeros, (2,))
        mu = self.param("mu", nn.initializers.normal(0.1), (self.kernels, 2))
        inverse_sigma = self.param("inverse_sigma", nn.initializers.ones, (self.kernels, 2))

        flat = kernel.reshape(d, self.kernels * self.features)
        values = {name: (x @ flat).reshape(x.shape[0], self.kernels, self.features) for name, x in hidden.items()}
        degrees = {name: jnp.maximum(in_degree(graph, name), 1)[:, None] for name in hidden}
        degrees = graph.refreshed(degrees, destinations)
        scale = {name: degree ** -0.5 for name, degree in degrees.items()}
        output = {}
        for destination in destinations:
            total = jnp.zeros_like(values[destination])
            own = scale[destination] * matrix[0] + offset
            for source, block in graph.blocks_into(destination):
                pattern = block.by_source()
                u = jnp.tanh(edge_sum(pattern, own, scale[source] * matrix[1]))
                weights = jnp.exp(-0.5 * jnp.sum(jnp.square((u[:, None] - mu) * inverse_sigma), axis=-1))
                total += spmm(pattern, weights, values[source])
            mixed = total.sum(axis=1)
            if self.aggregation == "mean":
                mixed /= degrees[destination].astype(mixed.dtype)
            output[destination] = mixed + hidden[destination] @ root + bias
        return output


class MoNet(NodeClassifier, kw_only=True):
    """MoNet node classifier (arXiv 1611.08402): one mixture a layer, whatever the types.

    Types differ in the input projection alone. On a graph of one type this is MoNet behind a linear projection; with
    `projection=False, norm=False` it is the network of the literature.

    Args, beside those of `NodeClassifier`:
      kernels: Gaussians of the mixture.
      aggregation: "mean" over a node's edges or their "sum"; another raises ValueError.
    """

    kernels: int = 3
    aggregation: Literal["mean", "sum"] = "mean"

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `MoNetLayer`."""
        return self._layer(self.hidden)(graph, hidden, destinations), {}, None

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `MoNetLayer` of the classes."""
        return self._layer(self.num_classes)(graph, hidden, [self.target]), {}

    def _layer(self, features: int) -> MoNetLayer:
        return MoNetLayer(features=features, kernels=self.kernels, aggregation=self.aggregation, dtype=self.dtype)
