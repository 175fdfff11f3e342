"""What holds of every loss on features and structure for any values: drawn, zero, equal, tiny and large ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax import losses

# loss, whether it is 0 where the sides agree, the largest it can be
CASES = {
    "hint": (losses.hint, True, np.inf),
    "hint of directions": (partial(losses.hint, normalise=True), True, 4),
    "attention_transfer": (losses.attention_transfer, True, 2),
    "cosine_embedding": (losses.cosine_embedding, False, 2),  # rows of zeros have no direction to agree in
    "contrastive": (losses.contrastive, False, np.inf),
    "linear_cka": (losses.linear_cka, False, 1),  # nor have equal rows
    "rkd_distance": (losses.rkd_distance, True, np.inf),
    "rkd_angle": (losses.rkd_angle, True, 1.5),
    "similarity_preserving": (losses.similarity_preserving, True, 4),
    "global_structure": (losses.global_structure, True, 4),
    "local_structure": (partial(losses.local_structure, senders=np.array([1, 0, 0, 1]),
                                receivers=np.array([0, 0, 1, 1])), True, np.inf),
}
COMPILED = {
    name: jax.jit(jax.value_and_grad(lambda s, t, where, loss=loss: loss(s, t, where=where)))
    for name, (loss, _, _) in CASES.items()
}
VALUES = st.one_of(st.floats(-3, 3, width=32), st.sampled_from([0.0, 1.0, 1e-20, -1e-6, 1e6]))


@st.composite
def features(draw):
    rows, width = draw(st.sampled_from([(5, 3), (2, 1)]))
    numbers = st.lists(VALUES, min_size=rows * width, max_size=rows * width)
    student, teacher = (np.array(draw(numbers), "f4").reshape(rows, width) for _ in range(2))
    if draw(st.booleans()):
        student[0] = student[1]  # equal rows
    where = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    return student, teacher, where


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(features())
def test_bounds_masks_and_order(name, case):
    student, teacher, where = case
    loss, compiled = CASES[name], COMPILED[name]
    everything = np.ones(len(student), bool)
    value, gradient = compiled(student, teacher, everything)
    assert 0 <= value <= loss[2] * (1 + 1e-5) and np.isfinite(gradient).all()
    if loss[1]:
        same, slope = compiled(student, student, everything)
        assert same <= 1e-12 and np.isfinite(slope).all()  # each side is normalised by itself, and rounded

    masked, slope = compiled(student, teacher, where)
    assert np.isfinite(masked) and (slope[~where] == 0).all()
    if not where.any():
        assert masked == 0
    poisoned = np.where(where[:, None], student, np.nan), np.where(where[:, None], teacher, np.inf)
    np.testing.assert_array_equal(compiled(*poisoned, where)[0], masked)

    if name != "local_structure":  # whose edges name rows
        order = np.arange(len(student))[::-1]
        turned = compiled(student[order], teacher[order], everything)[0]
        np.testing.assert_allclose(turned, value, rtol=1e-4, atol=1e-6 * float(jnp.maximum(value, 1)))
