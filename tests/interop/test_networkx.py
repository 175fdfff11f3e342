"""NetworkX: round trips, graphs of other kinds, and what each thing that is wrong says."""

import builtins

import numpy as np
import pytest

from hire_jax import DatasetError, GraphError, HeteroGraph
from hire_jax.interop import dataset_from_networkx, from_networkx, to_networkx

nx = pytest.importorskip("networkx", reason='networkx is not installed: pip install "hire-jax[interop]"')

WRITES, CITES = ("author", "writes", "paper"), ("paper", "cites", "paper")


@pytest.fixture
def graph():
    """Three papers and two authors, with nodes of several kinds."""
    graph = nx.MultiDiGraph()
    for i, (topic, part) in enumerate([("a", "train"), ("b", "val"), ("a", "test")]):
        graph.add_node(("paper", i), type="paper", year=2000 + i, vector=np.array([i, -i]), topic=topic, part=part)
    graph.add_node("ada", type="author")
    graph.add_node(7, type="author")
    graph.add_edge("ada", ("paper", 0), relation="writes", share=0.5)
    graph.add_edge(7, ("paper", 0), relation="writes", share=0.25)
    graph.add_edge("ada", ("paper", 0), relation="writes", share=1)
    graph.add_edge(("paper", 2), ("paper", 1), relation="cites")
    return graph


def test_graph(graph, agree):
    found = from_networkx(graph, categorical={"paper": ["topic"]}, ignore={"paper": ["part"]})
    assert found.feature_names == {"paper": ("year", "vector[0]", "vector[1]", "topic=a", "topic=b")}
    assert found.edge_feature_names == {WRITES: ("share",)}
    assert found.ids["author"].tolist() == ["ada", 7] and found.index("paper", ("paper", 2)) == 2
    expected = HeteroGraph.from_arrays(
        {"paper": 3, "author": 2}, {WRITES: [[0, 0, 1], [0, 0, 0]], CITES: [[2], [1]]},
        {"paper": np.array([[2000, 0, 0, 1, 0], [2001, 1, -1, 0, 1], [2002, 2, -2, 1, 0]], np.float32)},
        {WRITES: np.array([[0.5], [1], [0.25]], np.float32)})
    assert set(found.graph.edge_types) == {WRITES, CITES}
    agree(HeteroGraph.from_arrays(found.graph.num_nodes, {e: found.graph.host_edges()[e] for e in (WRITES, CITES)},
                                  found.graph.features, {WRITES: found.graph.relations[WRITES].edges}), expected)


def test_dataset(graph):
    dataset, imported = dataset_from_networkx(graph, target="paper", label="topic", split="part", name="mine")
    assert dataset.labels.tolist() == [0, 1, 0] and dataset.meta == {
        "name": "mine", "classes": ["a", "b"], "split": "part"}
    assert imported.feature_names["paper"] == ("year", "vector[0]", "vector[1]")


def test_round_trip(awkward, agree):
    """Types, their order, relations without edges, edges twice and isolated nodes; sparse features come back dense."""
    dense = {name: np.asarray(x.todense() if hasattr(x, "todense") else x) for name, x in awkward.features.items()}
    attributes = {edge_type: np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
                  for edge_type, count in awkward.num_edges.items() if count and edge_type[0] == "author"}
    graph = HeteroGraph.from_arrays(awkward.num_nodes, awkward.host_edges(), dense, attributes)
    converted = to_networkx(graph)
    assert isinstance(converted, nx.MultiDiGraph)
    assert converted.number_of_nodes() == 15 and converted.number_of_edges() == sum(graph.num_edges.values())
    assert converted.nodes["venue", 1] == {"type": "venue"}
    found = from_networkx(converted)
    agree(found.graph, graph)
    assert found.ids["paper"].tolist() == [("paper", i) for i in range(7)]
    agree(from_networkx(to_networkx(awkward)).graph, HeteroGraph.from_arrays(
        awkward.num_nodes, awkward.host_edges(), dense))
    bare = to_networkx(graph, features=False)
    assert bare.nodes["paper", 0] == {"type": "paper"} and not from_networkx(bare).graph.features


def test_an_undirected_graph_gives_both_directions():
    graph = nx.Graph()
    graph.add_nodes_from([(0, {"type": "user"}), (1, {"type": "item"}), (2, {"type": "user"})])
    graph.add_edges_from([(0, 1), (2, 1), (0, 2), (2, 2)], relation="knows")
    found = from_networkx(graph).graph
    assert {edge_type: {tuple(pair) for pair in ends.T.tolist()} for edge_type, ends in found.host_edges().items()} == {
        ("user", "knows", "item"): {(0, 0), (1, 0)}, ("item", "knows", "user"): {(0, 0), (0, 1)},
        ("user", "knows", "user"): {(0, 1), (1, 0), (1, 1)}}
    assert sum(found.num_edges.values()) == 7  # the loop once


def test_graphs_without_types():
    found = from_networkx(nx.path_graph(4, create_using=nx.DiGraph), node_type=None, relation=None)
    assert found.graph.num_nodes == {"node": 4} and found.ids["node"].tolist() == [0, 1, 2, 3]
    assert found.graph.host_edges()["node", "to", "node"].tolist() == [[0, 1, 2], [1, 2, 3]]


def test_bad_graphs(graph):
    options = {"ignore": {"paper": ["topic", "part"]}}
    for value in (None, [], 5):
        with pytest.raises(GraphError, match=r"expected a graph of NetworkX, found"):
            from_networkx(value)
    with pytest.raises(GraphError, match=r"relation: expected an attribute's name or None, found \[\]"):
        from_networkx(graph, relation=[])
    with pytest.raises(GraphError, match=r"num_nodes is empty"):
        from_networkx(nx.Graph())
    with pytest.raises(GraphError, match=r"nodes of type 'paper', node \('paper', 0\), column 'topic': expected a "
                                         r"finite "
                                         r"number, .* found 'a' \(str\); name the column in ignore="):
        from_networkx(graph)
    graph.nodes["paper", 1]["vector"] = np.zeros(3)
    with pytest.raises(GraphError, match=r"column 'vector': .*vectors of one length throughout"):
        from_networkx(graph, **options)
    del graph.nodes["paper", 1]["vector"]
    with pytest.raises(GraphError, match=r"column 'vector': expected a finite number, or vectors of one length "
                                         r"throughout"):
        from_networkx(graph, **options)
    for i in range(3):
        graph.nodes["paper", i].pop("vector", None)
    graph.nodes["ada"]["age"] = 30
    with pytest.raises(GraphError, match=r"nodes of type 'author', node 7, column 'age': .* found nothing"):
        from_networkx(graph, **options)
    del graph.nodes["ada"]["age"]
    graph.add_edge(("paper", 0), ("paper", 1), relation="cites", weight=float("nan"))
    with pytest.raises(GraphError, match=r"edges of \(paper, cites, paper\), edge \('paper', 2\) -> \('paper', 1\), "
                                         r"column "
                                         r"'weight'|edge \('paper', 0\) -> \('paper', 1\), column 'weight'"):
        from_networkx(graph, **options)
    graph.remove_edge(("paper", 0), ("paper", 1))
    graph.nodes["ada"][3] = 1
    with pytest.raises(GraphError, match=r"nodes of type 'author': expected attributes named by strings, found "
                                         r"\['type', 3\]"):
        from_networkx(graph, **options)
    graph.add_edge("ada", 8, relation="knows")
    with pytest.raises(GraphError, match=r"node 8: expected a string in the attribute 'type', found nothing "
                                         r".*\(attributes "
                                         r"\[\]\)"):
        from_networkx(graph, **options)
    graph.nodes[8]["type"] = 5
    with pytest.raises(GraphError, match=r"node 8: expected a string in the attribute 'type', found 5 \(int\)"):
        from_networkx(graph, **options)
    graph.nodes[8]["type"] = "author"
    graph.add_edge(8, "ada")
    with pytest.raises(GraphError, match=r"edge 8 -> 'ada': expected a string in the attribute 'relation', found "
                                         r"nothing"):
        from_networkx(graph, **options)


@pytest.mark.parametrize("key, value", [
    ("hire_jax.node_types", "paper"), ("hire_jax.node_types", [3]), ("hire_jax.edge_types", "abc"),
    ("hire_jax.edge_types", ["abc"]), ("hire_jax.edge_types", [("a", "b")]), ("hire_jax.edge_types", [("a", 1, "b")]),
])
def test_types_that_a_file_format_has_changed(graph, key, value):
    graph.graph[key] = value
    with pytest.raises(GraphError, match=rf"graph attribute '{key}': expected types as to_networkx lists them, found"):
        from_networkx(graph)


def test_bad_tasks(graph):
    graph.nodes["paper", 1]["part"] = "dev"
    with pytest.raises(DatasetError, match=r"nodes of type 'paper', node \('paper', 1\), column 'part': expected one "
                                           r"of"):
        dataset_from_networkx(graph, target="paper", label="topic", split="part")
    with pytest.raises(DatasetError, match=r"target: expected one of \['paper', 'author'\], found 'venue'"):
        dataset_from_networkx(graph, target="venue", label="topic")


def test_without_networkx_the_error_names_the_extra(awkward, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "networkx":
            raise ImportError("No module named 'networkx'")
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'to_networkx needs networkx: pip install "hire-jax\[interop\]"'):
        to_networkx(awkward)
