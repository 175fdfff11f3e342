"""Heterogeneous graph transformer (HGT), arXiv 2003.01332."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import EdgeType, HeteroGraph, RelationBlock
from hire_jax.models.dropout import Dropout
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import joint_segment_softmax, sddmm, spmm


class HGTLayer(nn.Module, kw_only=True):
    """One layer of heterogeneous mutual attention (arXiv 2003.01332, section 3).

    For head h and an edge e = (j -> i) of relation r, with k, q, v linear maps of each node type:

      s_e = p_r (k_j K_r) . q_i / sqrt(d),   a = softmax of s over all edges into i, whatever their relation
      m_i = sum_e a_e (v_j V_r)
      h'_i = A_t gelu(m_i) + c_t,            blended: sigmoid(g_t) h'_i + (1 - sigmoid(g_t)) h_i

    The blend is used where input and output widths agree. K_r and V_r act after k and v, so their products
    are formed first and each relation costs one matrix product over its sources: k_j K_r = h_j (W_k K_r).

    Input {type: [N, d]}; output {type: [N, features]} for `destinations`, and {edge type: [E, heads]}, the
    attention before its dropout. Raises ValueError when heads do not divide features.
    """

    features: int
    heads: int
    attention_dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: dict[str, jax.Array], destinations: Sequence[str], *,
                 train: bool = False) -> tuple[dict[str, jax.Array], dict[EdgeType, jax.Array]]:
        if self.features % self.heads:
            raise ValueError(f"features must be a multiple of heads, got features={self.features}, "
                             f"heads={self.heads}")
        sources = {source for destination in destinations for source, _ in graph.blocks_into(destination)}
        maps = {name: self._type_maps(name, x.shape[1], keys=name in sources, queries=name in destinations)
                for name, x in hidden.items()}
        output, attention = {}, {}
        for destination in destinations:
            x = hidden[destination]
            query = self._heads(x @ maps[destination]["query"][0] + maps[destination]["query"][1])
            blocks = graph.blocks_into(destination)
            keys_values = [self._messages(hidden[source], maps[source], f"{source}->{destination}", block)
                           for source, block in blocks]
            message = jnp.zeros((x.shape[0], self.features), x.dtype)
            if blocks:
                scores = [sddmm(block.csr, query, key).astype(jnp.float32)
                          for (_, block), (key, _) in zip(blocks, keys_values, strict=True)]
                weights = joint_segment_softmax(scores, [block.csr.rows for _, block in blocks], x.shape[0])
                for (_, block), alpha, (_, value) in zip(blocks, weights, keys_values, strict=True):
                    attention.update(block.split(alpha))
                    alpha = Dropout(rate=self.attention_dropout)(alpha, train=train)
                    message += spmm(block.csr, alpha.astype(value.dtype), value).reshape(message.shape)
            output[destination] = self._update(destination, x, message)
        return output, attention

    def _type_maps(self, name: str, width: int, *, keys: bool, queries: bool) -> dict[str, tuple]:
        """The linear maps a type takes part with: (W [d, features], b [features]) by role."""
        roles = (["key", "value"] if keys else []) + (["query"] if queries else [])
        return {role: (self._cast(self.param(f"{role}_{name}", glorot, (width, self.features))),
                       self._cast(self.param(f"bias_{role}_{name}", nn.initializers.zeros, (self.features,))))
                for role in roles}

    def _messages(self, x: jax.Array, maps: dict[str, tuple], name: str,
                  block: RelationBlock) -> tuple[jax.Array, jax.Array]:
        """Keys and values of every source through every relation: two arrays [N_s * R, H, d]."""
        relations, width = block.num_relations, self.features // self.heads
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", batch_axis=(0, 1))
        prior = self._cast(self.param(f"prior_{name}", nn.initializers.ones, (relations, self.heads)))
        shape = (relations, self.heads, width, width)
        transforms = {"key": self._cast(self.param(f"relation_key_{name}", init, shape))
                      * (prior * width ** -0.5)[:, :, None, None],
                      "value": self._cast(self.param(f"relation_value_{name}", init, shape))}
        messages = []
        for role, transform in transforms.items():
            weight, bias = (p.reshape(-1, self.heads, width) for p in maps[role])
            composed = jnp.einsum("ihd,rhde->irhe", weight, transform).reshape(weight.shape[0], -1)
            offset = jnp.einsum("ihd,rhde->irhe", bias, transform).reshape(-1)
            messages.append((x @ composed + offset).reshape(x.shape[0] * relations, self.heads, width))
        return messages[0], messages[1]

    def _update(self, name: str, x: jax.Array, message: jax.Array) -> jax.Array:
        out = nn.gelu(message, approximate=False)
        out = nn.Dense(self.features, kernel_init=glorot, dtype=self.dtype, name=f"output_{name}")(out)
        if x.shape[1] != self.features:
            return out
        gate = nn.sigmoid(self._cast(self.param(f"skip_{name}", nn.initializers.ones, ())))
        return gate * out + (1 - gate) * x

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], self.heads, self.features // self.heads)

    def _cast(self, parameter: jax.Array) -> jax.Array:
        return parameter if self.dtype is None else parameter.astype(self.dtype)


class HGT(NodeClassifier, kw_only=True):
    """HGT node classifier (arXiv 2003.01332), with layer norm and GELU between layers.

    Args, beside those of `NodeClassifier`:
      heads: attention heads; they divide hidden, or ValueError is raised.
      attention_dropout: rate on attention weights while training.
    """

    heads: int = 4
    attention_dropout: float = 0.0

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One `HGTLayer`."""
        layer = HGTLayer(features=self.hidden, heads=self.heads, attention_dropout=self.attention_dropout,
                         dtype=self.dtype)
        return *layer(graph, hidden, destinations, train=train), None
