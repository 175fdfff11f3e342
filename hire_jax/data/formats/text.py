"""What parsers of text formats share: the numbers of a line, converted without trust."""

from typing import NamedTuple

import numpy as np

from hire_jax.data.originals import Originals

DIGITS = 9  # of indices and the like, which then fit int32
_LARGEST = float(np.finfo(np.float32).max)
_NUMBER_BYTES = b"0123456789+-.eE,"
_COMMA, _POINT, _ZERO = b",.0"


class Numbers(NamedTuple):
    """The numbers of a line: how many there are, and the places and float32 values of those other than 0."""

    total: int
    columns: np.ndarray
    values: np.ndarray


NO_NUMBERS = Numbers(0, np.zeros(0, np.int32), np.zeros(0, np.float32))


def read_numbers(files: Originals, name: str, line: int, text: str) -> Numbers:
    """Numbers separated by commas. Bags of words are mostly 0 or 0.0, so those are found without being converted.

    Args:
        files, name, line: where the text stands, for errors.
        text: the numbers, in ASCII digits, without spaces.

    Raises:
        DatasetError: one of them is no number, or does not fit float32.
    """
    data = text.encode()
    if data.translate(None, _NUMBER_BYTES):
        wrong = next(part for part in text.split(",") if part.encode().translate(None, _NUMBER_BYTES))
        raise files.error(name, line, "numbers separated by commas", shown(wrong))
    characters = np.frombuffer(data + b",,,", np.uint8)  # one comma ends the last number, two more are looked at
    ends = np.flatnonzero(characters[:-2] == _COMMA)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    zero = (characters[starts] == _ZERO) & (
        (lengths == 1) | (lengths == 3) & (characters[starts + 1] == _POINT) & (characters[starts + 2] == _ZERO)
    )
    columns = np.flatnonzero(~zero)
    values = np.empty(len(columns))
    for position, (start, end) in enumerate(zip(starts[columns].tolist(), ends[columns].tolist(), strict=True)):
        number = data[start:end]
        try:
            values[position] = float(number)
        except ValueError as error:
            raise files.error(name, line, "numbers separated by commas", shown(number.decode())) from error
        if abs(values[position]) > _LARGEST:
            raise files.error(name, line, "numbers finite in float32", shown(number.decode()))
    single = values.astype(np.float32)
    kept = single != 0
    return Numbers(len(ends), columns[kept].astype(np.int32), single[kept])


def integer(text: str) -> int | None:
    """A number of at most `DIGITS` ASCII digits; None where the text is anything else."""
    return int(text) if len(text) <= DIGITS and text.isascii() and text.isdigit() else None


def shown(text: str) -> str:
    """The beginning of a text, quoted, for error messages."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
