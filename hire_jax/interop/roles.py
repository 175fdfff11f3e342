"""Which column of a table is what: ids, ends of edges, features; and the first two, read."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hire_jax.graph import EdgeType, GraphError
from hire_jax.interop.ids import NodeIds
from hire_jax.interop.table import Table
from hire_jax.interop.values import shown

Columns = Mapping[Any, Collection[str]] | None  # {node or edge type: columns}


@dataclass(frozen=True)
class Roles:
    """The columns that users name, by table; everything else is a feature.

    Attributes:
      id: of node tables, the ids: one name for all, or {node type: name}.
      source, destination: of edge tables, the ends: one name for all, or {edge type: name}.
      categorical: {node or edge type: columns that become one-hot features}.
      ignore: {node or edge type: columns that are left out}.
    """

    id: str | Mapping[str, str] = "id"
    source: str | Mapping[EdgeType, str] = "source"
    destination: str | Mapping[EdgeType, str] = "destination"
    categorical: Columns = None
    ignore: Columns = None

    def check(self, tables: Collection[Any]) -> None:
        """Raises GraphError where an option has the wrong form or names a type that is not there."""
        for name, option in (("id", self.id), ("source", self.source), ("destination", self.destination)):
            if not isinstance(option, str | Mapping):
                raise GraphError(f"{name}: expected a column's name or {{type: name}}, found {shown(option)}")
        kinds: dict[str, type] = {"id": str, "source": tuple, "destination": tuple}  # of node tables, of edge tables
        for name, mapping in vars(self).items():
            known = [key for key in tables if isinstance(key, kinds.get(name, object))]
            for key in mapping if isinstance(mapping, Mapping) else ():
                if key not in known:
                    raise GraphError(f"{name}: expected types among {known}, found {shown(key)}")
        for name, lists in (("categorical", self.categorical), ("ignore", self.ignore)):
            if not isinstance(lists, Mapping | None):
                raise GraphError(f"{name}: expected {{type: [columns]}}, found {shown(lists)}")
            for key, columns in (lists or {}).items():
                listed = isinstance(columns, Collection) and not isinstance(columns, str)
                if not listed or not all(isinstance(column, str) for column in columns):
                    raise GraphError(f"{name}: expected a list of columns for {key!r}, found {shown(columns)}")

    def id_of(self, node_type: str) -> str:
        """The column of ids of a node type."""
        return _named("id", self.id, node_type, "id")

    def ends_of(self, edge_type: EdgeType) -> tuple[str, str]:
        """The columns of sources and of destinations of an edge type; they must differ."""
        ends = (_named("source", self.source, edge_type, "source"),
                _named("destination", self.destination, edge_type, "destination"))
        if ends[0] == ends[1]:
            raise GraphError(f"source, destination: expected two columns for {edge_type}, found {ends[0]!r} for both")
        return ends

    def categorical_of(self, key: Any) -> tuple[str, ...]:
        """The columns of one table that become one-hot features."""
        return tuple((self.categorical or {}).get(key, ()))

    def ignored_of(self, key: Any) -> tuple[str, ...]:
        """The columns of one table that are left out."""
        return tuple((self.ignore or {}).get(key, ()))


def node_ids(table: Table, column: str) -> NodeIds:
    """The ids of a node table: not empty, each there once.

    Raises:
      GraphError: as `Table.ids`, or the table has no rows, or an id is there twice.
    """
    ids = NodeIds(table.ids(column, "the nodes' ids"))
    if not len(ids.ids):
        raise GraphError(f"{table.what}: expected at least one row, found none")
    again = ids.second_use()
    if again is not None:
        first = int(ids.indices(ids.ids[again:again + 1])[0])
        raise table.error(column, again, f"each id once, as in {table.what}{table.place(first)}",
                          f"{shown(ids.ids[again])} again")
    return ids


def edge_ends(table: Table, columns: tuple[str, str], ids: tuple[NodeIds, NodeIds], edge_type: EdgeType) -> np.ndarray:
    """int64 [2, E]: the node numbers of the edges in a table, from its columns of sources and destinations.

    Raises:
      GraphError: as `Table.ids`, or no node has the id.
    """
    ends: list[np.ndarray] = []
    for column, use, known, node_type in zip(columns, ("sources", "destinations"), ids, edge_type[::2], strict=True):
        found = table.ids(column, f"the edges' {use}", len(ends[0]) if ends else None)
        ends.append(known.indices(found))
        unknown = ends[-1] < 0
        if unknown.any():
            row = int(np.argmax(unknown))
            raise table.error(column, row, f"an id of node type {node_type!r} ({known.described()})",
                              f"{shown(found[row])}, which none has ({int(unknown.sum())} such rows)")
    return np.stack(ends)


def _named(name: str, option: str | Mapping[Any, str], key: Any, default: str) -> str:
    column = option.get(key, default) if isinstance(option, Mapping) else option
    if not isinstance(column, str):
        raise GraphError(f"{name}: expected a column's name for {key!r}, found {shown(column)}")
    return column
