"""Damage below the packing: numpy's, zip, gzip, JSON, pickle and parquet files, taken apart, changed and packed again.

Flipped bytes of a packed file seldom get beyond its checksum; this does.
"""

import gzip
import io
import json
import os
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.mutate import damaged_bytes, damaged_folder, damaged_text
from tests.fuzz.packing import Files, npy, zipped
from tests.fuzz.values import damaged, damaged_array

HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (268435456,), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 9223372036854775807,), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (0, 1000000000000000000000), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (-2, -4), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (True, 8), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (2.0, 4), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (8,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (8,), }",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (), }",
    "{'descr': ('<i4', (1000000, 1000000)), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<i4', 'fortran_order': 1, 'shape': (8,), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': 8, }",
    "{'descr': 8, 'fortran_order': False, 'shape': (8,), }",
    "{'shape': (8,)}", "[]", "", "{'descr': ", "(" * 400, "9" * 9000, "__import__('os').getcwd()",
    "{" + "'a':1," * 2000 + "}",
)


class Evil:
    """An object that would call a function when unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.called


EVIL = (
    Evil(os.getcwd), Evil(eval, "1"), Evil(np.ndarray, (10**9,)), Evil(bytes, 10**12), Evil(bytearray, 10**12),
    Evil(np.zeros, 10**12), Evil(list, "abc"), Evil(np.dtype, "O"), Evil(np.dtype, "V999999999"),
    Evil(getattr, 1, "real"), Evil(np.dtype, [("a", "O")]), Evil(memoryview, b"abc"), Evil(range, 10**12),
    Evil(set, [1]), Evil(random.Random, 1),
)
CODES = (
    b"cos\ngetcwd\n", b"cnumpy\nndarray\n((I3\nI200000000\nttR", b"(I1\nI2\nt", b"\x8a\xff" + b"\x7f" * 255,
    b"\x94" * 50, b"2\x86" * 60, b"]" * 20_000, b"(" * 20_000, b"\x85" * 20_000, b"\x8e" + b"\xff" * 7 + b"\x3f",
    b"\x95" + b"\xff" * 7 + b"\x3f", b"r\xff\xff\xff\x7f", b"p" + b"9" * 5000 + b"\n", b"I" + b"9" * 100_000 + b"\n",
    b"Pid\n", b"Q", b"\x82\x01", b"\x84\x01\x00\x00\x00", b"0", b"1", b"2", b".", b"b", b"R", b"\x81", b"N", b"}", b")",
    b"Fnan\n", b"F1e999\n", b"V\\ud800\n", b"h\x00", b"j\xff\xff\xff\xff", b"cnumpy\ndtype\n(S'O8'\ntR", b"e",
    b"s", b"u", b"B\xff\xff\xff\x7f", b"\x8f", b"\x96\xff\xff\xff\xff\x00\x00\x00\x00", b"\x98", b"\x97",
    b"ibuiltins\neval\n", b"o", b"\x92", b"K\x00a",
)
METHODS = (zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,) * 4 + (zipfile.ZIP_LZMA,)


def damaged_npy(data: bytes, rng: Random, trusted: bool) -> bytes:
    """Another array, another header before the same content, or other content behind the same header."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        return damaged_bytes(data, rng)
    _, _, dtype = np.lib.format.read_array_header_1_0(stream)
    head, body = data[: stream.tell()], data[stream.tell() :]
    pick = rng.random()
    if pick < 0.2:
        header = rng.choice(HEADERS).encode()
        version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x00\x00", b"\xff\xff"))
        length = struct.pack("<H" if version == b"\x01\x00" else "<I", rng.choice((len(header), len(header), 65535)))
        return b"\x93NUMPY" + version + length + header + body
    if pick < 0.3:
        return head + damaged_bytes(body, rng)
    if body.startswith(b"{"):  # the npz form's meta
        return npy(np.frombuffer(damaged_json(body, rng), np.uint8))
    if dtype.hasobject:
        return head + damaged_pickle(body, rng, trusted)
    return npy(damaged_array(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False), rng))


def damaged_zip(data: bytes, rng: Random, trusted: bool) -> bytes:
    """A member damaged, lost or renamed; or another statement about one in the archive's directory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    pick = rng.random()
    if pick < 0.6 and members:
        name = rng.choice(sorted(members))
        members[name] = damaged_file(members[name], rng, trusted)
    elif pick < 0.8 and members:
        members = damaged_folder(members, rng)
    else:
        return _other_directory(data, rng)
    return zipped(members, rng.choice(METHODS))


def _other_directory(data: bytes, rng: Random) -> bytes:
    """The central directory says something else of one member: flags, method, checksum, sizes, attributes, place."""
    places = []
    start = data.find(b"PK\x01\x02")
    while start >= 0:
        places.append(start)
        start = data.find(b"PK\x01\x02", start + 1)
    if not places:
        return damaged_bytes(data, rng)
    offset, width = rng.choice(((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4)))
    at = rng.choice(places) + offset
    number = rng.choice((0, 1, 8, 9, 12, 14, 93, 99, 1000, 0xA1FF0000, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
    return data[:at] + (number % (1 << 8 * width)).to_bytes(width, "little") + data[at + width :]


def damaged_gzip(data: bytes, rng: Random, trusted: bool) -> bytes:
    """Its text damaged; or two archives in one, a cut one, or one that unpacks to far more."""
    pick = rng.random()
    if pick < 0.9:
        return gzip.compress(damaged_text(gzip.decompress(data), rng), mtime=0)
    return rng.choice([lambda: data + data, lambda: data[:-4], lambda: data + b"\x00" * 8, lambda: data[:10],
                       lambda: data[:-4] + b"\xff" * 4, lambda: gzip.decompress(data), lambda: gzip.compress(data),
                       lambda: gzip.compress(rng.choice((b"0", b"1,", b"0,1\n")) * 10_000_000, 1)])()


def damaged_json(data: bytes, rng: Random) -> bytes:
    """Its values damaged; or JSON that is deep, long or not quite JSON."""
    if rng.random() < 0.1:
        return rng.choice((b"[" * 100_000, b'{"nodes":' * 50_000, b"9" * 5000, b"NaN", b'"\\ud800"', b"{}", b"null",
                           b"[]", b'{"nodes": [], "nodes": [{"id": 0}], "links": []}', b"\xef\xbb\xbf{}",
                           data + data, '{"nodes": []}'.encode("utf-16")))
    return json.dumps(damaged(json.loads(data), rng, plain=True)).encode("utf-8", "surrogatepass")


def damaged_pickle(data: bytes, rng: Random, trusted: bool) -> bytes:
    """What it holds damaged (only if `trusted`: made here and unchanged), or its operations."""
    if trusted and rng.random() < 0.6:
        value = pickle.loads(data)
        if rng.random() < 0.1:
            value = rng.choice((rng.choice(EVIL), [rng.choice(EVIL)], {0: rng.choice(EVIL)}))
        else:
            value = damaged(value, rng)
        return pickle.dumps(value, rng.randrange(6))
    places = [place or 0 for _, _, place in pickletools.genops(data)] + [len(data)]
    first = rng.randrange(len(places) - 1)
    start, end = places[first], places[min(first + rng.choice((1, 1, 2, 5)), len(places) - 1)]
    other = rng.randrange(len(places) - 1)
    return rng.choice((
        data[:start] + data[end:],
        data[:end] + data[start:],
        data[:start] + data[places[other] : places[other + 1]] + data[end:],
        data[:start] + rng.choice(CODES) + data[start:],
        data[:start] + rng.choice(CODES) + data[start:],
        data[:start] + rng.choice(CODES) + data[end:],
        data[: places[-2]] + rng.choice(CODES) + b".",
        data[: start + 1] + damaged_bytes(data[start + 1 : end], rng) + data[end:],
    ))


def damaged_parquet(data: bytes, rng: Random) -> bytes:
    """A table with a column lost, renamed, of another type, or with other values."""
    import pyarrow
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(io.BytesIO(data)).to_pydict()
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(damaged(columns, rng, plain=True)), stream)
    return stream.getvalue()


def damaged_file(data: bytes, rng: Random, trusted: bool) -> bytes:
    """Damage that fits what the file is: to its structure two times in three, else to its bytes.

    Args:
        data: the file.
        rng: chooses.
        trusted: whether it is as the fuzz made it, so that what is pickled in it may be unpickled to be changed.
    """
    kinds: dict[bytes, Callable[[], bytes]] = {
        b"\x93NUMPY": lambda: damaged_npy(data, rng, trusted), b"PK\x03\x04": lambda: damaged_zip(data, rng, trusted),
        b"\x1f\x8b": lambda: damaged_gzip(data, rng, trusted), b"{": lambda: damaged_json(data, rng),
        b"\x80": lambda: damaged_pickle(data, rng, trusted), b"PAR1": lambda: damaged_parquet(data, rng),
    }
    change = next((change for magic, change in kinds.items() if data.startswith(magic)), None)
    if change is None and trusted and data.endswith(b"."):  # protocols 0 and 1 have no magic number
        change = kinds[b"\x80"]
    if change is None:
        return damaged_text(data, rng)
    if rng.random() < 0.35:
        return damaged_bytes(data, rng)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return change()
    except Exception:  # an earlier damage keeps it from being taken apart, or the change from being written
        return damaged_bytes(data, rng)


def damaged_files(files: Files, rng: Random) -> Files:
    """One to four pieces of damage to a folder of files that are whole."""
    changed = dict(files)
    whole = set(files.values())
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not changed or rng.random() < (0.06 if len(files) > 1 else 0.02):
            changed = damaged_folder(changed or files, rng)
            continue
        name = rng.choice(sorted(changed))
        changed[name] = damaged_file(changed[name], rng, changed[name] in whole)
    return changed
