"""GKEDM: its attention against PyG's values and a plain loop, what surrounds it, and the backbones it goes on."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph, SparseFeatures
from hire_jax.models import (
    GAT,
    GCN,
    GKEDM,
    HGT,
    IEHGCN,
    MLP,
    RGCN,
    SGC,
    GATv2,
    GKEDMLayer,
    GraphSAGE,
    HeteroSAGE,
    MoNet,
    SimpleHGN,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

OWN = ("paper", "self", "paper")
INTO_PAPER = {("author", "writes", "paper"), ("author", "reviews", "paper"), ("paper", "cites", "paper"),
              ("venue", "rev_in", "paper")}


def parameters(model, *args):
    """Parameters of no special value, without compiling `init`."""
    shapes = jax.eval_shape(lambda key: model.init(key, *args), jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map_with_path(lambda path, leaf: (
        rng.normal(scale=0.4, size=leaf.shape) + (path[-1].key == "scale")).astype(leaf.dtype), shapes)


def names(params):
    return {name: leaf.shape for name, leaf in flax.traverse_util.flatten_dict(params, sep="/").items()}


def moved_back(moved, order):
    """Rows of a renumbered graph in the order of the graph it was made from."""
    return np.asarray(moved)[np.argsort(order)]


# ------------------------------------------------------------------------------------------------- PyG's values


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "pyg_layers.npz") as arrays:
        return dict(arrays)


def test_without_self_loops_it_is_pygs_transformer_conv(golden):
    """But for the map of the node itself that PyG adds."""
    value = {name.removeprefix("transformer/param/"): x for name, x in golden.items() if "transformer/param/" in name}
    params = {role: {"kernel": value[f"lin_{role}.weight"].T, "bias": value[f"lin_{role}.bias"]}
              for role in ("query", "key", "value")}
    graph = HeteroGraph.from_arrays({"n": 12}, {("n", "to", "n"): golden["homo/edge_index"]})
    layer = GKEDMLayer(features=16, heads=2, self_loops=False)
    out, attention = jax.jit(layer.apply, static_argnums=3)({"params": params}, graph, {"n": golden["homo/x"]}, "n")
    skipped = golden["transformer/out"] - golden["homo/x"] @ value["lin_skip.weight"].T - value["lin_skip.bias"]
    np.testing.assert_allclose(out, skipped, rtol=1e-4, atol=1e-5)
    assert set(attention) == {("n", "to", "n")}
    expected = dict(zip(map(tuple, golden["transformer/attn_edge_index"].T), golden["transformer/attn"], strict=True))
    ends = zip(*graph.host_edges()["n", "to", "n"].tolist(), strict=True)
    np.testing.assert_allclose(attention["n", "to", "n"], [expected[pair] for pair in ends], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- a plain loop


@pytest.fixture(scope="module")
def hidden(awkward):
    rng = np.random.default_rng(2)
    return {name: rng.normal(size=(count, 5)).astype(np.float32) for name, count in awkward.num_nodes.items()}


def by_loop(graph, hidden, params, *, heads, relation_wise=False, value_weighted=False, concat=True, sources=None,
            destination="paper"):
    """Messages [N, features], {edge type: [E, heads]} and [N, heads], in float64 and from the definition."""
    params = jax.tree.map(lambda x: np.asarray(x, float), params["params"])
    sources = hidden if sources is None else sources
    total = {"key": params["query"]["bias"].size, "value": params["value"]["bias"].size}
    depth, width = total["key"] // heads, total["value"] // heads

    def mapped(role, edge_type, row):
        if edge_type is None or not relation_wise:
            part, columns = params[role], slice(None)
        else:
            source, _, to = edge_type
            rank = [e for e in graph.edge_types if (e[0], e[2]) == (source, to)].index(edge_type)
            part, columns = params[f"{role}_{source}->{to}"], slice(rank * total[role], (rank + 1) * total[role])
        return (np.asarray(row, float) @ part["kernel"][:, columns] + part["bias"][columns]).reshape(heads, -1)

    edges = {edge_type: array for edge_type, array in graph.host_edges().items() if edge_type[2] == destination}
    message = np.zeros((graph.num_nodes[destination], heads, width))
    maps = {edge_type: np.full((array.shape[1], heads), np.nan) for edge_type, array in edges.items()}
    own = np.zeros((graph.num_nodes[destination], heads))
    for i in range(len(message)):
        into = [(edge_type, e, edge_type[0], array[0, e]) for edge_type, array in edges.items()
                for e in np.flatnonzero(array[1] == i)] + [(None, i, destination, i)]
        query = mapped("query", None, hidden[destination][i])
        for h in range(heads):
            scores = [query[h] @ mapped("key", edge_type, hidden[name][j])[h] / math.sqrt(depth)
                      for edge_type, _, name, j in into]
            values = [mapped("value", edge_type, sources[name][j])[h] for edge_type, _, name, j in into]
            weights = np.exp(scores) / np.sum(np.exp(scores))
            message[i, h] = sum(a * v for a, v in zip(weights, values, strict=True))
            if value_weighted:
                lengths = [a * math.sqrt(v @ v) for a, v in zip(weights, values, strict=True)]
                weights = np.array(lengths) / sum(lengths)
            for (edge_type, e, _, _), weight in zip(into, weights, strict=True):
                (own if edge_type is None else maps[edge_type])[e, h] = weight
    message = message.reshape(len(message), -1) if concat else message.mean(axis=1)
    return message, maps | {(destination, "self", destination): own}


class Case:
    """A layer compiled once for all tests."""

    def __init__(self, graph, hidden, **options):
        self.layer = GKEDMLayer(features=6, heads=2, **options)
        self.params = parameters(self.layer, graph, hidden, "paper")
        self.apply = jax.jit(self.layer.apply, static_argnums=3)
        self.out, self.attention = self.apply(self.params, graph, hidden, "paper")


LAYERS: dict[str, dict[str, Any]] = {
    "shared": {}, "relation wise": {"relation_wise": True},
    "value weighted": {"relation_wise": True, "value_weighted": True}}


@pytest.fixture(scope="module")
def cases(awkward, hidden):
    return {name: Case(awkward, hidden, **options) for name, options in LAYERS.items()}


@pytest.fixture(params=LAYERS)
def case(cases, request):
    return cases[request.param]


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_plain_loop(awkward, hidden, cases, name):
    case = cases[name]
    message, maps = by_loop(awkward, hidden, case.params, heads=2, **LAYERS[name])
    assert case.out.shape == (7, 6)
    np.testing.assert_allclose(case.out, message, rtol=1e-4, atol=1e-5)
    assert set(case.attention) == set(maps) == INTO_PAPER | {OWN}
    for edge_type, weights in maps.items():
        assert np.ptp(weights) > 0.05
        np.testing.assert_allclose(case.attention[edge_type], weights, rtol=1e-4, atol=1e-6, err_msg=str(edge_type))


def test_heads_of_full_width_are_averaged_and_values_may_come_from_other_rows(awkward, hidden):
    rng = np.random.default_rng(3)
    others = {name: rng.normal(size=(len(x), 4)).astype(np.float32) for name, x in hidden.items()}
    layer = GKEDMLayer(features=5, heads=3, key_features=6, concat=False, relation_wise=True)
    shapes = jax.eval_shape(lambda key: layer.init(key, awkward, hidden, "paper", sources=others), jax.random.key(0))
    params = jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)
    assert {role: params["params"][role]["kernel"].shape for role in ("query", "key", "value")} == {
        "query": (5, 6), "key": (5, 6), "value": (4, 15)}
    out, attention = jax.jit(lambda params: layer.apply(params, awkward, hidden, "paper", sources=others))(params)
    message, maps = by_loop(awkward, hidden, params, heads=3, relation_wise=True, concat=False, sources=others)
    assert out.shape == message.shape == (7, 5)
    np.testing.assert_allclose(out, message, rtol=1e-4, atol=1e-5)
    for edge_type, weights in maps.items():
        np.testing.assert_allclose(attention[edge_type], weights, rtol=1e-4, atol=1e-6)


def test_relations_have_maps_of_their_own_on_request_only(cases):
    assert names(cases["shared"].params["params"]) == {
        f"{role}/{part}": (5, 6) if part == "kernel" else (6,) for role in ("query", "key", "value")
        for part in ("kernel", "bias")}
    wide = {"key_author->paper", "value_author->paper"}  # two relations, side by side
    narrow = {f"{role}_{source}->paper" for role in ("key", "value") for source in ("paper", "venue")}
    shapes = names(cases["relation wise"].params["params"])
    assert {name.split("/")[0] for name in shapes} == {"query", "key", "value"} | wide | narrow
    assert {shapes[f"{name}/kernel"] for name in wide} == {(5, 12)}
    assert {shapes[f"{name}/kernel"] for name in narrow} == {(5, 6)}


def test_attention_sums_to_one_over_all_edges_into_a_node_and_itself(awkward, case):
    total = np.array(case.attention[OWN])
    for edge_type in INTO_PAPER:
        np.add.at(total, awkward.host_edges()[edge_type][1], np.asarray(case.attention[edge_type]))
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    np.testing.assert_allclose(case.attention[OWN][6], 1)  # of no edges
    assert (np.asarray(case.attention[OWN][:6]) < 0.99).all()


def test_weighing_by_values_changes_the_maps_and_not_the_messages(awkward, hidden, cases):
    """a_e |v_j| over its sum: with values of one length nothing changes at all."""
    plain, weighted = cases["relation wise"], cases["value weighted"]
    np.testing.assert_allclose(weighted.out, plain.out, rtol=1e-6)
    assert max(np.abs(weighted.attention[e] - plain.attention[e]).max() for e in plain.attention) > 0.02
    inner = {name: part if not name.startswith("value") else
             {"kernel": np.zeros_like(part["kernel"]), "bias": np.tile([0.3, -0.4, 1.2], part["bias"].size // 3)}
             for name, part in plain.params["params"].items()}
    for edge_type, weights in weighted.apply({"params": inner}, awkward, hidden, "paper")[1].items():
        np.testing.assert_allclose(weights, plain.attention[edge_type], rtol=1e-5, atol=1e-6)


def test_dropout_of_attention_is_not_in_the_maps(awkward, hidden, cases):
    plain = cases["shared"]
    layer = plain.layer.clone(attention_dropout=0.5)
    run = jax.jit(jax.vmap(lambda key: layer.apply(plain.params, awkward, hidden, "paper", train=True,
                                                   rngs={"dropout": key})))
    outs, attention = run(jax.random.split(jax.random.key(0), 4))
    for edge_type, weights in attention.items():
        for one in weights:
            np.testing.assert_allclose(one, plain.attention[edge_type], rtol=1e-5)
    assert np.abs(outs[0] - outs[1]).max() > 0.01
    value = hidden["paper"][6] @ plain.params["params"]["value"]["kernel"] + plain.params["params"]["value"]["bias"]
    lonely = {round(float(x), 3) for out in outs for x in out[6] / value}  # dropped, or twice its own value
    assert lonely == {0.0, 2.0}


def test_without_self_loops_a_node_without_edges_receives_nothing(awkward, hidden, cases):
    layer = cases["shared"].layer.clone(self_loops=False)
    out, attention = jax.jit(layer.apply, static_argnums=3)(cases["shared"].params, awkward, hidden, "paper")
    assert set(attention) == INTO_PAPER and (np.asarray(out[6]) == 0).all() and np.abs(out[:6]).min() > 0
    lone = HeteroGraph.from_arrays({"paper": 7}, {})
    for changed in (layer, layer.clone(concat=False)):
        out, attention = changed.apply(cases["shared"].params, lone, {"paper": hidden["paper"]}, "paper")
        assert out.shape == (7, 6) and (np.asarray(out) == 0).all() and attention == {}


@pytest.mark.parametrize("self_loops", [True, False])
def test_gradients_are_finite_and_reach_every_parameter(awkward, hidden, self_loops):
    layer = GKEDMLayer(features=6, heads=2, self_loops=self_loops, relation_wise=True, value_weighted=True)
    params = parameters(layer, awkward, hidden, "paper")
    wave = np.random.default_rng(4).normal(size=(7, 6))

    @jax.jit
    @jax.grad
    def gradient(trained: tuple) -> jax.Array:
        params, hidden = trained
        out, attention = layer.apply(params, awkward, hidden, "paper")
        return jnp.sum(jnp.sin(out) * wave) + sum(jnp.sum(jnp.sin(3 * a[:, 0])) for a in attention.values())

    of_params, of_hidden = gradient((params, hidden))
    for name, slope in flax.traverse_util.flatten_dict(of_params["params"], sep="/").items():
        assert np.isfinite(slope).all() and np.abs(slope).max() > 1e-4, name
    assert all(np.isfinite(slope).all() for slope in of_hidden.values())
    assert (np.abs(of_hidden["paper"]).max(axis=1) > 1e-4).tolist() == [True] * 6 + [self_loops]
    zero = jax.tree.map_with_path(lambda path, x: x * ("value" not in path[1].key), params)  # |v| is 0 everywhere
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient((zero, hidden))))


def test_renumbering_nodes_renumbers_messages_and_attention(awkward, hidden, case, rng):
    order = {name: rng.permutation(count) for name, count in awkward.num_nodes.items()}
    moved = {name: x[order[name]] for name, x in hidden.items()}
    graph = awkward.permute(order)
    out, attention = case.apply(case.params, graph, moved, "paper")
    np.testing.assert_allclose(moved_back(out, order["paper"]), case.out, rtol=1e-4, atol=1e-5)
    assert np.abs(out - case.out).max() > 0.1
    np.testing.assert_allclose(moved_back(attention[OWN], order["paper"]), case.attention[OWN], rtol=1e-4)
    edge_type = ("author", "reviews", "paper")
    found = {(order["author"][u], order["paper"][v]): weights for u, v, weights in
             zip(*graph.host_edges()[edge_type], np.asarray(attention[edge_type]), strict=True)}
    expected = zip(*awkward.host_edges()[edge_type], np.asarray(case.attention[edge_type]), strict=True)
    for u, v, weights in expected:
        np.testing.assert_allclose(found[u, v], weights, rtol=1e-4)


def test_the_order_of_edges_is_irrelevant(hidden, case, awkward_arrays, rng):
    nodes, edges, features = awkward_arrays
    shuffled = {edge_type: array[:, rng.permutation(array.shape[1])] for edge_type, array in edges.items()}
    out, attention = case.apply(case.params, HeteroGraph.from_arrays(nodes, shuffled, features), hidden, "paper")
    np.testing.assert_array_equal(out, case.out)
    for edge_type, weights in attention.items():
        np.testing.assert_array_equal(weights, case.attention[edge_type])


@pytest.mark.parametrize(("options", "named"), [
    ({"features": 6, "heads": 4}, "key_features=6"), ({"features": 6, "heads": 0}, "key_features=6"),
    ({"features": 2, "heads": 4}, "key_features=2"), ({"features": 6, "heads": 2, "key_features": 5}, "key_features=5"),
    ({"features": 6, "heads": 4, "key_features": 8}, "features=6"),
    ({"features": 6, "heads": 4, "concat": False}, "key_features=6"),
    ({"features": 6, "heads": 2, "key_features": 0}, "key_features=0")])
def test_heads_that_do_not_divide_are_refused(awkward, hidden, options, named):
    with pytest.raises(ValueError, match=f"features must be a positive multiple of heads, got {named}"):
        parameters(GKEDMLayer(**options), awkward, hidden, "paper")


@pytest.mark.parametrize("value_weighted", [False, True])
def test_a_type_that_nothing_reaches_gets_nothing(value_weighted):
    graph = HeteroGraph.from_arrays({"a": 3, "b": 2}, {("a", "to", "b"): [[], []]}, {"a": np.ones((3, 4), np.float32)})
    layer: Any = GKEDMLayer(features=4, heads=2, self_loops=False, value_weighted=value_weighted)
    (rows, attention), _ = layer.init_with_output(jax.random.key(0), graph, {"a": graph.features["a"]}, "a")
    np.testing.assert_array_equal(rows, np.zeros((3, 4)))
    assert attention == {}


def test_a_relation_named_as_a_node_itself_is_refused(awkward, hidden):
    graph = awkward.add_relations({OWN: [[0], [1]], ("author", "self", "author"): [[0], [1]]})
    layer = GKEDMLayer(features=6, heads=2)
    with pytest.raises(GraphError, match=re.escape(f"relation {OWN} stands for a node's attention to itself")):
        parameters(layer, graph, hidden, "paper")
    without = layer.clone(self_loops=False)
    _, attention = jax.eval_shape(lambda key: without.init_with_output(key, graph, hidden, "paper")[0],
                                  jax.random.key(0))
    assert attention[OWN].shape == (1, 2)


# ------------------------------------------------------------------------------------------------- the whole model

ENCODED = {"paper": 7, "author": 5}  # venues have no positions


@pytest.fixture(scope="module")
def placed(awkward):
    rng = np.random.default_rng(6)
    return awkward.with_positions({name: rng.normal(size=(rows, 3)) for name, rows in ENCODED.items()})


@pytest.fixture(scope="module")
def papers(awkward):
    """The papers of `awkward` alone, with positions."""
    rng = np.random.default_rng(8)
    edge_type = ("paper", "cites", "paper")
    graph = HeteroGraph.from_arrays({"paper": 7}, {edge_type: awkward.host_edges()[edge_type]},
                                    {"paper": np.asarray(awkward.features["paper"])})
    return graph.with_positions({"paper": 3 * rng.normal(size=(7, 2))})


BACKBONE: Any = RGCN(target="paper", num_classes=3, hidden=8, layers=2, dropout=0.0)
SIMPLE: Any = GCN(target="paper", num_classes=3, hidden=4, layers=2, dropout=0.0, projection=False, norm=False)
PROJECTION: Any = BACKBONE.clone(layers=1)  # no convolution before the attention
CLASSIFIER: dict[str, Any] = {"readout": "classifier"}
# Of every type's rows, or of the papers alone.
OPTIONS: dict[str, tuple[Any, dict]] = {
    "default": (BACKBONE, {"relation_wise": True}),
    "convolution": (PROJECTION, {"residual": True, "width": 6, "positions": False, "value_weighted": True}),
    "classifier": (SIMPLE, CLASSIFIER | {"residual": True}),
    "other width": (SIMPLE, CLASSIFIER | {"residual": True, "feed_forward": True, "width": 6, "norm": False}),
}


@pytest.fixture(scope="module")
def models(placed, papers):
    """{name: (model, graph, params, output)}."""
    built = {}
    for name, (backbone, options) in OPTIONS.items():
        graph = papers if backbone is SIMPLE else placed
        model = GKEDM(backbone=backbone, heads=2, **options)
        params = parameters(model, graph)
        built[name] = model, graph, params, jax.jit(model.apply)(params, graph)
    return built


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def dense(x, part):
    return np.asarray(x, float) @ part["kernel"] + part.get("bias", 0)


def normed(x, part):
    """Layer norm by the one scale and the one bias in `part`."""
    found = flax.traverse_util.flatten_dict(part, sep="/")
    scale, bias = (next(value for name, value in found.items() if kind in name) for kind in ("scale", "bias"))
    x = np.asarray(x, float)
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6) * scale + bias


@pytest.mark.parametrize("name", OPTIONS)
def test_the_model_is_its_equations(models, name):
    model, graph, variables, output = models[name]
    params = variables["params"]
    z = output.hidden[model.backbone.layers - 1]
    h = {node_type: normed(x, params[f"norm_{node_type}"]) for node_type, x in z.items()}
    x = dict(h)
    if model.positions:
        for node_type, rows in graph.positions.items():
            x[node_type] = h[node_type] + np.asarray(rows) @ params["positions"]["kernel"]
    convolution = model.readout == "convolution"
    message, maps = by_loop(graph, x, {"params": params["attention"]}, heads=2, relation_wise=model.relation_wise,
                            value_weighted=model.value_weighted, concat=not convolution,
                            sources=z if convolution else None)
    for edge_type, weights in maps.items():
        np.testing.assert_allclose(output.attention[-1][edge_type], weights, rtol=1e-3, atol=1e-5)
    if convolution:
        logits = message + params["bias"] + (dense(z["paper"], params["own"]) if model.residual else 0)
    else:
        y = dense(message, params["output"])
        if model.residual:
            y += dense(h["paper"], params["own"]) if model.width else h["paper"]
        if model.feed_forward:
            y += dense(gelu(dense(y, params["widen"])), params["narrow"])
        y = gelu(normed(y, params["NormAct_0"]) if model.norm else y)
        np.testing.assert_allclose(output.hidden[-1]["paper"], y, rtol=1e-3, atol=1e-4)
        logits = dense(y, params["classifier"])
    np.testing.assert_allclose(output.logits, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_output_is_as_documented(models, name):
    model, graph, _, output = models[name]
    backbone, layers = model.backbone, model.backbone.layers
    assert output.logits.shape == (7, 3) and output.logits.dtype == jnp.float32
    inside = {name: (count, backbone.hidden) for name, count in graph.num_nodes.items()}
    last = [] if model.readout == "convolution" else [{"paper": (7, model.width or backbone.hidden)}]
    expected = [inside if backbone.projection else {}] + [inside] * (layers - 1) + last
    assert [{n: x.shape for n, x in layer.items()} for layer in output.hidden] == expected
    assert len(output.attention) == layers and output.attention[:-1] == ({},) * (layers - 1)
    relations = {edge_type for edge_type in graph.edge_types if edge_type[2] == "paper"}
    assert {edge_type: x.shape for edge_type, x in output.attention[-1].items()} == {
        edge_type: (graph.num_edges.get(edge_type, 7), 2) for edge_type in relations | {OWN}}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))


def test_the_backbone_is_what_it_was_up_to_its_last_layer(placed, models):
    _, _, variables, output = models["default"]
    whole = parameters(BACKBONE, placed)["params"] | variables["params"]["backbone"]
    alone: Any = jax.jit(BACKBONE.apply)({"params": whole}, placed)
    assert len(output.hidden) == 2 and len(alone.hidden) == 3
    for ours, theirs in zip(output.hidden, alone.hidden, strict=False):
        assert set(ours) == set(theirs)
        for node_type, x in ours.items():
            np.testing.assert_allclose(x, theirs[node_type], rtol=1e-5, atol=1e-6)


def test_the_last_layer_and_its_classifier_have_no_parameters(placed, models):
    params = {name: models[name][2]["params"] for name in OPTIONS}
    whole = names(jax.eval_shape(BACKBONE.init, jax.random.key(0), placed)["params"])
    left_out = {name for name in whole if name.startswith(("RGCNLayer_1", "NormAct_2", "classifier"))}
    assert len(left_out) == 3 + 2 + 2 + 2  # three pairs of types; W_0 and b; scale and bias; W and b
    assert names(params["default"]["backbone"]) == {name: x for name, x in whole.items() if name not in left_out}
    assert set(params["convolution"]["backbone"]) == {"InputProjection_0", "NormAct_0"}
    assert set(params["classifier"]["backbone"]) == {"GCNLayer_0"}
    norms = {"norm_paper", "norm_author", "norm_venue"}
    assert set(params["default"]) == {"backbone", "attention", "positions", "bias"} | norms
    assert set(params["convolution"]) == {"backbone", "attention", "own", "bias"} | norms
    common = {"backbone", "attention", "norm_paper", "positions", "output", "classifier"}
    assert set(params["classifier"]) == common | {"NormAct_0"}
    assert set(params["other width"]) == common | {"own", "widen", "narrow"}


def test_renumbering_nodes_renumbers_the_output(placed, models, rng):
    model, _, params, output = models["default"]
    order = {name: rng.permutation(count) for name, count in placed.num_nodes.items() if name != "venue"}
    moved = jax.jit(model.apply)(params, placed.permute(order))
    np.testing.assert_allclose(moved_back(moved.logits, order["paper"]), output.logits, rtol=1e-4, atol=1e-4)


def test_the_signs_of_positions_are_drawn_anew_in_training_only(papers):
    """With two eigenvectors there are four outputs, those of the positions with either sign."""
    model: Any = GKEDM(backbone=SIMPLE, heads=2)
    params = parameters(model, papers)
    run = jax.jit(jax.vmap(lambda key: model.apply(params, papers, train=True, rngs={"dropout": key}).logits))
    still = jax.jit(jax.vmap(lambda rows: model.apply(params, dataclasses.replace(
        papers, positions={"paper": rows})).logits))
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    known = np.asarray(still(papers.positions["paper"] * signs[:, None]))
    assert min(np.abs(known[a] - known[b]).max() for a in range(4) for b in range(a)) > 0.01
    outs = np.asarray(run(jax.random.split(jax.random.key(0), 32)))
    drawn = np.abs(outs[:, None] - known).max(axis=(2, 3)).argmin(axis=1)
    assert set(drawn.tolist()) == {0, 1, 2, 3}
    np.testing.assert_allclose(outs, known[drawn], rtol=1e-4, atol=1e-5)
    with pytest.raises(flax.errors.InvalidRngError):
        model.apply(params, papers, train=True)
    fixed = model.clone(sign_flips=False).apply(params, papers, train=True)
    np.testing.assert_allclose(fixed.logits, known[0], rtol=1e-4, atol=1e-5)


def test_every_part_can_be_left_out(papers):
    """Without the norm scale matters, and without self loops a node's own map is not there."""
    whole = GKEDM(backbone=SIMPLE, heads=2, positions=False)
    bare = whole.clone(input_norm=False, self_loops=False)
    params = parameters(whole, papers)
    own = {name: x for name, x in params["params"].items() if name != "norm_paper"}
    outs = [model.apply({"params": p}, papers) for model, p in ((whole, params["params"]), (bare, own))]
    assert [OWN in out.attention[-1] for out in outs] == [True, False]
    assert set(parameters(bare, papers)["params"]) == set(own)
    plain: Any = GKEDMLayer(features=3, heads=2, key_features=4, concat=False, self_loops=False)
    rows = outs[1].hidden[-1]
    expected, attention = plain.apply({"params": own["attention"]}, papers, rows, "paper", sources=rows)
    np.testing.assert_allclose(outs[1].logits, expected + own["bias"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, outs[1].attention[-1], attention)


def test_dropout_is_the_backbones_unless_given(papers):
    """A rate of the model's own leaves the backbone's layers alone."""
    params = parameters(GKEDM(backbone=SIMPLE, heads=2, positions=False), papers)
    for inner, outer, of_backbone, of_module in ((0.5, None, True, True), (0.5, 0.0, True, False),
                                                 (0.0, 0.5, False, True), (0.0, None, False, False)):
        model = GKEDM(backbone=SIMPLE.clone(dropout=inner), heads=2, positions=False, dropout=outer)
        outs: Any = [model.apply(params, papers, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1)]
        moved = np.abs(outs[0].hidden[1]["paper"] - outs[1].hidden[1]["paper"]).max()
        assert (moved > 1e-2) == of_backbone
        assert (np.abs(outs[0].logits - outs[1].logits).max() > 1e-2) == (of_backbone or of_module)
    # Queries of 0 weigh all alike, whatever was dropped of x: what still moves was dropped of z.
    params["params"]["attention"]["query"] = jax.tree.map(jnp.zeros_like, params["params"]["attention"]["query"])
    model = GKEDM(backbone=SIMPLE, heads=2, positions=False, dropout=0.5)
    outs = [model.apply(params, papers, train=True, rngs={"dropout": jax.random.key(k)}) for k in (0, 1)]
    assert np.abs(outs[0].attention[-1][OWN] - outs[1].attention[-1][OWN]).max() < 1e-6
    assert np.abs(outs[0].logits - outs[1].logits).max() > 1e-2


def test_bfloat16_is_near_float32(papers):
    model: Any = GKEDM(backbone=SIMPLE, heads=2, residual=True)
    half = model.clone(dtype=jnp.bfloat16, backbone=SIMPLE.clone(dtype=jnp.bfloat16))
    shapes = jax.eval_shape(half.init, jax.random.key(0), papers)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params = parameters(model, papers)
    output, near = jax.jit(lambda p: (model.apply(p, papers), half.apply(p, papers)))(params)
    assert near.logits.dtype == jnp.float32 and near.hidden[-1]["paper"].dtype == jnp.bfloat16
    assert {a.dtype for a in near.attention[-1].values()} == {jnp.dtype("float32")}
    scale = np.abs(output.logits).max()
    np.testing.assert_allclose(near.logits, output.logits, atol=0.06 * scale)
    assert np.abs(near.logits - output.logits).max() > 1e-5 * scale


# ------------------------------------------------------------------------------------------------- its backbones

WITH_PROJECTION: dict[str, Any] = {
    "rgcn": RGCN, "hgt": HGT, "gcn": GCN, "gat": GAT, "simple_hgn": SimpleHGN, "sage": HeteroSAGE, "ie_hgcn": IEHGCN,
    "graph_sage": GraphSAGE, "monet": MoNet, "gatv2": GATv2}
WITHOUT: dict[str, Any] = {"gcn": GCN, "gat": GAT, "gatv2": GATv2, "graph_sage": GraphSAGE, "monet": MoNet}


@pytest.mark.parametrize(("name", "projection"), [*((name, True) for name in WITH_PROJECTION),
                                                  *((name, False) for name in WITHOUT)])
def test_what_a_backbone_keeps_has_the_names_it_was_trained_under(placed, papers, name, projection):
    """`lift` finds every array of the truncated network in the whole one, by name and shape."""
    graph = placed if projection else papers
    backbone = WITH_PROJECTION[name](target="paper", num_classes=3, hidden=8, layers=3, norm=projection,
                                     projection=projection)
    model = GKEDM(backbone=backbone, heads=2)
    output, params = jax.eval_shape(model.init_with_output, jax.random.key(0), graph)
    whole = names(jax.eval_shape(backbone.init, jax.random.key(0), graph)["params"])
    kept = names(params["params"]["backbone"])
    assert kept.items() < whole.items()
    layers = {key.split("/")[0] for key in whole if "Layer_" in key}
    assert {key for key in layers if key.endswith(("_0", "_1"))} == {k.split("/")[0] for k in kept if "Layer_" in k}
    assert output.logits.shape == (7, 3)
    assert len(output.hidden) == 3 and output.hidden[-1]["paper"].shape == (7, 8)
    assert len(output.attention) == 3 and OWN in output.attention[-1]


def test_sparse_features_are_dense_ones(papers, rng):
    """The backbone reads them; without a projection, with a dropout of its own kind."""
    csr = np.where(rng.random((7, 9)) < 0.4, rng.normal(size=(7, 9)), 0).astype(np.float32)
    edges = papers.host_edges()
    rows, cols = np.nonzero(csr)
    sparse = SparseFeatures.from_csr(np.searchsorted(rows, np.arange(8)), cols, csr[rows, cols], (7, 9))
    graphs = [HeteroGraph.from_arrays({"paper": 7}, edges, {"paper": x}).with_positions(papers.positions)
              for x in (csr, sparse)]
    model: Any = GKEDM(backbone=SIMPLE.clone(dropout=0.5), heads=2)
    params = parameters(model, graphs[0])
    of_dense, of_sparse = jax.jit(lambda p: tuple(model.apply(p, graph) for graph in graphs))(params)
    assert of_dense.hidden[0] == {} and len(of_dense.hidden) == 2 and len(of_dense.attention) == 2
    np.testing.assert_allclose(of_sparse.logits, of_dense.logits, rtol=1e-4, atol=1e-5)
    assert np.abs(of_dense.logits).max() > 0.1

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sum(jnp.sin(model.apply(params, graphs[1], train=True, rngs={"dropout": jax.random.key(0)}).logits))

    slopes = gradient(params)["params"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert np.abs(slopes["backbone"]["GCNLayer_0"]["kernel"]).max() > 0


def test_positions_that_are_missing_are_said(awkward):
    model = GKEDM(backbone=BACKBONE, heads=2)
    message = "positions=True, but the graph has none; graph.with_positions(laplacian_positions(graph)) gives it some"
    for graph in (awkward, awkward.with_positions({})):
        with pytest.raises(GraphError, match=re.escape(message)):
            jax.eval_shape(model.init, jax.random.key(0), graph)
    output, _ = jax.eval_shape(model.clone(positions=False).init_with_output, jax.random.key(0), awkward)
    assert output.logits.shape == (7, 3)


def test_a_backbone_with_nothing_before_its_last_layer_is_refused(placed, papers):
    one = GCN(target="paper", num_classes=3, hidden=8, layers=1)
    for backbone, graph, layers in ((one.clone(projection=False, norm=False), papers, 1),
                                    (one.clone(layers=0), placed, 0)):
        with pytest.raises(ValueError, match=f"the backbone has layers={layers}, which leaves nothing before the att"):
            jax.eval_shape(GKEDM(backbone=backbone, heads=2).init, jax.random.key(0), graph)
    output, params = jax.eval_shape(GKEDM(backbone=one, heads=2).init_with_output, jax.random.key(0), placed)
    assert len(output.hidden) == 1 and {name.split("/")[0] for name in names(params["params"]["backbone"])} == {
        "InputProjection_0", "NormAct_0"}


def test_what_the_layer_refuses_the_model_refuses(placed):
    for model, graph, message in (
        (GKEDM(backbone=BACKBONE, heads=3), placed, "key_features must be a positive multiple of heads, got key_fea"),
        (GKEDM(backbone=BACKBONE, heads=3, width=10), placed, "key_features=10, heads=3"),
        (GKEDM(backbone=BACKBONE, heads=2, width=0), placed, "key_features=0, heads=2"),
        (GKEDM(backbone=BACKBONE, heads=2, norm=False), placed, "norm=False and feed_forward=True are of readout='cl"),
        (GKEDM(backbone=BACKBONE, heads=2, feed_forward=True), placed, "feed_forward=True are of readout='classi"),
        (GKEDM(backbone=SGC(target="paper", num_classes=3), heads=2), placed,
         "backbone must be a NodeClassifier (GCN, GAT, RGCN, HGT, ...), whose last layer can be left out, got SGC"),
        (GKEDM(backbone=MLP(target="paper", num_classes=3, hidden=8), heads=2), placed,
         "neighbours of 'paper' are of the types ['author', 'venue'], of which the backbone MLP has no embeddings"),
        (GKEDM(backbone=BACKBONE, readout="mean"), placed, "readout must be 'convolution' or 'classifier', got 'mean'"),
        (GKEDM(backbone=BACKBONE, heads=2, positions=False), placed.add_relations({OWN: [[0], [1]]}),
         "stands for a node's attention to itself"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            jax.eval_shape(model.init, jax.random.key(0), graph)
