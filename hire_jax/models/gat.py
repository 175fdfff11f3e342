"""Graph attention (GAT), arXiv 1710.10903, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.attention import attend
from hire_jax.models.dropout import Dropout
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import SparseFeatures


class GATLayer(nn.Module, kw_only=True):
    """One graph attention layer, without activation (arXiv 1710.10903, equations 1 to 5).

    For each head h and an edge e = (j -> i), the node itself included:

      s_e = LeakyReLU(a_s . W h_j + a_d . W h_i),  a = softmax of s over all edges into i
      h'_i = || over heads of sum_e a_e W h_j,     plus b, plus W_res h_i with `residual=True`

    All relations share W and a; the residual is h_i itself where widths agree. With `concat=False` every head has the
    full width and their mean is taken (equation 6). Without `self_loops` a node attends to itself only where an edge
    says so. Input {type: [N, d]}, dense or `SparseFeatures`; output {type: [N, features]} for `destinations`, and
    {edge type: [E, heads]}, the attention before its dropout. Raises ValueError when heads do not divide features.
    """

    features: int
    heads: int
    attention_dropout: float = 0.0
    residual: bool = False
    concat: bool = True
    self_loops: bool = True
    negative_slope: float = 0.2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], *,
                 train: bool = False) -> tuple[Hidden, Attention]:
        width = head_width(self.features, self.heads) if self.concat else self.features
        d = next(iter(hidden.values())).shape[1]
        dtype = self.dtype or next(iter(hidden.values())).dtype
        kernel = self.param("kernel", glorot, (d, self.heads * width)).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        ends = [self.param(f"attention_{end}", glorot, (self.heads, width)).astype(dtype)
                for end in ("source", "destination")]
        passed = None
        if self.residual and (d != self.features or isinstance(next(iter(hidden.values())), SparseFeatures)):
            passed = self.param("residual", glorot, (d, self.features)).astype(dtype)
        values = {name: (x @ kernel).reshape(x.shape[0], self.heads, width) for name, x in hidden.items()}
        sources = {name: jnp.einsum("nhd,hd->nh", x, ends[0]) for name, x in values.items()}
        drop = Dropout(rate=self.attention_dropout)
        output, attention = {}, {}
        for destination in destinations:
            x = hidden[destination]
            scores = jnp.einsum("nhd,hd->nh", values[destination], ends[1])
            attended = attend(graph, destination, values, sources, scores, negative_slope=self.negative_slope,
                              self_loops=self.self_loops, drop=lambda weights: drop(weights, train=train))
            messages = attended.messages
            message = messages.reshape(x.shape[0], self.features) if self.concat else messages.mean(axis=1)
            output[destination] = message + bias
            attention.update(attended.attention)
            if self.residual:
                output[destination] += x if passed is None else x @ passed
        return output, attention


def head_width(features: int, heads: int) -> int:
    """Width of one head. Raises ValueError when heads do not divide features."""
    if heads < 1 or features % heads:
        raise ValueError(f"features must be a multiple of heads, got features={features}, heads={heads}")
    return features // heads


class GAT(NodeClassifier, kw_only=True):
    """GAT node classifier (arXiv 1710.10903): one attention a layer, whatever the types.

    Types differ in the input projection alone, as in the homogenised baselines of HGB (arXiv 2112.14936). On a
    graph of one type this is GAT behind a linear projection; with `projection=False, norm=False` it is the paper's
    own network.

    Args, beside those of `NodeClassifier`:
      heads: attention heads; they divide hidden, or ValueError is raised.
      attention_dropout: rate on attention weights while training.
      residual: adds a layer's input to its output.
      readout_heads: with `projection=False`, heads of the last layer, whose mean is taken.
    """

    heads: int = 4
    attention_dropout: float = 0.0
    residual: bool = False
    readout_heads: int = 1

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `GATLayer`."""
        layer = GATLayer(features=self.hidden, heads=self.heads, attention_dropout=self.attention_dropout,
                         residual=self.residual, dtype=self.dtype)
        return *layer(graph, hidden, destinations, train=train), None

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `GATLayer` of the classes, the mean of its heads."""
        layer = GATLayer(features=self.num_classes, heads=self.readout_heads, concat=False,
                         attention_dropout=self.attention_dropout, residual=self.residual, dtype=self.dtype)
        return layer(graph, hidden, [self.target], train=train)

    def activation(self, x: jax.Array) -> jax.Array:
        """ELU."""
        return nn.elu(x)
