"""Teacher outputs read by row: what comes back, what is refused, and that nothing is read that was not asked for."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import ModelOutput
from hire_jax.teachers import TeacherError, TeacherRows, save_teacher_rows

RNG = np.random.default_rng(0)
CONFIG = {"model": "RGCN", "hidden": 8}


def output():
    edge_type = ("a/b", "to", "b")
    return ModelOutput(RNG.normal(size=(5, 3)).astype("f4"),
                       ({"a/b": RNG.normal(size=(4, 8)).astype("f4"), "b": RNG.normal(size=(5, 8))},
                        {"b": jnp.asarray(RNG.normal(size=(5, 2)), jnp.bfloat16)}, {}),
                       ({edge_type: RNG.random((7, 2))},))


@pytest.fixture
def saved(tmp_path):
    made = output()
    save_teacher_rows(tmp_path / "new" / "teacher", made, config=CONFIG)
    return tmp_path / "new" / "teacher", made


@pytest.mark.parametrize("verify", [True, False])
def test_rows_are_those_of_the_nodes(saved, verify):
    folder, made = saved
    rows = TeacherRows(folder, config=CONFIG, verify=verify)
    assert rows.num_logits == 5 and rows.num_rows == {"a/b": 4, "b": 5}
    index = {"b": np.array([4, 0, 4]), "a/b": np.array([2])}
    taken = rows.take(index, "b")
    np.testing.assert_array_equal(taken.logits, made.logits[[4, 0, 4]])
    assert taken.attention == () and [set(layer) for layer in taken.hidden] == [{"a/b", "b"}, {"b"}, set()]
    for layer, expected in zip(taken.hidden, made.hidden, strict=True):
        for name, x in layer.items():
            assert x.dtype == expected[name].dtype
            np.testing.assert_array_equal(x, expected[name][index[name]])
    one = rows.take({"a/b": np.array([1])}, "b")
    assert one.logits is None and set(one.hidden[0]) == {"a/b"} and not one.hidden[1]


def test_arrays_are_mapped_and_not_read(saved):
    rows = TeacherRows(saved[0], verify=False)
    base = rows._output.logits
    while not isinstance(base, np.memmap):
        base = base.base
    assert base.filename == saved[0] / "0.npy"


def test_a_folder_is_replaced_as_a_whole(saved):
    folder, made = saved
    before = TeacherRows(folder)
    again = made._replace(logits=made.logits + 1)
    save_teacher_rows(folder, again, config=CONFIG | {"hidden": 9})
    index = {"b": np.arange(5)}
    np.testing.assert_array_equal(TeacherRows(folder).take(index, "b").logits, again.logits)
    np.testing.assert_array_equal(before.take(index, "b").logits, made.logits)  # its files are still open
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_memory_maps_can_be_saved(tmp_path):
    np.save(tmp_path / "logits.npy", RNG.normal(size=(40, 3)))
    logits = np.load(tmp_path / "logits.npy", mmap_mode="r")
    save_teacher_rows(tmp_path / "t", ModelOutput(logits, (), ()), config={})
    np.testing.assert_array_equal(TeacherRows(tmp_path / "t").take({"b": np.arange(40)}, "b").logits, logits)


def test_another_configuration(saved):
    with pytest.raises(TeacherError, match="config 'hidden': expected 9, found 8"):
        TeacherRows(saved[0], config=CONFIG | {"hidden": 9})


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_teacher_rows writes them"):
        TeacherRows(tmp_path)


def test_not_written_to_its_end(saved, monkeypatch):
    folder, made = saved

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="disk full"):
        save_teacher_rows(folder, made, config=CONFIG)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    with pytest.raises(FileNotFoundError):
        TeacherRows(folder)


def damaged_bytes(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def other_shape(path):
    np.save(path, np.load(path, allow_pickle=False)[:-1])


def truncated(path):
    path.write_bytes(path.read_bytes()[:-8])


def no_array(path):
    path.write_bytes(b"nothing")


def missing(path):
    path.unlink()


@pytest.mark.parametrize("damage, message", [
    (damaged_bytes, "expected sha256"), (other_shape, "expected <f4[5, 3], found <f4[4, 3]"),
    (truncated, "expected an array"), (no_array, "expected an array"), (missing, "expected an array")])
def test_a_damaged_array_is_named(saved, damage, message):
    damage(saved[0] / "0.npy")
    with pytest.raises(TeacherError, match=rf"0\.npy: {re.escape(message)}"):
        TeacherRows(saved[0])


@pytest.mark.parametrize("change", [
    lambda meta: [], lambda meta: {}, lambda meta: meta | {"arrays": {}}, lambda meta: meta | {"arrays": 3},
    lambda meta: meta | {"arrays": {"logits": {}}}, lambda meta: meta | {"arrays": {"logits": 7}},
    lambda meta: meta | {"arrays": meta["arrays"] | {"hidden/x/y": meta["arrays"]["logits"]}},
    lambda meta: meta | {"arrays": meta["arrays"] | {'hidden/9/"b"': meta["arrays"]["logits"]}},
    lambda meta: meta | {"arrays": {n: f | {"dtype": "no"} for n, f in meta["arrays"].items()}},
    lambda meta: meta | {"arrays": {n: f | {"shape": None} for n, f in meta["arrays"].items()}},
])  # fmt: skip
def test_a_damaged_description_is_named(saved, change):
    path = saved[0] / "teacher.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(TeacherError, match=r"teacher\.json: expected a description"):
        TeacherRows(saved[0])


def test_another_format(saved):
    path = saved[0] / "teacher.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(TeacherError, match="expected format 1, found 2"):
        TeacherRows(saved[0])
    path.write_bytes(b"\xff{")
    with pytest.raises(TeacherError, match="cannot be read"):
        TeacherRows(saved[0])


def test_what_has_no_rows_of_nodes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"logits: expected a matrix with one row a node, got \[2, 5, 3\]"):
        save_teacher_rows(tmp_path, ModelOutput(np.ones((2, 5, 3)), (), ()), config={})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_teacher_rows(tmp_path, ModelOutput(np.ones((5, 3)), (), ()), config={"a": float("nan")})
