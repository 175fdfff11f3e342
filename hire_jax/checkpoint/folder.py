"""Checkpoints side by side in a folder: each appears, is replaced, and goes by a rename, whenever the run is killed.

`STEP/` is a whole checkpoint. `.STEP.partial` is being written or removed, `.STEP.replaced` makes room for another one
of its step, and `STEP.damaged` has been passed over.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hire_jax.checkpoint import manifest as manifests
from hire_jax.checkpoint.errors import CheckpointError
from hire_jax.checkpoint.leaves import Snapshot
from hire_jax.checkpoint.storage import read_arrays, write_arrays
from hire_jax.files import write_whole

_STATE = "state"


def survey(folder: Path) -> tuple[dict[int, dict[str, Any]], dict[int, CheckpointError]]:
    """({step: manifest}, {step: what is wrong with its manifest}) of all checkpoints, older ones first."""
    whole, damaged = {}, {}
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for step in sorted(int(name) for name in names if re.fullmatch(r"0|[1-9]\d*", name, re.ASCII)):
        try:
            whole[step] = manifests.read(folder / str(step))
        except CheckpointError as error:
            damaged[step] = error
    return whole, damaged


def write(folder: Path, taken: Snapshot, manifest: Mapping[str, Any]) -> None:
    """Writes a checkpoint, its manifest last, and gives it its name once every byte is on the disk.

    An error leaves what was there before, and nothing else.
    """
    final = folder / str(manifest["step"])
    partial, replaced = _partial(final), folder / f".{final.name}.replaced"
    try:
        partial.mkdir(parents=True)
        if taken.arrays:
            write_arrays(partial / _STATE, taken.arrays)
        described = {**manifest, "leaves": taken.facts, "files": manifests.files_of(partial)}
        write_whole(partial / manifests.NAME, manifests.render(described))
        for within in [*(path for path in partial.rglob("*") if path.is_dir()), partial]:
            _sync(within)
        if final.exists():
            os.rename(final, replaced)
        os.rename(partial, final)
        _sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # the error is of more interest than what may be left
        recover(folder)
        raise
    if replaced.exists():
        shutil.rmtree(replaced)


def load(folder: Path, manifest: Mapping[str, Any]) -> Snapshot:
    """What `write` was given, of a checkpoint whose files have been checked.

    Raises:
      CheckpointError: orbax cannot read it, or reads something else.
    """
    path = folder / str(manifest["step"]) / _STATE
    stored = {str(number): fact for number, fact in enumerate(manifest["leaves"]) if 0 not in fact.get("shape", [0])}
    try:
        arrays = read_arrays(path, list(stored)) if stored else {}
    except Exception as error:
        raise CheckpointError(f"{path}: expected arrays that orbax can read, found {type(error).__name__}: {error}; "
                              f"they were written by {manifest['versions']}") from error
    for name, fact in stored.items():
        form = [arrays[name].dtype.name, *arrays[name].shape]
        if form != [fact["dtype"], *fact["shape"]]:
            raise CheckpointError(f"{path}: state{fact['path']}: expected {fact['dtype']}{fact['shape']}, found "
                                  f"{form[0]}{form[1:]}")
    return Snapshot(manifest["leaves"], arrays)


def recover(folder: Path) -> None:
    """Gives a checkpoint its name back that was to be replaced when the run was stopped."""
    for path in folder.glob(".*.replaced"):
        final = folder / path.name.split(".")[1]
        if final.exists():
            shutil.rmtree(path)
        else:
            os.rename(path, final)


def sweep(folder: Path) -> None:
    """Removes what unfinished saves and removals have left. No other process may be writing into the folder."""
    for path in folder.glob(".*.partial"):
        shutil.rmtree(path)


def remove(folder: Path, step: int) -> None:
    """Removes a checkpoint; stopped in the middle, it is no checkpoint any more."""
    partial = _partial(folder / str(step))
    os.rename(folder / str(step), partial)
    shutil.rmtree(partial)


def set_aside(folder: Path, step: int) -> None:
    """Renames a damaged checkpoint, so that nothing of it is lost and its step can be saved again."""
    aside = folder / f"{step}.damaged"
    if aside.exists():
        shutil.rmtree(aside)
    os.rename(folder / str(step), aside)


def _partial(final: Path) -> Path:
    return final.with_name(f".{final.name}.partial")


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
