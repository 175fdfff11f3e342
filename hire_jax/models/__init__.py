"""Graph networks. One published architecture a file; each returns a `ModelOutput`."""

from hire_jax.models.gat import GAT, GATLayer
from hire_jax.models.gcn import GCN, GCNLayer
from hire_jax.models.han import HAN, HANLayer
from hire_jax.models.hgt import HGT, HGTLayer
from hire_jax.models.ie_hgcn import IEHGCN, IEHGCNLayer
from hire_jax.models.mlp import MLP
from hire_jax.models.output import ModelOutput
from hire_jax.models.projector import Projector
from hire_jax.models.rgcn import RGCN, RGCNLayer
from hire_jax.models.sage import HeteroSAGE, HeteroSAGELayer
from hire_jax.models.sehgnn import SeHGNN
from hire_jax.models.simple_hgn import SimpleHGN, SimpleHGNLayer
from hire_jax.models.trunk import NodeClassifier

__all__ = [
    "GAT", "GCN", "HAN", "HGT", "IEHGCN", "MLP", "RGCN", "GATLayer", "GCNLayer", "HANLayer", "HGTLayer", "HeteroSAGE",
    "HeteroSAGELayer", "IEHGCNLayer", "ModelOutput", "NodeClassifier", "Projector", "RGCNLayer", "SeHGNN", "SimpleHGN",
    "SimpleHGNLayer",
]  # fmt: skip
