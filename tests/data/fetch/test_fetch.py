"""fetch: checksums, mirrors, files that are there already, offline, other processes, the disk, progress."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hire_jax.data import DatasetError, DatasetNotFoundError
from hire_jax.data.fetch import RemoteFile, cache_folder, fetch

ROOT = Path(__file__).parents[3]
FETCH = """
import json, sys
from pathlib import Path
from hire_jax.data.fetch import RemoteFile, fetch
file, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
fetch([RemoteFile(**file | {"urls": tuple(file["urls"])})], folder, pause=0.0)
"""


def started(file: RemoteFile, folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Another process that fetches; its standard error goes to `log`."""
    with log.open("wb") as stderr:
        command = [sys.executable, "-c", FETCH, json.dumps(asdict(file)), str(folder)]
        return subprocess.Popen(command, cwd=ROOT, stderr=stderr)


def waited(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened in a minute"
        time.sleep(0.01)


def test_files_are_fetched_once_and_then_only_verified(server: Any, answers: Any, get: Any) -> None:
    first = get.remote(server.url("/a", answers.give()))
    second = get.remote(server.url("/b", answers.give(b"b" * 10)), body=b"b" * 10, name="ind.b.test.index")
    for _ in range(2):
        paths = get(first, second)
        assert paths == {"graph.npz": get.path(), "ind.b.test.index": get.path("ind.b.test.index")}
        assert paths["ind.b.test.index"].read_bytes() == b"b" * 10
        assert [path for path, _ in server.asked] == ["/a", "/b"]
    assert get.said == [f"graph.npz: 102,400 bytes from {first.urls[0]}",
                        f"ind.b.test.index: 10 bytes from {second.urls[0]}"]
    assert get.names() == ["graph.npz", "ind.b.test.index"]


def test_a_git_blob_id_is_a_checksum_too(server: Any, answers: Any, get: Any) -> None:
    # The id that `git hash-object` gives for these bytes.
    url = server.url("/a", answers.give(b"what is up, doc?"))
    file = RemoteFile("doc", (url,), None, None, "bd9dbf5aae1a3862dd1526723246b20206e5fc37")
    assert get(file)["doc"].read_bytes() == b"what is up, doc?"
    server.url("/a", answers.give(b"what is up, cat?"))
    get.path("doc").unlink()
    with pytest.raises(DatasetError, match=r"expected git blob sha1 bd9dbf5\w+, found [0-9a-f]{40} \(16 bytes\)"):
        get(file)


def test_wrong_bytes_never_get_the_name(server: Any, answers: Any, get: Any) -> None:
    wrong = b"x" * len(get.content)
    file = get.remote(*(server.url(path, answers.give(wrong)) for path in ("/a", "/b")))
    found = hashlib.sha256(wrong).hexdigest()
    with pytest.raises(DatasetError) as caught:
        get(file)
    message = str(caught.value)
    assert message.startswith("graph.npz: no address gave the file:\n")
    for url in file.urls:
        assert f"{url}: expected sha256 {file.sha256}, found {found} (102400 bytes)" in message
    assert f"{get.path()}: 102,400 bytes from {file.urls[0]} or {file.urls[1]}" in message
    assert get.names() == [] and len(server.asked) == 2


@pytest.mark.parametrize("first", ["wrong", "gone", "forbidden", "down", "short"])
def test_the_next_mirror_is_asked(server: Any, answers: Any, get: Any, first: str) -> None:
    bad = {"wrong": answers.give(b"x" * 102_400), "gone": answers.status(404), "forbidden": answers.status(403),
           "down": answers.status(503), "short": answers.give(cut=10, ranges=False)}[first]
    file = get.remote(server.url("/bad", bad), server.url("/good", answers.give()))
    assert get(file)["graph.npz"].read_bytes() == get.content
    asked = [path for path, _ in server.asked]
    assert asked == ["/bad"] * (2 if first in ("down", "short") else 1) + ["/good"]
    assert any(file.urls[0] in line and "expected" in line for line in get.said)


def test_a_wrong_file_in_its_place_is_put_aside(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.status(404), answers.give()))
    get.folder.mkdir()
    get.path().write_bytes(b"mine")
    with pytest.raises(DatasetError, match=r"no address gave the file"):
        get(file)
    assert get.path().read_bytes() == b"mine" and get.names() == ["graph.npz"]
    assert get(file)["graph.npz"].read_bytes() == get.content
    assert get.path("graph.npz.wrong").read_bytes() == b"mine" and get.names() == ["graph.npz", "graph.npz.wrong"]
    found = hashlib.sha256(b"mine").hexdigest()
    assert f"{get.path()}: expected sha256 {file.sha256}, found {found} (4 bytes); it is put aside as graph.npz.wrong" \
        in get.said


def test_a_folder_in_its_place(server: Any, answers: Any, get: Any) -> None:
    get.path().mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"graph.npz: expected a file, found a folder or a device"):
        get(get.remote(server.url("/a", answers.give())))


@pytest.mark.parametrize("file, message", [
    (RemoteFile("a", ("http://x/a",), None, 5), r"a: expected a sha256 or a git blob sha1, found 'neither'; nothing"),
    (RemoteFile("a", ("http://x/a",), "abc", 5), r"expected a sha256 or a git blob sha1, found 'abc'"),
    (RemoteFile("a", ("http://x/a",), None, 5, "0" * 64), r"expected a sha256 or a git blob sha1, found '0000"),
    (RemoteFile("../a", ("http://x/a",), "0" * 64, 5), r"expected a plain file name, found '../a'"),
    (RemoteFile(".fetch.lock", ("http://x/a",), "0" * 64, 5), r"expected a plain file name, found '.fetch.lock'"),
    (RemoteFile("", ("http://x/a",), "0" * 64, 5), r"expected a plain file name, found ''"),
])
def test_entries_that_are_refused(get: Any, file: RemoteFile, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        get(file)
    assert not get.folder.exists()


def test_two_files_of_one_name_are_refused(get: Any) -> None:
    with pytest.raises(DatasetError, match=r"expected each name once, found 'graph.npz' twice"):
        get(get.remote("http://x/a"), get.remote("http://x/b"))


def test_a_file_without_an_address(get: Any) -> None:
    with pytest.raises(DatasetError, match=r"no address gave the file:(?s:.*)102,400 bytes from its authors"):
        get(get.remote())


@pytest.mark.parametrize("package", ["pooch", "filelock"])
def test_a_missing_package_is_named_with_its_extra(
        server: Any, answers: Any, get: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = get.remote(server.url("/a", answers.give()))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DatasetError, match=rf'downloads need {package}: pip install "hire-jax\[data\]"(?s:.*)by hand'):
        get(file)
    get.folder.mkdir()
    get.path().write_bytes(get.content)
    assert get(file) == {"graph.npz": get.path()} and not server.asked


@pytest.mark.parametrize("asked", ["argument", "1", "yes"])
def test_offline_nothing_is_asked(
        server: Any, answers: Any, get: Any, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if asked != "argument":
        monkeypatch.setenv("HIRE_JAX_OFFLINE", asked)
    there = get.remote(server.url("/a", answers.give()), name="there")
    lost = get.remote(server.url("/b", answers.give()), server.url("/c", answers.give()), name="lost")
    wrong = get.remote(server.url("/d", answers.give()), name="wrong", size=None)
    get.folder.mkdir()
    get.path("there").write_bytes(get.content)
    get.path("wrong").write_bytes(b"mine")
    with pytest.raises(DatasetNotFoundError) as caught:
        get(there, lost, wrong, offline=True if asked == "argument" else None)
    assert str(caught.value).splitlines() == [
        f"offline, so that nothing was fetched. Expected in {get.folder}, and can be put there by hand:",
        f"  {get.path('lost')}: 102,400 bytes from {lost.urls[0]} or {lost.urls[1]}; nothing is there",
        f"  {get.path('wrong')}: size unknown from {wrong.urls[0]}; expected sha256 {wrong.sha256}, found "
        f"{hashlib.sha256(b'mine').hexdigest()} (4 bytes)",
    ]
    assert not server.asked and get(there, offline=True) == {"there": get.path("there")}
    assert sorted(os.listdir(get.folder)) == ["there", "wrong"]


def test_offline_can_be_overruled(server: Any, answers: Any, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = get.remote(server.url("/a", answers.give()))
    monkeypatch.setenv("HIRE_JAX_OFFLINE", "1")
    get(file, offline=False)
    get.path().unlink()
    monkeypatch.setenv("HIRE_JAX_OFFLINE", "0")
    get(file)
    assert len(server.asked) == 2


def test_processes_that_want_the_same_file_fetch_it_once(server: Any, answers: Any, get: Any, tmp_path: Path) -> None:
    logs = [tmp_path / "0", tmp_path / "1"]

    def once_both_are_there(handler: Any) -> None:
        waited(lambda: any("waiting for it" in log.read_text() for log in logs))
        answers.give()(handler)

    file = get.remote(server.url("/a", once_both_are_there))
    processes = [started(file, get.folder, log) for log in logs]
    assert [process.wait(60) for process in processes] == [0, 0], [log.read_text() for log in logs]
    assert server.asked == [("/a", None)] and get.path().read_bytes() == get.content


def test_ctrl_c_keeps_the_part_and_frees_the_lock(server: Any, answers: Any, get: Any, tmp_path: Path) -> None:
    file = get.remote(server.url("/a", answers.stall(), answers.give()))
    process, part = started(file, get.folder, tmp_path / "log"), get.part(file)
    waited(lambda: process.poll() is not None or (part.exists() and part.stat().st_size > 0))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT and "KeyboardInterrupt" in (tmp_path / "log").read_text()
    assert get.names() == [part.name] and get.content.startswith(part.read_bytes())
    kept, sent = part.stat().st_size, server.sent
    assert get(file, patience=0)["graph.npz"].read_bytes() == get.content
    assert server.asked[1:] == [("/a", f"bytes={kept}-")] and server.sent - sent == len(get.content) - kept


def test_a_lock_is_waited_for_and_dies_with_its_process(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.give()))
    get.folder.mkdir()
    hold = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold, str(get.path(".fetch.lock"))], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        with pytest.raises(DatasetError, match=r".fetch.lock: expected to get the lock within 0.1 s, found it held"):
            get(file, patience=0.1)
        assert get.said == [f"another process fetches into {get.folder}: waiting for it"] and not server.asked
        process.kill()
        process.wait()
        assert get(file, patience=5)["graph.npz"].read_bytes() == get.content


def test_a_folder_that_cannot_be_made(server: Any, answers: Any, get: Any) -> None:
    get.folder.write_text("a file")
    get.folder /= "below"
    with pytest.raises(DatasetError, match=r"below: expected a folder with room .* found: .*Not a directory.*HIRE_JAX"):
        get(get.remote(server.url("/a", answers.give())))
    assert not server.asked


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_a_folder_that_cannot_be_written_to(server: Any, answers: Any, get: Any) -> None:
    get.folder.mkdir(mode=0o500)
    with pytest.raises(DatasetError, match=r"expected a folder with room .* found: .*Permission denied"):
        get(get.remote(server.url("/a", answers.give())))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write more, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.give()))
    message = r"data: expected a folder with room .* found: .*File too large.*what was fetched so far is kept"
    with files_of_at_most(60_000), pytest.raises(DatasetError, match=message):
        get(file)
    kept = get.part(file).stat().st_size
    assert 0 < kept <= 60_000 and get.names() == [get.part(file).name]
    assert get(file)["graph.npz"].read_bytes() == get.content
    assert server.asked == [("/a", None), ("/a", f"bytes={kept}-")]


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    pooch = pytest.importorskip("pooch", reason="the folder is compared with pooch's")
    assert cache_folder() == Path(pooch.os_cache("hire_jax")) and cache_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == Path(pooch.os_cache("hire_jax"))
    monkeypatch.setenv("HIRE_JAX_DATA", "~/graphs")
    assert cache_folder() == tmp_path / "graphs"


def test_what_is_there_needs_no_right_to_write(get: Any) -> None:
    get.folder.mkdir()
    get.path().write_bytes(get.content)
    before = os.stat(get.folder).st_mtime_ns
    assert fetch([get.remote()], get.folder) == {"graph.npz": get.path()}
    assert os.stat(get.folder).st_mtime_ns == before and os.listdir(get.folder) == ["graph.npz"]
