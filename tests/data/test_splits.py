"""Seeded splits."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hire_jax.data import DatasetError, holdout, load_dataset, random_split
from hire_jax.data.split_names import choose_split
from hire_jax.data.splits import fold_split, fraction_split, k_fold, random_order

PINNED = {0: [3, 2, 1, 8, 6, 0, 7, 4, 5, 9], 1: [9, 2, 4, 7, 5, 0, 8, 6, 3, 1]}
LABELS = np.repeat([0, 1, 2, -1], [100, 60, 80, 30])
FEW = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, -1, 0, 1, 2, 0, 1, 2])
FEW_MULTI = np.where(FEW[:, None] < 0, -1, np.stack([FEW == 0, FEW != 1], axis=1))


def nodes(masks: dict[str, np.ndarray]) -> list[list[int]]:
    return [np.flatnonzero(masks[part]).tolist() for part in ("train", "val", "test")]


def test_splits_are_pinned() -> None:
    """A published split must stay what it is: these values may never change."""
    assert nodes(random_split(FEW, train_per_class=1, val_per_class=2, seed=4)) == [
        [3, 7, 15], [1, 5, 6, 11, 12, 13], [0, 2, 4, 8, 10, 14]]  # fmt: skip
    assert nodes(random_split(FEW_MULTI, train_per_class=2, val_per_class=1, seed=4)) == [
        [3, 5, 7, 15], [11, 12], [0, 1, 2, 4, 6, 8, 10, 13, 14]]  # fmt: skip
    assert np.flatnonzero(holdout(FEW == 0, fraction=0.4, seed=2)[1]).tolist() == [0, 10]
    assert nodes(fraction_split(FEW, seed=4)) == [
        [1, 3, 5, 6, 7, 11, 12, 13, 15], [4, 8, 10], [0, 2, 14]]  # fmt: skip
    assert nodes(fraction_split(FEW, train=0.5, val=0.25, seed=4, stratified=False)) == [
        [1, 3, 4, 5, 7, 11, 12, 15], [6, 8, 13], [0, 2, 10, 14]]  # fmt: skip
    assert nodes(fold_split(FEW, fold=1, folds=4, seed=4)) == [
        [0, 1, 3, 4, 5, 10, 12], [2, 6, 11, 15], [7, 8, 13, 14]]  # fmt: skip
    assert nodes(fold_split(FEW_MULTI, fold=0, folds=5, val_folds=2, seed=4)) == [
        [2, 5, 6, 12, 13, 14], [0, 1, 4, 7, 10, 15], [3, 8, 11]]  # fmt: skip


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


def counts(labels: np.ndarray, mask: np.ndarray) -> list[int]:
    return np.bincount(labels[mask], minlength=labels.max() + 1).tolist()


def test_fraction_split_counts() -> None:
    masks = fraction_split(LABELS, train=0.48, val=0.32, seed=0)
    assert {part: counts(LABELS, mask) for part, mask in masks.items()} == {
        "train": [48, 29, 38],  # rounds of 48, 28.8 and 38.4
        "val": [32, 19, 26],
        "test": [20, 12, 16],
    }
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), LABELS >= 0)


def test_fraction_split_without_regard_to_class() -> None:
    for labels in (LABELS, np.where(LABELS[:, None] < 0, -1, np.ones((270, 3), int))):
        masks = fraction_split(labels, train=0.25, val=0.25, seed=0, stratified=labels.ndim == 2)
        assert [int(mask.sum()) for mask in masks.values()] == [60, 60, 120]
        np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), LABELS >= 0)
    drawn = [counts(LABELS, fraction_split(LABELS, seed=seed, stratified=False)["train"]) for seed in range(9)]
    assert len({tuple(count) for count in drawn}) > 5 and {sum(count) for count in drawn} == {144}


def test_fraction_split_trains_every_class() -> None:
    labels = np.repeat([0, 1], [100, 2])
    masks = fraction_split(labels, train=0.1, val=0.1, seed=0)
    assert {part: counts(labels, mask) for part, mask in masks.items()} == {
        "train": [10, 1], "val": [10, 0], "test": [80, 1]}  # fmt: skip


def test_fraction_split_without_validation() -> None:
    masks = fraction_split(LABELS, train=0.5, val=0, seed=0)
    assert [int(mask.sum()) for mask in masks.values()] == [120, 0, 120]


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"train": 0.0}, "found 0 and 0.2"),
        ({"train": 0.8}, "together below 1, found 0.8 and 0.2"),
        ({"val": -0.1}, "found 0.6 and -0.1"),
        ({"train": float("nan")}, "found nan and 0.2"),
        ({"seed": -1}, "seed: expected a non-negative integer"),
        ({"labels": np.zeros((2, 2, 2), int)}, "labels: expected shape"),
        ({"labels": np.full(9, -1)}, "found none left for train"),
        ({"labels": np.zeros(2, int), "val": 0.3}, "found none left for test"),
        ({"labels": np.zeros(3, int), "val": 0.1}, "found none left for val"),
    ],
)
def test_fraction_split_refuses(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        fraction_split(**({"labels": LABELS, "seed": 0} | arguments))


@given(
    st.lists(st.integers(-1, 4), min_size=8, max_size=60),
    st.integers(2, 8),
    st.integers(0, 3),
    st.integers(0, 2**40),
)
def test_k_fold_tests_every_labelled_node_once(drawn: list[int], folds: int, val_folds: int, seed: int) -> None:
    labels = np.array(drawn)
    if folds < val_folds + 2 or (labels >= 0).sum() < folds:
        with pytest.raises(ValueError, match="folds"):
            k_fold(labels, folds=folds, val_folds=val_folds, seed=seed)
        return
    splits = k_fold(labels, folds=folds, val_folds=val_folds, seed=seed)
    for part, times in (("test", 1), ("val", val_folds), ("train", folds - 1 - val_folds)):
        np.testing.assert_array_equal(sum(split[part].astype(int) for split in splits), times * (labels >= 0))
        for kind in (labels >= 0, *(labels == c for c in range(5))):  # of one size, but for one node a fold
            sizes = [int((split[part] & kind).sum()) for split in splits]
            assert max(sizes) - min(sizes) <= max(times, 1)
    for split in splits:
        np.testing.assert_array_equal(sum(mask.astype(int) for mask in split.values()), labels >= 0)


def test_k_fold_validates_on_the_next_fold() -> None:
    splits = k_fold(LABELS, folds=6, val_folds=2, seed=3)
    assert len(splits) == 6
    for k, split in enumerate(splits):
        following = splits[(k + 1) % 6]["test"] | splits[(k + 2) % 6]["test"]
        np.testing.assert_array_equal(split["val"], following)
        alone = fold_split(LABELS, fold=k, folds=6, val_folds=2, seed=3)
        assert all(np.array_equal(split[part], alone[part]) for part in split)
    other = k_fold(LABELS, folds=6, val_folds=2, seed=4)
    assert not np.array_equal(splits[0]["test"], other[0]["test"])


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"folds": 2}, "folds, val_folds: expected one fold each for training and testing beside 0 or more"),
        ({"folds": 0, "val_folds": 0}, "found 0 and 0"),
        ({"val_folds": -1}, "found 5 and -1"),
        ({"labels": np.array([0, 0, 1, -1, -1])}, "a labelled node for each of 5 folds, found 3"),
        ({"seed": -1}, "seed: expected a non-negative integer"),
        ({"labels": np.zeros((2, 2, 2), int)}, "labels: expected shape"),
    ],
)
def test_k_fold_refuses(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        k_fold(**({"labels": LABELS, "seed": 0} | arguments))


def test_fold_split_refuses_a_fold_that_is_none() -> None:
    for fold in (-1, 5):
        with pytest.raises(ValueError, match=f"fold: expected a number from 0 to 4, found {fold}"):
            fold_split(LABELS, fold=fold, seed=0)


@pytest.mark.parametrize(
    "split, taken, masks",
    [
        ("fraction:0.5:.25:7", "fraction:0.5:.25:7", fraction_split(LABELS, train=0.5, val=0.25, seed=7)),
        ("fraction:0.6:0.2", "fraction:0.6:0.2:0", fraction_split(LABELS, seed=0)),
        ("fold:2/5:3", "fold:2/5:3", fold_split(LABELS, fold=2, seed=3)),
        ("fold:0/10", "fold:0/10:0", fold_split(LABELS, fold=0, folds=10, seed=0)),
    ],
)
def test_drawn_splits_by_name(split: str, taken: str, masks: dict[str, np.ndarray]) -> None:
    found, name = choose_split({}, None, LABELS, split)
    assert name == taken and nodes(found) == nodes(masks)
    again, name = choose_split({}, None, LABELS, name)
    assert name == taken and nodes(again) == nodes(masks)


def test_a_name_in_the_file_goes_before_a_form() -> None:
    named = {"fold:0/5": {part: LABELS == c for c, part in enumerate(("train", "val", "test"))}}
    found, name = choose_split(named, None, LABELS, "fold:0/5")
    assert name == "fold:0/5" and nodes(found) == nodes(named["fold:0/5"])


def test_a_drawn_split_of_a_dataset() -> None:
    dataset = load_dataset("citeseer", split="fold:1/10:2")
    assert dataset.meta["split"] == "fold:1/10:2"
    assert [int(dataset.splits[part].sum()) for part in ("train", "val", "test")] == [2649, 331, 332]


@pytest.mark.parametrize(
    "split, says",
    [
        ("fraction:0.9:0.2", "together below 1, found 0.9 and 0.2"),
        ("fraction:0.6", "found 'fraction:0.6' ('fraction:TRAIN:VAL:SEED' and 'fold:K/N:SEED' are drawn as well)"),
        ("fraction:0.6:0.2:x", "found 'fraction:0.6:0.2:x'"),
        ("fraction:1e-1:0.2:0", "found 'fraction:1e-1:0.2:0'"),
        ("fraction:0.0:0.2:0", "split 'fraction:0.0:0.2:0': train, val"),
        ("fold:5/5", "fold: expected a number from 0 to 4, found 5"),
        ("fold:0/2:1", "found 2 and 1"),
        ("fold:0/999999999", "a labelled node for each of 999999999 folds, found 240"),
        ("fold:-1/5", "found 'fold:-1/5'"),
        ("fold:0/5:" + "9" * 5000, "found 'fold:0/5:999"),
    ],
)
def test_impossible_drawn_splits(split: str, says: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(says)):
        choose_split({}, None, LABELS, split)


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
