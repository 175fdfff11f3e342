"""Batches by their place in a run: each is a function of the graph, the settings, its epoch and its number alone."""

import operator
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hire_jax.graph import GraphError
from hire_jax.sampling.batches import Batch, Rows
from hire_jax.sampling.host import HostGraph
from hire_jax.sampling.neighbours import Fanouts, NeighbourSampler, Sample
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

    Its arrays are numpy's; `len(source)` is the number of batches in an epoch.

    Args:
      graph: the whole graph.
      target: the type whose nodes are classified.
      nodes: int[n], the target nodes that make up an epoch, such as those of a split; each once.
      batch_size: seeds in a batch. The last of an epoch has what is left, and rows that do not count.
      fanouts, replace: of `NeighbourSampler`; a model of L layers needs L hops.
      labels: int[N] or [N, C] of all target nodes. Batches bring those of `nodes` alone: other nodes, which may be
        among the uniform ones, are unlabelled there.
      uniform: {type: number} of nodes drawn from all of a type for every batch, at most all of them. Those of the
        target have their logits; those of other types, which no model's last layer knows, enter one hop later.
      teacher: whose rows go with the seeds and the uniform nodes.
      resident: types whose features the caller keeps on the device: batches come without, and
        `Batch.with_features` adds them within the step. Features are most of a batch's bytes.
      shuffle: whether every epoch has an order of its own; otherwise all have that of `nodes`.
      seed: of all randomness, at least 0.
      trials: batches drawn beforehand, to choose the sizes by.

    Attributes:
      sizes: at most three, in one of which every batch comes (`padding.ladder`).

    Raises:
      GraphError: types, nodes, labels or teacher's rows that do not fit the graph; what `NeighbourSampler` raises.
      ValueError: a number that is too small, no nodes, nodes that repeat.
      TypeError: a number that is no integer.
    """

    def __init__(self, graph: HostGraph, *, target: str, nodes: Any, batch_size: int, fanouts: Fanouts,
                 replace: bool = False, labels: Any = None, uniform: Mapping[str, int] | None = None,
                 teacher: TeacherRows | None = None, resident: Collection[str] = (), shuffle: bool = True,
                 seed: int = 0, trials: int = 8) -> None:
        for what, number, least in (("batch_size", batch_size, 1), ("trials", trials, 1), ("seed", seed, 0)):
            if operator.index(number) < least:
                raise ValueError(f"{what} must be at least {least}, got {number}")
        for name in (target, *(uniform or {}), *resident):
            if name not in graph.counts:
                raise GraphError(f"node type {name!r} is unknown; the graph has {list(graph.counts)}")
        self.graph, self.target, self.teacher, self.resident = graph, target, teacher, frozenset(resident)
        self.shuffle, self.seed = shuffle, seed
        self.nodes = _checked_nodes(nodes, graph.counts[target])
        self.batch_size = min(batch_size, self.nodes.size)
        self.uniform = {name: min(operator.index(number), graph.counts[name])
                        for name, number in (uniform or {}).items()}
        for name, number in self.uniform.items():
            if number < 1:
                raise ValueError(f"uniform[{name!r}] must be at least 1, of a type with nodes, got {number}; without "
                                 "any, the type's pairs would be missing from the estimate")
        self.labels = None if labels is None else np.asarray(labels)
        self._check_rows()
        if self.labels is not None:
            self.labels = _known(self.labels, self.nodes)
        self._sampler = NeighbourSampler(graph, fanouts, replace=replace)
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        of_target = {name: number for name, number in self.uniform.items() if name == target}
        of_others = {name: number for name, number in self.uniform.items() if name != target}
        step = max(1, len(self) // trials)  # far apart: `nodes` may be ordered by something
        drawn = [self.sample(*divmod(step * trial, len(self))) for trial in range(trials)]
        self.sizes = ladder([sizes_of(sample, graph) for sample in drawn], bound_of(
            self._sampler, [(0, {target: self.batch_size}), (0, of_target), (1, of_others)]))

    def __len__(self) -> int:
        return -(-self.nodes.size // self.batch_size)

    def __call__(self, epoch: int, index: int) -> Batch:
        """Batch `index` of an epoch. Raises IndexError for one that the epoch does not have."""
        self._check_index(index)
        return self.side_by_side(epoch, [index]).batches[0]

    def side_by_side(self, epoch: int, indices: Sequence[int], *, at_least: int = 0) -> SideBySide:
        """Several batches of an epoch in one size, for devices that run one program.

        An index beyond the epoch's last gives a batch whose seeds do not count; its uniform nodes do, which are drawn
        as those of any other.

        Args:
          epoch, indices: which.
          at_least: the place in `sizes` of the smallest size to take.
        """
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
        return Batch(**leaves)

    def sample(self, epoch: int, index: int) -> Sample:
        """What batch `index` of an epoch is made of: the seeds, and the uniform nodes of the target and of the others,
        entered as sets of their own."""
        self._check_index(index)
        return self._sample(epoch, index)

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

    def _check_rows(self) -> None:
        """That labels and teacher have a row for each node."""
        known = {} if self.labels is None else {"labels": (self.target, len(self.labels))}
        if self.teacher is not None:
            known["the teacher's logits"] = self.target, self.teacher.num_logits
            known |= {f"the teacher's embeddings of {name!r}": (name, rows)
                      for name, rows in self.teacher.num_rows.items()}
        for what, (name, rows) in known.items():
            if rows != self.graph.counts.get(name):
                raise GraphError(f"{what} have {rows} rows, but the graph has {self.graph.counts.get(name, 0)} nodes "
                                 f"of {name!r}")


def _known(labels: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The labels of `nodes`, and -1 for all others."""
    if labels.ndim not in (1, 2) or labels.dtype.kind not in "iub":
        raise GraphError(f"labels must be integers [N] or [N, C], got {labels.dtype}{list(labels.shape)}")
    known = np.full(labels.shape, -1, labels.dtype if labels.dtype.kind == "i" else np.int32)
    known[nodes] = labels[nodes]
    return known


def _checked_nodes(nodes: Any, count: int) -> np.ndarray:
    """int32[n], at least one, each once and in [0, count)."""
    array = np.asarray(nodes)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"nodes must be integers [n], at least one, got {array.dtype}{list(array.shape)}")
    if array.min() < 0 or array.max() >= count:
        raise GraphError(f"nodes must be in [0, {count}), got {array.min()} to {array.max()}")
    if np.unique(array).size < array.size:
        raise ValueError("nodes must be there once each, but some repeat")
    return array.astype(np.int32)
