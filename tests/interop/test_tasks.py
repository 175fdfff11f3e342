"""Labels and splits from columns: classes and their names, what is unlabelled, what is drawn, and what is refused."""

import numpy as np
import pytest

from hire_jax import DatasetError, GraphError
from hire_jax.data import holdout, random_split
from hire_jax.interop import dataset_from_columns, from_columns


def parts_of(dataset):
    return {part: np.flatnonzero(mask).tolist() for part, mask in dataset.splits.items()}


def test_a_dataset(nodes, edges, task, agree):
    dataset, imported = dataset_from_columns(nodes, edges, name="mine", **task)
    assert dataset.labels.tolist() == [0, 1, 0, 1, -1, 1] and dataset.labels.dtype == np.int32
    assert parts_of(dataset) == {"train": [0, 1], "val": [2, 3], "test": [5]}
    assert (dataset.target, dataset.num_classes, dataset.multilabel) == ("paper", 2, False)
    assert dataset.meta == {"name": "mine", "classes": ["graphs", "text"], "split": "part"}
    # neither the label nor the split is a feature
    assert imported.feature_names["paper"] == ("year", "length", "venue=acl", "venue=kdd", "venue=www")
    assert dataset.graph is imported.graph
    agree(dataset.graph, from_columns(nodes, edges, categorical=task["categorical"],
                                      ignore={"paper": ["topic", "part"]}).graph)


@pytest.mark.parametrize("values, labels, classes", [
    (["b", "a", None, "", "b", "c"], [1, 0, -1, -1, 1, 2], ["a", "b", "c"]),
    ([10, 2, 2, -1, 10, 7], [2, 0, 0, -1, 2, 1], ["2", "7", "10"]),
    (["10", "2", "2", "-1", "10", ""], [1, 0, 0, -1, 1, -1], ["2", "10"]),
    (["10", "2", "02", "-1", "10", ""], [2, 3, 1, 0, 2, -1], ["-1", "02", "10", "2"]),  # "02" makes all of them text
    (np.array([1, np.nan, 0, 0, 1, 1]), [1, -1, 0, 0, 1, 1], ["0", "1"]),  # as pandas has integers with gaps
    ([1.0, None, 0, 0, 1, 1], [1, -1, 0, 0, 1, 1], ["0", "1"]),
    ([True, False, True, True, True, True], [1, 0, 1, 1, 1, 1], ["False", "True"]),
    (np.array([3, 1, 1, 1, 3, 3], np.uint8), [1, 0, 0, 0, 1, 1], ["1", "3"]),
])
def test_classes_and_the_unlabelled(nodes, edges, task, values, labels, classes):
    known = [row for row, label in enumerate(labels) if label >= 0]
    parts = dict(zip(known, ("train", "val", "test"), strict=False))
    nodes["paper"] |= {"topic": values, "part": [parts.get(row) for row in range(6)]}
    dataset, _ = dataset_from_columns(nodes, edges, **task)
    assert dataset.labels.tolist() == labels and dataset.meta["classes"] == classes


@pytest.mark.parametrize("values, labels, classes", [
    (["b|a", "a", None, "", "c|b", "a"], [[1, 1, 0], [1, 0, 0], [-1] * 3, [-1] * 3, [0, 1, 1], [1, 0, 0]],
     ["a", "b", "c"]),
    (["10|2", "2", 3, -1, "-1", "2"], [[1, 0, 1], [1, 0, 0], [0, 1, 0], [-1] * 3, [-1] * 3, [1, 0, 0]],
     ["2", "3", "10"]),
])
def test_several_classes_of_one_node(nodes, edges, task, values, labels, classes):
    nodes["paper"] |= {"topic": values, "part": ["train", "test", None, None, None, "val"]}
    dataset, _ = dataset_from_columns(nodes, edges, separator="|", **task)
    assert dataset.multilabel and dataset.labels.tolist() == labels and dataset.meta["classes"] == classes


def test_multi_hot_columns(nodes, edges, task):
    rows = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [-1, -1, -1], [1, 0, 0]])
    for block in (rows, rows.astype(float), np.where(rows < 0, np.nan, rows)):
        nodes["paper"]["topic"] = block
        dataset, _ = dataset_from_columns(nodes, edges, **task)
        assert dataset.multilabel and dataset.meta["classes"] == ["0", "1", "2"]
        np.testing.assert_array_equal(dataset.labels, rows)


def test_without_validation_nodes_some_training_nodes_are_held_out(nodes, edges, task):
    many = {"id": list(range(20)), "topic": ["a", "b"] * 10, "part": ["train"] * 15 + ["test"] * 5}
    dataset, _ = dataset_from_columns({"paper": many}, {}, target="paper", label="topic", split="part", seed=3)
    kept, held = holdout(np.arange(20) < 15, fraction=0.2, seed=3)
    assert held.sum() == 3 and dataset.meta["split"] == "part:3"
    np.testing.assert_array_equal(dataset.splits["train"], kept)
    np.testing.assert_array_equal(dataset.splits["val"], held)


def test_a_random_split(edges):
    labels = np.arange(40) % 2
    table = {"id": range(40), "topic": np.where(np.arange(40) < 38, labels, -1)}
    dataset, _ = dataset_from_columns({"paper": table}, {}, target="paper", label="topic", seed=7, train_per_class=4,
                                      val_per_class=5)
    expected = random_split(table["topic"], train_per_class=4, val_per_class=5, seed=7)
    for part, mask in expected.items():
        np.testing.assert_array_equal(dataset.splits[part], mask)
    assert dataset.meta["split"] == "random:7 (4 + 5 a class)"


BAD = {
    "one class": ({"topic": ["a"] * 6}, r"node table 'paper', column 'topic': expected at least two classes, found 1"),
    "no labels": ({"topic": [None] * 6}, r"column 'topic': expected at least two classes, found 0"),
    "negative": ({"topic": [0, 1, -2, 0, 1, 0]}, r"row 2, column 'topic': expected a class, .* found -2 \(int\)"),
    "mixed": ({"topic": ["a", "b", 3, "a", None, "b"]}, r"row 2, column 'topic': .* found 3 \(int\)"),
    "fractions": ({"topic": [0.5, 1, 2, 3, 4, 5]}, r"row 0, column 'topic': expected a class: .* found 0.5 \(float\)"),
    "infinite": ({"topic": [np.inf, 1, 2, 3, 4, 5]}, r"row 0, column 'topic': .* found inf \(float\)"),
    "lists": ({"topic": [["a"], ["b"], [], [], [], []]}, r"row 0, column 'topic': .* found \['a'\] \(list\)"),
    "short": ({"topic": ["a", "b"]}, r"column 'topic': expected 6 rows like the other columns, found 2"),
    "half unlabelled": ({"topic": [[0, -1]] + [[0, 1]] * 5}, r"column 'topic': expected rows all -1 or free of -1, "
                                                             r"found "
                        r"\[0, -1\] in row 0"),
    "beyond one": ({"topic": [[0, 1], [1, 2]] + [[0, 1]] * 4}, r"column 'topic': expected integers from -1 "
                   r"\(unlabelled\) to 1, found 2 \(int\) at \[1, 1\]"),
    "another part": ({"part": ["train", "valid", "test", None, None, None]}, r"row 1, column 'part': expected one of "
                     r"\['train', 'val', 'test'\], or nothing, found 'valid' \(str\)"),
    "a part by number": ({"part": [0, 1, 2, 0, 1, 2]}, r"row 0, column 'part': .* found 0 \(int\)"),
    "parts as arrays": ({"part": [np.ones(2)] * 5 + [None]}, r"row 0, column 'part': .* found array"),
    "a part without label": ({"part": ["train", "val", "test", None, "test", None]},
                             r"row 4, column 'part': expected a part for labelled nodes only, found 'test' for a node "
                             "without a label"),
    "no training nodes": ({"part": ["test"] * 4 + [None, "val"]}, r"column 'part': expected nodes for training and for "
                          "testing, found none for 'train'"),
    "no test nodes": ({"part": ["train"] * 4 + [None, "val"]}, r"found none for 'test'"),
    "too few to hold out": ({"part": ["train", "test"] + [None] * 4}, r"column 'part': mask: expected enough nodes to "
                            "hold out 0.2 of them, found 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_and_splits(nodes, edges, task, case):
    change, message = BAD[case]
    nodes["paper"] |= change
    with pytest.raises((DatasetError, GraphError), match=message):
        dataset_from_columns(nodes, edges, **task)


SEPARATED = {
    "an empty class": (["a|", "b", "a", "a", "a", "a"], r"row 0, column 'topic': expected distinct classes, .* found "
                                                        r"'a|'"),
    "a class twice": (["a", "b|b", "a", "a", "a", "a"], r"row 1, column 'topic': expected distinct classes, .*'b|b'"),
    "negative": (["1", "2", "1|-1", "1", "2", "1"], r"row 2, column 'topic': .* found '1|-1'"),
}


@pytest.mark.parametrize("case", SEPARATED)
def test_bad_classes_of_one_node(nodes, edges, task, case):
    values, message = SEPARATED[case]
    nodes["paper"]["topic"] = values
    with pytest.raises(DatasetError, match=message.replace("|", r"\|")):
        dataset_from_columns(nodes, edges, separator="|", **task)


@pytest.mark.parametrize("change, message", [
    ({"target": "venue"}, r"target: expected one of \['paper', 'author'\], found 'venue'"),
    ({"target": None}, r"target: expected a string, found None"),
    ({"label": 3}, r"label: expected a string, found 3"),
    ({"target": 10**5000}, r"target: expected a string, found a very large one \(int\)"),
    ({"seed": -(10**5000)}, r"seed: expected a whole number from 0, found a very large one \(int\)"),
    ({"label": "theme"}, r"node table 'paper': expected a column 'theme' \(the labels\), found the columns"),
    ({"label": "id"}, r"node table 'paper': expected different columns for \['id'\], the label and the split, found "
                      r"\['id', 'part'\]"),
    ({"split": "topic"}, r"expected different columns for \['id'\], the label and the split"),
    ({"split": "where"}, r"expected a column 'where' \(the split\)"),
    ({"split": 0}, r"split: expected a string or None, found 0"),
    ({"separator": ""}, r"separator: expected a string or None, found ''"),
    ({"seed": -10**5000}, r"seed: expected a whole number from 0, found a very large one"),
    ({"seed": -1}, r"seed: expected a whole number from 0, found -1"),
    ({"train_per_class": 2.0}, r"train_per_class: expected a whole number from 0, found 2.0"),
    ({"val_per_class": True}, r"val_per_class: expected a whole number from 0, found True"),
    ({"split": None, "ignore": {"paper": ["part"]}},
     r"column 'topic': labels: expected more than 50 nodes in class 0 .*, found 2"),
    ({"ignore": {"paper": ["topic"]}}, r"ignore: expected columns of node table 'paper' without another role, "
                                       r"\['year', 'length', 'venue'\], found 'topic'"),
])
def test_bad_tasks(nodes, edges, task, change, message):
    with pytest.raises((DatasetError, GraphError), match=message):
        dataset_from_columns(nodes, edges, **(task | change))


def test_vast_multi_hot_labels(nodes, edges, task, monkeypatch):
    monkeypatch.setattr("hire_jax.interop.labels.MAX_CELLS", 35)
    nodes["paper"]["topic"] = list("abcdef")
    with pytest.raises(DatasetError, match=r"column 'topic': expected at most 5 classes of 6 nodes, found 6"):
        dataset_from_columns(nodes, edges, separator="|", **task)
