"""Tensors of torch, dense and sparse, as host arrays: read through their own methods, torch is not imported."""

from typing import Any

import numpy as np

from hire_jax.graph import GraphError
from hire_jax.sparse import SparseFeatures


def host_array(tensor: Any, where: str) -> np.ndarray:
    """A tensor on any device, or anything numpy takes, as a numpy array; bfloat16 becomes float32.

    Raises:
      GraphError: it cannot be converted, or is sparse.
    """
    if is_sparse(tensor):
        raise GraphError(f"{where}: expected a dense tensor, found one of layout {tensor.layout}")
    try:
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().cpu()
            if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such dtype
                tensor = tensor.float()
            tensor = tensor.numpy()
        return np.asarray(tensor)
    except Exception as error:  # the tensor is a stranger's object
        raise GraphError(f"{where}: expected a tensor that converts to numpy, found {type(tensor).__name__} "
                         f"({type(error).__name__}: {error})") from error


def host_features(tensor: Any, num_nodes: int, where: str) -> np.ndarray | SparseFeatures:
    """Node features: a dense tensor as an array, a sparse one (COO, CSR or CSC) as `SparseFeatures`.

    Raises:
      GraphError: it cannot be converted, or a sparse one is not a matrix of `num_nodes` rows of finite numbers.
    """
    if not is_sparse(tensor):
        array = host_array(tensor, where)
        return array[:, None] if array.ndim == 1 else array
    if tuple(tensor.shape[:1]) != (num_nodes,) or len(tensor.shape) != 2:
        raise GraphError(f"{where}: expected a sparse matrix of {num_nodes} rows, found shape {list(tensor.shape)}")
    try:
        entries = tensor.detach().cpu().to_sparse_coo().coalesce()  # ordered by row, then column
        (rows, columns), values = entries.indices().numpy(), host_array(entries.values(), where)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_nodes))])
        return SparseFeatures.from_csr(indptr, columns, values, (num_nodes, int(tensor.shape[1])))
    except Exception as error:
        raise GraphError(f"{where}: expected a sparse matrix of finite numbers, found one that cannot be read "
                         f"({type(error).__name__}: {error})") from error


def is_sparse(tensor: Any) -> bool:
    """Whether this is a torch tensor in a sparse layout."""
    return str(getattr(tensor, "layout", "torch.strided")) != "torch.strided"
