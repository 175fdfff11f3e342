"""How a model reads features: through a projection that brings them to one width, or as they are."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import GraphError, HeteroGraph
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


class SharedDense(nn.Module, kw_only=True):
    """One linear map for all node types: {type: [N, d]}, dense or `SparseFeatures`, to {type: [N, features]}."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, hidden: dict[str, Any]) -> dict[str, jax.Array]:
        x = next(iter(hidden.values()))
        kernel = self.param("kernel", glorot, (x.shape[1], self.features)).astype(self.dtype or x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype or x.dtype)
        return {name: x @ kernel + bias for name, x in hidden.items()}


def read_features(graph: HeteroGraph, types: Sequence[str], dtype: Any, *, reader: str) -> dict[str, Any]:
    """{type: features as they are, sparse ones too}, dense ones as `dtype` where that is given.

    Raises GraphError, which begins with `reader`, for a type without features and for features of several widths.
    """
    if missing := [name for name in types if name not in graph.features]:
        raise GraphError(f"{reader} reads features, but node type {missing[0]!r} has none; types with "
                         f"features: {sorted(graph.features)}")
    widths = {name: graph.features[name].shape[1] for name in types}
    if len(set(widths.values())) > 1:
        raise GraphError(f"{reader} needs features of one width, got {widths}")
    features = {name: graph.features[name] for name in types}
    return {name: x if isinstance(x, SparseFeatures) else x.astype(dtype or x.dtype) for name, x in features.items()}
