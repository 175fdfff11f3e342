"""Predict, then propagate (APPNP), arXiv 1810.05997, on the graph with its types forgotten."""


import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.dropout import Dropout
from hire_jax.models.output import ModelOutput
from hire_jax.models.projection import SharedDense, read_features
from hire_jax.models.propagation import propagate


class APPNP(nn.Module, kw_only=True):
    """APPNP node classifier (arXiv 1810.05997, equation 4): an MLP whose predictions are propagated.

      h^0 = x;  h^l = relu(dropout(h^{l-1}) W_l + b_l);  z^0 = dropout(h^{L-1}) W_L + b_L
      z^{k+1} = (1 - alpha) S z^k + alpha z^0;  logits = z^K

    S is the normalised adjacency with self loops of `propagate`. All node types share the MLP, so those that reach the
    target in `hops` steps must have features of one width, dense or sparse. The paper also drops entries of S; here S
    is whole.

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hidden: width of the MLP's hidden layers.
      layers: dense layers of the MLP, the last to the classes.
      hops: K, steps of propagation.
      alpha: share of a node's own prediction in each step, the teleport probability of personalised PageRank.
      dropout: rate before each dense layer.
      dtype: arithmetic of products and propagation; parameters and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput` whose logits are [N_target, num_classes], whose
    hidden is ({}, h^1, ..., h^{L-1}), before dropout, and whose attention is (). As propagation comes last, every
    entry of hidden holds all types that reach the target. Raises GraphError when `target` is not a node type, or a
    type that is needed has no features or features of another width; ValueError for fewer than one layer,
    hops below 0 or alpha outside [0, 1].
    """

    target: str
    num_classes: int
    hidden: int = 64
    layers: int = 2
    hops: int = 10
    alpha: float = 0.1
    dropout: float = 0.5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers}")
        if self.hops < 0 or not 0 <= self.alpha <= 1:
            raise ValueError(f"hops must be at least 0 and alpha in [0, 1], got {self.hops} and {self.alpha}")
        needed = graph.receptive_field(self.target, self.hops)
        h = read_features(graph, needed[0], self.dtype, reader="APPNP")
        hidden: list[dict[str, jax.Array]] = [{}]
        for layer in range(self.layers):
            width = self.hidden if layer < self.layers - 1 else self.num_classes
            h = SharedDense(features=width, dtype=self.dtype)(Dropout(rate=self.dropout)(h, train=train))
            if layer < self.layers - 1:
                h = {name: nn.relu(x) for name, x in h.items()}
                hidden.append(h)
        z = h
        for types in needed[1:]:
            moved = propagate(graph, graph.refreshed(z, types), types)
            z = {name: (1 - self.alpha) * x + self.alpha * h[name] for name, x in moved.items()}
        return ModelOutput(logits=z[self.target].astype(jnp.float32), hidden=tuple(hidden), attention=())
