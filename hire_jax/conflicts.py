"""Gradients of several terms that point against each other."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


def pcgrad(gradients: Sequence[Any], key: jax.Array) -> Any:
    """The sum of the terms' gradients after each has lost what opposes another (gradient surgery).

    For each term i, with g_i its gradient at first and the other terms j in random order::

        g_i  <-  g_i - min(g_i · g_j, 0) / ||g_j||² g_j        (g_j as it was at first)

    and the sum over i of what is left. Where no two oppose each other it is the plain sum.

    Args:
      gradients: one pytree of arrays a term, all of one structure; K of them.
      key: a JAX random key, for the order.

    Returns:
      A pytree of that structure. A gradient of zeros opposes nothing.

    Raises:
      ValueError: no gradient, or gradients of different structure.

    References:
      Yu, Kumar, Gupta, Levine, Hausman, Finn: Gradient Surgery for Multi-Task Learning, 2020. arXiv:2001.06782
    """
    if not gradients:
        raise ValueError("gradients: expected at least one, got none")
    structures: list[Any] = [jax.tree.structure(gradient) for gradient in gradients]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(f"gradients: expected one structure, got {structures[0]} at 0 and {structure} at {i}")
    unravel = ravel_pytree(gradients[0])[1]
    given = jnp.stack([ravel_pytree(gradient)[0] for gradient in gradients])
    squares = jnp.sum(jnp.square(given), axis=1)

    def surgery(own: jax.Array, i: jax.Array, key: jax.Array) -> jax.Array:
        def lose(own: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
            opposed = jnp.minimum(jnp.vdot(own, given[j]), 0) / jnp.where(squares[j] > 0, squares[j], 1)
            return own - jnp.where(i == j, 0, opposed) * given[j], None

        return jax.lax.scan(lose, own, jax.random.permutation(key, len(given)))[0]

    index = jnp.arange(len(given))
    return unravel(jnp.sum(jax.vmap(surgery)(given, index, jax.random.split(key, len(given))), axis=0))
