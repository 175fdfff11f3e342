"""PyG's `NeighborLoader` on the arrays that our sampler reads. It samples with pyg-lib or torch-sparse."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch_geometric
import torch_geometric.typing
from torch_geometric.data import HeteroData
from torch_geometric.loader import NeighborLoader

if not (torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE):
    raise ImportError("PyG samples neighbours with pyg-lib or torch-sparse, and neither is installed")

LIBRARY = "pyg-lib" if torch_geometric.typing.WITH_PYG_LIB else "torch-sparse"
VERSIONS = {"torch": torch.__version__, "torch_geometric": torch_geometric.__version__, "sampler": LIBRARY}


class Loader:
    """Batches of the graph's seeds, one after another without end; a call returns seconds a batch.

    Args:
      num_nodes, edges, features: as of `hire_jax.sampling.HostGraph.from_arrays`.
      target: type of the seeds, which are all its nodes.
      fanouts: neighbours a relation and hop.
      batch_size: seeds of a batch.
      workers: processes; 0 samples in this one.
      batches: in a call.
    """

    def __init__(self, num_nodes: Mapping[str, int], edges: Mapping[Any, np.ndarray],
                 features: Mapping[str, np.ndarray], *, target: str, fanouts: Sequence[int], batch_size: int,
                 workers: int = 0, batches: int = 1) -> None:
        data = HeteroData()
        for name, count in num_nodes.items():
            data[name].num_nodes = count
            if name in features:
                data[name].x = torch.from_numpy(features[name])
        for edge_type, array in edges.items():
            data[edge_type].edge_index = torch.from_numpy(array.astype(np.int64))
        self.batches = batches
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch-sparse being deprecated
            self.loader = NeighborLoader(
                data, num_neighbors={edge_type: list(fanouts) for edge_type in edges}, input_nodes=target,
                batch_size=batch_size, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
                multiprocessing_context="spawn" if workers else None)  # JAX's threads and a fork may wait for ever
        self.ahead = self.loader.prefetch_factor * workers if workers else 0
        self._batches = self._endless()

    def __call__(self) -> float:
        for _ in range(self.ahead):  # made while others had their turn
            next(self._batches)
        start = time.perf_counter()
        for _ in range(self.batches):
            next(self._batches)
        return (time.perf_counter() - start) / self.batches

    def sample_only(self) -> float:
        """Seconds a batch of sampling and renumbering alone, without features and in this process."""
        from torch_geometric.sampler import NodeSamplerInput

        sampler, target = self.loader.node_sampler, self.loader.input_data.input_type
        nodes = self.loader.input_data.node
        start = time.perf_counter()
        for _ in range(self.batches):
            seeds = nodes[torch.randint(len(nodes), (self.loader.batch_size,))]
            sampler.sample_from_nodes(NodeSamplerInput(input_id=None, node=seeds, input_type=target))
        return (time.perf_counter() - start) / self.batches

    def counts(self) -> tuple[int, int]:
        """Nodes and edges of a batch."""
        batch = next(self._batches)
        return batch.num_nodes, batch.num_edges

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader
