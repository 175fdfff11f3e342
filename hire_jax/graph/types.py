"""What relations are named by, and what features may be."""

import jax

from hire_jax.sparse import SparseFeatures

EdgeType = tuple[str, str, str]  # (source type, relation, destination type)
Features = jax.Array | SparseFeatures
