"""Seeded splits."""

import numpy as np
import pytest

from hire_jax.data import holdout, random_split
from hire_jax.data.splits import random_order

PINNED = {0: [3, 2, 1, 8, 6, 0, 7, 4, 5, 9], 1: [9, 2, 4, 7, 5, 0, 8, 6, 3, 1]}
LABELS = np.repeat([0, 1, 2, -1], [100, 60, 80, 30])


def test_random_order_is_pinned() -> None:
    """A published split must be the same under every numpy version: these values may never change."""
    assert random_order(10, 0).tolist() == PINNED[0]
    assert random_order(10, 1).tolist() == PINNED[1]
    assert np.array_equal(np.sort(random_order(1000, 5)), np.arange(1000))


def test_random_split_counts() -> None:
    masks = random_split(LABELS, train_per_class=20, val_per_class=30, seed=0)
    assert {part: np.bincount(LABELS[mask]).tolist() for part, mask in masks.items()} == {
        "train": [20, 20, 20],
        "val": [30, 30, 30],
        "test": [50, 10, 30],
    }
    total = sum(mask.astype(int) for mask in masks.values())
    np.testing.assert_array_equal(total, LABELS >= 0)


def test_random_split_depends_on_the_seed_only() -> None:
    first, again, other = (
        random_split(LABELS, train_per_class=5, val_per_class=5, seed=seed) for seed in (3, 3, 4)
    )
    assert all(np.array_equal(first[part], again[part]) for part in first)
    assert not np.array_equal(first["train"], other["train"])


def test_random_split_draws_every_node_alike() -> None:
    masks = [
        random_split(np.zeros(40, int), train_per_class=10, val_per_class=10, seed=seed)["train"]
        for seed in range(400)
    ]
    drawn = np.sum(masks, axis=0)
    # binomial(400, 1/4): mean 100, standard deviation 8.7; forty draws beyond five of them would not happen
    assert drawn.sum() == 4000 and drawn.min() > 56 and drawn.max() < 144


def test_random_split_multilabel() -> None:
    labels = np.ones((100, 3), int)
    labels[90:] = -1
    masks = random_split(labels, train_per_class=10, val_per_class=5, seed=0)
    assert [int(masks[part].sum()) for part in ("train", "val", "test")] == [30, 15, 45]
    assert not any(mask[90:].any() for mask in masks.values())


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"train_per_class": 0}, "train_per_class"),
        ({"val_per_class": -1}, "val_per_class"),
        ({"seed": -1}, "seed"),
        ({"train_per_class": 40}, "class 1"),
        ({"labels": np.zeros((2, 2, 2), int)}, "labels"),
    ],
)
def test_random_split_refuses(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        random_split(
            **({"labels": LABELS, "train_per_class": 20, "val_per_class": 30, "seed": 0} | arguments)
        )


def test_random_split_leaves_a_test_node() -> None:
    with pytest.raises(ValueError, match="more than 10"):
        random_split(np.zeros(10, int), train_per_class=5, val_per_class=5, seed=0)


def test_holdout() -> None:
    mask = np.zeros(2000, bool)
    mask[::2] = True
    kept, held = holdout(mask, fraction=0.2, seed=0)
    assert held.sum() == 200 and kept.sum() == 800
    assert not (kept & held).any() and np.array_equal(kept | held, mask)
    again, other = holdout(mask, fraction=0.2, seed=0)[1], holdout(mask, fraction=0.2, seed=1)[1]
    assert np.array_equal(held, again) and not np.array_equal(held, other)
    assert mask[::2].all()  # the argument is left alone


def test_holdout_rounds_down() -> None:
    """As HGB's baselines do: int(0.2 * 1217) = 243."""
    assert holdout(np.ones(1217, bool), fraction=0.2, seed=0)[1].sum() == 243


@pytest.mark.parametrize(
    "mask, fraction, says",
    [
        (np.ones(4, bool), 0.2, "mask"),
        (np.ones(4, int), 0.5, "mask"),
        (np.ones((4, 2), bool), 0.5, "mask"),
        (np.ones(4, bool), 0.0, "fraction"),
        (np.ones(4, bool), 1.0, "fraction"),
    ],
)
def test_holdout_refuses(mask: np.ndarray, fraction: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        holdout(mask, fraction=fraction, seed=0)
