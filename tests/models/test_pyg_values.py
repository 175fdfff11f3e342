"""RGCN and HGT layers against values computed with PyG 2.8.1 (tests/golden/README.md)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hire_jax import HeteroGraph
from hire_jax.models import HGTLayer, RGCNLayer

GOLDEN = Path(__file__).parent.parent / "golden" / "pyg_layers.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def homogeneous(golden):
    """One node type with three relations: PyG's edge_type, as relations."""
    kinds = golden["homo/edge_type"]
    edges = {("node", str(k), "node"): golden["homo/edge_index"][:, kinds == k] for k in range(3)}
    return HeteroGraph.from_arrays({"node": 12}, edges)


@pytest.fixture(scope="module")
def heterogeneous(golden):
    names = [key.split("/")[-1] for key in golden if key.startswith("het/x/")]
    edges = {tuple(key.split("/")[-1].split("__")): value for key, value in golden.items()
             if key.startswith("het/ei/")}
    return HeteroGraph.from_arrays({name: len(golden[f"het/x/{name}"]) for name in names}, edges)


@pytest.mark.parametrize("case", ["rgcn", "rgcn_sum", "rgcn_basis2"])
def test_rgcn(golden, homogeneous, case):
    params: dict[str, Any] = {"root_node": golden[f"{case}/param/root"], "bias_node": golden[f"{case}/param/bias"]}
    if case == "rgcn_basis2":
        params["bases"] = golden[f"{case}/param/weight"]
        params["coefficients_node_node"] = golden[f"{case}/param/comp"]
    else:
        params["kernel_node_node"] = golden[f"{case}/param/weight"]
    layer = RGCNLayer(features=8, bases=2 if case == "rgcn_basis2" else None,
                      aggregation="sum" if case == "rgcn_sum" else "mean")
    out: Any = layer.apply({"params": params}, homogeneous, {"node": golden["homo/x"]}, ["node"])
    np.testing.assert_allclose(out["node"], golden[f"{case}/out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("case", "width", "heads"), [("hgt_h2", 16, 2), ("hgt_h4_same", 8, 4)])
def test_hgt(golden, heterogeneous, case, width, heads):
    graph = heterogeneous
    value = {key.removeprefix(f"{case}/param/"): array for key, array in golden.items()
             if key.startswith(f"{case}/param/")}
    params: dict[str, Any] = {}
    for name in graph.node_types:
        kernels = np.split(value[f"kqv_lin.lins.{name}.weight"].T, 3, axis=1)
        biases = np.split(value[f"kqv_lin.lins.{name}.bias"], 3)
        for role, kernel, bias in zip(("key", "query", "value"), kernels, biases, strict=True):
            params[f"{role}_{name}"], params[f"{role}_bias_{name}"] = kernel, bias
        params[f"output_{name}"] = {"kernel": value[f"out_lin.lins.{name}.weight"].T,
                                    "bias": value[f"out_lin.lins.{name}.bias"]}
        if case == "hgt_h4_same":
            params[f"skip_{name}"] = value[f"skip.{name}"][0]
    relations = [key.removeprefix("p_rel.") for key in value if key.startswith("p_rel.")]  # PyG's order
    for index, relation in enumerate(relations):
        source, _, destination = relation.split("__")
        pair = f"{source}_{destination}"
        rows = np.arange(heads) * len(relations) + index
        params[f"relation_key_{pair}"] = value["k_rel.weight"][rows][None]
        params[f"relation_value_{pair}"] = value["v_rel.weight"][rows][None]
        params[f"prior_{pair}"] = value[f"p_rel.{relation}"]
    hidden = {name: golden[f"het/x/{name}"] for name in graph.node_types}
    out, attention = HGTLayer(features=width, heads=heads).apply({"params": params}, graph, hidden, graph.node_types)
    for name in graph.node_types:
        np.testing.assert_allclose(out[name], golden[f"{case}/out/{name}"], rtol=1e-4, atol=1e-5)
    for name in graph.node_types:  # one softmax over all relations into a type
        total = np.zeros((graph.num_nodes[name], heads))
        for edge_type, alpha in attention.items():
            if edge_type[2] == name:
                np.add.at(total, np.asarray(graph.relations[edge_type].receivers), np.asarray(alpha))
        assert np.all(np.isclose(total, 1, atol=1e-6) | (total == 0))
