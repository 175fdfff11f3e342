"""Graph attention with a score of the pair (GATv2), arXiv 2105.14491, on the graph with its types forgotten."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.attention import Attended, edges_into, softmax_sum
from hire_jax.models.gat import GAT, AttendTo, GATLayer
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Hidden
from hire_jax.sparse import edge_sum


class GATv2Layer(GATLayer, kw_only=True):
    """One GATv2 layer, with the arguments of `GATLayer`, without activation (arXiv 2105.14491, equation 7).

    For each head and an edge e = (j -> i), the node itself included:

      s_e = a . LeakyReLU(W_l h_j + W_r h_i + c),  alpha = softmax of s over all edges into i
      h'_i = || over heads of sum_e alpha_e W_l h_j,     plus b, plus W_res h_i with `residual=True`

    The nonlinearity stands before a, so that the neighbour that scores best may differ from node to node; in GAT it is
    one for all. The scores need [E, heads, width] entries, in GAT [E, heads]. All relations share W_l, W_r and a; the
    residual is h_i itself where widths agree. With `concat=False` every head has the full width and their mean is
    taken. Without `self_loops` a node attends to itself only where an edge says so. Input {type: [N, d]}, dense or
    `SparseFeatures`; output {type: [N, features]} for `destinations`, and {edge type: [E, heads]}, the attention
    before its dropout, a node's own under (type, "self", type). Raises ValueError when heads do not divide features,
    GraphError for a relation of that name.
    """

    def attend(self, graph: HeteroGraph, hidden: Hidden, dtype: jnp.dtype) -> tuple[jax.Array, AttendTo]:
        """The parameters up to b, and the attention of one type of nodes as a function of its dropout."""
        d = next(iter(hidden.values())).shape[1]
        of_source, of_destination = (self.param(f"kernel_{end}", glorot, (d, self.heads * self.width)).astype(dtype)
                                     for end in ("source", "destination"))
        score_bias = self.param("score_bias", nn.initializers.zeros, (self.heads * self.width,)).astype(dtype)
        vector = self.param("attention", glorot, (self.heads, self.width)).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        # a of every head as one matrix, block by block: a product with it is faster than a sum over a short axis.
        scorer = jax.scipy.linalg.block_diag(*vector[:, :, None])
        sources = {name: x @ of_source for name, x in hidden.items()}
        values = {name: x.reshape(x.shape[0], self.heads, self.width) for name, x in sources.items()}

        def score(pairs: jax.Array) -> jax.Array:
            return nn.leaky_relu(pairs, self.negative_slope) @ scorer

        def attend_to(destination: str, drop: Callable[[jax.Array], jax.Array]) -> Attended:
            own = hidden[destination] @ of_destination + score_bias
            edges = edges_into(graph, destination)
            logits = [score(edge_sum(pattern, own, sources[source])) for source, _, pattern in edges]
            logits += [score(own + sources[destination])] if self.self_loops else []
            summed = [values[source] for source, _, _ in edges]
            return softmax_sum(destination, edges, logits, summed, values[destination], self_loops=self.self_loops,
                               drop=drop)

        return bias, attend_to


class GATv2(GAT, kw_only=True):
    """GATv2 node classifier (arXiv 2105.14491): `GAT`, with its arguments and forms, over `GATv2Layer`."""

    def layer(self, features: int, heads: int, *, concat: bool) -> GATv2Layer:
        """A `GATv2Layer`."""
        return GATv2Layer(features=features, heads=heads, concat=concat, attention_dropout=self.attention_dropout,
                          residual=self.residual, dtype=self.dtype)
