"""What is damaged beside original files: the npz form, tables, graphs, pickles, archives; all valid here."""

import pickle
from typing import Any

import numpy as np

from hire_jax.data.write import npz_bytes
from tests.fuzz.packing import Files, matrix, text, zipped
from tests.fuzz.seeds import LABELS, LINKS, WORDS, hgb


def dataset() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and meta of the npz form: CSR, dense and no features, two splits, an unlabelled node."""
    arrays = {
        "num_nodes/paper": np.array(10), "num_nodes/author": np.array(3), "num_nodes/tag": np.array(2),
        "x/paper/indptr": np.arange(11, dtype=np.int32), "x/paper/indices": np.arange(10, dtype=np.int32) % 4,
        "x/paper/data": np.arange(1, 11, dtype=np.float32), "x/paper/shape": np.array([10, 4]),
        "x/author": np.arange(6, dtype=np.float32).reshape(3, 2),
        "edge/author__writes__paper": np.array([[0, 1, 2, 0], [0, 3, 9, 5]]),
        "edge/paper__by__author": np.array([[0, 3, 9, 5], [0, 1, 2, 0]], np.int16),
        "edge/paper__has__tag": np.zeros((2, 0), np.int32),
        "y/paper": np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, -1], np.int32),
        "split/train": np.array([0, 1, 2, 3, 4], np.int32), "split/test": np.array([5, 6], np.int32),
        "split/full/train": np.array([0, 1]), "split/full/val": np.array([2, 3]), "split/full/test": np.array([8, 4]),
    }
    meta = {"name": "tiny", "target": "paper", "classes": ["a", "b", "c"], "multilabel": False, "default_split": "full"}
    return arrays, meta


def npz_form() -> Files:
    """The same as a file."""
    return {"tiny.npz": npz_bytes(*dataset())}


def csv_folder() -> Files:
    """Two node types, two relations, labels and a split."""
    rows = [f"p{i},{2000 + i},{i / 4},{'abc'[i % 3]},{('train', 'test', 'val', '')[i % 4]}" for i in range(9)]
    return {"nodes/paper.csv": text("id,year,score,topic,part", *rows),
            "nodes/author.csv": text("id,h", "1,3", "02,0.5", '"a ""b"", c",-1e3'),
            "edges/author__writes__paper.csv": text("source,destination", "1,p0", "02,p1", '"a ""b"", c",p0'),
            "edges/paper__cites__paper.csv": text("source,destination,weight", "p0,p1,0.5", "p8,p8,2")}


def columns() -> dict[str, Any]:
    """Arguments of `dataset_from_columns`."""
    return {
        "nodes": {"paper": {"id": [10, 11, 12, 13, 14], "x": [0.5, 1.0, 2.0, 3.0, 4.0],
                            "kind": ["a", "b", "a", "a", "c"], "topic": ["u", "v", "u", "v", None],
                            "part": ["train", "test", "val", "train", None], "block": np.arange(10.0).reshape(5, 2),
                            "title": ["one", "two", "three", "four", "five"]},
                  "author": {"id": ["ann", "bo"], "age": np.array([30, 40])}},
        "edges": {("author", "writes", "paper"): {"source": ["ann", "bo", "ann"], "destination": [10, 14, 12],
                                                  "weight": [1.0, 0.5, 2.0]},
                  ("paper", "cites", "paper"): {"source": np.array([10, 11]), "destination": np.array([11, 11])}},
        "target": "paper", "label": "topic", "split": "part", "id": "id", "source": "source",
        "destination": "destination", "categorical": {"paper": ["kind"]}, "ignore": {"paper": ["title"]},
    }


def graph() -> dict[str, Any]:
    """Arguments of `HeteroGraph.from_arrays`."""
    return {
        "num_nodes": {"paper": 8, "author": 3, "tag": 2},
        "edges": {("paper", "cites", "paper"): LINKS.T, ("author", "writes", "paper"): [[0, 1, 1], [3, 0, 0]],
                  ("paper", "has", "tag"): np.zeros((2, 0), int)},
        "features": {"paper": WORDS, "author": [[1, 2], [3, 4], [5, 6]]},
        "edge_features": {("author", "writes", "paper"): np.array([0.5, 1.0, 2.0])},
    }


def pickles() -> Files:
    """Whatever `load_arrays` takes, one pickle a file, in every protocol."""
    values = {"array": WORDS, "labels": LABELS.astype(np.int32), "matrix": matrix(WORDS), "lists": {0: [1, 2], 1: []},
              "columns": np.asfortranarray(WORDS), "number": {"a": [np.float32(2.5), 3], "b": [True]}}
    return {f"{name}{protocol}": pickle.dumps(value, protocol) for name, value in values.items()
            for protocol in range(5)}


def archive() -> Files:
    """A zip archive of a folder."""
    members = hgb(False) | {"deep/er/train.csv": text("1", "2"), "notes.txt": b"x" * 400}
    return {"tiny.zip": zipped({f"tiny/{name}": content for name, content in members.items()})}
