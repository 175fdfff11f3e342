"""An append-only store of results: one JSON line a finished cell, safe against kills, resumed by its config.

A folder holds `results.jsonl` (a line a cell), `curves.jsonl` (training curves), and `arrays.jsonl` with
`arrays/` (large arrays such as a teacher's outputs, checked by sha256). A line is one write, flushed to the
disk, so a kill loses at most the line being written: such a torn last line is left out when loading and moved
to `<name>.torn` at the next append. Of two lines with one key the later wins; no line is ever changed.

Processes exclude each other by `flock`. Where Python has no fcntl (Windows) there is no lock, and only one
process may append to a folder at a time.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from experiments.console import warn
from experiments.environment import environment
from experiments.keys import key, plain
from hire_jax.checkpoint import Checkpoints
from hire_jax.files import write_whole

try:
    import fcntl
except ImportError:  # see the module: no lock there
    fcntl = None  # type: ignore[assignment]


class StoreError(ValueError):
    """A stored file does not hold what this store wrote: the message names the file and the line."""


@dataclass(frozen=True)
class Cell:
    """One finished cell: a configuration trained with several seeds.

    metrics: {name: one value a seed, in the order of `seeds`}; facts: values of the whole cell, such as
    {"parameters": 4611}; seconds: wall time; finished_at: UTC, ISO 8601.
    """

    key: str
    config: dict[str, Any]
    seeds: list[int]
    metrics: dict[str, list[float]]
    facts: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    finished_at: str


class ResultStore:
    """Finished cells of one folder; reads the files at every call, so that it sees what other processes add.

        store = ResultStore(out)
        cell = store.finished(config) or store.append(config, seeds=..., metrics=..., history=...)

    `environment` stands in every line; by default it is collected at the first append. Warnings go to
    `console` (default: standard error). The folder is made at the first append, not before. `checkpoints`: whether
    the states of a cell that is being trained are kept too.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        environment: Mapping[str, Any] | None = None,
        console: Console | None = None,
        checkpoints: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._checkpoints = checkpoints
        self._environment = None if environment is None else dict(environment)
        self._console = console
        self._reported: set[tuple[Path, int]] = set()

    def checkpoints(self, config: Any) -> AbstractContextManager[Checkpoints | None]:
        """What a cell's training keeps its states with; None inside where the store keeps none."""
        if not self._checkpoints:
            return nullcontext()
        return Checkpoints(self._checkpoint_folder(config), config=plain(config, "config"))

    def forget_checkpoints(self, config: Any) -> None:
        """Removes the states of a cell, which nobody needs once it is finished."""
        shutil.rmtree(self._checkpoint_folder(config), ignore_errors=True)

    def _checkpoint_folder(self, config: Any) -> Path:
        return self.folder / "checkpoints" / key(config)

    def append(
        self,
        config: Any,
        *,
        seeds: Sequence[int],
        metrics: Mapping[str, ArrayLike],
        facts: Mapping[str, Any] | None = None,
        history: Mapping[str, ArrayLike] | None = None,
        seconds: float = 0.0,
    ) -> Cell:
        """Write one finished cell to the disk and return it.

        metrics: {name: [S]}, finite. history: {name: [S, epochs]}, kept with six significant digits, what is
        not finite as nan. Curves are written before the cell: a finished cell never lacks them. Raises
        ValueError for wrong lengths and values that are not plain, StoreError on a full disk.
        """
        seeds = [int(seed) for seed in seeds]
        values: dict[str, list[float]] = {}
        for name, column in metrics.items():
            array = np.asarray(column)
            fits = array.shape == (len(seeds),) and array.dtype.kind in "iuf"
            if not fits or not np.isfinite(array).all():
                raise ValueError(f"metrics[{name!r}]: expected {len(seeds)} finite numbers, got {column!r}")
            values[name] = array.tolist()
        curves: dict[str, list[list[float | None]]] = {}
        for name, curve in (history or {}).items():
            array = np.asarray(curve, np.float64)
            if array.ndim != 2 or len(array) != len(seeds):
                raise ValueError(f"history[{name!r}]: expected [{len(seeds)}, epochs], got {array.shape}")
            curves[name] = [[_rounded(value) for value in line] for line in array.tolist()]
        if self._environment is None:
            self._environment = environment()
        cell = Cell(
            key=key(config),
            config=plain(config, "config"),
            seeds=seeds,
            metrics=values,
            facts=plain(facts or {}, "facts"),
            environment=plain(self._environment, "environment"),
            seconds=round(float(seconds), 3),
            finished_at=_now(),
        )
        if curves:
            line = {"key": cell.key, "history": curves}
            _append_line(self.folder / "curves.jsonl", line, self._console)
        _append_line(self.folder / "results.jsonl", asdict(cell), self._console)
        return cell

    def cells(self) -> dict[str, Cell]:
        """All finished cells by key, in the order of their first lines. Raises StoreError for a bad line."""
        found = {}
        for where, line in self._load("results.jsonl"):
            try:
                cell = Cell(**line)
                if cell.key != key(cell.config):
                    raise ValueError(f"key {cell.key} does not belong to its config ({key(cell.config)})")
                if any(len(values) != len(cell.seeds) for values in cell.metrics.values()):
                    raise ValueError("a metric has another number of values than there are seeds")
            except (TypeError, ValueError, AttributeError) as error:
                raise StoreError(f"{where}: not a result of this store: {error}") from error
            found[cell.key] = cell
        return found

    def finished(self, config: Any) -> Cell | None:
        """The finished cell of this configuration, or None: what a second run asks before it trains."""
        return self.cells().get(key(config))

    def histories(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Training curves by key, then by name: [S, epochs], nan where there was no finite value."""
        found = {}
        for where, line in self._load("curves.jsonl"):
            try:
                history = {name: np.array(curve, np.float64) for name, curve in line["history"].items()}
                found[str(line["key"])] = history
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise StoreError(f"{where}: not a curve of this store: {error!r}") from error
        return found

    def save_arrays(self, name: str, arrays: Mapping[str, ArrayLike]) -> Path:
        """Keep large arrays under a name, usually a cell's key; of two savings `load_arrays` gives the later.

        The sha256 of the file stands in `arrays.jsonl` and in its name, so that a kill between the two steps
        leaves the older pair of file and line intact. Raises ValueError for a name unfit for a file, and for
        a dtype that npz cannot hold (bfloat16: convert to float32 first).
        """
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
            raise ValueError(f"name: expected letters, digits, '_', '-', '.', got {name!r}")
        plain = {label: np.asarray(value) for label, value in arrays.items()}
        for label, array in plain.items():
            if array.dtype.kind not in "biufc" or label in ("file", "allow_pickle"):
                what = "numbers npz can hold, under a name other than 'file' and 'allow_pickle'"
                raise ValueError(f"arrays[{label!r}]: expected {what}, got {array.dtype}")
        content = io.BytesIO()
        np.savez(content, **plain)  # type: ignore[arg-type]
        data = content.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / "arrays" / f"{name}-{digest[:12]}.npz"
        write_whole(path, data)
        line = {"name": name, "file": path.name, "sha256": digest, "finished_at": _now()}
        _append_line(self.folder / "arrays.jsonl", line, self._console)
        return path

    def load_arrays(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays last saved under this name, or None. Raises StoreError for a missing or changed file."""
        line = None
        for where, candidate in self._load("arrays.jsonl"):
            if not {"name", "file", "sha256"} <= candidate.keys():
                raise StoreError(f"{where}: not an entry of this store: expected name, file and sha256")
            line = candidate if candidate["name"] == name else line
        if line is None:
            return None
        path = self.folder / "arrays" / Path(line["file"]).name
        if not path.is_file():
            raise StoreError(f"{path}: the file that arrays.jsonl names for {name!r} is missing")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != line["sha256"]:
            raise StoreError(f"{path}: expected sha256 {line['sha256']}, got {digest}: the file has changed")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {label: archive[label] for label in archive.files}

    def write_csv(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write `results.csv` (or `path`): one row a cell and seed, nested configurations as `config.a.b`."""
        rows: list[dict[str, Any]] = []
        for cell in self.cells().values():
            shared = {"key": cell.key, **_flat(cell.config, "config"), **_flat(cell.facts, "")}
            commit = cell.environment.get("git_commit", "unknown")
            after = {"seconds": cell.seconds, "finished_at": cell.finished_at, "git_commit": commit}
            for i, seed in enumerate(cell.seeds):
                rows.append(shared | {"seed": seed} | {k: v[i] for k, v in cell.metrics.items()} | after)
        out = io.StringIO()
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        target = self.folder / "results.csv" if path is None else Path(path)
        write_whole(target, out.getvalue().encode())
        return target

    def _load(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """(where, object) of every whole line of one file; a torn tail is reported once and left out."""
        path = self.folder / name
        if not path.exists():
            return []
        with _locked(path, "rb") as file:
            *lines, tail = file.read().split(b"\n")
        if tail and (path, len(lines)) not in self._reported:
            self._reported.add((path, len(lines)))
            warn(f"{path}, line {len(lines) + 1}: torn by a kill and left out", console=self._console)
        found = []
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            try:
                value = json.loads(line, parse_constant=_no_constant)
            except ValueError as error:
                raise StoreError(f"{where}: expected a JSON object, got {line[:60]!r} ({error})") from error
            if not isinstance(value, dict):
                raise StoreError(f"{where}: expected a JSON object, got {line[:60]!r}")
            found.append((where, value))
        return found


def _append_line(path: Path, record: Mapping[str, Any], console: Console | None) -> None:
    """One whole line at the end of a file, on the disk on return; a torn tail is moved aside first."""
    data = json.dumps(record, allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        end = _end_of_lines(file, size)
        if end < size:
            file.seek(end)
            aside = path.with_name(path.name + ".torn")
            with open(aside, "ab") as torn:
                torn.write(file.read() + b"\n")
                torn.flush()
                os.fsync(torn.fileno())
            file.truncate(end)
            warn(f"{path}: a last line torn by a kill was moved to {aside.name}", console=console)
        try:
            written = file.write(data)
        except OSError as error:
            file.truncate(end)
            raise StoreError(f"{path}: cannot append: {error}") from error
        if written != len(data):
            file.truncate(end)
            raise StoreError(f"{path}: cannot append: only {written} of {len(data)} bytes were taken")
        os.fsync(file.fileno())


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """Position after the last newline, searched from the end: only the last line can be torn."""
    end = size
    while end > 0:
        start = max(end - 65536, 0)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


@contextmanager
def _locked(path: Path, mode: str) -> Iterator[BinaryIO]:
    """An unbuffered file under a lock: shared for reading, exclusive for appending; closing it unlocks."""
    with open(path, mode, buffering=0) as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH if mode == "rb" else fcntl.LOCK_EX)
        yield file  # type: ignore[misc]


def _flat(value: Any, name: str) -> dict[str, Any]:
    """Nested mappings as {"a.b.c": value}; lists as JSON text, so that a column stays a column."""
    if isinstance(value, dict):
        prefix = name + "." if name else ""
        return {k: v for part, item in value.items() for k, v in _flat(item, prefix + part).items()}
    return {name: json.dumps(value) if isinstance(value, list) else value}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
