"""Deep graph convolution with initial residual and identity mapping (GCNII), arXiv 2007.02133, types forgotten."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.dropout import Dropout
from hire_jax.models.output import ModelOutput
from hire_jax.models.projection import SharedDense, glorot, read_features
from hire_jax.models.propagation import propagate
from hire_jax.models.trunk import Hidden


class GCNIILayer(nn.Module, kw_only=True):
    """One GCNII convolution, without activation (arXiv 2007.02133, equation 5).

    h'_i = m_i ((1 - beta) I + beta W),   m = (1 - alpha) S h + alpha h^0

    S is the normalised adjacency with self loops of `propagate`. Input {type: [N, d]}, `initial` (h^0) the same, and
    `beta`, a number that may be traced; output {type: [N, d]} for `destinations`.
    """

    alpha: float = 0.1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, hidden: Hidden, initial: Hidden, destinations: Sequence[str], *,
                 beta: float | jax.Array) -> Hidden:
        x = next(iter(hidden.values()))
        dtype = self.dtype or x.dtype
        kernel = self.param("kernel", glorot, (x.shape[1], x.shape[1]))
        mapping = ((1 - beta) * jnp.eye(x.shape[1]) + beta * kernel).astype(dtype)
        moved = propagate(graph, hidden, destinations)
        return {name: ((1 - self.alpha) * x + self.alpha * initial[name]) @ mapping for name, x in moved.items()}


class _Step(nn.Module, kw_only=True):
    """h^l from h^{l-1}, as `nn.scan` has it: all types that h^0 has."""

    alpha: float
    dropout: float
    train: bool
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, hidden: Hidden, beta: jax.Array, graph: HeteroGraph, initial: Hidden) -> tuple[Hidden, None]:
        hidden = graph.refreshed(Dropout(rate=self.dropout)(hidden, train=self.train), tuple(initial))
        layer = GCNIILayer(alpha=self.alpha, dtype=self.dtype, name="convolution")
        moved = layer(graph, hidden, initial, tuple(initial), beta=beta)
        return {name: nn.relu(x) for name, x in moved.items()}, None


class GCNII(nn.Module, kw_only=True):
    """GCNII node classifier (arXiv 2007.02133): many layers that neither smooth nor vanish.

      h^0 = relu(dropout(x) W_in + b);  h^l = relu(layer_l(dropout(h^{l-1}), h^0)), beta_l = log(theta / l + 1)
      logits = dropout(h^L) W + b

    The layers are one compiled loop with one parameter [layers, hidden, hidden], so that compilation does not grow with
    their number. All node types share all parameters, and every type that reaches the target in any number of steps
    is propagated at every layer, so these types must have features of one width, dense or sparse.

    Args:
      target: node type whose nodes are classified.
      num_classes: width of the logits.
      hidden: width of every layer.
      layers: number of layers, L.
      alpha: share of h^0 in what a layer reads.
      theta: how much the layers' matrices count; the more layers come before, the less.
      dropout: rate on the features, before each layer and before the classifier.
      dtype: arithmetic of the layers; parameters and logits stay float32.

    `apply(variables, graph, train=False)` returns a `ModelOutput` whose logits are [N_target, num_classes], whose
    hidden is ({}, {type: h^0}, {target: h^L}), before dropout, and whose attention is (). Raises GraphError when
    `target` is not a node type, or a type that is needed has no features or features of another width; ValueError for
    fewer than one layer, alpha outside [0, 1] or a negative theta.
    """

    target: str
    num_classes: int
    hidden: int = 64
    layers: int = 64
    alpha: float = 0.1
    theta: float = 0.5
    dropout: float = 0.6
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, graph: HeteroGraph, *, train: bool = False) -> ModelOutput:
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers}")
        if not (0 <= self.alpha <= 1 and self.theta >= 0):
            raise ValueError(f"alpha must be in [0, 1] and theta at least 0, got {self.alpha} and {self.theta}")
        types = graph.receptive_field(self.target, len(graph.node_types))[0]  # a closed set
        x = read_features(graph, types, self.dtype, reader="GCNII")
        dense = SharedDense(features=self.hidden, dtype=self.dtype, name="input")
        initial = {name: nn.relu(x) for name, x in dense(Dropout(rate=self.dropout)(x, train=train)).items()}

        step = nn.scan(_Step, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
                       in_axes=(0, nn.broadcast, nn.broadcast), length=self.layers)
        layers = step(alpha=self.alpha, dropout=self.dropout, train=train, dtype=self.dtype, name="layers")
        betas = jnp.log(self.theta / jnp.arange(1, self.layers + 1) + 1)
        h, _ = layers(initial, betas, graph, initial)
        last = {self.target: h[self.target]}
        rows = Dropout(rate=self.dropout)(last[self.target], train=train)
        logits = nn.Dense(self.num_classes, name="classifier")(rows.astype(jnp.float32))
        return ModelOutput(logits=logits, hidden=({}, initial, last), attention=())
