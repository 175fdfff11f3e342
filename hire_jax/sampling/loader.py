"""Batches made ahead by threads while a step runs."""

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Protocol

import jax

Tasks = queue.SimpleQueue[tuple[Future[Any], int] | None]


class Source(Protocol):
    """What a loader goes through: `BatchSource`, or another function of an epoch and a number."""

    def __len__(self) -> int: ...
    def __call__(self, epoch: int, index: int, /) -> Any: ...


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
    for the threads, each of which ends with the batch it is at. A thread that does not come back, from a file on a
    dead disk for example, is waited for no longer than `timeout`, and does not keep the process from ending.

    Args:
      source: makes the batches.
      workers: threads.
      prefetch: batches made or being made beyond the one handed out.
      device: where arrays are put, a `jax.Device` or sharding; None is JAX's default.
      put: what a thread does with a batch instead of putting it on `device`.
      timeout: seconds to wait for a batch.

    Raises:
      ValueError: workers or prefetch below 1, a timeout that is not above 0, put and device together.
    """

    def __init__(self, source: Source, *, workers: int = 1, prefetch: int = 2, device: Any = None,
                 put: Callable[[Any], Any] | None = None, timeout: float = 600.0) -> None:
        for name, number in (("workers", workers), ("prefetch", prefetch)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        if put is not None and device is not None:
            raise ValueError("put takes the place of device: give one of them")
        self.source, self.prefetch, self.timeout = source, prefetch, timeout
        self._next = 0  # batches handed out since the first of epoch 0
        self._ahead: deque[Future[Any]] = deque()  # of the batches from `_next` on
        self._tasks: Tasks = queue.SimpleQueue()
        ready = put or partial(jax.device_put, device=device)
        length = len(source)
        # Daemons: the interpreter would wait for others at its end, however long.
        self._threads = [threading.Thread(target=_work, daemon=True, name=f"sampling_{number}", args=(
            self._tasks, lambda place: ready(source(*divmod(place, length))))) for number in range(workers)]
        self._end = weakref.finalize(self, _end, self._tasks, workers)
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Any]:
        """The rest of the epoch.

        Raises:
          RuntimeError: the loader is closed.
          TimeoutError: a batch was not there in time.
          What a thread raised.
        """
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
        self._end()
        end = time.monotonic() + self.timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _take(self) -> Any:
        self._fill()
        try:
            batch = self._ahead[0].result(self.timeout)
        except BaseException as error:  # of a thread, or Ctrl-C here
            late = isinstance(error, TimeoutError) and not self._ahead[0].done()
            self._drop()
            if late:
                epoch, index = divmod(self._next, len(self))
                raise TimeoutError(f"batch {index} of epoch {epoch} was not made within {self.timeout:g} s; a file "
                                   "that cannot be read, or a timeout that is too short?") from None
            raise
        self._ahead.popleft()
        self._next += 1
        self._fill()
        return batch

    def _fill(self) -> None:
        if not self._end.alive:
            raise RuntimeError("the loader is closed")
        while len(self._ahead) < self.prefetch:
            future: Future[Any] = Future()
            self._tasks.put((future, self._next + len(self._ahead)))
            self._ahead.append(future)

    def _drop(self) -> None:
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()


def _work(tasks: Tasks, make: Callable[[int], Any]) -> None:
    """A thread: makes the batches of `tasks` until it finds None there. It knows nothing of the loader, so that one
    that is forgotten is collected and ends it."""
    while (task := tasks.get()) is not None:
        future, place = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(make(place))
            except BaseException as error:
                future.set_exception(error)


def _end(tasks: Tasks, workers: int) -> None:
    for _ in range(workers):
        tasks.put(None)
