"""Graph networks. One published architecture a file; each returns a `ModelOutput`."""

from hire_jax.models.hgt import HGT, HGTLayer
from hire_jax.models.output import ModelOutput
from hire_jax.models.rgcn import RGCN, RGCNLayer

__all__ = ["HGT", "RGCN", "HGTLayer", "ModelOutput", "RGCNLayer"]
