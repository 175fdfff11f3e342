"""PyTorch Geometric itself, where it is installed: the stand-ins are faithful to it, and graphs go both ways."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import hire_jax as hj
from hire_jax import GraphError, SparseFeatures
from hire_jax.interop import dataset_from_pyg, from_pyg, to_pyg

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
PARTS = ("train", "val", "test")


@pytest.fixture
def torch():
    """torch, where torch_geometric is there too, with the deprecations that importing it warns of kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("torch", reason="torch is not installed: these need PyTorch Geometric itself")
        pytest.importorskip("torch_geometric.data", reason="PyTorch Geometric is not installed")
    return module


def real(torch, stores):
    from torch_geometric.data import HeteroData

    data = HeteroData()
    for key, store in stores.items():
        for name, value in store.items():
            data[key][name] = torch.from_numpy(np.array(value.array)) if hasattr(value, "array") else value
    return data


def test_the_stand_in_is_faithful(hetero, torch, stores, agree):
    """What is read from the stand-in and from PyG's own object is the same."""
    data = real(torch, stores)
    data["paper"].x.requires_grad_()
    assert data.validate()
    agree(from_pyg(data), from_pyg(hetero(stores)))
    left, right = (dataset_from_pyg(d, target="paper") for d in (data, hetero(stores)))
    assert left.labels.tolist() == right.labels.tolist() and left.meta == right.meta
    assert data.node_types == ["paper", "author"] and data.edge_types == [WRITES, CITES]


def test_real_data_that_lacks_something(torch, stores):
    data = real(torch, stores)
    del data[CITES].edge_index
    with pytest.raises(GraphError, match=r"expected edge_index, found \['edge_weight'\]"):
        from_pyg(data)
    del data["author"].num_nodes
    with pytest.raises(GraphError, match=r"node type 'author': expected num_nodes or x, found \[\]"):
        from_pyg(data)


def test_round_trip(torch, awkward, agree):
    data = to_pyg(awkward)  # its entry that is there twice becomes one, their sum
    assert data.validate() and data.num_nodes == 15
    assert data["author"].x.layout == torch.sparse_coo and "x" not in data["venue"]
    assert data["venue", "hosts", "author"].edge_index.shape == (2, 0)
    found = from_pyg(data)
    np.testing.assert_array_equal(found.features["author"].todense(), awkward.features["author"].todense())
    agree(found.keep_features(["paper"]), awkward.keep_features(["paper"]))


def test_round_trip_of_a_dataset(hetero, torch, stores, agree):
    dataset = dataset_from_pyg(hetero(stores), target="paper")
    again = dataset_from_pyg(to_pyg(dataset), target="paper")
    agree(again.graph, dataset.graph)
    np.testing.assert_array_equal(again.labels, dataset.labels)
    for part in PARTS:
        np.testing.assert_array_equal(again.splits[part], dataset.splits[part])
    rows = [[1, 0], [0, 0], [-1, -1], [1, 1]]
    several = hj.Dataset(dataset.graph, "paper", jnp.asarray(rows), dataset.splits, 2, True, {})
    assert dataset_from_pyg(to_pyg(several), target="paper").labels.tolist() == rows


def test_a_real_homogeneous_graph(torch):
    from torch_geometric.data import Data as RealData

    data = RealData(x=torch.eye(3), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([0, 1, 1]),
                    train_mask=torch.tensor([True, False, False]), val_mask=torch.tensor([False, True, False]),
                    test_mask=torch.tensor([False, False, True]))
    dataset = dataset_from_pyg(data, target="node")
    assert dataset.graph.num_nodes == {"node": 3} and dataset.graph.num_edges == {("node", "to", "node"): 2}


@pytest.mark.parametrize("form", ["to_sparse_coo", "to_sparse_csr", "to_sparse_csc"])
@pytest.mark.filterwarnings("ignore:Sparse C")
def test_real_sparse_tensors(torch, stores, expected, form):
    data = real(torch, stores)
    data["paper"].x = getattr(data["paper"].x, form)()
    found = from_pyg(data).features["paper"]
    assert isinstance(found, SparseFeatures)
    np.testing.assert_array_equal(found.todense(), expected.features["paper"])


def test_real_tensors_that_do_not_fit(torch, stores):
    data = real(torch, stores)
    for x, message in ((torch.zeros(4, 2, 2).to_sparse_coo(), r"expected a sparse matrix of 4 rows, found shape \[4, "
                                                              r"2, 2\]"),
                       (torch.full((4, 1), float("nan")).to_sparse_coo(), r"data\[0\] is not finite"),
                       (torch.zeros(4, 2, dtype=torch.complex64), r"must be numbers, got complex64"),
                       (torch.zeros(4, 2, device="meta"), r"expected a tensor that converts to numpy")):
        data["paper"].x = x
        with pytest.raises(GraphError, match=message):
            from_pyg(data)
    data["paper"].x = torch.ones(4, 2, dtype=torch.bfloat16)
    assert from_pyg(data).features["paper"].dtype == jnp.float32
