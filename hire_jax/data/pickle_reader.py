"""A reader of pickles that calls nothing: what a pickle would have made is only written down.

A pickle is a program for a small stack machine. This machine has the operations that arrays, sparse matrices, numbers,
texts, lists and dicts need in protocols 0 to 4. In it a name is a `Name`, of the few in `NAMES` only, and calling one
gives a `Made`, which keeps its arguments and state. Operations that fetch objects from outside without naming them
(persistent ids, registered extensions) are missing. Nothing is allocated for a length or place that is merely stated.
"""

import codecs
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hire_jax.data.errors import DatasetError

MAX_OPERATIONS = 1 << 22  # Planetoid's largest graph takes 0.2 million; each may leave an object of some 60 bytes
NUMBER_LENGTH = 32  # of a number written as text: Python takes time with the square of the digits
SPARSE = ("csr", "csc", "coo")
_ESCAPE = re.compile(rb"\\(?:[\\'\"nrt]|x[0-9a-fA-F]{2})")


@dataclass(frozen=True)
class Name:
    """A name in a pickle, by what it stands for here."""

    kind: str


class Made:
    """An object that a pickle would have made.

    Attributes:
        kind: "ndarray", "dtype", "scalar", "encode" or one of SPARSE.
        arguments: what the name was called with.
        state: what BUILD gave it, or None.
    """

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[Any, ...] = ()):
        self.kind = kind
        self.arguments = arguments
        self.state: Any = None


def _names() -> dict[tuple[str, str], Name]:
    """(module, name) as old and new versions of Python, numpy and scipy write them -> what it stands for."""
    multiarray, builtins = ("numpy.core.multiarray", "numpy._core.multiarray"), ("__builtin__", "builtins")
    known: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        ("ndarray", ("numpy",), ("ndarray",)),
        ("dtype", ("numpy",), ("dtype",)),
        ("reconstruct", multiarray, ("_reconstruct",)),
        ("scalar", multiarray, ("scalar",)),
        ("list", builtins, ("list",)),
        ("object", builtins, ("object",)),
        ("bytes", builtins, ("bytes",)),
        ("encode", ("_codecs",), ("encode",)),
        ("defaultdict", ("collections",), ("defaultdict",)),
        ("reconstructor", ("copy_reg", "copyreg"), ("_reconstructor",)),
    ]
    for form in SPARSE:
        known.append((form, (f"scipy.sparse.{form}", f"scipy.sparse._{form}"), (f"{form}_matrix", f"{form}_array")))
    return {(module, name): Name(kind) for kind, modules, names in known for module in modules for name in names}


NAMES = _names()


def read_pickle(data: bytes, where: str) -> Any:
    """What a pickle describes, of None, bool, int, float, str, bytes, list, tuple, dict, `Name` and `Made`.

    Lists and dicts may contain themselves. Keys of dicts are texts or integers of 64 bits.

    Args:
        data: the pickle.
        where: its origin, for errors.

    Raises:
        DatasetError: it has a name or operation that is not known here.
        ValueError, IndexError, KeyError, TypeError, AttributeError: it is damaged.
    """
    return _Machine(data, where).run()


class _Machine:
    def __init__(self, data: bytes, where: str):
        self.data, self.where, self.position = data, where, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPERATIONS):
            (operation,) = self.take(1)
            if operation == ord("."):
                return self.stack.pop()
            if operation not in _OPERATIONS:
                raise self.refuse(f"operation {bytes([operation])!r} at byte {self.position - 1}")
            _OPERATIONS[operation](self)
        raise self.refuse(f"more than {MAX_OPERATIONS} operations")

    def refuse(self, found: str) -> DatasetError:
        return DatasetError(f"{self.where}: expected only arrays, sparse matrices and lists, found {found}; "
                            "it was not loaded")

    def take(self, count: int) -> bytes:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise ValueError(f"{self.position - len(self.data)} bytes are missing at its end")
        return self.data[start : self.position]

    def counted(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "little"))

    def line(self) -> bytes:
        end = self.data.index(b"\n", self.position)
        return self.take(end + 1 - self.position)[:-1]

    def number(self) -> str:
        text = self.line()
        if len(text) > NUMBER_LENGTH:
            raise ValueError(f"a number of {len(text)} digits")
        return text.decode("ascii")

    def unmark(self) -> list[Any]:
        """The objects since the last mark, taken off the stack."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def quoted(self) -> str:
        """A text of protocol 0 by Python 2, which is bytes; numpy takes them from the characters of latin1."""
        text = self.line().strip()[1:-1]
        if b"\\" in _ESCAPE.sub(b"", text):
            raise ValueError("an escape that Python 2 does not write")
        return codecs.escape_decode(text)[0].decode("latin1")

    def integer_line(self) -> bool | int:
        text = self.number()
        return text == "01" if text in ("00", "01") else int(text)

    def skip_frame(self) -> None:
        if int.from_bytes(self.take(8), "little") > len(self.data) - self.position:
            raise ValueError("a frame is cut off")

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError(f"items for {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(values)

    def update(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError(f"entries for {type(target).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Others can take a dict endless time: nested tuples, or integers that differ by 2**61 - 1.
            if type(key) is not str and (type(key) is not int or key.bit_length() > 63):
                raise ValueError(f"a key of type {type(key).__name__}")
            target[key] = value

    def name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        if (module, name) not in NAMES:
            raise self.refuse(f"{module[:80]}.{name[:80]}")
        return NAMES[module, name]

    def call(self, arguments: Any, name: Any) -> Any:
        """What calling `name` would give; its arguments are looked at by whoever uses the result."""
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise TypeError(f"a call of {type(name).__name__}")
        if name.kind in ("dtype", "scalar", "encode"):
            return Made(name.kind, arguments)
        if name.kind == "reconstruct":
            return Made("ndarray")
        if name.kind == "defaultdict":
            return {}
        if name.kind == "bytes" and not arguments:
            return b""
        if name.kind == "reconstructor" and arguments[1:] == (Name("object"), None):
            return self.new((), arguments[0])
        raise self.refuse(f"a call of {name.kind}")

    def new(self, arguments: Any, name: Any) -> Made:
        if not isinstance(name, Name) or name.kind not in SPARSE or arguments != ():
            raise self.refuse("a new object other than a sparse matrix")
        return Made(name.kind)

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Made):
            raise TypeError(f"a state for {type(self.stack[-1]).__name__}")
        self.stack[-1].state = state


def _pushed(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    """The operation that puts a value on the stack."""
    return lambda machine: machine.stack.append(value(machine))


def _put(place: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    """The operation that keeps the top of the stack under a number."""
    return lambda machine: machine.memo.update({place(machine): machine.stack[-1]})


def _unsigned(width: int) -> Callable[[_Machine], int]:
    return lambda machine: int.from_bytes(machine.take(width), "little")


def _tuple(count: int) -> Callable[[_Machine], tuple[Any, ...]]:
    return lambda machine: tuple([machine.stack.pop() for _ in range(count)][::-1])


_VALUES: dict[bytes, Callable[[_Machine], Any]] = {
    b"N": lambda _: None,
    b"\x88": lambda _: True,
    b"\x89": lambda _: False,
    b"I": _Machine.integer_line,
    b"L": lambda machine: int(machine.number().removesuffix("L")),
    b"K": _unsigned(1),
    b"M": _unsigned(2),
    b"J": lambda machine: int.from_bytes(machine.take(4), "little", signed=True),
    b"\x8a": lambda machine: int.from_bytes(machine.counted(1), "little", signed=True),
    b"\x8b": lambda machine: int.from_bytes(machine.counted(4), "little", signed=True),
    b"F": lambda machine: float(machine.number()),
    b"G": lambda machine: struct.unpack(">d", machine.take(8))[0],
    b"S": _Machine.quoted,
    b"U": lambda machine: machine.counted(1).decode("latin1"),
    b"T": lambda machine: machine.counted(4).decode("latin1"),
    b"V": lambda machine: machine.line().decode("raw-unicode-escape"),
    b"\x8c": lambda machine: machine.counted(1).decode(),
    b"X": lambda machine: machine.counted(4).decode(),
    b"\x8d": lambda machine: machine.counted(8).decode(),
    b"C": lambda machine: machine.counted(1),
    b"B": lambda machine: machine.counted(4),
    b"\x8e": lambda machine: machine.counted(8),
    b"]": lambda _: [],
    b"}": lambda _: {},
    b")": lambda _: (),
    b"l": _Machine.unmark,
    b"t": lambda machine: tuple(machine.unmark()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"2": lambda machine: machine.stack[-1],
    b"c": lambda machine: machine.name(machine.line().decode(), machine.line().decode()),
    b"\x93": lambda machine: machine.name(*_tuple(2)(machine)),
    b"R": lambda machine: machine.call(machine.stack.pop(), machine.stack.pop()),
    b"\x81": lambda machine: machine.new(machine.stack.pop(), machine.stack.pop()),
    b"g": lambda machine: machine.memo[int(machine.number())],
    b"h": lambda machine: machine.memo[_unsigned(1)(machine)],
    b"j": lambda machine: machine.memo[_unsigned(4)(machine)],
}


def _dict(machine: _Machine) -> None:
    pairs = machine.unmark()
    machine.stack.append({})
    machine.update(pairs)


_EFFECTS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda machine: machine.take(1),  # the protocol's number: unknown operations tell more
    b"\x95": _Machine.skip_frame,
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"0": lambda machine: machine.stack.pop(),
    b"1": _Machine.unmark,
    b"a": lambda machine: machine.extend([machine.stack.pop()]),
    b"e": lambda machine: machine.extend(machine.unmark()),
    b"d": _dict,
    b"s": lambda machine: machine.update(list(_tuple(2)(machine))),
    b"u": lambda machine: machine.update(machine.unmark()),
    b"b": _Machine.build,
    b"p": _put(lambda machine: int(machine.number())),
    b"q": _put(_unsigned(1)),
    b"r": _put(_unsigned(4)),
    b"\x94": _put(lambda machine: len(machine.memo)),
}
_OPERATIONS = {code[0]: _pushed(value) for code, value in _VALUES.items()} | {
    code[0]: effect for code, effect in _EFFECTS.items()
}
