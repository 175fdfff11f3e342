"""Planetoid's form, on a hand-made graph with a gap in its test range."""

import pickle
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse

from hire_jax.data import DatasetError
from hire_jax.data.formats.planetoid import PIECES, parse_planetoid

# Nodes 0..3 come before the test range 4..7, of which 6 is absent from the source.
FEATURES = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 2], [3, 0, 0], [0, 0, 0], [0, 4, 0]])
LABELS = np.array([0, 1, 1, 0, 1, 0, -1, 1])
TEST = [7, 4, 5]


@pytest.fixture
def files() -> dict[str, bytes]:
    graph = defaultdict(
        list, {0: [1, 1, 0], 1: [0], 2: [3, 7], 4: [5]}
    )  # a duplicate, a self loop, one-way links
    one_hot = np.eye(2)[np.maximum(LABELS, 0)]
    content = {
        "x": scipy.sparse.csr_matrix(FEATURES[:2]),
        "y": one_hot[:2],
        "allx": scipy.sparse.csr_matrix(FEATURES[:4]),
        "ally": one_hot[:4],
        "tx": scipy.sparse.csr_matrix(FEATURES[TEST]),
        "ty": one_hot[TEST],
        "graph": graph,
    }
    pickled = {piece: pickle.dumps(value, protocol=4) for piece, value in content.items()}
    return pickled | {"test.index": b"7\n4\n5\n"}


def test_arrays(files: dict[str, bytes]) -> None:
    assert sorted(files) == sorted(PIECES)
    arrays = parse_planetoid(files, "tiny", num_val=2)
    assert arrays["num_nodes/node"] == 8
    parts = [arrays[f"x/node/{part}"] for part in ("data", "indices", "indptr")]
    np.testing.assert_array_equal(
        scipy.sparse.csr_matrix(tuple(parts), shape=arrays["x/node/shape"]).toarray(), FEATURES
    )
    np.testing.assert_array_equal(arrays["y/node"], LABELS)
    expected = [(0, 1), (1, 0), (2, 3), (2, 7), (3, 2), (4, 5), (5, 4), (7, 2)]
    assert [tuple(pair) for pair in arrays["edge/node__to__node"].T.tolist()] == expected
    assert arrays["split/train"].tolist() == [0, 1]
    assert arrays["split/val"].tolist() == [2, 3]
    assert arrays["split/test"].tolist() == [4, 5, 7]


@pytest.mark.parametrize(
    "piece, value, says",
    [
        ("allx", np.zeros((4, 3)), "expected a CSR matrix"),
        ("graph", np.zeros(3), "expected a dict"),
        ("ty", np.zeros((3, 2)), "one-hot"),
        ("ally", np.eye(2)[[0, 0, 0]], "agree"),
    ],
)
def test_wrong_piece(piece: str, value: np.ndarray, says: str, files: dict[str, bytes]) -> None:
    with pytest.raises(DatasetError, match=says):
        parse_planetoid(files | {piece: pickle.dumps(value, protocol=4)}, "tiny")


@pytest.mark.parametrize("index", [b"7\n4\n", b"7\n4\n4\n", b"7\n3\n5\n"])
def test_wrong_test_index(index: bytes, files: dict[str, bytes]) -> None:
    with pytest.raises(DatasetError, match=r"test\.index"):
        parse_planetoid(files | {"test.index": index}, "tiny")
