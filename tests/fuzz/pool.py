"""Runs inputs in processes of their own, so that one that ends its process is known and the others go on."""

import importlib
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.fuzz.outcome import Case, Limits, Outcome, judge

CHUNK = 25  # inputs a process gets at a time
CASES = "tests.fuzz.cases:CASES"
Task = tuple[str, tuple[int, ...]]  # case, numbers of inputs


def cases_of(place: str) -> dict[str, Case]:
    """The cases that stand in a module: "package.module:NAME"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def run(tasks: Sequence[Task], *, seed: int, limits: Limits, jobs: int, place: str = CASES
        ) -> Generator[tuple[str, Outcome], None, None]:
    """Judges every input of the tasks; (case, outcome) of each, as they come.

    Args:
        tasks: what to run.
        seed: of the inputs.
        limits: of one input; a process that passes the time fourfold, in C code perhaps, is ended.
        jobs: number of processes.
        place: where the cases stand.
    """
    left = [(case, numbers[at : at + CHUNK]) for case, numbers in reversed(tasks)
            for at in reversed(range(0, len(numbers), CHUNK))]
    workers = [_Worker(place, seed, limits) for _ in range(min(jobs, len(left)))]
    try:
        while left or any(worker.numbers for worker in workers):
            for worker in workers:
                if not worker.numbers and left:
                    worker.give(left.pop())
            busy = [worker for worker in workers if worker.numbers]
            ready = wait([worker.connection for worker in busy], timeout=10)
            for worker in busy:
                if worker.connection in ready:
                    yield from worker.heard()
                elif worker.overdue(10 if not ready else 0):
                    yield from worker.ended(f"took longer than {worker.waited:.0f} s and could not be interrupted")
    finally:
        for worker in workers:
            worker.end()


@dataclass
class _Worker:
    """A process and the numbers of the inputs that it has yet to judge."""

    place: str
    seed: int
    limits: Limits
    case: str = ""
    numbers: tuple[int, ...] = ()
    waited: float = 0.0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.place, self.seed, self.limits), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.case, self.numbers = task
        self.connection.send(task)

    def heard(self) -> Iterator[tuple[str, Outcome]]:
        self.waited = 0.0
        try:
            outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(10)
            yield from self.ended(f"ended its process with the status {self.process.exitcode}")
            return
        self.numbers = self.numbers[1:]
        yield self.case, outcome

    def overdue(self, seconds: float) -> bool:
        self.waited += seconds
        return self.waited > 4 * self.limits.seconds + 60  # the first input waits for imports

    def ended(self, what: str) -> Iterator[tuple[str, Outcome]]:
        """The input at hand is a finding; another process goes on behind it."""
        yield self.case, Outcome(self.numbers[0], "finding", what, self.waited)
        self.end()
        task, self.waited = (self.case, self.numbers[1:]), 0.0
        self.start()
        if task[1]:
            self.give(task)
        else:
            self.numbers = ()

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _work(connection: "Connection[Any, Any]", place: str, seed: int, limits: Limits) -> None:
    """Judges what comes until nothing does; the parent alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cases = cases_of(place)
    while True:
        try:
            case, numbers = connection.recv()
        except (EOFError, OSError):
            return
        for number in numbers:
            connection.send(judge(cases[case], seed, number, limits))
