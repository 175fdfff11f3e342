"""The description of a checkpoint: what it holds and what made it, with a checksum of every file and of itself."""

import functools
import hashlib
import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hire_jax._version import __version__
from hire_jax.checkpoint.errors import CheckpointError

FORMAT = 1
NAME = "manifest.json"
_KEYS = {"format", "versions", "config", "step", "score", "place", "leaves", "files"}
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def plain(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` as JSON gives it back: tuples become lists, and keys strings.

    Raises:
      TypeError: `name` and what JSON cannot hold, NaN included.
    """
    try:
        return json.loads(json.dumps(dict(value), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected plain values that JSON can hold, found {value!r} ({error})") from error


@functools.cache
def versions() -> dict[str, str]:
    """{package: version} of those that decide what a run computes, and how a checkpoint is written."""
    return {"hire_jax": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def render(manifest: Mapping[str, Any]) -> bytes:
    """The file's bytes: the manifest beside the sha256 of its own text."""
    text = json.dumps(manifest, sort_keys=True, allow_nan=False)
    record = {"checkpoint": manifest, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(record, sort_keys=True, allow_nan=False, indent=1).encode()


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the checkpoint `folder`, every bit of it as it was written; its files are not looked at.

    Raises:
      CheckpointError: no manifest, one that cannot be read, of another format, changed, or of another step.
    """
    path = folder / NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected the manifest of a checkpoint, found none that can be read "
                              f"({error.strerror})") from error
    try:
        manifest = json.loads(data)["checkpoint"]
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path}: expected format {FORMAT}, found {manifest['format']!r}")
        if render(manifest) != data or set(manifest) != _KEYS:
            raise CheckpointError(f"{path}: expected the manifest that was written, found one that was changed since")
        if str(manifest["step"]) != folder.name:
            raise CheckpointError(f"{path}: expected step {folder.name}, found step {manifest['step']!r}")
    except CheckpointError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected the manifest of a checkpoint, found a file that cannot be read "
                              f"({type(error).__name__}: {error})") from error
    return manifest


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """{path within `folder`: {"size", "sha256"}} of all files there, once they are on the disk."""
    facts = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            facts[path.relative_to(folder).as_posix()] = {"size": file.tell(), "sha256": digest}
    return facts


def check_files(folder: Path, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises CheckpointError for the first file that is missing, truncated, or differs in a bit."""
    for name, fact in facts.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != fact["size"]:
                raise CheckpointError(f"{path}: expected {fact['size']} bytes, found {size}")
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: expected {fact['size']} bytes, found a file that cannot be read "
                                  f"({error.strerror})") from error
        if digest != fact["sha256"]:
            raise CheckpointError(f"{path}: expected sha256 {fact['sha256']}, found {digest}")


def check_config(folder: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises CheckpointError with the first setting, "outer.inner" where nested, that differs from `expected`."""
    different = _first_difference(expected, found)
    if different is not None:
        name, ours, theirs = different
        raise CheckpointError(f"{folder / NAME}: config {name!r}: expected {ours}, found {theirs}; give the settings "
                              "it was made with, or another folder")


def _first_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, str, str] | None:
    for name in sorted(set(expected) | set(found)):
        if name not in expected or name not in found:
            return (name, repr(expected[name]) if name in expected else "no such setting",
                    repr(found[name]) if name in found else "no such setting")
        ours, theirs = expected[name], found[name]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            inner = _first_difference(ours, theirs)
            if inner is not None:
                return f"{name}.{inner[0]}", inner[1], inner[2]
        elif ours != theirs:
            return name, repr(ours), repr(theirs)
    return None


def check_score(score: float | None) -> float | None:
    """A score as JSON holds it.

    Raises:
      ValueError: a score that cannot be compared, such as NaN.
    """
    if score is not None and not math.isfinite(score):
        raise ValueError(f"score: expected a finite number or None, found {score!r}")
    return None if score is None else float(score)
