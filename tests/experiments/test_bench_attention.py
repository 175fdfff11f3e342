"""The bench of sparse attention on a few hundred edges."""

import json

import numpy as np
import pytest
from rich.console import Console

from experiments import bench_attention
from experiments.bench_attention import OURS, Ours, Settings

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_it_measures_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_attention, "memory_apart", lambda name, edges: edges * 100)
    facts = bench_attention.main(Settings(edges=(200,), repeats=2, out=tmp_path), Console(width=100))
    assert json.loads((tmp_path / "attention.json").read_text()) == facts
    (row,) = facts["rows"]
    assert row["edges"] == 200 and len(row["seconds"][OURS]) == 2 and min(row["seconds"][OURS]) > 0
    assert row["memory"] == {OURS: 20_000} and row["compiled"] > 20 * 64 * 4  # at least the input
    assert "hire_jax" in capsys.readouterr().out


def test_the_gradient_is_that_of_the_value():
    ours = Ours(200)
    value, gradient = ours.value_and_gradient()
    step = 1e-2 * np.random.default_rng(0).normal(size=ours.x.shape).astype(np.float32)
    variables, x = ours.arguments
    ahead, behind = (float(ours.program(variables, x + sign * step)[0]) for sign in (1, -1))
    np.testing.assert_allclose(ahead - behind, 2 * np.sum(gradient * step), rtol=2e-2)
    assert behind < value < ahead or ahead < value < behind


def test_another_answer_of_the_peer_is_refused():
    class Fixed:
        def __init__(self, value, gradient):
            self.answer = value, np.asarray(gradient, np.float32)

        def value_and_gradient(self):
            return self.answer

    bench_attention.compare({OURS: Fixed(1.0, [[1.0]]), bench_attention.PYG: Fixed(1.0, [[1.0]])})
    for value, gradient in ((1.1, [[1.0]]), (1.0, [[1.1]])):
        with pytest.raises(ValueError, match="PyG's value"):
            bench_attention.compare({OURS: Fixed(value, gradient), bench_attention.PYG: Fixed(1.0, [[1.0]])})
