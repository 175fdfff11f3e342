"""The bench's peak memory: counted in a process of its own, of the order of the compiler's count."""

import sys

import numpy as np
import pytest
from rich.console import Console

from experiments import bench_memory
from experiments.bench import Settings
from experiments.bench_memory import Job

pytestmark = pytest.mark.usefixtures("quick_compilation")

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_the_rise_is_that_of_the_call_and_not_of_what_was_there():
    kept = np.ones(4 << 20)  # 32 MiB
    assert kept.sum() > 0
    rise = bench_memory.resident_rise(lambda: np.ones(16 << 20).sum())  # 128 MiB, freed again
    if rise is None:
        pytest.skip("the kernel's mark cannot be reset here")
    assert 120 << 20 < rise < 160 << 20
    assert bench_memory.resident_rise(lambda: None) < 8 << 20


@pytest.mark.slow
@linux
def test_ours_in_a_process_of_its_own():
    settings = Settings(hidden=8, layers=1, seeds=2)
    peaks = bench_memory.peaks("imdb_gtn", settings, ["hire_jax, 1 seed"], Console())
    memory = peaks["hire_jax, 1 seed"]
    assert memory["held"] > 1 << 20 and memory["compiled"] > memory["held"]
    if memory["working"] is not None:
        assert memory["peak"] == memory["held"] + memory["working"]
        assert memory["peak"] < 20 * memory["compiled"]  # interpreter, libraries and compiler are not in it


def test_a_process_that_fails_is_a_warning(capsys):
    settings = Settings(model="RGCN", hidden=8, layers=1, dataset=("imbd_gtn",))
    console = Console()
    assert bench_memory.peaks("imbd_gtn", settings, ["hire_jax, 1 seed"], console) == {"hire_jax, 1 seed": None}
    assert "memory of hire_jax, 1 seed is not known" in capsys.readouterr().out


def test_shown():
    assert bench_memory.shown(None) == "-"
    memory = {"held": 1 << 20, "working": 2 << 20, "peak": 3 << 20, "compiled": 5 << 20}
    assert bench_memory.shown(memory) == "3"
    assert bench_memory.shown(memory | {"peak": None}) == "5"  # on an accelerator
    assert bench_memory.shown(memory | {"peak": None, "compiled": None}) == "-"


def test_bytes_of_the_peer():
    pytest.importorskip("torch_geometric")
    memory = bench_memory.measure(Job("imdb_gtn", "PyG, sparse features", "RGCN", 8, 1, 1, 1))
    dense = bench_memory.measure(Job("imdb_gtn", "PyG, dense features", "RGCN", 8, 1, 1, 1))
    assert dense["held"] > 2 * memory["held"] > 0 and memory["compiled"] is None
