"""Small valid originals of every form, made in code: what the fuzz damages."""

import io
import json
import pickle
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from hire_jax.data.formats.gtn import GTNForm
from hire_jax.data.formats.heco import HeCoForm
from hire_jax.data.formats.hgb import HGBForm
from hire_jax.data.formats.ogb import OGBForm
from tests.fuzz.packing import Files, matrix, matrix_npz, npy, npz, packed, text

WORDS = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 2], [3, 0, 0], [0, 0, 1], [0, 4, 0]], np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0, 1, 1])
LINKS = np.array([[0, 1], [0, 2], [2, 3], [4, 5], [6, 7], [7, 0], [3, 3], [1, 0]])

HGB_FORMS = {
    False: HGBForm(("paper", "author", "term"), {0: ("paper", "cite", "paper"), 1: ("paper", "ref", "paper"),
                   2: ("paper", "to", "author"), 3: ("author", "to", "paper"), 5: ("paper", "has", "term")},
                   target="paper", num_classes=3, dense=("author",), reverse={"cite": "ref"}, split="hgb"),
    True: HGBForm(("paper", "author", "term"), {0: ("paper", "cite", "paper"), 1: ("paper", "back", "paper"),
                  2: ("paper", "to", "author"), 3: ("author", "to", "paper"), 5: ("paper", "has", "term")},
                  target="paper", num_classes=3, multilabel=True, reverse={"cite": "back"}, ignore_weights=True),
}
HECO_FORM = HeCoForm({"paper": 4, "author": 3, "subject": 2}, {"pa.txt": ("paper", "author"),
                     "ps.txt": ("paper", "subject")}, target="paper", num_classes=2, shots=(20,),
                     features={"paper": "p_feat.npz", "author": "a_feat.npz", "subject": "s_feat.npz"})
_GTN = GTNForm(HECO_FORM.nodes, {("paper", "author"): 4, ("paper", "subject"): 4}, width=3, num_classes=2)
GTN_FORMS = {
    "published": _GTN,
    "joined": replace(_GTN, features=HECO_FORM.features, same_links=HECO_FORM.links, same_labels="labels.npy",
                      splits={"shots": "20"}),
}
OGB_FORMS = {"one type": OGBForm(num_classes=3), "heterogeneous": OGBForm(num_classes=3, target="paper")}


def planetoid() -> Files:
    """Six nodes before the test range, two in it, one id of which is absent."""
    one_hot, test = np.eye(2, dtype=np.int32)[LABELS], [7, 5]
    graph = defaultdict(list, {0: [1, 1, 0], 1: [0], 2: [3, 7], 4: [5]})
    pieces = {"x": matrix(WORDS[:2]), "y": one_hot[:2], "allx": matrix(WORDS[:5]), "ally": one_hot[:5],
              "tx": matrix(WORDS[test]), "ty": one_hot[test], "graph": graph}
    files = {f"ind.tiny.{piece}": pickle.dumps(value, protocol=2) for piece, value in pieces.items()}
    return files | {"ind.tiny.test.index": text(*map(str, test))}


def hgb(multilabel: bool) -> Files:
    """Four papers, two authors, two terms without features."""
    nodes = ["0\tp0\t0\t1,0,0", "1\tp1\t0\t0,0.5,0", "2\tp2\t0\t0,0,2.0", "3\tp3\t0\t1e-1,0.0,1",
             "4\ta0\t1\t0.25,-1", "5\ta1\t1\t1,0", "6\tt0\t2", "7\tt1\t2"]
    links = ["0\t1\t0\t1.0", "2\t0\t0\t1.0", "1\t0\t1\t1.0", "0\t2\t1\t1.0", "0\t4\t2\t1.0", "3\t5\t2\t1.0",
             "4\t0\t3\t1.0", "5\t3\t3\t1.0", "0\t6\t5\t1.0", "2\t7\t5\t1.0"]
    more = ",2" if multilabel else ""
    return {"node.dat": text(*nodes), "link.dat": text(*links),
            "label.dat": text(f"0\tp0\t0\t0{more}", "2\tp2\t0\t2"),
            "label.dat.test": text("1\tp1\t0\t1", f"3\tp3\t0\t0{more}"),
            "info.dat": json.dumps({"node.dat": {"0": "paper"}}).encode()}


PAPER_LINKS = {"pa.txt": [(0, 0), (1, 2), (3, 1), (0, 2)], "ps.txt": [(0, 0), (1, 1), (2, 1), (3, 0)]}


def heco() -> Files:
    """Four papers, three authors, two subjects; sparse and dense features."""
    links = {name: text(*(f"{a}\t{b}" for a, b in pairs)) for name, pairs in PAPER_LINKS.items()}
    coo = scipy.sparse.coo_matrix(WORDS[4:7])
    return links | {
        "p_feat.npz": matrix_npz(WORDS[:4]), "labels.npy": npy(np.array([1, 0, 0, 1])), "s_feat.npz": npy(WORDS[:2]),
        "a_feat.npz": npz(row=coo.row, col=coo.col, format=np.array("coo"), shape=np.array(coo.shape), data=coo.data),
        "train_20.npy": npy(np.array([3, 1])), "val_20.npy": npy(np.array([0])), "test_20.npy": npy(np.array([2])),
    }


def gtn(kind: str) -> Files:
    """The same graph in GTN's pickles: all three as published, or two of them with HeCo's files."""
    starts = {"pa.txt": 4, "ps.txt": 7}
    matrices = []
    for name, pairs in PAPER_LINKS.items():
        rows, columns = np.array(pairs).T
        made = scipy.sparse.csr_matrix((np.ones(4), (rows, columns + starts[name])), shape=(9, 9))
        matrices += [made, made.transpose()]
    three = [[[3, 1], [1, 0]], [[0, 1]], [[2, 0]]]
    if kind == "published":
        features = np.concatenate([WORDS, WORDS[:1]])
        return {"edges.pkl": pickle.dumps(matrices, 2), "labels.pkl": pickle.dumps(three, 3),
                "node_features.pkl": pickle.dumps(features, 2)}
    others = heco() | {"s_feat.npz": matrix_npz(WORDS[:2])}
    return others | {"edges.pkl": pickle.dumps(dict(zip(("p-a", "a-p", "p-s", "s-p"), matrices, strict=True)), 2),
                     "labels.pkl": pickle.dumps(np.array([pair for part in three for pair in part]), 2)}


def magnn() -> Files:
    """Three movies, a director, two actors."""
    links = np.array([[0, 3], [2, 3], [4, 3], [0, 1], [0, 5], [4, 1]])
    adjacency = np.zeros((6, 6))
    adjacency[links[:, 0], links[:, 1]] = adjacency[links[:, 1], links[:, 0]] = 1
    return {"adjM.npz": matrix_npz(adjacency), "node_types.npy": npy(np.array([0, 2, 0, 1, 0, 2], np.int32)),
            "labels.npy": npy(np.array([2, 0, 1])),
            "features_0.npz": matrix_npz([[0, 1.5, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]]),
            "features_1.npz": matrix_npz([[1, 0, 0, 1]]), "features_2.npz": matrix_npz([[0, 0.2, 0], [0, 0, 0.4]]),
            "train_val_test_idx.npz": npz(train_idx=np.array([2]), val_idx=np.array([0]), test_idx=np.array([1]))}


def gnn_benchmark(pickled: bool) -> Files:
    """Eight nodes, three words; the matrices as arrays, or as GraphData pickles them."""
    adjacency = scipy.sparse.csr_matrix((np.ones(len(LINKS), np.float32), LINKS.T), shape=(8, 8))
    if pickled:
        held = [np.empty((), object) for _ in range(2)]
        held[0][()], held[1][()] = adjacency, matrix(WORDS)
        return {"tiny.npz": npz(adj_matrix=held[0], node_attr=held[1], node_label=LABELS)}
    arrays = {f"{key}_{part}": np.asarray(getattr(made, part))
              for key, made in (("adj", adjacency), ("attr", matrix(WORDS)))
              for part in ("data", "indices", "indptr", "shape")}
    return {"tiny.npz": npz(**arrays, labels=LABELS)}


def heterophilous() -> Files:
    """Eight nodes, two splits."""
    parts = np.array([[0, 0, 1, 1, 2, 2, 0, 3], [2, 1, 0, 0, 1, 2, 3, 0]])
    masks = {f"{part}_masks": parts == number for number, part in enumerate(("train", "val", "test"))}
    return {"tiny.npz": npz(node_features=WORDS, node_labels=LABELS, edges=LINKS, **masks)}


def ogb(kind: str) -> Files:
    """A directed graph of one type, or papers, authors and fields."""
    links = [f"{a},{b}" for a, b in LINKS.tolist()]
    features = [",".join(str(x) for x in row) for row in WORDS.tolist()]
    labels = [str(x) for x in LABELS.tolist()]
    split = {"train": packed("0", "3", "2"), "valid": packed("4", "1"), "test": packed("7", "5", "6")}
    if kind == "one type":
        return {"raw/num-node-list.csv.gz": packed("8"), "raw/num-edge-list.csv.gz": packed(str(len(links))),
                "raw/edge.csv.gz": packed(*links), "raw/node-feat.csv.gz": packed(*features),
                "raw/node-label.csv.gz": packed(*labels),
                **{f"split/time/{part}.csv.gz": content for part, content in split.items()}}
    relations = {"author___writes___paper": ["0,0", "1,7", "2,3", "0,3"], "paper___cites___paper": links,
                 "paper___has_topic___field": ["0,1", "5,0"]}
    files = {"raw/num-node-dict.csv.gz": packed("author,field,paper", "3,2,8"),
             "raw/triplet-type-list.csv.gz": packed(*(name.replace("___", ",") for name in relations)),
             "raw/node-feat/paper/node-feat.csv.gz": packed(*features),
             "raw/node-label/paper/node-label.csv.gz": packed(*labels)}
    for name, lines in relations.items():
        files[f"raw/relations/{name}/edge.csv.gz"] = packed(*lines)
        files[f"raw/relations/{name}/num-edge-list.csv.gz"] = packed(str(len(lines)))
    return files | {f"split/time/paper/{part}.csv.gz": content for part, content in split.items()}


def ppi() -> Files:
    """Two training graphs, one for each other part."""
    graphs = {"train": ([1, 1, 1, 2, 2], [(0, 0), (0, 2), (1, 2), (2, 1), (3, 4)]), "valid": ([3, 3], [(1, 0)]),
              "test": ([4, 4], [])}
    files: Files = {}
    for start, (part, (graph_of, links)) in enumerate(graphs.items()):
        count = len(graph_of)
        graph = {"directed": False, "multigraph": False, "graph": {},
                 "nodes": [{"id": node, "test": False} for node in range(count)],
                 "links": [{"source": source, "target": target} for source, target in links]}
        files |= {f"{part}_graph.json": json.dumps(graph).encode(), f"{part}_feats.npy": npy(WORDS[start:][:count]),
                  f"{part}_labels.npy": npy(np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 1]])[:count]),
                  f"{part}_graph_id.npy": npy(np.array(graph_of))}
    return files


def imdb_tables() -> Files:
    """The six parquet tables of the graphdatascience package; GTN's split needs 600 labelled movies and more."""
    import pyarrow
    import pyarrow.parquet

    movies, unlabelled, directors, actors = 610, 4, 3, 5
    start = {"directors": movies + unlabelled, "actors": movies + unlabelled + directors}

    def table(ids: range, **columns: Any) -> dict[str, Any]:
        return {"nodeId": list(ids), "plot_keywords": [[float(i % 2), float(i % 3 == 0)] for i in ids], **columns}

    tables = {
        "movies_with_genre": table(range(movies), genre=[i % 3 for i in range(movies)]),
        "movies_without_genre": table(range(movies, movies + unlabelled)),
        "directors": table(range(start["directors"], start["actors"])),
        "actors": table(range(start["actors"], start["actors"] + actors)),
        "directed_in": {"sourceNodeId": [start["directors"] + i % 3 for i in range(9)], "targetNodeId": list(range(9))},
        "acted_in": {"sourceNodeId": [start["actors"] + i % 5 for i in range(9)], "targetNodeId": list(range(9))},
    }
    files = {}
    for name, columns in tables.items():
        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), stream, compression="gzip")
        files[f"imdb_{name}.parquet.gzip"] = stream.getvalue()
    return files
