"""Original files of a dataset, as their authors published them: in a folder, a zip archive, or one by one.

Nothing is unpacked to the disk: a parser reads members as streams. A zip archive is checked as a whole before
its first member is read.
"""

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hire_jax.data.errors import DatasetError

MAX_MEMBERS = 10_000
MAX_BYTES = 8 << 30  # all members of an archive together, unpacked; the largest original (ogbn-mag) has 1.6 GB
MAX_RATIO = 200  # of unpacked to packed bytes; deflate ends at 1,032, the HGB archives reach 90
FREE_BYTES = 16 << 20  # which a member may unpack to whatever its ratio
MAX_NAME = 200  # characters; errors list several names
READ_LIMIT = 512 << 20
LINE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Originals:
    """Named files of one dataset, whatever holds them.

    Attributes:
        where: what holds them, for errors: a path, usually.
        openers: {member's path: function that opens it for reading}.
    """

    where: str
    openers: Mapping[str, Callable[[], IO[bytes]]]

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Originals":
        """The files in a folder (at any depth), the members of a zip archive, or one file by itself.

        Raises:
            DatasetError: there is no such path, or the archive is damaged or not to be trusted (`of_zip`).
        """
        path = Path(path)
        if path.is_dir():
            members = sorted(file for file in path.rglob("*") if file.is_file())
            return cls(str(path), {file.relative_to(path).as_posix(): _opener(file) for file in members})
        if not path.is_file():
            raise DatasetError(f"{path}: expected a folder, a zip archive or a file, found nothing")
        if path.suffix == ".zip":
            return cls.of_zip(path)
        return cls(str(path), {path.name: _opener(path)})

    @classmethod
    def of_files(cls, files: Mapping[str, Path | bytes], where: str) -> "Originals":
        """Files by their names in the original, each a path or its bytes."""
        return cls(where, {name: _opener(content) for name, content in files.items()})

    @classmethod
    def of_zip(cls, path: Path) -> "Originals":
        """The members of a zip archive.

        Raises:
            DatasetError: it cannot be read; or a member has an absolute path or one with "..", is a link, is
                encrypted, has no proper name, stands there twice, is packed in another way than by deflate, or
                unpacks to more than can be meant.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                # Not by `is_dir`, which trips over an empty name.
                infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DatasetError(f"{path}: expected a zip archive, found one that cannot be read: "
                               f"{str(error)[:200]}") from error
        _check_members(path, infos)
        return cls(str(path), {info.filename: _member_opener(path, info.filename) for info in infos})

    def find(self, name: str) -> str | None:
        """The member of this name, also inside one folder or several; None where there is none or more than one."""
        found = [member for member in self.openers if member == name or member.endswith(f"/{name}")]
        return name if name in found else found[0] if len(found) == 1 else None

    def open(self, name: str) -> IO[bytes]:
        """A member as a stream; close it.

        Raises:
            DatasetError: there is no such member, or it cannot be opened.
        """
        member = self.find(name)
        if member is None:
            raise DatasetError(f"{self.where}: expected a file {name}, found {_listed(self.openers)}")
        try:
            return self.openers[member]()
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise DatasetError(f"{self.where}: {name}: expected a file that can be read, found: "
                               f"{str(error)[:200]}") from error

    def read(self, name: str, *, limit: int = READ_LIMIT) -> bytes:
        """A member's bytes, `limit` at most.

        Raises:
            DatasetError: as `open`, or the member is damaged or longer.
        """
        with self.open(name) as stream:
            try:
                content = stream.read(limit + 1)
            except Exception as error:  # damaged members surface as zlib.error, BadZipFile, EOFError and others
                raise DatasetError(f"{self.where}: {name}: expected a whole file, found a damaged one "
                                   f"({type(error).__name__}: {str(error)[:200]})") from error
        if len(content) > limit:
            raise DatasetError(f"{self.where}: {name}: expected at most {limit} bytes, found more")
        return content

    def lines(self, name: str, *, limit: int = LINE_LIMIT) -> Iterator[tuple[int, str]]:
        """(line number from 1, line without its end) of a UTF-8 text, one at a time; empty lines are left out.

        Raises:
            DatasetError: as `open`; or a line is longer than `limit` bytes or is not UTF-8. The message names the line.
        """
        with self.open(name) as stream:
            number = 0
            while True:
                number += 1
                try:
                    line = stream.readline(limit + 1)
                except Exception as error:
                    raise DatasetError(f"{self.where}: {name}:{number}: expected a whole file, found a damaged one "
                                       f"({type(error).__name__}: {str(error)[:200]})") from error
                if not line:
                    return
                if len(line) > limit:
                    raise self.error(name, number, f"a line of at most {limit} bytes", "a longer one")
                try:
                    text = line.decode().rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise self.error(name, number, "UTF-8 text", f"byte {line[error.start]:#04x}") from error
                if text:
                    yield number, text

    def error(self, name: str, line: int | None, expected: str, found: str) -> DatasetError:
        """A DatasetError that names the file and the line."""
        place = name if line is None else f"{name}:{line}"
        return DatasetError(f"{self.where}: {place}: expected {expected}, found {found}")


def check_packing(info: zipfile.ZipInfo, where: str) -> None:
    """Raises DatasetError unless a member is deflated or stored: others may state what memory to unpack them with."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DatasetError(f"{where}: expected a member that is deflated or not packed, found method "
                           f"{info.compress_type} of zip")


def _opener(content: Path | bytes) -> Callable[[], IO[bytes]]:
    return (lambda: io.BytesIO(content)) if isinstance(content, bytes) else (lambda: content.open("rb"))


def _member_opener(path: Path, member: str) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:  # the stream keeps the file open for as long as it needs
            return archive.open(member)

    return opened


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_MEMBERS:
        raise DatasetError(f"{path}: expected at most {MAX_MEMBERS} members, found {len(infos)}")
    total, seen = 0, set()
    for info in infos:
        name, parts = info.filename, PurePosixPath(info.filename).parts
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise DatasetError(f"{path}: expected members with printable names of at most {MAX_NAME} characters, "
                               f"found {name[:60]!r} of {len(name)}")
        if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
            raise DatasetError(f"{path}: expected members below the archive's own folder, found {name!r}")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DatasetError(f"{path}: expected plain files, found the link {name!r}")
        if info.flag_bits & 1:
            raise DatasetError(f"{path}: expected members without a password, found {name!r} encrypted")
        if name in seen:
            raise DatasetError(f"{path}: expected each member once, found {name!r} twice")
        check_packing(info, f"{path}: {name}")
        if info.file_size > max(FREE_BYTES, MAX_RATIO * info.compress_size):
            raise DatasetError(f"{path}: {name}: expected to unpack to at most {MAX_RATIO} times its packed size "
                               f"({info.compress_size} bytes), found {info.file_size} bytes stated")
        seen.add(name)
        total += info.file_size
    if total > MAX_BYTES:
        raise DatasetError(f"{path}: expected at most {MAX_BYTES} bytes unpacked, found {total} stated")


def _listed(names: Mapping[str, object]) -> str:
    shown = sorted(names)[:12]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "") or "none"
