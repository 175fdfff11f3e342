"""What became of one malformed input: accepted, refused, or a finding."""

import gc
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from hire_jax.data import DatasetError
from hire_jax.graph import GraphError, HeteroGraph
from tests.fuzz.inputs import graph
from tests.fuzz.valid import check_graph

EXPECTS = re.compile(r"\b(expected|must|needs|is unknown|outside \[|which edges does not)")
MEMORY = Path("/dev/shm")  # folders come and go faster there
MESSAGE_LIMIT = 3000  # characters; longer ones are not read


@dataclass(frozen=True)
class Case:
    """One thing that reads what it cannot trust.

    Attributes:
        name: what the table calls it.
        whole: gives a valid input.
        make: gives a malformed input (some stay valid by chance).
        read: reads it, in a folder of its own, and checks what comes out: raises DatasetError or GraphError where
            the input is refused, `InvalidGraph` where what it accepted is no valid graph.
        places: what a refusal must name at least one of: files, keys, arguments, relations.
    """

    name: str
    whole: Callable[[], Any]
    make: Callable[[Random], Any]
    read: Callable[[Any, Path], None]
    places: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """What one input may take: seconds, and MiB of further address space."""

    seconds: float = 5.0
    mebibytes: int = 1024


@dataclass(frozen=True)
class Outcome:
    """How one input ended.

    Attributes:
        number: which input of its case.
        kind: "accepted", "refused" or "finding".
        detail: of a refusal, its place and what was expected, without numbers; of a finding, what happened.
        seconds: how long it took.
    """

    number: int
    kind: str
    detail: str
    seconds: float


class TookTooLong(BaseException):
    """Raised by the timer; no `except Exception` holds it."""


def generator(case: str, seed: int, number: int) -> Random:
    """The numbers that make one input, the same on every machine."""
    return Random(f"{seed}/{case}/{number}")


def made(case: Case, seed: int, number: int) -> Any:
    """The malformed input of this number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return case.make(generator(case.name, seed, number))


def judge(case: Case, seed: int, number: int, limits: Limits) -> Outcome:
    """Reads one input, with warnings as errors, under limits of time and memory.

    Args:
        case, seed, number: which input.
        limits: passing one is a finding.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        return judged(case, made(case, seed, number), number, Path(folder), limits)


def judged(case: Case, value: Any, number: int, folder: Path, limits: Limits) -> Outcome:
    """The same of an input that is at hand; the reader may write into `folder`, which is empty."""
    _first_graph()
    lost: list[Any] = []
    start = time.perf_counter()
    try:
        with _silent_errors(lost), warnings.catch_warnings(), _memory_limit(limits.mebibytes), _timer(limits.seconds):
            warnings.simplefilter("error")
            case.read(value, folder)
        kind, detail = "accepted", ""
    except (DatasetError, GraphError) as error:
        fault, message = fault_of(error, case.places), str(error).replace(f"{folder}/", "")
        kind, detail = ("finding", f"{fault}: {error!r}") if fault else ("refused", normalised(message))
    except TookTooLong:
        kind, detail = "finding", f"took longer than {limits.seconds} s; it was at\n{traceback.format_exc()}"
    except Exception as error:
        kind, detail = "finding", "".join(traceback.format_exception(error))[-4000:]
    if lost and kind != "finding":
        kind, detail = "finding", f"an error in a destructor: {lost[0]!r}"
    return Outcome(number, kind, detail, time.perf_counter() - start)


def fault_of(error: BaseException, places: tuple[str, ...]) -> str | None:
    """What is wrong with a refusal: it hides a lack of memory, or its message names no place or no expectation."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    message = str(error)
    if any(isinstance(one, MemoryError) for one in chain) or "MemoryError" in message:
        return "refused only after asking for more memory than is allowed"
    if not any(place in message for place in places):
        return "a message that names no file, key, argument or relation"
    if not EXPECTS.search(message):
        return "a message that does not say what was expected"
    if len(message) > MESSAGE_LIMIT:
        return f"a message of {len(message)} characters"
    try:
        message.encode()
    except UnicodeEncodeError:
        return "a message that cannot be printed"
    return None


def normalised(message: str) -> str:
    """A message without what was found and what differs from input to input, so that equal errors count once."""
    message = re.split(r",? found |,? got ", message)[0]
    message = re.sub(r"(?<!\w)'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "…", message)
    message = re.sub(r"\[[^][]*\]|\([^()]*\)", "[…]", message)
    return re.sub(r"-?\d[\d.e+]*", "#", message.splitlines()[0] if message else "")[:160]


@cache
def _first_graph() -> None:
    """Builds a graph: the first one starts JAX, whose seconds and gigabytes no input should be charged with."""
    check_graph(HeteroGraph.from_arrays(**graph()))


@contextmanager
def _timer(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory_limit(mebibytes: int) -> Iterator[None]:
    """Address space as large as now and a little larger; none where the system does not say how large it is."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (mebibytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def _silent_errors(found: list[Any]) -> Iterator[None]:
    """Collects errors that Python only prints: those of destructors, such as a warning of a file left open."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda error: found.append(error.exc_value)
    try:
        yield
        gc.collect(0)
    finally:
        sys.unraisablehook = before
