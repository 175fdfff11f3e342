"""A cell that is stopped on its way: what is lost, and what a run after it finds."""

import io
import os
import signal

import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments.cells import train_cell
from experiments.settings import resumable
from experiments.store import ResultStore
from hire_jax.checkpoint import Checkpoints
from hire_jax.models import MLP

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = {"experiment": "cells", "widths": (4, 3)}


def interrupt():
    raise KeyboardInterrupt


class Tracker:
    """Remembers where the bar stood; calls `stop` once it stands at `until`."""

    def __init__(self, until=None, stop=interrupt):
        self.until, self.stop, self.seen, self.texts = until, stop, [], []

    def update(self, done, text):
        self.seen.append(done)
        self.texts.append(text)
        if done == self.until:
            self.stop()


@pytest.fixture(scope="module")
def arguments():
    dataset = hj.load_dataset("imdb_gtn")
    return {"model": MLP(target=dataset.target, num_classes=dataset.num_classes, hidden=4), "dataset": dataset,
            "seeds": 2, "epochs": 40, "patience": 40, "monitor": "val_macro_f1"}


@pytest.fixture(scope="module")
def undisturbed(arguments, tmp_path_factory):
    store = ResultStore(tmp_path_factory.mktemp("undisturbed"))
    train_cell("MLP", CONFIG, store, Tracker(), 0, **arguments)
    assert not (store.folder / "checkpoints").exists()
    return store.finished(CONFIG)


@pytest.mark.parametrize(("monitor", "shown"), [("val_loss", "val_accuracy"), ("val_macro_f1", "val_macro_f1")])
def test_the_bar_shows_a_share_in_percent(arguments, monitor, shown, tmp_path):
    tracker = Tracker()
    result = train_cell("MLP", CONFIG, ResultStore(tmp_path), tracker, 0, **(arguments | {"monitor": monitor}))
    best = 100 * np.mean(np.nanmax(result.history[shown], axis=1))
    assert tracker.texts[-1] == f"MLP: epoch 40, best validation {best:.1f} %"


def states(store):
    """Manifests of the states of all cells."""
    return sorted(store.folder.glob("checkpoints/*/*/manifest.json"))


@pytest.mark.parametrize(("kept", "first"), [(True, 30), (False, 10)])
def test_a_stopped_cell_goes_on_where_it_was_if_its_states_are_kept(arguments, undisturbed, kept, first, tmp_path):
    store, stopped, after = ResultStore(tmp_path, checkpoints=kept), Tracker(until=20), Tracker()
    with pytest.raises(KeyboardInterrupt):
        train_cell("MLP", CONFIG, store, stopped, 0, **arguments)
    assert stopped.seen == [0, 10, 20] and store.finished(CONFIG) is None
    assert len(states(store)) == (2 if kept else 0)

    train_cell("MLP", CONFIG, store, after, 0, **arguments)
    assert after.seen == [0, *range(first, 50, 10)]
    assert store.finished(CONFIG).metrics == undisturbed.metrics and not states(store)


def test_the_seconds_before_a_stop_count(arguments, monkeypatch, tmp_path):
    store = ResultStore(tmp_path, checkpoints=True)
    with pytest.raises(KeyboardInterrupt):
        train_cell("MLP", CONFIG, store, Tracker(until=20), 0, **arguments)
    restore = Checkpoints.restore

    def slow(self, like):
        found = restore(self, like)
        assert 0 < found.place["seconds"] < 600
        return found._replace(place={"seconds": 1000.0})

    monkeypatch.setattr(Checkpoints, "restore", slow)
    train_cell("MLP", CONFIG, store, Tracker(), 0, **arguments)
    assert 1000 < store.finished(CONFIG).facts["train_seconds"] < 1600


def test_states_of_another_cell_are_not_taken(arguments, tmp_path):
    store = ResultStore(tmp_path, checkpoints=True)
    with pytest.raises(KeyboardInterrupt):
        train_cell("MLP", CONFIG, store, Tracker(until=20), 0, **arguments)
    before, other = states(store), Tracker()
    train_cell("MLP", CONFIG | {"seeds": 2}, store, other, 0, **arguments)
    assert other.seen[1] == 10 and states(store) == before


def test_sigterm_ends_a_run_with_a_word_and_a_status(arguments, tmp_path):
    """`fit` turns it into an end with status 0, after which a shell would go on to the next command."""
    out, store = io.StringIO(), ResultStore(tmp_path, checkpoints=True)
    tracker = Tracker(until=20, stop=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as end, resumable(tmp_path, Console(file=out)):
        train_cell("MLP", CONFIG, store, tracker, 0, **arguments)
    assert end.value.code == 143 and "Stopped. Finished cells are in" in out.getvalue() and states(store)
    with pytest.raises(SystemExit, match="no such dataset"), resumable(tmp_path, Console(file=io.StringIO())):
        raise SystemExit("no such dataset")
