"""Training on sampled neighbourhoods, for graphs that are larger than a step can hold."""

from hire_jax.sampling.batches import Batch, Rows, batch_variables
from hire_jax.sampling.host import HostGraph
from hire_jax.sampling.loader import BatchLoader
from hire_jax.sampling.neighbours import NeighbourSampler
from hire_jax.sampling.source import BatchSource

__all__ = ["Batch", "BatchLoader", "BatchSource", "HostGraph", "NeighbourSampler", "Rows", "batch_variables"]
