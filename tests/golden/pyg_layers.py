"""Recomputes pyg_layers.npz with PyG from its stored inputs and parameters, and prints the largest difference.

    python tests/golden/pyg_layers.py        # needs torch and torch_geometric, which the project does not
"""

from pathlib import Path

import numpy as np
import torch
from torch_geometric.nn import (
    APPNP,
    GATConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    HANConv,
    HeteroConv,
    HGTConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    TransformerConv,
)

torch.set_grad_enabled(False)
with np.load(Path(__file__).with_suffix(".npz")) as archive:
    stored = {key: torch.from_numpy(archive[key]) for key in archive.files}


def _plain(name: str) -> str:
    return name.replace("<", "").replace(">", "").replace("___", "__")


def with_parameters(layer: torch.nn.Module, case: str) -> torch.nn.Module:
    """The layer with the stored parameters of a case; names are compared without the brackets PyG puts in some."""
    prefix = f"{case}/param/"
    given = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    names = {_plain(name): name for name in layer.state_dict()}
    layer.load_state_dict({names[_plain(name)]: value for name, value in given.items()})
    return layer


worst = {}
options = {"rgcn": {}, "rgcn_sum": {"aggr": "add"}, "rgcn_basis2": {"num_bases": 2}}
for case, option in options.items():
    layer = with_parameters(RGCNConv(5, 8, num_relations=3, **option), case)
    out = layer(stored["homo/x"], stored["homo/edge_index"], stored["homo/edge_type"])
    worst[case] = float((out - stored[f"{case}/out"]).abs().max())

homogeneous = {
    "gcn": GCNConv(5, 8), "gcn_nonorm_selfloop_off": GCNConv(5, 8, add_self_loops=False),
    "gat": GATConv(5, 8, heads=2), "gat_mean_noloop": GATConv(5, 8, heads=3, concat=False, add_self_loops=False),
    "gatv2": GATv2Conv(5, 8, heads=2), "sage_mean": SAGEConv(5, 8), "sgc_k2": SGConv(5, 8, K=2),
    "transformer": TransformerConv(5, 8, heads=2), "appnp_k10_a01": APPNP(10, 0.1),
    "gcn2_a01_t05_l1": GCN2Conv(8, alpha=0.1, theta=0.5, layer=1),
}  # fmt: skip
inputs = {"appnp_k10_a01": ("homo/h8",), "gcn2_a01_t05_l1": ("homo/h8", "homo/h8_0")}
for case, layer in homogeneous.items():
    rows = [stored[name] for name in inputs.get(case, ("homo/x",))]
    out = with_parameters(layer, case)(*rows, stored["homo/edge_index"])
    worst[case] = float((out - stored[f"{case}/out"]).abs().max())

x = {key.split("/")[-1]: value for key, value in stored.items() if key.startswith("het/x/")}
edges = {tuple(key.split("/")[-1].split("__")): value for key, value in stored.items() if key.startswith("het/ei/")}
for case, width, heads in (("hgt_h2", 16, 2), ("hgt_h4_same", 8, 4)):
    layer = with_parameters(HGTConv(8, width, (list(x), list(edges)), heads=heads), case)
    out = layer(x, edges)
    worst[case] = max(float((out[name] - stored[f"{case}/out/{name}"]).abs().max()) for name in x)

layer = with_parameters(HANConv(8, 16, (list(x), list(edges)), heads=2), "han_h2")
out = layer(x, edges)
worst["han_h2"] = max(float((out[name] - stored[f"han_h2/out/{name}"]).abs().max()) for name in x)
layer = HeteroConv({edge_type: SAGEConv((8, 8), 8) for edge_type in edges}, aggr="sum")
out = with_parameters(layer, "heteroconv_sage_sum")(x, edges)
worst["heteroconv_sage_sum"] = max(
    float((out[name] - stored[f"heteroconv_sage_sum/out/{name}"]).abs().max()) for name in out)

for case, difference in worst.items():
    print(f"{case}: {difference:.1e}")
