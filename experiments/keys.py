"""A configuration's name: what tells one result from another."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np

from hire_jax.identity import identifying


def key(config: Any) -> str:
    """Name of a configuration: the first 16 hex digits of the sha256 of its canonical JSON (keys sorted).

    `config` is a dataclass or a mapping of plain values, nested as needed. The order of keys does not matter,
    a tuple equals a list, but 1 and 1.0 differ. Raises ValueError for values JSON cannot hold, nan included.
    """
    text = json.dumps(plain(config, "config"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any, where: str) -> Any:
    """A value as JSON gives it back: dataclasses and mappings as dicts, tuples as lists, no numpy scalars.

    Of a dataclass only what `identifying` gives: a setting that a later version adds leaves the keys of older cells as
    they were.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = identifying(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            raise ValueError(f"{where}: expected names of type str, got {wrong[0]!r}")
        return {name: plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value}")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    kind = type(value).__name__
    raise ValueError(f"{where}: expected text, numbers, bools, None, lists or mappings, got {kind}")
