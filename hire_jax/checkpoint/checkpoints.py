"""A run's checkpoints: saved by a thread while the run goes on, and restored bit for bit."""

import operator
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax

from hire_jax.checkpoint import folder as disk
from hire_jax.checkpoint import manifest as manifests
from hire_jax.checkpoint.errors import CheckpointError, CheckpointWarning
from hire_jax.checkpoint.leaves import Snapshot, difference, rebuilt, snapshot
from hire_jax.checkpoint.saving import Saving
from hire_jax.checkpoint.share import Found, from_first


class Restored(NamedTuple):
    """A checkpoint that was read.

    Attributes:
      step: what it was saved under.
      state: in the structure that was asked for, bit-identical to the one saved.
      score: of this state, or None.
      place: where the run was (epoch, position of the loader, ...), as JSON gives it back.
      path: its folder.
    """

    step: int
    state: Any
    score: float | None
    place: dict[str, Any]
    path: Path


class Checkpoints:
    """The checkpoints of one run, in a folder of its own.

    Each is a folder `FOLDER/STEP/`: the arrays as orbax writes them, and a manifest with the versions, the config, the
    step, score and place, every leaf's path, dtype and shape, and the sha256 of every file. It appears whole, by a
    rename; a run killed at any moment leaves those that were there, and perhaps the new one. Where a run has many
    processes, all of them hold the same state and make the same calls; process 0 alone reads and writes.

        with Checkpoints(folder, config=config) as checkpoints:
            found = checkpoints.restore(state)
            first, state = (found.step, found.state) if found else (0, state)
            for step in range(first, steps):
                ...
                checkpoints.save(step + 1, state, score=accuracy)

    Args:
      folder: made where it is missing. One run at a time may save into it.
      config: what decides the run's numbers, as plain values that JSON can hold.
      keep_best: the checkpoint of the highest score is kept; of equal scores, the first.
      keep_last: so many of the newest are kept. Two, because the newest may be found damaged, and the best may be it.
      timeout: seconds that a save may take.

    Raises:
      TypeError: a config that JSON cannot hold, NaN included.
      ValueError: a keep_last or a timeout that is not positive.
    """

    def __init__(self, folder: str | os.PathLike[str], *, config: Mapping[str, Any], keep_best: bool = True,
                 keep_last: int = 2, timeout: float = 600.0) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last: expected at least 1, got {keep_last}")
        if not timeout > 0:
            raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")
        self.folder = Path(folder).absolute()
        self._config = manifests.plain("config", config)
        self._keep_best, self._keep_last, self._timeout = keep_best, keep_last, timeout
        self._kept: dict[int, float | None] | None = None  # {step: score} of whole checkpoints, once they are known
        self._damaged: set[int] = set()  # passed over, and not yet set aside
        self._swept = False
        self._saving: Saving | None = None

    def save(self, step: int, state: Any, *, score: float | None = None,
             place: Mapping[str, Any] | None = None) -> None:
        """Copies `state` to the host, and writes it while the caller goes on; a save before it is waited for.

        Once it is whole, older checkpoints but the `keep_last` newest and the best are removed.

        Args:
          step: not below those saved before; the same one again replaces it.
          state: a pytree of jax and numpy arrays, typed keys and Python numbers. Its buffers may be donated afterwards.
          score: the higher, the better.
          place: whatever else is needed to go on, as plain values that JSON can hold.

        Raises:
          TypeError, ValueError: a place that JSON cannot hold; a negative step, or a score that is not finite.
          CheckpointError: the save before this one failed; a leaf that cannot be saved; a folder with checkpoints that
            were not restored, or with later ones.
        """
        step, score = operator.index(step), manifests.check_score(score)
        if step < 0:
            raise ValueError(f"step: expected a number of steps, got {step}")
        where = manifests.plain("place", {} if place is None else place)
        self.wait()
        if jax.process_index() != 0:
            return
        if self._kept is None:
            disk.recover(self.folder)
            whole, damaged = disk.survey(self.folder)
            if whole or damaged:
                raise CheckpointError(f"{self.folder / str(max(whole | damaged))}: expected no checkpoint that was not "
                                      "restored; call restore first, or give another folder")
            self._kept = {}
        if step < max(self._kept, default=0):
            raise CheckpointError(f"{self.folder / str(max(self._kept))}: expected no later checkpoint than step "
                                  f"{step}, which is to be saved; give another folder")
        described = {"format": manifests.FORMAT, "versions": manifests.versions(), "config": self._config,
                     "step": step, "score": score, "place": where}
        taken = snapshot(state)
        self._saving = Saving(self.folder / str(step), lambda: self._write(taken, described), self._timeout)

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that is whole, or None where the folder has none at all.

        Damaged ones are passed over with a warning, and set aside as `STEP.damaged` by the next save.

        Args:
          like: a pytree of the structure, shapes and dtypes of the state; leaves may be `jax.ShapeDtypeStruct`. The
            state has numpy arrays where this has them, and jax arrays on the default device elsewhere.

        Raises:
          CheckpointError: checkpoints of which none is whole; one of another config, which names the first setting
            that differs; a state of another structure, which names the first leaf that differs.

        Warns:
          CheckpointWarning: files that are damaged, and what is taken instead; a checkpoint of other versions.
        """
        return _restored(like, from_first(lambda: self._newest(like)))

    def best(self, like: Any) -> Restored | None:
        """The checkpoint of the highest score, or None where none has a score; see `restore`.

        Raises:
          CheckpointError: as `restore`; and where it is damaged, because the next best would not be the best.
          ValueError: keep_best is False.
        """
        if not self._keep_best:
            raise ValueError("keep_best: expected True, as the best checkpoint is asked for; got False")
        return _restored(like, from_first(lambda: self._best(like)))

    def wait(self) -> None:
        """Returns when the last save is on the disk.

        Raises:
          CheckpointError: it failed, or did not end within `timeout`; the message has its folder and the cause. An
            error is raised once, and the checkpoints before it are as they were.
        """
        if self._saving is None:
            return
        if not self._saving.join():  # it goes on, and no other one may begin
            raise CheckpointError(f"{self.folder}: expected the last checkpoint to be written within "
                                  f"{self._timeout} s, found it unfinished; those before it are as they were")
        saving, self._saving = self._saving, None
        saving.check()

    def close(self) -> None:
        """As `wait`; nothing else is left open."""
        self.wait()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            error.add_note(f"and the last checkpoint was not saved: {failure}")  # what stopped the run comes first

    def _write(self, taken: Snapshot, manifest: dict[str, Any]) -> None:
        """In the thread, which alone changes what is kept until it has been joined."""
        assert self._kept is not None
        step = manifest["step"]
        if not self._swept:
            disk.sweep(self.folder)
            self._swept = True
        for damaged in sorted(self._damaged):
            disk.set_aside(self.folder, damaged)
            self._damaged.remove(damaged)
        disk.write(self.folder, taken, manifest)
        self._kept[step] = manifest["score"]
        stay = set(sorted(self._kept)[-self._keep_last:])
        scores = {at: score for at, score in self._kept.items() if score is not None}
        if self._keep_best and scores:
            stay.add(_first_of_highest(scores))
        for old in sorted(set(self._kept) - stay):
            disk.remove(self.folder, old)
            del self._kept[old]

    # Warnings name the line that called `restore` or `best`: so many frames up.

    def _newest(self, like: Any) -> Found | None:
        self.wait()
        disk.recover(self.folder)
        whole, damaged = disk.survey(self.folder)
        found = None
        for step in sorted(whole, reverse=True):
            self._check(whole[step], like)
            try:
                manifests.check_files(self.folder / str(step), whole[step]["files"])
            except CheckpointError as error:
                damaged[step] = error
            else:
                found = self._read(whole[step])
                break
        wrong = "; ".join(str(damaged[step]) for step in sorted(damaged, reverse=True))
        if damaged and found is None:
            raise CheckpointError(f"{self.folder}: expected a checkpoint that is whole, found none: {wrong}")
        if found is not None and damaged:
            warnings.warn(f"{wrong}; the last good one, {found.path}, is taken", CheckpointWarning, stacklevel=5)
        self._kept = {step: whole[step]["score"] for step in whole if step not in damaged}
        self._damaged = set(damaged)
        return found

    def _best(self, like: Any) -> Found | None:
        self.wait()
        disk.recover(self.folder)
        whole, damaged = disk.survey(self.folder)
        for step, error in damaged.items():
            if step not in self._damaged:
                raise error
        scores = {step: found["score"] for step, found in whole.items()
                  if step not in self._damaged and found["score"] is not None}
        if not scores:
            return None
        manifest = whole[_first_of_highest(scores)]
        self._check(manifest, like)
        manifests.check_files(self.folder / str(manifest["step"]), manifest["files"])
        return self._read(manifest)

    def _check(self, manifest: Mapping[str, Any], like: Any) -> None:
        path = self.folder / str(manifest["step"])
        manifests.check_config(path, self._config, manifest["config"])
        different = difference(like, manifest["leaves"])
        if different is not None:
            raise CheckpointError(f"{path / manifests.NAME}: {different}")

    def _read(self, manifest: dict[str, Any]) -> Found:
        path, now, then = self.folder / str(manifest["step"]), manifests.versions(), manifest["versions"]
        differing = [f"{name} {then.get(name)} then, {now[name]} now" for name in now if now[name] != then.get(name)]
        if differing:
            warnings.warn(f"{path / manifests.NAME}: other versions made this checkpoint, and may compute other "
                          f"numbers: {', '.join(differing)}", CheckpointWarning, stacklevel=6)
        return Found(str(path), manifest, disk.load(self.folder, manifest))


def _first_of_highest(scores: Mapping[int, float]) -> int:
    return max(scores, key=lambda step: (scores[step], -step))


def _restored(like: Any, found: Found | None) -> Restored | None:
    if found is None:
        return None
    manifest = found.manifest
    return Restored(manifest["step"], rebuilt(like, found.taken), manifest["score"], manifest["place"],
                    Path(found.path))
