"""Datasets: loading by name, seeded splits, synthetic graphs."""

from hire_jax.data.dataset import Dataset
from hire_jax.data.errors import DatasetError, DatasetNotFoundError
from hire_jax.data.load import load_dataset
from hire_jax.data.mag_shaped import mag_shaped
from hire_jax.data.npz import read_npz
from hire_jax.data.splits import fold_split, fraction_split, holdout, k_fold, random_split
from hire_jax.data.synthetic import synthetic_hetero
from hire_jax.data.synthetic_arrays import GraphArrays, synthetic_arrays
from hire_jax.data.write import write_npz

__all__ = [
    "Dataset",
    "DatasetError",
    "DatasetNotFoundError",
    "GraphArrays",
    "fold_split",
    "fraction_split",
    "holdout",
    "k_fold",
    "load_dataset",
    "mag_shaped",
    "random_split",
    "read_npz",
    "synthetic_arrays",
    "synthetic_hetero",
    "write_npz",
]
