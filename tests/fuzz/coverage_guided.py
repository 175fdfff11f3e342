"""A coverage-guided fuzz of one reader with atheris: inputs that reach new lines are kept and changed further.

    python -m tests.fuzz.coverage_guided --case hgb --seconds 60
    python -m tests.fuzz.coverage_guided --case pickles --seconds 600 --corpus runs/fuzz/pickles

Optional: atheris is no dependency of this project (`pip install atheris`, Python 3.11 to 3.13). What libFuzzer changes
is one file of the case's whole input: a byte names it, the others are its content, behind its packing where it is
gzip or an .npz member, so that no checksum stands in the way. A finding ends the run with status 77 and is written to
the corpus folder; `--input FILE` reads it again.
"""

import argparse
import gzip
import io
import os
import signal
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.packing import Files, zipped

INSTALL = "a coverage-guided fuzz needs atheris: pip install atheris"
MODULES = ("hire_jax.data", "hire_jax.interop", "hire_jax.graph")
SECONDS_OF_ONE = 10


def unpacked(files: Files) -> list[tuple[str, str, bytes]]:
    """(file, member, content) of all that libFuzzer may change; member is "" for plain files, "gz" below gzip."""
    parts = []
    for name, content in sorted(files.items()):
        if content.startswith(b"\x1f\x8b"):
            parts.append((name, "gz", gzip.decompress(content)))
        elif content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                parts += [(name, member, archive.read(member)) for member in sorted(archive.namelist())]
            parts.append((name, "", content))
        else:
            parts.append((name, "", content))
    return parts


def packed_again(files: Files, data: bytes) -> Files:
    """The files with one part replaced: the first byte of `data` says which, the rest is its content.

    Of pickles, which do not belong together, there is only the one.
    """
    parts = unpacked(files)
    name, member, _ = parts[(data[0] if data else 0) % len(parts)]
    content = data[1:]
    if member == "gz":
        content = gzip.compress(content, 1, mtime=0)
    elif member:
        with zipfile.ZipFile(io.BytesIO(files[name])) as archive:
            members = {other: archive.read(other) for other in archive.namelist()}
        content = zipped(members | {member: content}, zipfile.ZIP_STORED)
    return {name: content} if all(other.endswith(".pickle") for other in files) else files | {name: content}


def corpus_of(files: Files) -> list[bytes]:
    """The parts of whole files, in the form that `packed_again` reads."""
    return [bytes([place]) + content for place, (_, _, content) in enumerate(unpacked(files)[:256])]


def read_one(case: Any, files: Files, data: bytes) -> str:
    """What became of one input: "accepted" or "refused"; raises AssertionError with the detail of a finding."""
    from tests.fuzz.outcome import MEMORY, Limits, judged

    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        outcome = judged(case, packed_again(files, data), 0, Path(folder), Limits(seconds=SECONDS_OF_ONE))
    assert outcome.kind != "finding", outcome.detail
    return outcome.kind


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, unless libFuzzer ends the process."""
    title, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage_guided", description=title, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", required=True, metavar="NAME",
                        help="a case of files (python -m tests.fuzz.run --list)")
    parser.add_argument("--seconds", type=int, default=60, metavar="S", help="how long (default: 60)")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="keep inputs there, and begin with what is there")
    parser.add_argument("--input", type=Path, metavar="FILE", help="read one input again; needs no atheris")
    options = parser.parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.input is not None:
        case, files = _case(parser, options.case)
        print(read_one(case, files, options.input.read_bytes()))
        return 0
    try:
        import atheris
    except ImportError:
        print(INSTALL, file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=list(MODULES)):
        case, files = _case(parser, options.case)

    def test_one(data: bytes) -> None:
        read_one(case, files, data)

    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) if options.corpus is None else options.corpus
        corpus.mkdir(parents=True, exist_ok=True)
        for place, data in enumerate(corpus_of(files)):
            (corpus / f"whole{place}").write_bytes(data)
        read_one(case, files, corpus_of(files)[0])  # what is compiled once is compiled here
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={options.seconds}", f"-artifact_prefix={corpus}/finding-",
             "-timeout=0", "-max_len=65536", "-keep_seed=1", "-rss_limit_mb=8192", "-print_final_stats=1"],
            test_one)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        atheris.Fuzz()
    return 0


def _case(parser: argparse.ArgumentParser, name: str) -> tuple[Any, Files]:
    """A case that reads files, and whole files for it."""
    from tests.fuzz.cases import CASES

    whole = CASES[name].whole() if name in CASES else None
    if not isinstance(whole, dict) or not all(isinstance(content, bytes) for content in whole.values()):
        files_only = [other for other, case in CASES.items() if isinstance(next(iter(case.whole().values())), bytes)]
        parser.error(f"--case: expected one of {', '.join(map(repr, files_only))}, found {name!r}")
    return CASES[name], whole


if __name__ == "__main__":
    sys.exit(main())
