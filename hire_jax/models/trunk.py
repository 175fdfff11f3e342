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
from hire_jax.models.projection import InputProjection

Hidden = dict[str, jax.Array]
Attention = dict[EdgeType, jax.Array]


class NodeClassifier(nn.Module, abc.ABC, kw_only=True):
    """Base of the models that differ in their layer alone.

      h^0 = act(norm(x W_type + b_type));  h^l = act(norm(layer_l(dropout(h^{l-1}))));  logits = dropout(h^L) W + b

    with layer norm and GELU. With `norm=False` it is the form of most reference codes,

      h^0 = x W_type + b_type;  h^l = elu(layer_l(dropout(h^{l-1})));  logits = dropout(h^L) W + b

    in which learned rows of types without features start at a length of 0.03 an entry, so that those that matter can
    outgrow the others. Each layer computes only the node types that can still reach the target. A model gives
    `convolve`, one layer of it.

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hidden: width of every layer.
      layers: number of message-passing layers.
      dropout: rate after the input projection and after every layer.
      norm: whether rows are normalised after the projection and after every layer.
      dtype: arithmetic of the layers, e.g. jnp.bfloat16; parameters and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput`; logits are [N_target, num_classes].
    Raises GraphError when `target` is not a node type.
    """

    target: str
    num_classes: int
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    norm: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        needed = self.reach(graph)
        scale = 1.0 if self.norm else 0.03
        h = InputProjection(width=self.hidden, embedding_scale=scale, dtype=self.dtype)(graph, needed[0])
        if self.norm:
            h = NormAct(dtype=self.dtype)(h)
        hidden, attention, carry = [h], [], None
        for types in needed[1:]:
            h = Dropout(rate=self.dropout)(h, train=train)
            h, weights, carry = self.convolve(graph, h, types, carry, train)
            h = NormAct(dtype=self.dtype)(h) if self.norm else {name: nn.elu(rows) for name, rows in h.items()}
            hidden.append(h)
            attention.append(weights)
        h = Dropout(rate=self.dropout)(h, train=train)
        logits = nn.Dense(self.num_classes, name="classifier")(h[self.target].astype(jnp.float32))
        return ModelOutput(logits=self.finish(logits), hidden=tuple(hidden), attention=tuple(attention))

    def reach(self, graph: HeteroGraph) -> tuple[tuple[str, ...], ...]:
        """The node types known after the projection and after each layer."""
        return graph.receptive_field(self.target, self.layers)

    @abc.abstractmethod
    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One layer: {destination: [N, hidden]}, its attention ({} without), and what the next layer's `carry` is."""

    def finish(self, logits: jax.Array) -> jax.Array:
        """What is done to the logits last."""
        return logits
