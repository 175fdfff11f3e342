"""A seed's initial parameters are those that the committed results began with.

Flax draws a layer's parameters in the order they are asked for, so that an edit which keeps every other test can give
every committed result other seeds.
"""

from typing import Any

import jax
import numpy as np
import pytest

from hire_jax import metapaths, models

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON: dict[str, Any] = {"target": "paper", "num_classes": 3, "hidden": 8, "layers": 1}
PLAIN: dict[str, Any] = COMMON | {"projection": False, "norm": False}

# {name: (graph, model, sum over leaves of their number, from 1, times the sum of absolute values)} for key 0. They are
# those of commit 01cce5e, GCN's without norm of 8d8df7a. Another default of JAX's random numbers would change them all.
MODELS: dict[str, tuple[str, Any, float]] = {
    "rgcn": ("awkward", models.RGCN(**COMMON), 2219.387),
    "rgcn with bases": ("awkward", models.RGCN(**COMMON, bases=2, aggregation="sum"), 1672.784),
    "hgt": ("awkward", models.HGT(**COMMON, heads=2), 7874.025),
    "simple_hgn": ("awkward", models.SimpleHGN(**COMMON, heads=2), 22420.78),
    "sage": ("awkward", models.HeteroSAGE(**COMMON), 1355.488),
    "ie_hgcn": ("awkward", models.IEHGCN(**COMMON), 2038.895),
    "gcn": ("awkward", models.GCN(**COMMON), 827.1136),
    "gcn without norm": ("awkward", models.GCN(**COMMON, norm=False), 209.678),
    "gat": ("awkward", models.GAT(**COMMON, heads=2, residual=True), 1071.489),
    "gatv2": ("awkward", models.GATv2(**COMMON, heads=2), 1189.514),
    "graph_sage": ("awkward", models.GraphSAGE(**COMMON), 1272.335),
    "monet": ("awkward", models.MoNet(**COMMON), 1781.427),
    "mlp": ("awkward", models.MLP(**COMMON), 283.8081),
    "gkedm": ("awkward", models.GKEDM(backbone=models.GCN(**COMMON), heads=2, positions=False), 1509.399),
    "gcn of the literature": ("one_width", models.GCN(**PLAIN), 9.803655),
    "gat of the literature": ("one_width", models.GAT(**PLAIN, heads=2), 33.21202),
    "graph_sage of the literature": ("one_width", models.GraphSAGE(**PLAIN), 31.48059),
    "sgc": ("one_width", models.SGC(target="paper", num_classes=3, hops=2), 12.06394),
    "appnp": ("one_width", models.APPNP(**COMMON, hops=3), 8.394153),
    "gcnii": ("one_width", models.GCNII(**COMMON), 158.3725),
    "han": ("metapaths", models.HAN(**COMMON, heads=2), 3944.186),
    "sehgnn": ("propagated", models.SeHGNN(target="paper", num_classes=3, hidden=8), 36040.55),
}


@pytest.fixture(scope="module")
def graphs(awkward, one_width):
    return {"awkward": awkward, "one_width": one_width, "metapaths": metapaths.metapath_graph(awkward, "paper"),
            "propagated": metapaths.propagated_graph(awkward, "paper", hops=2)}


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_gives_the_parameters_it_gave(graphs, name):
    graph, model, expected = MODELS[name]
    leaves = jax.tree.leaves(jax.jit(model.init)(jax.random.key(0), graphs[graph]))  # compiled, it has no forward pass
    # Weights, lest two parameters of one shape that change places keep the sum.
    total = sum(number * float(np.abs(leaf).sum()) for number, leaf in enumerate(leaves, 1))
    assert total == pytest.approx(expected, rel=1e-5)
