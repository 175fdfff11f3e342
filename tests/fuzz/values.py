"""Seeded damage to Python values: numbers, arrays of numpy, and what lists and dicts hold of them."""

import copy
import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import scipy.sparse

NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 7, 8, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**5000),
    *(0.5, 1.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e39, 1e308, 5e-324, True, False),
)
TEXTS = ("", "1", "-1", "01", "x", "٤", "nan", "a|b", "a__b", "a/b", "..", "\x00", "\ud800", "é" * 300, "{}", "%s")
KINDS = ("int8", "uint8", "int16", "int64", "uint64", ">i4", ">f8", "float16", "float32", "float64", "longdouble",
         "bool", "complex64", "U", "S", "O", "M8[s]", "m8[D]", "V4", "i4,f4")
VALUES: tuple[Any, ...] = (
    -1, 1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63), 255, 0.5, -0.5, 2.0, np.nan, np.inf, -np.inf, 1e39, 1e300,
)


def odd_value(rng: Random, *, plain: bool = False) -> Any:
    """Something that does not belong: a number, a text, a container, or (unless `plain`) an object of another kind."""
    pick = rng.randrange(5 if plain else 8)
    if pick < 2:
        return rng.choice(NUMBERS)
    if pick == 2:
        return rng.choice(TEXTS)
    if pick < 5:
        return rng.choice([lambda: None, list, dict, lambda: [1, 2], lambda: [[1], [2, 3]], lambda: {"a": 1},
                           lambda: _nested(rng.choice((5, 50)))])()
    if pick == 5:
        return damaged_array(np.arange(6, dtype=np.int64).reshape(2, 3), rng)
    return rng.choice([object, set, bytes, lambda: b"\xff", lambda: 1j, lambda: np.float32("nan"), lambda: range(3),
                       lambda: iter([1]), lambda: (1, 2), lambda: np.int64(-1), lambda: scipy.sparse.eye(3),
                       lambda: np.ma.masked_array([1, 2], [True, False]), lambda: int, lambda: len])()


def _nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


def damaged_array(array: np.ndarray, rng: Random) -> np.ndarray:
    """An array of another dtype, shape or content; of an odd mind, of another kind altogether."""
    array = np.array(array)
    for _ in range(rng.choice((1, 1, 1, 2))):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                array = rng.choice(_ARRAYS)(array, rng)
            except (ValueError, TypeError, OverflowError, IndexError):
                pass  # this array has no such change: another is as good
    return array


def _cast(array: np.ndarray, rng: Random) -> np.ndarray:
    return array.astype(rng.choice(KINDS))


def _place(array: np.ndarray, rng: Random) -> tuple[int, ...]:
    return tuple(rng.randrange(size) for size in array.shape)


def _value(array: np.ndarray, rng: Random) -> np.ndarray:
    value = rng.choice(VALUES)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64 if isinstance(value, float) else np.int64)
    array[_place(array, rng)] = value
    return array


def _near(array: np.ndarray, rng: Random) -> np.ndarray:
    """One entry at the edge of the range, or equal to another."""
    other = array.max() + rng.choice((-1, 0, 1, 1)) if rng.random() < 0.5 else array[_place(array, rng)]
    array[_place(array, rng)] = other
    return array


def _length(array: np.ndarray, rng: Random) -> np.ndarray:
    axis = rng.randrange(array.ndim)
    cut = [slice(None)] * array.ndim
    cut[axis] = rng.choice((slice(0, 0), slice(0, 1), slice(1, None), slice(None, -1), slice(None, None, -1)))
    return rng.choice((array[tuple(cut)], np.concatenate([array, array], axis)))


def _shape(array: np.ndarray, rng: Random) -> np.ndarray:
    return rng.choice([lambda: array[None], lambda: array[..., None], lambda: array.ravel(), lambda: array.T,
                       lambda: array.reshape(-1)[0], lambda: array.reshape(array.shape[::-1]), lambda: array[..., :0],
                       lambda: array.reshape((1,) * 30 + array.shape), lambda: np.asfortranarray(array)])()


def _all(array: np.ndarray, rng: Random) -> np.ndarray:
    return rng.choice([lambda: np.full_like(array, array.flat[0]), lambda: np.zeros_like(array), lambda: -array,
                       lambda: array + 1, lambda: np.roll(array, 1), lambda: array * 2**40, lambda: array * 1e300,
                       lambda: array.astype(bool), lambda: np.empty(0), lambda: array.astype(">" + array.dtype.str[1:]),
                       lambda: np.array(rng.choice(TEXTS)), lambda: np.array(None), lambda: array / 0])()


_ARRAYS: tuple[Callable[[np.ndarray, Random], np.ndarray], ...] = (
    _cast, _value, _value, _value, _near, _near, _length, _length, _shape, _shape, _all,
)


def damaged(value: Any, rng: Random, *, plain: bool = False) -> Any:
    """A copy of nested dicts and lists with one thing lost, added, renamed or replaced somewhere inside.

    Args:
        value: what to damage; arrays within may change too.
        rng: chooses.
        plain: whether only what JSON can hold may come in.
    """
    if rng.random() < 0.06:
        return odd_value(rng, plain=plain)
    if isinstance(value, dict) and value:
        return _damaged_dict(dict(value), rng, plain)
    if isinstance(value, list | tuple) and value:
        items = list(value)
        place = rng.randrange(len(items))
        change = rng.randrange(8)
        if change == 0:
            del items[place]
        elif change == 1:
            items.insert(place, copy.copy(items[place]))
        elif change == 2:
            rng.shuffle(items)
        elif change == 3:
            items[place] = items[rng.randrange(len(items))]
        else:
            items[place] = damaged(items[place], rng, plain=plain)
        return items if isinstance(value, list) or rng.random() < 0.2 else tuple(items)
    if isinstance(value, np.ndarray):
        return damaged_array(value, rng)
    if scipy.sparse.issparse(value):
        return damaged_matrix(value, rng)
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice((value.upper(), value + " ", value[:-1], rng.choice(TEXTS)))
    return odd_value(rng, plain=plain)


def _damaged_dict(value: dict[Any, Any], rng: Random, plain: bool) -> dict[Any, Any]:
    key, other = rng.choice(list(value)), rng.choice(list(value))
    change = rng.randrange(10)
    if change == 0:
        del value[key]
    elif change == 1:
        new = rng.choice(TEXTS) if plain or not isinstance(key, tuple) else damaged(key, rng)
        try:
            value[new] = value.pop(key)
        except TypeError:  # what cannot be hashed cannot be a key
            value["x"] = None
    elif change == 2:
        value[key], value[other] = value[other], value[key]
    else:
        value[key] = damaged(value[key], rng, plain=plain)
    return value


def damaged_matrix(value: Any, rng: Random) -> Any:
    """A sparse matrix with a part that scipy would not give it, or in another form."""
    if value.format != "csr" or rng.random() < 0.15:
        return rng.choice((value.tocsc, value.tocoo, value.todense, value.tolil))()
    value = value.copy()
    part = rng.choice(("indptr", "indices", "data", "_shape"))
    if part == "_shape":
        value._shape = rng.choice((value._shape[::-1], tuple(damaged(value._shape, rng)) if rng.random() < 0.5 else
                                   (rng.choice(NUMBERS), value._shape[1]), (value._shape[0], rng.choice(NUMBERS))))
    else:
        setattr(value, part, damaged_array(getattr(value, part), rng))
    return value
