"""Layers against values computed with PyG 2.8.1 (tests/golden/README.md)."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hire_jax import HeteroGraph
from hire_jax.models import GATLayer, GCNLayer, HANLayer, HeteroSAGELayer, HGTLayer, RGCNLayer

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
        params["coefficients_node->node"] = golden[f"{case}/param/comp"]
    else:
        params["kernel_node->node"] = golden[f"{case}/param/weight"]
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
            params[f"{role}_{name}"], params[f"bias_{role}_{name}"] = kernel, bias
        params[f"output_{name}"] = {"kernel": value[f"out_lin.lins.{name}.weight"].T,
                                    "bias": value[f"out_lin.lins.{name}.bias"]}
        if case == "hgt_h4_same":
            params[f"skip_{name}"] = value[f"skip.{name}"][0]
    relations = [key.removeprefix("p_rel.") for key in value if key.startswith("p_rel.")]  # PyG's order
    for index, relation in enumerate(relations):
        source, _, destination = relation.split("__")
        pair = f"{source}->{destination}"
        rows = np.arange(heads) * len(relations) + index
        params[f"relation_key_{pair}"] = value["k_rel.weight"][rows][None]
        params[f"relation_value_{pair}"] = value["v_rel.weight"][rows][None]
        params[f"prior_{pair}"] = value[f"p_rel.{relation}"]
    hidden = {name: golden[f"het/x/{name}"] for name in graph.node_types}
    apply = jax.jit(HGTLayer(features=width, heads=heads).apply, static_argnums=3)
    out, attention = apply({"params": params}, graph, hidden, graph.node_types)
    for name in graph.node_types:
        np.testing.assert_allclose(out[name], golden[f"{case}/out/{name}"], rtol=1e-4, atol=1e-5)
    for name in graph.node_types:  # one softmax over all relations into a type
        total = np.zeros((graph.num_nodes[name], heads))
        for edge_type, alpha in attention.items():
            if edge_type[2] == name:
                np.add.at(total, np.asarray(graph.relations[edge_type].receivers), np.asarray(alpha))
        assert np.all(np.isclose(total, 1, atol=1e-6) | (total == 0))


@pytest.fixture(scope="module")
def untyped(golden):
    """One node type and one relation, without the self loops that PyG's layers replace by their own."""
    edges = golden["homo/edge_index"]
    return HeteroGraph.from_arrays({"node": 12}, {("node", "to", "node"): edges[:, edges[0] != edges[1]]})


def test_gcn(golden, untyped):
    params = {"kernel": golden["gcn/param/lin.weight"].T, "bias": golden["gcn/param/bias"]}
    out: Any = GCNLayer(features=8).apply({"params": params}, untyped, {"node": golden["homo/x"]}, ["node"])
    np.testing.assert_allclose(out["node"], golden["gcn/out"], rtol=1e-4, atol=1e-5)


def test_gcn_without_self_loops(golden):
    case = "gcn_nonorm_selfloop_off"
    params = {"kernel": golden[f"{case}/param/lin.weight"].T, "bias": golden[f"{case}/param/bias"]}
    graph = HeteroGraph.from_arrays({"node": 12}, {("node", "to", "node"): golden["homo/edge_index"]})
    layer = GCNLayer(features=8, self_loops=False)
    out: Any = layer.apply({"params": params}, graph, {"node": golden["homo/x"]}, ["node"])
    np.testing.assert_allclose(out["node"], golden[f"{case}/out"], rtol=1e-4, atol=1e-5)


def test_gat(golden, untyped):
    params = {"kernel": golden["gat/param/lin.weight"].T, "bias": golden["gat/param/bias"],
              "attention_source": golden["gat/param/att_src"][0],
              "attention_destination": golden["gat/param/att_dst"][0]}
    apply = jax.jit(GATLayer(features=16, heads=2).apply, static_argnums=3)
    out, attention = apply({"params": params}, untyped, {"node": golden["homo/x"]}, ("node",))
    np.testing.assert_allclose(out["node"], golden["gat/out"], rtol=1e-4, atol=1e-5)
    relation = untyped.relations["node", "to", "node"]
    expected = dict(zip(map(tuple, golden["gat/attn_edge_index"].T), golden["gat/attn"], strict=True))
    ends = zip(np.asarray(relation.senders), np.asarray(relation.receivers), strict=True)
    np.testing.assert_allclose(attention["node", "to", "node"], [expected[pair] for pair in ends], rtol=1e-4, atol=1e-5)


def test_han(golden, heterogeneous):
    """On a graph whose sources differ from their destination, so that every type has a projection."""
    prefix = "han_h2/param/"
    value = {key.removeprefix(prefix): array for key, array in golden.items() if key.startswith(prefix)}
    hidden = {name: golden[f"het/x/{name}"] for name in heterogeneous.node_types}
    for destination in heterogeneous.node_types:
        params: dict[str, Any] = {
            f"projection_{name}": {"kernel": value[f"proj.{name}.weight"].T, "bias": value[f"proj.{name}.bias"]}
            for name in heterogeneous.node_types}
        params["semantic"] = {"kernel": value["k_lin.weight"].T, "bias": value["k_lin.bias"]}
        params["semantic_query"] = value["q"][0]
        for source, block in heterogeneous.blocks_into(destination):
            name = "__".join(block.edge_types[0])
            params[f"attention_source_{source}"] = value[f"lin_src.{name}"][0]
            params[f"attention_destination_{source}"] = value[f"lin_dst.{name}"][0]
        apply = jax.jit(HANLayer(features=16, heads=2).apply, static_argnums=3)
        out, _, _, importance = apply({"params": params}, heterogeneous, hidden, destination)
        np.testing.assert_allclose(out, golden[f"han_h2/out/{destination}"], rtol=1e-4, atol=1e-5)
        edge_types = [block.edge_types[0] for _, block in heterogeneous.blocks_into(destination)]
        theirs = dict(zip(_pyg_order(golden, destination), golden[f"han_h2/semantic/{destination}"], strict=True))
        np.testing.assert_allclose(importance, [theirs[edge_type] for edge_type in edge_types], rtol=1e-4)


def _pyg_order(golden, destination):
    """Edge types into a type in the order of PyG's dictionary."""
    names = [tuple(key.split("/")[-1].split("__")) for key in golden if key.startswith("het/ei/")]
    return [edge_type for edge_type in names if edge_type[2] == destination]


def test_hetero_sage(golden, heterogeneous):
    hidden = {name: golden[f"het/x/{name}"] for name in heterogeneous.node_types}
    params: dict[str, Any] = {}
    for source, relation, destination in heterogeneous.edge_types:
        name = f"heteroconv_sage_sum/param/convs.<{source}___{relation}___{destination}>"
        params[f"kernel_{source}->{destination}"] = golden[f"{name}.lin_l.weight"].T[None]
        for key, array in ((f"root_{destination}", golden[f"{name}.lin_r.weight"].T),
                           (f"bias_{destination}", golden[f"{name}.lin_l.bias"])):
            params[key] = params.get(key, 0) + array  # a sum of maps of the same rows is one map
    layer = HeteroSAGELayer(features=8)
    out: Any = layer.apply({"params": {"relations": params}}, heterogeneous, hidden, heterogeneous.node_types)
    for name in heterogeneous.node_types:
        np.testing.assert_allclose(out[name], golden[f"heteroconv_sage_sum/out/{name}"], rtol=1e-4, atol=1e-5)
