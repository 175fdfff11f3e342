"""Threads that make things ahead, and that are gone before the interpreter is."""

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax  # noqa: F401  # its handlers of the interpreter's end are registered before ours, and so run after it

END_SECONDS = 5.0  # of waiting for threads, where somebody wants to leave


class _Orders(NamedTuple):
    """What threads are told. They know nothing of `Workers`, so that one that is forgotten is collected."""

    tasks: queue.SimpleQueue[tuple[Future[Any], int] | None]
    stopped: threading.Event


class Workers:
    """Threads that call `make(place)` for the places they are given.

    They are daemons: a thread that does not come back, from a file on a dead disk for example, does not keep the
    process. But one that the interpreter's end finds within JAX would end the process by SIGABRT. So at the end all
    are stopped and waited for, `END_SECONDS` at most: each ends with the place it is at.

    Args:
      make: what threads call.
      count: of threads.
    """

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self._orders = _Orders(queue.SimpleQueue(), threading.Event())
        self._threads = [threading.Thread(target=_work, daemon=True, name=f"sampling_{number}",
                                          args=(self._orders, make)) for number in range(count)]
        self._stop = weakref.finalize(self, _stop, self._orders, count)
        self._stop.atexit = False  # that is `_end`'s to do, in a known order
        for thread in self._threads:
            _RUNNING[thread] = self._orders
            thread.start()

    @property
    def stopped(self) -> bool:
        """Whether nothing more is made."""
        return self._orders.stopped.is_set()

    def submit(self, place: int) -> Future[Any]:
        """What `make(place)` gives, or raises, as soon as a thread has come to it."""
        future: Future[Any] = Future()
        self._orders.tasks.put((future, place))
        return future

    def stop(self, seconds: float) -> None:
        """Cancels what no thread has begun, and waits until all have ended, but no longer than `seconds`."""
        self._stop()
        _join(self._threads, seconds)


_RUNNING: weakref.WeakKeyDictionary[threading.Thread, _Orders] = weakref.WeakKeyDictionary()


def _work(orders: _Orders, make: Callable[[int], Any]) -> None:
    while (task := orders.tasks.get()) is not None:
        future, place = task
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(make(place))
        except BaseException as error:
            future.set_exception(error)
        finally:
            del task, future  # what is made is not to live until the next task, nor an error to hold itself


def _stop(orders: _Orders, count: int) -> None:
    orders.stopped.set()
    while True:
        try:
            task = orders.tasks.get_nowait()
        except queue.Empty:
            break
        if task is not None:
            task[0].cancel()
    for _ in range(count):
        orders.tasks.put(None)


def _join(threads: Iterable[threading.Thread], seconds: float) -> None:
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


@atexit.register
def _end() -> None:
    """At the interpreter's end, while it and JAX are still whole."""
    running = dict(_RUNNING)
    for orders in set(running.values()):
        _stop(orders, len(running))
    _join(running, END_SECONDS)
