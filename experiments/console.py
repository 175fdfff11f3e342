"""Progress and messages of the command lines: live and coloured on a terminal, plain and rare elsewhere.

rich decides what a terminal is and honours NO_COLOR; nothing here writes a control code into a pipe or a log.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Tracker", "track", "warn"]


def warn(message: str, *, console: Console | None = None) -> None:
    """One warning line, on standard error so that a table on standard output stays clean."""
    line = f"[bold yellow]warning:[/] {escape(message)}"
    (console or Console(stderr=True)).print(line, soft_wrap=True, highlight=False)


class Tracker(Protocol):
    """What a running job tells about itself: steps done out of the total, and what it is doing now."""

    def update(self, done: float, doing: str = "") -> None:
        """`done` steps of the total are finished (not: further steps); `doing` replaces the description."""

    def log(self, message: str) -> None:
        """Print one line that stays, above the bar."""


@contextmanager
def track(
    total: float, doing: str = "", *, console: Console | None = None, every: float = 30.0
) -> Iterator[Tracker]:
    """Show progress over `total` steps: description, bar, percentage, time passed, time left.

    On a terminal this is one live line. Elsewhere the same facts come as plain lines: at the first update,
    then at most one in `every` seconds, and when all steps are done. `console`: by default standard output.
    """
    console = console or Console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(total, doing, console, every)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    # The first epochs contain compilation: an estimate over ten minutes settles where the default 30 s jumps.
    with Progress(*columns, console=console, speed_estimate_period=600) as progress:
        yield _Bar(progress, total, doing)


class _Bar:
    def __init__(self, progress: Progress, total: float, doing: str) -> None:
        self._progress, self._total = progress, total
        self._task = progress.add_task(escape(doing), total=total)

    def update(self, done: float, doing: str = "") -> None:
        self._progress.update(self._task, completed=min(done, self._total), description=escape(doing) or None)

    def log(self, message: str) -> None:
        self._progress.console.print(escape(message))


class _Lines:
    def __init__(self, total: float, doing: str, console: Console, every: float) -> None:
        self._total, self._doing, self._console, self._every = total, doing, console, every
        self._start = time.monotonic()
        self._printed: float | None = None
        self._ended = False

    def update(self, done: float, doing: str = "") -> None:
        self._doing = doing or self._doing
        passed = time.monotonic() - self._start
        ended = done >= self._total
        due = self._printed is None or passed - self._printed >= self._every
        if not due and (not ended or self._ended):
            return
        self._printed, self._ended = passed, ended
        left = passed * (self._total - done) / done if done > 0 else 0.0
        rest = f", about {left:.0f} s left" if left > 0 else ""
        share = 100 * min(done / self._total, 1.0) if self._total else 100.0
        self._console.print(escape(f"{self._doing}: {share:.0f} %, {passed:.0f} s{rest}"), soft_wrap=True)

    def log(self, message: str) -> None:
        self._console.print(escape(message), soft_wrap=True)
