"""SeHGNN, arXiv 2207.02547: features averaged along metapaths beforehand, fused by a transformer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.models.dropout import Dropout
from hire_jax.models.normact import NormAct
from hire_jax.models.output import ModelOutput
from hire_jax.models.projection import InputProjection


class SemanticFusion(nn.Module, kw_only=True):
    """Transformer-like fusion of P metapath embeddings (arXiv 2207.02547, section 5.3).

      q, k, v = maps of z_p;  b_pl = softmax over l of q_p . k_l;  z'_p = z_p + gamma * sum_l b_pl v_l

    [N, P, d] to [N, P, d]; gamma starts at 0, q and k have `features` / 4 numbers.
    """

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        narrow = max(1, self.features // 4)
        # A bias of the keys would add the same to all scores of a softmax.
        query, key = (nn.Dense(narrow, use_bias=role == "query", dtype=self.dtype, name=role)(z)
                      for role in ("query", "key"))
        value = nn.Dense(self.features, dtype=self.dtype, name="value")(z)
        scores = jnp.einsum("npd,nld->npl", query, key).astype(jnp.float32)
        gamma = self.param("gamma", nn.initializers.zeros, ())
        return z + gamma.astype(z.dtype) * jnp.einsum("npl,nld->npd", nn.softmax(scores).astype(z.dtype), value)


class SeHGNN(nn.Module, kw_only=True):
    """SeHGNN node classifier (arXiv 2207.02547) on `hire_jax.metapaths.propagated_graph`.

    Every node type of that graph is a metapath with its features, and no edge is read: an epoch costs what a
    multilayer perceptron costs. Each metapath has its own two-layer projection; `SemanticFusion` mixes them; their
    concatenation, a residual from the target's own features, and `layers` dense layers give the logits.

    `ModelOutput.hidden` holds the projections, {metapath: [N_target, hidden]}, the fused embeddings likewise, and
    the target's last, {target: [N_target, hidden]}; HIRE's relation-level term correlates metapaths (our reading).

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hidden: width of every layer.
      layers: number of dense layers after the fusion.
      dropout: rate after the projections and after every dense layer.
      input_dropout: rate on every metapath's projection before its second layer.
      dtype: arithmetic of the layers, e.g. jnp.bfloat16; parameters and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput`; logits are [N_target, num_classes].
    Raises GraphError when `target` is not a node type or the graph has relations.
    """

    target: str
    num_classes: int
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    input_dropout: float = 0.1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        graph.receptive_field(self.target, 0)  # says that the target is unknown
        if graph.edge_types:
            raise GraphError(f"SeHGNN reads features propagated beforehand, got a graph with {len(graph.edge_types)} "
                             "relations; make one with hire_jax.metapaths.propagated_graph")
        paths = [name for name in graph.node_types if name in graph.features]
        counts = {graph.num_nodes[name] for name in paths}
        if counts != {graph.num_nodes[self.target]}:
            raise GraphError(f"every node type with features must have the {graph.num_nodes[self.target]} nodes of "
                             f"{self.target!r}, got {({name: graph.num_nodes[name] for name in paths})}; make the "
                             "graph with hire_jax.metapaths.propagated_graph")
        first = NormAct(dtype=self.dtype)(InputProjection(width=self.hidden, dtype=self.dtype)(graph, paths))
        first = Dropout(rate=self.input_dropout)(first, train=train)
        second = {name: nn.Dense(self.hidden, dtype=self.dtype, name=f"projection_{name}")(x)
                  for name, x in first.items()}
        second = NormAct(dtype=self.dtype)(second)
        z = Dropout(rate=self.dropout)(jnp.stack([second[name] for name in paths], axis=1), train=train)
        z = SemanticFusion(features=self.hidden, dtype=self.dtype)(z)
        fused = {name: z[:, index] for index, name in enumerate(paths)}

        x = nn.Dense(self.hidden, dtype=self.dtype, name="fusion")(z.reshape(z.shape[0], len(paths) * self.hidden))
        if self.target in second:
            x += nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="residual")(second[self.target])
        h = NormAct(dtype=self.dtype)({self.target: x})
        for index in range(self.layers - 1):
            h = Dropout(rate=self.dropout)(h, train=train)
            h = {self.target: nn.Dense(self.hidden, dtype=self.dtype, name=f"dense_{index}")(h[self.target])}
            h = NormAct(dtype=self.dtype)(h)
        x = Dropout(rate=self.dropout)(h, train=train)[self.target]
        logits = nn.Dense(self.num_classes, name="classifier")(x.astype(jnp.float32))
        return ModelOutput(logits=logits, hidden=(second, fused, h), attention=())
