"""Tables with their nodes and edges found, made into a graph."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.interop.ids import Imported, NodeIds
from hire_jax.interop.roles import Roles, edge_ends, node_ids
from hire_jax.interop.table import Table


class Nodes(NamedTuple):
    """A node type: its ids, its table, and the table's columns that are no features."""

    ids: NodeIds
    table: Table
    taken: Collection[str]


class Edges(NamedTuple):
    """An edge type: int64 [2, E] node numbers, its table, and the table's columns that are no features."""

    ends: np.ndarray
    table: Table
    taken: Collection[str]


def identify(nodes: Mapping[str, Table], edges: Mapping[EdgeType, Table], roles: Roles
             ) -> tuple[dict[str, Nodes], dict[EdgeType, Edges]]:
    """Finds the nodes of node tables by their ids, and the edges of edge tables by the ids of their ends.

    Args:
      nodes, edges: tables by type; the ends of edge types are among the node types.
      roles: which columns the ids are.

    Raises:
      GraphError: a column of ids is missing or not in order, an id is there twice, or an end is unknown.
    """
    roles.check([*nodes, *edges])
    found = {name: Nodes(node_ids(table, roles.id_of(name)), table, (roles.id_of(name),))
             for name, table in nodes.items()}
    ends = {}
    for edge_type, table in edges.items():
        columns = roles.ends_of(edge_type)
        known = found[edge_type[0]].ids, found[edge_type[2]].ids
        ends[edge_type] = Edges(edge_ends(table, columns, known, edge_type), table, columns)
    return found, ends


def assemble(nodes: Mapping[str, Nodes], edges: Mapping[EdgeType, Edges], roles: Roles) -> Imported:
    """The graph of all tables, with ids and the names of features.

    Raises:
      GraphError: a feature column is not numeric or of another length, or `roles` names columns that cannot be had.
    """
    features, names = {}, {}
    for name, (ids, table, taken) in nodes.items():
        matrix, columns = feature_matrix(table, len(ids.ids), taken, roles.categorical_of(name), roles.ignored_of(name))
        if columns:
            features[name], names[name] = matrix, columns
    edge_features, edge_names = {}, {}
    for edge_type, (ends, table, taken) in edges.items():
        matrix, columns = feature_matrix(table, ends.shape[1], taken, roles.categorical_of(edge_type),
                                         roles.ignored_of(edge_type))
        if columns:
            edge_features[edge_type], edge_names[edge_type] = matrix, columns
    graph = HeteroGraph.from_arrays({name: len(ids.ids) for name, (ids, _, _) in nodes.items()},
                                    {edge_type: ends for edge_type, (ends, _, _) in edges.items()},
                                    features, edge_features)
    return Imported(graph, {name: ids for name, (ids, _, _) in nodes.items()}, names, edge_names)


def feature_matrix(table: Table, rows: int, taken: Collection[str], categorical: Collection[str],
                   ignore: Collection[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """All columns that have no other role, side by side as float32 [rows, F], and a name for each.

    Raises:
      GraphError: as `Table.numbers` and `Table.one_hot`, or `categorical` or `ignore`
        names a column that is not there, has another role, or is in both.
    """
    free = [name for name in table.names if name not in taken]
    for option, named in (("categorical", categorical), ("ignore", ignore)):
        for name in named:
            if name not in free or (name in categorical and name in ignore):
                raise GraphError(f"{option}: expected columns of {table.what} without another role, {free}, "
                                 f"found {name!r}")
    blocks, names = [np.zeros((rows, 0), np.float32)], []
    for name in free:
        if name in ignore:
            continue
        if name in categorical:
            block, kinds = table.one_hot(name, rows)
            labels = [f"{name}={kind}" for kind in kinds]
        else:
            block = table.numbers(name, rows)
            labels = [name] if block.shape[1] == 1 else [f"{name}[{i}]" for i in range(block.shape[1])]
        blocks.append(block)
        names += labels
    return np.concatenate(blocks, axis=1), tuple(names)
