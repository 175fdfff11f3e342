"""GATv2, GraphSAGE, MoNet, SGC, APPNP and GCNII: PyG's values, independent loops, and what all six have in common."""

from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph, SparseFeatures
from hire_jax.models import (
    APPNP,
    GCNII,
    SGC,
    GATLayer,
    GATv2,
    GATv2Layer,
    GCNIILayer,
    GraphSAGE,
    MoNet,
    MoNetLayer,
    SAGELayer,
)
from hire_jax.models.sage import unit_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON: dict[str, Any] = {"target": "paper", "num_classes": 3}
LAYERED: dict[str, Any] = COMMON | {"hidden": 8, "layers": 2, "dropout": 0.4}
TRUNK: dict[str, Any] = {
    "gatv2": GATv2(**LAYERED, heads=2, attention_dropout=0.3, residual=True, readout_heads=2),
    "graph_sage": GraphSAGE(**LAYERED, normalise=True),
    "monet": MoNet(**LAYERED),
}
MODELS: dict[str, Any] = {name: model.clone(projection=False, norm=False) for name, model in TRUNK.items()} | {
    "sgc": SGC(**COMMON, dropout=0.4), "appnp": APPNP(**LAYERED, hops=3), "gcnii": GCNII(**LAYERED)}
RELATION = ("paper", "to", "paper")


def parameters(model, graph):
    """Parameters of no special value, without compiling `init`."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), graph)
    rng = np.random.default_rng(1)
    return jax.tree.map_with_path(lambda path, leaf: (
        rng.normal(scale=0.4, size=leaf.shape) + (path[-1].key in ("scale", "inverse_sigma"))
    ).astype(leaf.dtype), shapes)


# ------------------------------------------------------------------------------------------------ PyG's values

GOLDEN = Path(__file__).parents[1] / "golden" / "pyg_layers.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def whole(golden):
    """One node type and one relation, with the two self loops the edges have."""
    return HeteroGraph.from_arrays({"paper": 12}, {RELATION: golden["homo/edge_index"]}, {"paper": golden["homo/x"]})


@pytest.fixture(scope="module")
def untyped(golden):
    """The same without self loops, which PyG's layers replace by their own."""
    edges = golden["homo/edge_index"]
    edges = edges[:, edges[0] != edges[1]]
    return HeteroGraph.from_arrays({"paper": 12}, {RELATION: edges}, {"paper": golden["homo/x"]})


def assert_golden(actual, golden, case):
    np.testing.assert_allclose(actual, golden[f"{case}/out"], rtol=1e-4, atol=1e-5)


def assert_golden_attention(attention, graph, golden, case):
    expected = dict(zip(map(tuple, golden[f"{case}/attn_edge_index"].T), golden[f"{case}/attn"], strict=True))
    ends = zip(*graph.host_edges()[RELATION].tolist(), strict=True)
    np.testing.assert_allclose(attention[RELATION], [expected[pair] for pair in ends], rtol=1e-4, atol=1e-5)


def test_gat_with_mean_of_heads_without_self_loops(golden, whole):
    case = "gat_mean_noloop"
    params = {"kernel": golden[f"{case}/param/lin.weight"].T, "bias": golden[f"{case}/param/bias"],
              "attention_source": golden[f"{case}/param/att_src"][0],
              "attention_destination": golden[f"{case}/param/att_dst"][0]}
    layer = GATLayer(features=8, heads=3, concat=False, self_loops=False)
    out, attention = jax.jit(layer.apply, static_argnums=3)({"params": params}, whole, whole.features, ("paper",))
    assert_golden(out["paper"], golden, case)
    assert_golden_attention(attention, whole, golden, case)


def test_gatv2(golden, untyped):
    """PyG gives both maps a bias: their sum moves the scores, the senders' goes through a softmax to the output."""
    value = {key.removeprefix("gatv2/param/"): x for key, x in golden.items() if key.startswith("gatv2/param/")}
    params = {"kernel_source": value["lin_l.weight"].T, "kernel_destination": value["lin_r.weight"].T,
              "score_bias": value["lin_l.bias"] + value["lin_r.bias"], "attention": value["att"][0],
              "bias": value["bias"] + value["lin_l.bias"]}
    apply = jax.jit(GATv2Layer(features=16, heads=2).apply, static_argnums=3)
    out, attention = apply({"params": params}, untyped, untyped.features, ("paper",))
    assert_golden(out["paper"], golden, "gatv2")
    assert_golden_attention(attention, untyped, golden, "gatv2")


def test_sage(golden, whole):
    params = {"kernel": golden["sage_mean/param/lin_l.weight"].T, "bias": golden["sage_mean/param/lin_l.bias"],
              "root": golden["sage_mean/param/lin_r.weight"].T}
    out: Any = SAGELayer(features=8).apply({"params": params}, whole, whole.features, ["paper"])
    assert_golden(out["paper"], golden, "sage_mean")


def test_sgc(golden, untyped):
    params = {"kernel": golden["sgc_k2/param/lin.weight"].T, "bias": golden["sgc_k2/param/lin.bias"]}
    out: Any = SGC(target="paper", num_classes=8, hops=2).apply({"params": params}, untyped)
    assert_golden(out.logits, golden, "sgc_k2")


def test_appnp(golden):
    """The propagation alone: one dense layer, which is the identity."""
    edges = golden["homo/edge_index"]
    graph = HeteroGraph.from_arrays({"paper": 12}, {RELATION: edges[:, edges[0] != edges[1]]},
                                    {"paper": golden["homo/h8"]})
    params = {"SharedDense_0": {"kernel": np.eye(8, dtype=np.float32), "bias": np.zeros(8, np.float32)}}
    out: Any = APPNP(target="paper", num_classes=8, layers=1).apply({"params": params}, graph)
    assert_golden(out.logits, golden, "appnp_k10_a01")


def test_gcnii_layer(golden, untyped):
    case = "gcn2_a01_t05_l1"
    params = {"kernel": golden[f"{case}/param/weight1"]}
    out: Any = GCNIILayer(alpha=0.1).apply({"params": params}, untyped, {"paper": golden["homo/h8"]},
                                           {"paper": golden["homo/h8_0"]}, ["paper"], beta=np.log(0.5 / 1 + 1))
    assert_golden(out["paper"], golden, case)


# ------------------------------------------------------------------------------------------ independent loops


@pytest.fixture(scope="module")
def small():
    """Nine nodes of one type: duplicate edges, a self loop, node 7 that only sends, node 8 without edges."""
    rng = np.random.default_rng(3)
    edges = np.concatenate([rng.integers(0, 7, (2, 18)), [[7, 7, 2, 2, 3], [1, 4, 5, 5, 3]]], axis=1)
    return HeteroGraph.from_arrays({"paper": 9}, {RELATION: edges},
                                   {"paper": rng.normal(size=(9, 5)).astype(np.float32)})


def layer_parameters(layer, graph, **others):
    """A layer's parameters of no special value, in float64 for the loops."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), graph, graph.features, ["paper"], **others))
    rng = np.random.default_rng(4)
    return {name: rng.normal(scale=0.7, size=leaf.shape).astype(np.float32).astype(np.float64)
            for name, leaf in shapes["params"].items()}


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("concat", [True, False])
def test_gatv2_is_its_equations(small, concat, self_loops):
    features, width = (6, 3) if concat else (5, 5)  # 5 as the input: the residual is the input itself
    layer = GATv2Layer(features=features, heads=2, concat=concat, self_loops=self_loops, residual=True,
                       negative_slope=0.3)
    p = layer_parameters(layer, small)
    x = np.asarray(small.features["paper"], np.float64)
    left = (x @ p["kernel_source"]).reshape(9, 2, width)
    right = (x @ p["kernel_destination"] + p["score_bias"]).reshape(9, 2, width)
    senders, receivers = small.host_edges()[RELATION]
    expected, alphas = np.zeros((9, 2, width)), np.zeros((senders.size, 2))
    for i in range(9):
        edges = np.flatnonzero(receivers == i)
        sources = [*senders[edges], i] if self_loops else list(senders[edges])
        for h in range(2):
            scores = np.array([p["attention"][h] @ leaky(left[j, h] + right[i, h], 0.3) for j in sources])
            weights = np.exp(scores) / np.exp(scores).sum()
            for j, weight in zip(sources, weights, strict=True):
                expected[i, h] += weight * left[j, h]
            alphas[edges, h] = weights[:edges.size]
    expected = expected.reshape(9, 6) if concat else expected.mean(axis=1)
    expected += p["bias"] + (x @ p["residual"] if concat else x)
    out, attention = jax.jit(layer.apply, static_argnums=3)({"params": p}, small, small.features, ("paper",))
    np.testing.assert_allclose(out["paper"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(attention[RELATION], alphas, rtol=1e-4, atol=1e-6)


def test_gatv2_drops_attention_in_training_alone_and_returns_it_whole(small):
    layer = GATv2Layer(features=6, heads=2, attention_dropout=0.5)
    p = layer_parameters(layer, small)

    def apply(train):
        return layer.apply({"params": p}, small, small.features, ["paper"], train=train,
                           rngs={"dropout": jax.random.key(0)})

    (out, attention), (trained, same) = jax.jit(lambda: (apply(False), apply(True)))()
    np.testing.assert_array_equal(same[RELATION], attention[RELATION])
    assert np.abs(trained["paper"] - out["paper"]).max() > 1e-2


def test_in_gatv2_the_best_neighbour_differs_from_node_to_node(small):
    """What GAT cannot do: its order of neighbours is one for all nodes (arXiv 2105.14491, theorem 1)."""
    everyone = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij")).reshape(2, -1)
    graph = HeteroGraph.from_arrays({"paper": 9}, {RELATION: everyone}, small.features)
    best = {}
    for layer in (GATv2Layer(features=4, heads=1, self_loops=False), GATLayer(features=4, heads=1, self_loops=False)):
        p = layer_parameters(layer, graph)
        _, attention = jax.jit(layer.apply, static_argnums=3)({"params": p}, graph, graph.features, ("paper",))
        best[type(layer)] = set(np.asarray(attention[RELATION]).reshape(9, 9).argmax(axis=1).tolist())
    assert len(best[GATv2Layer]) > 1 and len(best[GATLayer]) == 1


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_monet_is_its_equations(small, aggregation):
    layer = MoNetLayer(features=4, kernels=2, aggregation=aggregation)
    p = layer_parameters(layer, small)
    x = np.asarray(small.features["paper"], np.float64)
    senders, receivers = small.host_edges()[RELATION]
    degree = np.bincount(receivers, minlength=9)
    assert degree[7] == degree[8] == 0
    root = 1 / np.sqrt(np.maximum(degree, 1))
    expected = np.zeros((9, 4))
    for j, i in zip(senders, receivers, strict=True):
        # flax keeps matrices as (in, out): column c of `coordinates` is row c of A
        u = np.tanh([root[i] * p["coordinates"][0, c] + root[j] * p["coordinates"][1, c] + p["coordinates_bias"][c]
                     for c in range(2)])
        for k in range(2):
            weight = np.exp(-0.5 * sum(((u[c] - p["mu"][k, c]) * p["inverse_sigma"][k, c]) ** 2 for c in range(2)))
            expected[i] += weight * (x[j] @ p["kernel"][:, k])
    if aggregation == "mean":
        expected /= np.maximum(degree, 1)[:, None]
    expected += x @ p["root"] + p["bias"]
    out = jax.jit(layer.apply, static_argnums=3)({"params": p}, small, small.features, ("paper",))
    np.testing.assert_allclose(out["paper"], expected, rtol=1e-4, atol=1e-5)


def test_monet_starts_as_its_docstring_says(small):
    init = jax.jit(MoNetLayer(features=200, kernels=400).init, static_argnums=3)
    p = init(jax.random.key(0), small, small.features, ("paper",))["params"]
    np.testing.assert_array_equal(p["inverse_sigma"], 1)
    np.testing.assert_array_equal(p["coordinates_bias"], 0)
    assert 0.09 < p["mu"].std() < 0.11
    # Glorot of one kernel's matrix: uniform within sqrt(6 / (5 + 200)).
    assert 0.99 < np.abs(p["kernel"]).max() / np.sqrt(6 / 205) <= 1


def normalised_adjacency(graph):
    """D^-1/2 (A + I) D^-1/2, entry (i, j) of the edges from j to i, D their number into a node."""
    adjacency = np.eye(9)
    for j, i in graph.host_edges()[RELATION].T:
        adjacency[i, j] += 1
    root = 1 / np.sqrt(adjacency.sum(axis=1))
    return root[:, None] * adjacency * root


def test_appnp_is_its_equations(small):
    model = APPNP(**LAYERED, hops=2, alpha=0.3)
    params = parameters(model, small)
    first, last = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"][f"SharedDense_{k}"])
                   for k in (0, 1))
    h = np.maximum(np.asarray(small.features["paper"]) @ first["kernel"] + first["bias"], 0)
    start = h @ last["kernel"] + last["bias"]
    z, adjacency = start, normalised_adjacency(small)
    for _ in range(2):
        z = 0.7 * adjacency @ z + 0.3 * start
    output: Any = jax.jit(model.apply)(params, small)
    np.testing.assert_allclose(output.hidden[1]["paper"], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.logits, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("model", "readout"), [
    (APPNP(**LAYERED, hops=0), "SharedDense_1"), (GCNII(**LAYERED), "classifier")], ids=["appnp", "gcnii"])
def test_dropout_stands_before_the_first_map_and_before_the_last(small, model, readout):
    params = parameters(model, small)
    output = jax.jit(model.apply)(params, small)
    train = jax.jit(lambda key: model.apply(params, small, train=True, rngs={"dropout": key}))(jax.random.key(0))
    assert np.abs(train.hidden[1]["paper"] - output.hidden[1]["paper"]).max() > 1e-2
    kernel, bias = params["params"][readout]["kernel"], params["params"][readout]["bias"]
    np.testing.assert_allclose(output.logits, output.hidden[-1]["paper"] @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert np.abs(train.logits - (train.hidden[-1]["paper"] @ kernel + bias)).max() > 1e-2


def test_gcnii_is_its_equations(small):
    model = GCNII(**LAYERED, alpha=0.2, theta=0.7)
    params = parameters(model, small)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    adjacency = normalised_adjacency(small)
    first = np.maximum(np.asarray(small.features["paper"]) @ p["input"]["kernel"] + p["input"]["bias"], 0)
    h = first
    for layer in (1, 2):
        beta = np.log(0.7 / layer + 1)
        mixed = 0.8 * adjacency @ h + 0.2 * first
        h = np.maximum((1 - beta) * mixed + beta * mixed @ p["layers"]["convolution"]["kernel"][layer - 1], 0)
    output: Any = jax.jit(model.apply)(params, small)
    np.testing.assert_allclose(output.hidden[1]["paper"], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.hidden[2]["paper"], h, rtol=1e-4, atol=1e-5)
    expected = h @ p["classifier"]["kernel"] + p["classifier"]["bias"]
    np.testing.assert_allclose(output.logits, expected, rtol=1e-4, atol=1e-5)


def test_gcnii_drops_anew_at_every_layer():
    """Without edges, alpha and theta the layers are the identity: what is left is the product of their masks."""
    graph = HeteroGraph.from_arrays({"paper": 200}, {RELATION: [[], []]}, {"paper": np.ones((200, 2), np.float32)})
    model = GCNII(target="paper", num_classes=2, hidden=8, layers=3, alpha=0.0, theta=0.0, dropout=0.5)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(model.init, jax.random.key(0), graph))
    params["params"]["input"]["bias"] += 1.0
    output: Any = jax.jit(lambda key: model.apply(params, graph, train=True, rngs={"dropout": key}))(jax.random.key(0))
    assert 0.1 < (output.hidden[2]["paper"] > 0).mean() < 0.15  # 1 / 8; one mask for all layers would leave 1 / 2
    np.testing.assert_array_equal(np.unique(output.hidden[2]["paper"]), [0, 8])


def test_the_program_of_gcnii_does_not_grow_with_its_layers(small):
    def products(layers):
        model = GCNII(**LAYERED | {"layers": layers})
        params = jax.eval_shape(model.init, jax.random.key(0), small)
        assert params["params"]["layers"]["convolution"]["kernel"].shape == (layers, 8, 8)
        gradient = jax.grad(lambda params: model.apply(params, small).logits.sum())
        return jax.jit(gradient).trace(params).lower().as_text().count("stablehlo.dot_general")

    assert products(2) == products(64) > 0


def test_gcnii_draws_every_layer_anew(small):
    kernel = jax.jit(GCNII(**LAYERED).init)(jax.random.key(0), small)["params"]["layers"]["convolution"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


# ------------------------------------------------------------------------------------------------ all six

TYPED_EDGES = {
    ("author", "writes", "paper"): [[0, 1, 1, 2, 0], [3, 0, 0, 2, 1]],
    ("author", "reviews", "paper"): [[1, 0, 2], [0, 0, 3]],
    ("paper", "cites", "paper"): [[1, 2, 0, 3], [0, 2, 1, 4]],
    ("venue", "rev_in", "author"): [[0, 1, 1], [0, 2, 1]],
    ("paper", "in", "venue"): [[0, 1], [1, 1]],
}  # paper 5 has no edge, author 3 none either
TYPED_NODES = {"paper": 6, "author": 4, "venue": 2}


def typed_features(sparse):
    """All of width 5; author 1 and paper 4 have empty rows."""
    rng = np.random.default_rng(5)
    features: dict[str, Any] = {}
    for name, count in TYPED_NODES.items():
        dense = rng.normal(size=(count, 5)) * (rng.random((count, 5)) < 0.7)
        dense[{"paper": 4, "author": 1, "venue": 0}[name]] *= name == "venue"
        rows, columns = np.nonzero(dense)
        indptr = np.searchsorted(rows, np.arange(count + 1))
        features[name] = (SparseFeatures.from_csr(indptr, columns, dense[rows, columns].astype(np.float32), dense.shape)
                          if sparse else dense.astype(np.float32))
    return features


class Case:
    """A model compiled once for all tests, on a graph of three types with features of one width."""

    def __init__(self, model):
        self.model = model
        self.graph, self.sparse = (HeteroGraph.from_arrays(TYPED_NODES, TYPED_EDGES, typed_features(sparse))
                                   for sparse in (False, True))
        self.params = parameters(model, self.graph)
        self.apply = jax.jit(model.apply)
        self.output = self.apply(self.params, self.graph)


@pytest.fixture(scope="module")
def cases():
    return {name: Case(model) for name, model in MODELS.items()}


@pytest.fixture(params=MODELS)
def case(cases, request):
    return cases[request.param]


def shallow(name):
    """The model with one layer, where two would show no more."""
    return MODELS[name].clone(**{"hops" if name == "sgc" else "layers": 1})


def assert_close(left, right, rtol=1e-4, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), left, right)


def test_types_are_forgotten(case):
    """The same logits on one type with all nodes and one relation with all edges, from the same parameters."""
    start = dict(zip(TYPED_NODES, np.cumsum([0, *TYPED_NODES.values()]), strict=False))
    moved = [np.add(array, [[start[s]], [start[d]]]) for (s, _, d), array in TYPED_EDGES.items()]
    edges = np.concatenate(moved, axis=1)
    merged = HeteroGraph.from_arrays({"paper": 12}, {RELATION: edges},
                                     {"paper": np.concatenate(list(typed_features(False).values()))})
    assert_close(case.apply(case.params, merged).logits[:6], case.output.logits)
    edges[1, 0] = 5  # of an author to another paper
    other = HeteroGraph.from_arrays({"paper": 12}, {RELATION: edges}, merged.features)
    assert np.abs(case.apply(case.params, other).logits[:6] - case.output.logits).max() > 1e-3


def test_sparse_features_equal_dense_features(case):
    assert_close(case.apply(case.params, case.sparse), case.output)


@pytest.mark.parametrize("dense", ["paper", "venue"])
def test_some_types_sparse_and_some_dense(case, dense):
    features = case.sparse.features | {dense: case.graph.features[dense]}
    assert_close(case.apply(case.params, HeteroGraph.from_arrays(TYPED_NODES, TYPED_EDGES, features)), case.output)


def test_the_output_is_as_documented(cases):
    rows = {"paper": (6, 8), "author": (4, 8), "venue": (2, 8)}
    hidden = {"sgc": [{}], "appnp": [{}, rows], "gcnii": [{}, rows, {"paper": (6, 8)}]}
    for name, case in cases.items():
        output = case.output
        assert output.logits.shape == (6, 3) and output.logits.dtype == jnp.float32
        shapes = [{kind: x.shape for kind, x in layer.items()} for layer in output.hidden]
        assert shapes == hidden.get(name, [{}, {"paper": (6, 8), "author": (4, 8)}])
        if name == "gatv2":
            into_paper = {edge_type for edge_type in TYPED_EDGES if edge_type[2] == "paper"}
            selves = {("author", "self", "author"), ("paper", "self", "paper")}
            assert set(output.attention[0]) == selves | into_paper | {("venue", "rev_in", "author")}
            assert {edge_type: x.shape for edge_type, x in output.attention[1].items()} == {
                edge_type: (len(TYPED_EDGES[edge_type][0]), 2) for edge_type in into_paper} | {
                ("paper", "self", "paper"): (6, 2)}
        else:
            assert output.attention == (({}, {}) if name in TRUNK else ())


@pytest.mark.parametrize("name", MODELS)
def test_jit_equals_eager(small, name):
    model = shallow(name)
    params = parameters(model, small)
    assert_close(model.apply(params, small), jax.jit(model.apply)(params, small), rtol=1e-5, atol=1e-6)


def test_renumbering_nodes_renumbers_the_logits(case, rng):
    order = {name: rng.permutation(count) for name, count in TYPED_NODES.items()}
    permuted = case.apply(case.params, case.graph.permute(order)).logits
    assert_close(permuted, case.output.logits[order["paper"]])
    assert np.abs(permuted - case.output.logits).max() > 1e-2


def test_every_parameter_learns(case):
    weights = np.random.default_rng(2).normal(size=(6, 3))
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(case.model.apply(params, case.graph).logits) * weights)))
    flat = flax.traverse_util.flatten_dict(gradient(case.params)["params"], sep="/")
    assert all(np.isfinite(g).all() for g in flat.values())
    assert {name for name, g in flat.items() if not np.abs(g).max() > 1e-6} == set()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_finite_where_no_node_has_an_edge(small, name):
    model, graph = shallow(name), HeteroGraph.from_arrays({"paper": 9}, {RELATION: [[], []]}, small.features)
    gradient = jax.jit(jax.grad(lambda params: model.apply(params, graph).logits[:, 0].sum()))(parameters(model, graph))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-2


def test_training_with_hardly_any_dropout_is_evaluation(case):
    """A rate that drops nothing of so few elements."""
    rates = {rate: 1e-9 for rate in ("dropout", "attention_dropout") if hasattr(case.model, rate)}
    model = case.model.clone(**rates)
    train = jax.jit(lambda key: model.apply(case.params, case.sparse, train=True, rngs={"dropout": key}))
    assert_close(train(jax.random.key(0)), case.output)


def test_dropout_is_random_in_training_only(case):
    """Of sparse features too."""
    def apply(key):
        return case.model.apply(case.params, case.sparse, train=True, rngs={"dropout": key}).logits

    train = jax.jit(apply)
    first, again, other = (train(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2 and np.abs(first - case.output.logits).max() > 1e-2
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(lambda params: case.model.apply(params, case.sparse, train=True), case.params)


def test_bfloat16_is_near_float32(case):
    model = case.model.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), case.graph)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    output = jax.jit(model.apply)(case.params, case.graph)
    assert output.logits.dtype == jnp.float32
    assert {x.dtype for layer in output.hidden for x in layer.values()} <= {jnp.dtype("bfloat16")}
    scale = np.abs(case.output.logits).max()
    np.testing.assert_allclose(output.logits, case.output.logits, atol=0.05 * scale)
    assert np.abs(output.logits - case.output.logits).max() > 1e-5 * scale  # it did run in bfloat16


@pytest.mark.parametrize("name", TRUNK)
def test_with_a_projection_types_may_differ_and_lack_features(awkward, name, rng):
    model = TRUNK[name]
    params: dict[str, Any] = parameters(model, awkward)
    apply = jax.jit(model.apply)
    output: Any = apply(params, awkward)
    assert [set(layer) for layer in output.hidden] == [set(awkward.node_types)] * 2 + [{"paper"}]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))
    order = {kind: rng.permutation(count) for kind, count in awkward.num_nodes.items()}
    projection = params["params"]["InputProjection_0"]
    moved = projection | {"embedding_venue": projection["embedding_venue"][order["venue"]]}
    permuted: Any = apply({"params": params["params"] | {"InputProjection_0": moved}}, awkward.permute(order))
    assert_close(permuted.logits, output.logits[order["paper"]])
    assert np.abs(permuted.logits - output.logits).max() > 1e-2


# ---------------------------------------------------------------------------------------- options and errors


def test_sage_normalises_rows_where_asked(small):
    p = layer_parameters(SAGELayer(features=4), small)
    plain, unit = (SAGELayer(features=4, normalise=normalise).apply({"params": p}, small, small.features, ["paper"])
                   for normalise in (False, True))
    np.testing.assert_allclose(unit["paper"], unit_rows(plain["paper"]), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit["paper"], axis=1), 1, rtol=1e-5)
    assert np.abs(np.linalg.norm(plain["paper"], axis=1) - 1).max() > 0.1


def test_sage_gives_the_same_in_both_orders_of_its_products(small):
    """Wider than the features the mean comes first, narrower the product."""
    wide, narrow = SAGELayer(features=8), SAGELayer(features=3)
    p = layer_parameters(wide, small)
    out = wide.apply({"params": p}, small, small.features, ["paper"])["paper"]
    cut = {name: value[..., :3] for name, value in p.items()}
    np.testing.assert_allclose(narrow.apply({"params": cut}, small, small.features, ["paper"])["paper"], out[:, :3],
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model", "error", "message"), [
    (TRUNK["gatv2"].clone(heads=3), ValueError, "features must be a positive multiple of heads, got features=8, heads"),
    (TRUNK["monet"].clone(aggregation="max"), ValueError, "aggregation must be 'mean' or 'sum', got 'max'"),
    (TRUNK["monet"].clone(kernels=0), ValueError, "kernels must be at least 1, got 0"),
    (TRUNK["monet"].clone(layers=-1), ValueError, "layers must be at least 0, got -1"),
    (TRUNK["monet"].clone(layers=0, projection=False), ValueError, "layers must be at least 1, got 0"),
    (MODELS["sgc"].clone(hops=-1), ValueError, "hops must be at least 0, got -1"),
    (MODELS["appnp"].clone(layers=0), ValueError, "layers must be at least 1, got 0"),
    (MODELS["appnp"].clone(hops=-1), ValueError, r"hops must be at least 0 and alpha in \[0, 1\], got -1 and 0.1"),
    (MODELS["appnp"].clone(alpha=3.0), ValueError, r"alpha in \[0, 1\], got .* and 3.0"),
    (MODELS["gcnii"].clone(theta=-2.0), ValueError, r"in \[0, 1\] and theta at least 0, got 0.1 and -2.0"),
    (MODELS["gcnii"].clone(layers=0), ValueError, "layers must be at least 1, got 0"),
    (MODELS["gatv2"].clone(layers=1), GraphError, "projection=False reads features, but node type 'venue' has none"),
    (MODELS["sgc"], GraphError, "SGC reads features, but node type 'venue' has none"),
    (MODELS["appnp"], GraphError, "APPNP reads features, but node type 'venue' has none"),
    (MODELS["gcnii"], GraphError, "GCNII reads features, but node type 'venue' has none"),
    (MODELS["sgc"].clone(dropout=1.0, hops=0), ValueError, r"dropout rate must be in \[0, 1\), got 1.0"),
])
def test_what_cannot_be_is_said(awkward, model, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, awkward, train=False))


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_target_and_features_of_two_widths_are_said(name):
    features = typed_features(False) | {"author": np.ones((4, 7), np.float32)}
    graph = HeteroGraph.from_arrays(TYPED_NODES, TYPED_EDGES, features)
    with pytest.raises(GraphError, match=r"needs features of one width, got \{'paper': 5, 'author': 7, 'venue': 5\}"):
        jax.eval_shape(MODELS[name].init, jax.random.key(0), graph)
    with pytest.raises(GraphError, match="target 'film' is not a node type of the graph"):
        jax.eval_shape(MODELS[name].clone(target="film").init, jax.random.key(0), graph)
