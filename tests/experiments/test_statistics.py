"""Statistics over a table against known examples and exact counts."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import _critical_rank_sum, detectable, holm, ranking, wins


def test_holm_by_a_known_example():
    """Four p values, smallest first times 4, 3, 2, 1, none below the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.04, 0.01]), [0.04, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []
    np.testing.assert_allclose(holm([0.02, 0.02, 0.5]), [0.06, 0.06, 0.5])


def test_wins_ties_and_losses():
    means = {"student": [0.5, 0.6, 0.7], "a": [0.6, 0.6 + 1e-8, 0.6], "b": [0.6, 0.7, 0.8]}
    assert wins(means, "student") == {"a": (1, 1, 1), "b": (3, 0, 0)}


def test_ranks_by_hand():
    """Four blocks, as one would rank them on paper; ties share their mean."""
    found = ranking({"a": [0.9, 0.8, 0.7, 0.9], "b": [0.8, 0.7, 0.6, 0.9], "c": [0.7, 0.75, 0.5, 0.8]})
    assert found.ranks == {"a": 1.125, "b": 2.125, "c": 2.75} and found.blocks == 4
    expected = stats.friedmanchisquare([0.9, 0.8, 0.7, 0.9], [0.8, 0.7, 0.6, 0.9], [0.7, 0.75, 0.5, 0.8]).pvalue
    assert found.p_value == pytest.approx(expected)


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_the_published_one(k, q):
    """q of Table 5 in Demsar (JMLR 7, 2006)."""
    scores = {str(m): np.random.default_rng(m).random(14) for m in range(k)}
    assert ranking(scores).critical_difference == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=1e-3)


def test_equal_methods_are_not_told_apart():
    assert ranking({"a": [0.5, 0.6], "b": [0.5, 0.6]}).p_value == 1.0
    same = ranking({name: [0.5, 0.6, 0.7] for name in "abc"})
    assert same.p_value == 1.0 and set(same.ranks.values()) == {2.0}


@pytest.mark.parametrize("scores", [{"a": [0.5, 0.6]}, {"a": [0.5], "b": [0.6]}, {"a": [0.5, 0.6], "b": [0.5]}])
def test_what_cannot_be_ranked_is_said(scores):
    with pytest.raises(ValueError, match="scores: expected two methods or more with the same two blocks or more, got"):
        ranking(scores)


@pytest.mark.parametrize("n", [6, 7, 8, 10])
def test_the_critical_rank_sum_is_counted(n):
    sums = [sum(rank for rank, sign in zip(range(1, n + 1), signs, strict=True) if sign)
            for signs in itertools.product((0, 1), repeat=n)]
    critical = _critical_rank_sum(n, 0.05)
    p = [2 * np.mean([total <= bound for total in sums]) for bound in (critical, critical + 1)]
    assert p[0] < 0.05 <= p[1]


def test_what_ten_seeds_can_find():
    effect = detectable(10)
    assert detectable(20) < effect < detectable(7) and detectable(5) == math.inf
    rng = np.random.default_rng(1)  # the test itself, on other draws
    share = np.mean([stats.wilcoxon(rng.standard_normal(10) + effect).pvalue < 0.05 for _ in range(1000)])
    assert abs(share - 0.8) < 0.05
    assert detectable(10, power=0.5) < effect < detectable(10, alpha=0.01)
    with pytest.raises(ValueError, match="expected n >= 1 and power and alpha in"):
        detectable(10, power=1.0)
