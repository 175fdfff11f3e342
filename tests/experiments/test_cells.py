"""A cell that is stopped on its way: what is lost, and what a run after it finds."""

import json

import pytest

import hire_jax as hj
from experiments.cells import train_cell
from experiments.store import ResultStore
from hire_jax.models import MLP

CONFIG = {"experiment": "cells", "widths": (4, 3)}


class Tracker:
    """Remembers where the bar stood; stops as Ctrl-C does once it stands at `until`."""

    def __init__(self, until=None):
        self.until, self.seen = until, []

    def update(self, done, text):
        self.seen.append(done)
        if done == self.until:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def arguments():
    dataset = hj.load_dataset("imdb_gtn")
    return {"model": MLP(target=dataset.target, num_classes=dataset.num_classes, hidden=4), "dataset": dataset,
            "seeds": 2, "epochs": 40, "patience": 40, "monitor": "val_macro_f1"}


@pytest.fixture(scope="module")
def undisturbed(arguments, tmp_path_factory):
    store = ResultStore(tmp_path_factory.mktemp("undisturbed"))
    train_cell("MLP", CONFIG, store, Tracker(), 0, **arguments)
    assert not store.unfinished(CONFIG).parent.exists()
    return store.finished(CONFIG)


@pytest.mark.parametrize(("kept", "first"), [(True, 30), (False, 10)])
def test_a_stopped_cell_goes_on_where_it_was_if_its_states_are_kept(arguments, undisturbed, kept, first, tmp_path):
    store, stopped, after = ResultStore(tmp_path, checkpoints=kept), Tracker(until=20), Tracker()
    with pytest.raises(KeyboardInterrupt):
        train_cell("MLP", CONFIG, store, stopped, 0, **arguments)
    assert stopped.seen == [0, 10, 20] and store.finished(CONFIG) is None
    places = [json.loads(path.read_bytes())["checkpoint"]["place"]
              for path in sorted(store.unfinished(CONFIG).glob("*/manifest.json"))]
    assert len(places) == (2 if kept else 0)

    train_cell("MLP", CONFIG, store, after, 0, **arguments)
    assert after.seen == list(dict.fromkeys([0, *range(first, 50, 10)]))
    cell = store.finished(CONFIG)
    assert cell.metrics == undisturbed.metrics and not store.unfinished(CONFIG).exists()
    assert all(cell.facts["train_seconds"] > place["seconds"] for place in places)  # both runs' time


def test_states_of_another_cell_are_not_taken(arguments, undisturbed, tmp_path):
    store = ResultStore(tmp_path, checkpoints=True)
    with pytest.raises(KeyboardInterrupt):
        train_cell("MLP", CONFIG, store, Tracker(until=20), 0, **arguments)
    other = Tracker()
    train_cell("MLP", CONFIG | {"seeds": 2}, store, other, 0, **arguments)
    assert other.seen[1] == 10 and store.unfinished(CONFIG).exists()
