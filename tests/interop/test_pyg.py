"""PyTorch Geometric, on stand-ins with the same attributes; `test_real_pyg.py` holds them against the package."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hire_jax import DatasetError, GraphError, SparseFeatures
from hire_jax.interop import dataset_from_pyg, from_pyg, to_pyg

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
PARTS = ("train", "val", "test")


class Data(dict):
    """The homogeneous class: attributes of one mapping, `x` and `edge_index` always there, None if not given."""

    def __getattr__(self, name):
        if name in ("x", "edge_index", "y"):
            return self.get(name)
        raise AttributeError(name)


def test_graph(hetero, stores, expected, agree):
    data = hetero(stores)
    agree(from_pyg(data), expected)
    assert list(data.stores) == list(stores)  # nothing was made by asking


def test_dataset(hetero, stores):
    dataset = dataset_from_pyg(hetero(stores), target="paper", name="mine")
    assert dataset.labels.tolist() == [0, 1, -1, 2] and dataset.labels.dtype == np.int32
    assert {part: np.flatnonzero(mask).tolist() for part, mask in dataset.splits.items()} == {
        "train": [0], "val": [1], "test": [3]}
    assert dataset.meta == {"name": "mine", "classes": ["0", "1", "2"], "split": "masks"}


def test_one_type(tensor):
    data = Data(x=tensor(np.eye(3, dtype=np.float32)), edge_index=tensor([[0, 1], [1, 2]]), y=tensor([[0], [1], [1]]),
                train_mask=tensor([True, False, False]), test_mask=tensor([False, False, True]),
                val_mask=tensor([False, True, False]))
    dataset = dataset_from_pyg(data, target="node")
    assert dataset.graph.num_edges == {("node", "to", "node"): 2} and dataset.labels.tolist() == [0, 1, 1]


def test_sizes_without_features(hetero, tensor):
    stores = {"a": {"y": tensor([0, 1])}, "b": {"x": None, "test_mask": tensor([True])}, "c": {"num_nodes": 0}}
    assert from_pyg(hetero(stores)).num_nodes == {"a": 2, "b": 1, "c": 0}


@pytest.mark.parametrize("layout", ["torch.sparse_coo", "torch.sparse_csr", "torch.sparse_csc"])
def test_sparse_features_stay_sparse(hetero, stores, expected, tensor, layout):
    dense = np.asarray(expected.features["paper"])
    stores["paper"]["x"] = tensor(dense, layout)
    found = from_pyg(hetero(stores)).features["paper"]
    assert isinstance(found, SparseFeatures) and found.nnz == 4
    np.testing.assert_array_equal(found.todense(), dense)


def test_other_dtypes(hetero, stores, tensor):
    stores["paper"]["x"] = tensor([1, 2, 3, 4])
    assert from_pyg(hetero(stores)).features["paper"].tolist() == [[1.0], [2.0], [3.0], [4.0]]
    stores["paper"]["x"] = tensor([[1.5], [2], [3], [4]], dtype="torch.bfloat16")
    assert from_pyg(hetero(stores)).features["paper"].tolist() == [[1.5], [2.0], [3.0], [4.0]]


@pytest.mark.parametrize("y, labels", [
    ([[0.0], [1.0], [np.nan], [1.0]], [0, 1, -1, 1]),
    ([[1, 0], [0, 0], [-1, -1], [1, 1]], [[1, 0], [0, 0], [-1, -1], [1, 1]]),
    ([[1.0, 0], [0, 0], [np.nan, np.nan], [1, 1]], [[1, 0], [0, 0], [-1, -1], [1, 1]]),
    ([True, False, True, True], [1, 0, 1, 1]),
])
def test_forms_of_labels(hetero, stores, tensor, y, labels):
    stores["paper"]["y"] = tensor(y)
    dataset = dataset_from_pyg(hetero(stores), target="paper")
    assert dataset.labels.tolist() == labels and dataset.num_classes == 2
    assert dataset.multilabel == (np.ndim(labels) == 2)


def test_masks_of_several_splits(hetero, stores, tensor):
    for part in PARTS:
        mask = stores["paper"][f"{part}_mask"].array
        stores["paper"][f"{part}_mask"] = tensor(np.stack([np.roll(mask, 0), mask], axis=1))
    dataset = dataset_from_pyg(hetero(stores), target="paper", split=1)
    assert np.flatnonzero(dataset.splits["test"]).tolist() == [3] and dataset.meta["split"] == "masks 1"
    for split, found in ((None, "None"), (2, "2"), (-1, "-1"), (True, "True")):
        with pytest.raises(DatasetError, match=rf"train: expected split= from 0 to 1, .* found {found}"):
            dataset_from_pyg(hetero(stores), target="paper", split=split)


def test_what_is_drawn(hetero, tensor):
    y, train = np.arange(30) % 3, np.arange(30) < 20
    store = {"y": tensor(y), "train_mask": tensor(train), "test_mask": tensor(~train)}
    dataset = dataset_from_pyg(hetero({"a": store}), target="a", seed=4)
    assert dataset.splits["train"].sum() == 16 and dataset.splits["val"].sum() == 4
    assert dataset.meta["split"] == "masks:4"
    dataset = dataset_from_pyg(hetero({"a": {"y": tensor(y)}}), target="a", train_per_class=2, val_per_class=3)
    assert [int(dataset.splits[part].sum()) for part in PARTS] == [6, 9, 15]
    assert dataset.meta["split"] == "random:0 (2 + 3 a class)"


def change(key, name, value):
    def apply(stores, tensor):
        if value is None:
            del stores[key][name]
        else:
            stores[key][name] = tensor(value) if isinstance(value, list | np.ndarray) else value

    return apply


BAD = {
    "no size": (change("author", "num_nodes", None), r"node type 'author': expected num_nodes or x, found \[\]"),
    "a size of another kind": (change("author", "num_nodes", 2.5), r"num_nodes\['author'\] must be an integer"),
    "no edges": (change(CITES, "edge_index", None), r"relation \(paper, cites, paper\): expected edge_index, found "
                 r"\['edge_weight'\]; a transposed adjacency adj_t"),
    "an index too large": (change(CITES, "edge_index", [[0], [4]]), r"\(paper, cites, paper\): receiver of edge 0 is "
                                                                    r"4"),
    "edges of another shape": (change(CITES, "edge_index", [[0, 1]]), r"edges must have shape \[2, E\]"),
    "float edges": (change(CITES, "edge_index", [[0.0], [1.0]]), r"edges must be integers, got float64"),
    "features of another size": (change("paper", "num_nodes", 5), r"features of 'paper' have 4 rows, expected 5"),
    "NaN": (change("paper", "x", [[np.nan]] * 4), r"features of 'paper': the value at \(0, 0\) is nan"),
    "attributes of two lengths": (change(WRITES, "edge_weight", [1.0]), r"relation \(author, writes, paper\): expected "
                                  r"edge_attr and edge_weight of one length, found shapes \[\[3, 2\], \[1\]\]"),
    "labels twice as long": (change("paper", "y", [0, 1] * 4), r"labels: expected integers of shape \[4\], found "
                                                               r"int32 of "
                             r"shape \[8\]"),
    "no labels": (change("paper", "y", None), r"node type 'paper': expected labels y, found \['test_mask', "
                                              r"'train_mask'"),
    "labels with fractions": (change("paper", "y", [0.0, 0.5, 1, 1]), r"'paper': y: expected integers from -1 "
                              r"\(unlabelled\) to 99999, found 0.5 \(float\) at \[1\]"),
    "labels that are ids": (change("paper", "y", [10**9, 1, 2, 3]), r"'paper': y: expected integers from -1 .* to "
                                                                    r"99999"),
    "labels below -1": (change("paper", "y", [-2, 1, 2, 3]), r"found -2 \(int\) at \[0\]"),
    "labels of one class": (change("paper", "y", [0, 0, 0, 0]), r"y: expected labels of at least two classes, found 1"),
    "a cube of labels": (change("paper", "y", np.zeros((4, 2, 2))), r"y: expected class numbers \[N\] or multi-hot"),
    "complex labels": (change("paper", "y", np.zeros(4, complex)), r"y: .* found complex128 of shape \[4\]"),
    "masks of numbers": (change("paper", "val_mask", [0, 1, 0, 0]), r"'paper': masks: val: expected a bool mask of 4 "
                         r"nodes, found int64 of shape \[4\]"),
    "a short mask": (change("paper", "val_mask", [True]), r"masks: val: expected a bool mask of 4 nodes, found bool of "
                     r"shape \[1\]"),
    "masks that overlap": (change("paper", "val_mask", [True, True, False, False]), r"splits: val: expected labelled "
                           "nodes, each in one part, found node 0 which is also in another part"),
    "no test mask": (change("paper", "test_mask", None), r"masks: expected nodes for training and for testing, found "
                     "none for 'test'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data(hetero, stores, tensor, case):
    apply, message = BAD[case]
    apply(stores, tensor)
    with pytest.raises((GraphError, DatasetError), match=message):
        dataset_from_pyg(hetero(stores), target="paper")


def test_other_objects(hetero, stores, tensor):
    for data in (None, {}, 5, np.zeros(3)):
        with pytest.raises(GraphError, match=r"expected a HeteroData or Data of PyTorch Geometric, found"):
            from_pyg(data)
    with pytest.raises(DatasetError, match=r"target: expected one of \['paper', 'author'\], found 'venue'"):
        dataset_from_pyg(hetero(stores), target="venue")
    with pytest.raises(DatasetError, match=r"target: expected one of \['paper', 'author'\], found \['paper'\]"):
        dataset_from_pyg(hetero(stores), target=["paper"])
    with pytest.raises(DatasetError, match=r"split=0, found one"):
        dataset_from_pyg(hetero(stores), target="paper", split=0)
    stores["paper"]["x"] = object()
    with pytest.raises(GraphError, match=r"features of 'paper'"):
        from_pyg(hetero(stores))
    stores["paper"] |= {"num_nodes": 4, "x": tensor(np.zeros((2, 2)), "torch.sparse_csr")}
    with pytest.raises(GraphError, match=r"features of 'paper': expected a sparse matrix of 4 rows, found shape"):
        from_pyg(hetero(stores))
    stores["paper"]["x"] = tensor(np.full((4, 2), np.inf), "torch.sparse_csr")
    with pytest.raises(GraphError, match=r"features of 'paper': expected a sparse matrix of finite numbers, found one "
                                         r"that cannot be read \(ValueError: data\[0\] is not finite\)"):
        from_pyg(hetero(stores))
    stores[CITES]["edge_index"] = tensor(np.eye(4), "torch.sparse_coo")
    stores["paper"]["x"] = tensor(np.ones((4, 1)))
    with pytest.raises(GraphError, match=r"expected a dense tensor, found one of layout torch.sparse_coo"):
        from_pyg(hetero(stores))


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
def test_without_torch_the_error_says_so(expected):
    with pytest.raises(ImportError, match=r"to_pyg needs torch and torch_geometric, which you install yourself: No "
                                          r"mod"):
        to_pyg(expected)


def test_importing_the_room_imports_no_other_library():
    program = ("import sys, hire_jax.interop; print(sorted({m.split('.')[0] for m in sys.modules} & "
               "{'torch', 'torch_geometric', 'dgl', 'networkx', 'pandas', 'polars', 'pyarrow'}))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
