"""The Dataset class checks what it is given."""

import dataclasses

import jax.numpy as jnp
import pytest

from hire_jax.data import Dataset, DatasetError, synthetic_hetero


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return synthetic_hetero(seed=0)


def test_is_frozen(dataset: Dataset) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.target = "user"  # type: ignore[misc]


def test_refuses_an_unknown_target(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"target: expected one of .*'item'.* found 'ghost'"):
        dataclasses.replace(dataset, target="ghost")


def test_refuses_labels_of_another_type(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"labels: expected integers of shape \[200\]"):
        dataclasses.replace(dataset, target="user")


def test_refuses_too_few_classes(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="labels: expected values from -1 to 1"):
        dataclasses.replace(dataset, num_classes=2)


def test_refuses_missing_parts(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="splits: expected the parts"):
        dataclasses.replace(dataset, splits={"train": dataset.splits["train"]})


def test_refuses_indices_for_masks(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="splits: val: expected a bool mask"):
        dataclasses.replace(dataset, splits=dataset.splits | {"val": jnp.arange(5)})


def test_refuses_overlap(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match=r"splits: val: .* also in another part"):
        dataclasses.replace(dataset, splits=dataset.splits | {"val": dataset.splits["train"]})


def test_refuses_unlabelled_nodes_in_a_split(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="has no label"):
        dataclasses.replace(dataset, labels=jnp.full_like(dataset.labels, -1))
