"""GKEDM, arXiv 2403.15419: an attention module in the place of a trained network's last convolution.

The paper's body could not be read; this is our reading of its abstract and of summaries (docs/gkedm.md). What they
leave open is an argument here.
"""


from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import SELF, GraphError, HeteroGraph
from hire_jax.models.attention import joint_softmax, softmax_sum
from hire_jax.models.dropout import Dropout
from hire_jax.models.gat import head_width
from hire_jax.models.normact import NormAct
from hire_jax.models.output import ModelOutput
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import sddmm


class GKEDMLayer(nn.Module, kw_only=True):
    """Multi-head attention of every target node over its neighbours and itself (arXiv 1706.03762 on the edges).

    For each head and an edge e = (j -> i), the node itself included, with d the width of a head's keys:

      s_e = q_i . k_j / sqrt(d),   a = softmax of s over all edges into i,   m_i = || over heads of sum_e a_e v_j
      q = x W_q + b_q,  k = x W_k + b_k,  v = z W_v + b_v,   z = x unless given

    With `concat=False` every head's values have the full width and the mean over heads is taken. All relations share
    the three maps, or with `relation_wise=True` each relation, and a node's relation to itself, has keys and values of
    its own. Time and memory are linear in the edges.

    Args:
      features: width of the output; heads: they divide it, or ValueError is raised.
      key_features: width of all heads' keys, of which heads are a divisor too; None is `features`.
      concat: see above; heads then need not divide `features`.
      attention_dropout: rate on the weights that sum the values, not on those returned.
      self_loops: whether a node attends to itself; relation_wise: see above.
      value_weighted: returns a_e |v_j| / sum over the edges into i of the same instead of a_e: what each neighbour
        adds and not only how it is weighted (after arXiv 2004.10102), which values cannot compensate.

    Input x {type: [N, d]}, and z as `sources`; output [N_destination, features], and {edge type: [E, heads]} with the
    entry (destination, "self", destination): [N_destination, heads] of the nodes themselves.
    """

    features: int
    heads: int
    key_features: int | None = None
    concat: bool = True
    attention_dropout: float = 0.0
    self_loops: bool = True
    relation_wise: bool = False
    value_weighted: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destination: str, *, sources: Hidden | None = None,
                 train: bool = False) -> tuple[jax.Array, Attention]:
        key_features = self.features if self.key_features is None else self.key_features
        depth = head_width(key_features, self.heads, "key_features")
        width = head_width(self.features, self.heads) if self.concat else self.features
        rows_of = {"key": hidden, "value": hidden if sources is None else sources}
        widths = {"key": depth, "value": width}

        def dense(role: str, relations: int = 1, suffix: str = "") -> nn.Dense:  # one map beside another
            return nn.Dense(relations * self.heads * widths[role], dtype=self.dtype, name=role + suffix)

        def mapped(role: str, layer: nn.Dense, name: str) -> jax.Array:
            return layer(rows_of[role][name]).reshape(-1, self.heads, widths[role])

        shared = {role: dense(role) for role in widths}
        x = hidden[destination]
        query = nn.Dense(self.heads * depth, dtype=self.dtype, name="query")(x).reshape(-1, self.heads, depth)
        query = query * depth ** -0.5
        edges, scores, values = [], [], []
        for source, block in graph.blocks_into(destination):
            maps = shared
            if self.relation_wise:
                maps = {role: dense(role, block.num_relations, f"_{source}->{destination}") for role in shared}
            pattern = block.csr if self.relation_wise else block.by_source()
            edges.append((source, block, pattern))
            scores.append(sddmm(pattern, query, mapped("key", maps["key"], source)).astype(jnp.float32))
            values.append(mapped("value", maps["value"], source))
        itself = jnp.zeros((x.shape[0], self.heads, width), query.dtype)
        if self.self_loops:
            scores.append(jnp.sum(query * mapped("key", shared["key"], destination), axis=-1).astype(jnp.float32))
            itself = mapped("value", shared["value"], destination)
        drop = Dropout(rate=self.attention_dropout)
        message, attention, weights = softmax_sum(
            destination, edges, scores, values, itself, self_loops=self.self_loops,
            drop=lambda rows: drop(rows, train=train))
        if self.value_weighted and scores:  # a_e |v_j| over its sum is the softmax of s_e + log |v_j|
            lengths = [0.5 * jnp.log(jnp.sum(jnp.square(rows), axis=-1) + 1e-12) for rows in (*values, itself)]
            columns = [*(pattern.cols for _, _, pattern in edges), slice(None)]
            weights = joint_softmax(edges, [score + length[column] for score, length, column
                                            in zip(scores, lengths, columns, strict=False)], x.shape[0])
            attention = {name: part for (_, block, _), weight in zip(edges, weights, strict=False)
                         for name, part in block.split(weight).items()}
            if self.self_loops:
                attention[destination, SELF, destination] = weights[-1]
        return message.reshape(x.shape[0], self.features) if self.concat else message.mean(axis=1), attention


class GKEDM(nn.Module, kw_only=True):
    """A trained network whose last convolution is replaced by attention over first-order neighbours (arXiv 2403.15419).

      z = what the backbone's last layer would read;   h = layer norm of z;   x = dropout(h + p W_p)

    and, by `readout`,

      convolution   logits = `GKEDMLayer`(x, values from dropout(z)) + b (+ dropout(z) W_r with `residual`), the mean
                    of heads: the last convolution with attention in the place of its fixed weights
      classifier    y = `GKEDMLayer`(x) W_o + b_o (+ h, or h W_r where widths differ, with `residual`);
                    logits = dropout(act(y)) W + b

    with p the positional encodings of the graph (`HeteroGraph.with_positions`), whose signs, which mean nothing, are
    drawn anew at every training step unless `sign_flips=False`; h = z with `input_norm=False`; act is layer norm and
    GELU, or GELU alone with `norm=False`. Two stages: train the backbone by itself, then this with
    `fit(..., initialise=partial(hire_jax.lift, backbone=result.params))`, which takes over what the two have in common,
    and with `optimizer=hire_jax.slow_backbone(...)` to keep the backbone or to train it more slowly.

    Args:
      backbone: any `NodeClassifier`, of several layers, or of one with a projection.
      heads, attention_dropout, self_loops, relation_wise, value_weighted: of `GKEDMLayer`.
      readout: see above.
      width: of all heads' keys, with a classifier of values and output too; None is the backbone's `hidden`.
      positions: whether to read positional encodings; sign_flips, input_norm: see above.
      residual: adds the backbone's own embedding of the target.
      norm, feed_forward: of the classifier's form: see above, and whether y + W_2 gelu(W_1 y), twice as wide inside,
        follows the attention.
      dropout: of x, of z, before the classifier and within the feed-forward part; None is the backbone's.

    `apply(variables, graph, train=False)` returns a `ModelOutput`: `hidden` is the backbone's, with a classifier
    {target: act(y)} at the end, `attention` is the backbone's with that of `GKEDMLayer` at the end. Raises GraphError
    where positions are wanted and the graph has none, or where the backbone knows no embedding of the target's
    neighbours; ValueError for a backbone that is no `NodeClassifier` or has no layer to replace, for another readout,
    for norm or feed_forward with a convolution, and where heads do not divide the keys' width.
    """

    backbone: NodeClassifier
    heads: int = 8
    readout: Literal["convolution", "classifier"] = "convolution"
    width: int | None = None
    positions: bool = True
    sign_flips: bool = True
    input_norm: bool = True
    self_loops: bool = True
    residual: bool = False
    norm: bool = True
    feed_forward: bool = False
    relation_wise: bool = False
    value_weighted: bool = False
    attention_dropout: float = 0.0
    dropout: float | None = None
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        inner = self.backbone
        if not isinstance(inner, NodeClassifier):
            raise ValueError("backbone must be a NodeClassifier (GCN, GAT, RGCN, HGT, ...), whose last layer can be "
                             f"left out, got {type(inner).__name__}")
        if inner.layers < (1 if inner.projection else 2):
            raise ValueError(f"the backbone has layers={inner.layers}, which leaves nothing before the attention")
        if self.readout not in ("convolution", "classifier"):
            raise ValueError(f"readout must be 'convolution' or 'classifier', got {self.readout!r}")
        if self.readout == "convolution" and (self.feed_forward or not self.norm):
            raise ValueError("norm=False and feed_forward=True are of readout='classifier', got 'convolution'")
        drop = Dropout(rate=inner.dropout if self.dropout is None else self.dropout)
        output = inner(graph, train=train, truncated=True)
        z = output.hidden[-1]
        unknown = {source for source, _ in graph.blocks_into(inner.target)} - set(z)
        if unknown:
            raise GraphError(f"neighbours of {inner.target!r} are of the types {sorted(unknown)}, of which the backbone"
                             f" {type(inner).__name__} has no embeddings before its last layer, only of {sorted(z)}")
        h = z
        if self.input_norm:  # backbones without a norm end on any scale; positions of mean square 1 drown small rows
            h = {name: nn.LayerNorm(dtype=self.dtype, name=f"norm_{name}")(x) for name, x in z.items()}
        x = drop(self._positioned(graph, h, train) if self.positions else h, train=train)
        x = graph.refreshed(x, [inner.target])
        finish = self._convolution if self.readout == "convolution" else self._classifier
        logits, hidden, attention = finish(graph, z, h, x, drop, train)
        return ModelOutput(logits=logits, hidden=(*output.hidden, *hidden), attention=(*output.attention, attention))

    def _layer(self, features: int, concat: bool) -> GKEDMLayer:
        return GKEDMLayer(features=features, heads=self.heads, key_features=self._width, concat=concat,
                          attention_dropout=self.attention_dropout, self_loops=self.self_loops,
                          relation_wise=self.relation_wise, value_weighted=self.value_weighted, dtype=self.dtype,
                          name="attention")

    @property
    def _width(self) -> int:
        return self.backbone.hidden if self.width is None else self.width

    def _convolution(self, graph: HeteroGraph, z: Hidden, h: Hidden, x: Hidden, drop: Dropout,
                     train: bool) -> tuple[jax.Array, list[Hidden], Attention]:
        target, classes = self.backbone.target, self.backbone.num_classes
        z = graph.refreshed(drop(z, train=train), [target])
        logits, attention = self._layer(classes, False)(graph, x, target, sources=z, train=train)
        if self.residual:
            logits += nn.Dense(classes, use_bias=False, dtype=self.dtype, name="own")(z[target])
        bias = self.param("bias", nn.initializers.zeros, (classes,))
        return logits.astype(jnp.float32) + bias, [], attention

    def _classifier(self, graph: HeteroGraph, z: Hidden, h: Hidden, x: Hidden, drop: Dropout,
                    train: bool) -> tuple[jax.Array, list[Hidden], Attention]:
        target, width = self.backbone.target, self._width
        message, attention = self._layer(width, True)(graph, x, target, train=train)
        y = nn.Dense(width, dtype=self.dtype, name="output")(message)
        if self.residual:
            own = h[target]
            y += own if own.shape[1] == width else nn.Dense(width, use_bias=False, dtype=self.dtype, name="own")(own)
        if self.feed_forward:
            inside = drop(nn.gelu(nn.Dense(2 * width, dtype=self.dtype, name="widen")(y)), train=train)
            y += nn.Dense(width, dtype=self.dtype, name="narrow")(inside)
        y = NormAct(dtype=self.dtype)({target: y})[target] if self.norm else nn.gelu(y)
        rows = drop(y, train=train).astype(jnp.float32)
        return nn.Dense(self.backbone.num_classes, name="classifier")(rows), [{target: y}], attention

    def _positioned(self, graph: HeteroGraph, h: Hidden, train: bool) -> Hidden:
        """h + p W_p; types without positions as they are."""
        known = [name for name in h if name in graph.positions]
        if not known:
            raise GraphError("positions=True, but the graph has none; graph.with_positions(laplacian_positions(graph)) "
                             "gives it some, positions=False does without")
        width = graph.positions[known[0]].shape[1]
        sign = jnp.ones(width)
        if train and self.sign_flips:
            sign = jax.random.rademacher(self.make_rng("dropout"), (width,), jnp.float32)
        embed = nn.Dense(h[known[0]].shape[1], use_bias=False, dtype=self.dtype, name="positions")
        return {**h, **{name: h[name] + embed(graph.positions[name] * sign) for name in known}}
