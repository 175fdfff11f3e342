"""What fetch shows while it works: a bar on a terminal, a few lines elsewhere, nothing where it is to be quiet."""

from typing import Any

import pytest

LARGE = bytes(1 << 21)


def test_progress_in_plain_lines(server: Any, answers: Any, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hire_jax.data.fetch.EVERY", 0.0)
    get(get.remote(server.url("/a", answers.give(LARGE)), body=LARGE), progress=True)
    assert len(get.said) == 1 + 128 and get.said[-1] == "graph.npz: 2,097,152 bytes of 2,097,152"
    get.said.clear()
    get(get.remote(server.url("/b", answers.give()), name="small"), progress=True)
    assert len(get.said) == 1


def test_progress_on_a_terminal(server: Any, answers: Any, get: Any, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    get(get.remote(server.url("/a", answers.give(LARGE)), body=LARGE), progress=True, say=None)
    out, err = capsys.readouterr()
    assert out == "" and "graph.npz" in err and "2.1/2.1 MB" in err and "\x1b[" in err
    assert "graph.npz: 2,097,152 bytes from http" in err


def test_quiet(server: Any, answers: Any, get: Any, capfd: pytest.CaptureFixture[str]) -> None:
    for path, options in {"/a": {"progress": False, "say": None}, "/b": {"progress": False}}.items():
        url = server.url(path, answers.status(503), answers.give(LARGE))
        get(get.remote(url, body=LARGE), **options)
        get.path().unlink()
        assert capfd.readouterr() == ("", "")
    assert len(get.said) == 2
