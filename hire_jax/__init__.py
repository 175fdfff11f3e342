"""Knowledge distillation on graphs, heterogeneous first, as pure functions in JAX."""

from hire_jax import (
    checkpoint,
    data,
    figures,
    interop,
    losses,
    metapaths,
    metrics,
    models,
    parallel,
    positions,
    report,
    sampling,
    sparse,
    teachers,
)
from hire_jax._version import __version__
from hire_jax.conflicts import pcgrad
from hire_jax.data import Dataset, DatasetError, load_dataset
from hire_jax.distill import Objective
from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.models import ModelOutput
from hire_jax.sparse import SparseFeatures
from hire_jax.training import FitResult, LeakError, TrainingError, check_leaks, fit, lift, predict, slow_backbone

__all__ = [
    "Dataset",
    "DatasetError",
    "FitResult",
    "GraphError",
    "HeteroGraph",
    "LeakError",
    "ModelOutput",
    "Objective",
    "SparseFeatures",
    "TrainingError",
    "__version__",
    "check_leaks",
    "checkpoint",
    "data",
    "figures",
    "fit",
    "interop",
    "lift",
    "load_dataset",
    "losses",
    "metapaths",
    "metrics",
    "models",
    "parallel",
    "pcgrad",
    "positions",
    "predict",
    "report",
    "sampling",
    "slow_backbone",
    "sparse",
    "teachers",
]
