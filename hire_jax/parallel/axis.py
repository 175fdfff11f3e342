"""The axis that devices stand on in a mapped program, and the two functions by which they work on one loss.

Every device runs a model on its own part, the rows that a loss reads are gathered, and all compute the same loss from
them. Its gradient then needs one average, of the parameters' gradients. Both functions work in `jax.pmap` and in
`jax.shard_map` (with check_vma=False) alike.
"""

from typing import Any

import jax

AXIS = "device"


def gathered(tree: Any) -> Any:
    """All devices' rows one after another, on every device: [n, ...] becomes [devices * n, ...]."""
    return jax.tree.map(lambda rows: jax.lax.all_gather(rows, AXIS, tiled=True), tree)


@jax.custom_vjp
def shared(tree: Any) -> Any:
    """What all devices hold alike, as it is; its gradient is the average over the devices.

    With L computed on every device from `gathered` rows, a device's own gradient is the derivative of the sum of all
    devices' L by its own copy: as many times its share of dL as there are devices. The average is dL.
    """
    return tree


def _forward(tree: Any) -> tuple[Any, None]:
    return tree, None


def _backward(_: None, cotangent: Any) -> tuple[Any]:
    return (jax.lax.pmean(cotangent, AXIS),)


shared.defvjp(_forward, _backward)
