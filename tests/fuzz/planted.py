"""Readers with faults put in on purpose, to see that the fuzz finds them."""

import os
import time
import warnings
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from hire_jax.data import DatasetError
from tests.fuzz.outcome import Case
from tests.fuzz.valid import check_arrays

VALID = {"num_nodes/a": np.array(2, np.int32), "y/a": np.array([0, 1], np.int32),
         "edge/a__to__a": np.array([[0, 1], [1, 0]], np.int32), "split/train": np.array([0], np.int32),
         "split/test": np.array([1], np.int32)}


def _hangs() -> None:
    while True:
        time.sleep(0.01)


def _warns() -> None:
    warnings.warn("a warning", RuntimeWarning, stacklevel=1)


def _takes_memory() -> None:
    np.ones(1 << 33, np.uint8)


def _hides_memory() -> None:
    try:
        np.ones(1 << 33, np.uint8)
    except MemoryError as error:
        raise DatasetError("a.txt: expected less") from error


class _Faulty:
    def __del__(self) -> None:
        raise ResourceWarning("left open")


def _fails_in_a_destructor() -> dict[str, np.ndarray]:
    _Faulty()
    return VALID


def _raises(error: Exception) -> Any:
    def raises() -> None:
        raise error

    return raises


FAULTS: dict[str, tuple[Any, str]] = {  # fault -> (what a reader does or gives, what the finding says)
    "another exception": (_raises(KeyError("a.txt: expected")), "KeyError"),
    "no place": (_raises(DatasetError("expected something else")), "names no file"),
    "no expectation": (_raises(DatasetError("a.txt: line 3 is wrong")), "what was expected"),
    "a long message": (_raises(DatasetError("a.txt: expected " + "x" * 5000)), "a message of 5016 characters"),
    "no text": (_raises(DatasetError("a.txt: expected \ud800")), "cannot be printed"),
    "a warning": (_warns, "RuntimeWarning"),
    "a hang": (_hangs, "took longer than"),
    "memory": (_takes_memory, "MemoryError"),
    "hidden memory": (_hides_memory, "asking for more memory"),
    "a destructor": (_fails_in_a_destructor, "left open"),
    "no arrays": (lambda: None, "a dict of arrays: NoneType"),
    "another dtype": (VALID | {"y/a": np.array([0, 1])}, "y/a: int64"),
    "an edge outside": (VALID | {"edge/a__to__a": np.array([[0, 2], [2, 0]], np.int32)}, r"outside [0, 2)"),
    "no reverse": (VALID | {"edge/a__to__a": np.array([[0], [1]], np.int32)}, "a__to__a: no reverse"),
    "duplicates": (VALID | {"edge/a__to__a": np.zeros((2, 2), np.int32)}, "not sorted, or a duplicate"),
    "an unlabelled node": (VALID | {"y/a": np.array([0, -1], np.int32)}, "labelled nodes"),
}
RIGHT: dict[str, tuple[Any, str]] = {
    "valid": (VALID, "accepted"),
    "refused": (_raises(DatasetError("a.txt:3: expected 2, found 3")), "refused"),
}


def _case(name: str, behaviour: Any) -> Case:
    def read(value: int, folder: Path) -> None:
        check_arrays(behaviour() if callable(behaviour) else behaviour, folder)

    return Case(name, lambda: 0, lambda rng: rng.randrange(9), read, ("a.txt",))


CASES = {name: _case(name, behaviour) for name, (behaviour, _) in (FAULTS | RIGHT).items()}


def _ends(value: int, folder: Path) -> None:
    if value == 0:
        os.abort()
    raise DatasetError("a.txt: expected 0")


def _make_end(rng: Random) -> int:
    return rng.randrange(4)


ENDING = {"ends its process": Case("ends its process", lambda: 1, _make_end, _ends, ("a.txt",))}
