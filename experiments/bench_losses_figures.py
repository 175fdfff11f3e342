"""The figure of experiments.bench_losses: a panel of time and one of memory for every loss. matplotlib is optional."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.bench_growth_figures import COLORS
from hire_jax.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMS = {"ours": ("hire_jax", "o-", 0), "sample": ("hire_jax, sample=", "s-", 2), "torch": ("torch", "^--", 1)}
_ENDED = "no further: memory, time or refusal"
_LOSSES_A_ROW = 3


def losses_figure(results: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Writes a PNG of small panels, all of time on one scale and all of memory on another.

    A cross behind the last point marks where a form ended for lack of memory, time or the loss's permission.

    Args:
      results: {loss: {form: {"rows": [{"rows", "seconds": [one a turn], "memory": bytes}], "stopped": ...}}}.
      path: where to; folders are made.

    Raises:
      ImportError: matplotlib is not installed.
    """
    path, across = Path(path), min(_LOSSES_A_ROW, len(results))
    down = -(-len(results) // across)
    with new_figure(path, (4.6 * across, 1.75 * down + 0.7), dpi=120, font_size=8) as figure:
        grid = figure.subplots(down, 2 * across, squeeze=False, sharex=True)
        times, memories = grid[:, ::2].ravel(), grid[:, 1::2].ravel()
        for panels, unit in ((times, "ms"), (memories, "MiB")):
            for axes in panels[1 : len(results)]:
                axes.sharey(panels[0])
            for axes in panels[len(results) :]:
                axes.set_axis_off()
            for axes, (name, forms) in zip(panels, results.items(), strict=False):
                axes.set(xscale="log", yscale="log")
                axes.grid(color="0.92", zorder=0)
                axes.set_title(f"{name}, {unit}", fontsize=8, loc="left")
                for form, facts in forms.items():
                    _line(axes, form, facts, unit)
        for column in range(2 * across):  # the last row may end before the right edge
            last = max(row for row in range(down) if row * across + column // 2 < len(results))
            grid[last, column].set_xlabel("rows")
            grid[last, column].tick_params(labelbottom=True)
        found: dict[str, Any] = {}
        for axes in grid.ravel():
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
        labels = [label for label in (*(label for label, _, _ in _FORMS.values()), _ENDED) if label in found]
        figure.legend([found[label] for label in labels], labels, loc="outside upper left", ncols=4, frameon=False)
    return path


def _line(axes: Axes, form: str, facts: Mapping[str, Any], unit: str) -> None:
    """Median times, or memory; sizes without a positive number are left out."""
    label, style, color = _FORMS[form]
    points = [(row["rows"], 1e3 * float(np.median(row["seconds"])) if unit == "ms" else (row["memory"] or 0) / 2**20)
              for row in facts["rows"]]  # fmt: skip
    points = [point for point in points if point[1] > 0]
    if not points:
        return
    axes.plot(*zip(*points, strict=True), style, color=COLORS[color], linewidth=1.2, markersize=3.5, label=label,
              zorder=3)  # fmt: skip
    if facts["stopped"] is not None:
        axes.plot(*points[-1], "x", color="black", markersize=7, zorder=4, label=_ENDED)
