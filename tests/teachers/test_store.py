"""Teacher outputs on disk: round trip, checksum, configuration, and files that are none."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import ModelOutput
from hire_jax.losses import soft_target_kl
from hire_jax.teachers import TeacherError, load_teacher, save_teacher

RNG = np.random.default_rng(0)
CONFIG = {"model": "RGCN", "seeds": [0, 1], "hidden": 8}


def output():
    edge_type = ("a/b", 'to "x"', "b")
    return ModelOutput(
        RNG.normal(size=(2, 5, 3)).astype("f4"),
        ({"a/b": RNG.normal(size=(2, 4, 8)).astype("f4"), "b": RNG.normal(size=(2, 5, 8))}, {"b": np.ones((2, 5, 8))},
         {}),
        ({edge_type: RNG.random((7, 2)).astype("f2")}, {}))


@pytest.fixture
def saved(tmp_path):
    made = output()
    save_teacher(tmp_path / "new" / "teacher.npz", made, config=CONFIG)
    return tmp_path / "new" / "teacher.npz", made


def test_round_trip(saved):
    path, made = saved
    for loaded in (load_teacher(path), load_teacher(path, config={"hidden": 8, "model": "RGCN", "seeds": (0, 1)})):
        np.testing.assert_array_equal(loaded.logits, made.logits)
        for ours, theirs in ((loaded.hidden, made.hidden), (loaded.attention, made.attention)):
            assert [set(layer) for layer in ours] == [set(layer) for layer in theirs]
            for a, b in zip(ours, theirs, strict=True):
                for name, array in b.items():
                    assert a[name].dtype == array.dtype
                    np.testing.assert_array_equal(a[name], array)
    assert os.listdir(path.parent) == ["teacher.npz"]  # no temporary file is left


def test_half_precision_comes_back(tmp_path):
    made = ModelOutput(jnp.asarray(RNG.normal(size=(4, 3)), jnp.bfloat16), ({"a": jnp.ones((4, 2), jnp.bfloat16)},), ())
    save_teacher(tmp_path / "half.npz", made, config={})
    loaded = load_teacher(tmp_path / "half.npz")
    assert loaded.logits.dtype == jnp.bfloat16 and loaded.hidden[0]["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(loaded.logits.astype("f4"), np.asarray(made.logits, "f4"))
    np.testing.assert_array_equal(soft_target_kl(loaded.logits, made.logits), 0)


def test_a_saved_teacher_can_be_read_by_others(saved):
    plain = saved[0].parent / "plain"
    plain.touch()
    assert saved[0].stat().st_mode == plain.stat().st_mode


def test_equal_outputs_are_equal_bytes(saved, tmp_path):
    path, made = saved
    save_teacher(tmp_path / "again.npz", made, config=CONFIG)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("config", "message"), [
    ({**CONFIG, "hidden": 16}, r"teacher.npz: config 'hidden': expected 16, found 8"),
    ({k: v for k, v in CONFIG.items() if k != "model"}, "config 'model': expected 'nothing', found 'RGCN'"),
    ({**CONFIG, "lr": 0.1}, "config 'lr': expected 0.1, found 'nothing'"),
])
def test_another_configuration_is_refused(saved, config, message):
    with pytest.raises(TeacherError, match=message):
        load_teacher(saved[0], config=config)


def test_damage_is_seen(saved, tmp_path):
    path, made = saved
    whole = path.read_bytes()
    position = whole.index(made.logits.tobytes())
    for damaged in (whole[:-100], whole[:10], b"", b"not a file",
                    whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1:]):
        path.write_bytes(damaged)
        with pytest.raises(TeacherError, match=r"teacher.npz: expected .*make it again"):
            load_teacher(path)
    np.savez(tmp_path / "foreign.npz", x=np.ones(3))
    with pytest.raises(TeacherError, match=r"foreign.npz: expected teacher outputs"):
        load_teacher(tmp_path / "foreign.npz")


def test_a_changed_array_with_a_right_zip_is_seen(saved, tmp_path):
    path, _ = saved
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["logits"] = arrays["logits"] + 1
    np.savez(tmp_path / "changed.npz", **arrays)
    with pytest.raises(TeacherError, match=r"changed.npz: expected sha256 .*, found .*; make it again"):
        load_teacher(tmp_path / "changed.npz")


def test_a_missing_file_and_a_bad_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz: no teacher outputs there"):
        load_teacher(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_teacher(tmp_path / "x.npz", output(), config={"rate": float("nan")})
    with pytest.raises(TypeError):
        save_teacher(tmp_path / "x.npz", output(), config={"model": object()})
    assert not (tmp_path / "x.npz").exists()
