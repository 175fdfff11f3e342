"""Simple graph convolution (SGC), arXiv 1902.07153, on the graph with its types forgotten."""

import flax.linen as nn
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.dropout import Dropout
from hire_jax.models.output import ModelOutput
from hire_jax.models.projection import glorot, read_features
from hire_jax.models.propagation import propagate


class SGC(nn.Module, kw_only=True):
    """SGC node classifier (arXiv 1902.07153, equation 8): a linear map of features averaged over `hops` steps.

    logits = S^K X W + b,   S the normalised adjacency with self loops of `propagate`, K = hops

    X W comes first: it commutes with S and is narrower. All node types share W, so those that reach the target in
    `hops` steps must have features of one width, dense or sparse.

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hops: K.
      dropout: rate on the features while training; the paper has none.
      dtype: arithmetic of products and propagation; parameters and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput` whose logits are [N_target, num_classes], whose
    hidden is ({},), as nothing lies between features and logits, and whose attention is (). Raises GraphError when
    `target` is not a node type, or a type that is needed has no features or features of another width;
    ValueError for hops below 0.
    """

    target: str
    num_classes: int
    hops: int = 2
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        if self.hops < 0:
            raise ValueError(f"hops must be at least 0, got {self.hops}")
        needed = graph.receptive_field(self.target, self.hops)
        features = Dropout(rate=self.dropout)(read_features(graph, needed[0], self.dtype, reader="SGC"), train=train)
        x = features[self.target]
        kernel = self.param("kernel", glorot, (x.shape[1], self.num_classes)).astype(self.dtype or x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        rows = {name: x @ kernel for name, x in features.items()}
        for types in needed[1:]:
            rows = propagate(graph, graph.refreshed(rows, types), types)
        return ModelOutput(logits=rows[self.target].astype(jnp.float32) + bias, hidden=({},), attention=())
