"""Which devices a run has, and how arrays come onto them: whole on every one, or one batch each."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hire_jax.parallel.axis import AXIS

Form = Literal["jit", "pmap"]


class Devices:
    """The devices of a run on the one axis `AXIS`, and how a program of either form is given its arguments.

    Args:
      devices: how many, the first that JAX sees; or which; None takes the default device, or all devices where
        several processes work together.
      form: "jit", `jax.jit` of a `jax.shard_map` over a mesh with `NamedSharding`s; or "pmap", the classic form, in
        which arguments and results have a leading axis of this process's devices.

    Attributes:
      mesh: of all devices.
      places: where this process's devices stand on the axis.

    Raises:
      ValueError: an unknown form, more devices than there are, none at all, or a process of several left without one.
    """

    def __init__(self, devices: int | Sequence[jax.Device] | None = None, *, form: Form = "jit") -> None:
        if form not in ("jit", "pmap"):
            raise ValueError(f"form must be 'jit' or 'pmap', got {form!r}")
        seen = jax.devices()
        if devices is None:
            devices = seen if jax.process_count() > 1 else seen[:1]
        if isinstance(devices, (int, np.integer)):
            if not 1 <= devices <= len(seen):
                raise ValueError(f"devices must be 1 to {len(seen)}, the devices JAX sees, got {devices}; on a CPU, "
                                 "jax.config.update('jax_num_cpu_devices', n) before anything else makes n of them")
            devices = seen[:devices]
        if not devices or len(set(devices)) < len(devices):
            raise ValueError(f"devices must name at least one device, and each once, got {list(devices)}")
        missing = set(range(jax.process_count())) - {device.process_index for device in devices}
        if missing:
            raise ValueError(f"devices must hold some of every process, but processes {sorted(missing)} have none")
        self.form, self.mesh = form, Mesh(np.asarray(devices), (AXIS,))
        self.places = [place for place, device in enumerate(devices) if device.process_index == jax.process_index()]
        self._local = [devices[place] for place in self.places]
        # A pmap takes this process's part of an array for the whole of it.
        self._each = NamedSharding(self.mesh if form == "jit" else Mesh(np.asarray(self._local), (AXIS,)),
                                   PartitionSpec(AXIS))

    def __len__(self) -> int:
        return int(self.mesh.size)

    def everywhere(self, tree: Any) -> Any:
        """Arrays that every process has alike, whole on every device."""
        if self.form == "pmap":
            return self.one_each([tree] * len(self._local))
        sharding = NamedSharding(self.mesh, PartitionSpec())

        def copied(leaf: Any) -> jax.Array:
            shards = [jax.device_put(leaf, device) for device in self._local]
            return jax.make_array_from_single_device_arrays(np.shape(leaf), sharding, shards)

        return jax.tree.map(copied, tree)

    def one_each(self, trees: Sequence[Any]) -> Any:
        """This process's trees, one for each of its devices, as arrays [devices, ...] of which a device has its own."""
        def widened(leaf: Any) -> Any:
            return leaf[None] if is_key(leaf) else np.asarray(leaf)[None]

        placed = [jax.device_put(jax.tree.map(widened, tree), device)
                  for tree, device in zip(trees, self._local, strict=True)]

        def joined(*shards: jax.Array) -> jax.Array:
            shape = (self._each.mesh.size, *shards[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self._each, list(shards))

        return jax.tree.map(joined, *placed)

    def on_host(self, tree: Any) -> Any:
        """Copies in numpy of arrays that are whole on every device; typed keys stay what they are."""
        def copied(leaf: jax.Array) -> Any:
            own = leaf.addressable_data(0)
            own = own[0] if self.form == "pmap" else own
            return jnp.copy(own) if is_key(own) else np.array(own)

        return jax.tree.map(copied, tree)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed keys, which numpy cannot hold."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
