"""The restricted unpickler loads arrays and nothing that could act."""

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from hire_jax.data import DatasetError
from hire_jax.data.unpickle import PickledCSR, load_arrays


def test_array() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    loaded = load_arrays(pickle.dumps(array, protocol=4), "here")
    assert isinstance(loaded, np.ndarray) and loaded.dtype == np.int32
    np.testing.assert_array_equal(loaded, array)


def test_csr_matrix_becomes_plain_arrays() -> None:
    matrix = scipy.sparse.random(5, 7, density=0.3, format="csr", random_state=0)
    loaded = load_arrays(pickle.dumps(matrix, protocol=4), "here")
    assert isinstance(loaded, PickledCSR) and loaded.shape == (5, 7)
    np.testing.assert_array_equal(loaded.indptr, matrix.indptr)
    np.testing.assert_array_equal(loaded.indices, matrix.indices)
    np.testing.assert_array_equal(loaded.data, matrix.data)


def test_neighbour_lists() -> None:
    graph = defaultdict(list, {0: [1, 2], 2: [0]})
    assert load_arrays(pickle.dumps(graph, protocol=2), "here") == {0: [1, 2], 2: [0]}


class Act:
    """Pickles as a call."""

    def __init__(self, *call: Any):
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def test_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with pytest.raises(DatasetError, match=r"ind\.x: expected only arrays.*(posix|nt)\.mkdir.*not loaded"):
        load_arrays(pickle.dumps(Act(os.mkdir, str(trace))), "ind.x")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Act(os.mkdir, str(trace))))  # the same bytes do act when nothing restrains them
    assert trace.exists()


@pytest.mark.parametrize(
    "bad",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x.npy'\ntR.",
        b"cnumpy\nndarray.tofile\n.",
        b"ccollections\nOrderedDict\n(tR.",
        b"cscipy.sparse\nload_npz\n(S'x'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x04pass\x85R.",
    ],
)
def test_every_other_name_is_refused(bad: bytes) -> None:
    with pytest.raises(DatasetError, match="not loaded"):
        load_arrays(bad, "here")


def test_nested_code_is_refused() -> None:
    with pytest.raises(DatasetError, match="not loaded"):
        load_arrays(pickle.dumps({0: [Act(os.getpid)]}), "here")
    with pytest.raises(DatasetError, match="not loaded"):
        load_arrays(pickle.dumps(np.array([Act(os.getpid)], dtype=object), protocol=4), "here")


@pytest.mark.parametrize("value", [1, "text", None, [1, 2], np.array(["a"]), np.array([None])])
def test_other_objects_are_refused(value: Any) -> None:
    with pytest.raises(DatasetError, match="here"):
        load_arrays(pickle.dumps(value, protocol=4), "here")


def test_a_loaded_class_is_no_way_to_change_the_next_load() -> None:
    """BUILD with slot state sets attributes on the class a pickle names; the next load has a fresh one."""
    poison = b"cscipy.sparse.csr\ncsr_matrix\n(N}S'indptr'\nI1\nstb."
    with pytest.raises(DatasetError):
        load_arrays(poison, "here")
    with pytest.raises(DatasetError, match=r"KeyError|TypeError"):
        load_arrays(b"cscipy.sparse.csr\ncsr_matrix\n)\x81.", "here")


@pytest.mark.parametrize("cut", [0, 1, 10, 60])
def test_damaged_pickle(cut: int) -> None:
    with pytest.raises(DatasetError, match="here"):
        load_arrays(pickle.dumps(np.arange(20.0), protocol=4)[:cut], "here")
