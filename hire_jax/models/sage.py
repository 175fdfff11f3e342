"""GraphSAGE with mean aggregation for each relation (arXiv 1706.02216; relations as in arXiv 1703.06103)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.rgcn import RGCNLayer
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier


class HeteroSAGELayer(nn.Module, kw_only=True):
    """One GraphSAGE convolution with its own weights for every relation, summed over relations.

    h'_i = W_0 h_i + b + sum_r W_r mean_{j in N_r(i)} h_j,  divided by its Euclidean norm with `normalise=True`
    (arXiv 1706.02216, algorithm 1, line 7)

    GraphSAGE concatenates a node with its neighbours' mean and multiplies by one matrix, which is the sum of
    two products. Without the norm this is the layer of R-GCN without bases, and is computed by it.

    Input {type: [N, d]}, output {type: [N, features]} for `destinations`; a row of zeros stays zero.
    """

    features: int
    normalise: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str]) -> Hidden:
        layer = RGCNLayer(features=self.features, aggregation="mean", dtype=self.dtype, name="relations")
        output = layer(graph, hidden, destinations)
        return {name: unit_rows(x) for name, x in output.items()} if self.normalise else output


def unit_rows(x: jax.Array) -> jax.Array:
    """Rows divided by their Euclidean norms, or by 1e-12 where that is larger: a row of zeros stays zero."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24)).astype(x.dtype)


class HeteroSAGE(NodeClassifier, kw_only=True):
    """GraphSAGE node classifier on a heterogeneous graph (arXiv 1706.02216).

    Args, beside those of `NodeClassifier`:
      normalise: divides every layer's rows by their norm, as the paper does; layer norm follows either way.
    """

    normalise: bool = True

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `HeteroSAGELayer`."""
        layer = HeteroSAGELayer(features=self.hidden, normalise=self.normalise, dtype=self.dtype)
        return layer(graph, hidden, destinations), {}, None
