"""What holds of the models that read one node type's rows: HAN, SeHGNN and MLP."""

import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph
from hire_jax.metapaths import metapath_graph, propagated_graph
from hire_jax.models import HAN, MLP, SeHGNN
from hire_jax.models.sehgnn import SemanticFusion

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODELS = {
    "han": HAN(target="paper", num_classes=3, hidden=8, heads=2, layers=2, dropout=0.4, attention_dropout=0.3),
    "sehgnn": SeHGNN(target="paper", num_classes=3, hidden=8, layers=2, dropout=0.4),
    "mlp": MLP(target="paper", num_classes=3, hidden=8, layers=2, dropout=0.4),
}


def academic(papers=12, seed=5):
    rng = np.random.default_rng(seed)
    edges = {("author", "writes", "paper"): rng.integers(0, [[7], [max(papers, 1)]], (2, 20 if papers else 0)),
             ("venue", "holds", "paper"): rng.integers(0, [[3], [max(papers, 1)]], (2, 9 if papers else 0))}
    features = {"paper": rng.normal(size=(papers, 5)), "author": rng.normal(size=(7, 4))}
    return HeteroGraph.from_arrays({"paper": papers, "author": 7, "venue": 3}, edges, features).add_reverse_relations()


def read_by(name, graph):
    """The graph in the form that a model reads."""
    if name == "han":
        return metapath_graph(graph, "paper")
    return propagated_graph(graph, "paper", hops=2, one_hot=True) if name == "sehgnn" else graph


def parameters(model, graph):
    shapes = jax.eval_shape(model.init, jax.random.key(0), graph)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(scale=0.4, size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    graph = read_by(request.param, academic())
    model = MODELS[request.param]
    params = {"params": parameters(model, graph)["params"]}
    return request.param, model, graph, params, jax.jit(model.apply)(params, graph)


def test_the_output_is_as_documented(case):
    name, _, graph, _, output = case
    assert output.logits.shape == (12, 3) and output.logits.dtype == jnp.float32
    paths = set(graph.node_types) - {"paper"}
    layers = {"han": [{"paper"}, paths, {"paper"}, paths, {"paper"}],
              "sehgnn": [set(graph.features)] * 2 + [{"paper"}], "mlp": [{"paper"}] * 3}[name]
    assert [set(layer) for layer in output.hidden] == layers
    assert all(x.shape == (12, 8) for layer in output.hidden for x in layer.values())
    assert len(output.attention) == {"han": 2, "sehgnn": 0, "mlp": 2}[name]


def test_jit_equals_eager(case):
    _, model, graph, params, output = case
    eager = model.apply(params, graph)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), eager, output)


def test_vmap_over_parameters_equals_a_loop(case):
    _, model, graph, params, _ = case
    several = [jax.tree.map(lambda x, k=k: x * (1 + 0.1 * k), params) for k in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    apply, together = jax.jit(model.apply), jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(stacked, graph)
    for k, one in enumerate(several):
        np.testing.assert_allclose(together.logits[k], apply(one, graph).logits, rtol=1e-4, atol=1e-4)


def test_renumbering_papers_renumbers_the_output(case):
    name, model, _, params, output = case
    order = np.random.default_rng(0).permutation(12)
    moved = read_by(name, academic().permute({"paper": order}))
    np.testing.assert_allclose(jax.jit(model.apply)(params, moved).logits, output.logits[order], rtol=1e-4, atol=1e-4)


def test_every_parameter_learns(case):
    _, model, graph, params, _ = case
    weights = np.random.default_rng(2).normal(size=(12, 3))
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(model.apply(p, graph).logits) * weights)))(params)
    flat = flax.traverse_util.flatten_dict(gradient["params"], sep="/")
    untaught = {key for key, g in flat.items() if not np.abs(g).max() > 1e-7}
    # A node's own score shifts all scores of its softmax alike, but where LeakyReLU bends between two of them.
    assert all("attention_destination" in key for key in untaught)
    assert all(np.isfinite(g).all() for g in flat.values())


def test_dropout_is_random_in_training_only(case):
    _, model, graph, params, output = case
    train = jax.jit(lambda params, key: model.apply(params, graph, train=True, rngs={"dropout": key}).logits)
    first, again, other = (train(params, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2 and np.abs(first - output.logits).max() > 1e-2


def test_training_with_hardly_any_dropout_is_evaluation(case):
    """A rate that drops nothing of so few elements: both must read the same metapaths at the same places."""
    _, model, graph, params, output = case
    rates = {rate: 1e-9 for rate in ("dropout", "attention_dropout", "input_dropout") if hasattr(model, rate)}
    train = jax.jit(lambda key: model.clone(**rates).apply(params, graph, train=True, rngs={"dropout": key}))
    trained = train(jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), trained, output)


def test_bfloat16_is_near_float32(case):
    _, model, graph, params, expected = case
    output = jax.jit(model.clone(dtype=jnp.bfloat16).apply)(params, graph)
    assert output.logits.dtype == jnp.float32
    np.testing.assert_allclose(output.logits, expected.logits, atol=0.06 * np.abs(expected.logits).max())


@pytest.mark.parametrize("name", MODELS)
def test_a_target_without_nodes(name):
    graph = read_by(name, academic(papers=0))
    model = MODELS[name]
    params = {"params": parameters(model, graph)["params"]}
    value, gradient = jax.jit(jax.value_and_grad(lambda p: model.apply(p, graph).logits.sum()))(params)
    assert value == 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_target_is_said(name):
    graph = read_by(name, academic())
    with pytest.raises(GraphError, match="target 'film' is not a node type of the graph"):
        jax.eval_shape(MODELS[name].clone(target="film").init, jax.random.key(0), graph)


def test_mlp_reads_no_edge():
    params = parameters(MODELS["mlp"], academic())
    other = academic(seed=6)
    same = HeteroGraph.from_arrays(other.num_nodes, other.host_edges(), academic().features)
    np.testing.assert_array_equal(*(MODELS["mlp"].apply(params, graph).logits for graph in (academic(), same)))


def test_semantic_fusion_is_its_formula(rng):
    z = rng.normal(size=(4, 3, 8)).astype(np.float32)
    layer = SemanticFusion(features=8)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), layer.init(jax.random.key(0), z))["params"]
    query, key, value = (z @ params[k]["kernel"] + params[k].get("bias", 0) for k in ("query", "key", "value"))
    assert query.shape == (4, 3, 2)
    weights = np.exp(np.einsum("npd,nld->npl", query, key))
    weights /= weights.sum(-1, keepdims=True)
    expected = z + params["gamma"] * np.einsum("npl,nld->npd", weights, value)
    np.testing.assert_allclose(layer.apply({"params": params}, z), expected, rtol=1e-4, atol=1e-5)
    fresh = layer.init(jax.random.key(0), z)
    np.testing.assert_array_equal(layer.apply(fresh, z), z)  # gamma starts at 0


def test_sehgnn_refuses_graphs_that_were_not_propagated():
    model = MODELS["sehgnn"]
    with pytest.raises(GraphError, match="SeHGNN reads features propagated beforehand, got a graph with 4 relations"):
        jax.eval_shape(model.init, jax.random.key(0), academic())
    uneven = HeteroGraph.from_arrays({"paper": 2, "x": 3}, {}, {"paper": np.eye(2), "x": np.eye(3)})
    bare = HeteroGraph.from_arrays({"paper": 2}, {})
    for graph in (uneven, bare):
        with pytest.raises(GraphError, match=re.escape("must have the 2 nodes of 'paper'")):
            jax.eval_shape(model.init, jax.random.key(0), graph)


def test_what_attention_found_important_can_be_read():
    graph = read_by("han", academic())
    params = {"params": parameters(MODELS["han"], graph)["params"]}
    _, found = MODELS["han"].apply(params, graph, mutable=["intermediates"])
    weights = jax.tree.leaves(found)
    assert len(weights) == 2 and all(np.isclose(w.sum(), 1) and w.shape == (2,) for w in weights)
