"""The bench of losses: every exported loss is in it, its arithmetic, and a tiny run that writes what it measured."""

import json
import sys

import numpy as np
import pytest

from experiments import bench_losses, bench_losses_memory
from experiments.bench_losses import Settings, add_times, growth, jobs_of, mark, row_counts
from experiments.bench_losses_cases import CASES, NOT_LOSSES, inputs, limit_named, row_limit
from experiments.bench_losses_figures import losses_figure
from experiments.bench_losses_memory import Job, expected, local_slope, measure, reaches
from hire_jax import losses

pytestmark = pytest.mark.usefixtures("quick_compilation")


def rows(field, *points):
    return [{"rows": n, field: value} for n, value in points]


def test_every_exported_loss_is_measured():
    assert set(losses.__all__) == set(CASES) | NOT_LOSSES and not NOT_LOSSES & set(CASES)


def test_every_loss_has_a_peer():
    assert set(pytest.importorskip("experiments.peers.torch_losses").PEERS) == set(CASES)


@pytest.mark.parametrize("name", list(CASES))
def test_torch_agrees(name):
    pytest.importorskip("torch")
    bench_losses.compare(name, 40)


def test_a_peer_that_differs_is_not_timed(monkeypatch):
    peers = pytest.importorskip("experiments.peers.torch_losses")
    monkeypatch.setitem(peers.PEERS, "hint", lambda s, t: 2 * peers.F.mse_loss(s, t))
    with pytest.raises(ValueError, match="hint: torch's formulation differs"):
        bench_losses.compare("hint", 10)


def test_rows_count_both_types():
    student, teacher, edges = inputs("typed_local_structure", 41)
    assert sum(map(len, student.values())) == sum(map(len, teacher.values())) == 41
    assert all(len(senders) == 205 for senders, _ in edges.values())
    student, _, receivers = inputs("attention_map_kl", 30)
    sums = np.zeros((30, student.shape[1]))
    np.add.at(sums, receivers, student)
    np.testing.assert_allclose(sums[np.unique(receivers)], 1, rtol=1e-5)


def test_exponents_and_their_marks():
    def timed(power, *sizes):
        return rows("seconds", *((n, [1e-9 * n**power, 1.0, 0.0]) for n in sizes))

    assert growth(timed(2, 1000, 3200, 10_000)) == pytest.approx(2)
    assert growth(timed(3, 64, 128)) == pytest.approx(3)
    small = rows("seconds", (10, [1.0]))  # fixed costs, which the three largest sizes leave out
    assert growth(small + timed(1, 1000, 3200, 10_000)) == pytest.approx(1)
    assert growth(small) is None and growth([]) is None
    assert [mark(e) for e in (None, 0.9, 1.3, 5.0)] == [""] * 4
    assert [mark(e) for e in (1.8, 2.1, 2.8)] == ["quadratic", "quadratic", "cubic"]
    assert bench_losses._growth_cell(2.3, 3) == "2.3 quadratic (cubic)"
    assert bench_losses._growth_cell(2.0, 2) == "2.0 quadratic" and bench_losses._growth_cell(1.1, 1) == "1.1"
    assert bench_losses._growth_cell(None, 1) == "-" and bench_losses._growth_cell(None, 2) == "- (quadratic)"


def test_what_is_expected_of_the_next_size():
    assert expected([], 1000, "memory") == 0
    assert expected(rows("memory", (100, 7)), 1000, "memory") == pytest.approx(70)
    assert expected(rows("memory", (100, 7)), 1000, "memory", 2) == pytest.approx(700)
    assert expected(rows("memory", (10, 1), (100, 100)), 1000, "memory") == pytest.approx(1e4)
    assert local_slope(rows("memory", (10, 50), (100, 50)), "memory") == 1  # fixed costs do not stay
    assert local_slope(rows("memory", (10, 1), (20, 1000)), "memory") == 3
    assert expected(rows("memory", (10, None)), 100, "memory") == 0
    assert reaches(rows("memory", (10, 1), (100, 100)), 10_000) == 1000


def test_sizes_and_forms():
    assert row_counts(1_000_000) == [1000, 3200, 10_000, 32_000, 100_000, 320_000, 1_000_000]
    assert row_counts(300) == [300]
    assert [job.form for job in jobs_of("hint", Settings())] == ["ours"]
    assert [job.form for job in jobs_of("contrastive", Settings(peer="torch"))] == ["ours", "sample", "torch"]
    limit = row_limit("rkd_angle")
    ours, sampled = jobs_of("rkd_angle", Settings(max_rows=3200))
    assert ours.sizes == [limit // 8, limit // 4, limit // 2, limit, 1000, 3200] and ours.sample is None
    assert sampled.sizes == [1000, 3200] and sampled.sample == limit
    _, sampled = jobs_of("contrastive", Settings(sample=2000, max_rows=10_000))
    assert sampled.sizes == [3200, 10_000] and sampled.sample == 2000
    assert row_limit("rkd_distance") in jobs_of("rkd_distance", Settings())[0].sizes
    assert row_limit("hint") is None


def test_a_refusal_without_a_limit_is_an_error():
    assert limit_named("sample: expected sample= of at most 16,384 rows with key=, got None") == 16384
    with pytest.raises(ValueError, match="is to name sample="):
        limit_named("too many rows")


@pytest.mark.slow
def test_it_ends_at_a_refusal_and_at_what_it_may_take():
    limit = row_limit("rkd_angle")
    facts = measure(Job("rkd_angle", "ours", [4, limit + 1]))
    assert [row["rows"] for row in facts["rows"]] == [4]
    assert facts["stopped"]["rows"] == limit + 1 and facts["stopped"]["why"] == "refused"
    assert "sample=" in facts["stopped"]["message"]
    facts = measure(Job("hint", "ours", [1000], bytes_limit=1000))
    assert facts["rows"] == [] and facts["stopped"]["why"] == "memory"
    facts = measure(Job("hint", "ours", [10, 1000], seconds=1e-12))
    assert len(facts["rows"]) == 1 and facts["stopped"]["why"] == "time"


def test_a_process_that_fails_says_so():
    with pytest.raises(RuntimeError, match="no_loss"):
        bench_losses_memory.measure_apart([Job("no_loss", "ours", [10])])


def test_turns_take_the_place_of_the_one_call(monkeypatch):
    monkeypatch.setattr(bench_losses, "our_call", lambda name, size, sample: lambda: size**2 * (2 if sample else 1))
    monkeypatch.setattr("experiments.bench_contenders.PAUSE", 0)
    forms = {"ours": {"sample": None, "rows": rows("seconds", (10, 9.0), (100, 9.0))},
             "sample": {"sample": 5, "rows": rows("seconds", (100, 9.0))}}  # fmt: skip
    add_times("hint", forms, repeats=3)
    assert forms["ours"]["rows"] == rows("seconds", (10, [100] * 3), (100, [10_000] * 3))
    assert forms["sample"]["rows"] == rows("seconds", (100, [20_000] * 3))
    assert forms["ours"]["growth"] == pytest.approx(2) and forms["sample"]["growth"] is None


def test_it_measures_and_writes(tmp_path, capsys):
    facts = bench_losses.main(Settings(losses=("hint", "contrastive"), smoke=True, out=tmp_path))
    out = tmp_path / "smoke"
    assert sorted(path.name for path in out.iterdir()) == ["losses.json", "losses.png"]
    assert json.loads((out / "losses.json").read_text()) == facts
    assert [(name, form) for name, forms in facts["losses"].items() for form in forms] == [
        ("hint", "ours"), ("contrastive", "ours"), ("contrastive", "sample")]  # fmt: skip
    for forms in facts["losses"].values():
        for form in forms.values():
            (row,) = form["rows"]
            assert row["rows"] == 200 and len(row["seconds"]) == 1 and form["stopped"] is None
            assert row["compiled"] >= 200 * 128 * 4  # the gradient
    printed = capsys.readouterr().out
    assert "Value and gradient" in printed and "Peak memory" in printed and "contrastive" in printed


def test_an_unknown_loss_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got \\['no_loss'\\]"):
        bench_losses.main(Settings(losses=("no_loss",), out=tmp_path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_at_least_the_gradient_and_near_the_plan():
    (facts,) = bench_losses_memory.measure_apart([Job("cosine_embedding", "ours", [30_000])])
    (row,) = facts["rows"]
    if row["resident"] is None:
        pytest.skip("the kernel's mark cannot be reset here")
    assert 0.8 * 30_000 * 128 * 4 < row["memory"] < 2 * row["compiled"] + 2**24
    assert row["resident"] > row["memory"] + 2 * 30_000 * 128 * 4


def test_the_same_numbers_give_the_same_figure(tmp_path):
    measured = [{"rows": 10**k, "seconds": [10.0 ** (k - 6)] * 3, "memory": 2**10 * 10**k} for k in (3, 4, 5)]
    ended = {"rows": measured, "stopped": {"rows": 10**6, "why": "memory", "message": ""}}
    nothing = {"rows": [], "stopped": {"rows": 10, "why": "refused", "message": ""}}
    results = {name: {"ours": ended | {"stopped": None}, "torch": ended, "sample": nothing}
               for name in ("hint", "rkd_angle", "contrastive", "vid")}  # fmt: skip
    first, second = (losses_figure(results, tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert first == second and first.startswith(b"\x89PNG")
    losses_figure({"hint": results["hint"]}, tmp_path / "one.png")
