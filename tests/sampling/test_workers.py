"""Threads that make things ahead: they keep nothing, and are gone before the interpreter is."""

import gc
import os
import subprocess
import sys
import time
import weakref

import pytest

from hire_jax.sampling.workers import Workers


class Made:
    """What can be watched by a weak reference."""


def gone(references):
    """Whether what they refer to is gone, or will be within seconds, without the collector of cycles."""
    end = time.monotonic() + 20
    while any(reference() is not None for reference in references) and time.monotonic() < end:
        time.sleep(0.01)
    return all(reference() is None for reference in references)


def test_threads_that_wait_keep_nothing():
    """Neither what they made last, nor, through its traceback, what they failed with."""
    references = []

    def make(place):
        made = Made()
        references.append(weakref.ref(made))
        if place > 3:
            raise RuntimeError("a damaged file")
        return made

    workers = Workers(make, 2)
    try:
        gc.disable()
        for place in range(6):
            future = workers.submit(place)
            try:
                assert isinstance(future.result(20), Made) and place <= 3
            except RuntimeError:  # `pytest.raises` would keep it
                assert place > 3
            del future
        assert len(references) == 6 and gone(references)
    finally:
        gc.enable()
        workers.stop(20)


ENDING = """
import atexit, sys, threading

def report():  # registered first, so run last: while JAX ends, and after it
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("sampling")])

atexit.register(report)
import numpy as np
from hire_jax.sampling import BatchLoader, workers

class Source:
    def __init__(self, make):
        self.make = make
    def __len__(self):
        return 1000
    def __call__(self, epoch, index):
        return self.make()
    def signature(self):
        return "arrays"

busy = BatchLoader(Source(lambda: [np.ones(1000) for _ in range(100)]), workers=3, prefetch=30)
next(iter(busy))
if sys.argv[1:] == ["stuck"]:
    workers.END_SECONDS = 1.0
    stuck = BatchLoader(Source(threading.Event().wait), timeout=0.1)
    next(iter(stuck))
"""


def ended(*arguments):
    """(exit code, what the last handler printed) of a script that ends with a loader at work."""
    done = subprocess.run([sys.executable, "-c", ENDING, *arguments], capture_output=True, text=True, timeout=120,
                          env=os.environ | {"PYTHONPATH": os.getcwd()})
    return done.returncode, done.stdout.strip(), done.stderr


def test_threads_end_before_the_interpreter_does():
    """What it finds within JAX it ends by SIGABRT."""
    assert ended()[:2] == (0, "[]")


@pytest.mark.slow
def test_threads_that_are_stuck_do_not_keep_the_interpreter():
    code, threads, trace = ended("stuck")
    assert code == 1 and threads == "['sampling_0']" and trace.strip().endswith("a timeout that is too short?")


@pytest.mark.slow
def test_many_interpreters_end():
    assert [ended()[:2] for _ in range(10)] == [(0, "[]")] * 10
