"""Heterogeneous graphs: node types, relations, and the sparse patterns models aggregate over."""

from hire_jax.graph.blocks import RelationBlock
from hire_jax.graph.checks import GraphError
from hire_jax.graph.hetero import HeteroGraph
from hire_jax.graph.types import SELF, EdgeType, Features

__all__ = ["SELF", "EdgeType", "Features", "GraphError", "HeteroGraph", "RelationBlock"]
