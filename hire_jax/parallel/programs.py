"""The compiled programs of a run: one for each size of batches, made when the first of that size comes."""

import time
from typing import Any


class Programs:
    """Calls `function(*arguments)`, compiled once for each `size` of its arguments.

    Args:
      function: a `jax.jit`, or a `jax.pmap`.
      ahead: compile before the first call, and time that alone. A `pmap` over several processes cannot be compiled
        ahead; its first calls are timed as compiling.

    Attributes:
      seconds: of compiling.
    """

    def __init__(self, function: Any, *, ahead: bool) -> None:
        self.seconds = 0.0
        self._function, self._ahead = function, ahead
        self._programs: dict[int, Any] = {}

    @property
    def compiled(self) -> int:
        """How many programs there are."""
        return len(self._programs)

    def __call__(self, size: int, *arguments: Any) -> Any:
        """What the function gives."""
        if size in self._programs:
            return self._programs[size](*arguments)
        start = time.perf_counter()
        self._programs[size] = self._function.lower(*arguments).compile() if self._ahead else self._function
        if self._ahead:
            self.seconds += time.perf_counter() - start
            return self._programs[size](*arguments)
        result = self._function(*arguments)
        self.seconds += time.perf_counter() - start
        return result
