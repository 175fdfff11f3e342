"""What the losses on logits have in common: their arguments."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_same_shape, check_temperature, check_weights, check_where, real_array
from hire_jax.losses._reduce import mean_rows, not_folded, working_dtype, zero_rows


class Logits(NamedTuple):
    """Checked arguments: masked logits [N, C] in working precision, the teacher's a constant."""

    student: jax.Array
    teacher: jax.Array
    temperature: jax.Array
    where: jax.Array | None
    weights: jax.Array | None

    def mean(self, by_row: jax.Array) -> jax.Array:
        """T² times the mean over rows, weighted where weights were given."""
        return self.temperature**2 * mean_rows(by_row, self.where, self.weights)


def checked_logits(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    temperature: ArrayLike = 1.0,
) -> Logits:
    """The arguments, checked."""
    student = real_array("student_logits", student_logits)
    teacher = lax.stop_gradient(real_array("teacher_logits", teacher_logits))
    check_same_shape("[N, C]", student_logits=student, teacher_logits=teacher)
    check_temperature(temperature)
    mask, row_weights = check_weights(weights, check_where(where, len(student)), len(student))
    dtype = working_dtype(student, teacher)
    student, teacher = zero_rows(student, mask).astype(dtype), not_folded(zero_rows(teacher, mask).astype(dtype))
    return Logits(student, teacher, jnp.asarray(temperature, dtype), mask, row_weights)
