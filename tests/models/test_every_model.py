"""What holds of every model, whatever its architecture."""

import re
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph, ModelOutput
from hire_jax.graph import SELF
from hire_jax.models import GAT, GCN, GKEDM, HGT, IEHGCN, RGCN, GATv2, HeteroSAGE, SimpleHGN

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON: dict[str, Any] = {"target": "paper", "num_classes": 3, "hidden": 8, "layers": 2, "dropout": 0.4}
MODELS: dict[str, Any] = {
    "rgcn": RGCN(**COMMON),
    "rgcn with bases": RGCN(**COMMON, bases=2, aggregation="sum"),
    "hgt": HGT(**COMMON, heads=2, attention_dropout=0.3),
    "gcn": GCN(**COMMON),
    "gat": GAT(**COMMON, heads=2, attention_dropout=0.3, residual=True),
    "simple_hgn": SimpleHGN(**COMMON, heads=2, edge_features=4, logit_scale=None),
    "sage": HeteroSAGE(**COMMON, normalise=True),
    "ie_hgcn": IEHGCN(**COMMON, attention_features=4),
}


def parameters(model, graph):
    """Parameters of no special value (`init` starts biases at 0 and gates at 1), without compiling `init`."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), graph)
    rng = np.random.default_rng(1)
    return jax.tree.map_with_path(lambda path, leaf: (
        rng.normal(scale=0.4, size=leaf.shape) + (path[-1].key.split("_")[0] in ("scale", "prior", "skip"))
    ).astype(leaf.dtype), shapes)


class Case:
    """A model compiled once for all tests."""

    def __init__(self, model, graph):
        self.model, self.graph, self.params = model, graph, parameters(model, graph)
        self.apply = jax.jit(lambda params, graph: model.apply(params, graph))
        self.train = jax.jit(lambda params, graph, key: model.apply(params, graph, train=True, rngs={"dropout": key}))
        self.output = self.apply(self.params, graph)


@pytest.fixture(scope="module")
def cases(awkward):
    return {name: Case(model, awkward) for name, model in MODELS.items()}


@pytest.fixture(params=MODELS)
def case(cases, request):
    return cases[request.param]


# Where a test compiles anew, one variant of a model is enough.
architectures = pytest.mark.parametrize("case", [name for name in MODELS if name != "rgcn with bases"], indirect=True)


def assert_close(left, right, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), left, right)


def test_the_output_is_as_documented(case):
    graph, output = case.graph, case.output
    assert isinstance(output, ModelOutput)
    assert output.logits.shape == (7, 3) and output.logits.dtype == jnp.float32
    assert len(output.hidden) == 3 and len(output.attention) == 2
    for layer, types in zip(output.hidden, graph.receptive_field("paper", 2), strict=True):
        assert {name: x.shape for name, x in layer.items()} == {name: (graph.num_nodes[name], 8) for name in types}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))  # of nodes without edges too


@architectures
def test_jit_equals_eager(case):
    assert_close(case.model.apply(case.params, case.graph), case.output)


@architectures
def test_training_with_hardly_any_dropout_is_evaluation(case):
    """A rate that drops nothing of so few elements."""
    rates = {rate: 1e-9 for rate in ("dropout", "attention_dropout") if hasattr(case.model, rate)}
    model = case.model.clone(**rates)
    train = jax.jit(lambda key: model.apply(case.params, case.graph, train=True, rngs={"dropout": key}))
    assert_close(train(jax.random.key(0)), case.output, rtol=1e-4, atol=1e-5)


def test_the_logits_are_a_linear_map_of_the_last_hidden_layer(case):
    classifier = case.params["params"]["classifier"]
    expected = case.output.hidden[-1]["paper"] @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(case.output.logits, expected, rtol=1e-5, atol=1e-5)


def test_renumbering_nodes_renumbers_the_output(case, rng):
    order = {name: rng.permutation(count) for name, count in case.graph.num_nodes.items()}
    projection = case.params["params"]["InputProjection_0"]
    moved = projection | {"embedding_venue": projection["embedding_venue"][order["venue"]]}
    params = {"params": case.params["params"] | {"InputProjection_0": moved}}
    permuted = case.apply(params, case.graph.permute(order))
    np.testing.assert_allclose(permuted.logits, case.output.logits[order["paper"]], rtol=1e-4, atol=1e-5)
    for layer, expected in zip(permuted.hidden, case.output.hidden, strict=True):
        for name, x in layer.items():
            np.testing.assert_allclose(x, expected[name][order[name]], rtol=1e-4, atol=1e-5)
    assert np.abs(permuted.logits - case.output.logits).max() > 1e-2


def test_the_order_of_edges_is_irrelevant(case, awkward_arrays, rng):
    nodes, edges, features = awkward_arrays
    shuffled = {edge_type: array[:, rng.permutation(array.shape[1])] for edge_type, array in edges.items()}
    again = case.apply(case.params, HeteroGraph.from_arrays(nodes, shuffled, features))
    assert_close(again, case.output, rtol=0, atol=0)


@pytest.mark.parametrize("case", [name for name in MODELS if name != "gcn"], indirect=True)
def test_every_edge_matters(case, awkward_arrays):
    """An edge moved to another paper changes the two papers, and nothing else in the first layer.

    Not so in GCN, whose normalisation by degrees reaches the papers' other neighbours.
    """
    nodes, edges, features = awkward_arrays
    assert edges["author", "reviews", "paper"][:, 2].tolist() == [2, 3]
    edges["author", "reviews", "paper"][1, 2] = 5
    first = case.apply(case.params, HeteroGraph.from_arrays(nodes, edges, features)).hidden[1]
    changed = {name: np.abs(x - case.output.hidden[1][name]).max(axis=1) > 1e-4 for name, x in first.items()}
    assert {name: np.flatnonzero(rows).tolist() for name, rows in changed.items()} == {
        "paper": [3, 5], "author": [], "venue": []}


@pytest.mark.parametrize("name", ["hgt", "gat", "gatv2", "simple_hgn", "gkedm"])
def test_maps_sum_to_one_into_every_node(awkward, name):
    """A node's own weight included, where it attends to itself; so that two maps can be compared as distributions."""
    model = MODELS.get(name) or {"gatv2": GATv2(**COMMON, heads=2), "gkedm": GKEDM(
        backbone=MODELS["gat"], heads=2, positions=False)}[name]
    output, _ = model.init_with_output({"params": jax.random.key(1), "dropout": jax.random.key(2)}, awkward)
    assert any(output.attention)
    for layer in output.attention:
        for target in {edge_type[2] for edge_type in layer}:
            total, edges = np.zeros((awkward.num_nodes[target], 2)), np.zeros(awkward.num_nodes[target], int)
            for (source, relation, destination), weights in layer.items():
                if destination == target:
                    own = relation == SELF and source == destination
                    relation = awkward.relations.get((source, relation, destination))
                    to = np.arange(len(total)) if own else np.asarray(relation.receivers)
                    np.add.at(total, to, np.asarray(weights))
                    np.add.at(edges, to, 1)
            np.testing.assert_allclose(total[edges > 0], 1, rtol=1e-5)


# Simple-HGN embeds every relation, and ie-HGCN's attention over relations counts those without edges.
@pytest.mark.parametrize("case", ["rgcn", "hgt", "gcn", "gat", "sage"], indirect=True)
def test_a_relation_without_edges_adds_nothing(case, awkward_arrays):
    nodes, edges, features = awkward_arrays
    del edges["venue", "hosts", "author"]
    without = case.apply(case.params, HeteroGraph.from_arrays(nodes, edges, features))
    assert_close((without.logits, without.hidden), (case.output.logits, case.output.hidden))


@architectures
def test_vmap_over_parameters_equals_a_loop(case):
    params = [jax.tree.map(lambda x, k=k: x * (1 + 0.1 * k), case.params) for k in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    together = jax.jit(jax.vmap(case.model.apply, in_axes=(0, None)))(stacked, case.graph)
    for k, one in enumerate(params):
        assert_close(jax.tree.map(lambda x, k=k: x[k], together), case.apply(one, case.graph), rtol=1e-4, atol=1e-5)


# No edge of ("venue", "hosts", "author") exists, and only the first layer computes authors at all.
UNTAUGHT = {
    "rgcn": {"RGCNLayer_0/kernel_venue->author"},
    "rgcn with bases": {"RGCNLayer_0/coefficients_venue->author"},
    "hgt": {f"HGTLayer_0/{name}_venue->author" for name in ("prior", "relation_key", "relation_value")},
    # A node's own score shifts all scores of its softmax alike, but where LeakyReLU bends between two of them; here
    # none does.
    "gat": {"GATLayer_0/attention_destination"},
    "sage": {"HeteroSAGELayer_0/relations/kernel_venue->author"},
    "ie_hgcn": {"IEHGCNLayer_0/kernel_venue->author"},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(cases, name):
    case = cases[name]
    weights = np.random.default_rng(2).normal(size=(7, 3))

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sum(jnp.sin(case.model.apply(params, case.graph).logits) * weights)

    flat = flax.traverse_util.flatten_dict(gradient(case.params)["params"], sep="/")
    assert all(np.isfinite(g).all() for g in flat.values())
    assert {key for key, g in flat.items() if not np.abs(g).max() > 1e-6} == UNTAUGHT.get(name, set())
    # A featureless type has a row a node; no edge leaves venue 2.
    assert (np.abs(flat["InputProjection_0/embedding_venue"]).max(axis=1) > 0).tolist() == [True, True, False]


@architectures
def test_dropout_is_random_in_training_only(case):
    keys = [jax.random.key(k) for k in (1, 1, 2)]
    first, again, other = (case.train(case.params, case.graph, key).logits for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2 and np.abs(first - case.output.logits).max() > 1e-2
    with pytest.raises(flax.errors.InvalidRngError):
        case.model.apply(case.params, case.graph, train=True)


@architectures
def test_bfloat16_is_near_float32(case):
    model = case.model.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), case.graph)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    output = jax.jit(model.apply)(case.params, case.graph)
    assert output.logits.dtype == jnp.float32
    assert {x.dtype for layer in output.hidden for x in layer.values()} == {jnp.dtype("bfloat16")}
    scale = np.abs(case.output.logits).max()
    np.testing.assert_allclose(output.logits, case.output.logits, atol=0.05 * scale)
    assert np.abs(output.logits - case.output.logits).max() > 1e-5 * scale  # it did run in bfloat16


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_target_is_said(awkward, name):
    with pytest.raises(GraphError, match=re.escape("target 'film' is not a node type of the graph")):
        jax.eval_shape(MODELS[name].clone(target="film").init, jax.random.key(0), awkward)


@pytest.mark.parametrize("name", MODELS)
def test_types_without_nodes_and_targets_without_relations(name):
    graph = HeteroGraph.from_arrays({"paper": 3, "author": 0, "venue": 2}, {
        ("author", "writes", "paper"): [[], []], ("paper", "has", "author"): [[], []]}, {"author": np.zeros((0, 4))})
    for target, rows in (("paper", 3), ("author", 0), ("venue", 2)):
        model = MODELS[name].clone(target=target)
        shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), graph)
        assert shapes[0].logits.shape == (rows, 3)
    model = MODELS[name].clone(layers=1)
    gradient = jax.jit(jax.grad(lambda params: model.apply(params, graph).logits[:, 0].sum()))(parameters(model, graph))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def many_relations(count):
    """`count` relations between two types, in both directions."""
    rng = np.random.default_rng(0)
    pairs = (("paper", "x"), ("x", "paper"))
    edges = {(s, f"r{k}", d): rng.integers(0, 6, (2, 5)) for k in range(count) for s, d in pairs}
    return HeteroGraph.from_arrays({"paper": 6, "x": 6}, edges, {"paper": np.eye(6)})


@pytest.mark.parametrize("name", MODELS)
def test_products_do_not_grow_in_number_with_relations(name):
    model = MODELS[name]

    def products(count):
        graph = many_relations(count)
        params = jax.eval_shape(model.init, jax.random.key(0), graph)
        gradient = jax.grad(lambda params, graph: model.apply(params, graph).logits.sum())
        text = jax.jit(gradient).trace(params, graph).lower(lowering_platforms=("cuda",)).as_text()
        return text.count("stablehlo.dot_general"), text.count("stablehlo.scatter")

    assert products(3) == products(30)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_hundred_relations_compile(name):
    model, graph = MODELS[name], many_relations(100)
    gradient = jax.jit(jax.grad(lambda params: model.apply(params, graph).logits.sum()))(parameters(model, graph))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
