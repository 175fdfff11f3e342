"""Random typed graphs, written in the HGB form and parsed back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.data import write_npz
from hire_jax.data.formats.hgb import HGBForm, parse_hgb
from hire_jax.data.npz import read_npz
from hire_jax.data.originals import Originals


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A small typed graph; features under `x` are dense, None where the type has none."""
    kinds = draw(st.permutations([0, 1, 2, *draw(st.lists(st.integers(0, 2), max_size=6))]))
    number = st.sampled_from([0.0, 1.0, -0.0]) | st.floats(width=32, allow_nan=False, allow_infinity=False)
    ids = [[node for node, kind in enumerate(kinds) if kind == of] for of in range(3)]
    widths = draw(st.lists(st.integers(0, 3), min_size=3, max_size=3))
    features = [[draw(st.lists(number, min_size=width, max_size=width)) for _ in range(len(members))]
                for members, width in zip(ids, widths, strict=True)]
    ends = {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (2, 0)}
    links = {kind: draw(st.lists(st.tuples(*(st.sampled_from(ids[end]) for end in pair)), min_size=1, max_size=6))
             for kind, pair in ends.items()}
    links[2] = [pair[::-1] for pair in draw(st.permutations(links[1]))]
    multilabel = draw(st.booleans())
    count = st.integers(1, 3) if multilabel else st.just(1)
    classes = {node: draw(st.permutations(range(4)))[: draw(count)] for node in draw(st.permutations(ids[0]))}
    return {"kinds": kinds, "ids": ids, "x": features, "links": links, "classes": classes, "multilabel": multilabel,
            "train": draw(st.integers(1, max(1, len(classes) - 1))), "decimals": draw(st.booleans())}


def written(graph: dict[str, Any]) -> dict[str, bytes]:
    """The graph in the HGB form."""
    rows = {node: row for members, rows in zip(graph["ids"], graph["x"], strict=True)
            for node, row in zip(members, rows, strict=True)}
    text = (lambda number: f"{number:.60f}") if graph["decimals"] else repr
    nodes = [f"{node}\tname\t{kind}" + ("\t" + ",".join(map(text, rows[node])) if rows[node] else "")
             for node, kind in enumerate(graph["kinds"])]
    links = [f"{source}\t{end}\t{kind}\t1.0" for kind, pairs in graph["links"].items() for source, end in pairs]
    labels = [f"{node}\tname\t0\t{','.join(map(str, classes))}" for node, classes in graph["classes"].items()]
    files = {"node.dat": nodes, "link.dat": links, "label.dat": labels[: graph["train"]],
             "label.dat.test": labels[graph["train"] :]}
    return {name: "".join(f"{line}\n" for line in lines).encode() for name, lines in files.items()}


@settings(max_examples=60)
@given(graph=graphs().filter(lambda graph: len(graph["classes"]) > 1))
def test_round_trip(graph: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    form = HGBForm(
        node_types=("a", "b", "c"), target="a", num_classes=4, multilabel=graph["multilabel"], dense=("b",),
        relations={0: ("a", "to", "a"), 1: ("a", "to", "b"), 2: ("b", "to", "a"), 3: ("c", "of", "a")},
        reverse={"has": "of"},
    )
    arrays = parse_hgb(Originals.of_files(written(graph), "random"), form)
    path = tmp_path_factory.mktemp("hgb") / "random.npz"
    write_npz(path, arrays, {"target": "a", "classes": list("wxyz"), "multilabel": graph["multilabel"]})
    ids = graph["ids"]
    assert read_npz(path).num_nodes == {name: len(members) for name, members in zip("abc", ids, strict=True)}
    for name, rows in zip("abc", graph["x"], strict=True):
        if name == "b" and rows[0]:
            np.testing.assert_array_equal(arrays["x/b"], np.array(rows, np.float32))
        elif rows[0]:
            indptr, indices, data = (arrays[f"x/{name}/{part}"] for part in ("indptr", "indices", "data"))
            places = [(row, column) for row, row_values in enumerate(np.array(rows, np.float32))
                      for column in np.flatnonzero(row_values)]
            assert list(zip(np.repeat(np.arange(len(rows)), np.diff(indptr)), indices, strict=True)) == places
            assert data.tolist() == [np.float32(rows[row][column]) for row, column in places]
        else:
            assert not [key for key in arrays if key.startswith(f"x/{name}")]
    local = {node: place for members in ids for place, node in enumerate(members)}
    forward = {kind: {(local[source], local[end]) for source, end in pairs} for kind, pairs in graph["links"].items()}
    backward = {kind: {pair[::-1] for pair in pairs} for kind, pairs in forward.items()}
    edges = {"a__to__a": forward[0] | backward[0], "a__to__b": forward[1], "b__to__a": backward[1],
             "c__of__a": forward[3], "a__has__c": backward[3]}
    found = {key.removeprefix("edge/"): [tuple(pair) for pair in array.T.tolist()] for key, array in arrays.items()
             if key.startswith("edge/")}
    assert found == {key: sorted(pairs) for key, pairs in edges.items()}
    order = [local[node] for node in graph["classes"]]
    assert arrays["split/train"].tolist() == order[: graph["train"]]
    assert arrays["split/test"].tolist() == order[graph["train"] :]
    labels = {local[node]: sorted(classes) for node, classes in graph["classes"].items()}
    if graph["multilabel"]:
        assert {node: np.flatnonzero(row).tolist() for node, row in enumerate(arrays["y/a"])} == labels
    else:
        assert {node: [label] for node, label in enumerate(arrays["y/a"].tolist())} == labels
