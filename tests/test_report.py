"""Statistics against independent loops, renderings against golden text."""

import csv
import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hire_jax.report import (
    Record,
    paired_difference,
    results_table,
    rich_table,
    summarise,
)

FRACTIONS = st.floats(0, 1, allow_nan=False, width=32)


def wilcoxon_by_enumeration(differences):
    """Two-sided exact p: all 2^n signs of the mid-ranks, zeros left out."""
    d = [x for x in differences if x != 0]
    if not d:
        return 1.0
    size = [abs(x) for x in d]
    ranks = [sum(s < x for s in size) + (sum(s == x for s in size) + 1) / 2 for x in size]
    observed = sum(r for r, x in zip(ranks, d, strict=True) if x > 0)
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s)
        for signs in itertools.product((0, 1), repeat=len(d))
    ]
    below, above = sum(s <= observed for s in sums), sum(s >= observed for s in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


# Statistics


@given(st.lists(FRACTIONS, min_size=1, max_size=12))
def test_summary_equals_a_loop(values):
    got = summarise(values)
    mean = math.fsum(values) / len(values)
    ordered, half = sorted(values), len(values) // 2
    median = ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2
    assert got.mean == pytest.approx(mean, abs=1e-12) and got.median == pytest.approx(median, abs=1e-12)
    assert got.minimum == ordered[0] and got.n == len(values)
    if len(values) > 1:
        variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
        assert got.sd == pytest.approx(math.sqrt(variance), abs=1e-9)
    else:
        assert math.isnan(got.sd)
    assert got.collapsed == sum(median - v > 0.05 + 1e-6 for v in values)


def test_collapsed_counts_seeds_more_than_five_points_below_the_median():
    assert summarise([0.92, 0.91, 0.62, 0.92, 0.93]).collapsed == 1
    assert summarise([0.60, 0.55, 0.60]).collapsed == 0, "exactly five points is not more than five"
    assert summarise(np.array([0.60, 0.55, 0.60], np.float32)).collapsed == 0, "nor is it in float32"
    assert summarise([0.60, 0.5499, 0.60]).collapsed == 1
    assert summarise([0.5, 0.9, 0.9], margin=0.5).collapsed == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8), st.floats(0.3, 0.6))
def test_wilcoxon_equals_enumeration_with_ties_and_zeros(steps, base):
    """Accuracies are float32 counts over 2339 rows: rounding must neither break ties nor hide zeros."""
    student = np.round(base * 2339) + 7 * np.arange(len(steps))
    a, b = np.float32((student + steps) / 2339), np.float32(student / 2339)
    assert paired_difference(a, b).p_value == pytest.approx(wilcoxon_by_enumeration(steps), rel=1e-9)


def test_fewer_than_six_seeds_cannot_reach_five_percent():
    for n in range(1, 8):
        got = paired_difference(0.5 + 0.01 * np.arange(1, n + 1), np.full(n, 0.1))
        assert got.p_value == pytest.approx(min(1, 2 / 2**n))
        assert (got.p_value < 0.05) == (n >= 6)


def test_paired_difference_of_equal_rows_is_nothing():
    got = paired_difference([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (got.mean, got.sd, got.low, got.high, got.p_value, got.n) == (0, 0, 0, 0, 1, 3)


def test_one_pair_has_no_interval():
    got = paired_difference([0.5], [0.4])
    assert got.mean == pytest.approx(0.1) and got.p_value == 1
    assert math.isnan(got.sd) and math.isnan(got.low) and math.isnan(got.high)


def test_interval_equals_the_quantiles_of_all_resamples():
    """Five pairs have 5^5 resamples: the seeded draw must come near their exact quantiles."""
    rng = np.random.default_rng(3)
    a, b = rng.random(5), rng.random(5)
    means = np.array([np.mean(c) for c in itertools.product(a - b, repeat=5)])
    got = paired_difference(a, b, confidence=0.8, resamples=40_000)
    tail = 0.043250  # normal cdf at sqrt(5/4) times Student's t quantile 0.1 with 4 degrees, -1.533206
    spread = means.std()
    np.testing.assert_allclose([got.low, got.high], np.quantile(means, [tail, 1 - tail]), atol=0.06 * spread)
    plain = np.quantile(means, [0.1, 0.9])
    assert got.low < plain[0] and got.high > plain[1], "wider than the plain percentile interval"
    np.testing.assert_allclose([got.mean, got.sd], [np.mean(a - b), np.std(a - b, ddof=1)])
    assert got == paired_difference(a, b, confidence=0.8, resamples=40_000), "same seed, same interval"
    assert got != paired_difference(a, b, confidence=0.8, resamples=40_000, seed=1)


def test_interval_covers_about_as_often_as_documented():
    """200 samples of ten normal differences: a nominal 95 % covers between 90 and 99 %."""
    samples = np.random.default_rng(0).standard_normal((200, 10))
    pairs = [paired_difference(sample, np.zeros(10), resamples=1000) for sample in samples]
    assert 180 <= sum(pair.low <= 0 <= pair.high for pair in pairs) <= 198


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf], [[0.5]], 0.5])
def test_statistics_refuse_what_is_not_a_list_of_finite_values(values):
    with pytest.raises(ValueError, match=r"values: expected \[S\] finite values"):
        summarise(values)
    with pytest.raises(ValueError, match=r"b: expected \[S\] finite values"):
        paired_difference([0.5], values)


def test_paired_difference_refuses_other_lengths_and_levels():
    with pytest.raises(ValueError, match="expected the same seeds in both, got 2 and 3 values"):
        paired_difference([0.1, 0.2], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="confidence: expected a value between 0 and 1, got 95"):
        paired_difference([0.1, 0.2], [0.1, 0.2], confidence=95)


# Tables


def table_records():
    seeds = (0, 1, 2, 3, 4)

    def record(model, method, accuracy, f1, parameters, **more):
        return Record(
            model, method, seeds, {"test_accuracy": accuracy, "test_macro_f1": f1}, parameters, **more
        )

    return [
        record("RGCN", "teacher", [0.58, 0.57, 0.59, 0.58, 0.60], [0.57, 0.56, 0.58, 0.57, 0.59], 36123),
        record("RGCN", "student", [0.54, 0.55, 0.47, 0.56, 0.55], [0.53, 0.54, 0.4, 0.55, 0.54], 4611),
        record("RGCN", "HIRE | both", [0.58, 0.58, 0.57, 0.59, 0.58], [0.57] * 5, 4611),
        record("HGT", "teacher", [0.5] * 5, [0.4] * 5, None, extra={"tuning": "none"}),
    ]


NOTE = (
    "mean ± sd over seeds, in %. Difference: paired by seed against 'student', in points, mean ± sd "
    "[95 % bootstrap interval]; p: Wilcoxon signed-rank, not corrected for the number of rows. min: the "
    "worst seed; collapsed: seeds more than 5 points below the median of their row. With so few seeds (5) p "
    "cannot fall below 0.0625."
)


def test_markdown_golden_text():
    table = results_table(table_records()[:3], title="imdb_gtn")
    low, high = (
        [100 * getattr(r.difference, end) for r in table.rows if r.difference] for end in ("low", "high")
    )
    assert table.to_markdown() == (
        "### imdb_gtn\n\n"
        "| model | method | test accuracy % | test macro-F1 % | parameters | difference | p "
        "| min % | collapsed |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| RGCN | teacher | 58.4 ± 1.1 | 57.4 ± 1.1 | 36,123 "
        f"| +5.0 ± 4.1 [{low[0]:+.1f}, {high[0]:+.1f}] | 0.062 | 57.0 | 0/5 |\n"
        "| RGCN | student | 53.4 ± 3.6 | 51.2 ± 6.3 | 4,611 | - | - | 47.0 | 1/5 |\n"
        "| RGCN | HIRE \\| both | 58.0 ± 0.7 | 57.0 ± 0.0 | 4,611 "
        f"| +4.6 ± 3.0 [{low[1]:+.1f}, {high[1]:+.1f}] | 0.062 | 57.0 | 0/5 |\n"
        f"\n{NOTE}\n"
    )


def test_terminal_golden_text_fits_80_columns():
    table = results_table(table_records()[:3], title="imdb_gtn")
    out = io.StringIO()
    Console(file=out, width=80).print(table.to_rich())
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    start = lines.index("RGCN")
    pairs = [row.difference for row in table.rows if row.difference]
    interval = [f"[{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]" for pair in pairs]
    assert [" ".join(line.split()) for line in lines[start + 1 : start + 6]] == [
        "teacher 58.4±1.1 57.4±1.1 36,123 +5.0±4.1 0.062 57.0 0/5",
        interval[0],
        "student 53.4±3.6 51.2±6.3 4,611 - - 47.0 1/5",
        "HIRE | both 58.0±0.7 57.0±0.0 4,611 +4.6±3.0 0.062 57.0 0/5",
        interval[1],
    ]
    assert lines[0].strip() == "imdb_gtn"
    assert " ".join(" ".join(lines[start + 6 :]).split()) == NOTE
    assert "…" not in out.getvalue()


def test_csv_holds_the_same_numbers():
    table = results_table(table_records())
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["method"] for row in rows] == [row.record.method for row in table.rows]
    student, hire, other = rows[1], rows[2], rows[3]
    assert student["test_accuracy_mean"] == "0.534" and student["test_accuracy_collapsed"] == "1"
    assert student["difference_mean"] == student["difference_p_value"] == ""
    assert (hire["difference_mean"], hire["difference_p_value"], hire["seeds"]) == ("0.046", "0.0625", "5")
    difference = table.rows[2].difference
    assert difference is not None and hire["difference_low"] == str(round(difference.low, 6))
    assert (other["parameters"], other["tuning"], student["tuning"]) == ("", "none", "")
    assert table.to_csv().splitlines()[0] == (
        "model,method,seeds,"
        "test_accuracy_mean,test_accuracy_sd,test_accuracy_median,test_accuracy_minimum,test_accuracy_collapsed,"
        "test_macro_f1_mean,test_macro_f1_sd,test_macro_f1_median,test_macro_f1_minimum,test_macro_f1_collapsed,"
        "parameters,difference_mean,difference_sd,difference_low,difference_high,difference_p_value,tuning"
    )


def test_extra_columns_and_missing_values():
    header, *lines = results_table(table_records()).texts()
    assert header[2] == "tuning" and [line[2] for line in lines] == ["-", "-", "-", "none"]
    assert lines[3][-5:] == ["-", "-", "-", "50.0", "0/5"], "no parameters, and no student to compare with"


def test_one_seed_and_more_than_five_seeds():
    single = [Record("A", m, [0], {"acc": [v]}) for m, v in (("student", 0.5), ("x", 0.49999))]
    one = results_table(single, metrics=["acc"])
    assert one.texts()[2] == ["A", "x", "50.0", "-", "+0.0", "1.000", "50.0", "0/1"]
    assert one.note.endswith("With so few seeds (1) p cannot fall below 1.")
    assert "nan" not in one.to_csv() + one.to_markdown()
    values = 0.01 * np.arange(12)
    many = [Record("A", m, range(12), {"acc": v + values}) for m, v in (("student", 0.5), ("x", 0.6))]
    table = results_table(many, metrics=["acc"])
    assert "cannot fall below" not in table.note and table.texts()[2][5] == "<0.001"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: [], "records, metrics: expected at least one each, got 0, 2"),
        (lambda r: [*r, r[0]], "RGCN teacher: expected every model and method once, got it twice"),
        (lambda r: [Record("A", "b", [0], {"loss": [1.0]})], "A b: expected the metric 'test_accuracy', got"),
        (lambda r: [*r, Record("A", "b", [0], {k: [58.0] for k in r[0].metrics})], "expected fractions"),
        (
            lambda r: [*r, Record("RGCN", "x", range(1, 6), r[0].metrics)],
            r"RGCN x: expected the seeds of student, \[0, 1, 2, 3, 4\], got \[1, 2, 3, 4, 5\]",
        ),
    ],
)
def test_records_that_make_no_table_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        results_table(change(table_records()))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"seeds": []}, "A b, seeds: expected at least one"),
        ({"seeds": [1, 1]}, r"A b, seeds: .*none twice, got \[1, 1\]"),
        ({"metrics": {"acc": [0.5]}}, r"A b, metrics\['acc'\]: expected 2 values, one a seed, got \[0.5\]"),
        ({"metrics": {"acc": [0.5, math.nan]}}, r"A b, metrics\['acc'\]: expected .S. finite values"),
        (
            {"history": {"loss": np.zeros((3, 4))}},
            r"A b, history\['loss'\]: expected \[2, epochs\], got shape",
        ),
    ],
)
def test_records_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        Record(**({"model": "A", "method": "b", "seeds": [0, 1], "metrics": {}} | options))


def test_lines_of_text_become_a_table_of_80_columns():
    lines = [["dataset", "model", "macro-F1 %"], ["imdb_hgb", "RGCN", "63.24 ± 0.62 <"], ["x", "MLP", "[bold]"]]
    out = io.StringIO()
    Console(file=out, width=80).print(rich_table(lines, title="title"))
    text = out.getvalue()
    assert "63.24±0.62 <" in text and "[bold]" in text and "title" in text
    assert all(len(line) <= 80 for line in text.splitlines())
