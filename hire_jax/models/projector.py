"""A map of a student's features to a teacher's width, for losses that compare them entry by entry."""

from typing import Any

import flax.linen as nn
import jax


class Projector(nn.Module, kw_only=True):
    """h W + b, or with a hidden layer GELU(h W + b) W' + b': after FitNets' regressor (arXiv 1412.6550).

    For `losses.hint`, `cosine_embedding`, `contrastive` and `vid` where the student is narrower. It is trained beside
    the student, by the same loss, and thrown away with the teacher::

        projector = Projector(features=teacher_hidden.shape[-1])
        variables = projector.init(key, student_hidden)
        loss = losses.hint(projector.apply(variables, student_hidden), teacher_hidden)

    A wide projector can do the imitating in the student's place.

    Args:
      features: the teacher's width.
      hidden: width of a hidden layer; None has none.
      dtype: of the arithmetic; None takes the inputs'.
    """

    features: int
    hidden: int | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, rows: jax.Array) -> jax.Array:
        """[..., d] to [..., features]."""
        if self.hidden is not None:
            rows = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name="hidden_layer")(rows))
        return nn.Dense(self.features, dtype=self.dtype, name="output_layer")(rows)
