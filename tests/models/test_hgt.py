"""Heterogeneous attention against its equations, one edge at a time, and the maps it hands to students."""

import jax
import numpy as np
import pytest
from scipy.special import erf

from hire_jax.models import HGT, HGTLayer

TYPES = ("paper", "author", "venue")


def hidden_of(graph, width):
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=(count, width)).astype(np.float32) for name, count in graph.num_nodes.items()}


def randomised(layer, graph, hidden, destinations=TYPES):
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), graph, hidden, destinations))
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda leaf: rng.normal(scale=0.6, size=leaf.shape).astype(np.float32), shapes)


def equations(graph, hidden, p, destination, heads, features):
    """(h'_i, {edge type: a_e}) of one destination type in float64, as the layer's docstring has them."""
    d = features // heads

    def mapped(role, name):
        x = hidden[name].astype(float) @ p[f"{role}_{name}"] + p[f"bias_{role}_{name}"]
        return x.reshape(len(x), heads, d)

    query = mapped("query", destination)
    entries = []  # (edge type, destination node, exp(score) [H], value [H, d])
    for source, block in graph.blocks_into(destination):
        pair = f"{source}->{destination}"
        keys, values = mapped("key", source), mapped("value", source)
        for r, edge_type in enumerate(block.edge_types):
            for j, i in graph.host_edges()[edge_type].T:
                key = np.einsum("hd,hde->he", keys[j], p[f"relation_key_{pair}"][r])
                value = np.einsum("hd,hde->he", values[j], p[f"relation_value_{pair}"][r])
                score = p[f"prior_{pair}"][r] * (key * query[i]).sum(-1) / np.sqrt(d)
                entries.append((edge_type, i, np.exp(score), value))
    count = graph.num_nodes[destination]
    total, message = np.zeros((count, heads)), np.zeros((count, heads, d))
    for _, i, power, _ in entries:
        total[i] += power
    attention: dict = {edge_type: [] for edge_type in graph.edge_types if edge_type[2] == destination}
    for edge_type, i, power, value in entries:
        attention[edge_type].append(power / total[i])
        message[i] += (power / total[i])[:, None] * value
    message = message.reshape(count, features)
    out = message * (1 + erf(message / np.sqrt(2))) / 2 @ p[f"output_{destination}"]["kernel"]
    out = out + p[f"output_{destination}"]["bias"]
    if hidden[destination].shape[1] == features:
        gate = 1 / (1 + np.exp(-p[f"skip_{destination}"]))
        out = gate * out + (1 - gate) * hidden[destination]
    return out, {edge_type: np.reshape(weights, (-1, heads)) for edge_type, weights in attention.items()}


@pytest.mark.parametrize("width", [4, 6], ids=["with skip", "without"])
def test_the_layer_is_its_equations(awkward, width):
    layer, hidden = HGTLayer(features=6, heads=2), hidden_of(awkward, width)
    variables = randomised(layer, awkward, hidden)
    out, attention = jax.jit(layer.apply, static_argnums=3)(variables, awkward, hidden, TYPES)
    assert ("skip_paper" in variables["params"]) == (width == 6)
    assert set(attention) == set(awkward.edge_types)
    for name in TYPES:
        expected, weights = equations(awkward, hidden, variables["params"], name, heads=2, features=6)
        np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-5)
        for edge_type, alpha in weights.items():
            np.testing.assert_allclose(attention[edge_type], alpha, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def model(awkward):
    model = HGT(target="paper", num_classes=2, hidden=6, layers=2, heads=3, dropout=0.0, attention_dropout=0.5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), awkward)
    rng = np.random.default_rng(5)
    return model, jax.tree.map(lambda leaf: rng.normal(scale=0.6, size=leaf.shape).astype(np.float32), shapes)


def test_attention_adds_up_to_one_at_every_destination(awkward, model):
    module, params = model
    output = jax.jit(module.apply)(params, awkward)
    for layer, types in zip(output.attention, awkward.receptive_field("paper", 2)[1:], strict=True):
        assert set(layer) == {edge_type for edge_type in awkward.edge_types if edge_type[2] in types}
        for name in types:
            total = np.zeros((awkward.num_nodes[name], 3))
            reached = np.zeros(awkward.num_nodes[name], bool)
            for edge_type, alpha in layer.items():
                assert alpha.shape == (awkward.num_edges[edge_type], 3)
                if edge_type[2] == name:
                    receivers = np.asarray(awkward.relations[edge_type].receivers)
                    np.add.at(total, receivers, np.asarray(alpha))
                    reached[receivers] = True
            np.testing.assert_allclose(total, np.repeat(reached[:, None], 3, axis=1), rtol=1e-5)
    # an edge that stands there three times has three equal weights
    alpha = output.attention[0]["author", "writes", "paper"]
    relation = awkward.relations["author", "writes", "paper"]
    same = np.flatnonzero((np.asarray(relation.senders) == 1) & (np.asarray(relation.receivers) == 0))
    assert len(same) == 3
    np.testing.assert_allclose(alpha[same], np.repeat(alpha[same[:1]], 3, axis=0), rtol=1e-6)


def test_attention_is_handed_out_before_its_dropout(awkward, model):
    module, params = model
    train = jax.jit(lambda key: module.apply(params, awkward, train=True, rngs={"dropout": key}))
    first, other = train(jax.random.key(1)), train(jax.random.key(2))
    assert np.abs(first.logits - other.logits).max() > 1e-3
    for edge_type, alpha in first.attention[0].items():  # nothing random comes before the first layer's
        np.testing.assert_array_equal(alpha, other.attention[0][edge_type])
    assert all(np.all(np.asarray(alpha) > 0) for alpha in first.attention[0].values())


def test_heads_must_divide_the_width(awkward):
    with pytest.raises(ValueError, match="features must be a multiple of heads, got features=6, heads=4"):
        jax.eval_shape(HGT(target="paper", num_classes=2, hidden=6, heads=4).init, jax.random.key(0), awkward)


def test_only_the_maps_a_type_takes_part_with_exist(awkward):
    layer = HGTLayer(features=6, heads=2)
    params = randomised(layer, awkward, hidden_of(awkward, 6), ("venue",))["params"]
    assert set(params) == {"query_venue", "bias_query_venue", "key_paper", "bias_key_paper", "value_paper",
                           "bias_value_paper", "prior_paper->venue", "relation_key_paper->venue",
                           "relation_value_paper->venue", "output_venue", "skip_venue"}
