"""Statistics over a whole table: corrected p values, wins, ranks with a critical difference, the power of a test.

Single rows have theirs in `hire_jax.report`. Tests are scipy's.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ROUNDING = 3e-7  # metrics are float32 fractions: what lies closer than this differs by rounding alone


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several p values, in their order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


def wins(means: Mapping[str, Sequence[float]], baseline: str) -> dict[str, tuple[int, int, int]]:
    """{method: (wins, ties, losses)} of its means against the baseline's, over the same blocks."""
    reference = np.asarray(means[baseline])
    counts = {}
    for method, values in means.items():
        if method != baseline:
            d = np.asarray(values) - reference
            counts[method] = (int(np.sum(d > ROUNDING)), int(np.sum(np.abs(d) <= ROUNDING)),
                              int(np.sum(d < -ROUNDING)))
    return counts


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Average ranks of k methods over n blocks (1 is best), and Nemenyi's critical difference at 5 %.

    p_value: Friedman's, that all methods are the same; of two methods Wilcoxon's.
    """

    ranks: dict[str, float]
    blocks: int
    p_value: float
    critical_difference: float


def ranking(scores: Mapping[str, Sequence[float]]) -> Ranking:
    """Ranks of methods by their scores on the same blocks, higher being better; ties share their mean rank.

    A difference of average ranks beyond q sqrt(k (k + 1) / (6 n)), q of the studentised range over sqrt 2, is
    significant by Nemenyi's test (Demsar, JMLR 7, 2006). Raises ValueError for fewer than two methods or blocks, or
    blocks that differ in number.
    """
    table = _blocks(scores)
    n, k = table.shape
    ranks = stats.rankdata(-np.round(table / ROUNDING), axis=1)
    q = float(stats.studentized_range.ppf(0.95, k, np.inf)) / math.sqrt(2)
    spread = np.ptp(ranks, axis=1).max() > 0
    if k == 2:
        p = float(stats.wilcoxon(table[:, 0] - table[:, 1]).pvalue) if spread else 1.0
    else:
        p = float(stats.friedmanchisquare(*(-ranks.T)).pvalue) if spread else 1.0
    return Ranking(dict(zip(scores, (float(r) for r in ranks.mean(axis=0)), strict=True)), n, p,
                   q * math.sqrt(k * (k + 1) / (6 * n)))


def detectable(n: int, *, power: float = 0.8, alpha: float = 0.05, draws: int = 4000, seed: int = 0) -> float:
    """The mean difference, in its own standard deviations, that Wilcoxon's test of n pairs finds with a given power.

    By simulation of normal differences, to 0.01; inf where n pairs can never reach p < alpha (fewer than six for 5 %).
    """
    if n < 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"expected n >= 1 and power and alpha in (0, 1), got {n}, {power} and {alpha}")
    if 2 / 2**n >= alpha:
        return math.inf
    noise = np.random.default_rng(seed).standard_normal((draws, n))
    critical = _critical_rank_sum(n, alpha)

    def found(effect: float) -> float:
        signed = noise + effect
        ranks = stats.rankdata(np.abs(signed), axis=1)
        positive = np.sum(ranks * (signed > 0), axis=1)
        smaller = np.minimum(positive, n * (n + 1) / 2 - positive)
        return float(np.mean(smaller <= critical))

    low, high = 0.0, 10.0
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return round(high, 2)


def _critical_rank_sum(n: int, alpha: float) -> int:
    """The largest smaller rank sum with an exact two-sided p below alpha."""
    counts = np.zeros(n * (n + 1) // 2 + 1)  # of subsets of the ranks 1 .. n, by their sum
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[:-rank]
    p = 2 * np.cumsum(counts) / 2**n
    return int(np.sum(p < alpha)) - 1


def _blocks(scores: Mapping[str, Sequence[float]] | Mapping[str, ArrayLike]) -> np.ndarray:
    columns = [np.asarray(values, np.float64) for values in scores.values()]
    if len(columns) < 2 or len({column.shape for column in columns}) > 1 or columns[0].size < 2:
        found = {name: np.shape(values) for name, values in scores.items()}
        raise ValueError(f"scores: expected two methods or more with the same two blocks or more, got {found}")
    return np.stack(columns, axis=1)
