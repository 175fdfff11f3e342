"""Tables of columns: what becomes of ids, features and edges."""


import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax import GraphError, HeteroGraph
from hire_jax.interop import Imported, from_columns

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")
UNUSED = {"paper": ["topic", "part"]}
KINDS = {"paper": ["venue"]}


def imported(nodes, edges, **options) -> Imported:
    return from_columns(nodes, edges, **{"categorical": KINDS, "ignore": UNUSED, **options})


def test_graph(nodes, edges, agree):
    found = imported(nodes, edges)
    assert found.feature_names == {"paper": ("year", "length", "venue=acl", "venue=kdd", "venue=www")}
    assert found.edge_feature_names == {WRITES: ("share",)}
    agree(found.graph, HeteroGraph.from_arrays(
        {"paper": 6, "author": 3},
        {WRITES: [[1, 1, 0], [1, 2, 0]], CITES: [[2, 0, 2], [1, 1, 0]]},
        {"paper": np.array([[2003, 8.5, 0, 1, 0], [2001, 4, 0, 0, 1], [2002, 6.25, 0, 1, 0],
                            [2004, 1, 1, 0, 0], [2005, 2, 0, 0, 1], [2006, 3, 0, 1, 0]], np.float32)},
        {WRITES: np.array([[0.5], [1.0], [0.25]], np.float32)}))
    assert found.graph.features["paper"].dtype == jnp.float32


def test_ids_are_kept_both_ways(nodes, edges):
    found = imported(nodes, edges)
    assert found.ids["paper"].tolist() == nodes["paper"]["id"]
    assert found.ids["author"].tolist() == [70, 10, 30]
    assert [found.index("paper", name) for name in nodes["paper"]["id"]] == list(range(6))
    assert found.index("author", np.int64(30)) == 2
    assert found.indices("paper", np.array(["p2", "p3", "p2"])).tolist() == [2, 0, 2]
    assert found.indices("author", [10, 70]).tolist() == [1, 0]
    assert found.indices("author", []).tolist() == []
    assert repr(found) == "Imported(paper 6, author 3; 2 relations, 6 edges)"


def test_columns_may_have_other_names(nodes, edges, agree):
    expected = imported(nodes, edges)
    nodes["paper"]["doi"] = nodes["paper"].pop("id")
    edges[CITES] = {"from": edges[CITES]["source"], "to": edges[CITES]["destination"]}
    found = imported(nodes, edges, id={"paper": "doi"}, source={CITES: "from"}, destination={CITES: "to"})
    agree(found.graph, expected.graph)
    nodes["author"]["doi"] = nodes["author"].pop("id")
    edges[WRITES] = {"from": edges[WRITES]["source"], "to": edges[WRITES]["destination"],
                     "share": edges[WRITES]["share"]}
    agree(imported(nodes, edges, id="doi", source="from", destination="to").graph, expected.graph)


def test_blocks_of_columns(edges):
    nodes = {"paper": {"id": np.arange(3), "vector": np.arange(6.0).reshape(3, 2), "flag": np.arange(3) != 1,
                       "listed": [[1, 2], (3, 4), np.array([5.5, 6.0])]}}
    found = from_columns(nodes, {})
    assert found.feature_names["paper"] == ("vector[0]", "vector[1]", "flag", "listed[0]", "listed[1]")
    np.testing.assert_array_equal(found.graph.features["paper"],
                                  [[0, 1, 1, 1, 2], [2, 3, 0, 3, 4], [4, 5, 1, 5.5, 6]])


def test_categories_of_edges_and_of_integers(nodes, edges):
    edges[CITES]["why"] = [7, -1, 7]
    edges[CITES]["sure"] = [True, True, False]
    found = imported(nodes, edges, categorical=KINDS | {CITES: ["why", "sure"]})
    assert found.edge_feature_names[CITES] == ("why=-1", "why=7", "sure=False", "sure=True")
    relation = found.graph.relations[CITES]
    by_edge = {(s, d): row.tolist() for s, d, row in zip(relation.senders.tolist(), relation.receivers.tolist(),
                                                         np.asarray(relation.edges), strict=True)}
    assert by_edge == {(2, 1): [0, 1, 0, 1], (0, 1): [1, 0, 0, 1], (2, 0): [0, 1, 1, 0]}


def test_a_relation_may_be_empty_or_have_edges_twice(nodes, edges):
    edges[CITES] = {"source": [], "destination": []}
    edges[WRITES] = {"source": [10, 10], "destination": ["p1", "p1"]}
    assert imported(nodes, edges).graph.num_edges == {WRITES: 2, CITES: 0}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integers_are_ids(dtype):
    ids = np.array([5, 3, 120, 0], dtype)
    found = from_columns({"a": {"id": ids}}, {("a", "to", "a"): {"source": [3, 0], "destination": ids[:2]}})
    assert found.graph.host_edges()["a", "to", "a"].tolist() == [[1, 3], [0, 1]]
    with pytest.raises(GraphError, match=r"found 9223372036854775813 \(int\)"):
        found.indices("a", np.array([2**63 + 5], np.uint64))  # 5 is there, and is not meant


def test_the_reverse_keeps_the_ids(nodes, edges):
    found = imported(nodes, edges)
    both = found.graph.add_reverse_relations()
    assert both.num_edges["paper", "rev_writes", "author"] == 3
    senders, receivers = both.host_edges()["paper", "rev_writes", "author"]
    pairs = {(found.ids["paper"][s], int(found.ids["author"][r])) for s, r in zip(senders, receivers, strict=True)}
    assert pairs == {("p1", 10), ("p2", 10), ("p3", 70)}


class Frame:
    """What pandas and polars have in common: columns by name, and their names under `columns`."""

    def __init__(self, data):
        self.columns = list(data)
        self.data = data

    def __getitem__(self, name):
        return Series(self.data[name])


class Series:
    """A column that offers numpy an array; what is missing is NaN among numbers and None among strings."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        text = any(isinstance(value, str) for value in self.values)
        return np.array(self.values, dtype=object if text else dtype)


def test_data_frames(nodes, edges, agree):
    expected = imported(nodes, edges).graph
    agree(imported({name: Frame(table) for name, table in nodes.items()},
                   {name: Frame(table) for name, table in edges.items()}).graph, expected)


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_real_data_frames(nodes, edges, package, agree):
    frames = pytest.importorskip(package, reason=f"{package} is not installed")
    agree(imported({name: frames.DataFrame(table) for name, table in nodes.items()},
                   {name: frames.DataFrame(table) for name, table in edges.items()}).graph,
          imported(nodes, edges).graph)


def test_pyarrow_tables(nodes, edges, agree):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    tables = {name: arrow.table(table) for name, table in nodes.items()}
    agree(imported(tables, {name: arrow.table(table) for name, table in edges.items()}).graph,
          imported(nodes, edges).graph)
    batches = {name: arrow.RecordBatch.from_pydict(table) for name, table in edges.items()}
    agree(imported(tables, {name: Frame({n: batch[n].to_pylist() for n in batch.schema.names})
                            for name, batch in batches.items()}).graph, imported(nodes, edges).graph)


@settings(max_examples=40)
@given(st.data())
def test_the_order_of_rows_only_numbers_the_nodes(data):
    """Any ids, any order: the same edges between the same ids, with the same features."""
    kind = data.draw(st.sampled_from([st.integers(-2**63, 2**63 - 1), st.text(min_size=1, max_size=4)]))
    ids = data.draw(st.lists(kind, min_size=1, max_size=8, unique=True))
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(ids)), max_size=12))
    order = data.draw(st.permutations(range(len(ids))))

    def content(order):
        table = {"id": [ids[i] for i in order], "x": [float(i) for i in order]}
        found = from_columns({"a": table}, {("a", "to", "a"): {
            "source": [s for s, _ in pairs], "destination": [d for _, d in pairs], "w": list(range(len(pairs)))}})
        names, relation = found.ids["a"].tolist(), found.graph.relations["a", "to", "a"]
        return (dict(zip(names, np.asarray(found.graph.features["a"])[:, 0].tolist(), strict=True)),
                sorted((float(w[0]), names[s], names[d]) for w, s, d in zip(
                    np.asarray(relation.edges), relation.senders.tolist(), relation.receivers.tolist(), strict=True)))

    assert content(order) == content(range(len(ids)))
    assert content(order)[1] == [(float(w), s, d) for w, (s, d) in enumerate(pairs)]
