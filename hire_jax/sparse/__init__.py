"""How aggregation is executed: sparse patterns, their products, and reductions over segments.

This is the only room of the package that knows about compressed rows, kernels or what a device prefers.
Everything above it speaks of `CSR` patterns and calls `spmm`, `sddmm` and the segment functions.
"""

from hire_jax.sparse.csr import CSR
from hire_jax.sparse.features import SparseFeatures
from hire_jax.sparse.products import edge_sum, sddmm, spmm, spmm_reference
from hire_jax.sparse.segments import joint_segment_softmax, segment_max, segment_mean, segment_softmax, segment_sum

__all__ = [
    "CSR",
    "SparseFeatures",
    "edge_sum",
    "joint_segment_softmax",
    "sddmm",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "spmm",
    "spmm_reference",
]
