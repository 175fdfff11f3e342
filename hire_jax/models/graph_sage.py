"""GraphSAGE with mean aggregation, arXiv 1706.02216, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.projection import glorot
from hire_jax.models.propagation import in_degree, map_first, propagate
from hire_jax.models.sage import unit_rows
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier


class SAGELayer(nn.Module, kw_only=True):
    """One GraphSAGE convolution, without activation (arXiv 1706.02216, algorithm 1, mean aggregator).

    h'_i = W_0 h_i + b + W_1 mean_{j in N(i)} h_j,  divided by its Euclidean norm with `normalise=True`

    N(i) are the neighbours through all relations, each edge counting once; the mean of none is 0. The paper
    concatenates a node with its neighbours' mean and multiplies by one matrix, which is the sum of two products.

    Input {type: [N, d]}, dense or `SparseFeatures`; output {type: [N, features]} for `destinations`.
    """

    features: int
    normalise: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str]) -> Hidden:
        x = next(iter(hidden.values()))
        shape, dtype = (x.shape[1], self.features), self.dtype or x.dtype
        root, kernel = (self.param(name, glorot, shape).astype(dtype) for name in ("root", "kernel"))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        first = map_first(hidden, self.features)
        rows = {name: x @ kernel for name, x in hidden.items()} if first else hidden
        total = propagate(graph, rows, destinations, normalise=False, self_loops=False)
        output = {}
        for name in destinations:
            mean = total[name] / jnp.maximum(in_degree(graph, name), 1)[:, None].astype(total[name].dtype)
            output[name] = hidden[name] @ root + bias + (mean if first else mean @ kernel)
        return {name: unit_rows(x) for name, x in output.items()} if self.normalise else output


class GraphSAGE(NodeClassifier, kw_only=True):
    """GraphSAGE node classifier (arXiv 1706.02216): two weight matrices a layer, whatever the types.

    `HeteroSAGE` is the one with weights for every relation. Types differ in the input projection alone. On a graph of
    one type this is GraphSAGE behind a linear projection; with `projection=False, norm=False` it is the network of the
    literature, with all neighbours in place of a sample.

    Args, beside those of `NodeClassifier`:
      normalise: divides every layer's rows by their norm, before the activation; with `projection=False` not those of
        the last layer, which are logits.
    """

    normalise: bool = False

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `SAGELayer`."""
        layer = SAGELayer(features=self.hidden, normalise=self.normalise, dtype=self.dtype)
        return layer(graph, hidden, destinations), {}, None

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `SAGELayer` of the classes."""
        return SAGELayer(features=self.num_classes, dtype=self.dtype)(graph, hidden, [self.target]), {}
