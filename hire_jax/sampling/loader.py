"""Batches made ahead by threads while a step runs."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import jax

from hire_jax.sampling.batches import Batch
from hire_jax.sampling.source import BatchSource


class BatchLoader:
    """Iterates over the batches of a source, on the device and in order, while threads make those that follow.

    `for batch in loader` goes to the end of an epoch; the next loop has the next epoch. What comes out does not depend
    on the number of threads: numpy lets go of Python's lock in most of what they do.

        with BatchLoader(source, workers=2) as loader:
            for epoch in range(10):
                for batch in loader:
                    state = step(state, batch)

    An error in a thread is raised here when its batch is due, at most `prefetch` batches after it happened; asking
    again makes that batch again. Leaving the `with`, by an error and Ctrl-C too, drops what was made ahead and waits
    for the threads, each of which ends with the batch it is at.

    Args:
      source: makes the batches.
      workers: threads.
      prefetch: batches made or being made beyond the one handed out.
      device: where arrays are put, a `jax.Device` or sharding; None is JAX's default.

    Raises:
      ValueError: workers or prefetch below 1.
    """

    def __init__(self, source: BatchSource, *, workers: int = 1, prefetch: int = 2, device: Any = None) -> None:
        for name, number in (("workers", workers), ("prefetch", prefetch)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        self.source, self.prefetch, self.device = source, prefetch, device
        self._next = 0  # batches handed out since the first of epoch 0
        self._ahead: deque[Future[Batch]] = deque()  # of the batches from `_next` on
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(workers, thread_name_prefix="sampling")

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch. Raises RuntimeError on a closed loader, and what a thread raised."""
        epoch = self._next // len(self)
        while self._next // len(self) == epoch:
            yield self._take()

    def state(self) -> dict[str, int]:
        """The place of the next batch, for a checkpoint: what has been handed out counts as done."""
        epoch, batch = divmod(self._next, len(self))
        return {"epoch": epoch, "batch": batch}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes to a place that `state` gave. Raises ValueError for one that the source does not have."""
        epoch, batch = state["epoch"], state["batch"]
        if epoch < 0 or not 0 <= batch < len(self):
            raise ValueError(f"expected an epoch from 0 on and a batch from 0 to {len(self) - 1}, got {dict(state)}")
        self._drop()
        self._next = epoch * len(self) + batch

    def close(self) -> None:
        """Drops what was made ahead and ends the threads; a closed loader gives no more batches."""
        self._drop()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _take(self) -> Batch:
        self._fill()
        try:
            batch = self._ahead[0].result()
        except BaseException:  # of a thread, or Ctrl-C here
            self._drop()
            raise
        self._ahead.popleft()
        self._next += 1
        self._fill()
        return batch

    def _fill(self) -> None:
        if self._threads is None:
            raise RuntimeError("the loader is closed")
        while len(self._ahead) < self.prefetch:
            self._ahead.append(self._threads.submit(self._make, self._next + len(self._ahead)))

    def _drop(self) -> None:
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _make(self, place: int) -> Batch:
        return jax.device_put(self.source(*divmod(place, len(self))), self.device)
