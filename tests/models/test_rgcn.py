"""The relational convolution against its equation, one edge at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import HeteroGraph
from hire_jax.models import RGCN, RGCNLayer

TYPES = ("paper", "author", "venue")


def hidden_of(graph, width=4):
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=(count, width)).astype(np.float32) for name, count in graph.num_nodes.items()}


def randomised(layer, graph, hidden, destinations=TYPES):
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), graph, hidden, destinations))
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def equation(graph, hidden, params, destination, aggregation):
    """h'_i = W_0 h_i + b + sum_r sum_j c_ir W_r h_j in float64."""
    out = hidden[destination].astype(float) @ params[f"root_{destination}"] + params[f"bias_{destination}"]
    for source, block in graph.blocks_into(destination):
        for k, edge_type in enumerate(block.edge_types):
            if "bases" in params:
                kernel = sum(params[f"coefficients_{source}->{destination}"][k, b] * params["bases"][b]
                             for b in range(len(params["bases"])))
            else:
                kernel = params[f"kernel_{source}->{destination}"][k]
            edges = list(graph.host_edges()[edge_type].T)
            degree = np.bincount([i for _, i in edges], minlength=len(out)) if edges else np.zeros(len(out))
            for j, i in edges:
                out[i] += hidden[source][j] @ kernel / (degree[i] if aggregation == "mean" else 1)
    return out


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
@pytest.mark.parametrize("bases", [None, 2])
def test_the_layer_is_its_equation(awkward, aggregation, bases):
    """Of two relations with duplicates, and of one relation with the product before and after aggregation."""
    layer, hidden = RGCNLayer(features=3, aggregation=aggregation, bases=bases), hidden_of(awkward)
    variables = randomised(layer, awkward, hidden)
    out = jax.jit(layer.apply, static_argnums=3)(variables, awkward, hidden, TYPES)
    assert set(out) == set(TYPES)
    for name in TYPES:
        expected = equation(awkward, hidden, variables["params"], name, aggregation)
        np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-5)


def test_only_destinations_are_computed(awkward):
    layer, hidden = RGCNLayer(features=3), hidden_of(awkward)
    params = randomised(layer, awkward, hidden, ("venue",))["params"]
    assert {name: x.shape for name, x in params.items()} == {
        "root_venue": (4, 3), "bias_venue": (3,), "kernel_paper->venue": (1, 4, 3)}


def test_bases_are_shared_by_all_relations_of_a_layer(awkward):
    params = randomised(RGCNLayer(features=3, bases=2), awkward, hidden_of(awkward))["params"]
    assert params["bases"].shape == (2, 4, 3)
    assert params["coefficients_author->paper"].shape == (2, 2)
    assert sorted(name for name in params if name.startswith("coefficients")) == [
        f"coefficients_{source}->{destination}" for source, destination in sorted(awkward.blocks)]
    assert not any(name.startswith("kernel") for name in params)


def test_bases_need_one_width(awkward):
    hidden = hidden_of(awkward) | {"venue": np.zeros((3, 5), np.float32)}
    with pytest.raises(ValueError, match=r"all types must have one width, got \{'paper': 4, 'author': 4, 'venue': 5\}"):
        randomised(RGCNLayer(features=3, bases=2), awkward, hidden)


def test_the_scale_of_initial_kernels_is_one_relation_s(awkward):
    """Fans counted over the relations' axis too would make many relations start near zero."""
    def spread(relations):
        graph = HeteroGraph.from_arrays({"a": 2}, {("a", str(k), "a"): [[0], [1]] for k in range(relations)})
        layer = RGCNLayer(features=64)
        params = layer.init(jax.random.key(0), graph, {"a": jnp.zeros((2, 64))}, ("a",))["params"]
        return float(jnp.std(params["kernel_a->a"]))

    assert spread(1) == pytest.approx(1 / 8, rel=0.05)
    assert spread(9) == pytest.approx(1 / 8, rel=0.05)


def test_an_unknown_aggregation_is_refused(awkward):
    with pytest.raises(ValueError, match="aggregation must be 'mean' or 'sum', got 'max'"):
        randomised(RGCNLayer(features=3, aggregation="max"), awkward, hidden_of(awkward))  # type: ignore[arg-type]


def test_the_model_has_no_attention(awkward):
    model = RGCN(target="author", num_classes=2, hidden=4, layers=3)
    output = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), awkward))[0]
    assert output.attention == ({}, {}, {}) and len(output.hidden) == 4
    assert [set(layer) for layer in output.hidden] == [set(types) for types in awkward.receptive_field("author", 3)]
