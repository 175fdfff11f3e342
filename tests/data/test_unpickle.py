"""The restricted unpickler loads arrays and nothing that could act."""

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError
from hire_jax.data.unpickle import PickledCSR, PickledSparse, load_arrays, load_nested
from tests.data.pickles import every_way


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


@pytest.mark.parametrize("code", ["?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "u4", "u8", "f2", "<f4", ">f8"])
def test_arrays_of_every_type_and_protocol(code: str) -> None:
    array = (np.arange(200) * 37 % 251 % 120).reshape(40, 5).astype(code)
    for pickled in every_way([array, array.T, array[:0], array[:1, 0]]):
        loaded = load_nested(pickled, "here")
        assert isinstance(loaded, list)
        for found, expected in zip(loaded, (array, array.T, array[:0], array[:1, 0]), strict=True):
            np.testing.assert_array_equal(found, expected)
            assert isinstance(found, np.ndarray) and found.dtype == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_matrices_of_every_form_and_protocol(form: str) -> None:
    matrix = scipy.sparse.random(5, 7, density=0.3, format=form, random_state=0)
    ends = (matrix.row, matrix.col) if form == "coo" else (matrix.indptr, matrix.indices)
    for pickled in every_way({"p-a": matrix, "a-p": matrix}):
        loaded = load_nested(pickled, "here")
        assert isinstance(loaded, dict) and list(loaded) == ["p-a", "a-p"]
        found = loaded["p-a"]
        assert isinstance(found, PickledSparse) and loaded["a-p"] is found
        assert (found.form, found.shape) == (form, (5, 7))
        for part, expected in zip(found[1:4], (*ends, matrix.data), strict=True):
            np.testing.assert_array_equal(part, expected)


def test_coo_matrix_of_old_scipy() -> None:
    """It had the attributes row and col; now it has coords."""
    matrix = scipy.sparse.coo_matrix([[0, 2.0], [1, 0]])
    state = {"_shape": (2, 2), "maxprint": 50, "row": matrix.row, "col": matrix.col, "data": matrix.data}
    pickled = b"cscipy.sparse.coo\ncoo_matrix\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b."
    found = load_nested(pickled, "here")
    assert isinstance(found, PickledSparse) and found.form == "coo"
    np.testing.assert_array_equal(found.first, [0, 1])
    np.testing.assert_array_equal(found.data, [2, 1])


def test_nested_lists_and_numbers() -> None:
    value = [[[0, 1], [2, 0]], [(np.int64(3), np.float32(0.5))], {"a": [np.bool_(True), -1, 2**40, 1.5, ""]}]
    for pickled in every_way(value):
        loaded = load_nested(pickled, "here")
        assert loaded == [[[0, 1], [2, 0]], [[3, 0.5]], {"a": [True, -1, 2**40, 1.5, ""]}]
        assert type(loaded[1][0][0]) is int and type(loaded[2]["a"][0]) is bool


def test_array_of_one_object_is_that_object() -> None:
    """numpy.savez wraps a matrix so."""
    boxed = np.empty((), object)
    boxed[()] = scipy.sparse.csr_matrix(np.eye(2))
    loaded = load_arrays(pickle.dumps(boxed, 4), "here")
    assert isinstance(loaded, PickledCSR) and loaded.shape == (2, 2)


@pytest.mark.parametrize(
    "value, says",
    [
        (None, "found NoneType"),
        (b"bytes", "found bytes"),
        ({1, 2}, "expected"),
        ({1.5: 1}, "a key of type float"),
        ({(1, 2): 1}, "a key of type tuple"),
        ({True: 1}, "a key of type bool"),
        ([2**63], "integers of 64 bits, found a value of type int with 64 bits"),
        ([-(2**63) - 1], "integers of 64 bits"),
        ({2**70: 1}, "a key of type int"),
        (np.array(["a"]), "arrays of real numbers, found an array of type 'U1'"),
        (np.array([1j]), "found an array of type 'c16'"),
        (np.array([None]), "found an array of type 'O8'"),
        (np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), "found an array of type 'V16'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "found an array of type 'M8'"),
        (np.zeros((1,) * 5), "shape as at most 4 counts"),
        (np.ma.masked_array([1.0]), "not loaded"),
        (scipy.sparse.lil_matrix(np.eye(2)), "not loaded"),
        (slice(1), "not loaded"),
        (complex(1, 2), "not loaded"),
        (bytearray(b"a"), "not loaded"),
        (type, "not loaded"),
        (len, "not loaded"),
        (list, "found Name"),
    ],
)
def test_nothing_else_is_loaded(value: Any, says: str) -> None:
    with pytest.raises(DatasetError, match=f"here: .*{says}"):
        load_nested(pickle.dumps([value], protocol=4), "here")


NUMBERS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
LEAVES = NUMBERS | st.text(max_size=4)
KEYS = st.text(max_size=2) | st.integers(0, 9)
INNER = LEAVES | st.lists(LEAVES, max_size=4) | st.dictionaries(KEYS, LEAVES, max_size=3)
NESTED = INNER | st.lists(INNER, max_size=4) | st.dictionaries(KEYS, st.lists(INNER, max_size=3), max_size=3)


@settings(max_examples=100, deadline=None)
@given(NESTED, st.integers(0, 4))
def test_numbers_texts_lists_and_dicts_come_back(value: Any, protocol: int) -> None:
    loaded = load_nested(pickle.dumps(value, protocol), "here")
    assert loaded == value and repr(loaded) == repr(value)  # True equals 1, but is not written so


SAMPLES = list(every_way([np.arange(3), scipy.sparse.csc_matrix(np.eye(2)), {"a": [[1, 2], np.float64(3)]}]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SAMPLES)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for pickled in (bytes(content), data.draw(st.binary(max_size=60)) + b"."):
        try:
            load_nested(pickled, "here")
        except DatasetError as error:
            assert str(error).startswith("here: expected")

