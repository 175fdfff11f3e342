"""Static sizes: the few shapes that all batches of a run are padded to, so that a step is compiled a few times."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hire_jax.graph import EdgeType
from hire_jax.sampling.features import SparseRows
from hire_jax.sampling.host import HostGraph
from hire_jax.sampling.neighbours import NeighbourSampler, Sample, numbers_drawn

MARGIN = 1.1  # over the largest of the trial batches
GROWTH = 1.5  # from the first step to the second, at least
STEP = 64  # sizes are multiples of it


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much a batch holds, or has room for.

    Attributes:
      nodes: {type: nodes}, a dummy included.
      edges: {edge type: edges}.
      entries: {type: entries of its sparse features}, of the types that have such.
    """

    nodes: dict[str, int]
    edges: dict[EdgeType, int]
    entries: dict[str, int]

    def holds(self, other: "Sizes") -> bool:
        """Whether there is room for the other in every respect."""
        return all(of_self[name] >= of_other[name] for of_self, of_other in
                   zip(self._parts(), other._parts(), strict=True) for name in of_self)

    def combined(self, other: "Sizes", function: Callable[[int, int], int]) -> "Sizes":
        """The sizes function(of this, of the other)."""
        return Sizes(*({name: function(of_self[name], of_other[name]) for name in of_self}
                       for of_self, of_other in zip(self._parts(), other._parts(), strict=True)))

    def scaled(self, factor: float) -> "Sizes":
        """The next multiples of STEP above `factor` times all sizes: of 0 too, since the rare is not seen in trials."""
        return Sizes(*({name: (int(size * factor) // STEP + 1) * STEP for name, size in part.items()}
                       for part in self._parts()))

    def _parts(self) -> tuple[dict, dict, dict]:
        return self.nodes, self.edges, self.entries


def sizes_of(sample: Sample, graph: HostGraph) -> Sizes:
    """What a sample needs: its own numbers, and one dummy node of every type."""
    entries = {}
    for name, rows in graph.features.items():
        if isinstance(rows, SparseRows):
            ids = sample.nodes[name]
            entries[name] = int((rows.indptr[ids + 1] - rows.indptr[ids]).sum())
    return Sizes({name: ids.size + 1 for name, ids in sample.nodes.items()},
                 {edge_type: edges.senders.size for edge_type, edges in sample.edges.items()}, entries)


def ladder(trials: Sequence[Sizes], bound: Sizes, *, heaviest: Sizes | None = None) -> tuple[Sizes, ...]:
    """At most three sizes, ascending, the last of which holds every batch.

    The first is a tenth above the largest of the trials and is what nearly all batches take. The third is the bound.
    The second is for the batches that hubs make large: half as large again as the first, a tenth above the `heaviest`
    trial, and where the bound is far above the first, half the way there by factors; the largest of these. None is
    above the bound.
    """
    first = trials[0]
    for trial in trials[1:]:
        first = first.combined(trial, max)
    first = first.scaled(MARGIN)
    second = first.scaled(GROWTH).combined(first.combined(bound, lambda a, b: math.isqrt(a * b)), max)
    if heaviest is not None:
        second = second.combined(heaviest.scaled(MARGIN), max)
    steps: list[Sizes] = []
    for size in (first, second, bound):
        size = size.combined(bound, min)
        if size not in steps:
            steps.append(size)
    return tuple(steps)


def smallest(steps: Sequence[Sizes], needed: Sizes) -> Sizes:
    """The first step that holds what is needed. Raises ValueError where none does: `steps` are of something else."""
    for step in steps:
        if step.holds(needed):
            return step
    raise ValueError(f"a batch needs {needed}, more than the bound {steps[-1]}")


def bound_of(sampler: NeighbourSampler, entering: Sequence[tuple[int, Mapping[str, int]]]) -> Sizes:
    """What no sample can exceed, whatever the draws; `entering` as in `NeighbourSampler.sample`, numbers for nodes.

    It is what nodes of the highest degrees would bring, were they met at every hop.
    """
    graph, counts = sampler.graph, sampler.graph.counts
    edges, nodes, met = dict.fromkeys(graph.relations, 0), dict.fromkeys(counts, 0), dict.fromkeys(counts, 0)
    for hop in range(1 + max([len(sampler.fanouts), *(hop for hop, _ in entering)])):
        for when, numbers in entering:
            for name in numbers if when == hop else ():
                met[name] += numbers[name]
        frontier = {name: min(met[name], count) for name, count in counts.items()}
        nodes = {name: min(nodes[name] + frontier[name], count) for name, count in counts.items()}
        met = dict.fromkeys(counts, 0)
        for edge_type, fanout in sampler.fanouts[hop].items() if hop < len(sampler.fanouts) else ():
            degrees = np.diff(graph.relations[edge_type].indptr)
            number = _sum_of_largest(numbers_drawn(degrees, fanout, sampler.replace), frontier[edge_type[2]])
            edges[edge_type] += number
            met[edge_type[0]] += number
    for edge_type, number in edges.items():  # a node's neighbours are drawn once
        degrees = np.diff(graph.relations[edge_type].indptr)
        drawn = [numbers_drawn(degrees, fanout, sampler.replace)
                 for fanout in {fanout[edge_type] for fanout in sampler.fanouts}]
        edges[edge_type] = min(number, _sum_of_largest(np.maximum.reduce(drawn), nodes[edge_type[2]]))
    entries = {}
    for name, rows in graph.features.items():
        if isinstance(rows, SparseRows):
            entries[name] = _sum_of_largest(np.diff(rows.indptr), nodes[name])
    return Sizes({name: number + 1 for name, number in nodes.items()}, edges, entries)


def _sum_of_largest(numbers: np.ndarray, count: int) -> int:
    if 0 < count < numbers.size:
        numbers = np.partition(numbers, numbers.size - count)[numbers.size - count:]
    return int(numbers.sum()) if count else 0
