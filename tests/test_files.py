"""A file is old or new, never half."""

import os

import pytest

from hire_jax.files import write_whole


def test_the_new_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "made" / "x"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(path.parent) == ["x"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_what_stops_it_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "x"
    write_whole(path, b"old")

    def stop(_):
        raise error

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]
