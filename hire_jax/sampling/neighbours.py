"""Neighbour sampling on a typed graph: from seeds to the nodes and edges that a model needs for them."""

import operator
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hire_jax.graph import EdgeType, GraphError
from hire_jax.graph.checks import edge_name
from hire_jax.sampling.host import HostGraph, Incoming

ALL = -1  # the fan-out that takes every neighbour
Fanouts = Sequence[int | Mapping[EdgeType, int]]
Entering = Sequence[tuple[int, Mapping[str, np.ndarray]]]

# Rows whose neighbours are drawn together: what is drawn for them, 8 bytes each, stays in the caches.
_ROWS_AT_ONCE = 8192


class SampledEdges(NamedTuple):
    """Edges of one relation, ordered by receiver; both ends are local."""

    senders: np.ndarray  # int32[E]
    receivers: np.ndarray  # int32[E], ascending
    entries: np.ndarray  # int64[E]: where each stands in the relation's `Incoming.senders`


class Sample(NamedTuple):
    """A sampled graph: local node i of a type is node nodes[type][i] of the whole graph, and no node is there twice."""

    nodes: dict[str, np.ndarray]  # int32[n], in the order they were met: the seeds first
    edges: dict[EdgeType, SampledEdges]  # of every relation
    rows: tuple[dict[str, np.ndarray], ...]  # where the nodes of each set that entered stand: int32[n]


class NeighbourSampler:
    """Draws, hop by hop, some neighbours of every node met, for each relation (arXiv 1706.02216, section 3.1).

    A node's neighbours are drawn once, at the hop after the one it is met at, and all layers read the same edges. Nodes
    met at the last hop have no edges in the sample: a model of as many layers as hops reads only their features.

    With fan-outs that cover all neighbours, the nodes that `sample` is asked for have the outputs of the whole graph
    in every model whose messages depend on features and on the edges into the receiver. Models that also read the
    sender's degree (GCN, SGC, APPNP, GCNII, MoNet) need one hop more than layers. HAN averages over all nodes and
    SeHGNN reads no edges: neither can be sampled so.

    Args:
      graph: what to draw from.
      fanouts: one entry a hop, from the seeds outwards: a number for all relations, or {edge type: number} of every
        relation. -1 takes all neighbours, 0 none.
      replace: draw with replacement: every node with neighbours has then exactly the fan-out, some of them twice.

    Raises:
      GraphError: fan-outs that name other relations than the graph's.
      ValueError: no hops, or a fan-out that is not an integer of at least -1.
      TypeError: fan-outs that are not one entry a hop.

    One sampler serves any number of threads. Each keeps 4 bytes a node of the whole graph. A copy by pickle, for
    another process, holds the whole graph, and what was mapped as an array in memory.
    """

    def __init__(self, graph: HostGraph, fanouts: Fanouts, *, replace: bool = False) -> None:
        if isinstance(fanouts, Mapping | str) or not hasattr(fanouts, "__iter__"):
            raise TypeError(f"fanouts must have one entry a hop, such as [10, 10] for two, got {fanouts!r}")
        self.graph, self.replace = graph, replace
        self.fanouts = tuple(_checked_fanout(hop, fanout, graph) for hop, fanout in enumerate(fanouts))
        if not self.fanouts:
            raise ValueError("fanouts must have at least one hop")
        self._threads = threading.local()

    def sample(self, entering: Entering, rng: np.random.Generator) -> Sample:
        """The neighbourhood of some sets of nodes.

        Args:
          entering: (hop, {type: int[n] nodes}) for each set; they may overlap. Those of hop 0 are the seeds. What
            enters at hop h has as many hops fewer around it: enough for its embeddings h layers below the last.
          rng: where all randomness comes from.

        Raises:
          GraphError: a type or a node that the graph does not have; nodes that are no integers [n], such as a mask.
          ValueError: a hop below 0; TypeError: one that is no integer.
        """
        entering = [(_checked_hop(hop), {name: self._checked(name, ids) for name, ids in nodes.items()})
                    for hop, nodes in entering]
        if not hasattr(self._threads, "places"):
            self._threads.places = {name: np.full(count, -1, np.int32) for name, count in self.graph.counts.items()}
        met = _Met(self._threads.places)
        try:
            sample = self._sample(met, entering, rng)
            met.forget()
        except BaseException:
            del self._threads.places  # half written, perhaps
            raise
        return sample

    def _checked(self, name: str, ids: Any) -> np.ndarray:
        if name not in self.graph.counts:
            raise GraphError(f"nodes to sample around: type {name!r} is unknown; the graph has "
                             f"{list(self.graph.counts)}")
        ids = np.asarray(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise GraphError(f"nodes to sample around: those of type {name!r} must be integers [n], got {ids.dtype}"
                             f"{list(ids.shape)}")
        if ids.size and not 0 <= ids.min() <= ids.max() < self.graph.counts[name]:
            raise GraphError(f"nodes to sample around: got {ids.min()} to {ids.max()} of type {name!r}, but the graph "
                             f"has {self.graph.counts[name]} of it")
        return ids.astype(np.int32)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_threads"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _threads=threading.local())

    def _sample(self, met: "_Met", entering: Entering, rng: np.random.Generator) -> Sample:
        drawn: dict[EdgeType, list[SampledEdges]] = {edge_type: [] for edge_type in self.graph.relations}
        for hop, fanout in enumerate(self.fanouts):
            met.enter(entering, hop)
            frontier = met.fresh()
            for edge_type, relation in self.graph.relations.items():
                first, ids = frontier[edge_type[2]]
                if fanout[edge_type] and ids.size:
                    counts, entries = _draw(relation, ids, fanout[edge_type], self.replace, rng)
                    receivers = np.repeat(np.arange(first, first + ids.size, dtype=np.int32), counts)
                    senders = met.add(edge_type[0], relation.senders[entries])
                    drawn[edge_type].append(SampledEdges(senders, receivers, entries))
        for hop in {hop for hop, _ in entering if hop >= len(self.fanouts)}:
            met.enter(entering, hop)
        # The frontier's local ids grow from hop to hop, so that edges joined in that order are ordered by receiver.
        return Sample(met.nodes(), {edge_type: _joined(parts) for edge_type, parts in drawn.items()},
                      tuple({name: met.places[name][ids] for name, ids in nodes.items()} for _, nodes in entering))


class _Met:
    """The nodes met so far, numbered in that order; `places` {type: int32[N]} has each one's number, or -1."""

    def __init__(self, places: dict[str, np.ndarray]) -> None:
        self.places = places
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in places}
        self._counts = dict.fromkeys(places, 0)
        self._fresh = dict.fromkeys(places, 0)  # how many parts an earlier frontier had

    def enter(self, entering: Entering, hop: int) -> None:
        """Adds the sets that enter at a hop."""
        for when, nodes in entering:
            for name, ids in nodes.items() if when == hop else ():
                self.add(name, ids)

    def add(self, name: str, ids: np.ndarray) -> np.ndarray:
        """The numbers of `ids`, which may repeat; those not met yet get the next ones."""
        places = self.places[name]
        unmet = ids[places[ids] < 0]
        unmet.sort()
        new = unmet[np.append(True, unmet[1:] != unmet[:-1])] if unmet.size else unmet
        count = self._counts[name]
        places[new] = np.arange(count, count + new.size, dtype=np.int32)
        self._parts[name].append(new)
        self._counts[name] = count + new.size
        return places[ids]

    def fresh(self) -> dict[str, tuple[int, np.ndarray]]:
        """{type: (the first number, ids)} of the nodes met since the last call."""
        frontier = {}
        for name, parts in self._parts.items():
            ids = _concatenated(parts[self._fresh[name]:])
            frontier[name] = self._counts[name] - ids.size, ids
            self._fresh[name] = len(parts)
        return frontier

    def nodes(self) -> dict[str, np.ndarray]:
        """{type: int32[n]}, all nodes met."""
        return {name: _concatenated(parts) for name, parts in self._parts.items()}

    def forget(self) -> None:
        """Makes `places` what it was."""
        for name, parts in self._parts.items():
            for ids in parts:
                self.places[name][ids] = -1


def _draw(relation: Incoming, rows: np.ndarray, fanout: int, replace: bool,
          rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How many neighbours each row gets, and where in `senders` they stand, row by row."""
    start = relation.indptr[rows]
    degree = relation.indptr[rows + 1] - start
    counts = numbers_drawn(degree, fanout, replace)
    ends = np.cumsum(counts)
    if replace and fanout != ALL:
        places = rng.random(ends[-1])
        places *= np.repeat(degree, counts)
        return counts, places.astype(np.int64) + np.repeat(start, counts)
    # The first of every row's neighbours: all of them, where there are no more than the fan-out.
    entries = np.arange(ends[-1]) + np.repeat(start - (ends - counts), counts)
    if fanout != ALL:
        large = np.flatnonzero(degree > fanout)
        for first in range(0, large.size, _ROWS_AT_ONCE):
            some = large[first:first + _ROWS_AT_ONCE]
            places = distinct_places(degree[some], fanout, rng) + start[some]
            entries[(ends[some] - fanout) + np.arange(fanout)[:, None]] = places
    return counts, entries


def numbers_drawn(degrees: np.ndarray, fanout: int, replace: bool) -> np.ndarray:
    """How many neighbours nodes of these degrees get."""
    if fanout == ALL:
        return degrees
    return np.where(degrees > 0, fanout, 0) if replace else np.minimum(degrees, fanout)


def distinct_places(populations: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64[count, rows]: of each row's `populations` [rows], all above `count`, a uniform set of `count` places.

    Floyd's algorithm (Bentley and Floyd, Communications of the ACM 30(9), 1987) for all rows at once: the j-th draw is
    from the first population - count + j + 1 places, and where it hits one already taken it is the last of these.
    """
    taken = np.empty((count, populations.size), np.int64)
    draws = rng.random((count, populations.size))
    for j in range(count):
        last = populations - (count - j)
        place = (draws[j] * (last + 1)).astype(np.int64)
        taken[j] = np.where((taken[:j] == place).any(axis=0), last, place)
    return taken


def _joined(parts: Sequence[SampledEdges]) -> SampledEdges:
    if not parts:
        return SampledEdges(*(np.zeros(0, dtype) for dtype in (np.int32, np.int32, np.int64)))
    return SampledEdges(*(_concatenated(arrays) for arrays in zip(*parts, strict=True)))


def _concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    if not parts:
        return np.zeros(0, np.int32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _checked_hop(hop: Any) -> int:
    if operator.index(hop) < 0:
        raise ValueError(f"a set of nodes must enter at hop 0, the seeds', or later, got {hop}")
    return operator.index(hop)


def _checked_fanout(hop: int, fanout: int | Mapping[EdgeType, int], graph: HostGraph) -> dict[EdgeType, int]:
    of_relations = dict(fanout) if isinstance(fanout, Mapping) else dict.fromkeys(graph.relations, fanout)
    if different := sorted(set(of_relations) ^ set(graph.relations), key=repr):
        lacks = "lacks" if different[0] in graph.relations else "has"
        raise GraphError(f"fanouts[{hop}] {lacks} {edge_name(different[0])}; the graph has "
                         f"{[edge_name(e) for e in graph.relations]}")
    for edge_type, number in of_relations.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < ALL:
            raise ValueError(f"fanouts[{hop}] of {edge_name(edge_type)} must be an integer, -1 for all neighbours, "
                             f"got {number!r}")
    return {edge_type: int(number) for edge_type, number in of_relations.items()}
