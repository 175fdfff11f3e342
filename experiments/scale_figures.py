"""The figure of experiments.scale, as a PNG file. matplotlib is optional, as for `hire_jax.figures`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.store import Cell
from hire_jax.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072B2", "#E69F00")  # Okabe and Ito's


def scale_figure(networks: Mapping[str, Cell], points: Sequence[tuple[float, int, Cell]],
                 path: str | os.PathLike[str], *, share: float, batch_size: int,
                 sizes: Mapping[float, Cell]) -> Path:
    """Writes a PNG of four panels: test accuracy, speed with the share of the time that the device waited for batches,
    and memory against batch size and against graph size.

    Args:
      networks: {name: cell}, in the order of drawing.
      points: (share of the graph, seeds a batch, cell) of memory.
      path: where to; folders are made.
      share, batch_size: those of the networks, which the curves go through.
      sizes: {share: cell of that graph}.

    Raises:
      ImportError: matplotlib is not installed.
    """
    edges = sizes[share].metrics["edges"][0]
    with new_figure(path, (8.4, 6.6)) as figure:
        axes = figure.subplots(2, 2)
        for each in axes.flat:
            each.grid(color="0.92", zorder=0)
        _bars(axes[0, 0], {"": [100 * cell.metrics["test_accuracy"][0] for cell in networks.values()]}, "{:.1f}",
              list(networks))
        axes[0, 0].set_ylabel("test accuracy, whole graph (%)")
        rates = {what: [(cell.facts[f"{what}_a_second"] or 0.0) / 1e6 for cell in networks.values()]
                 for what in ("nodes", "edges")}
        _bars(axes[0, 1], rates, "{:.2f}", [f"{name}\nwaits {_percent(cell.facts['waited_share'])}"
                                            for name, cell in networks.items()])
        axes[0, 1].set_ylabel("million a second, of sampled batches")
        axes[0, 1].legend(frameon=False)
        _memory(axes[1, 0], [(size, cell) for of, size, cell in points if of == share])
        axes[1, 0].set_xlabel(f"seeds of a batch, on {edges:,.0f} edges")
        _memory(axes[1, 1], [(sizes[of].metrics["edges"][0] / 1e6, cell) for of, size, cell in points
                             if size == batch_size])
        axes[1, 1].set_xlabel(f"million edges of the graph, {batch_size:,} seeds a batch")
        axes[1, 0].legend(frameon=False)
        figure.suptitle(f"RGCN by sampling on {sizes[share].metrics['nodes'][0]:,} nodes, {edges:,} edges and their "
                        "reverses")
    return Path(path)


def _bars(axes: Axes, heights: Mapping[str, Sequence[float]], form: str, names: Sequence[str]) -> None:
    """Groups of bars with their numbers: a group a name, a colour a key of `heights`."""
    width = 0.7 / len(heights)
    for index, (label, values) in enumerate(heights.items()):
        for place, height in enumerate(values):
            x = place + (index - (len(heights) - 1) / 2) * width
            axes.bar(x, height, width, color=COLORS[index], zorder=2, label=label if place == 0 else None)
            axes.annotate(form.format(height), (x, height), (0, 3), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(0, 1.12 * max(max(values) for values in heights.values()) or 1.0)


def _memory(axes: Axes, points: Sequence[tuple[float, Cell]]) -> None:
    """GiB against a size: all pages, and those that are not of mapped files."""
    points = sorted(points, key=lambda point: point[0])
    for (name, label), color in zip((("resident", "all"), ("anonymous", "without mapped files")), COLORS,
                                    strict=True):
        drawn = [(x, cell.metrics[name][0] / 2**30) for x, cell in points if name in cell.metrics]
        axes.plot([x for x, _ in drawn], [y for _, y in drawn], "o-", color=color, markersize=5, label=label, zorder=3)
    highest = max((cell.metrics["resident"][0] / 2**30 for _, cell in points if "resident" in cell.metrics),
                  default=1.0)
    axes.set(ylabel="memory of the process (GiB)", ylim=(0, 1.15 * highest))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
