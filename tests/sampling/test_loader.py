"""Batches by their place and ahead of time: the same with any number of threads, and no thread that stays."""

import json
import re
import signal
import threading
import time

import jax
import numpy as np
import pytest

from hire_jax.sampling import BatchLoader
from hire_jax.sampling.workers import END_SECONDS, Workers

pytestmark = pytest.mark.usefixtures("quick_compilation")


def sampling_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sampling")]


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (2, 1), (3, 5), (2, 12)])
def test_threads_change_nothing(source_of, assert_same, workers, prefetch):
    source = source_of()
    with BatchLoader(source, workers=workers, prefetch=prefetch) as loader:
        assert len(loader) == 4
        for epoch in range(3):
            batches = list(loader)
            assert len(batches) == 4 and isinstance(batches[0].ids["item"], jax.Array)
            for index, batch in enumerate(batches):
                assert_same(batch, source(epoch, index))
    assert not sampling_threads()


def test_a_run_can_go_on_from_where_it_was(source_of, seeds_of):
    source = source_of()
    with BatchLoader(source, workers=2) as loader:
        list(loader)
        rest = iter(loader)
        next(rest)
        state = json.loads(json.dumps(loader.state()))
        assert state == {"epoch": 1, "batch": 1, "batches": 4, "source": source.signature()}
        expected = [seeds_of(batch) for batch in (*rest, *loader)]
    with BatchLoader(source_of()) as loader:
        next(iter(loader))  # whatever was made ahead is of no use
        loader.restore(state)
        assert [seeds_of(batch) for batch in (*loader, *loader)] == expected
        assert len(expected) == 3 + 4 and loader.state() == state | {"epoch": 3, "batch": 0}


@pytest.mark.parametrize("change, message", [
    ({"batch": 4}, "expected an epoch from 0 on and a batch from 0 to 3"),
    ({"epoch": -1}, "expected an epoch from 0 on"), ({"batch": -1}, "a batch from 0 to 3"),
    ({"batch": 0.0}, "a batch from 0 to 3"), ({"epoch": True}, "an epoch from 0 on"),
    ({"batches": 5}, "the state is of another source: expected batches 4, got 5"),
    ({"source": "another"}, "the state is of another source: expected source \"target 'item' of a graph"),
    (None, "expected a state of epoch, batch, batches and source, got {}"),
    ({"more": 1}, "expected a state of epoch, batch, batches and source"),
])  # fmt: skip
def test_a_state_of_something_else(source_of, change, message):
    with BatchLoader(source_of()) as loader:
        state = loader.state()
        with pytest.raises(ValueError, match=re.escape(message)):
            loader.restore({} if change is None else state | change)
        assert loader.state() == state
    with pytest.raises(RuntimeError, match="the loader is closed"):
        loader.restore(state)


def test_the_rest_of_an_epoch_comes_after_a_break(source_of, seeds_of):
    source = source_of()
    with BatchLoader(source) as loader:
        for _ in loader:
            break
        assert [seeds_of(batch) for batch in loader] == [seeds_of(source(0, index)) for index in (1, 2, 3)]


class Counted:
    """A source whose batches are their places; batch `fails` runs `how` first."""

    def __init__(self, fails=None, how=None):
        self.asked, self.fails, self.how = [], fails, how

    def __len__(self):
        return 10

    def __call__(self, epoch, index):
        self.asked.append(epoch * 10 + index)
        if self.asked[-1] == self.fails and self.how is not None:
            self.how()
        return np.array(epoch * 10 + index)

    def signature(self):
        return "ten numbers"


def test_no_more_is_made_ahead_than_asked_for():
    source = Counted()
    with BatchLoader(source, workers=3, prefetch=4) as loader:
        for number, batch in enumerate(loader):
            assert batch == number and max(source.asked) <= number + 4
        assert [int(batch) for batch in loader] == list(range(10, 20))
    assert sorted(source.asked)[:20] == list(range(20)) and len(source.asked) <= 24


def failing():
    raise RuntimeError("a damaged file")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_threads_error_comes_when_its_batch_is_due(workers):
    source, seen = Counted(4, failing), []
    with BatchLoader(source, workers=workers, prefetch=3) as loader:
        with pytest.raises(RuntimeError, match="a damaged file") as raised:
            for batch in loader:
                seen.append(int(batch))
        assert raised.value.__notes__ == ["while making batch 4 of epoch 0"]
        assert seen == [0, 1, 2, 3] and (loader.state()["epoch"], loader.state()["batch"]) == (0, 4)
        with pytest.raises(RuntimeError, match="a damaged file"):  # it is made again, and fails again
            next(iter(loader))
        source.how = None
        assert [int(batch) for batch in loader] == [4, 5, 6, 7, 8, 9]
    assert not sampling_threads()


def test_an_error_in_the_loop_leaves_no_thread():
    with pytest.raises(ZeroDivisionError), BatchLoader(Counted(), workers=2) as loader:
        for _ in loader:
            1 / 0  # noqa: B018
    assert not sampling_threads()
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(iter(loader))
    loader.close()  # a second time


def test_ctrl_c_while_waiting_leaves_no_thread():
    """The signal comes while the main thread waits for the batch whose thread sends it."""
    seen: list[int] = []

    def interrupt():
        end = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < end:  # on a busy machine the main thread may be batches behind
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)

    source = Counted(3, interrupt)
    with pytest.raises(KeyboardInterrupt), BatchLoader(source, prefetch=1) as loader:
        for batch in loader:
            seen.append(int(batch))
    assert seen == [0, 1, 2] and not sampling_threads()


def test_a_loader_that_is_forgotten_leaves_no_thread():
    loader = BatchLoader(Counted(), workers=2)
    threads = [next(iter(loader)), *sampling_threads()][1:]
    del loader
    for thread in threads:
        thread.join(timeout=30)
    assert threads and not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("arguments, error, message", [
    ({"workers": 0}, ValueError, "workers must be at least 1, got 0"),
    ({"prefetch": 0}, ValueError, "prefetch must be at least 1, got 0"),
    ({"prefetch": 1.5}, TypeError, "prefetch must be an integer, got 1.5"),
    ({"timeout": 0}, ValueError, "timeout must be above 0 and at most 1e+06 seconds, got 0"),
    ({"timeout": float("inf")}, ValueError, "got inf"), ({"timeout": float("nan")}, ValueError, "got nan"),
    ({"timeout": "5"}, TypeError, "timeout must be a number of seconds, got '5'"),
    ({"put": int, "device": jax.devices()[0]}, ValueError, "put takes the place of device"),
    ({"source": ()}, ValueError, "the source has no batches"),
])  # fmt: skip
def test_what_a_loader_does_not_take(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        BatchLoader(**({"source": Counted()} | arguments))
    assert not sampling_threads()


@pytest.mark.parametrize("trouble, error, wait", [
    (lambda loader: next(iter(loader)), TimeoutError, END_SECONDS),
    (lambda loader: 1 / 0, ZeroDivisionError, END_SECONDS),
    (lambda loader: signal.raise_signal(signal.SIGINT), KeyboardInterrupt, END_SECONDS), (len, None, 30.0),
])  # fmt: skip
def test_who_leaves_in_trouble_does_not_wait_long(monkeypatch, trouble, error, wait):
    """A thread that is stuck has `timeout` to come back, but not when something has gone wrong already."""
    release, waited = threading.Event(), []

    def stopped(workers, seconds, stop=Workers.stop):
        waited.append(seconds)
        release.set()
        stop(workers, seconds)

    monkeypatch.setattr(Workers, "stop", stopped)
    monkeypatch.setattr("concurrent.futures.Future.result", lambda future, timeout: (_ for _ in ()).throw(TimeoutError))

    def run():
        with BatchLoader(Counted(0, release.wait), timeout=30) as loader:
            trouble(loader)

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert waited == [wait] and not sampling_threads()


def test_a_batch_that_is_late_is_named():
    release = threading.Event()
    with BatchLoader(Counted(2, release.wait), timeout=0.3, prefetch=1) as loader:
        rest = iter(loader)
        next(rest), next(rest)
        with pytest.raises(TimeoutError, match="batch 2 of epoch 0 was not made within"):
            next(rest)
        release.set()
    assert not sampling_threads()
