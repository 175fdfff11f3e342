"""A table whose run is killed at random moments and started again is the table of a run that was left alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.store import ResultStore

ROOT = Path(__file__).parents[2]
KILLS = 3


def started(out):
    """The table of every method on one graph, with what is compiled kept for the process after it."""
    with open(out / "log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "experiments.tables", "--smoke", "--out", str(out)], cwd=ROOT,
                                env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}, stdout=log, stderr=log)


def lines(out):
    path = out / "smoke" / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finished(out):
    """All of a cell that is no time, in the order in which the cells ended."""
    return [(name, cell.config, cell.seeds, cell.metrics,
             {fact: value for fact, value in cell.facts.items() if "seconds" not in fact})
            for name, cell in ResultStore(out / "smoke").cells().items()]


def drawn(out):
    """The table as it is drawn, up to the latencies, which are measured anew wherever the costs are."""
    folder = out / "smoke"
    text, latencies = (folder / "hire-part.md").read_text().split("## Compression")
    assert "p50 ms" in latencies
    return {name: (folder / name).read_bytes() for name in ("hire-part.tex", "hire-part.csv")} | {"hire-part.md": text}


@pytest.mark.slow
def test_three_kills_change_nothing_in_the_table(tmp_path):
    """Each comes a random time after a cell of the process is on disk, so that it meets a run on its way."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    assert started(alone).wait(timeout=600) == 0, (alone / "log").read_text()[-2000:]
    seed = int(time.time())  # other moments in every run
    rng, left = np.random.default_rng(seed), []
    for _ in range(KILLS):
        process, before = started(killed), lines(killed)
        end = time.monotonic() + 300
        while lines(killed) == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 2))
        assert process.poll() is None, (killed / "log").read_text()[-2000:]
        process.kill()
        process.wait()
        left.append(lines(killed))
    print(f"seed {seed}; of {lines(alone)} cells on disk after each kill: {left}")
    assert 0 < left[0] < left[1] < left[2] < lines(alone)
    assert not (killed / "smoke" / "hire-part.md").exists()
    assert started(killed).wait(timeout=600) == 0, (killed / "log").read_text()[-2000:]
    assert finished(killed) == finished(alone)
    assert drawn(killed) == drawn(alone)
