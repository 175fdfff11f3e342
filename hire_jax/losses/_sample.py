"""`sample=`: a loss of all pairs confined to some rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike


def sampled(
    student: jax.Array,
    teacher: jax.Array,
    where: jax.Array | None,
    sample: int | None,
    key: ArrayLike | None,
    limit: int | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """`sample` of the rows inside `where`, the same of all three, drawn without replacement; all where None.

    Where fewer rows are inside, the rest are rows outside, which the mask that is returned leaves out. More than
    `limit` rows are refused.
    """
    rows = len(student)
    if (sample is None) != (key is None):
        missing, given = ("key", "sample") if key is None else ("sample", "key")
        raise ValueError(f"{missing}: expected together with {given}=, got None")
    if sample is not None:
        whole = isinstance(sample, int | np.integer) and not isinstance(sample, bool)
        if not whole or not 1 <= sample <= rows:
            raise ValueError(f"sample: expected an integer from 1 to the number of rows, {rows}, got {sample!r}")
    size = rows if sample is None else int(sample)
    if limit is not None and size > limit:
        raise ValueError(
            f"sample: expected sample= of at most {limit} rows with key=, got sample={sample!r} for "
            f"student {student.shape} and teacher {teacher.shape}"
        )
    if key is None or size == rows:
        return student, teacher, where
    order = jax.random.uniform(jnp.asarray(key), (rows,))
    chosen = lax.top_k(order if where is None else jnp.where(where, order, -1), size)[1]
    return student[chosen], teacher[chosen], None if where is None else where[chosen]
