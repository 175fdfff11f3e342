"""SIGTERM as a request: the run stops between two steps, when its state is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.checkpoint.share import over_processes


class Stop:
    """Whether the run has been asked to stop.

    Attributes:
      requested: this process has received SIGTERM.
    """

    def __init__(self) -> None:
        self.requested = False

    def agreed(self) -> bool:
        """Whether any process has been asked to. All processes must call this at the same step: one that stopped
        alone would leave the others waiting for it."""
        if jax.process_count() == 1:
            return self.requested
        return bool(over_processes(jnp.any, np.array(self.requested)))


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Within this context SIGTERM only sets `requested`, however often it comes; saving is not interrupted.

    Schedulers send SIGTERM some time before SIGKILL. The training loop asks between steps, saves, and returns:

        with Checkpoints(folder, config=config) as checkpoints, graceful_stop() as stop:
            for step in range(first, steps):
                state = train_step(state)
                if stop.requested:
                    checkpoints.save(step + 1, state)
                    break

    The handler that was there before is put back at the end (the default one where it was not set from Python). Python
    handles signals in the main thread only: elsewhere `requested` stays False.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(_number: int, _frame: object) -> None:
        stop.requested = True

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
