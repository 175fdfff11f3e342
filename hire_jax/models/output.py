"""What every model returns."""

from typing import NamedTuple

import jax

from hire_jax.graph import EdgeType


class ModelOutput(NamedTuple):
    """Logits of the target nodes, and what a student can be taught besides.

    Attributes:
      logits: [N_target, classes].
      hidden: one entry a layer, the input projection first: {node type: [N, width]}, after normalisation and
        activation, before dropout. A layer holds the types that can influence the logits from there on: the
        last holds the target type alone.
      attention: one entry a message-passing layer: {edge type: [E, heads]} in the order of the graph's
        relations, before attention dropout; {} in models without attention.
    """

    logits: jax.Array
    hidden: tuple[dict[str, jax.Array], ...]
    attention: tuple[dict[EdgeType, jax.Array], ...]
