"""One save in a thread of its own, with an end in sight."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from hire_jax.checkpoint.errors import CheckpointError


class Saving:
    """`write` at work in a thread.

    Args:
      path: what is being written, for messages.
      write: takes and returns nothing.
      timeout: seconds that it may take.
    """

    def __init__(self, path: Path, write: Callable[[], None], timeout: float) -> None:
        self._path, self._write, self._timeout = path, write, timeout
        self._error: Exception | None = None
        self._deadline = time.monotonic() + timeout
        # A daemon, because a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"checkpoint {path.name}", daemon=True)
        self._thread.start()

    def join(self) -> bool:
        """Waits for the end; False where it does not come in time."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raises CheckpointError with what went wrong in the thread, which must have ended."""
        if self._error is not None:
            raise CheckpointError(f"{self._path}: expected a checkpoint to be written, found "
                                  f"{type(self._error).__name__}: {self._error}; those before it are as they were"
                                  ) from self._error

    def _run(self) -> None:
        try:
            self._write()
        except Exception as error:
            self._error = error
