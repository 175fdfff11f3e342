"""Graph convolution (GCN), arXiv 1609.02907, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.projection import glorot
from hire_jax.models.propagation import map_first, propagate
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier


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
        x = next(iter(hidden.values()))
        kernel = self.param("kernel", glorot, (x.shape[1], self.features)).astype(self.dtype or x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype or x.dtype)
        first = map_first(hidden, self.features)
        rows = {name: x @ kernel for name, x in hidden.items()} if first else hidden
        output = propagate(graph, rows, destinations, normalise=self.normalise, self_loops=self.self_loops)
        return {name: (x if first else x @ kernel) + bias for name, x in output.items()}


class GCN(NodeClassifier, kw_only=True):
    """GCN node classifier (arXiv 1609.02907): one weight matrix a layer, whatever the types.

    Types differ in the input projection alone, as in the homogenised baselines of HGB (arXiv 2112.14936). On a
    graph of one type this is GCN behind a linear projection; with `projection=False, norm=False` it is the paper's
    own network. Arguments are those of `NodeClassifier`.
    """

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `GCNLayer`."""
        return GCNLayer(features=self.hidden, dtype=self.dtype)(graph, hidden, destinations), {}, None

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `GCNLayer` of the classes."""
        return GCNLayer(features=self.num_classes, dtype=self.dtype)(graph, hidden, [self.target]), {}
