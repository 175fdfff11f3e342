"""DGL: on a stand-in with its methods and attributes. DGL gets no more releases and could not be installed here."""

from types import SimpleNamespace

import numpy as np
import pytest

from hire_jax import DatasetError, GraphError, HeteroGraph, SparseFeatures
from hire_jax.interop import dataset_from_dgl, from_dgl

FOLLOWS, PLAYS = ("user", "follows", "user"), ("user", "plays", "game")


class Edges:
    """`graph.edges`: called, the ends of a relation; indexed, its data."""

    def __init__(self, ends, data):
        self.ends, self.data = ends, data

    def __call__(self, form="uv", order="eid", etype=None):
        assert (form, order) == ("uv", "eid")
        return self.ends[etype]

    def __getitem__(self, etype):
        return SimpleNamespace(data=self.data[etype])


class DGLGraph:
    """As much of DGL's class as is read."""

    def __init__(self, counts, ends, node_data, edge_data):
        self.ntypes, self.canonical_etypes, self.counts = list(counts), list(ends), counts
        self.nodes = {name: SimpleNamespace(data=node_data.get(name, {})) for name in counts}
        self.edges = Edges(ends, {edge_type: edge_data.get(edge_type, {}) for edge_type in ends})

    def num_nodes(self, ntype):
        return self.counts[ntype]


@pytest.fixture
def parts(tensor):
    """The arguments of a stand-in, to be changed by tests."""
    masks = {f"{part}_mask": tensor(np.arange(4) == i) for i, part in enumerate(("train", "val", "test"))}
    return {
        "counts": {"user": 4, "game": 2},
        "ends": {FOLLOWS: (tensor([1, 0]), tensor([0, 3])), PLAYS: (tensor([3, 1, 2]), tensor([1, 0, 0]))},
        "node_data": {"user": {"feat": tensor(np.eye(4, dtype=np.float32)), "label": tensor([0, 1, 1, -1]), **masks}},
        "edge_data": {PLAYS: {"hours": tensor(np.array([5, 6, 7], np.float32))}},
    }


def test_graph(parts, agree):
    agree(from_dgl(DGLGraph(**parts), edge_features="hours"), HeteroGraph.from_arrays(
        {"user": 4, "game": 2}, {FOLLOWS: [[1, 0], [0, 3]], PLAYS: [[3, 1, 2], [1, 0, 0]]},
        {"user": np.eye(4, dtype=np.float32)}, {PLAYS: np.array([5, 6, 7], np.float32)}))


def test_dataset(parts):
    dataset = dataset_from_dgl(DGLGraph(**parts), target="user", name="mine")
    assert dataset.labels.tolist() == [0, 1, 1, -1]
    assert {part: np.flatnonzero(mask).tolist() for part, mask in dataset.splits.items()} == {
        "train": [0], "val": [1], "test": [2]}
    assert dataset.meta == {"name": "mine", "classes": ["0", "1"], "split": "masks"}
    assert dataset.graph.relations[PLAYS].edges is None


def test_masks_of_numbers_and_sparse_features(parts, tensor):
    data = parts["node_data"]["user"]
    for part in ("train", "val", "test"):
        data[f"{part}_mask"] = tensor(data[f"{part}_mask"].array.astype(np.uint8))
    data["feat"] = tensor(np.eye(4), "torch.sparse_csr")
    dataset = dataset_from_dgl(DGLGraph(**parts), target="user")
    assert np.flatnonzero(dataset.splits["test"]).tolist() == [2]
    assert isinstance(dataset.graph.features["user"], SparseFeatures)


def test_one_type_and_no_features(tensor):
    edge_type = ("_N", "_E", "_N")
    ends = {edge_type: (tensor([0, 1]), tensor([1, 2]))}
    graph = DGLGraph({"_N": 3}, ends, {}, {})
    assert from_dgl(graph).num_edges == {edge_type: 2} and not from_dgl(graph).features
    graph = DGLGraph({"_N": 3}, ends, {"_N": {"h": tensor(np.ones((3, 2)))}}, {})
    assert from_dgl(graph, features="h").features["_N"].shape == (3, 2)
    assert not from_dgl(graph, features=None).features


def test_bad_graphs(parts, tensor):
    with pytest.raises(GraphError, match=r"expected a DGLGraph, found list without ntypes"):
        from_dgl([])
    with pytest.raises(GraphError, match=r"features: expected data named 'h' of one type at least, found \['feat', "
                                         r"'label', "
                                         r"'test_mask', 'train_mask', 'val_mask'\]; features=None takes none"):
        from_dgl(DGLGraph(**parts), features="h")
    with pytest.raises(GraphError, match=r"edge_features: expected data named 'w' of one type at least, found "
                                         r"\['hours'\]"):
        from_dgl(DGLGraph(**parts), edge_features="w")
    with pytest.raises(DatasetError, match=r"node type 'user': expected labels 'y', found \['feat', 'label'"):
        dataset_from_dgl(DGLGraph(**parts), target="user", label="y")
    with pytest.raises(DatasetError, match=r"node type 'user': expected labels \[\], found \['feat'"):
        dataset_from_dgl(DGLGraph(**parts), target="user", label=[])
    with pytest.raises(GraphError, match=r"features: expected a name or None, found \[\]"):
        from_dgl(DGLGraph(**parts), features=[])
    with pytest.raises(DatasetError, match=r"target: expected one of \['user', 'game'\], found 'player'"):
        dataset_from_dgl(DGLGraph(**parts), target="player")
    parts["ends"][PLAYS] = (tensor([3, 1]), tensor([1]))
    with pytest.raises(GraphError, match=r"relation \(user, plays, game\): edges must have shape \[2, E\]"):
        from_dgl(DGLGraph(**parts))
    parts["ends"][PLAYS] = (tensor([4]), tensor([1]))
    with pytest.raises(GraphError, match=r"sender of edge 0 is 4, outside \[0, 4\) of node type 'user'"):
        from_dgl(DGLGraph(**parts))
    parts["ends"][PLAYS] = (tensor([3]), tensor([1]))
    parts["node_data"]["user"]["train_mask"] = tensor(np.array([2, 0, 0, 0], np.uint8))
    with pytest.raises(DatasetError, match=r"node type 'user': masks: train: expected a bool mask of 4 nodes, found "
                                           r"uint8"):
        dataset_from_dgl(DGLGraph(**parts), target="user")
