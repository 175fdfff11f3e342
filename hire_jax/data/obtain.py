"""Getting a dataset of the registry: fetched, or converted from original files that someone brought.

Both end in one file, NAME.npz, which `load_dataset` finds. It is written only after its arrays have passed every
check of the npz form and agree with the registry.
"""

import filecmp
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from hire_jax.data.build import PARSERS, PICKLED
from hire_jax.data.errors import DatasetError, DatasetNotFoundError
from hire_jax.data.fetch import cache_folder, fetch
from hire_jax.data.formats.arrays import Arrays
from hire_jax.data.npz import RawDataset, read_npz
from hire_jax.data.originals import MAX_MEMBERS, Originals
from hire_jax.data.registry import Entry, Source, entries, entry
from hire_jax.data.verify import differences, unpaired
from hire_jax.data.write import write_npz

OPTIONAL = "heco_"  # begins the names of files that only add splits to a graph


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
            lacking = _lacking(check_file(target, known), known)
        except DatasetError as error:
            say(f"{error}; it is made again")
        else:
            if not lacking:
                say(f"{target}: here already, checked")
                return target
            say(f"{target}: without the splits {', '.join(lacking)}; it is made again")
    if known.way == "generated":
        raise DatasetError(f"name: expected a dataset with original files, found {name}, which is generated")
    sources = [source for source in known.sources if source.fetchable]
    if not sources:
        raise DatasetError(f"{name}: expected addresses with checksums, found none. {known.notes['download']}: "
                           f"python -m hire_jax.data convert PATH --name {name}")
    failures: list[DatasetError] = []
    for source in sources:
        try:
            paths = fetch(source.files, folder / "originals" / name, offline=offline, progress=progress, say=say)
            return _write(known, source, joined(paths, name), folder, say)
        except DatasetError as error:
            failures.append(error)
    if isinstance(failures[0], DatasetNotFoundError):  # offline: one way to bring the files is enough
        raise failures[0]
    raise DatasetError(f"{name}: no source gave it:\n" + "\n".join(map(str, failures)))


def convert(path: str | os.PathLike[str], name: str | None = None, folder: str | os.PathLike[str] | None = None, *,
            unverified: bool = False, say: Callable[[str], None] = print) -> Path:
    """Converts original files that are there already: a folder, a zip archive, or a single file.

    Where the files of a source are all there by their checksums, under whatever names, only those are read. Otherwise
    all are, as the dataset that is named, and what they hold is compared with the registry in types, counts, widths
    and sizes of splits; values cannot be. Links in a folder are followed.

    Args:
        path: where they are.
        name: the dataset; None recognises it by the files' checksums.
        folder: where to write NAME.npz; None takes the cache.
        unverified: also read forms that hold pickles (Planetoid, GTN, gnn-benchmark) without the registry's checksums.
            The reader of pickles runs nothing.
        say: told what happens, a line at a time.

    Returns:
        The path of NAME.npz.

    Raises:
        DatasetError: the files are of no known dataset, cannot be parsed, or hold another graph than the registry says.
    """
    path = Path(path).expanduser()
    try:
        if not path.exists():
            raise DatasetError(f"path: expected a folder, a zip archive or a file, found nothing at {path}")
        paths = {path.name: path} if path.is_file() else {
            file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
        if len(paths) > MAX_MEMBERS:
            raise DatasetError(f"{path}: expected a folder of original files, found {len(paths)} files")
        known, source, genuine = recognise(paths, name, str(path))
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"path: expected files that can be read, found: {error}") from error
    if genuine is None:
        if source.form in PICKLED and not unverified:
            raise DatasetError(f"{path}: expected files of {known.name} with the registry's checksums, found others; "
                               "as this form holds pickles, they are read with unverified=True (--unverified) only")
        say("the files' checksums are not the registry's: counts, widths and sizes are compared, values cannot be")
    return _write(known, source, joined(paths if genuine is None else genuine, str(path)),
                  cache_folder() if folder is None else Path(folder).expanduser(), say)


def recognise(paths: Mapping[str, Path], name: str | None, where: str
              ) -> tuple[Entry, Source, dict[str, Path] | None]:
    """Which dataset and source some original files are.

    Args:
        paths: {name: path} of the files.
        name: a dataset's name, or None.
        where: what holds the files, for errors.

    Returns:
        (entry, source, {the registry's name of each of its files: path}, or None where a checksum is missing). A source
        whose files are all there goes before others, then the one with most. Splits that come from files of their own
        may be missing (`OPTIONAL`). Names of files decide where checksums do not.

    Raises:
        DatasetError: the name is unknown, or none is given and no dataset's files are all there.
    """
    candidates = [known for known in (entries().values() if name is None else [entry(name)]) if known.sources]
    if not candidates:
        raise DatasetError(f"name: expected a dataset with original files, found {name}, which is generated")
    sizes = {file.size for known in candidates for source in known.sources for file in source.files}
    found: dict[str, Path] = {}
    for path in paths.values():
        if None in sizes or path.stat().st_size in sizes:  # what has no file's size has no file's checksum
            found |= {digest: path for digest in _digests(path)}
    matched = [(known, source, {file.name: found[digest] for file in source.files
                                if (digest := file.sha256 or file.git_blob_sha1) and digest in found})
               for known in candidates for source in known.sources]
    for known, source, genuine in matched:
        if genuine and all(file.name in genuine or file.name.startswith(OPTIONAL) for file in source.files):
            return known, source, genuine
    names = {name.rpartition("/")[2] for name in paths}
    known, source, most = max(matched, key=lambda match: (len(match[2]), sum(
        file.name in names for file in match[1].files)))
    if name is None:
        guess = f"; {len(most)} of {len(source.files)} files of {known.name} are there" if most else ""
        raise DatasetError(f"{where}: expected files of a dataset of the registry, found none whose checksums are all "
                           f"known{guess}; say which dataset they are (name=, or --name)")
    return known, source, None


def _digests(path: Path) -> tuple[str, str]:
    """(sha256, git's id) of a file."""
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    plain = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            plain.update(block)
            git.update(block)
    return plain.hexdigest(), git.hexdigest()


def joined(paths: Mapping[str, Path], where: str) -> Originals:
    """Several files as one set of originals: the members of zip archives beside the plain files.

    Raises:
        DatasetError: an archive is not to be trusted, or two archives have a member of one name.
    """
    openers: dict[str, Callable[[], IO[bytes]]] = {}
    for name, path in paths.items():
        packed = Path(name).suffix.lower() in (".zip", "") and zipfile.is_zipfile(path)
        files = Originals.of_zip(path) if packed else Originals.of_files({name: path}, where)
        if twice := sorted(set(openers) & set(files.openers)):
            raise DatasetError(f"{where}: expected each file once, found {twice[0]} twice, once in {path.name}")
        openers |= files.openers
    return Originals(where, openers)


def _lacking(raw: RawDataset, known: Entry) -> list[str]:
    return sorted(set(known.splits or ()) - set(raw.splits))


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
            try:
                lacking = _lacking(check_file(written, known), known)
            except DatasetError as error:
                raise DatasetError(str(error).replace(str(written), f"{files.where}, as {known.name}")) from error
            if target.exists() and not filecmp.cmp(target, written, shallow=False):
                aside = target.with_name(f"{target.name}.old")
                os.replace(target, aside)
                say(f"{target}: another file of this name was here; it is now {aside.name}")
            os.replace(written, target)
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{target}: expected a folder that can be written to, found: {error}; name another one "
                           "(folder=, --folder, or HIRE_JAX_DATA)") from error
    say(f"{target}: {target.stat().st_size:,} bytes, checked"
        + (f"; without the splits {', '.join(lacking)}, which come from files of their own" if lacking else ""))
    return target


def check_file(path: Path, known: Entry | None) -> RawDataset:
    """The content of an npz file, whose graph can be built and which agrees with the registry's entry if there is one.

    Raises:
        DatasetError: it is damaged, inconsistent, or another graph than the registry says.
    """
    raw = read_npz(path, known.name if known else None)
    raw.graph(path)
    wrong = [] if known is None else differences(raw, known)
    wrong += [f"relation {'__'.join(edge_type)}: expected another that is its reverse, found none"
              for edge_type in (unpaired(raw.edges) if known else [])]
    if wrong:
        raise DatasetError(f"{path}: not what the registry says of {path.stem}: " + "; ".join(wrong))
    return raw
