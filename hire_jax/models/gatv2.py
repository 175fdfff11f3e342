"""Graph attention with a score of the pair (GATv2), arXiv 2105.14491, on the graph with its types forgotten."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.attention import edges_into, softmax_sum
from hire_jax.models.dropout import Dropout
from hire_jax.models.gat import head_width
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import SparseFeatures, edge_sum


class GATv2Layer(nn.Module, kw_only=True):
    """One GATv2 layer, without activation (arXiv 2105.14491, equation 7).

    For each head and an edge e = (j -> i), the node itself included:

      s_e = a . LeakyReLU(W_l h_j + W_r h_i + c),  alpha = softmax of s over all edges into i
      h'_i = || over heads of sum_e alpha_e W_l h_j,     plus b, plus W_res h_i with `residual=True`

    The nonlinearity stands before a, so that the neighbour that scores best may differ from node to node; in GAT it is
    one for all. The scores need [E, heads, width] entries, in GAT [E, heads]. All relations share W_l, W_r and a; the
    residual is h_i itself where widths agree. With `concat=False` every head has the full width and their mean is
    taken. Without `self_loops` a node attends to itself only where an edge says so. Input {type: [N, d]}, dense or
    `SparseFeatures`; output {type: [N, features]} for `destinations`, and {edge type: [E, heads]}, the attention
    before its dropout. Raises ValueError when heads do not divide features.
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
        of_source, of_destination = (self.param(f"kernel_{end}", glorot, (d, self.heads * width)).astype(dtype)
                                     for end in ("source", "destination"))
        score_bias = self.param("score_bias", nn.initializers.zeros, (self.heads * width,)).astype(dtype)
        vector = self.param("attention", glorot, (self.heads, width)).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        passed = None
        if self.residual and (d != self.features or isinstance(next(iter(hidden.values())), SparseFeatures)):
            passed = self.param("residual", glorot, (d, self.features)).astype(dtype)
        # a of every head as one matrix, block by block: a product with it is faster than a sum over a short axis.
        scorer = jax.scipy.linalg.block_diag(*vector[:, :, None])

        def score(pairs: jax.Array) -> jax.Array:
            return nn.leaky_relu(pairs, self.negative_slope) @ scorer

        sources = {name: x @ of_source for name, x in hidden.items()}
        values = {name: x.reshape(x.shape[0], self.heads, width) for name, x in sources.items()}
        drop = Dropout(rate=self.attention_dropout)
        output, attention = {}, {}
        for destination in destinations:
            x = hidden[destination]
            own = x @ of_destination + score_bias
            edges = edges_into(graph, destination)
            logits = [score(edge_sum(pattern, own, sources[source])) for source, _, pattern in edges]
            if self.self_loops:
                logits.append(score(own + sources[destination]))
            attended = softmax_sum(edges, logits, destination, values, self_loops=self.self_loops,
                                   drop=lambda weights: drop(weights, train=train))
            messages = attended.messages
            output[destination] = bias + (messages.reshape(x.shape[0], self.features) if self.concat
                                          else messages.mean(axis=1))
            attention.update(attended.attention)
            if self.residual:
                output[destination] += x if passed is None else x @ passed
        return output, attention


class GATv2(NodeClassifier, kw_only=True):
    """GATv2 node classifier (arXiv 2105.14491): one attention a layer, whatever the types.

    Types differ in the input projection alone. On a graph of one type this is GATv2 behind a linear projection; with
    `projection=False, norm=False` it is the network of the literature.

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
        """One `GATv2Layer`."""
        layer = GATv2Layer(features=self.hidden, heads=self.heads, attention_dropout=self.attention_dropout,
                           residual=self.residual, dtype=self.dtype)
        return *layer(graph, hidden, destinations, train=train), None

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A `GATv2Layer` of the classes, the mean of its heads."""
        layer = GATv2Layer(features=self.num_classes, heads=self.readout_heads, concat=False,
                           attention_dropout=self.attention_dropout, residual=self.residual, dtype=self.dtype)
        return layer(graph, hidden, [self.target], train=train)

    def activation(self, x: jax.Array) -> jax.Array:
        """ELU."""
        return nn.elu(x)
