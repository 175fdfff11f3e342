"""A full graph cut into parts, one a device: every node and all edges into it belong to one of them."""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.parallel.axis import AXIS
from hire_jax.parallel.halo import Halo, exchange
from hire_jax.sampling.host import HostGraph
from hire_jax.sampling.neighbours import ALL, NeighbourSampler, Sample
from hire_jax.sampling.padding import Sizes, sizes_of
from hire_jax.sampling.patterns import padded, padded_graph


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Part:
    """What one device holds of a graph.

    Attributes:
      graph: of every type its own nodes and at least one dummy, `room` rows in all, then the halo: the sources of its
        edges that other parts own. All edges into its own nodes; what fills up joins rows that are not its own. Only
        its own nodes have features and positions here, since a model's first layer is sent what it reads of others.
      ids: {type: int32[n]}, the number in the whole graph of each own node; 0 elsewhere.
      places: {type: int32[N]}, where each node of the whole graph stands among the `room` first rows of all parts.
      room: ((type, rows before the halo), ...), the same in all parts.
      parts: how many there are.
    """

    graph: HeteroGraph
    ids: dict[str, jax.Array]
    places: dict[str, jax.Array]
    room: tuple[tuple[str, int], ...] = dataclasses.field(metadata={"static": True})
    parts: int = dataclasses.field(metadata={"static": True})


class Exchanged(NamedTuple):
    """Rows of one type that all devices together receive in one exchange, which is one before each layer."""

    needed: int  # rows of halos
    moved: int  # the same with what fills up lists that are shorter than the longest


@dataclasses.dataclass(frozen=True)
class Partition:
    """A graph in parts; `partition` makes it.

    Attributes:
      parts: one a device, of the same shapes; arrays are numpy's.
      needed: {type: int64[parts, parts]}, how many rows the first part needs of the second.
    """

    parts: tuple[Part, ...]
    needed: dict[str, np.ndarray]

    def spread(self, devices: Sequence[jax.Device] | None = None) -> Part:
        """All parts as one `Part` whose arrays are [parts, ...], the i-th on the i-th device.

        It is what `jax.pmap(step, axis_name=AXIS)` takes, which gives each device its part, and `jax.shard_map` over
        the mesh of these devices with AXIS as its axis and check_vma=False, where a leading axis of 1 is left:
        `jax.tree.map(lambda x: x[0], part)`. No other copy of the whole is made, and on several hosts each puts the
        parts of its own devices there.

        Args:
          devices: as many as parts; None takes the first that JAX sees.

        Raises:
          ValueError: another number of devices.
        """
        devices = jax.devices()[:len(self.parts)] if devices is None else list(devices)
        if len(devices) != len(self.parts):
            raise ValueError(f"devices must be {len(self.parts)}, one a part, got {len(devices)}")
        sharding = NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))

        def joined(*leaves: np.ndarray) -> jax.Array:
            def piece(index: Any) -> np.ndarray:  # slices, the first of them of one part
                return leaves[index[0].start or 0][None]

            return jax.make_array_from_callback((len(leaves), *leaves[0].shape), sharding, piece)

        return jax.tree.map(joined, *self.parts)

    def exchanged_rows(self) -> dict[str, Exchanged]:
        """{type: rows that travel in one exchange}; times width and bytes a number it is what a layer costs.

        A layer exchanges only the types that send to the types it computes.
        """
        count = len(self.parts)
        return {name: Exchanged(int(needed.sum()), count * (count - 1) * int(needed.max()))
                for name, needed in self.needed.items()}

    def device_bytes(self) -> int:
        """Bytes of the arrays that one device holds: its graph with features, its halo's indices, and `places`."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.parts[0]))


def partition(graph: HostGraph, parts: int, *, owners: Mapping[str, Any] | None = None) -> Partition:
    """Divides the nodes of every type, each with all edges into it, among as many devices as `parts`.

    A layer of a message-passing model then needs of other devices the rows of its edges' sources alone, and sends
    nothing back but their gradients.

    Args:
      graph: the whole graph.
      parts: their number, at least 1; it may exceed the nodes of a type.
      owners: {type: int[N]}, the part of each node, for types that a graph partitioner has divided. The others are
        cut into ranges in which nodes, as a share of all, and edges into them, likewise, add up to about the same: none
        has more than about twice an even share of either. All parts are padded to the largest, so that an uneven
        division costs memory and time.

    Raises:
      TypeError: a graph that is no HostGraph, parts that is no integer.
      ValueError: parts below 1.
      GraphError: owners of an unknown type, or that do not fit its nodes or the parts.
    """
    if not isinstance(graph, HostGraph):
        raise TypeError(f"graph must be a HostGraph, such as HostGraph.from_graph gives, got {type(graph).__name__}")
    if operator.index(parts) < 1:
        raise ValueError(f"parts must be at least 1, got {parts}")
    owner = _balanced(graph, parts) | _checked_owners(owners or {}, graph, parts)
    own, rank = _divided(owner, parts)
    sampler, rng = NeighbourSampler(graph, [ALL]), np.random.default_rng(0)  # all neighbours: nothing is drawn
    samples = [sampler.sample([(0, ids)], rng) for ids in own]
    foreign = {name: [sample.nodes[name][ids[name].size:] for sample, ids in zip(samples, own, strict=True)]
               for name in graph.counts}
    room = {name: max(ids[name].size for ids in own) + 1 for name in graph.counts}
    samples = [_with_halo_after(room, ids, sample) for ids, sample in zip(own, samples, strict=True)]
    sizes = _common_sizes([sizes_of(sample, graph) for sample in samples])
    sizes = dataclasses.replace(sizes, nodes={
        name: count + max(ids.size for ids in foreign[name]) for name, count in room.items()})
    travel = {name: exchange(foreign[name], owner[name], rank[name]) for name in graph.counts}
    places = {name: (owner[name] * room[name] + rank[name]).astype(np.int32) for name in graph.counts}

    def part(index: int) -> Part:
        halo: dict[str, Any] = {what: {name: arrays[k][index] for name, arrays in travel.items()}
                                for k, what in enumerate(("sent", "arriving"))}
        leaves: dict[str, Any] = {
            "graph": dataclasses.replace(padded_graph(graph, samples[index], sizes), halo=Halo(**halo)),
            "ids": {name: padded(ids.astype(np.int32), sizes.nodes[name]) for name, ids in own[index].items()},
            "places": places}
        return Part(**leaves, room=tuple(room.items()), parts=parts)

    return Partition(tuple(part(index) for index in range(parts)),
                     {name: needed for name, (_, _, needed) in travel.items()})


def _balanced(graph: HostGraph, parts: int) -> dict[str, np.ndarray]:
    """{type: int64[N]}, ascending: ranges of about the same sum of the shares of nodes and of edges into them."""
    owners = {}
    for name, count in graph.counts.items():
        degrees = np.zeros(count)
        for (_, _, destination), relation in graph.relations.items():
            if destination == name:
                degrees += np.diff(relation.indptr)
        weights = 1 + degrees * (count / max(1.0, degrees.sum()))
        middle = np.cumsum(weights) - weights / 2
        owners[name] = (middle * (parts / max(1.0, weights.sum()))).astype(np.int64)
    return owners


def _checked_owners(owners: Mapping[str, Any], graph: HostGraph, parts: int) -> dict[str, np.ndarray]:
    checked = {}
    for name, given in owners.items():
        if name not in graph.counts:
            raise GraphError(f"owners are given for node type {name!r}, which is unknown; the graph has "
                             f"{list(graph.counts)}")
        array = np.asarray(given)
        if array.shape != (graph.counts[name],) or not np.issubdtype(array.dtype, np.integer):
            raise GraphError(f"owners of {name!r} must be integers [{graph.counts[name]}], one a node, got "
                             f"{array.dtype}{list(array.shape)}")
        if array.size and not 0 <= array.min() <= array.max() < parts:
            raise GraphError(f"owners of {name!r} must be in [0, {parts}), got {array.min()} to {array.max()}")
        checked[name] = array.astype(np.int64)
    return checked


def _divided(owner: Mapping[str, np.ndarray],
             parts: int) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """For each part {type: its nodes, ascending}, and {type: int64[N]} the place of each node in its part."""
    own: list[dict[str, np.ndarray]] = [{} for _ in range(parts)]
    rank = {}
    for name, of_nodes in owner.items():
        order = np.argsort(of_nodes, kind="stable")
        counts = np.bincount(of_nodes, minlength=parts)
        for ids, nodes in zip(own, np.split(order, np.cumsum(counts)[:-1]), strict=True):
            ids[name] = nodes
        rank[name] = np.empty(order.size, np.int64)
        rank[name][order] = np.arange(order.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return own, rank


def _with_halo_after(room: Mapping[str, int], own: dict[str, np.ndarray], sample: Sample) -> Sample:
    """The sample with the nodes that were met after its own moved to the rows from `room` on, and not named."""
    edges = {}
    for edge_type, of_type in sample.edges.items():
        count = own[edge_type[0]].size
        moved = np.where(of_type.senders < count, of_type.senders, of_type.senders + (room[edge_type[0]] - count))
        edges[edge_type] = of_type._replace(senders=moved)
    return Sample(own, edges, ())


def _common_sizes(needed: Sequence[Sizes]) -> Sizes:
    sizes = needed[0]
    for other in needed[1:]:
        sizes = sizes.combined(other, max)
    return sizes
