"""Heterogeneous graph attention network (HAN), arXiv 1903.07293."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.metapaths import REACHES
from hire_jax.models.attention import attend_relation
from hire_jax.models.dropout import Dropout
from hire_jax.models.gat import head_width
from hire_jax.models.normact import NormAct
from hire_jax.models.output import ModelOutput
from hire_jax.models.projection import InputProjection, glorot
from hire_jax.models.trunk import Attention, Hidden


class HANLayer(nn.Module, kw_only=True):
    """One layer of HAN for one destination type (arXiv 1903.07293, equations 1 to 9).

    For each metapath p and head, with x = W h + b a linear map of each node type:

      s_e = LeakyReLU(a_p . x_j + c_p . x_i),  a = softmax of s over the edges of p into i
      z^p_i = || over heads of relu(sum_e a_e x_j)
      w_p = q . mean_i tanh(W_s z^p_i + b_s),  h'_i = sum_p softmax(w)_p z^p_i

    A metapath is a source type of the graph with one relation into the destination. Where `hidden` lacks that
    type it is a view of the destination's own nodes (`hire_jax.metapaths.metapath_graph`), whose x it shares.
    Edge features of such a relation are numbers of walks: each walk then counts as an edge of its own.

    Where a metapath links many of all pairs, the messages come from `dense_attention`, whose note on underflow
    then holds. The softmax of w is also sown as "metapath_weights" into the collection "intermediates".

    Returns h' [N, features], {source type: z^p}, {edge type: [E, heads]} (the attention before its dropout) and
    the softmax of w [metapaths]. Raises GraphError when two relations lead from one type to the destination,
    ValueError when heads do not divide features.
    """

    features: int
    heads: int
    semantic_features: int | None = None  # of W_s; None takes `features`
    attention_dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destination: str, *,
                 train: bool = False) -> tuple[jax.Array, Hidden, Attention, jax.Array]:
        width = head_width(self.features, self.heads)
        projected = {}
        for name, x in hidden.items():
            x = nn.Dense(self.features, kernel_init=glorot, dtype=self.dtype, name=f"projection_{name}")(x)
            projected[name] = x.reshape(x.shape[0], self.heads, width)
        own = projected[destination]
        views, attention = {}, {}
        for source, block in graph.blocks_into(destination):
            if block.num_relations > 1:
                raise GraphError(f"HAN takes one relation from {source!r} to {destination!r}, the graph has "
                                 f"{list(block.edge_types)}; make metapaths of them with metapath_graph")
            x = projected.get(source, own)
            ends = [self.param(f"attention_{end}_{source}", glorot, (self.heads, width)).astype(x.dtype)
                    for end in ("source", "destination")]
            message, weights = attend_relation(
                block, jnp.einsum("nhd,hd->nh", own, ends[1]), jnp.einsum("nhd,hd->nh", x, ends[0]), x,
                counts=graph.relations[block.edge_types[0]].edges, train=train,
                dropout=Dropout(rate=self.attention_dropout, name=f"attention_dropout_{source}"))
            views[source] = nn.relu(message).reshape(own.shape[0], self.features)
            attention[block.edge_types[0]] = weights
        if not views:
            return own.reshape(own.shape[0], self.features), {}, {}, jnp.zeros(0)
        importance = self._importance(jnp.stack(list(views.values())))
        self.sow("intermediates", "metapath_weights", importance)
        fused = jnp.einsum("p,pnd->nd", importance, jnp.stack(list(views.values())))
        return fused, views, attention, importance

    def _importance(self, views: jax.Array) -> jax.Array:
        """The semantic attention, [P], of embeddings [P, N, features]."""
        width = self.semantic_features or self.features
        hidden = nn.tanh(nn.Dense(width, dtype=self.dtype, name="semantic")(views))
        query = self.param("semantic_query", nn.initializers.normal(width ** -0.5), (width,))
        mean = jnp.sum(hidden, axis=1, dtype=jnp.float32) / max(1, views.shape[1])
        scores = mean @ query
        return nn.softmax(scores).astype(views.dtype)


class HAN(nn.Module, kw_only=True):
    """HAN node classifier (arXiv 1903.07293) on a graph of metapaths, `hire_jax.metapaths.metapath_graph`.

    `ModelOutput.hidden` holds the target's projection, then for every layer the embeddings of the metapaths,
    {metapath: [N_target, hidden]}, and the fused one, {target: [N_target, hidden]}. HIRE's relation-level term
    correlates node types; here it correlates metapaths, each taken as a type (our reading).

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hidden: width of every layer; a multiple of heads.
      layers: number of attention layers.
      heads: attention heads.
      semantic_features: width of the semantic attention.
      dropout: rate after the input projection and after every layer.
      attention_dropout: rate on attention weights while training.
      dtype: arithmetic of the layers, e.g. jnp.bfloat16; parameters, softmax and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput`; logits are [N_target, num_classes].
    Raises GraphError when `target` is not a node type or the graph has no metapaths into it, ValueError when heads
    do not divide hidden.
    """

    target: str
    num_classes: int
    hidden: int = 64
    layers: int = 1
    heads: int = 8
    semantic_features: int = 128
    dropout: float = 0.5
    attention_dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        graph.receptive_field(self.target, 0)  # says that the target is unknown
        paths = [name for name in graph.node_types if name != self.target]
        metapaths_only = all(
            (name, REACHES, self.target) in graph.relations and name not in graph.features
            and graph.num_nodes[name] == graph.num_nodes[self.target] for name in paths)
        if not paths or not metapaths_only or len(graph.edge_types) > len(paths):
            raise GraphError(f"HAN reads a graph of metapaths into {self.target!r}, got the relations "
                             f"{list(graph.edge_types)}; make one with hire_jax.metapaths.metapath_graph")
        h = InputProjection(width=self.hidden, dtype=self.dtype)(graph, [self.target])
        h = NormAct(dtype=self.dtype)(h)
        hidden, attention = [h], []
        for _ in range(self.layers):
            h = Dropout(rate=self.dropout)(h, train=train)
            layer = HANLayer(features=self.hidden, heads=self.heads, semantic_features=self.semantic_features,
                             attention_dropout=self.attention_dropout, dtype=self.dtype)
            fused, views, weights, _ = layer(graph, h, self.target, train=train)
            h = NormAct(dtype=self.dtype)({self.target: fused})
            hidden += [views, h]
            attention.append(weights)
        h = Dropout(rate=self.dropout)(h, train=train)
        logits = nn.Dense(self.num_classes, name="classifier")(h[self.target].astype(jnp.float32))
        return ModelOutput(logits=logits, hidden=tuple(hidden), attention=tuple(attention))
