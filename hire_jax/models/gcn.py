"""Graph convolution (GCN), arXiv 1609.02907, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.projection import glorot
from hire_jax.models.propagation import map_first, propagate
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import SparseFeatures


class GCNLayer(nn.Module, kw_only=True):
    """One graph convolution, without activation (arXiv 1609.02907, equation 2).

    h'_i = (sum_{j in N(i)} h_j / sqrt(d_i d_j) + h_i / d_i) W + b,   d_i = 1 + number of edges into i

    N(i) are the neighbours through all relations; W and b are one for all node types. With
    `normalise=False` and `self_loops=False` the layer is sum_{j in N(i)} h_j W + b; with `mapped=False` W is left out.

    Input {type: [N, d]}, dense or `SparseFeatures`; output {type: [N, features]} for `destinations`. Raises ValueError
    when W is left out and rows are sparse or d is not features.
    """

    features: int
    mapped: bool = True
    normalise: bool = True
    self_loops: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str]) -> Hidden:
        x = next(iter(hidden.values()))
        kernel: Any = None
        if self.mapped:
            kernel = self.param("kernel", glorot, (x.shape[1], self.features)).astype(self.dtype or x.dtype)
        else:
            self._check_width(hidden)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype or x.dtype)
        before = self.mapped and map_first(hidden, self.features)
        after = self.mapped and not before
        rows = {name: x @ kernel for name, x in hidden.items()} if before else hidden
        output = propagate(graph, rows, destinations, normalise=self.normalise, self_loops=self.self_loops)
        return {name: (x @ kernel if after else x) + bias for name, x in output.items()}

    def _check_width(self, hidden: Hidden) -> None:
        for name, x in hidden.items():
            kind = "sparse" if isinstance(x, SparseFeatures) else "dense"
            if (kind, x.shape[1]) != ("dense", self.features):
                raise ValueError(f"mapped=False needs dense rows of {self.features} numbers (features), but those "
                                 f"of {name!r} are {kind}, {x.shape[1]} wide")


class GCN(NodeClassifier, kw_only=True):
    """GCN node classifier (arXiv 1609.02907): one weight matrix a layer, whatever the types.

    Types differ in the input projection alone, as in the homogenised baselines of HGB (arXiv 2112.14936). On a
    graph of one type this is GCN behind a linear projection; with `projection=False, norm=False` it is the paper's
    own network. With `norm=False` alone the projection is the first layer's matrix, as in HGB's code: nothing but
    dropout would stand between the two. Arguments are those of `NodeClassifier`.
    """

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `GCNLayer`; `carry` is None before the first."""
        # Then nothing but dropout stands between the projection and this layer, and one matrix does for both.
        projected = carry is None and self.projection and not self.norm
        layer = GCNLayer(features=self.hidden, mapped=not projected, dtype=self.dtype)
        return layer(graph, hidden, destinations), {}, True

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `GCNLayer` of the classes."""
        return GCNLayer(features=self.num_classes, dtype=self.dtype)(graph, hidden, [self.target]), {}
