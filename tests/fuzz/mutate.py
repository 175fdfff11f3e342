"""Seeded damage to bytes, to lines of text, and to folders of files."""

import re
from collections.abc import Callable
from random import Random

from tests.fuzz.packing import Files

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (
    *(b"-1", b"0", b"1", b"2147483647", b"2147483648", b"4294967296", b"9223372036854775808", b"99999999999999999999"),
    *(b"nan", b"inf", b"-inf", b"1e999", b"1e39", b"-1e-999", b"1.5", b"1.0", b"", b"+1", b"0x10", b"1_000", b"007"),
    *(b" 1", b"1 ", b"--1", b"1e", b".", b"e", b"1.2.3", b"True", b"None", b"9" * 5000, b"0." + b"3" * 3000),
    *("٤".encode(), "１".encode(), "²".encode(), "−1".encode(), "\u2028".encode(), b"x", b"\x00", b"\xff"),
)
SEPARATORS = (b"\t", b",", b" ", b";", b"|", b"", b",,", b"\t\t", b"\r", b"\n", b"\x0b", b"\x1c", "\u2028".encode())
WORDS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b'"', b'""', b"'", b"\\", b"\r\n", b"\n\n\n", b"\x1a", b"\xed\xa0\x80",
         b"{}", b"[" * 3000, b"%s%n", b"../", b"A" * 3000, "é".encode("latin1"), "\U0001f600".encode())
INTEGERS = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 8, b"\xff" * 7 + b"\x7f",
            b"\x00" * 8, b"\x00\x00\x00\x40", b"\x01\x00\x00\x00")
LINE_LIMIT = 1 << 20  # of `Originals.lines`, to be passed now and then
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SEPARATOR = re.compile(rb"[\t,]")


def _place(data: bytes, rng: Random, longest: int = 64) -> tuple[int, int]:
    """The two ends of a slice, short or (one time in five) of any length."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, longest if rng.random() < 0.8 else max(1, len(data))))


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data or b"\x00")
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: Random) -> bytes:
    start, integer = rng.randrange(len(data) + 1), rng.choice(INTEGERS)
    return data[:start] + integer + data[start + len(integer) :]


def _set_byte(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + bytes([rng.randrange(256)]) + data[start + 1 :]


def _truncate(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.choice((rng.randbytes(rng.randint(1, 20)), rng.choice(WORDS))) + data[start:]


def _delete(data: bytes, rng: Random) -> bytes:
    start, end = _place(data, rng)
    return data[:start] + data[end:]


def _duplicate(data: bytes, rng: Random) -> bytes:
    start, end = _place(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _move(data: bytes, rng: Random) -> bytes:
    start, end = _place(data, rng)
    rest = data[:start] + data[end:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + data[start:end] + rest[to:]


def _replace_all(data: bytes, rng: Random) -> bytes:
    return rng.choice((b"", b"\n", b"\x00" * 100, rng.randbytes(200), data[::-1], data + data))


BYTES: tuple[Mutation, ...] = (
    _flip, _flip, _flip, _overwrite, _overwrite, _set_byte, _truncate, _truncate, _insert, _delete, _duplicate, _move,
    _replace_all,
)


def _number(data: bytes, rng: Random) -> bytes:
    """One number, sometimes several, replaced by what is none or too large."""
    found = list(_NUMBER.finditer(data))
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 1, 3)))), key=lambda m: -m.start()):
        data = data[: match.start()] + rng.choice(NUMBERS) + data[match.end() :]
    return data


def _near_number(data: bytes, rng: Random) -> bytes:
    """A number replaced by another of the same text, or by one a little larger: still a number, but a wrong one."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    match, other = rng.choice(found), rng.choice(found)
    near = b"%d" % (rng.randint(0, 12)) if rng.random() < 0.5 else other.group()
    return data[: match.start()] + near + data[match.end() :]


def _separator(data: bytes, rng: Random) -> bytes:
    found = list(_SEPARATOR.finditer(data))
    if not found:
        return data
    if rng.random() < 0.3:
        return data.replace(rng.choice(found).group(), rng.choice(SEPARATORS))
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(SEPARATORS) + data[match.end() :]


def _lines(change: Callable[[list[bytes], int, Random], None]) -> Mutation:
    """A change to the list of lines around one of them."""

    def mutation(data: bytes, rng: Random) -> bytes:
        lines = data.split(b"\n")
        change(lines, rng.randrange(len(lines)), rng)
        return b"\n".join(lines)

    return mutation


def _delete_line(lines: list[bytes], at: int, rng: Random) -> None:
    del lines[at : at + rng.choice((1, 1, 1, 3))]


def _double_line(lines: list[bytes], at: int, rng: Random) -> None:
    lines[at:at] = [lines[at]] * rng.choice((1, 1, 2, 2000))


def _swap_lines(lines: list[bytes], at: int, rng: Random) -> None:
    other = rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _change_fields(lines: list[bytes], at: int, rng: Random) -> None:
    separator = b"\t" if b"\t" in lines[at] else b","
    fields = lines[at].split(separator)
    place = rng.randrange(len(fields))
    change = rng.randrange(4)
    if change == 0:
        del fields[place]
    elif change == 1:
        fields.insert(place, fields[place])
    elif change == 2:
        rng.shuffle(fields)
    else:
        fields[place] = rng.choice((*NUMBERS, *WORDS))
    lines[at] = separator.join(fields)


def _long_line(lines: list[bytes], at: int, rng: Random) -> None:
    if rng.random() < 0.1:  # it takes some milliseconds
        lines[at] += rng.choice((b"1,", b"0", b" ", b"a\t")) * LINE_LIMIT


def _other_ends(lines: list[bytes], at: int, rng: Random) -> None:
    end = rng.choice((b"\r", b" ", b"\x00", b"\x85"))
    lines[:] = [line + end for line in lines]


LINES: tuple[Mutation, ...] = (
    _number, _number, _number, _near_number, _near_number, _near_number, _separator,
    *map(_lines, (_delete_line, _double_line, _swap_lines, _change_fields, _change_fields, _long_line, _other_ends)),
)


def damaged_bytes(data: bytes, rng: Random) -> bytes:
    """Bytes flipped, lost, moved, inserted or cut off."""
    return rng.choice(BYTES)(data, rng)


def damaged_text(data: bytes, rng: Random) -> bytes:
    """Lines, fields and numbers lost, moved or replaced; one time in five its bytes."""
    return rng.choice(BYTES if rng.random() < 0.2 else LINES)(data, rng)


def damaged_folder(files: Files, rng: Random) -> Files:
    """A file removed, emptied, renamed, swapped with another, or there twice."""
    files = dict(files)
    name, other = rng.choice(sorted(files)), rng.choice(sorted(files))
    change = rng.randrange(7)
    if change == 0:
        del files[name]
    elif change == 1:
        files[name] = b""
    elif change == 2:
        files[name], files[other] = files[other], files[name]
    elif change == 3:
        new = rng.choice((name.upper(), f"{name}.bak", f"other/{name}", name[:-1] or "x", f"../{name}"))
        files[new] = files.pop(name)
    elif change == 4:
        files[f"a/{name}"] = files[f"b/{name}"] = files.pop(name)
    elif change == 5:
        files[f"{name}_full"] = files[other]
    else:
        files = {f"deep/er/{member}": content for member, content in files.items()}
    return files
