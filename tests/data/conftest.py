"""A small valid dataset in the npz form, to be broken by tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hire_jax.data import write_npz


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests of the search order must not see the folders of whoever runs them."""
    monkeypatch.delenv("HIRE_JAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no cache"))


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Ten papers (one unlabelled, three classes), three authors with dense features, two tags without."""
    return {
        "num_nodes/paper": np.array(10, np.int32),
        "num_nodes/author": np.array(3, np.int32),
        "num_nodes/tag": np.array(2, np.int32),
        "x/paper/indptr": np.arange(11, dtype=np.int32),
        "x/paper/indices": np.arange(10, dtype=np.int32) % 4,
        "x/paper/data": np.arange(1, 11, dtype=np.float32),
        "x/paper/shape": np.array([10, 4], np.int32),
        "x/author": np.arange(6, dtype=np.float32).reshape(3, 2),
        "edge/author__writes__paper": np.array([[0, 1, 2, 0], [0, 3, 9, 5]], np.int32),
        "edge/paper__has__tag": np.zeros((2, 0), np.int32),
        "y/paper": np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, -1], np.int32),
        "split/train": np.array([0, 1, 2, 3, 4], np.int32),
        "split/test": np.array([5, 6], np.int32),
        "split/full/train": np.array([0, 1], np.int32),
        "split/full/val": np.array([2, 3], np.int32),
        "split/full/test": np.array([8, 4], np.int32),
    }


@pytest.fixture
def meta() -> dict[str, Any]:
    return {
        "name": "tiny",
        "target": "paper",
        "classes": ["a", "b", "c"],
        "multilabel": False,
        "default_split": "",
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(arrays, meta) -> path of tiny.npz."""

    def write_tiny(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Path:
        path = tmp_path / "tiny.npz"
        write_npz(path, arrays, meta)
        return path

    return write_tiny
