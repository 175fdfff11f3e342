"""Batches made ahead by threads while a step runs."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Protocol

import jax
import numpy as np

from hire_jax.sampling.checks import checked_number
from hire_jax.sampling.workers import END_SECONDS, Workers

LONGEST = 1e6  # seconds of a timeout; the system's clocks bear some more


class Source(Protocol):
    """What a loader goes through: `BatchSource`, or another function of an epoch and a number."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def __call__(self, epoch: int, index: int, /) -> Any:
        """One of them. Threads call it at the same time."""

    def signature(self) -> str:
        """All that decides which batches these are, in words: sources of one signature give the same."""


class BatchLoader:
    """Iterates over the batches of a source, on the device and in order, while threads make those that follow.

    `for batch in loader` goes to the end of an epoch; the next loop has the next epoch. After a `break` the next loop
    goes on with the rest of the same epoch: the batches that were handed out are done. What comes out does not depend
    on the number of threads: numpy lets go of Python's lock in most of what they do.

        with BatchLoader(source, workers=2) as loader:
            for epoch in range(10):
                for batch in loader:
                    state = step(state, batch)

    An error in a thread is raised here when its batch is due, at most `prefetch` batches after it happened, with a note
    that says which batch it was; asking again makes that batch again. Leaving the `with` drops what was made ahead and
    waits for the threads, each of which ends with the batch it is at: no longer than `timeout`, and after an error, a
    batch that was late or Ctrl-C no longer than a few seconds. A thread that does not come back by then, from a file on
    a dead disk for example, does not keep the process from ending. Without a `with` the threads end with the loader or
    with the interpreter.

    Args:
      source: makes the batches.
      workers: threads.
      prefetch: batches made or being made beyond the one handed out.
      device: where arrays are put, a `jax.Device` or sharding; None is JAX's default.
      put: what a thread does with a batch instead of putting it on `device`.
      timeout: seconds to wait for a batch.

    Raises:
      ValueError: workers or prefetch below 1, a timeout that is not above 0 and finite, put and device together, a
        source without batches.
      TypeError: a number that is none.
    """

    def __init__(self, source: Source, *, workers: int = 1, prefetch: int = 2, device: Any = None,
                 put: Callable[[Any], Any] | None = None, timeout: float = 600.0) -> None:
        count, self.prefetch = checked_number("workers", workers, 1), checked_number("prefetch", prefetch, 1)
        if not isinstance(timeout, int | float | np.floating | np.integer):
            raise TypeError(f"timeout must be a number of seconds, got {timeout!r}")
        if not 0 < timeout <= LONGEST:
            raise ValueError(f"timeout must be above 0 and at most {LONGEST:g} seconds, got {timeout}")
        if put is not None and device is not None:
            raise ValueError("put takes the place of device: give one of them")
        if len(source) < 1:
            raise ValueError("the source has no batches: an epoch must have at least one")
        self.source, self.timeout = source, float(timeout)
        self._next = 0  # batches handed out since the first of epoch 0
        self._ahead: deque[Future[Any]] = deque()  # of the batches from `_next` on
        self._patience = self.timeout  # in which threads may end
        self._workers = Workers(partial(_made, source, put or partial(jax.device_put, device=device)), count)

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

    def state(self) -> dict[str, Any]:
        """The place of the next batch, for a checkpoint: what has been handed out counts as done.

        It holds the source's signature too, because a place in another's batches means nothing. JSON can hold it.
        """
        epoch, batch = divmod(self._next, len(self))
        return {"epoch": epoch, "batch": batch, "batches": len(self), "source": self.source.signature()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that `state` gave.

        Raises:
          ValueError: a state of another source, or none at all.
          RuntimeError: the loader is closed.
        """
        self._check_open()
        expected = {"batches": len(self), "source": self.source.signature()}
        for name, value in expected.items():
            if name in state and state[name] != value:
                raise ValueError(f"the state is of another source: expected {name} {value!r}, got {state[name]!r}")
        if set(state) != {"epoch", "batch", *expected}:
            raise ValueError(f"expected a state of epoch, batch, batches and source, got {dict(state)}")
        places = [state["epoch"], state["batch"]]
        if any(isinstance(place, bool) or not isinstance(place, int) for place in places) or not (
                places[0] >= 0 and 0 <= places[1] < len(self)):
            raise ValueError(f"expected an epoch from 0 on and a batch from 0 to {len(self) - 1}, got {dict(state)}")
        self._drop()
        self._next = places[0] * len(self) + places[1]

    def close(self) -> None:
        """Drops what was made ahead and ends the threads; a closed loader gives no more batches."""
        self._drop()
        self._workers.stop(self._patience)

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is not None:
            self._hurry()
        self.close()

    def _take(self) -> Any:
        self._fill()
        try:
            batch = self._ahead[0].result(self.timeout)
        except BaseException as error:  # of a thread, or Ctrl-C here
            late = isinstance(error, TimeoutError) and not self._ahead[0].done()
            self._drop()
            if late:
                self._hurry()  # the thread has had its time
                epoch, index = divmod(self._next, len(self))
                raise TimeoutError(f"batch {index} of epoch {epoch} was not made within {self.timeout:g} s; a file "
                                   "that cannot be read, or a timeout that is too short?") from None
            if not isinstance(error, Exception):
                self._hurry()
            raise
        self._ahead.popleft()
        self._next += 1
        self._fill()
        return batch

    def _fill(self) -> None:
        self._check_open()
        while len(self._ahead) < self.prefetch:
            self._ahead.append(self._workers.submit(self._next + len(self._ahead)))

    def _drop(self) -> None:
        for future in self._ahead:
            future.cancel()
        self._ahead.clear()

    def _hurry(self) -> None:
        self._patience = min(self._patience, END_SECONDS)

    def _check_open(self) -> None:
        if self._workers.stopped:
            raise RuntimeError("the loader is closed")


def _made(source: Source, ready: Callable[[Any], Any], place: int) -> Any:
    epoch, index = divmod(place, len(source))
    try:
        return ready(source(epoch, index))
    except BaseException as error:
        note = f"while making batch {index} of epoch {epoch}"
        if note not in getattr(error, "__notes__", ()):  # a source may raise one error twice
            error.add_note(note)
        raise
