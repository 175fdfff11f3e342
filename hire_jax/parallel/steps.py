"""The batches of a step: one for each device, in one size, on their devices."""

from collections.abc import Iterator
from contextlib import contextmanager
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

    def signature(self) -> str:
        """All that decides which batches a step has, in words: of a source, on a number of devices."""
        return f"{self.source.signature()}, devices {len(self.devices)}"


class ProcessFailed(RuntimeError):
    """Another process of the run has failed."""


@contextmanager
def failing_together() -> Iterator[None]:
    """An error in here is told to the other processes where they next agree: none is left waiting for this one."""
    try:
        yield
    except (ProcessFailed, SystemExit):  # all of them know
        raise
    except BaseException:
        agreed(0, False, failed=True)
        raise


class Agreed(NamedTuple):
    """What all processes go by at one place of a run."""

    size: int  # the largest that one of them needs
    stop: bool  # one of them was asked to stop


def agreed(size: int, stop: bool, *, failed: bool = False) -> Agreed:
    """What the processes agree on; all of them must ask, one that fails too.

    Raises:
      ProcessFailed: another process did, and would leave this one waiting for it.
    """
    if jax.process_count() == 1:
        return Agreed(size, stop)
    answers = np.asarray(multihost_utils.process_allgather(np.array([size, stop, failed], np.int32))).reshape(-1, 3)
    if answers[:, 2].any() and not failed:
        raise ProcessFailed(f"process {int(answers[:, 2].argmax())} of {jax.process_count()} failed; its own message "
                            "says why")
    return Agreed(int(answers[:, 0].max()), bool(answers[:, 1].any()))
