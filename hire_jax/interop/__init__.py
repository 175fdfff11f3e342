"""Graphs that users have elsewhere: in tables, CSV files, PyTorch Geometric, DGL and NetworkX."""

from hire_jax.interop.columns import dataset_from_columns, from_columns
from hire_jax.interop.csv_folder import dataset_from_csv_folder, from_csv_folder
from hire_jax.interop.csv_write import to_csv_folder
from hire_jax.interop.dgl import dataset_from_dgl, from_dgl
from hire_jax.interop.ids import Imported, NodeIds
from hire_jax.interop.networkx import dataset_from_networkx, from_networkx, to_networkx
from hire_jax.interop.pyg import dataset_from_pyg, from_pyg, to_pyg

__all__ = [
    "Imported",
    "NodeIds",
    "dataset_from_columns",
    "dataset_from_csv_folder",
    "dataset_from_dgl",
    "dataset_from_networkx",
    "dataset_from_pyg",
    "from_columns",
    "from_csv_folder",
    "from_dgl",
    "from_networkx",
    "from_pyg",
    "to_csv_folder",
    "to_networkx",
    "to_pyg",
]
