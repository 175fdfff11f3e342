"""Getting a dataset of the registry: fetched, or converted from original files that someone brought.

Both end in one file, NAME.npz, which `load_dataset` finds. It is written only after its arrays have passed every
check of the npz form and agree with the registry.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from hire_jax.data.build import PARSERS
from hire_jax.data.errors import DatasetError, DatasetNotFoundError
from hire_jax.data.fetch import cache_folder, fetch
from hire_jax.data.formats.arrays import Arrays
from hire_jax.data.npz import RawDataset, read_npz
from hire_jax.data.originals import Originals
from hire_jax.data.registry import Entry, Source, entries, entry
from hire_jax.data.verify import differences, unpaired
from hire_jax.data.write import write_npz
from hire_jax.graph import GraphError, HeteroGraph


def get(name: str, folder: str | os.PathLike[str] | None = None, *, offline: bool | None = None,
        say: Callable[[str], None] = print, progress: bool = True) -> Path:
    """Fetches a dataset's original files, checks and converts them, and writes NAME.npz.

    The originals are kept in FOLDER/originals/NAME, so that nothing is fetched twice.

    Args:
        name: a dataset of the registry.
        folder: where to write; None takes the cache (`cache_folder`, or HIRE_JAX_DATA).
        offline: no connection is made; None asks the environment variable HIRE_JAX_OFFLINE.
        say: told what happens, a line at a time.
        progress: a bar on a terminal for what takes long.

    Returns:
        The path of NAME.npz.

    Raises:
        DatasetNotFoundError: offline, and the originals are not there either.
        DatasetError: the name is unknown, no source gave its files, or they are not what the registry says.
    """
    known = entry(name)
    folder = cache_folder() if folder is None else Path(folder).expanduser()
    target = folder / f"{name}.npz"
    if target.is_file():
        try:
            check_file(target, known)
        except DatasetError as error:
            say(f"{error}; it is made again")
        else:
            say(f"{target}: here already, checked")
            return target
    sources = [source for source in known.sources if source.fetchable]
    if known.way == "generated":
        raise DatasetError(f"name: expected a dataset with original files, found {name}, which is generated")
    if not sources:
        raise DatasetError(f"{name}: expected addresses with checksums, found none. {known.notes['download']}: "
                           f"python -m hire_jax.data convert PATH --name {name}")
    failures: list[DatasetError] = []
    for source in sources:
        try:
            paths = fetch(source.files, folder / "originals" / name, offline=offline, progress=progress, say=say)
        except DatasetError as error:
            failures.append(error)
            continue
        return _write(known, source, joined(paths, name), folder, say)
    if isinstance(failures[0], DatasetNotFoundError):  # offline: one way to bring the files is enough
        raise failures[0]
    raise DatasetError(f"{name}: no source could be fetched:\n" + "\n".join(map(str, failures)))


def convert(path: str | os.PathLike[str], name: str | None = None, folder: str | os.PathLike[str] | None = None, *,
            say: Callable[[str], None] = print) -> Path:
    """Converts original files that are there already: a folder, a zip archive, or a single file.

    Args:
        path: where they are.
        name: the dataset; None recognises it by the files' checksums.
        folder: where to write NAME.npz; None takes the cache.
        say: told what happens, a line at a time.

    Returns:
        The path of NAME.npz.

    Raises:
        DatasetError: the files are of no known dataset, cannot be parsed, or hold another graph than the registry says.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DatasetError(f"path: expected a folder, a zip archive or a file, found nothing at {path}")
    paths = {path.name: path} if path.is_file() else {
        file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    known, source, genuine = recognise(paths, name, str(path))
    if not genuine:
        say("not every file's checksum is the registry's: what they hold is compared with it instead")
    return _write(known, source, joined(paths, str(path)),
                  cache_folder() if folder is None else Path(folder).expanduser(), say)


def recognise(paths: Mapping[str, Path], name: str | None, where: str) -> tuple[Entry, Source, bool]:
    """Which dataset and source some original files are, and whether every checksum is the registry's.

    Without a name only checksums count. With one, the source is the one most of whose checksums are there.

    Args:
        paths: {name: path} of the files.
        name: a dataset's name, or None.
        where: what holds the files, for errors.

    Raises:
        DatasetError: the name is unknown, or none is given and no file is known.
    """
    candidates = [known for known in (entries().values() if name is None else [entry(name)]) if known.sources]
    if not candidates:
        raise DatasetError(f"name: expected a dataset with original files, found {name}, which is generated")
    found = {_sha256(path) for path in paths.values()}
    matches, known, source = max(((sum(file.sha256 in found for file in source.files), known, source)
                                  for known in candidates for source in known.sources), key=lambda match: match[0])
    if not matches and name is None:
        raise DatasetError(f"{where}: expected files of a dataset of the registry, found none whose checksum is known; "
                           "say which dataset they are (name=, or --name)")
    return known, source, matches == len(source.files)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def joined(paths: Mapping[str, Path], where: str) -> Originals:
    """Several files as one set of originals: the members of zip archives beside the plain files."""
    openers: dict[str, Callable[[], IO[bytes]]] = {}
    for name, path in paths.items():
        files = Originals.of_zip(path) if path.suffix == ".zip" else Originals.of_files({name: path}, where)
        openers |= files.openers
    return Originals(where, openers)


def _write(known: Entry, source: Source, files: Originals, folder: Path, say: Callable[[str], None]) -> Path:
    """Parses, checks, and writes; the npz is read back and compared before it gets its name."""
    say(f"{known.name}: {known.description}. Licence: {known.licence}. Paper: {known.citation}.")
    arrays: Arrays = PARSERS[source.form](known.name, files)
    target = folder / f"{known.name}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{known.name}.") as scratch:
            written = Path(scratch) / target.name
            write_npz(written, arrays, known.meta())
            absent = sorted(set(known.splits or ()) - set(check_file(written, known).splits))
            os.replace(written, target)
    except OSError as error:
        raise DatasetError(f"{target}: expected a folder that can be written to, found: {error}; "
                           "name another one with HIRE_JAX_DATA") from error
    say(f"{target}: {target.stat().st_size:,} bytes, checked"
        + (f"; without the splits {', '.join(absent)}, which come from files of their own" if absent else ""))
    return target


def check_file(path: Path, known: Entry | None) -> RawDataset:
    """The content of an npz file, whose graph can be built and which agrees with the registry's entry if there is one.

    Raises:
        DatasetError: it is damaged, inconsistent, or another graph than the registry says.
    """
    raw = read_npz(path, known.name if known else None)
    try:
        HeteroGraph.from_arrays(num_nodes=raw.num_nodes, edges=raw.edges, features=raw.features)
    except GraphError as error:
        raise DatasetError(f"{path}: {error}") from error
    wrong = [] if known is None else differences(raw, known)
    wrong += [f"relation {'__'.join(edge_type)}: expected another that is its reverse, found none"
              for edge_type in (unpaired(raw.edges) if known else [])]
    if wrong:
        raise DatasetError(f"{path}: not what the registry says of {path.stem}: " + "; ".join(wrong))
    return raw
