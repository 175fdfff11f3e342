"""What process 0 reads, in every process: hosts need no disk in common, and cannot disagree about the newest step."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.checkpoint.errors import CheckpointError
from hire_jax.checkpoint.leaves import Snapshot

_CHUNK = 1 << 24  # bytes that travel at a time; fewer are filled up to a power of two, for a few compiled programs


class Found(NamedTuple):
    """A checkpoint as it was read: its folder, its manifest, and the state."""

    path: str
    manifest: dict[str, Any]
    taken: Snapshot


def from_first(read: Callable[[], Found | None]) -> Found | None:
    """What `read` returns in process 0, in all of them; they all have to call this.

    Raises:
      CheckpointError: in every other process, when `read` raised an error in process 0.
    """
    if jax.process_count() == 1:
        return read()
    head: dict[str, Any] = {}
    found = None
    if jax.process_index() == 0:
        try:
            found = read()
        except Exception as error:
            _broadcast(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
            raise
        if found is not None:
            head = {"path": found.path, "manifest": found.manifest, "names": list(found.taken.arrays)}
    head = json.loads(_broadcast(json.dumps(head).encode()))
    if "error" in head:
        raise CheckpointError(f"process 0 could not read the checkpoint: {head['error']}")
    if not head:
        return None
    arrays = {}
    for name in head["names"]:
        fact = head["manifest"]["leaves"][int(name)]
        own = b"" if found is None else found.taken.arrays[name].tobytes()
        arrays[name] = np.frombuffer(bytearray(_broadcast(own)), jnp.dtype(fact["dtype"])).reshape(fact["shape"])
    return Found(head["path"], head["manifest"], Snapshot(head["manifest"]["leaves"], arrays))


def over_processes(reduce: Callable[[jax.Array], jax.Array], own: np.ndarray) -> np.ndarray:
    """`reduce` of [processes, ...], whose row p is the array `own` of process p, in every process; all must call this.

    Args:
      reduce: a function of the module, so that it is compiled once for a shape.
      own: of one shape and dtype in all processes.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    mesh = jax.sharding.Mesh(np.array(devices).reshape(jax.process_count(), -1), ("process", "device"))
    rows = jax.make_array_from_process_local_data(jax.NamedSharding(mesh, jax.P("process")), own[None])
    return np.asarray(jax.jit(reduce, out_shardings=jax.NamedSharding(mesh, jax.P()))(rows).addressable_data(0))


def _row_of_first(rows: jax.Array) -> jax.Array:
    return rows[0]


def _broadcast(data: bytes) -> bytes:
    """Process 0's bytes, in every process."""
    # Two numbers of 31 bits: without x64 JAX has none of 64.
    high, low = over_processes(_row_of_first, np.array(divmod(len(data), 1 << 31), np.int32))
    size = (int(high) << 31) + int(low)
    chunks = []
    for start in range(0, size, _CHUNK):
        chunk = np.zeros(min(_CHUNK, 1 << max(8, (size - start - 1).bit_length())), np.uint8)
        own = np.frombuffer(data[start:start + _CHUNK], np.uint8)
        chunk[:len(own)] = own
        chunks.append(over_processes(_row_of_first, chunk).tobytes())
    return b"".join(chunks)[:size]
