"""Graphs and datasets from tables of columns: dicts of lists or arrays, pandas, polars, pyarrow.

A node table has a column of ids and columns of features; an edge table has the ids of the two ends.
"""

from collections.abc import Mapping
from typing import Any

from hire_jax.data import Dataset
from hire_jax.graph import EdgeType, GraphError
from hire_jax.graph.checks import checked_edge_type, edge_name
from hire_jax.interop.assemble import Edges, Nodes, assemble, identify
from hire_jax.interop.ids import Imported
from hire_jax.interop.roles import Columns, Roles
from hire_jax.interop.table import Table
from hire_jax.interop.tasks import Drawing, Task, table_dataset
from hire_jax.interop.values import shown


def from_columns(nodes: Mapping[str, Any], edges: Mapping[EdgeType, Any], *,
                 id: str | Mapping[str, str] = "id",
                 source: str | Mapping[EdgeType, str] = "source",
                 destination: str | Mapping[EdgeType, str] = "destination",
                 categorical: Columns = None, ignore: Columns = None) -> Imported:
    """A graph from node tables and edge tables.

    A table is anything with `table[column]` and a list of its columns: a dict, a pandas or polars DataFrame, a pyarrow
    Table. Nodes get the numbers 0 .. N-1 in the order of rows. All columns without another role become float32
    features, in the order of columns: numbers and booleans [N], or blocks [N, F] such as embeddings. A relation is kept
    in the direction that its table gives; `imported.graph.add_reverse_relations()` adds the other.

    Args:
      nodes: {node type: table}. Ids are integers or non-empty strings, each there once; 1 and "1" differ.
      edges: {(source type, relation, destination type): table}. Tables may be empty, and edges there twice.
      id: the column of ids: one name for all node tables, or {node type: name}, "id" for those it leaves out.
      source, destination: the columns of the two ends: likewise, or by edge type.
      categorical: {node or edge type: [columns]} of strings or integers that become one 0/1 feature for each value.
      ignore: {node or edge type: [columns]} to leave out, such as titles.

    Returns:
      `Imported`: the graph, the ids by node type, and the names of features.

    Raises:
      GraphError: a table, a column or a value is not as described; the message names table, row (from 0) and column,
        what was expected and what was found.
    """
    roles = Roles(id, source, destination, categorical, ignore)
    return assemble(*_identified(nodes, edges, roles), roles)


def dataset_from_columns(nodes: Mapping[str, Any], edges: Mapping[EdgeType, Any], *, target: str, label: str,
                         split: str | None = None, separator: str | None = None, seed: int = 0,
                         train_per_class: int = 20, val_per_class: int = 30, name: str = "columns",
                         id: str | Mapping[str, str] = "id",
                         source: str | Mapping[EdgeType, str] = "source",
                         destination: str | Mapping[EdgeType, str] = "destination",
                         categorical: Columns = None, ignore: Columns = None) -> tuple[Dataset, Imported]:
    """A dataset for `hire_jax.fit` from node tables and edge tables.

    Args:
      nodes, edges, id, source, destination, categorical, ignore: as `from_columns`.
      target: the node type that has labels.
      label: its column of classes, which is no feature: strings, integers or booleans. Classes are numbered in
        ascending order and named in `meta["classes"]`. A missing value, or the number -1, means unlabelled. A block
        [N, C] of 0 and 1 is a multi-label task.
      split: its column of "train", "val", "test", or nothing for nodes in no part; likewise no feature. Where no node
        says "val", a fifth of the training nodes is held out. None draws a split at random.
      separator: for multi-label tasks, what separates the classes of one node: "|" in "drama|comedy".
      seed: of what is drawn at random.
      train_per_class, val_per_class: the size of a random split (`hire_jax.data.random_split`).
      name: the dataset's name.

    Returns:
      (dataset, imported): `imported` has the ids of the nodes and the names of the features.

    Raises:
      GraphError: as `from_columns`.
      DatasetError: the labels or the split are not as described, or too few nodes are labelled for a random split.
    """
    roles = Roles(id, source, destination, categorical, ignore)
    task = Task(target, label, split, separator, Drawing(seed, train_per_class, val_per_class), name)
    return table_dataset(*_identified(nodes, edges, roles), roles, task)


def _identified(nodes: Mapping[str, Any], edges: Mapping[EdgeType, Any], roles: Roles
                ) -> tuple[dict[str, Nodes], dict[EdgeType, Edges]]:
    for what, tables in (("nodes", nodes), ("edges", edges)):
        if not isinstance(tables, Mapping):
            raise GraphError(f"{what}: expected a mapping of types to tables, found {type(tables).__name__}")
    for name in nodes:
        if not isinstance(name, str):
            raise GraphError(f"nodes: expected node types named by strings, found {shown(name)}")
    for edge_type in edges:
        checked_edge_type(edge_type, dict.fromkeys(nodes, 0))
    return identify({name: Table.of(f"node table {name!r}", table) for name, table in nodes.items()},
                    {edge_type: Table.of(f"edge table {edge_name(edge_type)}", table)
                     for edge_type, table in edges.items()}, roles)
