"""Fetching original files: only bytes whose checksum was known beforehand get their name in the folder.

Two environment variables count: HIRE_JAX_DATA names the folder, and HIRE_JAX_OFFLINE=1 forbids every connection.
Downloads need two packages more: `pip install "hire-jax[data]"`; files that are in the folder already need none.
"""

import hashlib
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from hire_jax.data.download import Download
from hire_jax.data.errors import DatasetError, DatasetNotFoundError

LOCK = ".fetch.lock"
LARGE = 1 << 20  # smaller files are there before a bar could be read
EVERY = 30.0  # seconds between lines of progress


@dataclass(frozen=True)
class RemoteFile:
    """A file that is published somewhere.

    Attributes:
        name: its file name in the original.
        urls: addresses of the same bytes, tried in order.
        sha256: its checksum; None where only `git_blob_sha1` is known.
        size: its size in bytes, if known.
        git_blob_sha1: its id in a git repository, sha1(b"blob <size>\\0" + bytes).
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    size: int | None
    git_blob_sha1: str | None = None


def cache_folder() -> Path:
    """Where datasets are kept: the folder HIRE_JAX_DATA names, else the platform's cache folder for hire_jax.

    The latter is the one that `pooch.os_cache("hire_jax")` names. It is worked out here so that files which are
    there are also found where pooch, and platformdirs which comes with it, are not installed.
    """
    if os.environ.get("HIRE_JAX_DATA"):
        return Path(os.environ["HIRE_JAX_DATA"]).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local") / "hire_jax" / "hire_jax" / "Cache"
    if sys.platform == "darwin":
        return home / "Library/Caches/hire_jax"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "hire_jax"


def fetch(files: Sequence[RemoteFile], folder: Path, *, offline: bool | None = None, timeout: float = 30,
          retries: int = 3, progress: bool = True, say: Callable[[str], None] | None = None, pause: float = 1,
          patience: float = 3600) -> dict[str, Path]:
    """Brings files into a folder, each verified by its checksum before it gets its name there.

    A file that is there already is verified again, and not fetched if it is right; a wrong one ends as
    NAME.wrong when a right one has come. A download that broke off is continued. Processes that fetch into the same
    folder take turns, so that each file is fetched once.

    Args:
        files: what to fetch; each needs a checksum.
        folder: where to; made if need be.
        offline: no connection is made; None asks the environment variable HIRE_JAX_OFFLINE.
        timeout: seconds to connect, and to wait for the next bytes.
        retries: further attempts at the same address, after a passing failure, before the next address is tried.
        progress: show how far large files are: a bar on a terminal, a line every 30 s elsewhere.
        say: told what happens, a line at a time; None prints it to standard error, or nowhere without `progress`.
        pause: seconds before the first further attempt; doubled each time, 60 at most.
        patience: seconds to wait for another process that fetches into this folder.

    Returns:
        {name: path} of all files.

    Raises:
        DatasetNotFoundError: offline, and files are missing or wrong; the message says what to put where.
        DatasetError: a file has no checksum, no address gave the right bytes, a needed package is not installed, the
            folder cannot be written to, or another process kept it locked.
    """
    for file in files:
        _check_entry(file, files)
    folder = Path(folder).expanduser().absolute()
    say = say or (_to_stderr if progress else lambda line: None)
    with _disk_errors(folder):
        missing = [(file, wrong) for file in files if (wrong := _wrong(file, folder))]
        if missing and (_forbidden() if offline is None else offline):
            raise DatasetNotFoundError(f"offline, so that nothing was fetched. {_by_hand(missing, folder)}")
        if missing:
            _check_packages(missing, folder)
            folder.mkdir(parents=True, exist_ok=True)
            download = partial(Download, timeout=timeout, retries=retries, pause=pause, say=say)
            with _turn(folder, patience, say):
                for file, _ in missing:
                    if _wrong(file, folder):  # still: another process may have had its turn
                        with _shown(file, progress, say) as advance:
                            _fetch_one(file, folder, partial(download, advance=advance), say)
    return {file.name: folder / file.name for file in files}


def _fetch_one(file: RemoteFile, folder: Path, download: Callable[..., Download], say: Callable[[str], None]) -> None:
    """Tries a file's addresses one after the other; a wrong file in its place is put back unless one works."""
    import pooch

    path, aside = folder / file.name, folder / f"{file.name}.wrong"
    kind, checksum = _checksum(file)
    displaced = path.exists()
    if displaced:
        say(f"{path}: {_wrong(file, folder)}; it is put aside as {aside.name}")
        os.replace(path, aside)
    downloader = download(part=folder / f".{file.name}.{checksum[:12]}.part", size=file.size,
                          mismatch=partial(mismatch, file))
    failures = []
    try:
        for url in file.urls:
            say(f"{file.name}: {_size(file)} from {url}")
            try:
                with _quiet(pooch.get_logger()):
                    # pooch verifies once more what it can (it knows no git blobs), and renames.
                    pooch.retrieve(url, known_hash=f"sha256:{checksum}" if kind == "sha256" else None,
                                   fname=file.name, path=folder, downloader=downloader)
                return
            except ValueError as error:  # a DatasetError, or what pooch's own verification raises
                say(str(error))
                failures.append(str(error))
    finally:
        if displaced and not path.exists():
            os.replace(aside, path)
    raise DatasetError(f"{file.name}: no address gave the file:\n" + "\n".join(failures)
                       + f"\n{_by_hand([(file, _wrong(file, folder) or '')], folder)}")


def mismatch(file: RemoteFile, path: Path) -> str | None:
    """What is wrong with a file's content ("expected sha256 ..., found ..."), None if nothing is.

    Raises:
        OSError: it cannot be read.
    """
    kind, expected = _checksum(file)
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while piece := stream.read(1 << 20):
            digest.update(piece)
    found = digest.hexdigest()
    return None if found == expected else f"expected {kind} {expected}, found {found} ({size} bytes)"


def _wrong(file: RemoteFile, folder: Path) -> str | None:
    path = folder / file.name
    if not path.exists():
        return "nothing is there"
    if not path.is_file():
        raise DatasetError(f"{path}: expected a file, found a folder or a device")
    return mismatch(file, path)


def _checksum(file: RemoteFile) -> tuple[str, str]:
    """(kind, hexadecimal digits) of the checksum that decides."""
    if file.sha256 is not None:
        return "sha256", file.sha256.lower()
    return "git blob sha1", (file.git_blob_sha1 or "").lower()


def _check_entry(file: RemoteFile, files: Sequence[RemoteFile]) -> None:
    """Refuses what could leave the folder, stand for two files, or be taken on trust."""
    # The name becomes part of a path; a leading dot is for locks and parts.
    if not re.fullmatch(r"[\w+-][\w.+-]*", file.name):
        raise DatasetError(f"files: expected a plain file name, found {file.name!r}")
    if sum(other.name == file.name for other in files) > 1:
        raise DatasetError(f"files: expected each name once, found {file.name!r} twice")
    kind, checksum = _checksum(file)
    if not re.fullmatch("[0-9a-f]{64}" if kind == "sha256" else "[0-9a-f]{40}", checksum):
        raise DatasetError(f"{file.name}: expected a sha256 or a git blob sha1, found {checksum or 'neither'!r}; "
                           "nothing is taken on trust")


def _check_packages(missing: Sequence[tuple[RemoteFile, str]], folder: Path) -> None:
    try:
        import filelock  # noqa: F401
        import pooch  # noqa: F401
    except ImportError as error:
        raise DatasetError(f'downloads need {error.name}: pip install "hire-jax[data]". '
                           + _by_hand(missing, folder)) from error


def _forbidden() -> bool:
    return os.environ.get("HIRE_JAX_OFFLINE", "").lower() not in ("", "0", "false", "no")


def _by_hand(missing: Sequence[tuple[RemoteFile, str]], folder: Path) -> str:
    """What is missing, where it is to be had, and where to put it."""
    lines = [f"Expected in {folder}, and can be put there by hand:"]
    for file, wrong in missing:
        lines.append(f"  {folder / file.name}: {_size(file)} from {' or '.join(file.urls) or 'its authors'}; {wrong}")
    return "\n".join(lines)


def _size(file: RemoteFile) -> str:
    return "size unknown" if file.size is None else f"{file.size:,} bytes"


@contextmanager
def _turn(folder: Path, patience: float, say: Callable[[str], None]) -> Iterator[None]:
    """The folder to oneself. The system frees the lock of a process that dies; the lock's file stays."""
    import filelock

    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"another process fetches into {folder}: waiting for it")
        try:
            lock.acquire(timeout=patience)
        except filelock.Timeout as error:
            raise DatasetError(f"{folder / LOCK}: expected to get the lock within {patience:g} s, found it held by "
                               "another process; end that one, or try again when it is done") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written to, as a DatasetError that says what to do."""
    try:
        yield
    except DatasetError:  # of which one kind is an OSError too
        raise
    except OSError as error:
        raise DatasetError(f"{folder}: expected a folder with room that can be read and written, found: {error}. Mend "
                           "that, or set HIRE_JAX_DATA to another folder; what was fetched so far is kept") from error


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """pooch reports to a logger of its own what is said here already."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _shown(file: RemoteFile, progress: bool, say: Callable[[str], None]) -> Iterator[Callable[[int, int | None], None]]:
    """Shows how far a large file is; gives what is to be told (bytes so far, bytes in all or None)."""
    console = Console(stderr=True)
    if not progress or (file.size is not None and file.size < LARGE):
        yield lambda done, total: None
    elif console.is_terminal and not console.is_dumb_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(file.name, total=file.size)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        said = time.monotonic()

        def line(done: int, total: int | None) -> None:
            nonlocal said
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                say(f"{file.name}: {done:,} bytes" + (f" of {total:,}" if total else ""))

        yield line
