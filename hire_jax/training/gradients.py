"""The gradient of an objective: of a network's parameters, and of what the objective itself learns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hire_jax.conflicts import pcgrad
from hire_jax.distill import Objective

Params = Any


def trained_of(params: Params, log_variances: dict[str, jax.Array]) -> Any:
    """All that the optimiser sees: the network's parameters, and the objective's where it has some."""
    return (params, log_variances) if log_variances else params


def parts_of(trained: Any, objective: Objective) -> tuple[Params, dict[str, jax.Array]]:
    """The inverse of `trained_of`."""
    return trained if objective.uncertainty else (trained, {})


def gradient_of(weighted: Callable[..., tuple[dict, dict]], trained: Any, objective: Objective,
                key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """The total of `weighted(params, log_variances)`, its unweighted terms, and the gradient to step along."""
    if objective.pcgrad:
        values, pullback, terms = jax.vjp(lambda trained: weighted(*parts_of(trained, objective)), trained,
                                          has_aux=True)
        of_terms = [pullback({name: jnp.asarray(name == other, value.dtype) for name, value in values.items()})[0]
                    for other in values]
        parts = [parts_of(gradient, objective) for gradient in of_terms]
        agreed = pcgrad([params for params, _ in parts], key)  # what the objective learns is no term's rival
        own = jax.tree.map(lambda *gradients: sum(gradients), *[log_variances for _, log_variances in parts])
        return sum(values.values(), jnp.zeros(())), terms, trained_of(agreed, own)

    def total(trained: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        values, terms = weighted(*parts_of(trained, objective))
        return sum(values.values(), jnp.zeros(())), terms

    (value, terms), gradient = jax.value_and_grad(total, has_aux=True)(trained)
    return value, terms, gradient
