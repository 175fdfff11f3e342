"""Receiving one file over HTTP: bounded in bytes and in waiting, and continued where it broke off.

A server may send less than it says, or more, or nothing, or go on for ever. Nothing here trusts what it states;
whether the bytes are the right ones is for a checksum to say, before the file gets its name.
"""

import http.client
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from hire_jax.data.errors import DatasetError

PIECE = 16 << 10
LIMIT = 4 << 30  # for a file whose size is not known; the largest original (ogbn-mag, packed) has 0.4 GB
REDIRECTS = 10
LONGEST_PAUSE = 60.0
TRY_AGAIN = {408, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """The same address may do better next time, after this pause in seconds if the server named one."""

    def __init__(self, message: str, pause: float = 0.0):
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class Download:
    """A downloader for pooch: it gathers a file in `part`, verifies it, and only then hands it over.

    What has arrived stays in `part` when the connection, the process or the disk fails, and the next call goes on
    from there by an HTTP range, at any address: all are taken to have the same bytes until the checksum says
    otherwise.

    Attributes:
        part: where the bytes gather; its name should be bound to the checksum.
        size: the file's size in bytes, never exceeded; None takes `LIMIT` as the bound.
        mismatch: says what is wrong with a complete file ("expected sha256 ..., found ..."), None if nothing is.
        timeout: seconds to connect, and to wait for the next bytes; at least 16 KiB have to come within twice as long.
        retries: further attempts at the same address.
        pause: seconds before the first of them, doubled for each one after it.
        say: told what goes wrong, a line at a time.
        advance: told (bytes so far, bytes in all or None).
    """

    part: Path
    size: int | None
    mismatch: Callable[[Path], str | None]
    timeout: float
    retries: int
    pause: float
    say: Callable[[str], None]
    advance: Callable[[int, int | None], None]

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Fetches `url` into `output_file`; the signature is the one pooch calls.

        Raises:
            DatasetError: this address did not give the file; the message names it and says why.
            OSError: the disk did not take the bytes.
        """
        resumed = self._gather(url)
        wrong = self.mismatch(self.part)
        if wrong and resumed:
            # The bytes kept from before may be the wrong ones, another mirror's: once more, without them.
            self.say(f"{url}: {wrong}; from the start again")
            self.part.unlink()
            self._gather(url)
            wrong = self.mismatch(self.part)
        if wrong:
            self.part.unlink()
            raise DatasetError(f"{url}: {wrong}")
        os.replace(self.part, output_file)

    def _gather(self, url: str) -> bool:
        """Completes `part`; returns whether it contains bytes of an earlier attempt."""
        resumed = False
        for attempt in count():
            resumed |= self.part.exists()
            try:
                self._attempt(url)
                return resumed
            except _TryAgainError as error:
                if attempt >= self.retries:
                    raise DatasetError(f"{url}: {error} ({attempt + 1} attempts)") from error
                wait = min(max(self.pause * 2**attempt, error.pause), LONGEST_PAUSE)
                self.say(f"{url}: {error}; again in {wait:g} s")
            time.sleep(wait)
        raise AssertionError("count has no end")

    def _attempt(self, url: str) -> None:
        """One request, redirects followed; appends to `part` what it gives."""
        have = self.part.stat().st_size if self.part.exists() else None
        if have is not None and have == self.size:
            return  # complete, but its process died before verifying it
        if have is not None and have > (LIMIT if self.size is None else self.size):
            self.part.unlink()
            have = None
        # Packed transfer would make sizes and ranges those of the packed form.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        here = url
        for _ in range(REDIRECTS):
            with _answer(here, headers, self.timeout) as (status, answered, pieces):
                if status not in (301, 302, 303, 307, 308):
                    return self._take(url, status, answered, pieces, have or 0)
                try:
                    here = urljoin(here, answered.get("Location", ""))
                except ValueError as error:
                    raise DatasetError(f"{url}: expected a redirect to an address, found {error}") from error
        raise DatasetError(f"{url}: expected the file, found more than {REDIRECTS} redirects")

    def _take(self, url: str, status: int, headers: Mapping[str, str], pieces: Iterator[bytes], have: int) -> None:
        """Appends an answer's body to `part`, of which `have` bytes were there and the rest was asked for."""
        if status in TRY_AGAIN:
            wait = _integer(headers.get("Retry-After"))
            raise _TryAgainError(f"expected the file, found {_named(status)}", wait or 0)
        if status not in (200, 206, 416):
            raise DatasetError(f"{url}: expected the file, found {_named(status)}")
        if status == 200:  # the whole file, also where only the rest was asked for
            stated = _integer(headers.get("Content-Length"))
        else:
            first, stated = _range(headers)
            if status == 416 and have and stated == have:
                return  # the server has no more: what there is may be all of it
            if status == 416 or first != have:
                self.part.unlink(missing_ok=True)
                raise _TryAgainError(f"expected bytes from {have} on, found {_named(status)} with Content-Range "
                                     f"{headers.get('Content-Range', '')!r}")
        limit = LIMIT if self.size is None else self.size
        if stated is not None and (stated > limit or self.size not in (None, stated)):
            raise DatasetError(f"{url}: expected {self._bytes()}, found {stated} stated by the server")
        done = have if status == 206 else 0
        with self.part.open("ab" if done else "wb") as file:
            for piece in pieces:
                done += len(piece)
                if done > limit:
                    break
                file.write(piece)
                self.advance(done, self.size or stated)
        if done > limit:
            self.part.unlink()
            raise DatasetError(f"{url}: expected {self._bytes()}, found more")
        wanted = stated if self.size is None else self.size
        if wanted is not None and done < wanted:
            raise _TryAgainError(f"expected {wanted} bytes, found an end after {done}")

    def _bytes(self) -> str:
        return f"at most {LIMIT} bytes" if self.size is None else f"{self.size} bytes"


@contextmanager
def _answer(url: str, headers: Mapping[str, str], timeout: float) -> Iterator[tuple[int, Any, Iterator[bytes]]]:
    """One HTTP answer: its status, headers, and body in pieces as they are, without unpacking.

    A thread of its own receives it. The HTTP client's timeouts start anew with every byte, so that a server which
    sends headers or a body a byte at a time would hold the caller for ever; from a thread one can walk away. It ends
    with its next piece, its timeout or the connection, and holds 1 MiB at most.
    """
    items: queue.Queue[Any] = queue.Queue(maxsize=64)
    left = threading.Event()

    def put(item: object) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                return items.put(item, timeout=0.1)

    def receive() -> None:
        import requests

        class OneHop(requests.Session):
            """Told not to follow a redirect, requests still reads its whole body, however long, for where it leads."""

            def get_redirect_target(self, resp: requests.Response) -> str | None:
                return None

        try:
            with OneHop() as session, session.get(
                    url, headers=headers, stream=True, timeout=timeout, allow_redirects=False) as response:
                put((response.status_code, response.headers))
                while not left.is_set() and (piece := response.raw.read(PIECE, decode_content=False)):
                    put(piece)
            put(b"")
        except Exception as error:  # every one: the caller raises it
            put(error)

    def take() -> Any:
        try:
            item = items.get(timeout=2 * timeout)
        except queue.Empty:
            raise _TryAgainError(f"expected bytes to go on coming, found too few in {2 * timeout:g} s") from None
        if isinstance(item, Exception):
            raise _judged(url, item) from item
        return item

    threading.Thread(target=receive, name=f"download {url}", daemon=True).start()
    try:
        status, answered = take()
        yield status, answered, iter(take, b"")
    finally:
        left.set()


def _judged(url: str, error: Exception) -> Exception:
    """What an error of the HTTP client means: another attempt, or the end of this address."""
    import requests
    import urllib3

    # What requests wraps says it at length; the reason within says why.
    reason = getattr(error.args[0] if error.args else None, "reason", error)
    said = f"{type(reason).__name__}: {reason}"[:300]
    passing = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)
    if isinstance(error, passing):
        return _TryAgainError(f"expected the whole file, found {said}")
    return DatasetError(f"{url}: expected an address that answers, found {said}")


def _integer(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """(first byte, bytes in all) of a Content-Range header, None for what it does not say."""
    match = re.fullmatch(r"bytes (?:([0-9]+)-[0-9]+|\*)/([0-9]+|\*)", headers.get("Content-Range", ""))
    return (_integer(match[1]), _integer(match[2])) if match else (None, None)


def _named(status: int) -> str:
    return f"HTTP status {status} {http.client.responses.get(status, '')}".rstrip()
