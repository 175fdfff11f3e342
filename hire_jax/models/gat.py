"""Graph attention (GAT), arXiv 1710.10903, on the graph with its types forgotten."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.attention import Attended, attend
from hire_jax.models.dropout import Dropout
from hire_jax.models.projection import glorot
from hire_jax.models.trunk import Attention, Hidden, NodeClassifier
from hire_jax.sparse import SparseFeatures

AttendTo = Callable[[str, Callable[[jax.Array], jax.Array]], Attended]  # of a node type and a dropout


class GATLayer(nn.Module, kw_only=True):
    """One graph attention layer, without activation (arXiv 1710.10903, equations 1 to 5).

    For each head h and an edge e = (j -> i), the node itself included:

      s_e = LeakyReLU(a_s . W h_j + a_d . W h_i),  a = softmax of s over all edges into i
      h'_i = || over heads of sum_e a_e W h_j,     plus b, plus W_res h_i with `residual=True`

    All relations share W and a; the residual is h_i itself where widths agree. With `concat=False` every head has the
    full width and their mean is taken (equation 6). Without `self_loops` a node attends to itself only where an edge
    says so. Input {type: [N, d]}, dense or `SparseFeatures`; output {type: [N, features]} for `destinations`, and
    {edge type: [E, heads]}, the attention before its dropout, a node's own under (type, "self", type).
    Raises ValueError when heads do not divide features, GraphError for a relation of that name.
    """

    features: int
    heads: int
    attention_dropout: float = 0.0
    residual: bool = False
    concat: bool = True
    self_loops: bool = True
    negative_slope: float = 0.2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], *,
                 train: bool = False) -> tuple[Hidden, Attention]:
        x = next(iter(hidden.values()))
        dtype = self.dtype or x.dtype
        bias, attend_to = self.attend(graph, hidden, dtype)
        passed = None
        if self.residual and (x.shape[1] != self.features or isinstance(x, SparseFeatures)):
            passed = self.param("residual", glorot, (x.shape[1], self.features)).astype(dtype)
        drop = Dropout(rate=self.attention_dropout)
        output, attention = {}, {}
        for destination in destinations:
            x = hidden[destination]
            attended = attend_to(destination, lambda weights: drop(weights, train=train))
            messages = attended.messages
            message = messages.reshape(x.shape[0], self.features) if self.concat else messages.mean(axis=1)
            output[destination] = message + bias
            attention.update(attended.attention)
            if self.residual:
                output[destination] += x if passed is None else x @ passed
        return output, attention

    @property
    def width(self) -> int:
        """Width of one head. Raises ValueError when the heads that are put beside each other do not divide features."""
        if not self.concat and self.heads < 1:
            raise ValueError(f"heads must be at least 1, got {self.heads}")
        return head_width(self.features, self.heads) if self.concat else self.features

    def attend(self, graph: HeteroGraph, hidden: Hidden, dtype: jnp.dtype) -> tuple[jax.Array, AttendTo]:
        """The parameters up to b, and the attention of one type of nodes as a function of its dropout."""
        d = next(iter(hidden.values())).shape[1]
        kernel = self.param("kernel", glorot, (d, self.heads * self.width)).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        ends = [self.param(f"attention_{end}", glorot, (self.heads, self.width)).astype(dtype)
                for end in ("source", "destination")]
        values = {name: (x @ kernel).reshape(x.shape[0], self.heads, self.width) for name, x in hidden.items()}
        sources = {name: jnp.einsum("nhd,hd->nh", x, ends[0]) for name, x in values.items()}

        def attend_to(destination: str, drop: Callable[[jax.Array], jax.Array]) -> Attended:
            scores = jnp.einsum("nhd,hd->nh", values[destination], ends[1])
            return attend(graph, destination, values, sources, scores, negative_slope=self.negative_slope,
                          self_loops=self.self_loops, drop=drop)

        return bias, attend_to


def head_width(features: int, heads: int, name: str = "features") -> int:
    """Width of one head. Raises ValueError when heads do not divide features; `name` is what the caller calls them."""
    if heads < 1 or features < 1 or features % heads:
        raise ValueError(f"{name} must be a positive multiple of heads, got {name}={features}, heads={heads}")
    return features // heads


class GAT(NodeClassifier, kw_only=True):
    """GAT node classifier (arXiv 1710.10903): one attention a layer, whatever the types.

    Types differ in the input projection alone, as in the homogenised baselines of HGB (arXiv 2112.14936). On a
    graph of one type this is GAT behind a linear projection; with `projection=False, norm=False` it is the paper's
    own network.

    Args, beside those of `NodeClassifier`:
      heads: attention heads; they divide hidden, or ValueError is raised.
      attention_dropout: rate on attention weights while training.
      residual: adds a layer's input to its output.
      readout_heads: with `projection=False`, heads of the last layer, whose mean is taken.
    """

    heads: int = 4
    attention_dropout: float = 0.0
    residual: bool = False
    readout_heads: int = 1

    def convolve(self, graph: HeteroGraph, hidden: Hidden, destinations: Sequence[str], carry: Any,
                 train: bool) -> tuple[Hidden, Attention, Any]:
        """One layer."""
        return *self.layer(self.hidden, self.heads, concat=True)(graph, hidden, destinations, train=train), None

    def readout(self, graph: HeteroGraph, hidden: Hidden, carry: Any, train: bool) -> tuple[Hidden, Attention]:
        """A layer of the classes, the mean of its heads."""
        layer = self.layer(self.num_classes, self.readout_heads, concat=False)
        return layer(graph, hidden, [self.target], train=train)

    def layer(self, features: int, heads: int, *, concat: bool) -> GATLayer:
        """A `GATLayer`."""
        return GATLayer(features=features, heads=heads, concat=concat, attention_dropout=self.attention_dropout,
                        residual=self.residual, dtype=self.dtype)

    def activation(self, x: jax.Array) -> jax.Array:
        """ELU."""
        return nn.elu(x)
