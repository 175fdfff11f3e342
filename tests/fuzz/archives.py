"""Zip archives that are not to be trusted: members outside, links, bombs, false statements."""

import io
import stat
import zipfile
from random import Random

from tests.fuzz.inputs import archive
from tests.fuzz.packing import Files
from tests.fuzz.structure import damaged_files, damaged_zip

NAMES = ("../x", "/etc/x", "a/../../x", "C:\\x", "a\\..\\x", "a:b", "", ".", "..", "a//b", "a/./b", "x\x00y", "é",
         "e\u0301", "\U0001f600", "a" * 5000, "a/" * 500 + "x", " ", "con", "tiny/node.dat", "TINY/NODE.DAT",
         "node.dat/", "-rf", "~/x", "\x1b[31m", "\n")
METHODS = (zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,) * 4 + (zipfile.ZIP_BZIP2,)


def hostile_archive(rng: Random) -> Files:
    """One archive, hostile or damaged."""
    if rng.random() < 0.5:
        (name, content), = archive().items()
        return {name: damaged_zip(content, rng, True)} if rng.random() < 0.7 else damaged_files(archive(), rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice(METHODS)) as made:
        made.writestr("node.dat", b"0\tn\t0\n")
        for _ in range(rng.choice((1, 1, 2, 5))):
            _add(made, rng)
        if rng.random() < 0.1:
            made.comment = rng.randbytes(rng.choice((10, 60_000)))
    data = stream.getvalue()
    if rng.random() < 0.2:
        data = rng.choice((b"#!/bin/sh\n" + data, data + b"\x00" * 30, data + data, data[:-22], data[22:], b"",
                           data[-22:]))
    return {"tiny.zip": data}


def _add(made: zipfile.ZipFile, rng: Random) -> None:
    """One more member."""
    info = zipfile.ZipInfo("x")
    info.filename = rng.choice(NAMES)  # set here: the constructor would mend some
    info.compress_type = made.compression
    kind = rng.randrange(6)
    content = b"some\ntext\n"
    if kind == 0:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        content = b"/etc/passwd"
    elif kind == 1:
        info.compress_type, content = zipfile.ZIP_DEFLATED, b"\x00" * (5 << 20)
    elif kind == 2:
        content = rng.randbytes(300)
    elif kind == 3:
        info.extra = rng.choice((b"\x01\x00\x10\x00" + b"\xff" * 16, b"\x01\x00\x04\x00abcd", b"ab", rng.randbytes(12)))
    elif kind == 4:
        info.external_attr = rng.choice((stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR)) << 16
    made.writestr(info, content)
