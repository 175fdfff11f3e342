"""A small graph as tables, and stand-ins for torch's tensors and PyG's HeteroData, which the suite does without."""

import copy
from typing import Any

import jax
import numpy as np
import pytest

from hire_jax import HeteroGraph

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
NODES = {
    "paper": {
        "id": ["p3", "p1", "p2", "p4", "p5", "p6"],
        "year": [2003, 2001, 2002, 2004, 2005, 2006],
        "length": [8.5, 4.0, 6.25, 1.0, 2.0, 3.0],
        "venue": ["kdd", "www", "kdd", "acl", "www", "kdd"],
        "topic": ["graphs", "text", "graphs", "text", None, "text"],
        "part": ["train", "train", "val", "val", None, "test"],
    },
    "author": {"id": [70, 10, 30]},
}
EDGES = {
    WRITES: {"source": [10, 10, 70], "destination": ["p1", "p2", "p3"], "share": [0.5, 1.0, 0.25]},
    CITES: {"source": ["p2", "p3", "p2"], "destination": ["p1", "p1", "p3"]},
}
TASK = {"target": "paper", "label": "topic", "split": "part", "categorical": {"paper": ["venue"]}}


@pytest.fixture
def nodes() -> dict[str, dict[str, Any]]:
    return copy.deepcopy(NODES)


@pytest.fixture
def edges() -> dict[tuple[str, str, str], dict[str, Any]]:
    return copy.deepcopy(EDGES)


@pytest.fixture
def task() -> dict[str, Any]:
    return copy.deepcopy(TASK)


@pytest.fixture
def agree():
    """agree(left, right): asserts that two graphs are equal in everything, to the order of types."""

    def check(left, right):
        assert left.counts == right.counts and left.edge_types == right.edge_types
        assert jax.tree.structure(left) == jax.tree.structure(right)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
            np.testing.assert_array_equal(a, b)

    return check


class Tensor:
    """As much of a torch tensor as is read: a tensor that needs a gradient, on some device, dense or sparse."""

    def __init__(self, array, layout="torch.strided", dtype=None):
        self.array = np.asarray(array)
        self.layout = layout
        self.shape = self.array.shape
        self.dtype = dtype or f"torch.{self.array.dtype}"
        self.steps: tuple[str, ...] = ()

    def step(self, name, after=()):
        assert set(after) <= set(self.steps), f"torch refuses {name}() before {after}"
        result = Tensor(self.array, self.layout, self.dtype)
        result.steps = (*self.steps, name)
        return result

    def detach(self):
        return self.step("detach")

    def cpu(self):
        return self.step("cpu")

    def float(self):
        return Tensor(self.array.astype(np.float32)).detach().cpu()

    def numpy(self):
        self.step("numpy", after=("detach", "cpu"))
        if self.dtype == "torch.bfloat16" or self.layout != "torch.strided":
            raise TypeError("Got unsupported ScalarType or layout")
        return self.array

    def to_sparse_coo(self):
        return self.step("to_sparse_coo")

    def coalesce(self):
        return self.step("coalesce", after=("to_sparse_coo",))

    def indices(self):
        self.step("indices", after=("coalesce",))
        return Tensor(np.stack(np.nonzero(self.array))).detach().cpu()

    def values(self):
        self.step("values", after=("coalesce",))
        return Tensor(self.array[np.nonzero(self.array)])


@pytest.fixture
def tensor():
    """tensor(array, layout="torch.strided", dtype=None)."""
    return Tensor


class HeteroData:
    """As much of PyG's class as is read: stores are mappings, made when they are asked for."""

    def __init__(self, stores):
        self.stores = {key: dict(store) for key, store in stores.items()}

    @property
    def node_types(self):
        return [key for key in self.stores if isinstance(key, str)]

    @property
    def edge_types(self):
        return [key for key in self.stores if isinstance(key, tuple)]

    def __getitem__(self, key):
        return self.stores.setdefault(key, {})


@pytest.fixture
def hetero():
    """hetero(stores): a stand-in for PyG's HeteroData."""
    return HeteroData


@pytest.fixture
def stores(tensor):
    """{node or edge type: attributes} of a small HeteroData."""
    return {
        "paper": {"x": tensor([[1.0, 0], [0, 2], [0, 0], [3, 4]]), "y": tensor([0, 1, -1, 2]),
                  "train_mask": tensor([True, False, False, False]), "val_mask": tensor([False, True, False, False]),
                  "test_mask": tensor([False, False, False, True])},
        "author": {"num_nodes": 3},
        WRITES: {"edge_index": tensor([[2, 0, 1], [3, 1, 0]]), "edge_attr": tensor([[1.0, 2], [3, 4], [5, 6]]),
                 "edge_weight": tensor([7.0, 8, 9])},
        CITES: {"edge_index": tensor([[0], [3]]), "edge_weight": tensor([0.5])},
    }


@pytest.fixture
def expected():
    """The graph of `stores`."""
    return HeteroGraph.from_arrays(
        {"paper": 4, "author": 3}, {WRITES: [[2, 0, 1], [3, 1, 0]], CITES: [[0], [3]]},
        {"paper": np.array([[1, 0], [0, 2], [0, 0], [3, 4]], np.float32)},
        {WRITES: np.array([[1, 2, 7], [3, 4, 8], [5, 6, 9]], np.float32), CITES: np.array([0.5], np.float32)})
