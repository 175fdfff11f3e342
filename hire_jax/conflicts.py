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
      A pytree of that structure and dtypes. A gradient of zeros opposes nothing. Half precision is raised to float32
      in between.

    Raises:
      ValueError: no gradient, or gradients of different structure or shapes.

    References:
      Yu, Kumar, Gupta, Levine, Hausman, Finn: Gradient Surgery for Multi-Task Learning, 2020. arXiv:2001.06782
    """
    if not gradients:
        raise ValueError("gradients: expected at least one, got none")
    structures: list[Any] = [jax.tree.structure(gradient) for gradient in gradients]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise ValueError(f"gradients: expected one structure, got {structures[0]} at 0 and {structure} at {i}")
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(gradient)] for gradient in gradients]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(f"gradients: expected arrays of one shape, got {shapes[0]} at 0 and {shape} at {i}")
    unravel = ravel_pytree(gradients[0])[1]
    flat = jnp.stack([ravel_pytree(gradient)[0] for gradient in gradients])
    given = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    # Directions of length 1, by way of the largest entry: squares then neither overflow nor vanish.
    peaks = jnp.max(jnp.abs(given), axis=1, keepdims=True)
    scaled = given / jnp.where(peaks > 0, peaks, 1)
    units = scaled / jnp.maximum(jnp.linalg.norm(scaled, axis=1, keepdims=True), 1e-20)

    def surgery(own: jax.Array, i: jax.Array, key: jax.Array) -> jax.Array:
        def lose(own: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
            opposed = jnp.minimum(jnp.vdot(own, units[j]), 0)
            return own - jnp.where(i == j, 0, opposed) * units[j], None

        return jax.lax.scan(lose, own, jax.random.permutation(key, len(given)))[0]

    index = jnp.arange(len(given))
    left = jnp.sum(jax.vmap(surgery)(given, index, jax.random.split(key, len(given))), axis=0)
    return unravel(left.astype(flat.dtype))
