"""A multilayer perceptron on the target's own features: what is known without the graph."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from hire_jax.graph import HeteroGraph
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier


class MLP(NodeClassifier, kw_only=True):
    """Dense layers with layer norm, GELU and dropout on the target type alone; no edge is read.

    A target without features is given a learned row a node: such a classifier can only memorise.
    `ModelOutput.hidden` holds the target type alone at every layer. Arguments are those of `NodeClassifier`.
    """

    def reach(self, graph: HeteroGraph) -> tuple[tuple[str, ...], ...]:
        """The target alone."""
        return (graph.receptive_field(self.target, 0)[0],) * (self.layers + 1)

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One dense layer."""
        dense = nn.Dense(self.hidden, dtype=self.dtype)
        return {name: dense(hidden[name]) for name in destinations}, {}, None
