"""The folder of CSV files, written: what is read again is the same, and what would not be is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hire_jax as hj
from hire_jax import DatasetError, GraphError, HeteroGraph
from hire_jax.interop import (
    Imported,
    NodeIds,
    dataset_from_columns,
    dataset_from_csv_folder,
    from_columns,
    from_csv_folder,
    to_csv_folder,
)
from hire_jax.interop.values import objects

WRITES = ("author", "writes", "paper")


def test_a_graph_comes_back(nodes, edges, task, tmp_path, agree):
    dataset, imported = dataset_from_columns(nodes, edges, **task)
    to_csv_folder(imported, tmp_path, dataset=dataset)
    again, found = dataset_from_csv_folder(tmp_path, target="paper", label="label", split="split")
    assert found.ids["paper"].tolist() == imported.ids["paper"].tolist()
    assert found.ids["author"].tolist() == ["70", "10", "30"]
    assert found.feature_names == imported.feature_names
    assert found.edge_feature_names == imported.edge_feature_names
    agree(found.graph, HeteroGraph.from_arrays(
        {"author": 3, "paper": 6}, imported.graph.host_edges(), imported.graph.features,
        {WRITES: imported.graph.relations[WRITES].edges}))
    np.testing.assert_array_equal(again.labels, dataset.labels)
    for part, mask in dataset.splits.items():
        np.testing.assert_array_equal(again.splits[part], mask)
    assert again.meta["classes"] == dataset.meta["classes"]


def test_a_graph_without_ids_and_a_multi_label_task(tmp_path, rng, agree):
    dataset = hj.data.synthetic_hetero(seed=0)
    rows = (rng.random((len(dataset.labels), 12)) < 0.3).astype(np.int32)
    rows[:, 11] |= rows.sum(axis=1) == 0
    rows[~np.any([np.asarray(mask) for mask in dataset.splits.values()], axis=0)] = -1
    dense = {name: np.asarray(x.todense()) if isinstance(x, hj.SparseFeatures) else x
             for name, x in dataset.graph.features.items()}
    graph = HeteroGraph.from_arrays(dataset.graph.num_nodes, dataset.graph.host_edges(), dense)
    dataset = hj.Dataset(graph, dataset.target, jnp.asarray(rows), dataset.splits, 12, True, {})
    to_csv_folder(dataset.graph, tmp_path / "new", dataset=dataset)
    again, found = dataset_from_csv_folder(tmp_path / "new", target=dataset.target, label="label", split="split",
                                           separator="|")
    assert found.ids[dataset.target].tolist() == list(map(str, range(len(rows))))
    np.testing.assert_array_equal(again.labels, rows)
    assert again.meta["classes"] == list(map(str, range(12)))  # by number, not "10" before "2"
    for name, x in dataset.graph.features.items():
        np.testing.assert_array_equal(again.graph.features[name], x)
    for edge_type, array in dataset.graph.host_edges().items():
        np.testing.assert_array_equal(again.graph.host_edges()[edge_type], array)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=5)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(TEXT, min_size=1, max_size=6, unique=True), name=TEXT, data=st.data())
def test_any_text_and_any_number_come_back(tmp_path_factory, ids, name, data):
    numbers = data.draw(st.lists(FLOATS, min_size=len(ids), max_size=len(ids)))
    ends = data.draw(st.lists(st.sampled_from(ids), max_size=6))
    imported = from_columns({"a": {"key": ids, name * 2 + "key": numbers}},
                            {("a", "to", "a"): {"source": ends, "destination": ends[::-1]}}, id="key")
    folder = tmp_path_factory.mktemp("round")
    to_csv_folder(imported, folder)
    found = from_csv_folder(folder)
    assert found.ids["a"].tolist() == ids and found.feature_names == imported.feature_names
    np.testing.assert_array_equal(found.graph.features["a"], imported.graph.features["a"])
    np.testing.assert_array_equal(found.graph.host_edges()["a", "to", "a"], imported.graph.host_edges()["a", "to", "a"])


# ---------------------------------------------------------------------------- what cannot be written as it is


def small(names=("a",), ids=("x", "y"), relation="to", column="x0"):
    tables = {name: {"key": list(ids), column: [1.0, 2.0]} for name in names}
    ends = {"source": [ids[0]], "destination": [ids[1]]}
    return from_columns(tables, {(names[0], relation, names[0]): ends}, id="key")


@pytest.mark.parametrize("graph, message", [
    ({"names": ("a__b",)}, r"nodes: expected names that make a file's name, .* found \['a__b'\]"),
    ({"names": ("a/b",)}, r"found \['a/b'\]"),
    ({"names": ("..",)}, r"found \['..'\]"),
    ({"names": ("",)}, r"found \[''\]"),
    ({"names": ("a_",)}, r"edges: expected names .* found \['a_', 'to', 'a_'\]"),
    ({"names": ("x" * 300,)}, r"nodes: expected names that make a file's name"),
    ({"relation": "to\n"}, r"edges: expected names that make a file's name"),
    ({"names": ("a", "A")}, r"expected types that differ in more than the case of letters"),
    ({"column": "id"}, r"node type 'a': expected features with distinct names besides \['id'\], found \['id', 'id'\]"),
    ({"ids": ("x", "\ud800")}, r"node type 'a': expected ids and names that UTF-8 can hold, found '\\ud800'"),
])
def test_names_that_no_file_can_bear(tmp_path, graph, message):
    with pytest.raises(GraphError, match=message):
        to_csv_folder(small(**graph), tmp_path)
    assert not list(tmp_path.iterdir())


def test_ids_that_text_cannot_tell_apart(tmp_path):
    graph = HeteroGraph.from_arrays({"a": 2}, {})
    for ids, message in (([1, "1"], r"ids of 'a': expected ids that differ as text, found '1' \(str\) again"),
                         ([("a", 0), "b"], r"ids of 'a': expected integers or non-empty strings, found \('a', 0\)")):
        with pytest.raises(GraphError, match=message):
            to_csv_folder(Imported(graph, {"a": NodeIds(objects(ids))}, {}, {}), tmp_path)


def test_other_things_that_are_not_written(tmp_path, awkward):
    with pytest.raises(GraphError, match=r"node type 'author': expected dense features or none, found sparse ones"):
        to_csv_folder(awkward, tmp_path)
    (tmp_path / "nodes").mkdir()
    with pytest.raises(GraphError, match=r"expected a folder without 'nodes' in it, found one"):
        to_csv_folder(small(), tmp_path)


@pytest.mark.parametrize("change, message", [
    ({"labels": [[1, 0], [0, 0], [0, 1]], "multilabel": True},
     r"expected classes that a CSV cell can tell from each other and from none, found \[\] of node 1, read back as "
     r"\[\]"),
    ({"meta": {"classes": ["0", "-1"]}}, r"expected at least two classes, found 1"),
    ({"meta": {"classes": ["a|b", "b"]}, "labels": [[1, 0], [0, 1], [1, 1]], "multilabel": True},
     r"row 2, column 'label': expected distinct classes"),
    ({"meta": {"classes": ["a", ""]}}, r"expected at least two classes|found \[''\] of node 1"),
    ({"splits": [0, 0, 1]}, r"dataset: expected nodes in every part of the split, found none in 'test'"),
])
def test_tasks_that_would_not_come_back(tmp_path, change, message):
    labels = np.array(change.get("labels", [0, 1, 0]), np.int32)
    parts = np.array(change.get("splits", [0, 1, 2]))
    graph = HeteroGraph.from_arrays({"a": 3}, {})
    dataset = hj.Dataset(graph, "a", labels, {part: parts == i for i, part in enumerate(("train", "val", "test"))},
                         2, change.get("multilabel", False), change.get("meta", {}))
    with pytest.raises((DatasetError, GraphError), match=message):
        to_csv_folder(graph, tmp_path, dataset=dataset)


def test_a_dataset_of_another_graph(tmp_path):
    with pytest.raises(GraphError, match=r"dataset: expected one of this graph, with \{'a': 2\}, found Dataset"):
        to_csv_folder(small(), tmp_path, dataset=hj.data.synthetic_hetero(seed=0))
