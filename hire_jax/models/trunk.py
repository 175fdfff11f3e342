"""What message-passing classifiers have in common: projection, layers of one kind, classifier."""

import abc
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import EdgeType, HeteroGraph
from hire_jax.models.dropout import Dropout
from hire_jax.models.normact import NormAct
from hire_jax.models.output import ModelOutput
from hire_jax.models.projection import InputProjection, read_features

Hidden = dict[str, jax.Array]
Attention = dict[EdgeType, jax.Array]


class NodeClassifier(nn.Module, abc.ABC, kw_only=True):
    """Base of the models that differ in their layer alone.

      h^0 = act(norm(x W_type + b_type));  h^l = act(norm(layer_l(dropout(h^{l-1}))));  logits = dropout(h^L) W + b

    with layer norm and GELU. With `norm=False` it is the form of most reference codes,

      h^0 = x W_type + b_type;  h^l = elu(layer_l(dropout(h^{l-1})));  logits = dropout(h^L) W + b

    in which learned rows of types without features start at a length of 0.03 an entry, so that those that matter can
    outgrow the others. With `projection=False` it is the form of the literature on homogeneous graphs,

      h^0 = x;  h^l = act(layer_l(dropout(h^{l-1})));  logits = layer_L(dropout(h^{L-1})),

    in which the first layer reads the features, sparse ones too, and the last one gives the logits; act is the
    model's own, or layer norm and GELU with `norm=True`. Each layer computes only the node types that can still reach
    the target. A model gives `convolve`, one layer of it, and `readout`, the last one, where it has that form.

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hidden: width of every layer.
      layers: number of message-passing layers.
      dropout: rate after the input projection and after every layer.
      norm: whether rows are normalised after the projection and after every layer. Without, the first layer of GCN has
        no matrix but the projection's.
      projection: whether a linear map stands before the first layer and another after the last.
      dtype: arithmetic of the layers, e.g. jnp.bfloat16; parameters and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput`; logits are [N_target, num_classes]. With
    `truncated=True` the last layer and what follows it are left out, and so are their parameters: `hidden` then ends
    with what that layer reads, before dropout, and logits are None. Raises GraphError when `target` is not a node
    type or, with `projection=False`, when a type that is needed has no features; ValueError when the model has no such
    form.
    """

    target: str
    num_classes: int
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    norm: bool = True
    projection: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False, truncated: bool = False) -> ModelOutput:
        if self.layers < (0 if self.projection else 1):
            raise ValueError(f"layers must be at least {0 if self.projection else 1}, got {self.layers}")
        needed = self.reach(graph)
        h = self._enter(graph, needed[0])
        hidden, attention, carry = [h if self.projection else {}], [], None
        for types in needed[1:-1] if truncated or not self.projection else needed[1:]:
            h = graph.refreshed(Dropout(rate=self.dropout)(h, train=train), types)
            h, weights, carry = self.convolve(graph, h, types, carry, train)
            h = self._activate(h)
            hidden.append(h)
            attention.append(weights)
        logits: Any = None
        if not truncated:
            h = Dropout(rate=self.dropout)(h, train=train)
            if self.projection:
                logits = nn.Dense(self.num_classes, name="classifier")(h[self.target].astype(jnp.float32))
            else:
                h, weights = self.readout(graph, graph.refreshed(h, [self.target]), carry, train)
                attention.append(weights)
                logits = h[self.target].astype(jnp.float32)
            logits = self.finish(logits)
        return ModelOutput(logits=logits, hidden=tuple(hidden), attention=tuple(attention))

    def _enter(self, graph: HeteroGraph, types: Sequence[str]) -> dict[str, Any]:
        """h^0 of the types needed."""
        if self.projection:
            scale = 1.0 if self.norm else 0.03
            h = InputProjection(width=self.hidden, embedding_scale=scale, dtype=self.dtype)(graph, types)
            return NormAct(dtype=self.dtype)(h) if self.norm else h
        return read_features(graph, types, self.dtype, reader="projection=False")

    def _activate(self, h: Hidden) -> Hidden:
        if self.norm:
            return NormAct(dtype=self.dtype)(h)
        activate = nn.elu if self.projection else self.activation
        return {name: activate(rows) for name, rows in h.items()}

    def reach(self, graph: HeteroGraph) -> tuple[tuple[str, ...], ...]:
        """The node types known after the projection and after each layer."""
        return graph.receptive_field(self.target, self.layers)

    @abc.abstractmethod
    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One layer: {destination: [N, hidden]}, its attention ({} without), and what the next layer's `carry` is."""

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """The last layer with `projection=False`: {target: [N, num_classes]} and its attention."""
        raise ValueError(f"{type(self).__name__} has no form without projection; projection=True is what it has")

    def activation(self, x: jax.Array) -> jax.Array:
        """What follows a layer with neither norm nor projection."""
        return nn.relu(x)

    def finish(self, logits: jax.Array) -> jax.Array:
        """What is done to the logits last."""
        return logits
