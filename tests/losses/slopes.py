"""Slopes of a loss by central differences of its plain loop, for losses of rows by node type."""

from collections.abc import Callable, Mapping

import numpy as np


def assert_slopes(loop: Callable[[Mapping[str, np.ndarray]], float], student: Mapping[str, np.ndarray],
                  gradient: Mapping[str, np.ndarray], rows: tuple[tuple[str, int], ...], *, step: float = 1e-5) -> None:
    """The gradient's second column at some rows, in float64, against the loop a step above and below."""
    for t, row in rows:
        sides = []
        for sign in (1, -1):
            moved = {name: x.copy() for name, x in student.items()}
            moved[t][row, 1] += sign * step
            sides.append(loop(moved))
        np.testing.assert_allclose(gradient[t][row, 1], (sides[0] - sides[1]) / (2 * step), rtol=1e-6, atol=1e-9)
