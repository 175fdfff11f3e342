"""Figures of the GKEDM experiments: bars of methods, or lines against alpha (C4) and depth (C6)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import hire_jax as hj
from hire_jax.report import Record

AXES = {"C4": "weight of the attention maps", "C6": "layers"}
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")  # Okabe and Ito


def draw(name: str, records: Mapping[str, Sequence[Record]], folder: Path) -> list[Path]:
    """Writes NAME.png, a panel a graph, or NAME-GRAPH.png for each where they are bars; returns their paths.

    Raises ImportError where matplotlib is not installed.
    """
    if name in AXES:
        return [_lines(name, records, folder / f"{name}.png")]
    return [hj.figures.bar_figure(rows, folder / f"{name}-{re.sub(r'[^A-Za-z0-9]+', '-', dataset)}.png", title=dataset)
            for dataset, rows in records.items()]


def _lines(name: str, records: Mapping[str, Sequence[Record]], path: Path) -> Path:
    """Mean and sd of test accuracy; a backbone has a colour, with the module solid and without it dashed."""
    models = list(dict.fromkeys(record.model for rows in records.values() for record in rows))
    with hj.figures.new_figure(path, (3.4 * len(records) + 0.6, 3.4)) as figure:
        for panel, (dataset, rows) in zip(figure.subplots(1, len(records), squeeze=False)[0], records.items(),
                                          strict=True):
            values: dict[str, dict[tuple[str, bool], np.ndarray]] = {record.model: {} for record in rows}
            for record in rows:
                if found := re.search(r"[\d.]+", record.method):
                    lifted = name == "C4" or record.method.endswith(" + GKEDM")
                    values[record.model][found.group(), lifted] = 100 * np.asarray(record.metrics["test_accuracy"])
            ticks = list(dict.fromkeys(x for of_model in values.values() for x, _ in of_model))
            for i, (model, color) in enumerate(zip(models, COLORS, strict=False)):
                for lifted, dashes in ((True, "-"), (False, "--")):
                    points = {x: v for (x, with_module), v in values.get(model, {}).items() if with_module == lifted}
                    if points:
                        panel.errorbar([ticks.index(x) + 0.08 * (i - (len(models) - 1) / 2) for x in points],
                                       [v.mean() for v in points.values()],
                                       [v.std(ddof=1) if v.size > 1 else 0.0 for v in points.values()], fmt=dashes,
                                       marker="o", markersize=3, capsize=3, color=color,
                                       label=model + (" + GKEDM" if lifted else ""))
            panel.set_xticks(range(len(ticks)), ticks)
            panel.set(title=dataset, xlabel=AXES[name])
            panel.grid(color="0.92")
        first = figure.axes[0]
        first.set_ylabel("test accuracy (%), mean ± sd over seeds")
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    return path
