"""The two plots of experiments.bench_growth, as PNG files. matplotlib is optional, as for `hire_jax.figures`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hire_jax.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072B2", "#D55E00", "#009E73", "#8C8C8C")  # Okabe and Ito's; grey for what is fitted or read beside


def edges_figure(layouts: Mapping[str, Sequence[Mapping[str, Any]]], slopes: Mapping[str, Mapping[str, Any] | None],
                 path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Writes a PNG of time against edges: medians with quartiles, every turn a dot, and the fitted lines there are.

    Args:
      layouts: {layout: rows}, a row {"edges": count, "seconds": [one a turn]}, by increasing edges.
      slopes: {layout: {"slope": a, "factor": b, "from_edges": count} of seconds = b * edges^a, or None}.
      path: where to; folders are made.
      title: of the figure.

    Raises:
      ImportError: matplotlib is not installed.
    """
    with _figure(Path(path), 1, title) as (axes,):
        for index, (layout, rows) in enumerate(layouts.items()):
            edges, slope = [row["edges"] for row in rows], slopes[layout]
            grows = "" if slope is None else f": edges^{slope['slope']:.2f} from {slope['from_edges']:,} on"
            _timings(axes, edges, rows, index, layout + grows)
            if slope is not None:
                ends = np.array([slope["from_edges"], edges[-1]], float)
                axes.plot(ends, 1e3 * slope["factor"] * ends ** slope["slope"], "--", color=COLORS[index], zorder=4)
        axes.set(xscale="log", yscale="log", xlabel="edges", ylabel="training step plus validation (ms)")
        axes.legend(frameon=False, loc="upper left", title="edges between", title_fontsize=8, fontsize=8)
    return Path(path)


def relations_figure(layouts: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str], *,
                     title: str = "") -> Path:
    """Writes a PNG of two panels against the number of relations: time of a step, and seconds of compilation.

    Args:
      layouts: {layout: rows}, a row {"relations": count, "seconds": [one a turn], "compile_seconds": number}.
      path: where to; folders are made.
      title: of the figure.

    Raises:
      ImportError: matplotlib is not installed.
    """
    with _figure(Path(path), 2, title) as (left, right):
        for index, (layout, rows) in enumerate(layouts.items()):
            relations = [row["relations"] for row in rows]
            _timings(left, relations, rows, index, layout)
            right.plot(relations, [row["compile_seconds"] for row in rows], "os^"[index % 3] + "-",
                       color=COLORS[index], linewidth=1.2, markersize=5, label=layout)
        ticks = sorted({row["relations"] for rows in layouts.values() for row in rows})
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.set_xlabel("relations")
            axes.set_ylim(bottom=0)
        left.set_ylabel("training step plus validation (ms)")
        right.set_ylabel("compilation (s)")
        left.legend(frameon=False, loc="upper left", title="relations between", title_fontsize=8)
    return Path(path)


def _timings(axes: Axes, x: Sequence[float], rows: Sequence[Mapping[str, Any]], index: int, label: str) -> None:
    """Medians with quartiles joined by a line, the single turns as small dots."""
    milliseconds = [1e3 * np.asarray(row["seconds"]) for row in rows]
    low, median, high = (np.array([np.quantile(values, q) for values in milliseconds]) for q in (0.25, 0.5, 0.75))
    axes.errorbar(x, median, [median - low, high - median], fmt="os^"[index % 3] + "-", color=COLORS[index],
                  linewidth=1.2, markersize=5, capsize=3, zorder=3, label=label)
    for place, values in zip(x, milliseconds, strict=True):
        axes.scatter([place] * len(values), values, 6, color=COLORS[3], linewidth=0, zorder=2)


@contextmanager
def _figure(path: Path, panels: int, title: str) -> Iterator[list[Axes]]:
    """Panels side by side, written to `path` at the end."""
    with new_figure(path, (5.4 if panels == 1 else 8.4, 3.8)) as figure:
        axes = [figure.add_subplot(1, panels, panel + 1) for panel in range(panels)]
        for each in axes:
            each.grid(color="0.92", zorder=0)
        yield axes
        figure.suptitle(title)
