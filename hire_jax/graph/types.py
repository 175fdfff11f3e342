"""What relations are named by, and what features may be."""

import jax

from hire_jax.sparse import SparseFeatures

EdgeType = tuple[str, str, str]  # (source type, relation, destination type)
SELF = "self"  # the relation (type, "self", type) under which models return a node's attention to itself
Features = jax.Array | SparseFeatures
