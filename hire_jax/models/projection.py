"""What brings features of different widths to one: the input projection."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.sparse import SparseFeatures

glorot = nn.initializers.glorot_uniform()


class InputProjection(nn.Module, kw_only=True):
    """Brings every node type to one width: h_v = x_v W_type + b_type, or a learned row where x is absent.

    Learned rows start normally distributed, of standard deviation `embedding_scale`. Sparse features stay sparse.
    Returns {type: [N, width]} for the types asked for.
    """

    width: int
    embedding_scale: float = 1.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, types: Sequence[str]) -> dict[str, jax.Array]:
        hidden = {}
        for name in types:
            features = graph.features.get(name)
            if features is None:
                shape = (graph.num_nodes[name], self.width)
                hidden[name] = self.param(f"embedding_{name}", nn.initializers.normal(self.embedding_scale), shape)
            else:
                kernel = self.param(f"kernel_{name}", glorot, (features.shape[1], self.width))
                bias = self.param(f"bias_{name}", nn.initializers.zeros, (self.width,))
                if self.dtype is not None:
                    kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
                if not isinstance(features, SparseFeatures):
                    features = features.astype(kernel.dtype)
                hidden[name] = features @ kernel + bias
            if self.dtype is not None:
                hidden[name] = hidden[name].astype(self.dtype)
        return hidden
