"""A server on this machine that answers as it is told, and fetching from it."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hire_jax.data.fetch import RemoteFile, fetch

CONTENT = bytes(range(256)) * 400  # 102,400 bytes: more than one piece
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Gives the next answer for the path; the last one stays."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        answers = self.server.answers[self.path]
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def send(self, body: bytes) -> None:
        self.server.sent += len(body)  # before the client can have it: a test may look as soon as it has
        self.wfile.write(body)

    def head(self, status: int = 200, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: standard error is for what is tested."""


class Server(ThreadingHTTPServer):
    """`answers`: {path: answers}; `asked`: (path, Range header) of every request; `sent`: bytes of all bodies."""

    daemon_threads = False  # so that closing waits for the answers to end

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.over = threading.Event()

    def url(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests are about."""


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the server is local; everywhere else no test may ask one."""
    monkeypatch.delenv("HIRE_JAX_OFFLINE", raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HIRE_JAX_OFFLINE", raising=False)
    with serving() as server:
        yield server


class Answers:
    """Makers of answers."""

    @staticmethod
    def give(body: bytes = CONTENT, *, cut: int | None = None, ranges: bool = True, length: int | None = None,
             chunked: bool = False, at: int | None = None) -> Answer:
        """`body`, or the rest of it that was asked for, ending at byte `cut`.

        ranges: ranges are known. length: what is stated instead of the true length. at: states another first byte.
        """

        def answer(handler: Handler) -> None:
            asked = handler.headers.get("Range") if ranges else None
            first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if first >= len(body) > 0:
                return handler.head(416, Content_Range=f"bytes */{len(body)}", Content_Length=0)
            stated = len(body) - first if length is None else length
            size = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": stated}
            if chunked:
                handler.protocol_version = "HTTP/1.1"
                handler.close_connection = True
            if asked:
                place = f"bytes {first if at is None else at}-{len(body) - 1}/{len(body)}"
                handler.head(206, Content_Range=place, **size)
            else:
                handler.head(200, **size)
            part = body[first:cut]
            if chunked:
                handler.wfile.write(b"%x\r\n" % len(part))
            handler.send(part)
            if chunked and cut is None:
                handler.wfile.write(b"\r\n0\r\n\r\n")

        return answer

    @staticmethod
    def redirect(to: str) -> Answer:
        """To another address, with a body that never ends."""

        def answer(handler: Handler) -> None:
            handler.head(302, Location=to)
            while not handler.server.over.is_set():
                handler.send(CONTENT)

        return answer

    @staticmethod
    def status(code: int, **headers: str | int) -> Answer:
        return lambda handler: handler.head(code, Content_Length=0, **headers)

    @staticmethod
    def endless(**headers: int) -> Answer:
        def answer(handler: Handler) -> None:
            handler.head(**headers)
            while not handler.server.over.is_set():
                handler.send(CONTENT)

        return answer

    @staticmethod
    def stall(body: bytes = CONTENT, after: int = 40_000) -> Answer:
        """Sends the first bytes and then waits for the end of the test."""

        def answer(handler: Handler) -> None:
            handler.head(Content_Length=len(body))
            handler.send(body[:after])
            handler.wfile.flush()
            handler.server.over.wait(30)

        return answer

    @staticmethod
    def drip(start: bytes, drop: bytes) -> Answer:
        """Sends `start`, then `drop` again and again, far more often than the timeout."""

        def answer(handler: Handler) -> None:
            handler.wfile.write(start)
            while not handler.server.over.wait(0.02):
                handler.wfile.write(drop)

        return answer


@pytest.fixture
def answers() -> type[Answers]:
    return Answers


def remote(*urls: str, body: bytes = CONTENT, name: str = "graph.npz", **other: Any) -> RemoteFile:
    stated = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)} | other
    return RemoteFile(name=name, urls=urls, **stated)


class Fetching:
    """get(urls or files ...) fetches without pauses; `said` has the lines it said."""

    def __init__(self, folder: Path):
        self.folder, self.said = folder, list[str]()
        self.serving, self.remote, self.content = serving, remote, CONTENT

    def __call__(self, *files: RemoteFile, **options: Any) -> dict[str, Path]:
        stated: dict[str, Any] = {"timeout": 2.0, "retries": 1, "pause": 0.0, "progress": False}
        return fetch(files, self.folder, **(stated | {"say": self.said.append} | options))

    def path(self, name: str = "graph.npz") -> Path:
        return self.folder / name

    def part(self, file: RemoteFile) -> Path:
        return self.folder / f".{file.name}.{(file.sha256 or file.git_blob_sha1 or '')[:12]}.part"

    def names(self) -> list[str]:
        """What is in the folder, but for the lock's file."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != ".fetch.lock")


@pytest.fixture
def get(tmp_path: Path) -> Fetching:
    pytest.importorskip("pooch", reason="downloads need pooch")
    pytest.importorskip("filelock", reason="downloads need filelock")
    return Fetching(tmp_path / "data")
