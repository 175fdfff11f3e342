"""Teacher outputs read by row: what comes back, what is refused, and that nothing is read that was not asked for."""

import hashlib
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


def file_of(folder, name="logits"):
    return folder / json.loads((folder / "teacher.json").read_text())["arrays"][name]["file"]


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
    assert base.filename == file_of(saved[0])


def test_a_folder_is_replaced_as_a_whole(saved):
    folder, made = saved
    before = TeacherRows(folder)
    again = made._replace(logits=made.logits + 1)
    save_teacher_rows(folder, again, config=CONFIG | {"hidden": 9})
    index = {"b": np.arange(5)}
    np.testing.assert_array_equal(TeacherRows(folder).take(index, "b").logits, again.logits)
    np.testing.assert_array_equal(before.take(index, "b").logits, made.logits)  # its files are still open
    meta = json.loads((folder / "teacher.json").read_text())
    assert {path.name for path in folder.iterdir()} == {"teacher.json", *(f["file"] for f in meta["arrays"].values())}


def test_files_of_others_stay(saved):
    folder, made = saved
    np.save(folder / "rows.npy", np.ones(3))
    save_teacher_rows(folder, made._replace(hidden=()), config={})
    assert (folder / "rows.npy").exists() and len(list(folder.iterdir())) == 4 and not TeacherRows(folder).num_rows


def test_arrays_of_the_same_bytes_are_kept_apart(tmp_path):
    """No byte at all, in this case, and two shapes."""
    save_teacher_rows(tmp_path, ModelOutput(np.ones((0, 3)), ({"a": np.ones((0, 2))},), ()), config={})
    taken = TeacherRows(tmp_path).take({"a": np.zeros(0, int)}, "a")
    assert taken.logits.shape == (0, 3) and taken.hidden[0]["a"].shape == (0, 2)


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


def full(*_, **__):
    raise OSError("disk full")


@pytest.mark.parametrize("at", [0, 2, "description"])
def test_a_full_disk_leaves_the_old_teacher(saved, monkeypatch, at):
    """In whichever array it comes, or in the description."""
    folder, made = saved
    before, calls = sorted(path.name for path in folder.iterdir()), []

    def write(file, array, real=np.lib.format.write_array, **options):
        calls.append(array.shape)
        return full() if len(calls) - 1 == at else real(file, array, **options)

    monkeypatch.setattr(np.lib.format, "write_array", write)
    if at == "description":
        monkeypatch.setattr("hire_jax.teachers.rows.write_whole", full)
    again = made._replace(logits=made.logits + 1, hidden=({"a/b": np.ones((4, 1))},))
    with pytest.raises(OSError, match="disk full"):
        save_teacher_rows(folder, again, config={})
    assert len(calls) == (at + 1 if at != "description" else 3)
    assert sorted(path.name for path in folder.iterdir()) == before
    index = {"b": np.arange(5)}
    np.testing.assert_array_equal(TeacherRows(folder, config=CONFIG).take(index, "b").logits, made.logits)


def test_what_a_killed_writer_left_is_no_teacher_and_goes_with_the_next(tmp_path, monkeypatch):
    made, killed = output(), tmp_path / ".rows-0123456789abcdef.npy.77.partial"
    with monkeypatch.context() as patch:
        patch.setattr("hire_jax.teachers.rows.write_whole", full)
        patch.setattr("hire_jax.teachers.rows._tidy", lambda folder: None)
        with pytest.raises(OSError, match="disk full"):
            save_teacher_rows(tmp_path, made._replace(logits=made.logits + 1), config={})
    killed.write_bytes(b"half")
    left = set(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        TeacherRows(tmp_path)
    save_teacher_rows(tmp_path, made, config={})
    assert len(left - set(tmp_path.iterdir())) == 2 and not killed.exists()  # and the logits
    assert TeacherRows(tmp_path).num_logits == 5


def test_a_damaged_description_is_left_to_be_looked_at(saved, monkeypatch):
    folder, made = saved
    (folder / "teacher.json").write_text("{")
    monkeypatch.setattr("hire_jax.teachers.rows.write_whole", full)
    with pytest.raises(OSError, match="disk full"):
        save_teacher_rows(folder, made, config={})
    assert (folder / "teacher.json").read_text() == "{" and len(list(folder.glob("rows-*.npy"))) == 5


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
    path = file_of(saved[0])
    damage(path)
    with pytest.raises(TeacherError, match=re.escape(f"{path}: {message}")):
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
    path.write_text(json.dumps(signed(change(json.loads(path.read_text())))))
    with pytest.raises(TeacherError, match=r"teacher\.json: expected a description"):
        TeacherRows(saved[0])


def signed(meta):
    """A description with the checksum that goes with it, if it has one."""
    if "sha256" in meta:
        plain = {name: value for name, value in meta.items() if name != "sha256"}
        meta["sha256"] = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return meta


@pytest.mark.parametrize("change", [{"config": CONFIG | {"hidden": 9}}, {"hire_jax": "0"}, {"more": 1}])
def test_an_edited_description(saved, change):
    path = saved[0] / "teacher.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | change))
    with pytest.raises(TeacherError, match=rf"teacher\.json: expected sha256 {meta['sha256']}, found .* was edited"):
        TeacherRows(saved[0], config=CONFIG | {"hidden": 9})


def test_another_format(saved):
    path = saved[0] / "teacher.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(TeacherError, match="expected format 2, found 1"):
        TeacherRows(saved[0])
    path.write_bytes(b"\xff{")
    with pytest.raises(TeacherError, match="cannot be read"):
        TeacherRows(saved[0])


def test_layers_of_different_numbers_of_nodes(saved):
    uneven = ModelOutput(np.ones((5, 3)), ({"a": np.ones((4, 2))}, {}, {"a": np.ones((9, 2))}), ())
    message = "layer 2 has embeddings of 9 nodes of 'a', an earlier one of 4"
    with pytest.raises(ValueError, match=message):
        save_teacher_rows(saved[0], uneven, config={})
    path = saved[0] / "teacher.json"
    meta = json.loads(path.read_text())
    layers = meta["arrays"]
    layers['hidden/1/"b"'] = layers['hidden/0/"a/b"']
    path.write_text(json.dumps(signed(meta)))
    with pytest.raises(TeacherError, match="layer 1 has embeddings of 4 nodes of 'b', an earlier one of 5"):
        TeacherRows(saved[0])


def test_what_has_no_rows_of_nodes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"logits: expected a matrix with one row a node, got \[2, 5, 3\]"):
        save_teacher_rows(tmp_path, ModelOutput(np.ones((2, 5, 3)), (), ()), config={})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_teacher_rows(tmp_path, ModelOutput(np.ones((5, 3)), (), ()), config={"a": float("nan")})
