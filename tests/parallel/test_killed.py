"""Runs that are killed at random moments and started again end with the bits of one that was left alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.parallel import killed_run

SCRIPT = Path(killed_run.__file__)


def started(folder):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen([sys.executable, str(SCRIPT), str(folder)], env=environment, stdout=log, stderr=log)


def newest(folder):
    """The step of the newest checkpoint, 0 without one."""
    kept = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    return max(kept, default=0)


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path):
    """Each comes a random time after a checkpoint of the process, so that all of them meet a run on its way."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    undisturbed = started(alone)
    rng, kills, reached = np.random.default_rng(0), 0, []
    while kills < 20:
        process, before = started(killed), newest(killed)
        end = time.monotonic() + 120
        wait = rng.uniform(0, 0.4)
        while newest(killed) == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(wait)
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        reached.append(newest(killed))
    assert kills == 20, f"the run ended after {kills} kills: {reached}\n{(killed / 'log').read_text()[-2000:]}"
    assert started(killed).wait(timeout=300) == 0 == undisturbed.wait(timeout=300)
    print(f"newest checkpoint after each kill: {reached}")
    with np.load(alone / "params.npz") as theirs, np.load(killed / "params.npz") as ours:
        assert set(ours) == set(theirs) and len(ours) > 10
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name])
