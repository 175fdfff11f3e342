"""The projector: shapes, and that a hint through it can be met where widths differ."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hire_jax.losses import hint
from hire_jax.models import Projector


@pytest.mark.parametrize("hidden", [None, 8])
def test_a_hint_through_a_projector_is_met(hidden):
    rng = np.random.default_rng(0)
    student = jnp.asarray(rng.normal(size=(30, 3)), jnp.float32)
    teacher = student @ jnp.asarray(rng.normal(size=(3, 5)), jnp.float32) + 1  # within a linear map's reach
    projector = Projector(features=5, hidden=hidden)
    variables = projector.init(jax.random.key(0), student)
    assert projector.apply(variables, student).shape == (30, 5)
    assert len(jax.tree.leaves(variables)) == (2 if hidden is None else 4)

    def loss(variables):
        return hint(projector.apply(variables, student), teacher)

    optimizer = optax.adam(0.03)

    def step(carry, _):
        variables, state = carry
        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return (optax.apply_updates(variables, updates), state), None

    (trained, _), _ = jax.jit(lambda v: jax.lax.scan(step, (v, optimizer.init(v)), length=600))(variables)
    assert loss(trained) < 0.02 * loss(variables)
