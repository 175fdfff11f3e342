"""The csv form of the Open Graph Benchmark's graphs (Hu et al., arXiv 2005.00687): tables, compressed by gzip.

A graph of one node type (ogbn-arxiv):

| file | a line |
|---|---|
| `raw/num-node-list.csv.gz`, `raw/num-edge-list.csv.gz` | the number of nodes, of edges |
| `raw/edge.csv.gz` | source, destination |
| `raw/node-feat.csv.gz`, `raw/node-label.csv.gz` | a node's features; its class |
| `split/time/train.csv.gz`, `valid.csv.gz`, `test.csv.gz` | a node |

A heterogeneous graph (ogbn-mag):

| file | a line |
|---|---|
| `raw/num-node-dict.csv.gz` | the names of the node types; their numbers of nodes |
| `raw/triplet-type-list.csv.gz` | source type, relation, destination type |
| `raw/relations/SOURCE___RELATION___DESTINATION/edge.csv.gz`, `num-edge-list.csv.gz` | as above |
| `raw/node-feat/TYPE/node-feat.csv.gz`, `raw/node-label/TYPE/node-label.csv.gz` | as above |
| `split/time/TYPE/train.csv.gz`, `valid.csv.gz`, `test.csv.gz` | as above |

Files `num-edge-list` may be absent; others, such as the years of papers, are not read.
"""

import gzip
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import Arrays, both_directions, undirected
from hire_jax.data.formats.text import DIGITS, shown
from hire_jax.data.originals import LINE_LIMIT, Originals

BLOCK = 2 << 20  # bytes of text converted at a time
MAX_RATIO = 50  # of unpacked to packed bytes; tables like ogbn-mag's, made at random, reach 3
FREE = 16 << 20  # bytes that any text may have, whatever it was packed to
MAX_TEXT = 4 << 30  # bytes; ogbn-mag's features have about 0.9 GB
_NAMES_LIMIT = 1 << 16  # bytes of a table of names
_NAME = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")  # no "__", which separates names in keys of the npz form
_INTEGER_BYTES, _NUMBER_BYTES = b"0123456789,\n", b"0123456789+-.eE,\n"
_COMMA, _NEWLINE = b",\n"
_PARTS = {"train": "train", "val": "valid", "test": "test"}  # part of a split -> its file


@dataclass(frozen=True)
class OGBForm:
    """What a graph of the Open Graph Benchmark consists of.

    Attributes:
        num_classes: classes are numbered from 0.
        target: the node type that has features, labels and a split; None for a graph of one node type.
        split: name of the split.
    """

    num_classes: int
    target: str | None = None
    split: str = "time"


OGB = {"ogbn_arxiv": OGBForm(num_classes=40), "ogbn_mag": OGBForm(num_classes=349, target="paper")}


def parse_ogb(files: Originals, form: OGBForm) -> Arrays:
    """The arrays of the npz form from a graph of the Open Graph Benchmark (Hu et al., arXiv 2005.00687).

    A graph of one node type gets the type `node` and the relation `node__to__node`, with both directions of every
    edge, without self loops and duplicates: ogbn-arxiv's citations are directed, but its baselines and nearly all
    that followed take them so, and every homogeneous graph here has this form. A heterogeneous graph keeps its
    relations as they are, and each gets a reverse, `rev_` and the relation's name.

    Tables are converted a block at a time and never unpacked as a whole.

    Args:
        files: the graph's files; they may lie in a folder of any name.
        form: what they hold; `OGB` has the forms of ogbn-arxiv and ogbn-mag.

    Raises:
        DatasetError: a file is missing, damaged, unpacks to more than can be meant, or has a line that is not what
            it should be. The message names the line.
    """
    return _one_type(files, form) if form.target is None else _heterogeneous(files, form, form.target)


def _one_type(files: Originals, form: OGBForm) -> Arrays:
    count = int(_integers(files, "raw/num-node-list.csv.gz", (10**DIGITS,), rows=1)[0, 0])
    if not count:
        raise files.error("raw/num-node-list.csv.gz", 1, "at least one node", "0")
    edges = _edges(files, "raw", (count, count))
    return {
        "num_nodes/node": np.array(count, dtype=np.int32),
        "x/node": _features(files, "raw/node-feat.csv.gz", count),
        "edge/node__to__node": undirected(edges[:, 0], edges[:, 1]),
        "y/node": _integers(files, "raw/node-label.csv.gz", (form.num_classes,), rows=count)[:, 0],
        **_splits(files, f"split/{form.split}", form.split, count),
    }


def _heterogeneous(files: Originals, form: OGBForm, target: str) -> Arrays:
    counts = _counts(files, target)
    arrays: Arrays = {f"num_nodes/{name}": np.array(count, dtype=np.int32) for name, count in counts.items()}
    named = dict.fromkeys(counts, 0)  # one more than the highest node that a relation names
    for source, relation, destination in _relations(files, counts):
        folder = f"raw/relations/{source}___{relation}___{destination}"
        edges = _edges(files, folder, (counts[source], counts[destination]))
        reverse = f"rev_{relation}"
        both = both_directions(source, destination, edges[:, 0], edges[:, 1], relation=relation, reverse=reverse)
        if both.keys() & arrays.keys():
            raise files.error("raw/triplet-type-list.csv.gz", None, f"each relation once, and none named {reverse}",
                              f"{source}, {relation}, {destination} after one of these")
        arrays |= both
        for node_type, column in ((source, 0), (destination, 1)):
            named[node_type] = max(named[node_type], int(edges[:, column].max(initial=-1)) + 1)
    for node_type, count in counts.items():
        # Nothing but its edges shows that a type without features is as large as stated; whoever reads it allocates.
        if node_type != target and count > 2 * named[node_type]:
            raise files.error("raw/num-node-dict.csv.gz", None, f"at most {2 * named[node_type]} nodes of type "
                              f"{node_type}, as relations name none above {named[node_type] - 1}", str(count))
    count = counts[target]
    arrays[f"x/{target}"] = _features(files, f"raw/node-feat/{target}/node-feat.csv.gz", count)
    labels = _integers(files, f"raw/node-label/{target}/node-label.csv.gz", (form.num_classes,), rows=count)
    return arrays | {f"y/{target}": labels[:, 0]} | _splits(files, f"split/{form.split}/{target}", form.split, count)


def _counts(files: Originals, target: str) -> dict[str, int]:
    """{node type: its number of nodes}."""
    name = "raw/num-node-dict.csv.gz"
    rows = _names(files, name)
    if len(rows) != 2 or len(rows[0]) != len(rows[1]) or len(set(rows[0])) != len(rows[0]):
        raise files.error(name, None, "a line of distinct node types and a line of their counts",
                         f"{len(rows)} lines of {[len(row) for row in rows[:5]]} fields")
    for node_type, count in zip(*rows, strict=True):
        if not _NAME.fullmatch(node_type):
            raise files.error(name, 1, "names of letters, digits and single '_' between them", shown(node_type))
        if not (count.isascii() and count.isdigit() and len(count) <= DIGITS and int(count)):
            raise files.error(name, 2, f"counts of nodes of at most {DIGITS} digits", shown(count))
    if target not in rows[0]:
        raise files.error(name, 1, f"the node type {target}", ", ".join(rows[0])[:200])
    return {node_type: int(count) for node_type, count in zip(*rows, strict=True)}


def _relations(files: Originals, counts: dict[str, int]) -> list[list[str]]:
    """Source type, relation and destination type of every relation."""
    name = "raw/triplet-type-list.csv.gz"
    rows = _names(files, name)
    for line, row in enumerate(rows, start=1):
        if len(row) != 3 or row[0] not in counts or row[2] not in counts or not _NAME.fullmatch(row[1]):
            raise files.error(name, line, f"source, relation, destination; types among {sorted(counts)}, a name of "
                              "letters, digits and single '_' between them", shown(",".join(row)))
    if not rows:
        raise files.error(name, None, "at least one relation", "none")
    return rows


def _edges(files: Originals, folder: str, limits: tuple[int, int]) -> np.ndarray:
    rows = None
    if files.find(f"{folder}/num-edge-list.csv.gz") is not None:
        rows = int(_integers(files, f"{folder}/num-edge-list.csv.gz", (10**DIGITS,), rows=1)[0, 0])
    return _integers(files, f"{folder}/edge.csv.gz", limits, rows=rows)


def _splits(files: Originals, folder: str, split: str, count: int) -> Arrays:
    splits: Arrays = {}
    taken = np.zeros(count, dtype=bool)
    for part, stem in _PARTS.items():
        name = f"{folder}/{stem}.csv.gz"
        nodes = _integers(files, name, (count,), rows=None)[:, 0]
        if not len(nodes):
            raise files.error(name, None, "at least one node", "none")
        order = np.argsort(nodes, kind="stable")
        again = order[1:][np.diff(nodes[order]) == 0]
        for lines, where in ((again, "above"), (np.flatnonzero(taken[nodes]), "in another part")):
            if len(lines):
                raise files.error(name, int(lines.min()) + 1, f"a node that is not {where}", str(nodes[lines.min()]))
        taken[nodes] = True
        splits[f"split/{split}/{part}"] = nodes[order]
    return splits


def _features(files: Originals, name: str, rows: int) -> np.ndarray:
    """float32 [rows, F]."""
    return _table(files, name, None, rows)


def _integers(files: Originals, name: str, limits: tuple[int, ...], *, rows: int | None) -> np.ndarray:
    """int32 [rows, len(limits)], the numbers of each column below its limit."""
    return _table(files, name, limits, rows)


def _table(files: Originals, name: str, limits: tuple[int, ...] | None, rows: int | None) -> np.ndarray:
    """A table of integers below limits, or (without limits) of numbers as many as the first line has."""
    width = len(limits) if limits else None
    parts, total = [], 0
    for line, block in _blocks(files, name):
        if width is None:
            width = block[: block.index(b"\n")].count(b",") + 1
        values = _converted(files, name, line, block, width, integer=limits is not None)
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
            part = values.astype(np.int32 if limits else np.float32)
        wrong = part >= np.array(limits) if limits else ~np.isfinite(part)
        if wrong.any():
            row, column = np.argwhere(wrong)[0].tolist()
            expected = f"an integer below {limits[column]}" if limits else "numbers finite in float32"
            raise files.error(name, line + row, expected, str(values[row, column]))
        total += len(part)
        if rows is not None and total > rows:
            raise files.error(name, rows + 1, f"{rows} line(s)", "more")
        parts.append(part)
    if rows is not None and total < rows:
        raise files.error(name, None, f"{rows} line(s)", str(total))
    return np.concatenate(parts) if parts else np.zeros((0, width or 0), np.int32 if limits else np.float32)


def _converted(files: Originals, name: str, line: int, block: bytes, width: int, *, integer: bool) -> np.ndarray:
    """int64 or float64 [rows, width]: the numbers of whole lines, the first of which is `line`."""
    rows = block.count(b"\n")
    characters = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero((characters == _COMMA) | (characters == _NEWLINE))
    lengths = np.diff(ends, prepend=-1) - 1
    if (
        not block.translate(None, _INTEGER_BYTES if integer else _NUMBER_BYTES)
        and len(ends) == rows * width
        and (characters[ends[width - 1 :: width]] == _NEWLINE).all()
        and lengths.min() > 0
        and (lengths.max() <= DIGITS or not integer)
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # before numpy 2.3, what is no number gives but a warning
            try:
                values = np.fromstring(block.replace(b"\n", b","), np.int64 if integer else np.float64, sep=",")
            except (ValueError, DeprecationWarning):
                values = np.zeros(0)
        if len(values) == rows * width:
            return values.reshape(rows, width)
    return _converted_slowly(files, name, line, block, width, integer=integer)


def _converted_slowly(files: Originals, name: str, line: int, block: bytes, width: int, *, integer: bool) -> np.ndarray:
    """As `_converted`, one number after the other, to find what is none."""
    numbers: list[float] = []
    for number, text in enumerate(block.decode("ascii", "backslashreplace").split("\n")[:-1], start=line):
        fields = text.split(",")
        if len(fields) != width:
            raise files.error(name, number, f"{width} numbers separated by commas", shown(text))
        for field in fields:
            if field.encode().translate(None, _INTEGER_BYTES if integer else _NUMBER_BYTES):
                raise files.error(name, number, "an integer without a sign" if integer else "a number", shown(field))
            try:
                numbers.append(float(field))
            except ValueError as error:
                raise files.error(name, number, "a number", shown(field)) from error
            if integer and len(field) > DIGITS:
                raise files.error(name, number, f"an integer of at most {DIGITS} digits", shown(field))
    return np.array(numbers).reshape(-1, width).astype(np.int64 if integer else np.float64)


def _names(files: Originals, name: str) -> list[list[str]]:
    """The fields of every line of a small table."""
    text = b""
    for _, block in _blocks(files, name):
        text += block
        if len(text) > _NAMES_LIMIT:
            raise files.error(name, None, f"at most {_NAMES_LIMIT} bytes", "more")
    return [line.split(",") for line in text.decode("utf-8", "backslashreplace").split("\n")[:-1]]


def _blocks(files: Originals, name: str) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, lines) of a gzip-compressed text, about BLOCK bytes at a time."""
    line, rest, total = 1, b"", 0
    with files.open(name) as packed, gzip.GzipFile(fileobj=packed) as stream:
        while True:
            try:
                block = stream.read(BLOCK)
            except Exception as error:  # damaged bytes surface as zlib.error, BadGzipFile, EOFError, ...
                raise DatasetError(f"{files.where}: {name}: expected a whole gzip file, found a damaged one "
                                   f"({type(error).__name__}: {error})") from error
            total += len(block)
            if total > min(MAX_TEXT, max(FREE, MAX_RATIO * packed.tell())):
                raise files.error(name, None, f"at most {MAX_RATIO} times its packed bytes and {MAX_TEXT}", "more")
            text = rest + block
            if not block and rest:
                text += b"\n"  # the last line may lack its end
            end = text.rfind(b"\n") + 1
            rest = text[end:]
            if end:
                yield line, text[:end]
                line += text.count(b"\n")
            if len(rest) > LINE_LIMIT:
                raise files.error(name, line, f"lines of at most {LINE_LIMIT} bytes", "a longer one")
            if not block:
                if not packed.tell():
                    raise files.error(name, None, "a gzip file", "an empty one")
                return
