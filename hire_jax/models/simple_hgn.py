"""Simple-HGN, arXiv 2112.14936: GAT with edge types in the attention, residuals, and unit logits."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.attention import attend
from hire_jax.models.dropout import Dropout
from hire_jax.models.gat import head_width
from hire_jax.models.projection import glorot
from hire_jax.models.sage import unit_rows
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier

Weights = dict[str, list[jax.Array]]


class SimpleHGNLayer(nn.Module, kw_only=True):
    """One layer of Simple-HGN, without activation (arXiv 2112.14936, equations 6 to 9).

    For each head and an edge e = (j -> i) of relation r, the node itself included as a relation of its own:

      s_e = LeakyReLU(a_s . W h_j + a_d . W h_i + a_r . W_r r_e),  r_e a learned embedding of the relation
      a   = (1 - beta) softmax of s over all edges into i  +  beta * a of the layer before
      h'_i = || over heads of sum_e a_e W h_j  +  h_i  (W_res h_i where widths differ)

    Input {type: [N, d]}; `previous` is what the layer before returned third, or None. Output {type: [N, features]}
    for `destinations`, {edge type: [E, heads]}, and the attention weights for a next layer. Raises ValueError when
    heads do not divide features.
    """

    features: int
    heads: int
    edge_features: int = 64
    attention_dropout: float = 0.0
    attention_residual: float = 0.05
    negative_slope: float = 0.05
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], previous: Weights | None = None,
                 *, train: bool = False) -> tuple[Hidden, Attention, Weights]:
        width = head_width(self.features, self.heads)
        d = next(iter(hidden.values())).shape[1]
        dtype = self.dtype or next(iter(hidden.values())).dtype
        kernel = self.param("kernel", glorot, (d, self.features)).astype(dtype)
        ends = [self.param(f"attention_{end}", glorot, (self.heads, width)).astype(dtype)
                for end in ("source", "destination")]
        passed = None
        if d != self.features:
            passed = self.param("residual", glorot, (d, self.features)).astype(dtype)
        relation_scores = self._relation_scores(len(graph.edge_types)).astype(dtype)
        by_relation = dict(zip(graph.edge_types, relation_scores[1:], strict=True))
        values = {name: (x @ kernel).reshape(x.shape[0], self.heads, width) for name, x in hidden.items()}
        sources = {name: jnp.einsum("nhd,hd->nh", x, ends[0]) for name, x in values.items()}
        drop = Dropout(rate=self.attention_dropout)
        output, attention, weights = {}, {}, {}
        for destination in destinations:
            x = hidden[destination]
            attended = attend(
                graph, destination, values, sources, jnp.einsum("nhd,hd->nh", values[destination], ends[1]),
                relation_scores=by_relation, self_score=relation_scores[0], negative_slope=self.negative_slope,
                previous=None if previous is None else previous[destination], residual=self.attention_residual,
                drop=lambda weights: drop(weights, train=train))
            weights[destination] = attended.weights
            attention.update(attended.attention)
            message = attended.messages.reshape(x.shape[0], self.features)
            output[destination] = message + (x if passed is None else x @ passed)
        return output, attention, weights

    def _relation_scores(self, relations: int) -> jax.Array:
        """[1 + R, H]: a node's score to itself, then each relation's."""
        embedding = self.param("relation_embedding", nn.initializers.normal(1.0), (1 + relations, self.edge_features))
        kernel = self.param("relation_kernel", glorot, (self.edge_features, self.heads * self.edge_features))
        attention = self.param("attention_relation", glorot, (self.heads, self.edge_features))
        projected = (embedding @ kernel).reshape(1 + relations, self.heads, self.edge_features)
        return jnp.einsum("rhd,hd->rh", projected, attention)


class SimpleHGN(NodeClassifier, kw_only=True):
    """Simple-HGN node classifier (arXiv 2112.14936), with layer norm and GELU between layers.

    Args, beside those of `NodeClassifier`:
      heads: attention heads; they divide hidden, or ValueError is raised.
      edge_features: width of the relations' embeddings.
      attention_dropout: rate on attention weights while training.
      attention_residual: beta, the share of the layer before in the attention.
      logit_scale: the length every row of logits is given (the paper's L2 normalisation has 1); None leaves
        them as they are.
    """

    heads: int = 4
    edge_features: int = 64
    attention_dropout: float = 0.0
    attention_residual: float = 0.05
    logit_scale: float | None = 1.0

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `SimpleHGNLayer`."""
        layer = SimpleHGNLayer(features=self.hidden, heads=self.heads, edge_features=self.edge_features,
                               attention_dropout=self.attention_dropout, attention_residual=self.attention_residual,
                               dtype=self.dtype)
        return layer(graph, hidden, destinations, carry, train=train)

    def finish(self, logits: jax.Array) -> jax.Array:
        """Rows of Euclidean length `logit_scale`."""
        return logits if self.logit_scale is None else self.logit_scale * unit_rows(logits)
