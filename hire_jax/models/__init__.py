"""Graph networks. One published architecture a file; each returns a `ModelOutput`."""

from hire_jax.models.appnp import APPNP
from hire_jax.models.gat import GAT, GATLayer
from hire_jax.models.gatv2 import GATv2, GATv2Layer
from hire_jax.models.gcn import GCN, GCNLayer
from hire_jax.models.gcnii import GCNII, GCNIILayer
from hire_jax.models.gkedm import GKEDM, GKEDMLayer
from hire_jax.models.graph_sage import GraphSAGE, SAGELayer
from hire_jax.models.han import HAN, HANLayer
from hire_jax.models.hgt import HGT, HGTLayer
from hire_jax.models.ie_hgcn import IEHGCN, IEHGCNLayer
from hire_jax.models.mlp import MLP
from hire_jax.models.monet import MoNet, MoNetLayer
from hire_jax.models.output import ModelOutput
from hire_jax.models.projector import Projector
from hire_jax.models.rgcn import RGCN, RGCNLayer
from hire_jax.models.sage import HeteroSAGE, HeteroSAGELayer
from hire_jax.models.sehgnn import SeHGNN
from hire_jax.models.sgc import SGC
from hire_jax.models.simple_hgn import SimpleHGN, SimpleHGNLayer
from hire_jax.models.trunk import NodeClassifier

__all__ = [
    "APPNP",
    "GAT",
    "GCN",
    "GCNII",
    "GKEDM",
    "HAN",
    "HGT",
    "IEHGCN",
    "MLP",
    "RGCN",
    "SGC",
    "GATLayer",
    "GATv2",
    "GATv2Layer",
    "GCNIILayer",
    "GCNLayer",
    "GKEDMLayer",
    "GraphSAGE",
    "HANLayer",
    "HGTLayer",
    "HeteroSAGE",
    "HeteroSAGELayer",
    "IEHGCNLayer",
    "MoNet",
    "MoNetLayer",
    "ModelOutput",
    "NodeClassifier",
    "Projector",
    "RGCNLayer",
    "SAGELayer",
    "SeHGNN",
    "SimpleHGN",
    "SimpleHGNLayer",
]  # fmt: skip
