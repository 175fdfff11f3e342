"""Graphs of NetworkX, both ways. Only `to_networkx` imports it: `pip install "hire-jax[interop]"`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hire_jax.data import Dataset
from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.graph.checks import edge_name
from hire_jax.interop.assemble import Edges, Nodes, assemble
from hire_jax.interop.ids import Imported, NodeIds
from hire_jax.interop.roles import Columns, Roles
from hire_jax.interop.table import Table
from hire_jax.interop.tasks import Drawing, Task, table_dataset
from hire_jax.interop.values import brief, objects, shown
from hire_jax.sparse import SparseFeatures

if TYPE_CHECKING:
    import networkx

# Attributes of the whole graph: NetworkX itself knows neither types without nodes nor relations without edges.
NODE_TYPES, EDGE_TYPES = "hire_jax.node_types", "hire_jax.edge_types"


def from_networkx(graph: Any, *, node_type: str | None = "type", relation: str | None = "relation",
                  categorical: Columns = None, ignore: Columns = None) -> Imported:
    """A graph from a NetworkX graph, directed or not, multi or not.

    Nodes are numbered within their type in NetworkX's order. A relation is named by the types of its ends and an
    attribute of its edges; an undirected graph gives both directions. All other attributes become features, which every
    node of a type then needs: numbers, or vectors of one length.

    Args:
      graph: the graph.
      node_type: the nodes' attribute that holds their type; None: all are of the type "node".
      relation: the edges' attribute that holds their relation; None: all are "to".
      categorical, ignore: {node or edge type: [attributes]}, as `from_columns`.

    Returns:
      `Imported`, whose ids are NetworkX's nodes.

    Raises:
      GraphError: it is no such object, or an attribute is missing or is no feature; the message names the node or edge.
    """
    roles = Roles(categorical=categorical, ignore=ignore)
    return assemble(*_identified(graph, node_type, relation, roles), roles)


def dataset_from_networkx(graph: Any, *, target: str, label: str, split: str | None = None,
                          separator: str | None = None, seed: int = 0, train_per_class: int = 20,
                          val_per_class: int = 30, name: str = "networkx", node_type: str | None = "type",
                          relation: str | None = "relation", categorical: Columns = None,
                          ignore: Columns = None) -> tuple[Dataset, Imported]:
    """A dataset for `hire_jax.fit` from a NetworkX graph; `label` and `split` are attributes of the target's nodes.

    Args:
      graph, node_type, relation, categorical, ignore: as `from_networkx`.
      target, label, split, separator, seed, train_per_class, val_per_class, name: as `dataset_from_columns`.

    Returns:
      (dataset, imported), as `dataset_from_columns`.

    Raises:
      GraphError, DatasetError: as `from_networkx` and `dataset_from_columns`; the message names the node or edge.
    """
    roles = Roles(categorical=categorical, ignore=ignore)
    task = Task(target, label, split, separator, Drawing(seed, train_per_class, val_per_class), name)
    return table_dataset(*_identified(graph, node_type, relation, roles), roles, task)


def to_networkx(graph: HeteroGraph, *, features: bool = True) -> "networkx.MultiDiGraph":
    """A `networkx.MultiDiGraph` of a graph; `from_networkx` gives it back.

    Node (type, i) is node i of a type. Nodes have the attribute "type", edges "relation", and both have "features", a
    numpy vector, where there are some; sparse rows are made dense.

    Args:
      graph: the graph. Its positional encodings are left out.
      features: False leaves the features out.

    Raises:
      ImportError: networkx is not installed.
    """
    try:
        import networkx
    except ImportError as error:
        raise ImportError('to_networkx needs networkx: pip install "hire-jax[interop]"') from error
    result = networkx.MultiDiGraph(**{NODE_TYPES: list(graph.node_types), EDGE_TYPES: list(graph.edge_types)})
    for name, count in graph.num_nodes.items():
        rows = graph.features.get(name) if features else None
        attributes = _attributes(rows.todense() if isinstance(rows, SparseFeatures) else rows, count)
        result.add_nodes_from(((name, i), {"type": name, **own}) for i, own in enumerate(attributes))
    for (source, relation, destination), ends in graph.host_edges().items():
        rows = graph.relations[source, relation, destination].edges if features else None
        attributes = _attributes(rows, ends.shape[1])
        result.add_edges_from(((source, s), (destination, d), {"relation": relation, **own})
                              for (s, d), own in zip(ends.T.tolist(), attributes, strict=True))
    return result


def _attributes(rows: Any, count: int) -> list[dict[str, Any]]:
    return [{} for _ in range(count)] if rows is None else [{"features": row} for row in np.array(rows)]


def _identified(graph: Any, node_type: str | None, relation: str | None, roles: Roles
                ) -> tuple[dict[str, Nodes], dict[EdgeType, Edges]]:
    for method in ("nodes", "edges", "is_directed", "graph"):
        if not hasattr(graph, method):
            raise GraphError(f"expected a graph of NetworkX, found {type(graph).__name__}")
    for option, attribute in (("node_type", node_type), ("relation", relation)):
        if not isinstance(attribute, str | None):
            raise GraphError(f"{option}: expected an attribute's name or None, found {brief(attribute)}")
    members: dict[str, list[tuple[Any, dict]]] = {name: [] for name in _declared(graph, NODE_TYPES)}
    place = {}  # node -> (type, number)
    for node, attributes in graph.nodes(data=True):
        name = _text(attributes, node_type, "node", f"node {brief(node)}")
        same = members.setdefault(name, [])
        place[node] = name, len(same)
        same.append((node, attributes))
    links: dict[EdgeType, list[tuple[int, int, str, dict]]] = {
        tuple(edge_type): [] for edge_type in _declared(graph, EDGE_TYPES)}
    for *ends, attributes in graph.edges(data=True):
        what = f"edge {brief(ends[0])} -> {brief(ends[1])}"
        name = _text(attributes, relation, "to", what)
        # An undirected edge has no first end; a loop is one edge either way.
        both = not graph.is_directed() and ends[0] != ends[1]
        for source, destination in (ends, ends[::-1]) if both else (ends,):
            (source_type, s), (destination_type, d) = place[source], place[destination]
            links.setdefault((source_type, name, destination_type), []).append((s, d, what, attributes))
    roles.check([*members, *links])
    nodes = {name: Nodes(NodeIds(objects(node for node, _ in same)),
                         _table(f"nodes of type {name!r}", [f", node {brief(node)}" for node, _ in same],
                                [attributes for _, attributes in same]), _named(node_type))
             for name, same in members.items()}
    edges = {edge_type: Edges(np.array([(s, d) for s, d, _, _ in same], np.int64).reshape(-1, 2).T,
                              _table(f"edges of {edge_name(edge_type)}", [f", {what}" for _, _, what, _ in same],
                                     [attributes for *_, attributes in same]), _named(relation))
             for edge_type, same in links.items()}
    return nodes, edges


def _declared(graph: Any, key: str) -> list[Any]:
    """Node types as strings or edge types as triples that an attribute of the whole graph lists."""
    declared = graph.graph.get(key, [])
    parts = [[one] if key == NODE_TYPES else one for one in declared] if isinstance(declared, list) else [None]
    for names in parts:
        if not isinstance(names, list | tuple) or len(names) != (1 if key == NODE_TYPES else 3) \
                or not all(isinstance(name, str) for name in names):
            raise GraphError(f"graph attribute {key!r}: expected types as to_networkx lists them, "
                             f"found {brief(declared)}")
    return declared


def _named(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _text(attributes: Mapping[str, Any], name: str | None, default: str, what: str) -> str:
    """The type or the relation that an attribute names."""
    if name is None:
        return default
    value = attributes.get(name)
    if not isinstance(value, str):
        raise GraphError(f"{what}: expected a string in the attribute {name!r}, found {shown(value)} "
                         f"(attributes {list(attributes)})")
    return value


def _table(what: str, places: list[str], rows: list[dict]) -> Table:
    """A table with a column for each attribute that any row has; where one lacks it, the value is missing."""
    names = dict.fromkeys(name for attributes in rows for name in attributes)
    if not all(isinstance(name, str) for name in names):
        raise GraphError(f"{what}: expected attributes named by strings, found {list(names)}")
    return Table(what, tuple(names), lambda name: objects(attributes.get(name) for attributes in rows),
                 places.__getitem__)
