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
        dtype = self.dtype or x.dtype
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        if not self.mapped:
            for name, rows in hidden.items():
                if isinstance(rows, SparseFeatures) or rows.shape[1] != self.features:
                    kind = "sparse" if isinstance(rows, SparseFeatures) else "dense"
                    raise ValueError(f"mapped=False needs dense rows of {self.features} numbers (features), but those "
                                     f"of {name!r} are {kind}, {rows.shape[1]} wide")
            output = self._propagate(graph, hidden, destinations)
            return {name: x + bias for name, x in output.items()}
        kernel = self.param("kernel", glorot, (x.shape[1], self.features)).astype(dtype)
        if map_first(hidden, self.features):
            output = self._propagate(graph, {name: x @ kernel for name, x in hidden.items()}, destinations)
        else:
            output = {name: x @ kernel for name, x in self._propagate(graph, hidden, destinations).items()}
        return {name: x + bias for name, x in output.items()}

    def _propagate(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str]) -> Hidden:
        return propagate(graph, hidden, destinations, normalise=self.normalise, self_loops=self.self_loops)


class GCN(NodeClassifier, kw_only=True):
    """GCN node classifier (arXiv 1609.02907): one weight matrix a layer, whatever the types.

    Types differ in the input projection alone, as in the homogenised baselines of HGB (arXiv 2112.14936). On a
    graph of one type this is GCN behind a linear projection; with `projection=False, norm=False` it is the paper's
    own network. With `norm=False` alone the projection is the first layer's matrix, as in HGB's code: nothing but
    dropout would stand between the two. Arguments are those of `NodeClassifier`.
    """

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `GCNLayer`."""
        first = carry is None
        mapped = not first or self.norm or not self.projection
        layer = GCNLayer(features=self.hidden, mapped=mapped, dtype=self.dtype)
        return layer(graph, hidden, destinations), {}, "a layer has gone before"

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `GCNLayer` of the classes."""
        return GCNLayer(features=self.num_classes, dtype=self.dtype)(graph, hidden, [self.target]), {}
