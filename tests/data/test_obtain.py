"""From an address to a dataset: fetched, checked, converted, loaded; and from files that someone brought."""

import functools
import hashlib
import http.server
import io
import json
import os
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from hire_jax.data import DatasetError, DatasetNotFoundError, build, registry
from hire_jax.data import __main__ as command
from hire_jax.data.obtain import convert, get


def original(seed=0):
    """An original file, in the form of arXiv 2302.11640: six nodes, two classes, one split."""
    rng = np.random.default_rng(seed)
    node, buffer = np.arange(6), io.BytesIO()
    np.savez(buffer, node_features=rng.normal(size=(6, 3)).astype(np.float32), node_labels=node % 2,
             edges=np.array([[0, 1], [1, 2], [3, 4], [4, 5]]), train_masks=node[None] < 2, val_masks=node[None] == 2,
             test_masks=node[None] > 2)
    return buffer.getvalue()


def facts(urls, content):
    return {"description": "a tiny graph", "citation": "arXiv 2302.11640", "licence": "none", "target": "node",
            "classes": 2, "multilabel": False, "nodes": {"node": [6, 3]}, "edges": {"node__to__node": 8},
            "splits": {"0": [2, 1, 3]}, "default_split": "0", "counts_from": "files", "notes": {"features": "noise"},
            "sources": [{"form": "heterophilous", "files": {"tiny.npz": {
                "urls": urls, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}}}]}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing of it."""

    def log_message(self, *args):
        """A test's output is its own."""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A server with tiny.npz, a registry that knows it, and an empty cache."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "tiny.npz").write_bytes(original())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/tiny.npz"
    known = {"tiny": facts([address], original())}
    monkeypatch.setattr(registry, "_facts", lambda: known)
    monkeypatch.setenv("HIRE_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HIRE_JAX_OFFLINE", "0")
    yield SimpleNamespace(served=served, cache=tmp_path / "cache", known=known, address=address)
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments):
    """(exit status, what was printed) of the command line."""
    console = Console(file=io.StringIO(), width=160)
    return command.main([str(argument) for argument in arguments], console), console.file.getvalue()


def test_a_name_is_all_it_takes(world, capsys):
    dataset = hj.load_dataset("tiny")
    assert dataset.graph.num_nodes == {"node": 6} and dataset.num_classes == 2
    assert [int(dataset.splits[part].sum()) for part in ("train", "val", "test")] == [2, 1, 3]
    assert dataset.meta["file"] == str(world.cache / "tiny.npz") and dataset.meta["paper"] == "arXiv 2302.11640"
    shown = capsys.readouterr()
    assert "Licence: none" in shown.err and shown.out == ""
    (world.served / "tiny.npz").unlink()
    hj.load_dataset("tiny")  # from the cache: there is no server's file any more
    (world.cache / "tiny.npz").unlink()
    hj.load_dataset("tiny")  # from the original, which was kept


def test_what_must_not_be_fetched_is_not(world, monkeypatch):
    with pytest.raises(DatasetNotFoundError, match=r"python -m hire_jax\.data get tiny"):
        hj.load_dataset("tiny", download=False)
    monkeypatch.setenv("HIRE_JAX_OFFLINE", "1")
    with pytest.raises(DatasetNotFoundError, match=r"convert PATH --name tiny"):
        hj.load_dataset("tiny")
    assert not world.cache.exists()
    assert run("get", "tiny")[0] == 2


def test_other_bytes_never_reach_a_parser(world, monkeypatch):
    (world.served / "tiny.npz").write_bytes(original(seed=1))

    def parse(name, files):
        raise AssertionError("it was parsed")

    monkeypatch.setitem(build.PARSERS, "heterophilous", parse)
    with pytest.raises(DatasetError, match=hashlib.sha256(original()).hexdigest()):
        get("tiny", say=lambda line: None)
    assert not (world.cache / "tiny.npz").exists()


def test_another_graph_than_the_registry_says_is_not_kept(world):
    world.known["tiny"]["nodes"] = {"node": [7, 3]}
    with pytest.raises(DatasetError, match=r"nodes of node: expected 7, found 6"):
        get("tiny", say=lambda line: None)
    assert not (world.cache / "tiny.npz").exists() and not list(world.cache.glob(".tiny*"))


def test_a_second_source_is_asked(world):
    first = json.loads(json.dumps(world.known["tiny"]["sources"][0]).replace("/tiny.npz", "/gone.npz"))
    world.known["tiny"]["sources"].insert(0, first)
    assert get("tiny", say=lambda line: None).is_file()
    world.known["tiny"]["sources"] = [first]
    (world.cache / "tiny.npz").unlink()
    (world.cache / "originals" / "tiny" / "tiny.npz").unlink()
    with pytest.raises(DatasetError, match=r"tiny: no source gave it:(.|\n)*gone\.npz"):
        get("tiny", say=lambda line: None)


def test_files_that_someone_brought(world, tmp_path):
    brought = tmp_path / "brought"
    brought.mkdir()
    (brought / "tiny.npz").write_bytes(original())
    said = []
    assert convert(brought, say=said.append) == world.cache / "tiny.npz"  # known by its checksum
    assert not any("checksum" in line for line in said)
    genuine = (world.cache / "tiny.npz").read_bytes()
    (brought / "tiny.npz").rename(brought / "renamed")
    (brought / "other.npz").write_bytes(original(seed=1))  # which is not read: the genuine file is there
    convert(brought, "tiny", say=said.append)
    assert (world.cache / "tiny.npz").read_bytes() == genuine and not any("checksum" in line for line in said)
    with zipfile.ZipFile(tmp_path / "tiny.ZIP", "w") as archive:
        archive.writestr("folder/tiny.npz", original(seed=1))
    with pytest.raises(DatasetError, match=r"found none whose checksums are all known; say which dataset"):
        convert(tmp_path / "tiny.ZIP")
    convert(tmp_path / "tiny.ZIP", "tiny", say=said.append)  # the same counts: another seed's features
    assert "checksums are not the registry's" in said[-4] and "is now tiny.npz.old" in said[-2]
    assert (world.cache / "tiny.npz.old").read_bytes() == genuine != (world.cache / "tiny.npz").read_bytes()
    with pytest.raises(DatasetError, match="did you mean tiny"):
        convert(brought, "tny")
    with pytest.raises(DatasetError, match=r"found nothing at"):
        convert(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"path: expected files that can be read"):
        convert(tmp_path / ("x" * 300))


def test_two_archives_with_one_member_are_not_mixed(world, tmp_path):
    (tmp_path / "mix").mkdir()
    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(tmp_path / "mix" / name, "w") as archive:
            archive.writestr("tiny.npz", original(seed=1))
    with pytest.raises(DatasetError, match=r"expected each file once, found tiny\.npz twice, once in b\.zip"):
        convert(tmp_path / "mix", "tiny")


def test_forms_with_pickles_need_their_checksums(world, tmp_path):
    world.known["tiny"]["sources"][0]["form"] = "planetoid"
    (tmp_path / "ind.tiny.x").write_bytes(b"no pickle")
    with pytest.raises(DatasetError, match=r"read with unverified=True \(--unverified\) only"):
        convert(tmp_path / "ind.tiny.x", "tiny")
    with pytest.raises(DatasetError, match=r"ind\.tiny\.x: expected only arrays"):
        convert(tmp_path / "ind.tiny.x", "tiny", unverified=True)


def test_a_file_known_by_its_git_id(world, tmp_path):
    (file,) = world.known["tiny"]["sources"][0]["files"].values()
    del file["sha256"], file["size"]
    content = original()
    file["git_blob_sha1"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    (tmp_path / "renamed").write_bytes(content)
    said = []
    convert(tmp_path / "renamed", say=said.append)
    assert not any("checksum" in line for line in said)


def test_splits_that_are_lacking_are_got(world):
    run("get", "tiny")
    world.known["tiny"]["splits"]["1"] = [2, 1, 3]
    assert "without the splits 1" in run("get", "tiny")[1]


RAW = Path(os.environ.get("HIRE_JAX_DATA", "no folder")).parent / "raw"  # read before the fixture takes it away


@pytest.mark.parametrize("archive, name", [("magnn_IMDB_processed", "imdb_magnn"), ("hgb_DBLP", "dblp_hgb")])
def test_a_real_archive_is_recognised_and_converted(archive, name, tmp_path):
    """By its checksum, whatever it is called; what it holds is what the registry says."""
    if not (RAW / f"{archive}.zip").is_file():
        pytest.skip(f"no {archive}.zip beside the folder that HIRE_JAX_DATA names")
    said = []
    assert convert(RAW / f"{archive}.zip", folder=tmp_path, say=said.append) == tmp_path / f"{name}.npz"
    assert "heco_20" in said[-1] if name == "dblp_hgb" else said[-1].endswith("checked")
    dataset = hj.load_dataset(name, root=tmp_path)
    assert dataset.graph.num_nodes == {node_type: count for node_type, (count, _) in registry.entry(name).nodes.items()}


def test_a_dataset_without_checksums_has_to_be_brought(world, tmp_path):
    world.known["tiny"]["sources"][0]["files"] = {"tiny.npz": {"urls": []}}
    world.known["tiny"]["notes"]["download"] = "Fetch it yourself and give it to `convert`"
    with pytest.raises(DatasetNotFoundError, match="Fetch it yourself"):
        hj.load_dataset("tiny")
    with pytest.raises(DatasetError, match="Fetch it yourself"):
        get("tiny")
    (tmp_path / "tiny.npz").write_bytes(original())
    assert run("convert", tmp_path / "tiny.npz", "--name", "tiny")[0] == 0
    assert hj.load_dataset("tiny").num_classes == 2


def test_a_folder_that_cannot_be_written(world, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DatasetError, match="file"):
        get("tiny", tmp_path / "file", say=lambda line: None)


def test_the_command_line(world, capsys):
    status, shown = run("list")
    assert status == 0 and "tiny" in shown and " get" in shown
    status, shown = run("info", "tiny")
    assert status == 0 and all(text in shown for text in ("a tiny graph", "node 6, 3 features", "2/1/3",
                                               world.address.removesuffix("/tiny.npz")))
    assert run("info", "tini")[0] == 2
    assert run("get", "tiny")[0] == 0 and " cache" in run("list")[1]
    status, shown = run("check", "tiny")
    assert status == 0 and "as registered" in shown and "1 of 1 in order" in shown
    assert run("check", "missing")[0] == 2
    capsys.readouterr()
    assert run("check", "tin")[0] == 2 and "did you mean tiny" in capsys.readouterr().err
    status, shown = run("check", "--folder", world.cache / "absent")
    assert status == 0 and "no such folder; only bundled graphs" in shown
    assert run("check", "--folder", world.cache / "tiny.npz")[0] == 2


def test_what_is_here_is_checked_and_made_again_where_it_is_broken(world):
    run("get", "tiny")
    (world.served / "tiny.npz").unlink()
    assert "here already, checked" in run("get", "tiny")[1]
    path = world.cache / "tiny.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert "it is made again" in run("get", "tiny")[1]
    assert path.read_bytes() == whole


def test_check_finds_what_is_not_in_order(world):
    run("get", "tiny")
    path = world.cache / "tiny.npz"
    path.write_bytes(path.read_bytes()[:-40])
    (world.cache / "own.npz").write_bytes(b"")
    status, shown = run("check")
    assert status == 1 and shown.count("FAILED") == 2 and "2 of 4 in order" in shown  # two are bundled
    assert "tiny.npz: expected a complete npz file" in shown and "own.npz: expected a complete npz file" in shown
