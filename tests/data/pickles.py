"""Pickles as other versions of Python, numpy and scipy write them, for tests."""

import pickle
import struct
from collections.abc import Iterator
from typing import Any, ClassVar


def as_old(pickled: bytes) -> bytes:
    """The names that numpy before 2 and scipy before 1.8 wrote, in protocols 0 to 3."""
    for form in (b"csr", b"csc", b"coo"):
        pickled = pickled.replace(b"cscipy.sparse._" + form, b"cscipy.sparse." + form)
    return pickled.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")


def by_python2(value: Any) -> bytes:
    """Protocol 2 as Python 2 writes it: texts and bytes alike as strings of bytes."""
    written: list[bytes] = []

    class Python2(pickle._Pickler):  # the one in Python, whose way with a type can be changed
        dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

        def save_string(self, text: str | bytes) -> None:
            raw = text.encode("latin1") if isinstance(text, str) else text
            self.write((b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))) + raw)
            self.memoize(text)

    Python2.dispatch |= {str: Python2.save_string, bytes: Python2.save_string}
    Python2(type("File", (), {"write": lambda self, data: written.append(data)})(), 2).dump(value)
    return as_old(b"".join(written))


def every_way(value: Any) -> Iterator[bytes]:
    """A value's pickles of protocols 0 to 4, with old and new names, by Python 3 and 2."""
    for protocol in range(5):
        pickled = pickle.dumps(value, protocol)
        yield pickled
        if protocol < 4:
            yield as_old(pickled)
    yield by_python2(value)
