"""Checkpoints are bit-identical, whole or not there, and found again after kills, damage and full disks."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hire_jax.checkpoint import CheckpointError, Checkpoints, CheckpointWarning, graceful_stop, share
from hire_jax.checkpoint import folder as disk
from hire_jax.checkpoint import manifest as manifests

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = {"model": "RGCN", "rate": 0.01, "layers": {"hidden": [64, 64], "dropout": 0.5}}
SMALL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 3}


def opened(folder, **options):
    return Checkpoints(folder, **({"config": CONFIG} | options))


def small(number):
    return {"w": SMALL["w"] + number, "n": number}


def steps(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with checkpoints of steps 3 and 7; copy it to change it."""
    folder = tmp_path_factory.mktemp("two")
    with opened(folder) as checkpoints:
        checkpoints.save(3, small(3), score=0.5, place={"epoch": 1})
        checkpoints.save(7, small(7), score=0.25, place={"epoch": 2})
    return folder


@pytest.fixture
def copied(two, tmp_path):
    return Path(shutil.copytree(two, tmp_path / "run"))


def said(stderr):
    """Without what XLA says on loading a compiled program, which the suite shares: that it is tuned for a machine."""
    return [line for line in stderr.splitlines() if "cpu_aot_loader" not in line]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# What is restored


def every_kind_of_leaf():
    """Every kind of leaf that a training state has, and awkward numbers in them."""
    params = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.array([1.5, -0.0], jnp.bfloat16)}
    devices = jax.sharding.Mesh(np.array(jax.devices()[:2]), "device")
    keys = jax.random.split(jax.random.key(1), 3)
    return {
        "params": params,
        "optimiser": optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(params),
        "keys": [keys, jax.random.key(2, impl="rbg"), keys[:0]],
        "place": (True, -(1 << 70), 0.1, float("inf"), -0.0, None),
        "empty": [jnp.zeros((0, 3), jnp.int8), np.zeros((2, 0), np.float64)],
        "weak": [jnp.asarray(2.5), jnp.broadcast_to(jnp.asarray(3), (2,))],
        "narrow": [jnp.array([1, -2], jnp.int4), jnp.array([0.5, jnp.nan], jnp.float8_e4m3fn), jnp.array([True])],
        "numpy": [np.array([np.nan, -0.0]), np.arange(3, dtype=np.int64), np.float32(1.25), np.array(7, np.uint8),
                  np.asfortranarray(np.arange(6).reshape(2, 3)), np.array([1 + 2j])],
        "spread": [jax.device_put(jnp.arange(4.0), jax.NamedSharding(devices, jax.P(axis)))
                   for axis in ("device", None)],
    }


def bits(leaf):
    """What must be the same: type, dtype, shape, weakness and every bit."""
    if isinstance(leaf, float):
        return float, leaf.hex()
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return type(leaf), leaf
    kind = jax.Array if isinstance(leaf, jax.Array) else type(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return kind, str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return kind, leaf.dtype, leaf.shape, kind is jax.Array and leaf.weak_type, np.asarray(leaf).tobytes()


def test_every_kind_of_leaf_is_restored_bit_for_bit(tmp_path, capfd):
    state, before = every_kind_of_leaf(), set(threading.enumerate())
    with opened(tmp_path / "made" / "run") as checkpoints:
        assert checkpoints.restore(state) is None and checkpoints.best(state) is None
        checkpoints.save(12, state, place={"epoch": 3, "order": (1, 2)})
    found = opened(tmp_path / "made" / "run").restore(state)
    assert (found.step, found.score, found.place) == (12, None, {"epoch": 3, "order": [1, 2]})
    assert found.path == tmp_path / "made" / "run" / "12"
    assert jax.tree.structure(found.state) == jax.tree.structure(state)
    for expected, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(found.state), strict=True):
        assert bits(leaf) == bits(expected)
    printed, logged = capfd.readouterr()
    assert printed == "" and said(logged) == []
    assert set(threading.enumerate()) == before


def test_shapes_alone_are_enough_to_ask_for_a_state(tmp_path):
    state = {"key": jax.random.key(4), "w": jnp.ones((2, 3), jnp.bfloat16)}
    with opened(tmp_path) as checkpoints:
        checkpoints.save(0, state)
        found = checkpoints.restore(jax.eval_shape(lambda: state))
    assert jax.tree.map(bits, found.state) == jax.tree.map(bits, state)


def test_a_state_without_arrays(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(0, {"n": 1})
        assert checkpoints.restore({"n": 0}).state == {"n": 1}


def test_the_state_may_be_donated_or_overwritten_while_it_is_written(tmp_path, monkeypatch):
    begin, write = threading.Event(), disk.write_arrays
    monkeypatch.setattr(disk, "write_arrays", lambda *args: begin.wait(60) and write(*args))
    state = {"jax": jnp.arange(1000.0), "numpy": np.arange(1000.0)}
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        changed = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)(state["jax"])
        state["numpy"][:] = -1
        begin.set()
        found = checkpoints.restore({"jax": changed, "numpy": state["numpy"]})
    assert state["jax"].is_deleted()
    np.testing.assert_array_equal(found.state["jax"], np.arange(1000.0))
    np.testing.assert_array_equal(found.state["numpy"], np.arange(1000.0))


def test_the_manifest_describes_the_checkpoint(two):
    manifest = json.loads((two / "7" / "manifest.json").read_bytes())["checkpoint"]
    assert manifest["config"] == CONFIG and manifest["place"] == {"epoch": 2} and manifest["score"] == 0.25
    assert {"hire_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"} == set(manifest["versions"])
    assert [(leaf["path"], leaf["form"]) for leaf in manifest["leaves"]] == [("['n']", "int"),
                                                                            ("['w']", "float32[2, 3]")]
    assert set(manifest["files"]) == set(files(two / "7")) - {"manifest.json"}


# What is kept


def test_the_newest_and_the_best_are_kept(tmp_path):
    with opened(tmp_path, keep_last=1) as checkpoints:
        for step, score in enumerate([0.25, 0.75, None, 0.75, 0.5]):
            checkpoints.save(step, small(step), score=score)
        best = checkpoints.best(SMALL)
        assert steps(tmp_path) == ["1", "4"]
    assert (best.step, best.score, best.state["n"]) == (1, 0.75, 1)
    with opened(tmp_path, keep_last=1) as again:
        assert again.restore(SMALL).step == 4
        again.save(5, small(5), score=1.0)
        assert again.best(SMALL).step == 5 and steps(tmp_path) == ["5"]


def test_two_are_kept_so_that_the_newest_is_not_the_only_one(tmp_path):
    with opened(tmp_path, keep_best=False) as checkpoints:
        for step, score in enumerate([1.0, 0.5, 0.25]):
            checkpoints.save(step, small(step), score=score)
        checkpoints.wait()
        assert steps(tmp_path) == ["1", "2"]
        with pytest.raises(ValueError, match="keep_best: expected True"):
            checkpoints.best(SMALL)


def test_a_step_may_be_saved_again_but_none_before_it(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(4, small(1))
        checkpoints.save(4, small(2), score=0.5)
        with pytest.raises(CheckpointError, match=rf"{tmp_path / '4'}: expected no later checkpoint than step 3"):
            checkpoints.save(3, small(3))
        assert (checkpoints.best(SMALL).state["n"], steps(tmp_path)) == (2, ["4"])


def test_a_folder_of_another_run_is_not_written_into(copied):
    with pytest.raises(CheckpointError, match=rf"{copied / '7'}: expected no checkpoint that was not restored"):
        opened(copied).save(8, small(8))
    assert steps(copied) == ["3", "7"]


def test_what_a_killed_save_left_is_ignored_and_removed(copied):
    shutil.copytree(copied / "7", copied / ".9.partial")
    (copied / ".9.partial" / "manifest.json").unlink()
    (copied / "notes.txt").write_text("not ours")
    with opened(copied) as checkpoints:
        assert checkpoints.restore(SMALL).step == 7
        checkpoints.save(9, small(9), score=0.0)
    assert steps(copied) == ["3", "7", "9", "notes.txt"]


def test_a_run_killed_while_a_step_is_replaced_has_the_old_one(copied):
    os.rename(copied / "7", copied / ".7.replaced")
    assert opened(copied).restore(SMALL).step == 7
    shutil.copytree(copied / "7", copied / ".7.replaced")
    assert opened(copied).restore(SMALL).step == 7 and steps(copied) == ["3", "7"]


# What is refused


@pytest.mark.parametrize("change, message", [
    ({"w": np.zeros((2, 4), np.float32)}, r"state\['w'\]: expected float32\[2, 4\], found float32\[2, 3\]"),
    ({"w": np.zeros((2, 3))}, r"state\['w'\]: expected float64\[2, 3\], found float32\[2, 3\]"),
    ({"n": np.int32(0)}, r"state\['n'\]: expected int32\[\], found int"),
    ({"n": None}, r"state\['n'\]: expected NoneType, found int"),
    ({"key": jax.ShapeDtypeStruct((2,), jax.eval_shape(lambda: jax.random.key(0)).dtype)},
     r"state\['key'\]: expected key<fry>\[2\], found no such leaf"),
    ({"w": {"inner": 1}}, r"state\['w'\]\['inner'\]: expected int, found no such leaf"),
])
def test_a_state_of_another_structure_is_refused(two, change, message):
    with pytest.raises(CheckpointError, match=rf"{two / '7' / 'manifest.json'}: {message}"):
        opened(two).restore(SMALL | change)


def test_a_state_that_lacks_a_leaf_is_refused(two):
    with pytest.raises(CheckpointError, match=r"state\['n'\]: expected no such leaf, found int"):
        opened(two).restore({"w": SMALL["w"]})


@pytest.mark.parametrize("config, message", [
    (CONFIG | {"rate": 0.1}, r"config 'rate': expected 0.1, found 0.01"),
    (CONFIG | {"layers": {"hidden": [64, 32], "dropout": 0.5}},
     r"config 'layers.hidden': expected \[64, 32\], found \[64, 64\]"),
    (CONFIG | {"heads": None}, "config 'heads': expected None, found no such setting"),
    ({"rate": 0.01, "layers": CONFIG["layers"]}, "config 'model': expected no such setting, found 'RGCN'"),
])
def test_another_config_is_refused(two, config, message):
    for ask in (opened(two, config=config).restore, opened(two, config=config).best):
        with pytest.raises(CheckpointError, match=rf"{two / '7' / 'manifest.json'}: {message}|"
                                                  rf"{two / '3' / 'manifest.json'}: {message}"):
            ask(SMALL)


def test_other_versions_are_told(two, monkeypatch):
    then = manifests.versions()
    monkeypatch.setattr(manifests, "versions", lambda: then | {"jax": "9.9"})
    with pytest.warns(CheckpointWarning, match=rf"other versions.*: jax {jax.__version__} then, 9.9 now$") as told:
        assert opened(two).restore(SMALL).step == 7
    assert len(told) == 1 and told[0].filename == __file__


def test_nothing_is_told_of_a_checkpoint_that_is_whole(two):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert opened(two).restore(SMALL).step == 7
    assert told == []


@pytest.mark.parametrize("leaf, message", [
    ("text", r"state\['x'\]: expected an array, a typed key or a Python number, found str"),
    (1 + 2j, "found complex"),
    (np.array(["text"]), r"state\['x'\]: expected an array of numbers or typed keys, found dtype <U4"),
    (np.array([None]), "found dtype object"),
    (np.zeros(1, [("a", "f4")]), "found dtype"),
    (jax.ShapeDtypeStruct((2,), np.float32), r"state\['x'\]: expected values, found the shape float32\[2\] alone"),
])
def test_what_is_no_state_is_refused(tmp_path, leaf, message):
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path).save(1, {"x": leaf})
    assert steps(tmp_path) == []


@pytest.mark.parametrize("step, options, error, message", [
    (-1, {}, ValueError, "step: expected a number of steps, got -1"),
    (1.5, {}, TypeError, "float"),
    (1, {"score": float("nan")}, ValueError, "score: expected a finite number or None, found nan"),
    (1, {"place": {"rate": float("nan")}}, TypeError, "place: expected plain values that JSON can hold"),
    (1, {"place": {"array": np.zeros(2)}}, TypeError, "place: expected plain values that JSON can hold"),
])
def test_arguments_are_checked(tmp_path, step, options, error, message):
    with pytest.raises(error, match=message):
        opened(tmp_path).save(step, SMALL, **options)


def test_options_are_checked(tmp_path):
    with pytest.raises(TypeError, match="config: expected plain values that JSON can hold"):
        opened(tmp_path, config={"model": object()})
    with pytest.raises(ValueError, match="keep_last: expected at least 1, got 0"):
        opened(tmp_path, keep_last=0)
    with pytest.raises(ValueError, match="timeout: expected a positive number of seconds, got 0"):
        opened(tmp_path, timeout=0)


# What is damaged


def damage_truncated(folder):
    path = folder / "state" / "_METADATA"
    path.write_bytes(path.read_bytes()[:-1])
    return path


def damage_flipped(folder):
    path = next(path for path in sorted((folder / "state" / "d").iterdir()))
    path.write_bytes(flipped(path.read_bytes(), 11))
    return path


def damage_missing(folder):
    path = folder / "state" / "manifest.ocdbt"
    path.unlink()
    return path


def damage_no_manifest(folder):
    (folder / "manifest.json").unlink()
    return folder / "manifest.json"


def damage_foreign(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "something else"}')
    return folder / "manifest.json"


def damage_text(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe not JSON")
    return folder / "manifest.json"


def damage_nested(folder):
    (folder / "manifest.json").write_text("[" * 100_000)
    return folder / "manifest.json"


def damage_format(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())["checkpoint"]
    (folder / "manifest.json").write_bytes(manifests.render(manifest | {"format": 2}))
    return folder / "manifest.json"


def damage_copied(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "3", folder)
    return folder / "manifest.json"


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


DAMAGE = [damage_truncated, damage_flipped, damage_missing, damage_no_manifest, damage_foreign, damage_text,
          damage_nested, damage_format, damage_copied]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(copied, damage):
    path = damage(copied / "7")
    checkpoints = opened(copied)
    with pytest.warns(CheckpointWarning, match=rf"{path}: expected .*, found .*the last good one, {copied / '3'}, is "
                                               "taken") as told:
        found = checkpoints.restore(SMALL)
    assert len(told) == 1 and told[0].filename == __file__
    assert (found.step, found.state["n"], found.place) == (3, 3, {"epoch": 1})
    assert checkpoints.best(SMALL).step == 3
    damage(copied / "3") if damage is not damage_copied else damage_foreign(copied / "3")
    with pytest.raises(CheckpointError, match=rf"{copied}: expected a checkpoint that is whole, found none: {path}.*; "
                                              rf"{copied / '3'}"):
        opened(copied).restore(SMALL)


def test_a_damaged_checkpoint_is_set_aside_and_its_step_saved_again(copied):
    damage_truncated(copied / "7")
    for _ in range(2):  # the second time a step that was set aside before is damaged again
        with opened(copied) as checkpoints:
            with pytest.warns(CheckpointWarning):
                assert checkpoints.restore(SMALL).step == 3
            checkpoints.save(7, small(8))
            assert checkpoints.restore(SMALL).state["n"] == 8
        assert steps(copied) == ["3", "7", "7.damaged"]
        damage_truncated(copied / "7")


def test_a_damaged_best_is_not_replaced_by_the_next_best(copied):
    path = damage_flipped(copied / "3")
    checkpoints = opened(copied)
    assert checkpoints.restore(SMALL).step == 7
    with pytest.raises(CheckpointError, match=f"{path}: expected sha256"):
        checkpoints.best(SMALL)
    path = damage_text(copied / "3")
    with pytest.raises(CheckpointError, match=f"{path}: expected the manifest"):
        opened(copied).best(SMALL)


def test_a_flipped_bit_in_any_file_is_found(copied):
    folder, rng = copied / "7", np.random.default_rng(0)
    stored = manifests.read(folder)["files"]
    for name in files(folder):
        path = folder / name
        data = path.read_bytes()
        for byte in rng.choice(len(data), min(len(data), 60), replace=False):
            path.write_bytes(flipped(data, 8 * int(byte) + int(rng.integers(8))))
            with pytest.raises(CheckpointError, match=str(path)):
                manifests.read(folder)
                manifests.check_files(folder, stored)
        for size in (0, 1, len(data) - 1):
            path.write_bytes(data[:size])
            with pytest.raises(CheckpointError, match=str(path)):
                manifests.read(folder)
                manifests.check_files(folder, stored)
        path.write_bytes(data)
    manifests.check_files(folder, manifests.read(folder)["files"])


def test_what_orbax_cannot_read_is_told(copied, monkeypatch):
    def fail(*_):
        raise KeyError("no such driver")

    monkeypatch.setattr(disk, "read_arrays", fail)
    with pytest.raises(CheckpointError, match=rf"{copied / '7' / 'state'}: expected arrays that orbax can read, found "
                                              r"KeyError: 'no such driver'; they were written by \{'flax'"):
        opened(copied).restore(SMALL)
    monkeypatch.setattr(disk, "read_arrays", lambda *_: {"1": np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"state\['w'\]: expected float32\[2, 3\], found float64\[3\]"):
        opened(copied).restore(SMALL)


# What goes wrong while it is saved


@pytest.fixture
def full_disk():
    """No file may grow beyond 64 KB: writing more gives an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_at_the_next_call_and_leaves_what_was_there(copied, full_disk):
    # One array: of several that fail, orbax waits for the first, and another may come to an event loop closed by then.
    large = {"x": np.random.default_rng(0).normal(size=1 << 15)}
    checkpoints = opened(copied)
    checkpoints.restore(SMALL)
    for ask in (checkpoints.wait, checkpoints.close, lambda: checkpoints.save(10, SMALL),
                lambda: checkpoints.restore(SMALL)):
        checkpoints.save(9, large)
        with pytest.raises(CheckpointError, match=rf"(?s){copied / '9'}: expected a checkpoint to be written, found "
                                                  r".*File too large.*; those before it are as they were"):
            ask()
        assert steps(copied) == ["3", "7"]
    full_disk()
    checkpoints.save(9, large)
    assert checkpoints.restore(large).step == 9


def failing(monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(disk, "write_arrays", fail)


def test_leaving_the_context_tells_it(tmp_path, monkeypatch):
    failing(monkeypatch)
    with pytest.raises(CheckpointError, match=f"{tmp_path / '1'}: .*OSError: no space"), opened(tmp_path) as run:
        run.save(1, SMALL)
    with pytest.raises(KeyError) as raised, opened(tmp_path) as run:
        run.save(1, SMALL)
        raise KeyError("the run's own error")
    assert "OSError: no space" in raised.value.__notes__[0]


def test_one_save_is_in_flight_at_a_time(tmp_path, monkeypatch):
    write, at_work, most = disk.write_arrays, [], []

    def watched(folder, arrays):
        at_work.append(folder)
        most.append(len(at_work))
        write(folder, arrays)
        at_work.pop()

    monkeypatch.setattr(disk, "write_arrays", watched)
    with opened(tmp_path) as checkpoints:
        for step in range(4):
            checkpoints.save(step, small(step))
    assert most == [1, 1, 1, 1]


def test_a_disk_that_does_not_answer_ends_in_an_error(tmp_path, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(disk, "write_arrays", lambda *_: answer.wait(60))
    checkpoints = opened(tmp_path, timeout=0.05)
    checkpoints.save(1, SMALL)
    for ask in (checkpoints.wait, lambda: checkpoints.save(2, SMALL), checkpoints.close):
        with pytest.raises(CheckpointError, match=rf"{tmp_path}: expected the last checkpoint to be written within "
                                                  "0.05 s, found it unfinished"):
            ask()
    answer.set()


# Stopping


def test_sigterm_only_asks_within_the_context():
    def own(*_):
        raise AssertionError("the handler from before is not for this")

    before = signal.signal(signal.SIGTERM, own)
    try:
        with graceful_stop() as stop:
            assert not stop.requested and not stop.agreed()
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                assert stop.requested and stop.agreed()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_stopping_is_inert():
    found = []

    def elsewhere():
        with graceful_stop() as stop:
            found.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(60)
    assert found == [(False, signal.getsignal(signal.SIGTERM))]


def script(name, *arguments):
    return [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]


def script_environment():
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def killed(folder, kills, steps):
    done = subprocess.run(script("checkpoint_run.py", folder, kills, steps), env=script_environment(),
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not said(done.stderr), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills, length", [(3, 24), pytest.param(20, 300, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path, kills, length):
    ended = killed(tmp_path, kills, length)
    print("newest checkpoint after each kill:", ended["reached"])
    for name in ("last", "best", "best_step"):
        assert ended["disturbed"][name] == ended["undisturbed"][name]
    assert ended["stopped"]["exitcode"] == 0 and ended["stopped"]["newest"] >= 1  # by SIGTERM, twice
    assert len(ended["reached"]) == kills and ended["reached"] == sorted(ended["reached"])


@pytest.mark.parametrize("size", [0, 1, 256, 300, 1000])
def test_what_travels_between_processes_arrives_whole(monkeypatch, size):
    monkeypatch.setattr(share, "_CHUNK", 300)
    data = np.random.default_rng(0).bytes(size)
    assert share._broadcast(data) == data


@pytest.mark.slow
def test_two_processes_hold_one_state_and_one_of_them_writes_it(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    logs = [tmp_path / "log0", tmp_path / "log1"]
    both = []
    try:
        for process, log in enumerate(logs):
            with log.open("w") as file:
                both.append(subprocess.Popen(script("checkpoint_hosts.py", tmp_path, process, port), stdout=file,
                                             stderr=file, env=script_environment() | {"XLA_FLAGS": flags}))
        for process, log in zip(both, logs, strict=True):
            assert process.wait(timeout=240) == 0 and "done" in log.read_text().splitlines(), log.read_text()
    finally:
        for process in both:
            process.kill()
            process.wait()
