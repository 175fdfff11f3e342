"""The ids that nodes have where they come from, beside the numbers 0 .. N-1 that a graph knows them by."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hire_jax.graph import EdgeType, GraphError, HeteroGraph
from hire_jax.interop.values import brief, objects, plain_array, shown


@dataclass(frozen=True, eq=False)
class NodeIds:
    """The distinct ids of one node type.

    Attributes:
      ids: int64 [N], or objects [N] (strings, or whatever hashable keys NetworkX had); entry i is node i's.
    """

    ids: np.ndarray

    def indices(self, ids: np.ndarray) -> np.ndarray:
        """int64 [K]: the node numbers of `ids`, -1 where no node has that id; 1 and "1" are different ids."""
        if self.ids.dtype == object:
            number = self._numbers.get
            return np.array([number(key, -1) for key in ids.tolist()], np.int64)
        if ids.dtype.kind not in "iu" or not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        if ids.dtype.kind == "u":  # compared beside int64 they would be rounded to floats
            beyond = ids > np.iinfo(np.int64).max
            return np.where(beyond, -1, self.indices(np.where(beyond, 0, ids).astype(np.int64)))
        place = np.minimum(np.searchsorted(self._sorted, ids), len(self.ids) - 1)
        return np.where(self._sorted[place] == ids, self._order[place], -1)

    def second_use(self) -> int | None:
        """The first node whose id an earlier node has already; None where all are distinct."""
        if self.ids.dtype == object:
            if len(self._numbers) == len(self.ids):
                return None
            return next(row for row, key in enumerate(self.ids.tolist()) if self._numbers[key] != row)
        again = self._order[1:][self._sorted[1:] == self._sorted[:-1]]
        return int(again.min()) if again.size else None

    def described(self) -> str:
        """How many ids there are and what one looks like, for errors."""
        return f"{len(self.ids)} ids such as {shown(self.ids[0])}" if len(self.ids) else "no ids at all"

    @cached_property
    def _numbers(self) -> dict[Any, int]:
        numbers: dict[Any, int] = {}
        for number, key in enumerate(self.ids.tolist()):
            numbers.setdefault(key, number)
        return numbers

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    @cached_property
    def _sorted(self) -> np.ndarray:
        return self.ids[self._order]


@dataclass(frozen=True, eq=False, repr=False)
class Imported:
    """A graph with the ids and feature names it had where it comes from.

    Node numbers stay the same in all that `HeteroGraph` makes of the graph but `permute`, so the ids hold there too.

    Attributes:
      graph: the graph.
      nodes: {node type: NodeIds}.
      feature_names: {node type: a name for each column of its features}; types without features are absent.
      edge_feature_names: {edge type: a name for each column of its edge features}, likewise.
    """

    graph: HeteroGraph
    nodes: dict[str, NodeIds]
    feature_names: dict[str, tuple[str, ...]]
    edge_feature_names: dict[EdgeType, tuple[str, ...]]

    @property
    def ids(self) -> dict[str, np.ndarray]:
        """{node type: ids [N]}: `ids["paper"][5]` is what node 5 was called."""
        return {name: ids.ids for name, ids in self.nodes.items()}

    def index(self, node_type: str, id: Any) -> int:
        """The number of the node with this id.

        Raises:
          GraphError: there is no such node type or id.
        """
        return int(self.indices(node_type, [id])[0])

    def indices(self, node_type: str, ids: Iterable[Any]) -> np.ndarray:
        """int64 [K]: the numbers of the nodes with these ids, as for predictions about nodes of interest.

        Raises:
          GraphError: there is no such node type, or one of the ids is not there.
        """
        if not isinstance(node_type, str) or node_type not in self.nodes:
            raise GraphError(f"node_type: expected one of {list(self.nodes)}, found {brief(node_type)}")
        known = self.nodes[node_type]
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise GraphError(f"ids of {node_type!r}: expected several ids, found {shown(ids)}; index() takes one")
        array = objects(ids) if known.ids.dtype == object else plain_array(ids, f"ids of {node_type!r}")
        try:
            numbers = known.indices(array)
        except TypeError as error:
            raise GraphError(f"ids of {node_type!r}: expected ids, found a value that no id can be: {error}") from error
        if (numbers < 0).any():
            raise GraphError(f"ids of {node_type!r}: expected one of {known.described()}, "
                             f"found {shown(array[int(np.argmax(numbers < 0))])}")
        return numbers

    def __repr__(self) -> str:
        nodes = ", ".join(f"{name} {count}" for name, count in self.graph.num_nodes.items())
        return f"Imported({nodes}; {len(self.graph.edge_types)} relations, {sum(self.graph.num_edges.values())} edges)"
