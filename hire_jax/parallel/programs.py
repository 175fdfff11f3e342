"""The compiled programs of a run: one for each size of batches, made when the first of that size comes."""

import time
from collections.abc import Callable
from typing import Any


class Programs:
    """Calls `function(*arguments)`, compiled once for each `size` of its arguments.

    Attributes:
      seconds: of compiling.
    """

    def __init__(self, function: Any, advice: Callable[[], str]) -> None:
        self.seconds = 0.0
        self._function, self._advice = function, advice
        self._programs: dict[int, Any] = {}

    @property
    def compiled(self) -> int:
        """How many programs there are."""
        return len(self._programs)

    def __call__(self, size: int, *arguments: Any) -> Any:
        """Raises MemoryError with advice where the devices have no room."""
        if size not in self._programs:
            start = time.perf_counter()
            self._programs[size] = self.guarded(lambda: self._function.lower(*arguments).compile())
            self.seconds += time.perf_counter() - start
        return self.guarded(lambda: self._programs[size](*arguments))

    def guarded(self, call: Callable[[], Any]) -> Any:
        """What `call` gives; MemoryError with advice where it finds no room on a device."""
        try:
            return call()
        except RuntimeError as error:  # jax.errors.JaxRuntimeError is one
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(f"{self._advice()} ({str(error).splitlines()[0]})") from error
