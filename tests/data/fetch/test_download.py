"""What the downloader makes of a server that lies, stalls, drops, or never ends."""

import hashlib
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, download

HALF = 51_200


def test_a_dropped_connection_costs_only_the_missing_bytes(server: Any, answers: Any, get: Any) -> None:
    url = server.url("/a", answers.give(cut=HALF), answers.give())
    path = get(get.remote(url))["graph.npz"]
    assert path.read_bytes() == get.content and get.names() == ["graph.npz"]
    assert server.asked == [("/a", None), ("/a", f"bytes={HALF}-")] and server.sent == len(get.content)
    assert len(get.said) == 2 and get.said[1].endswith("; again in 0 s")


def test_a_dropped_chunk_is_continued_where_the_file_ends(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.give(cut=HALF, chunked=True), answers.give(chunked=True)), size=None)
    assert get(file)["graph.npz"].read_bytes() == get.content
    kept = int(server.asked[1][1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < kept <= HALF and server.sent == HALF + len(get.content) - kept


def test_a_failed_download_is_continued_by_the_next_call(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.give(cut=HALF), answers.status(404), answers.give()))
    with pytest.raises(DatasetError, match=r"(?s)no address gave the file.*HTTP status 404 Not Found"):
        get(file)
    assert get.part(file).read_bytes() == get.content[:HALF] and get.names() == [get.part(file).name]
    assert get(file)["graph.npz"].read_bytes() == get.content
    assert server.asked[-1] == ("/a", f"bytes={HALF}-") and get.names() == ["graph.npz"]


def test_a_complete_part_is_verified_without_a_request(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.status(500)))
    get.folder.mkdir()
    get.part(file).write_bytes(get.content)
    assert get(file)["graph.npz"].read_bytes() == get.content and not server.asked


@pytest.mark.parametrize("part", [b"x" * 200_000, b"x" * 102_400, b"x" * 50_000], ids=["longer", "as long", "shorter"])
@pytest.mark.parametrize("size", [102_400, None])
def test_a_part_of_other_bytes_is_given_up(server: Any, answers: Any, get: Any, part: bytes, size: int | None) -> None:
    file = get.remote(server.url("/a", answers.give()), size=size)
    get.folder.mkdir()
    get.part(file).write_bytes(part)
    assert get(file)["graph.npz"].read_bytes() == get.content and get.names() == ["graph.npz"]


def test_a_part_of_another_version_is_not_continued(server: Any, answers: Any, get: Any) -> None:
    old = get.remote(server.url("/a", answers.give()), body=b"old" * 9_000)
    get.folder.mkdir()
    get.part(old).write_bytes(b"old" * 5_000)
    assert get(get.remote(*old.urls))["graph.npz"].read_bytes() == get.content
    assert server.asked == [("/a", None)]


def test_a_part_that_is_all_there_of_a_file_of_unknown_size(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.give()), size=None)
    get.folder.mkdir()
    get.part(file).write_bytes(get.content)
    assert get(file)["graph.npz"].read_bytes() == get.content
    assert server.asked == [("/a", "bytes=102400-")] and server.sent == 0


def test_a_wrong_first_half_of_one_mirror_does_not_spoil_the_next(server: Any, answers: Any, get: Any) -> None:
    bad = server.url("/bad", answers.give(b"x" * len(get.content), cut=HALF), answers.status(404))
    good = server.url("/good", answers.give())
    assert get(get.remote(bad, good))["graph.npz"].read_bytes() == get.content
    assert [asked for asked in server.asked if asked[0] == "/good"] == [("/good", f"bytes={HALF}-"), ("/good", None)]


def test_a_server_without_ranges_sends_all_again(server: Any, answers: Any, get: Any) -> None:
    url = server.url("/a", answers.give(cut=HALF), answers.give(ranges=False))
    assert get(get.remote(url))["graph.npz"].read_bytes() == get.content
    assert server.sent == HALF + len(get.content)


def test_a_range_from_another_byte_is_not_appended(server: Any, answers: Any, get: Any) -> None:
    url = server.url("/a", answers.give(cut=HALF), answers.give(at=HALF + 7), answers.give())
    assert get(get.remote(url), retries=2)["graph.npz"].read_bytes() == get.content
    assert any(f"expected bytes from {HALF} on, found HTTP status 206" in line for line in get.said)
    assert server.asked[-1] == ("/a", None)


@pytest.mark.parametrize("length", [90_000, 200_000, 10**17])
def test_a_stated_length_that_is_not_the_files(server: Any, answers: Any, get: Any, length: int) -> None:
    url = server.url("/a", answers.give(length=length))
    with pytest.raises(DatasetError, match=rf"/a: expected 102400 bytes, found {length} stated by the server"):
        get(get.remote(url))
    assert get.names() == [] and len(server.asked) == 1


def test_lengths_that_lie_about_a_file_of_unknown_size(server: Any, answers: Any, get: Any) -> None:
    shorter = get.remote(server.url("/a", answers.give(length=90_000)), size=None)
    with pytest.raises(DatasetError, match=rf"expected sha256 {shorter.sha256}, found [0-9a-f]{{64}} \(90000 bytes\)"):
        get(shorter)
    longer = get.remote(server.url("/b", answers.give(length=200_000)), size=None)
    assert get(longer)["graph.npz"].read_bytes() == get.content  # what is missing is asked for, and there is none
    assert server.asked[-1] == ("/b", "bytes=102400-")
    get.path().unlink()
    vast = get.remote(server.url("/c", answers.give(length=10**17)), size=None)
    with pytest.raises(DatasetError, match=rf"expected at most {download.LIMIT} bytes, found {10**17} stated"):
        get(vast)


def test_a_body_that_is_always_cut_short(server: Any, answers: Any, get: Any) -> None:
    file = get.remote(server.url("/a", answers.give(cut=HALF, ranges=False)))
    with pytest.raises(DatasetError, match=r"/a: expected .*, found .* \(4 attempts\)"):
        get(file, retries=3)
    assert len(server.asked) == 4 and get.part(file).stat().st_size == HALF
    ended = get.remote(server.url("/b", answers.give(get.content[:HALF], chunked=True)))
    with pytest.raises(DatasetError, match=rf"/b: expected sha256 {ended.sha256}, found \w+ \(51200 bytes\)"):
        get(ended)
    assert any("/b: expected 102400 bytes, found an end after 51200; again" in line for line in get.said)


def test_endless_data_is_cut_off(server: Any, answers: Any, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr("hire_jax.data.fetch._shown", lambda *_: _telling(written))
    with pytest.raises(DatasetError, match=r"/a: expected 102400 bytes, found more"):
        get(get.remote(server.url("/a", answers.endless())))
    assert get.names() == [] and max(written) <= len(get.content)
    monkeypatch.setattr(download, "LIMIT", 300_000)
    with pytest.raises(DatasetError, match=r"/b: expected at most 300000 bytes, found more"):
        get(get.remote(server.url("/b", answers.endless()), size=None))
    assert get.names() == [] and len(get.content) < max(written) <= 300_000


class _telling:
    """Stands for the progress bar."""

    def __init__(self, written: list[int]):
        self.written = written

    def __enter__(self) -> Any:
        return lambda done, total: self.written.append(done)

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("start, drop", [
    (b"HTTP/1.0 200 OK\r\nX-Slow: ", b"."),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 102400\r\n\r\n", b"."),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
], ids=["header", "continue", "body", "trailer"])  # fmt: skip
def test_a_server_that_drips_does_not_hold_the_caller(
        server: Any, answers: Any, get: Any, start: bytes, drop: bytes) -> None:
    url = server.url("/a", answers.drip(start, drop))
    with pytest.raises(DatasetError, match=r"/a: expected bytes to go on coming, found too few in 0.2 s \(1 attempt"):
        get(get.remote(url), timeout=0.1, retries=0)


def test_a_stalled_connection_is_dropped_and_continued(server: Any, answers: Any, get: Any) -> None:
    url = server.url("/a", answers.stall(), answers.give())
    assert get(get.remote(url), timeout=0.2)["graph.npz"].read_bytes() == get.content
    assert any("timed out" in line or "too few" in line for line in get.said)
    assert server.asked[1][1] is not None


def test_no_thread_stays_behind(server: Any, answers: Any, get: Any) -> None:
    with pytest.raises(DatasetError, match=r"found more"):
        get(get.remote(server.url("/a", answers.endless())))
    for thread in threading.enumerate():
        if thread.name.startswith("download "):
            thread.join(5)
            assert not thread.is_alive()


def test_a_busy_server_is_asked_again_after_growing_pauses(
        server: Any, answers: Any, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    busy = [answers.status(code, Retry_After=wait) for code, wait in
            ((503, 0), (429, "Wed, 21 Oct 2015 07:28:00 GMT"), (500, -1), (502, 20), (504, 900))]
    url = server.url("/a", *busy, answers.give())
    assert get(get.remote(url), retries=5, pause=1.5)["graph.npz"].read_bytes() == get.content
    assert slept == [1.5, 3.0, 6.0, 20.0, 60.0]
    assert "found HTTP status 503 Service Unavailable; again in 1.5 s" in get.said[1]


def test_redirects_are_followed_and_their_bodies_not_read(server: Any, answers: Any, get: Any) -> None:
    server.url("/there", answers.give())
    url = server.url("/a", answers.redirect("there"))
    assert get(get.remote(url))["graph.npz"].read_bytes() == get.content


@pytest.mark.parametrize("to, found", [
    ("/a", "found more than 10 redirects"),
    ("http://[", "expected a redirect to an address, found .*"),
    ("ftp://127.0.0.1/x", "expected an address that answers, found InvalidSchema"),
])
def test_redirects_that_lead_nowhere(server: Any, answers: Any, get: Any, to: str, found: str) -> None:
    with pytest.raises(DatasetError, match=rf"(/a|/x): .*{found}"):
        get(get.remote(server.url("/a", answers.redirect(to))))


def test_an_address_that_nobody_serves_and_one_that_is_none(server: Any, answers: Any, get: Any) -> None:
    with get.serving() as gone:
        refused = gone.url("/a", answers.give())
    good = server.url("/good", answers.give())
    assert get(get.remote(refused, "nonsense", "http://", good))["graph.npz"].read_bytes() == get.content
    said = "\n".join(get.said)
    assert "Connection refused" in said and "MissingSchema" in said and "InvalidURL" in said


def test_answers_that_are_not_http(server: Any, answers: Any, get: Any) -> None:
    for start in (b"\x00\xff" * 40_000, b"HTTP/1.0 999999 \r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n"):
        with pytest.raises(DatasetError, match=r"/a: expected"):
            get(get.remote(server.url("/a", lambda handler, start=start: handler.send(start))))


def test_an_empty_file(server: Any, answers: Any, get: Any) -> None:
    for size in (0, None):
        file = get.remote(server.url("/a", answers.give(b"")), body=b"", name=f"empty{size}", size=size)
        assert get(file)[file.name].read_bytes() == b""


ANSWERS = st.one_of(
    st.builds(lambda cut, ranges, chunked: ("give", {"cut": cut, "ranges": ranges, "chunked": chunked}),
              st.none() | st.integers(0, 102_400), st.booleans(), st.booleans()),
    st.builds(lambda byte: ("give", {"body": bytes([byte]) * 102_400}), st.integers(0, 255)),
    st.builds(lambda at, cut: ("give", {"at": at, "cut": cut}), st.integers(0, 102_400), st.integers(0, 102_400)),
    st.builds(lambda length: ("give", {"length": length}), st.integers(0, 300_000)),
    st.builds(lambda code: ("status", {"code": code}), st.sampled_from([204, 206, 304, 404, 416, 418, 503])),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answered=st.lists(ANSWERS, min_size=1, max_size=5), size=st.sampled_from([102_400, None]))
def test_only_the_right_bytes_get_the_name_whatever_is_answered(
        server: Any, answers: Any, get: Any, answered: list[Any], size: int | None) -> None:
    url = server.url("/a", *(getattr(answers, kind)(**how) for kind, how in answered))
    file = get.remote(url, size=size)
    try:
        path = get(file, retries=3)["graph.npz"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        path.unlink()
    except DatasetError:
        assert not get.path().exists()
    assert set(get.names()) <= {get.part(file).name}
    get.part(file).unlink(missing_ok=True)
