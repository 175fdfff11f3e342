"""Batches by their place in a run: each is a function of the graph, the settings, its epoch and its number alone."""

import hashlib
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hire_jax.graph.checks import edge_name
from hire_jax.sampling.batches import Batch, Rows
from hire_jax.sampling.checks import (
    check_places,
    check_teacher,
    checked_nodes,
    checked_number,
    checked_resident,
    checked_type,
    checked_uniform,
    known_labels,
)
from hire_jax.sampling.host import HostGraph
from hire_jax.sampling.neighbours import Fanouts, NeighbourSampler, Sample, numbers_drawn
from hire_jax.sampling.padding import Sizes, bound_of, ladder, sizes_of, smallest
from hire_jax.sampling.patterns import padded, padded_graph
from hire_jax.teachers import TeacherRows

_ORDER, _BATCH = 0, 1  # purposes of random streams


class SideBySide(NamedTuple):
    """Batches of one size, and what they hold without what fills them up."""

    size: int  # its place in `BatchSource.sizes`
    batches: list[Batch]
    nodes: int  # of all batches
    edges: int


class BatchSource:
    """`source(epoch, index)` is a batch, the same whichever thread asks and whatever was asked before.

    Its arrays are numpy's; `len(source)` is the number of batches in an epoch. A copy by pickle, for another process,
    holds the whole graph and the teacher, and what was mapped as arrays in memory.

    Args:
      graph: the whole graph.
      target: the type whose nodes are classified.
      nodes: int[n], the target nodes that make up an epoch, such as those of a split; each once.
      batch_size: seeds in a batch. The last of an epoch has what is left, and rows that do not count.
      fanouts, replace: of `NeighbourSampler`; a model of L layers needs L hops.
      labels: int[N] or [N, C] of all target nodes. Batches bring those of `nodes` alone: other nodes, which may be
        among the uniform ones, are unlabelled there. They are copied, mapped ones too.
      uniform: {type: number} of nodes drawn from all of a type for every batch, at most all of them. Those of the
        target have their logits; those of other types, which no model's last layer knows, enter one hop later.
      teacher: whose rows go with the seeds and the uniform nodes.
      resident: types whose features the caller keeps on the device: batches come without, and
        `Batch.with_features` adds them within the step. Features are most of a batch's bytes.
      shuffle: whether every epoch has an order of its own; otherwise all have that of `nodes`.
      seed: of all randomness, at least 0.
      trials: batches drawn beforehand, to choose the sizes by; beside them the batch of the first epoch whose seeds
        have the most neighbours.

    Attributes:
      sizes: at most three, in one of which every batch comes (`padding.ladder`). The last may come late in a run, or
        never: a step that is to fit on the device has to fit in that size.

    Raises:
      GraphError: types, nodes, labels or teacher's rows that do not fit the graph; resident types with sparse features;
        what `NeighbourSampler` raises.
      ValueError: a number that is too small, no nodes, nodes that repeat.
      TypeError: a number that is no integer, fan-outs or resident types that are no collection.
    """

    def __init__(self, graph: HostGraph, *, target: str, nodes: Any, batch_size: int, fanouts: Fanouts,
                 replace: bool = False, labels: Any = None, uniform: Mapping[str, int] | None = None,
                 teacher: TeacherRows | None = None, resident: Collection[str] = (), shuffle: bool = True,
                 seed: int = 0, trials: int = 8) -> None:
        self.graph, self.target, self.teacher = graph, checked_type(target, graph), teacher
        self.resident = checked_resident(resident, graph)
        self.shuffle, self.seed = shuffle, checked_number("seed", seed, 0)
        self.nodes = checked_nodes(nodes, graph.counts[target])
        self.batch_size = min(checked_number("batch_size", batch_size, 1), self.nodes.size)
        self.uniform = checked_uniform(uniform or {}, graph)
        self.labels = None if labels is None else known_labels(labels, self.nodes, target, graph.counts[target])
        if teacher is not None:
            check_teacher(teacher, target, graph.counts)
        self._sampler = NeighbourSampler(graph, fanouts, replace=replace)
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self.sizes = self._sizes(checked_number("trials", trials, 1))

    def __len__(self) -> int:
        return -(-self.nodes.size // self.batch_size)

    def __call__(self, epoch: int, index: int) -> Batch:
        """Batch `index` of an epoch, from 0 on. Raises IndexError for one that the epoch does not have, ValueError for
        an epoch that there is not."""
        self._check_index(index)
        return self.side_by_side(epoch, [index]).batches[0]

    def side_by_side(self, epoch: int, indices: Sequence[int], *, at_least: int = 0) -> SideBySide:
        """Several batches of an epoch in one size, for devices that run one program.

        An index beyond the epoch's last gives a batch whose seeds do not count; its uniform nodes do, which are drawn
        as those of any other.

        Args:
          epoch, indices: which.
          at_least: the place in `sizes` of the smallest size to take.

        Raises:
          ValueError: a number below 0, no index, or a size that there is not.
          TypeError: a number that is no integer.
        """
        check_places(epoch, indices)
        if checked_number("at_least", at_least, 0) >= len(self.sizes):
            raise ValueError(f"at_least must be at most {len(self.sizes) - 1}, the place of the last size, got "
                             f"{at_least}")
        samples = [self._sample(epoch, index) for index in indices]
        size = max([at_least, *(self.sizes.index(smallest(self.sizes, sizes_of(s, self.graph))) for s in samples)])
        batches = [self._batch(sample, index < len(self), self.sizes[size])
                   for index, sample in zip(indices, samples, strict=True)]
        return SideBySide(size, batches, sum(ids.size for sample in samples for ids in sample.nodes.values()),
                          sum(edges.senders.size for sample in samples for edges in sample.edges.values()))

    def _batch(self, sample: Sample, counts: bool, sizes: Sizes) -> Batch:
        seeds, *uniform = sample.rows
        size, places = seeds[self.target].size, np.arange(self.batch_size)
        leaves: dict[str, Any] = {
            "graph": padded_graph(self.graph, sample, sizes, without=self.resident),
            "ids": {name: padded(ids, sizes.nodes[name]) for name, ids in sample.nodes.items()},
            "real": {name: np.int32(ids.size) for name, ids in sample.nodes.items()},
            "seeds": self._rows({self.target: seeds[self.target][places % size]}, sample, (places < size) & counts),
            "uniform": self._rows({name: rows for group in uniform for name, rows in group.items()}, sample, None)
            if self.uniform else None}
        return Batch(**leaves, counts=tuple(self.graph.counts.items()), resident=tuple(sorted(self.resident)))

    def sample(self, epoch: int, index: int) -> Sample:
        """What batch `index` of an epoch is made of: the seeds, and the uniform nodes of the target and of the others,
        entered as sets of their own."""
        self._check_index(index)
        check_places(epoch, [index])
        return self._sample(epoch, index)

    def signature(self) -> str:
        """All that decides which nodes and edges come when, in words: the state of a loader is for these batches."""
        def digest(value: Any) -> str:
            return hashlib.sha256(value).hexdigest()[:16]

        graph = repr((self.graph.counts, {edge_type: relation.senders.size
                                          for edge_type, relation in self.graph.relations.items()}))
        hops = []
        for fanout in self._sampler.fanouts:
            numbers = {edge_name(edge_type): number for edge_type, number in fanout.items()}
            same = len(set(numbers.values())) == 1
            hops.append(str(next(iter(numbers.values())) if same else numbers))
        return (f"target {self.target!r} of a graph {digest(graph.encode())}, {self.nodes.size} nodes "
                f"{digest(self.nodes.tobytes())}, batch_size {self.batch_size}, fanouts [{', '.join(hops)}], replace "
                f"{self._sampler.replace}, uniform {self.uniform}, shuffle {self.shuffle}, seed {self.seed}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_orders")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _orders={})

    def _sizes(self, trials: int) -> tuple[Sizes, ...]:
        """Those of `padding.ladder`, from batches of the first epochs."""
        of_target = {name: number for name, number in self.uniform.items() if name == self.target}
        of_others = {name: number for name, number in self.uniform.items() if name != self.target}
        bound = bound_of(self._sampler, [(0, {self.target: self.batch_size}), (0, of_target), (1, of_others)])
        step = max(1, len(self) // trials)  # far apart: `nodes` may be ordered by something
        drawn = [self._sample(*divmod(step * trial, len(self))) for trial in range(trials)]
        seeds, neighbours = self._order(0), np.zeros(self.nodes.size, np.int64)
        for edge_type, relation in self.graph.relations.items():
            if edge_type[2] == self.target:
                neighbours += numbers_drawn(relation.indptr[seeds + 1] - relation.indptr[seeds],
                                            self._sampler.fanouts[0][edge_type], self._sampler.replace)
        of_batches = np.add.reduceat(neighbours, np.arange(0, seeds.size, self.batch_size))
        heaviest = sizes_of(self._sample(0, int(of_batches.argmax())), self.graph)
        return ladder([sizes_of(sample, self.graph) for sample in drawn], bound, heaviest=heaviest)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"an epoch has the batches 0 to {len(self) - 1}, got {index}")

    def _sample(self, epoch: int, index: int) -> Sample:
        rng = self._stream(_BATCH, epoch, index)
        drawn = {name: rng.choice(self.graph.counts[name], number, replace=False, shuffle=False).astype(np.int32)
                 for name, number in self.uniform.items()}
        own = {self.target: drawn.pop(self.target)} if self.target in drawn else {}
        first = index * self.batch_size if index < len(self) else 0
        seeds = self._order(epoch)[first:first + self.batch_size]
        return self._sampler.sample([(0, {self.target: seeds}), (0, own), (1, drawn)], rng)

    def _rows(self, index: dict[str, np.ndarray], sample: Sample, where: np.ndarray | None) -> Rows:
        ids = {name: sample.nodes[name][rows] for name, rows in index.items()}
        leaves: dict[str, Any] = {
            "index": index, "where": where,
            "labels": self.labels[ids[self.target]] if self.labels is not None and self.target in ids else None,
            "teacher": None if self.teacher is None else self.teacher.take(ids, self.target)}
        return Rows(**leaves, target=self.target)

    def _order(self, epoch: int) -> np.ndarray:
        """The epoch's order of `nodes`. Workers are at one epoch or at the end of it and the beginning of the next."""
        if not self.shuffle:
            return self.nodes
        with self._lock:
            if epoch not in self._orders:
                self._orders = {known: order for known, order in self._orders.items() if abs(known - epoch) == 1}
                self._orders[epoch] = self._stream(_ORDER, epoch).permutation(self.nodes)
            return self._orders[epoch]

    def _stream(self, *place: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=place)))
