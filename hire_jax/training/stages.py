"""Training in two stages: a network first, then a module that takes its layers over (`hire_jax.models.GKEDM`)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def lift(fresh: Any, *, backbone: Any) -> Any:
    """Variables of a `GKEDM` whose backbone begins where a trained one ended.

    For `fit(gkedm, ..., initialise=partial(lift, backbone=result.params))`: seed i takes over seed i's parameters. Of
    the last layer, which the module does not have, "kernel" becomes the values of every head (and, with
    `relation_wise=True`, of every relation), "root" the map of the node's own row and "bias" the bias, where
    `GKEDM(readout="convolution")` has such an array of the same shape; the rest is left behind.

    Args:
      fresh: the module's initial variables; backbone: the trained variables. Both with or both without a leading axis
        of seeds.

    Returns:
      `fresh` with every array under "backbone" replaced, and those of the last layer.

    Raises:
      ValueError: variables that are not a `GKEDM`'s, or not variables; an array that the trained backbone lacks or has
        in another shape: another architecture, another number of seeds; names its path.
    """
    if "backbone" not in _params("fresh", fresh, "variables of a GKEDM, {'params': {'backbone': ...}}"):
        raise ValueError(f"fresh: expected variables of a GKEDM, {{'params': {{'backbone': ...}}}}, got the parameters "
                         f"{sorted(fresh['params'])}")
    trained = _params("backbone", backbone, "trained variables, {'params': ...}, such as result.params")

    def taken(path: tuple, array: jax.Array) -> jax.Array:
        names = [part.key for part in path]
        found: Any = trained
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if found is None or jnp.shape(found) != array.shape:
            raise ValueError(f"backbone: expected {'/'.join(names)} of shape {array.shape}, got "
                             f"{'nothing' if found is None else jnp.shape(found)}")
        return jnp.array(found, array.dtype)  # a copy: the trainer gives its state away

    own = jax.tree.map_with_path(taken, fresh["params"]["backbone"])
    params = {**fresh["params"], "backbone": own}
    left = [trained[name] for name in trained if name not in own]
    if len(left) == 1 and "bias" in params:  # the readout that the attention takes the place of
        params = _with_readout(params, left[0])
    return {**fresh, "params": params}


def _params(name: str, variables: Any, expected: str) -> Mapping[str, Any]:
    """What is under "params"."""
    found = variables.get("params") if isinstance(variables, Mapping) else None
    if not isinstance(found, Mapping):
        given = sorted(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise ValueError(f"{name}: expected {expected}, got {given}")
    return found


def _with_readout(params: dict, last: dict) -> dict:
    """The module's own arrays with those of the last layer in the place of their counterparts."""
    kernel = last.get("kernel", last.get("kernel_source"))
    for name, value in params["attention"].items():
        if not name.startswith("value") or kernel is None or kernel.ndim != value["kernel"].ndim:
            continue
        times, rest = divmod(value["kernel"].shape[-1], kernel.shape[-1])  # heads, and relations side by side
        if not rest and kernel.shape[:-1] == value["kernel"].shape[:-1]:
            every = jnp.concatenate([kernel] * times, axis=-1)
            params = params | {"attention": params["attention"] | {name: value | {"kernel": every}}}
    for name, found in (("bias", last.get("bias")), ("own", last.get("root"))):
        there = params.get(name)
        there = there["kernel"] if isinstance(there, dict) else there
        if there is not None and found is not None and there.shape == found.shape:
            params = params | {name: {"kernel": jnp.array(found)} if name == "own" else jnp.array(found)}
    return params


def slow_backbone(optimizer: optax.GradientTransformation, *, factor: float = 0.0) -> optax.GradientTransformation:
    """`optimizer` with the steps of a `GKEDM`'s backbone multiplied by `factor`; 0 keeps the backbone as it is.

    Raises ValueError for a negative factor, and at its first use where no parameter is of a backbone.
    """
    if not factor >= 0:
        raise ValueError(f"factor must be at least 0, got {factor}")

    def of_backbone(tree: Any) -> Any:
        found = jax.tree.map_with_path(
            lambda path, _: any(getattr(part, "key", None) == "backbone" for part in path), tree)
        if not any(jax.tree.leaves(found)):
            raise ValueError("slow_backbone: no parameter is under 'backbone'; it is for a GKEDM's")
        return found

    return optax.chain(optimizer, optax.masked(optax.scale(factor), of_backbone))
