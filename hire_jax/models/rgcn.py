"""Relational graph convolution (R-GCN), arXiv 1703.06103."""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph, RelationBlock
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import spmm

Aggregation = Literal["mean", "sum"]
# Fans are those of one relation's matrix, so the leading axis is excluded from them.
_kernel_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=0)


class RGCNLayer(nn.Module, kw_only=True):
    """One relational convolution, without activation (arXiv 1703.06103, equation 2).

    h'_i = W_0 h_i + b + sum_r sum_{j in N_r(i)} c_ir W_r h_j,  c_ir = 1 / |N_r(i)| for mean, 1 for sum

    With `bases=B` the weights are W_r = sum_b a_rb V_b (equation 3), the V_b shared by all relations. W_0 and
    b belong to a node type. Input {type: [N, d]}, output {type: [N, features]} for `destinations`.

    All relations between two types are one matrix product and one sparse product. When destinations are fewer
    than sources the sparse product comes first, as it commutes with W_r: both orders give the same values.
    """

    features: int
    bases: int | None = None
    aggregation: Aggregation = "mean"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: dict[str, jax.Array],
                 destinations: Sequence[str]) -> dict[str, jax.Array]:
        if self.aggregation not in ("mean", "sum"):
            raise ValueError(f"aggregation must be 'mean' or 'sum', got {self.aggregation!r}")
        bases = None if self.bases is None else self._bases(hidden)
        output = {}
        for destination in destinations:
            x = hidden[destination]
            root = self.param(f"root_{destination}", glorot, (x.shape[1], self.features))
            bias = self.param(f"bias_{destination}", nn.initializers.zeros, (self.features,))
            total = x @ self._cast(root, x) + self._cast(bias, x)
            for source, block in graph.blocks_into(destination):
                y = hidden[source]
                kernels = self._kernels(f"{source}->{destination}", block.num_relations, y.shape[1], bases)
                kernels = self._cast(kernels, y)
                total += _aggregate(block, y, kernels, self.aggregation)
            output[destination] = total
        return output

    def _cast(self, parameter: jax.Array, x: jax.Array) -> jax.Array:
        return parameter.astype(self.dtype or x.dtype)

    def _bases(self, hidden: dict[str, jax.Array]) -> jax.Array:
        """[B, d, features], shared by all relations."""
        widths = {name: x.shape[1] for name, x in hidden.items()}
        if len(set(widths.values())) != 1:
            raise ValueError(f"bases are shared by all relations, so all types must have one width, got {widths}")
        return self.param("bases", _kernel_init, (self.bases, *set(widths.values()), self.features))

    def _kernels(self, name: str, relations: int, width: int, bases: jax.Array | None) -> jax.Array:
        """[R, d, features]: one matrix a relation."""
        if bases is None:
            return self.param(f"kernel_{name}", _kernel_init, (relations, width, self.features))
        coefficients = self.param(f"coefficients_{name}", nn.initializers.normal(len(bases) ** -0.5),
                                  (relations, len(bases)))
        return jnp.einsum("rb,bio->rio", coefficients, bases)


def _aggregate(block: RelationBlock, x: jax.Array, kernels: jax.Array, aggregation: Aggregation) -> jax.Array:
    relations, width, features = kernels.shape
    weights, t_weights = (block.mean, block.t_mean) if aggregation == "mean" else (None, None)
    destinations, sources = block.csr.shape[0], x.shape[0]
    if relations == 1 and destinations < sources:
        return spmm(block.csr, weights, x, t_weights=t_weights) @ kernels[0]
    messages = x @ kernels.transpose(1, 0, 2).reshape(width, relations * features)
    return spmm(block.csr, weights, messages.reshape(sources * relations, features), t_weights=t_weights)


class RGCN(NodeClassifier, kw_only=True):
    """R-GCN node classifier (arXiv 1703.06103) with layer norm and GELU between layers.

    Args, beside those of `NodeClassifier`:
      bases: number of basis matrices shared by the relations of a layer, or None for a free matrix each.
      aggregation: "mean" over each relation's neighbours, or "sum".
    """

    bases: int | None = None
    aggregation: Aggregation = "mean"

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `RGCNLayer`."""
        layer = RGCNLayer(features=self.hidden, bases=self.bases, aggregation=self.aggregation, dtype=self.dtype)
        return layer(graph, hidden, destinations), {}, None
