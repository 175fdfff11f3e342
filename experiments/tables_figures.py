"""Figures of a table: bars a graph, and average ranks on a line with the critical difference."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import hire_jax as hj
from experiments.statistics import Ranking, ranking
from hire_jax.report import Record


def draw(name: str, records: Mapping[str, Sequence[Record]], scores: Mapping[str, Sequence[float]],
         folder: Path) -> list[Path]:
    """Writes NAME-GRAPH.png for every graph and, with two blocks or more, NAME-ranks.png; returns their paths.

    Raises ImportError where matplotlib is not installed.
    """
    paths = [hj.figures.bar_figure(rows, folder / f"{name}-{dataset}.png", metric="test_macro_f1", title=dataset)
             for dataset, rows in records.items()]
    if len(scores) > 1 and len(next(iter(scores.values()))) > 1:
        paths.append(rank_figure(ranking(scores), folder / f"{name}-ranks.png"))
    return paths


def cliques(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Longest runs (first, last) of sorted ranks that lie within a difference, of two or more methods."""
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] <= difference)
        if last > first and not any(last <= other for _, other in runs):
            runs.append((first, last))
    return runs


def rank_figure(found: Ranking, path: Path) -> Path:
    """A critical-difference diagram (Demsar, JMLR 7, 2006): methods joined by a bar are not told apart."""
    names = sorted(found.ranks, key=lambda name: found.ranks[name])
    ranks = [found.ranks[name] for name in names]
    half = (len(names) + 1) // 2
    joined = cliques(ranks, found.critical_difference)
    first_name = -1.2 - 0.18 * max(0, len(joined) - 1)  # below the bars
    with hj.figures.new_figure(path, (6.4, 1.5 + 0.26 * (half - 1.2 - first_name))) as figure:
        axes = figure.subplots()
        margin = 0.38 * len(names)  # for names beside the axis
        axes.set(xlim=(1 - margin, len(names) + margin), ylim=(first_name - half, 1.6), yticks=[])
        axes.spines[["left", "right", "bottom"]].set_visible(False)
        axes.spines["top"].set(visible=True, position=("data", 0))
        axes.spines["top"].set_bounds(1, len(names))
        axes.xaxis.set_ticks_position("top")
        axes.set_xticks(range(1, len(names) + 1))
        axes.plot([1, 1 + found.critical_difference], [1.2, 1.2], color="black", linewidth=1.5, marker="|")
        axes.text(1 + found.critical_difference / 2, 1.25, f"critical difference {found.critical_difference:.2f}",
                  ha="center", va="bottom")
        for i, (first, last) in enumerate(joined):
            axes.plot([ranks[first] - 0.03, ranks[last] + 0.03], [-0.25 - 0.18 * i] * 2, color="#D55E00", linewidth=3,
                      solid_capstyle="round")
        for i, (name, rank) in enumerate(zip(names, ranks, strict=True)):
            left = i < half
            depth = first_name - (i if left else len(names) - 1 - i)
            end = 1 - margin if left else len(names) + margin
            axes.plot([rank, rank, end], [0, depth, depth], color="0.35", linewidth=0.8)
            axes.text(end, depth + 0.06, f"{name} ({rank:.2f})", ha="left" if left else "right", va="bottom")
        axes.set_xlabel(f"average rank over {found.blocks} pairs of a graph and a model, 1 is best")
        axes.xaxis.set_label_position("bottom")
    return path
