"""How much memory a process takes: all of it, and what of it is no page of a mapped file. Linux has both numbers."""

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

EVERY = 0.02  # seconds between two looks


def largest_resident_set() -> int | None:
    """Bytes of this process's largest resident set so far; None where the system does not say."""
    return _status("VmHWM")


class Watch:
    """The largest memory while the block runs.

    `resident` counts all pages in memory, those of mapped files too, which the system takes back when others need
    them; `anonymous` leaves these out. Looks at both every 20 ms: what is shorter may be missed.
    """

    def __init__(self) -> None:
        self._largest: dict[str, int | None] = {"resident": None, "anonymous": None}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="memory", daemon=True)

    def found(self) -> dict[str, int | None]:
        """{"resident", "anonymous"}: bytes, or None where the system does not say."""
        return dict(self._largest)

    def __enter__(self) -> "Watch":
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _look_on(self) -> None:
        while not self._ended.wait(EVERY):
            self._look()

    def _look(self) -> None:
        for name, field in (("resident", "VmRSS"), ("anonymous", "RssAnon")):
            values: Any = [value for value in (self._largest[name], _status(field)) if value is not None]
            self._largest[name] = max(values, default=None)


def _status(field: str) -> int | None:
    """A line of the kernel's account of this process, in bytes."""
    if not sys.platform.startswith("linux"):
        return None
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
