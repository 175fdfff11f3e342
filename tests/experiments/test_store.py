"""The result store under kills, torn lines, wrong lines and several processes; and the progress lines."""

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import experiments
from experiments import console as console_module
from experiments import environment as environment_module
from experiments import store as store_module
from experiments.console import track, warn
from experiments.environment import environment
from experiments.keys import key
from experiments.store import ResultStore, StoreError
from hire_jax.identity import LATER

ENVIRONMENT = {"jax": "0.0.0", "git_commit": "abc", "git_dirty": False}
ROOT = Path(experiments.__file__).resolve().parent.parent

APPENDER = """
import sys
from experiments.store import ResultStore
store = ResultStore(sys.argv[1], environment={"git_commit": "abc"})
for i in range(int(sys.argv[3])):
    config = {"writer": sys.argv[2], "i": i, "filler": "x" * 3000}
    store.append(config, seeds=[0, 1], metrics={"test_accuracy": [i / 1000, 0.5]}, seconds=i)
    print(i, flush=True)
"""


@pytest.fixture
def messages():
    return Console(file=io.StringIO(), width=1000)


@pytest.fixture
def store(tmp_path, messages):
    return ResultStore(tmp_path / "out", environment=ENVIRONMENT, console=messages)


def append(store, i, **options):
    return store.append({"i": i}, seeds=[3, 4], metrics={"test_accuracy": [0.25, i / 10]}, **options)


def start_appender(folder, writer, count):
    command = [sys.executable, "-c", APPENDER, str(folder), writer, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


# Configurations and their keys


@dataclasses.dataclass(frozen=True)
class Student:
    hidden: int = 8
    layers: tuple[int, ...] = (1, 2)


def test_key_is_the_documented_hash():
    assert key({"a": 1}) == "015abd7f5cc57a2d"  # printf '{"a":1}' | sha256sum
    ordered = {"a": {"x": True, "y": None}, "b": (1, 2.5)}
    assert key({"b": [1, 2.5], "a": {"y": None, "x": True}}) == key(ordered)
    assert key({"student": Student()}) == key({"student": {"hidden": 8, "layers": [1, 2]}})
    assert key({"a": np.float32(0.5), "b": np.int64(3)}) == key({"a": 0.5, "b": 3})


def test_keys_tell_configurations_apart():
    configs = [{"a": value} for value in (1, 1.0, "1", True, None, [1], {"a": 1}, [[1]])] + [{"b": 1}, {}]
    assert len({key(config) for config in configs}) == len(configs)


def test_a_setting_added_later_leaves_old_keys_alone():
    @dataclasses.dataclass
    class Before:
        weight: float = 1.0

    @dataclasses.dataclass
    class After:
        weight: float = 1.0
        late: bool = dataclasses.field(default=False, metadata=LATER)

    assert key({"a": After()}) == key({"a": Before()}) != key({"a": After(late=True)})


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"a": {"b": object()}}, r"config\.a\.b: expected text, numbers.*got object"),
        ({"a": [1.0, float("nan")]}, r"config\.a\[1\]: expected a finite number, got nan"),
        ({"a": float("inf")}, r"config\.a: expected a finite number"),
        ({"a": np.zeros(3)}, r"config\.a: .*got ndarray"),
        ({"a": {3: 4}}, r"config\.a: expected names of type str, got 3"),
        ({"a": Student}, r"config\.a: .*got type"),
    ],
)
def test_a_config_that_json_cannot_hold_is_named(config, match):
    with pytest.raises(ValueError, match=match):
        key(config)


# Appending, loading, resuming


def test_a_cell_comes_back_equal(store):
    accuracy = np.array([0.1, 0.57], np.float32)
    cell = store.append(
        {"model": "RGCN", "student": Student()},
        seeds=(7, np.int64(8)),
        metrics={"test_accuracy": accuracy, "best_epoch": np.array([3, 44])},
        facts={"parameters": np.int32(4611), "teacher": {"name": "é\n"}},
        seconds=1.23456,
    )
    assert ResultStore(store.folder).cells() == {cell.key: cell}
    assert cell.config == {"model": "RGCN", "student": {"hidden": 8, "layers": [1, 2]}}
    assert np.array_equal(np.float32(cell.metrics["test_accuracy"]), accuracy)  # nothing is rounded
    assert cell.metrics["best_epoch"] == [3, 44]
    assert (cell.seeds, cell.seconds, cell.environment) == ([7, 8], 1.235, ENVIRONMENT)
    assert cell.finished_at.endswith("+00:00")
    assert (store.folder / "results.jsonl").read_bytes().count(b"\n") == 1


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(max_size=5), FLOATS | st.integers() | st.text(), max_size=4))
def test_any_plain_config_keeps_its_key_through_json(config):
    assert key(json.loads(json.dumps(config))) == key(config)


def test_resuming_trains_only_what_is_missing(store):
    trained = []

    def run(configs):
        for i in configs:
            if store.finished({"i": i}) is None:
                trained.append(i)
                append(store, i)

    run([0, 1])
    run([0, 1, 2])
    assert trained == [0, 1, 2]
    assert store.finished({"i": 1}).metrics == {"test_accuracy": [0.25, 0.1]}
    assert store.finished({"i": 1.0}) is None


def test_the_later_line_of_a_key_wins_and_keeps_its_place(store):
    append(store, 0)
    append(store, 1)
    later = append(store, 0, seconds=9)
    assert [cell.config["i"] for cell in store.cells().values()] == [0, 1]
    assert store.finished({"i": 0}) == later


def test_an_empty_folder_is_an_empty_store_and_is_not_made(store):
    assert store.cells() == {} and store.histories() == {} and store.load_arrays("x") is None
    assert not store.folder.exists()


def test_histories_keep_six_digits_and_gaps(store):
    curve = np.array([[1 / 3, 2.0, np.nan], [1e-9 / 3, -np.inf, 123456.789]])
    cell = append(store, 0, history={"val_accuracy": curve})
    append(store, 1)
    back = store.histories()
    assert set(back) == {cell.key}
    expected = [[0.333333, 2.0, np.nan], [3.33333e-10, np.nan, 123457.0]]
    np.testing.assert_array_equal(back[cell.key]["val_accuracy"], expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metrics": {"a": [0.5]}}, r"metrics\['a'\]: expected 2 finite numbers, got \[0.5\]"),
        ({"metrics": {"a": [0.5, np.nan]}}, "expected 2 finite numbers"),
        ({"metrics": {"a": ["x", "y"]}}, "expected 2 finite numbers"),
        ({"history": {"a": np.zeros((3, 5))}}, r"history\['a'\]: expected \[2, epochs\], got \(3, 5\)"),
        ({"facts": {"a": {1, 2}}}, r"facts\.a: .*got set"),
    ],
)
def test_bad_cells_are_named_and_write_nothing(store, options, match):
    with pytest.raises(ValueError, match=match):
        store.append({}, **({"seeds": [0, 1], "metrics": {}} | options))
    assert not store.folder.exists()


# Kills and damage


def test_a_torn_last_line_is_reported_left_out_and_moved_aside(store, messages):
    append(store, 0)
    append(store, 1)
    path = store.folder / "results.jsonl"
    whole = path.read_bytes()
    torn = whole.splitlines()[0][:100]
    path.write_bytes(whole + torn)
    assert len(store.cells()) == 2
    assert len(store.cells()) == 2
    assert messages.file.getvalue().count("results.jsonl, line 3: torn by a kill and left out") == 1
    assert path.read_bytes() == whole + torn, "loading changes nothing"
    append(store, 2)
    assert [cell.config["i"] for cell in store.cells().values()] == [0, 1, 2]
    assert path.read_bytes().startswith(whole)
    assert (store.folder / "results.jsonl.torn").read_bytes() == torn + b"\n"
    assert "moved to results.jsonl.torn" in messages.file.getvalue()


@pytest.mark.parametrize("length", [1, 65535, 65536, 65537, 200_000])
def test_a_torn_line_of_any_length_is_cut_exactly(store, length):
    append(store, 0)
    path = store.folder / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b"y" * length)
    append(store, 1)
    assert path.read_bytes().startswith(whole) and len(store.cells()) == 2
    assert (store.folder / "results.jsonl.torn").stat().st_size == length + 1


def test_a_file_of_nothing_but_a_torn_line(store):
    store.folder.mkdir()
    (store.folder / "results.jsonl").write_bytes(b'{"key"')
    assert store.cells() == {}
    append(store, 0)
    assert len(store.cells()) == 1


def test_a_killed_process_loses_at_most_the_line_it_was_writing(tmp_path, messages):
    """Twelve kills at twelve different moments; what the process said was finished is there."""
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        process = start_appender(folder, "a", 100_000)
        reported = [process.stdout.readline()]
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        reported += process.stdout.read().split("\n")
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        finished = len([line for line in reported if line.strip()])
        store = ResultStore(folder, environment=ENVIRONMENT, console=messages)
        done = [cell.config["i"] for cell in store.cells().values()]
        assert done == list(range(len(done))) and finished >= 1
        assert finished <= len(done) <= finished + 1
        append(store, 0)
        assert len(store.cells()) == len(done) + 1


def test_two_processes_append_without_mixing_lines(tmp_path):
    writers = [start_appender(tmp_path, name, 150) for name in "ab"]
    for process in writers:
        assert process.communicate()[0].split() == [str(i) for i in range(150)]
        assert process.returncode == 0
    cells = ResultStore(tmp_path).cells().values()
    for name in "ab":
        assert [c.config["i"] for c in cells if c.config["writer"] == name] == list(range(150))
    assert not (tmp_path / "results.jsonl.torn").exists()


def test_a_line_is_on_the_disk_when_append_returns(store, monkeypatch):
    """What fsync is asked to keep must be the whole line, not what a buffer has let through."""
    synced, fsync = [], os.fsync

    def watched(descriptor):
        synced.append(os.pread(descriptor, 100_000, 0))
        fsync(descriptor)

    monkeypatch.setattr(store_module.os, "fsync", watched)
    append(store, 0)
    assert synced == [(store.folder / "results.jsonl").read_bytes()] and synced[0].endswith(b"}\n")


def test_the_file_is_locked_while_a_line_is_written(store, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    seen = []

    class Watched(io.FileIO):
        def write(self, data):
            with io.FileIO(self.name, "rb") as other:
                for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                    try:
                        fcntl.flock(other, kind | fcntl.LOCK_NB)
                    except BlockingIOError:
                        seen.append(kind)
            return super().write(data)

    monkeypatch.setattr(store_module, "open", lambda path, mode, **_: Watched(path, mode), raising=False)
    append(store, 0)
    assert seen == [fcntl.LOCK_EX, fcntl.LOCK_SH]


def test_a_full_disk_leaves_whole_lines_and_says_so(store, monkeypatch):
    append(store, 0)
    before = (store.folder / "results.jsonl").read_bytes()

    class Full(io.FileIO):
        def write(self, data):
            return super().write(data[:50])

    monkeypatch.setattr(store_module, "open", lambda path, mode, **_: Full(path, mode), raising=False)
    with pytest.raises(StoreError, match=r"results.jsonl: cannot append: only 50 of \d+ bytes were taken"):
        append(store, 1)
    monkeypatch.undo()
    assert (store.folder / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda line: b"{broken", r"line 2: expected a JSON object, got b'{broken'"),
        (lambda line: b"", "line 2: expected a JSON object, got b''"),
        (lambda line: b"[1]", "line 2: expected a JSON object"),
        (lambda line: b"\xff\xfe", "line 2: expected a JSON object"),
        (lambda line: line.replace(b"0.25", b"NaN"), "line 2: expected a JSON object.*NaN is not JSON"),
        (lambda line: b'{"key": "x"}', "line 2: not a result of this store"),
        (lambda line: line.replace(b'"i": 1', b'"i": 5'), "line 2: .*does not belong to its config"),
        (lambda line: line.replace(b"[3, 4]", b"[3]"), "line 2: .*another number of values than there are"),
    ],
)
def test_a_wrong_line_in_the_middle_is_an_error_with_file_and_line(store, change, match):
    for i in range(3):
        append(store, i)
    path = store.folder / "results.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = change(lines[1])
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(StoreError, match=r"results\.jsonl, " + match):
        store.cells()


def test_a_wrong_curve_is_an_error_with_file_and_line(store):
    append(store, 0, history={"loss": [[1.0], [2.0]]})
    path = store.folder / "curves.jsonl"
    path.write_text(path.read_text() + '{"key": "a", "history": {"loss": [[1, 2], [3]]}}\n')
    with pytest.raises(StoreError, match=r"curves\.jsonl, line 2: not a curve"):
        store.histories()


# Arrays


def test_arrays_come_back_equal_and_the_later_saving_wins(store):
    arrays = {
        "logits": np.arange(6, dtype=np.float32).reshape(2, 3),
        "hidden/0/movie": jnp.ones((2, 2)),
        "n": 3,
    }
    store.save_arrays("abc", arrays)
    store.save_arrays("other", {"logits": np.zeros(1)})
    back = ResultStore(store.folder).load_arrays("abc")
    assert back is not None
    assert set(back) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(back[name], value)
        assert back[name].dtype == np.asarray(value).dtype
    store.save_arrays("abc", {"logits": np.ones(4)})
    assert store.load_arrays("abc")["logits"].tolist() == [1.0] * 4


def test_the_same_arrays_give_the_same_file(store):
    first = store.save_arrays("abc", {"logits": np.arange(5.0)})
    data = first.read_bytes()
    assert store.save_arrays("abc", {"logits": np.arange(5.0)}) == first
    assert first.read_bytes() == data and len(list(first.parent.iterdir())) == 1


def test_a_changed_or_missing_array_file_is_refused(store):
    path = store.save_arrays("abc", {"logits": np.arange(5.0)})
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"expected sha256 .* the file has changed"):
        store.load_arrays("abc")
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        store.load_arrays("abc")
    (store.folder / "arrays.jsonl").write_text('{"name": "abc"}\n')
    with pytest.raises(StoreError, match=r"arrays\.jsonl, line 1: not an entry of this store"):
        store.load_arrays("abc")


@pytest.mark.parametrize(
    ("name", "arrays", "match"),
    [
        ("../abc", {"x": np.ones(1)}, "name: expected letters"),
        (".abc", {"x": np.ones(1)}, "name: expected letters"),
        ("abc", {"x": jnp.ones(1, jnp.bfloat16)}, r"arrays\['x'\]: expected numbers npz can hold.*bfloat16"),
        ("abc", {"x": np.array([None])}, r"arrays\['x'\]: .*got object"),
        ("abc", {"file": np.ones(1)}, r"arrays\['file'\]"),
    ],
)
def test_arrays_that_cannot_be_kept_are_named(store, name, arrays, match):
    with pytest.raises(ValueError, match=match):
        store.save_arrays(name, arrays)
    assert not store.folder.exists()


# CSV


def test_csv_golden_text(store):
    config = {"model": "RGCN", "student": {"hidden": 8}, "dims": [1, 2]}
    a = store.append(config, seeds=[3, 4], metrics={"acc": [0.5, 0.25]}, facts={"parameters": 9}, seconds=2)
    b = store.append({"model": "a,b", "alpha": 0.5}, seeds=[3], metrics={"acc": [1], "f1": [0.1]})
    path = store.write_csv()
    assert path == store.folder / "results.csv"
    assert path.read_text() == (
        "key,config.model,config.student.hidden,config.dims,parameters,seed,acc,seconds,finished_at,git_commit,"
        "config.alpha,f1\n"
        f'{a.key},RGCN,8,"[1, 2]",9,3,0.5,2.0,{a.finished_at},abc,,\n'
        f'{a.key},RGCN,8,"[1, 2]",9,4,0.25,2.0,{a.finished_at},abc,,\n'
        f'{b.key},"a,b",,,,3,1,0.0,{b.finished_at},abc,0.5,0.1\n'
    )
    assert [row["seed"] for row in csv.DictReader(path.read_text().splitlines())] == ["3", "4", "3"]
    assert not list(store.folder.glob(".*")), "no partial file is left"
    assert ResultStore(store.folder / "none").write_csv(store.folder / "empty.csv").read_text() == "\n"


# Provenance


def test_a_store_collects_its_environment_unless_given_one(tmp_path):
    cell = append(ResultStore(os.fspath(tmp_path)), 0)
    assert cell.environment == environment() and cell.environment["jax"] != "unknown"


def test_environment_names_versions_device_and_commit(monkeypatch):
    found = environment()
    assert json.loads(json.dumps(found)) == found
    names = {"jax", "jaxlib", "flax", "optax", "numpy", "hire_jax", "python", "platform", "device_kind"}
    assert names <= found.keys()
    assert found["device_count"] >= 1 and found["python"].startswith("3.")
    commit = found["git_commit"]
    assert commit == "unknown" or (len(commit) == 40 and int(commit, 16))
    assert found["git_dirty"] is None if commit == "unknown" else isinstance(found["git_dirty"], bool)
    monkeypatch.setenv("PATH", "")
    assert environment()["git_commit"] == "unknown"


def test_environment_tells_a_clean_checkout_from_a_dirty_one(tmp_path, monkeypatch):
    """A commit of another repository that merely contains the installed files must not be reported."""

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    code = tmp_path / "experiments" / "environment.py"
    (code.parent / "results").mkdir(parents=True)
    code.write_text("# code\n")
    (tmp_path / "readme").write_text("other\n")
    git("init", "-q")
    git("add", "readme")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(environment_module, "__file__", str(code))
    assert (environment()["git_commit"], environment()["git_dirty"]) == ("unknown", None)
    git("add", ".")
    git("commit", "-q", "-m", "second")
    (code.parent / "results" / "results.jsonl").write_text("{}\n")
    assert len(environment()["git_commit"]) == 40 and environment()["git_dirty"] is False
    code.write_text("# changed\n")
    assert environment()["git_dirty"] is True


# Console


def test_progress_off_a_terminal_is_a_few_plain_lines(monkeypatch):
    clock = iter([0.0, *(0.25 * i for i in range(1, 200))])
    monkeypatch.setattr(console_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    out = io.StringIO()
    with track(100, "RGCN [teacher]", console=Console(file=out, width=20), every=10) as tracker:
        for done in range(1, 101):
            tracker.update(done, "HGT" if done > 50 else "")
        tracker.update(100)
        tracker.log("kept [in] out")
    assert out.getvalue().splitlines() == [
        "RGCN [teacher]: 1 %, 0 s, about 25 s left",
        "RGCN [teacher]: 41 %, 10 s, about 15 s left",
        "HGT: 81 %, 20 s, about 5 s left",
        "HGT: 100 %, 25 s",
        "kept [in] out",
    ]


@pytest.mark.parametrize("no_color", [False, True])
def test_progress_on_a_terminal_is_live_and_honours_no_color(no_color):
    environ = {"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_color else {})
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ=environ)
    with track(4, "RGCN [teacher]", console=console) as tracker:
        tracker.update(2)
        tracker.update(4, "HGT [b]")
        tracker.log("kept [in] out")
    warn("look [here]", console=console)
    text = out.getvalue()
    assert "HGT [b]" in text and "100%" in text and "left" in text and "look [here]" in text
    assert any(f"\x1b[{code}" in text for code in ("3", "1;3", "9")) is not no_color


def test_a_warning_in_a_pipe_is_one_plain_line():
    out = io.StringIO()
    console = Console(file=out, width=20)
    warn("a message [x] much longer than the console is wide", console=console)
    assert out.getvalue() == "warning: a message [x] much longer than the console is wide\n"
