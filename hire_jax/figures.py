"""Figures of seed-level records: bars of means with every seed, and training curves, as PNG files.

The same records always give the same bytes. matplotlib is optional: `pip install "hire-jax[experiments]"`.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hire_jax.files import write_whole
from hire_jax.report import Record, finite_values, is_fraction, metric_label, sample_sd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bar_figure", "curve_figure", "hire_figure", "new_figure"]

# Okabe and Ito's colours, told apart with every common colour blindness; grey first, for the teacher.
_PALETTE = ("#8C8C8C", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_DASHES, _HATCHES = ("-", "--", "-.", ":"), ("", "///", "...", "xxx")  # for more methods than colours


def bar_figure(
    records: Sequence[Record], path: str | os.PathLike[str], *, metric: str = "test_accuracy", title: str = ""
) -> Path:
    """Write a PNG of bars: mean of `metric` with one standard deviation, every seed a dot, grouped by model.

    Bars stand in the order of the records; a method has one colour in all groups. An axis that leaves out the
    empty part below the values says so. Returns the path. Raises ValueError for no records or a missing
    metric, ImportError where matplotlib is not installed.
    """
    return _figure(records, Path(path), metric, (), title)


def curve_figure(
    records: Sequence[Record],
    path: str | os.PathLike[str],
    *,
    curves: Sequence[str] = ("val_accuracy", "train_loss"),
    title: str = "",
) -> Path:
    """Write a PNG of training curves: a row for every name in `curves`, a column for every model.

    Lines are means and bands the range over the seeds still training; a line turns thin where the first seed
    has stopped. Names with "accuracy" or "f1" are fractions, drawn in %. Training losses of different
    methods hold different terms: their shapes may be compared, not their heights. A record without the curve
    is left out. Returns the path. Raises ValueError where no record has it, ImportError without matplotlib.
    """
    return _figure(records, Path(path), None, curves, title)


def hire_figure(
    records: Sequence[Record],
    path: str | os.PathLike[str],
    *,
    metric: str = "test_accuracy",
    curves: Sequence[str] = ("val_accuracy", "train_loss"),
    title: str = "",
) -> Path:
    """Write one PNG with `bar_figure` above `curve_figure` and one legend for both; raises as they do."""
    return _figure(records, Path(path), metric, curves, title)


class _Style(NamedTuple):
    """How one method is drawn, in every panel."""

    color: str
    dashes: str
    hatch: str

    @property
    def bar(self) -> dict[str, Any]:
        return {"facecolor": self.color, "edgecolor": "white", "hatch": self.hatch}


def _style(i: int) -> _Style:
    return _Style(_PALETTE[i % 8], _DASHES[i // 8 % 4], _HATCHES[i // 8 % 4])


def _legend_width(names: Sequence[str], across: int) -> float:
    """Inches a legend of so many columns takes at 9 pt, measured: a key and its gaps, and every letter."""
    return sum(0.65 + 0.072 * max(map(len, names[column::across])) for column in range(across))


def _figure(
    records: Sequence[Record], path: Path, metric: str | None, curves: Sequence[str], title: str
) -> Path:
    """Bars over curves, with one legend."""
    bare = [f"{r.model} {r.method}" for r in records if metric is not None and metric not in r.metrics]
    absent = [name for name in curves if not any(name in record.history for record in records)]
    if not records or bare or absent:
        found = f"{len(records)} records; without {metric}: {bare}; curves in none: {absent}"
        raise ValueError(f"records: expected at least one, and what is drawn in them, got {found}")
    models = list(dict.fromkeys(record.model for record in records))
    methods = list(dict.fromkeys(record.method for record in records))
    style = {name: _style(i) for i, name in enumerate(methods)}
    heights = [3.4] * (metric is not None) + [2.3] * len(curves)
    width = max(7.2, 2.9 * len(models) * bool(curves), 0.6 * len(records) * (metric is not None) + 1.5)
    with new_figure(path, (width, sum(heights) + 1.0)) as figure:
        from matplotlib.patches import Patch

        grid = figure.add_gridspec(len(heights), len(models), height_ratios=heights)
        if metric is not None:
            _bars(figure.add_subplot(grid[0, :]), records, models, style, metric)
        for row, name in enumerate(curves, len(heights) - len(curves)):
            first = None
            for column, model in enumerate(models):
                axes = figure.add_subplot(grid[row, column], sharey=first)
                first = first or axes
                _curves(axes, [r for r in records if r.model == model and name in r.history], style, name)
                axes.set_title(model if name == curves[0] else "", fontsize=9)
                axes.set_ylabel((metric_label(name) + " (%)" * is_fraction(name)) if axes is first else "")
                axes.set_xlabel("epoch" if name == curves[-1] else "")
        across = next(n for n in range(len(methods), 0, -1) if n == 1 or _legend_width(methods, n) < width)
        names = [name for column in range(across) for name in methods[column::across]]  # filled by column
        keys = [Patch(**style[name].bar, label=name) for name in names]
        parts = ["bars: mean ± sd over seeds, dots: seeds"] * (metric is not None)
        parts += ["lines: mean over seeds, bands: lowest to highest seed"] * bool(curves)
        note = {"title": "; ".join(parts), "title_fontsize": 8, "frameon": False}
        figure.legend(handles=keys, loc="outside lower center", ncols=across, **note)
        figure.suptitle(title)
    return path


@contextmanager
def new_figure(path: str | os.PathLike[str], size: tuple[float, float], *, dpi: int = 150,
               font_size: int = 9) -> Iterator[Figure]:
    """An empty figure that is written to `path` as a PNG when the block ends; an error in the block writes nothing.

    The same drawing always gives the same bytes: own defaults, whatever the user's, no date and no version in the file.

    Args:
      size: width and height in inches; dpi: dots an inch; font_size: in points.

    Raises ImportError where matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "hire-jax[experiments]"') from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": font_size, "axes.spines.top": False, "axes.spines.right": False})
        figure = Figure(size, dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    write_whole(Path(path), picture.getvalue())


def _bars(
    axes: Axes,
    records: Sequence[Record],
    models: Sequence[str],
    style: Mapping[str, _Style],
    metric: str,
) -> None:
    """Bars with their mean written above the highest thing drawn for them."""
    place, centres, everything = 0.0, [], []
    for model in models:
        group = [record for record in records if record.model == model]
        for x, record in enumerate(group):
            values = 100 * finite_values(metric, record.metrics[metric])
            mean, sd = float(values.mean()), 0.0 if values.size == 1 else sample_sd(values)
            axes.bar(place + x, mean, 0.86, **style[record.method].bar, zorder=2)
            if values.size > 1:
                axes.errorbar(place + x, mean, sd, color="black", capsize=4, linewidth=1.2, zorder=3)
            spread = place + x + 0.3 * np.linspace(-1, 1, values.size) * (values.size > 1)
            axes.scatter(spread, values, 12, facecolor="white", edgecolor="black", linewidth=0.7, zorder=4)
            top = max(mean + sd, values.max())
            axes.annotate(f"{mean:.1f}", (place + x, top), (0, 4), textcoords="offset points", ha="center")
            everything += [mean - sd, mean + sd, *values]
        centres.append(place + (len(group) - 1) / 2)
        place += len(group) + 0.8
    low, high = min(everything), max(everything)
    span = max(high - low, 2.0)
    start = max(math.floor(low - 0.15 * span), 0) if low > 0.3 * high else 0
    top = high + 0.18 * span
    axes.set(xlim=(-0.8, place - 1), ylim=(start, top))
    axes.set_yticks([tick for tick in axes.get_yticks() if start + 1e-6 < tick <= min(100, top)])
    axes.set_xticks(centres, models)
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.set_ylabel(f"{metric_label(metric)} (%)" + (f"\naxis starts at {start} %" if start else ""))
    if start:  # the usual double stroke on an axis that has been cut
        axes.plot(
            [0, 0], [0.02, 0.04], marker=[(-1, -0.5), (1, 0.5)], markersize=9,
            linestyle="none", color="black", transform=axes.transAxes, clip_on=False,
        )  # fmt: skip


def _curves(axes: Axes, records: Sequence[Record], style: Mapping[str, _Style], name: str) -> None:
    """Mean and range over seeds against the epoch, starting at 1."""
    for record in records:
        values = np.asarray(record.history[name], np.float64) * (100 if is_fraction(name) else 1)
        values = values[:, np.isfinite(values).any(axis=0)]
        running = np.isfinite(values)
        epochs, look = np.arange(1, values.shape[1] + 1), style[record.method]
        mean = np.where(running, values, 0).sum(axis=0) / running.sum(axis=0)
        lowest = np.where(running, values, np.inf).min(axis=0, initial=np.inf)
        highest = np.where(running, values, -np.inf).max(axis=0, initial=-np.inf)
        whole = int(running.all(axis=0).sum())
        axes.fill_between(epochs, lowest, highest, color=look.color, alpha=0.15, linewidth=0)
        for part, linewidth in ((slice(whole), 1.5), (slice(max(whole - 1, 0), None), 0.6)):
            axes.plot(epochs[part], mean[part], look.dashes, color=look.color, linewidth=linewidth)
    axes.grid(color="0.92")
