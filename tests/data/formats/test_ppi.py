"""The form of the protein graphs, on hand-made files."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import DatasetError, write_npz
from hire_jax.data.formats import ppi
from hire_jax.data.formats.ppi import parse_ppi
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals

Files = dict[str, Path | bytes]


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def graph(count: int, links: list[tuple[int, int]]) -> dict[str, Any]:
    """networkx's node-link form."""
    return {
        "directed": False,
        "multigraph": False,
        "graph": {},
        "nodes": [{"id": node, "test": False, "val": False} for node in range(count)],
        "links": [{"source": source, "target": target} for source, target in links],
    }


def part(prefix: str, graph_of: list[int], links: list[tuple[int, int]], x: np.ndarray, y: np.ndarray) -> Files:
    return {
        f"{prefix}_graph.json": json.dumps(graph(len(graph_of), links)).encode(),
        f"{prefix}_feats.npy": npy(x),
        f"{prefix}_labels.npy": npy(y),
        f"{prefix}_graph_id.npy": npy(graph_of),
    }


@pytest.fixture
def files() -> Files:
    """Two training graphs of three and two nodes, one graph of two nodes for each other part."""
    x = np.arange(18.0).reshape(9, 2)
    y = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1]])
    return {
        # a self loop, a link in both directions, one twice
        **part("train", [1, 1, 1, 2, 2], [(0, 0), (0, 2), (1, 2), (2, 1), (3, 4), (3, 4)], x[:5], y[:5]),
        **part("valid", [3, 3], [(1, 0)], x[5:7], y[5:7].astype(float)),
        **part("test", [4, 4], [], x[7:].astype(np.float32), y[7:].astype(np.int8)),
    }


def parse(files: Files) -> dict[str, np.ndarray]:
    return parse_ppi(Originals.of_files(files, "here"))


def test_arrays(files: Files, tmp_path: Path) -> None:
    arrays = parse(files)
    assert arrays["num_nodes/node"] == 9
    np.testing.assert_array_equal(arrays["x/node"], np.arange(18).reshape(9, 2))
    assert arrays["x/node"].dtype == np.float32
    expected = [(0, 2), (1, 2), (2, 0), (2, 1), (3, 4), (4, 3), (5, 6), (6, 5)]
    assert list(map(tuple, arrays["edge/node__to__node"].T.tolist())) == expected
    assert arrays["y/node"][[1, 5, 8]].tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    splits = {key: value.tolist() for key, value in arrays.items() if key.startswith("split/")}
    assert splits == {"split/tissues/train": [0, 1, 2, 3, 4], "split/tissues/val": [5, 6],
                      "split/tissues/test": [7, 8]}
    meta = {"target": "node", "classes": ["a", "b", "c"], "multilabel": True, "default_split": "tissues"}
    write_npz(tmp_path / "tiny.npz", arrays, meta)
    assert read_npz(tmp_path / "tiny.npz").multilabel


def test_ids_in_any_order_are_ids(files: Files) -> None:
    """Links name ids, not places in the list of nodes."""
    content = json.loads(bytes(files["train_graph.json"]))  # type: ignore[arg-type]
    content["nodes"].reverse()
    np.testing.assert_array_equal(
        parse(files | {"train_graph.json": json.dumps(content).encode()})["edge/node__to__node"],
        parse(files)["edge/node__to__node"],
    )


@pytest.mark.parametrize(
    "links, says",
    [
        ([(0, 3)], "expected links within one graph, found one from node 0 in graph 1 to node 3 in graph 2"),
        ([(0, 1), (0, 5)], r"expected 'target' of links\[1\] to be an integer from 0 to 4, found 5"),
        ([(-1, 0)], r"expected 'source' of links\[0\] to be an integer from 0 to 4, found -1"),
        ([(2**63, 0)], "found int"),
        ([(10**4000, 0)], "found int"),
        ([(0.0, 1)], "found float"),
        ([(True, 1)], "found bool"),
        ([("0", 1)], "found str"),
        ([(None, 1)], "found NoneType"),
        ([([], 1)], "found list"),
    ],
)
def test_wrong_links(links: list[Any], says: str, files: Files) -> None:
    with pytest.raises(DatasetError, match=rf"here: train_graph\.json: .*{says}"):
        parse(files | {"train_graph.json": json.dumps(graph(5, links)).encode()})


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "expected JSON, found JSONDecodeError"),
        (b"\xff\xfe\xff", "expected JSON, found UnicodeDecodeError"),
        (b"[" * 100_000, "expected JSON, found RecursionError"),
        (b"9" * 5000, "expected JSON, found ValueError"),
        (b"[]", "expected an object with a list of 'nodes', found something else"),
        (b"{}", "expected an object with a list of 'nodes'"),
        (b'{"nodes": {"id": 0}}', "expected an object with a list of 'nodes'"),
        (b'{"nodes": [0]}', r"expected 'id' of nodes\[0\] to be an integer from 0 to 4, found NoneType"),
        (b'{"nodes": []}', "expected nodes with the ids 0 to 4, each once, found 0 nodes with 0 ids"),
        (json.dumps(graph(4, [])).encode(), "found 4 nodes with 4 ids"),
        (json.dumps(graph(6, [])).encode(), "found 5"),
        (json.dumps(graph(5, [])).replace('"id": 1', '"id": 0').encode(), "found 5 nodes with 4 ids"),
        (json.dumps(graph(5, [])).replace("links", "edges").encode(), "an object with a list of 'links'"),
    ],
)
def test_wrong_graph(content: bytes, says: str, files: Files) -> None:
    with pytest.raises(DatasetError, match=rf"here: train_graph\.json: .*{says}"):
        parse(files | {"train_graph.json": content})


def test_large_json_is_refused_unparsed(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppi, "JSON_LIMIT", 100)
    with pytest.raises(DatasetError, match=r"train_graph\.json: expected at most 100 bytes, found more"):
        parse(files)


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("train_feats", np.zeros(5), r"a row of numbers for every node, found float64 of shape \[5\]"),
        ("train_feats", np.zeros((0, 2)), "a row of numbers for every node"),
        ("train_feats", np.full((5, 2), np.inf), r"finite in float32, found inf at \[0, 0\]"),
        ("train_feats", np.full((5, 2), 1j), "expected real numbers, found complex128"),
        ("train_labels", np.zeros((4, 3)), "expected labels of 5 nodes, as there are features, found 4"),
        ("train_labels", np.full((5, 3), 2), "expected numbers 0 and 1, found others"),
        ("train_labels", np.full((5, 3), np.nan), "expected numbers 0 and 1, found others"),
        ("train_labels", np.full((5, 3), "1"), "expected numbers 0 and 1, found others"),
        ("train_graph_id", np.zeros(4, int), r"the graph of each of 5 nodes, found int64 of shape \[4\]"),
        ("train_graph_id", np.zeros(5), "expected integers, found float64"),
        ("train_graph_id", np.full(5, 2**63, np.uint64), r"from 0 to 2147483647, found 9\d+ at \[0\]"),
        ("valid_graph_id", np.array([2, 3]), "expected no graph that is in train too, found 2"),
        ("valid_feats", np.zeros((2, 3)), "expected 2 features and 3 labels, as for training, found 3 and 3"),
        ("test_labels", np.zeros((2, 1)), "expected 2 features and 3 labels, as for training, found 2 and 1"),
    ],
)
def test_wrong_array(name: str, value: np.ndarray, says: str, files: Files) -> None:
    prefix = name.split("_")[0]
    with pytest.raises(DatasetError, match=rf"here: {prefix}_.*\.npy: .*{says}"):
        parse(files | {f"{name}.npy": npy(value)})


@pytest.mark.parametrize("name", [f"{p}_{k}" for p in ("train", "valid", "test")
                                  for k in ("graph.json", "feats.npy", "labels.npy", "graph_id.npy")])
def test_missing_or_damaged(name: str, files: Files) -> None:
    with pytest.raises(DatasetError, match=f"here: expected a file {name}, found"):
        parse({other: files[other] for other in files if other != name})
    with pytest.raises(DatasetError, match=f"here: {name}: expected"):
        parse(files | {name: bytes(files[name])[:-3]})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_round_trip(seed: int) -> None:
    """Any graphs come back, the parts one after the other."""
    random = np.random.default_rng(seed)
    files: Files = {}
    expected, start, numbers = set(), 0, iter(range(100))
    xs, ys = [], []
    for prefix in ("train", "valid", "test"):
        graph_of = np.repeat([next(numbers) for _ in range(random.integers(1, 4))], 3)
        x, y = random.normal(size=(len(graph_of), 2)), random.integers(0, 2, (len(graph_of), 3))
        pairs = random.integers(0, len(graph_of), (20, 2))
        links = [(a, b) for a, b in pairs.tolist() if graph_of[a] == graph_of[b]]
        files |= part(prefix, graph_of.tolist(), links, x, y)
        expected |= {(a + start, b + start) for a, b in links if a != b}
        start += len(graph_of)
        xs.append(x)
        ys.append(y)
    arrays = parse(files)
    expected |= {(b, a) for a, b in expected}
    assert list(map(tuple, arrays["edge/node__to__node"].T.tolist())) == sorted(expected)
    np.testing.assert_array_equal(arrays["x/node"], np.concatenate(xs).astype(np.float32))
    np.testing.assert_array_equal(arrays["y/node"], np.concatenate(ys))
    split = [arrays[f"split/tissues/{name}"] for name in ("train", "val", "test")]
    np.testing.assert_array_equal(np.concatenate(split), np.arange(start))
    assert [len(nodes) for nodes in split] == [len(x) for x in xs]
