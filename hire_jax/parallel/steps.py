"""The batches of a step: one for each device, in one size, on their devices."""

from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from hire_jax.parallel.devices import Devices
from hire_jax.sampling.batches import Batch
from hire_jax.sampling.source import BatchSource


class Placed(NamedTuple):
    """The batches of one step on their devices."""

    batch: Batch  # arrays [devices, ...]
    size: int  # its place in `BatchSource.sizes`
    nodes: int  # in this process's batches, without what fills them up
    edges: int


class Steps:
    """`steps(epoch, step)`: the batches of a step, of a source that every process has alike; `len(steps)` in an epoch.

    Device d of D has batch D * step + d. The last step's devices may have none left: theirs counts for nothing.
    A process samples the batches of its own devices alone.
    """

    def __init__(self, source: BatchSource, devices: Devices) -> None:
        self.source, self.devices = source, devices

    def __len__(self) -> int:
        return -(-len(self.source) // len(self.devices))

    def __call__(self, epoch: int, step: int, /, at_least: int = 0) -> Placed:
        """The batches of a step, in no smaller size than number `at_least` of the source's."""
        first = step * len(self.devices)
        made = self.source.side_by_side(epoch, [first + place for place in self.devices.places], at_least=at_least)
        return Placed(self.devices.one_each(made.batches), made.size, made.nodes, made.edges)


def agreed(size: int, stop: bool) -> tuple[int, bool]:
    """The largest size that a process needs, and whether one wants to stop. All processes must ask."""
    if jax.process_count() == 1:
        return size, stop
    answers = np.asarray(multihost_utils.process_allgather(np.array([size, stop], np.int32))).reshape(-1, 2)
    return int(answers[:, 0].max()), bool(answers[:, 1].any())
