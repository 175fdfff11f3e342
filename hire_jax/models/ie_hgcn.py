"""Interpretable and efficient heterogeneous graph convolution (ie-HGCN), arXiv 2005.13183."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import spmm

_kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=0)


class IEHGCNLayer(nn.Module, kw_only=True):
    """One ie-HGCN layer, without activation (arXiv 2005.13183, section 4).

    For a node i of type t and every relation r into t, with mean_r the mean over i's neighbours through r:

      z_t = W_t h_i,  z_r = W_r mean_r(h_j)                       projection to t's space
      e_x = ELU(v . [z_x K_t || z_t Q_t])  for x in {t, all r},  a = softmax of e over x
      h'_i = a_t z_t + sum_r a_r z_r

    Input {type: [N, d]}, output {type: [N, features]} for `destinations` and {type: [N, 1 + R]}, the weights of
    the node itself and of the relations into its type.
    """

    features: int
    attention_features: int = 32
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden,
                 destinations: Sequence[str]) -> tuple[Hidden, dict[str, jax.Array]]:
        output, weights = {}, {}
        for destination in destinations:
            x = hidden[destination]
            dtype = self.dtype or x.dtype
            root = self.param(f"root_{destination}", glorot, (x.shape[1], self.features))
            projected = [(x @ root.astype(dtype))[:, None]]
            for source, block in graph.blocks_into(destination):
                y = hidden[source]
                shape = (block.num_relations, y.shape[1], self.features)
                kernel = self.param(f"kernel_{source}->{destination}", _kernel_init, shape).astype(dtype)
                means = spmm(block.by_relation(), block.mean, y, t_weights=block.t_mean)
                means = means.reshape(x.shape[0], *shape[:2])
                projected.append(jnp.einsum("nrd,rdf->nrf", means, kernel))
            z = jnp.concatenate(projected, axis=1)  # [N, 1 + R, features]
            alpha = self._attention(destination, z)
            output[destination] = jnp.einsum("nr,nrf->nf", alpha.astype(z.dtype), z)
            weights[destination] = alpha
        return output, weights

    def _attention(self, name: str, z: jax.Array) -> jax.Array:
        shape = (self.features, self.attention_features)
        key, query = (self.param(f"{role}_{name}", glorot, shape).astype(z.dtype) for role in ("key", "query"))
        vector = self.param(f"vector_{name}", glorot, (2, self.attention_features)).astype(z.dtype)
        # v . [z K || z_t Q] is a sum of two products with vectors: K v_1 and Q v_2 are formed first.
        scores = z @ (key @ vector[0]) + (z[:, 0] @ (query @ vector[1]))[:, None]
        return nn.softmax(nn.elu(scores).astype(jnp.float32), axis=1)


class IEHGCN(NodeClassifier, kw_only=True):
    """ie-HGCN node classifier (arXiv 2005.13183), with layer norm and GELU between layers.

    The weights of the relations, {type: [N, 1 + R]}, are sown as "relation_weights" into the collection
    "intermediates", one entry a layer.

    Args, beside those of `NodeClassifier`:
      attention_features: width of the attention over relations.
    """

    attention_features: int = 32

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `IEHGCNLayer`."""
        layer = IEHGCNLayer(features=self.hidden, attention_features=self.attention_features, dtype=self.dtype)
        output, weights = layer(graph, hidden, destinations)
        self.sow("intermediates", "relation_weights", weights)
        return output, {}, None
