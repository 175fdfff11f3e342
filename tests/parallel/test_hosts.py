"""Real processes that connect over loopback, and what `connect` asks of its arguments."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from hire_jax import parallel
from hire_jax.models import RGCN
from hire_jax.parallel import hosts
from hire_jax.teachers import save_teacher_rows
from tests.parallel import hosts_run

SCRIPT = Path(hosts_run.__file__)
VARIABLES = (hosts.COORDINATOR, hosts.PROCESSES, hosts.PROCESS, "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE",
             "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES", "CUDA_VISIBLE_DEVICES")


@pytest.fixture
def bare(monkeypatch):
    """No launcher, and a `jax.distributed.initialize` that only notes its arguments."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **named: calls.append((args, named)))
    return calls


def test_a_process_alone(bare):
    assert parallel.connect() == (0, 1, jax.device_count(), jax.local_device_count())
    assert parallel.connect(coordinator="here:1", processes=1, process=0).processes == 1
    assert bare == []


def test_arguments_come_before_the_environment(bare, monkeypatch):
    settings = {"initialization_timeout": 300, "shutdown_timeout_seconds": 300, "heartbeat_timeout_seconds": 100,
                "local_device_ids": None, "cluster_detection_method": "deactivate"}
    for name, value in ((hosts.COORDINATOR, "there:2"), (hosts.PROCESSES, "4"), (hosts.PROCESS, "3")):
        monkeypatch.setenv(name, value)
    parallel.connect()
    parallel.connect(coordinator="here:1", process=2, timeout=5, heartbeat=7, local_devices=[1])
    assert bare == [(("there:2", 4, 3), settings), (("here:1", 4, 2), settings | {
        "initialization_timeout": 5, "shutdown_timeout_seconds": 5, "heartbeat_timeout_seconds": 7,
        "local_device_ids": [1]})]


@pytest.mark.parametrize(("name", "value", "several"), [
    ("SLURM_STEP_NUM_TASKS", "2", True), ("SLURM_STEP_NUM_TASKS", "1", False), ("SLURM_NTASKS", "2", False),
    ("OMPI_COMM_WORLD_SIZE", "8", True),
    ("TPU_WORKER_HOSTNAMES", "a,b", True), ("TPU_WORKER_HOSTNAMES", "localhost", False)])
def test_launchers_that_jax_knows_are_left_to_it(bare, monkeypatch, name, value, several):
    monkeypatch.setenv(name, value)
    parallel.connect()
    assert len(bare) == several and all(args == () for args, _ in bare)


@pytest.mark.parametrize(("visible", "tasks", "own"), [
    ("0,1,2,3", "1(x2)", [0, 1, 2, 3]), ("0", "4(x2)", [0]), ("0,1,2,3", "4(x2)", None), ("0,1", "1,2", None),
    ("", "1(x2)", None), ("0,1", "", None)])
def test_a_slurm_task_takes_the_gpus_that_are_its_own(bare, monkeypatch, visible, tasks, own):
    for name, value in (("SLURM_STEP_NUM_TASKS", "2"), ("CUDA_VISIBLE_DEVICES", visible),
                        ("SLURM_STEP_TASKS_PER_NODE", tasks)):
        monkeypatch.setenv(name, value)
    parallel.connect()
    assert bare[0][1]["local_device_ids"] == own


@pytest.mark.parametrize(("given", "message"), [
    ({"processes": 2}, "processes is given, but not coordinator and process"),
    ({"coordinator": "a:1", "processes": 2, "process": 2}, "process must be 0 to processes - 1, got process 2 of 2"),
    ({"coordinator": "a", "processes": 2, "process": 0}, "coordinator must be 'address:port', got 'a'")])
def test_bad_arguments(bare, given, message):
    with pytest.raises(ValueError, match=message):
        parallel.connect(**given)
    assert bare == []


def test_a_variable_that_is_no_number(bare, monkeypatch):
    monkeypatch.setenv(hosts.PROCESS, "first")
    with pytest.raises(ValueError, match="HIRE_JAX_PROCESS must be a number, got 'first'"):
        parallel.connect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the rows of a teacher."""
    folder, dataset = tmp_path_factory.mktemp("hosts"), hosts_run.planted()
    teacher = RGCN(target="item", num_classes=3, hidden=8, layers=2, dropout=0.0)
    output = teacher.apply(teacher.init(jax.random.key(0), dataset.graph), dataset.graph)
    save_teacher_rows(folder / "teacher", output, config={})
    return folder


def started(folder, *more):
    """Two processes of four fake devices each, told `more`: see hosts_run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, "XLA_FLAGS")}
    environment |= {"PYTHONPATH": str(SCRIPT.parents[2]), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return [subprocess.Popen([sys.executable, str(SCRIPT), port, str(process), "2", str(folder), *more],
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for process in range(2)]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, real or fake")
@pytest.mark.parametrize("word", ["jit", *(pytest.param(word, marks=pytest.mark.slow) for word in ("pmap", "hire"))])
def test_two_processes_with_four_devices_train_as_one_with_eight(folder, tmp_path, word):
    (tmp_path / "teacher").symlink_to(folder / "teacher")
    both = started(tmp_path, word)
    expected = hosts_run.trained(folder / "teacher", hire=word == "hire", devices=8)
    printed = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(printed)[-3000:]
    with np.load(tmp_path / "params.npz") as found:
        np.testing.assert_allclose(found["val_loss"], expected.history["val_loss"], rtol=1e-6)
        for number, leaf in enumerate(jax.tree.leaves(expected.params)):
            np.testing.assert_allclose(found[str(number)], leaf, atol=1e-6)
    assert len(list((tmp_path / "checkpoints").iterdir())) >= 2  # process 0 kept them for both


@pytest.mark.slow
@pytest.mark.parametrize(("end", "codes"), [("die", [None, 9]), ("raise", [1, 1]), ("term", [0, 0])])
def test_what_ends_one_process_ends_both(folder, tmp_path, end, codes):
    """Process 1 vanishes, fails, or is sent SIGTERM, in its second epoch; the heartbeat is 10 s."""
    (tmp_path / "teacher").symlink_to(folder / "teacher")
    both = started(tmp_path, end)
    printed = [process.communicate(timeout=120)[0] for process in both]
    for process, code, text in zip(both, codes, printed, strict=True):
        assert process.returncode == code if code is not None else process.returncode != 0, text[-3000:]
    if end == "raise":
        assert "process 1 of 2 failed" in printed[0] and "ValueError: as asked" in printed[1]
    kept = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert kept and max(kept) >= (3 if end == "term" else 1), "what was saved before is still there"
