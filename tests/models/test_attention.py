"""Additive attention against its equations, one edge at a time: GAT, Simple-HGN and HAN, sparse and dense."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError, HeteroGraph
from hire_jax.graph import blocks
from hire_jax.metapaths import metapath_graph
from hire_jax.models import HAN, GATLayer, HANLayer, SimpleHGN, SimpleHGNLayer
from hire_jax.models.dense_attention import dense_attention
from hire_jax.models.sage import unit_rows
from hire_jax.sparse import CSR, edge_sum, segment_softmax, spmm

pytestmark = pytest.mark.usefixtures("quick_compilation")

TYPES = ("paper", "author", "venue")


def hidden_of(graph, width=6):
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=(count, width)).astype(np.float32) for name, count in graph.num_nodes.items()}


def randomised(layer, *arguments):
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *arguments))
    rng = np.random.default_rng(4)
    return jax.tree.map(lambda leaf: rng.normal(scale=0.5, size=leaf.shape).astype(np.float32), shapes)


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


def edges_into(graph, destination):
    """[(edge type, sender, receiver)] of all edges, each relation in its own order."""
    return [(edge_type, int(j), int(i)) for edge_type in graph.edge_types if edge_type[2] == destination
            for j, i in graph.host_edges()[edge_type].T]


def equations(graph, values, ends, destination, slope, relation_scores=None, previous=None, beta=0.0):
    """(m_i, {edge type: a}, a of a node to itself) in float64; every node is its own neighbour too."""
    u = {name: (x * ends[0]).sum(-1) for name, x in values.items()}
    v = (values[destination] * ends[1]).sum(-1)
    extra = relation_scores or {}
    entries = [(edge_type, j, i, values[edge_type[0]][j],
                np.exp(leaky(u[edge_type[0]][j] + v[i] + extra.get(edge_type, 0), slope)))
               for edge_type, j, i in edges_into(graph, destination)]
    own = np.exp(leaky(u[destination] + v + extra.get("self", 0), slope))
    total = own.copy()
    for _, _, i, _, power in entries:
        total[i] += power
    weights = {edge_type: [] for edge_type in graph.edge_types if edge_type[2] == destination}
    for edge_type, _, i, _, power in entries:
        weights[edge_type].append(power / total[i])
    of_self = own / total
    if previous is not None:
        weights = {e: (1 - beta) * np.array(w) + beta * np.array(previous[0][e]) for e, w in weights.items()}
        of_self = (1 - beta) * of_self + beta * previous[1]
    message = of_self[:, :, None] * values[destination]
    count = dict.fromkeys(weights, 0)
    for edge_type, _, i, x, _ in entries:
        message[i] += weights[edge_type][count[edge_type]][:, None] * x
        count[edge_type] += 1
    return message.reshape(len(v), -1), weights, of_self


def projected(hidden, kernel, heads):
    return {name: (x.astype(float) @ kernel).reshape(len(x), heads, -1) for name, x in hidden.items()}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("width", [4, 6])
def test_gat_is_its_equations(awkward, width, residual):
    layer, hidden = GATLayer(features=6, heads=2, residual=residual), hidden_of(awkward, width)
    variables = randomised(layer, awkward, hidden, TYPES)
    p = variables["params"]
    out, attention = jax.jit(layer.apply, static_argnums=3)(variables, awkward, hidden, TYPES)
    values = projected(hidden, p["kernel"], 2)
    for name in TYPES:
        ends = p["attention_source"], p["attention_destination"]
        expected, weights, _ = equations(awkward, values, ends, name, 0.2)
        expected += p["bias"]
        if residual:
            expected += hidden[name] if width == 6 else hidden[name] @ p["residual"]
        np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-5)
        for edge_type, alpha in weights.items():
            np.testing.assert_allclose(attention[edge_type], np.reshape(alpha, (-1, 2)), rtol=1e-4, atol=1e-6)


def test_simple_hgn_is_its_equations_over_two_layers(awkward):
    """The second layer mixes the first's attention into its own, of a node to itself too."""
    layer = SimpleHGNLayer(features=6, heads=2, edge_features=3, attention_residual=0.3)
    hidden, previous, before = hidden_of(awkward), None, dict.fromkeys(TYPES)
    for _ in range(2):
        variables = randomised(layer, awkward, hidden, TYPES, previous)
        p = variables["params"]
        out, attention, previous = jax.jit(layer.apply, static_argnums=3)(variables, awkward, hidden, TYPES, previous)
        values = projected(hidden, p["kernel"], 2)
        embedded = (p["relation_embedding"] @ p["relation_kernel"]).reshape(-1, 2, 3)
        scores = (embedded * p["attention_relation"]).sum(-1)
        by_relation = dict(zip(("self", *awkward.edge_types), scores, strict=True))
        for name in TYPES:
            ends = p["attention_source"], p["attention_destination"]
            expected, weights, of_self = equations(awkward, values, ends, name, 0.05, by_relation, before[name], 0.3)
            np.testing.assert_allclose(out[name], expected + hidden[name], rtol=1e-4, atol=1e-5)
            for edge_type, alpha in weights.items():
                np.testing.assert_allclose(attention[edge_type], np.reshape(alpha, (-1, 2)), rtol=1e-4, atol=1e-6)
            before[name] = weights, of_self


def test_unit_rows_of_any_size(rng):
    x = rng.normal(size=(4, 5)) * np.array([[1.0], [1e-14], [0.0], [1e15]])
    for rows in (jnp.asarray(x, jnp.float32), jnp.asarray(x, jnp.bfloat16)):
        unit, pullback = jax.vjp(unit_rows, rows)
        assert unit.dtype == rows.dtype and np.isfinite(pullback(unit)[0]).all()
        np.testing.assert_allclose(np.linalg.norm(unit.astype(jnp.float32), axis=1)[[0, 2, 3]], [1, 0, 1], atol=1e-2)
    with jax.enable_x64(True):
        unit = unit_rows(jnp.asarray(x[:1]))
        np.testing.assert_allclose(unit, x[:1] / np.linalg.norm(x[:1]), rtol=1e-14)


def test_simple_hgn_gives_logits_of_one_length(awkward):
    for scale in (1.0, 5.0, None):
        model = SimpleHGN(target="paper", num_classes=3, hidden=8, heads=2, logit_scale=scale)
        variables = randomised(model, awkward)
        lengths = np.linalg.norm(jax.jit(model.apply)(variables, awkward).logits, axis=1)
        assert np.allclose(lengths, scale or 1, rtol=1e-5) == (scale is not None)


@pytest.mark.parametrize("layer", [GATLayer(features=6, heads=4), SimpleHGNLayer(features=6, heads=4)])
def test_heads_that_do_not_divide_features_are_refused(awkward, layer):
    with pytest.raises(ValueError, match="features must be a positive multiple of heads, got features=6, heads=4"):
        jax.eval_shape(lambda: layer.init(jax.random.key(0), awkward, hidden_of(awkward), TYPES))


# ------------------------------------------------------------------------------------------------- HAN


@pytest.fixture(scope="module")
def academic():
    """Papers with authors and venues; venues join many pairs of papers."""
    rng = np.random.default_rng(5)
    edges = {("author", "writes", "paper"): np.stack([rng.integers(0, 9, 30), rng.integers(0, 20, 30)]),
             ("venue", "holds", "paper"): np.stack([rng.integers(0, 3, 18), np.arange(18)])}
    graph = HeteroGraph.from_arrays({"paper": 20, "author": 9, "venue": 3}, edges,
                                    {"paper": rng.normal(size=(20, 5)).astype(np.float32)})
    return graph.add_reverse_relations()


def han_equations(graph, x, p, target, heads, counts):
    own = (x.astype(float) @ p[f"projection_{target}"]["kernel"] + p[f"projection_{target}"]["bias"])
    own = own.reshape(len(own), heads, -1)
    views = {}
    for path in graph.node_types[1:]:
        u = (own * p[f"attention_source_{path}"]).sum(-1)
        v = (own * p[f"attention_destination_{path}"]).sum(-1)
        relation = graph.relations[path, "reaches", target]
        times = np.ones(relation.senders.size) if not counts else np.asarray(relation.edges)
        top, total = np.zeros(own.shape), np.zeros(u.shape)
        for j, i, n in zip(np.asarray(relation.senders), np.asarray(relation.receivers), times, strict=True):
            power = n * np.exp(leaky(u[j] + v[i], 0.2))
            top[i] += power[:, None] * own[j]
            total[i] += power
        views[path] = np.maximum(top / np.where(total > 0, total, 1)[:, :, None], 0).reshape(len(own), -1)
    scores = np.array([(np.tanh(z @ p["semantic"]["kernel"] + p["semantic"]["bias"])).mean(0) @ p["semantic_query"]
                       for z in views.values()])
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return sum(w * z for w, z in zip(weights, views.values(), strict=True)), views, weights


@pytest.mark.parametrize("counts", [False, True])
def test_han_is_its_equations(academic, counts):
    graph = metapath_graph(academic, "paper", counts=counts)
    dense = {source for (source, _), block in graph.blocks.items() if block.adjacency is not None}
    assert dense == {"paper-author-paper", "paper-venue-paper"}
    layer, hidden = HANLayer(features=6, heads=2, semantic_features=4), {"paper": hidden_of(academic)["paper"]}
    variables = randomised(layer, graph, hidden, "paper")
    out, views, attention, importance = jax.jit(layer.apply, static_argnums=3)(variables, graph, hidden, "paper")
    expected, z, weights = han_equations(graph, hidden["paper"], variables["params"], "paper", 2, counts)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(importance, weights, rtol=1e-4)
    for path, embedding in z.items():
        np.testing.assert_allclose(views[path], embedding, rtol=1e-4, atol=1e-5)
    for (path, _, _), alpha in attention.items():
        receivers = np.asarray(graph.relations[path, "reaches", "paper"].receivers)
        total = np.zeros((20, 2))
        np.add.at(total, receivers, np.asarray(alpha))
        assert np.all(np.isclose(total, 1, atol=1e-5) | (total == 0))


def test_han_refuses_graphs_without_metapaths(academic):
    model = HAN(target="paper", num_classes=2, hidden=8, heads=2)
    pretender = HeteroGraph.from_arrays({"paper": 2, "x": 2}, {("x", "reaches", "paper"): [[0], [1]]},
                                        {"x": np.eye(2)})
    for graph in (academic, pretender):
        with pytest.raises(GraphError, match=r"HAN reads a graph of metapaths into 'paper'.*metapath_graph"):
            jax.eval_shape(lambda graph=graph: model.init(jax.random.key(0), graph))
    twice = academic.add_relations({("author", "edits", "paper"): [[0], [1]]})
    with pytest.raises(GraphError, match=re.escape("HAN takes one relation from 'author' to 'paper'")):
        jax.eval_shape(lambda: HANLayer(features=6, heads=2).init(jax.random.key(0), twice, hidden_of(twice), "paper"))


# ----------------------------------------------------------------------------------------------- dense


def sparse_model(monkeypatch, graph, share):
    monkeypatch.setattr(blocks, "_DENSE_ABOVE", share)
    return metapath_graph(graph, "paper")


def test_dense_equals_sparse_in_values_and_gradients(academic, monkeypatch):
    model = HAN(target="paper", num_classes=2, hidden=8, heads=2, dropout=0.0)
    dense, sparse = (sparse_model(monkeypatch, academic, share) for share in (0.05, 2.0))
    assert all(block.adjacency is None for block in sparse.blocks.values())
    assert all(block.adjacency is not None for block in dense.blocks.values())
    params = randomised(model, dense)
    weights = np.random.default_rng(0).normal(size=(20, 2))

    def value_and_gradient(graph):
        return jax.jit(jax.value_and_grad(lambda p: (model.apply(p, graph).logits * weights).sum()))(params)

    for one, two in zip(jax.tree.leaves(value_and_gradient(dense)), jax.tree.leaves(value_and_gradient(sparse)),
                        strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def reference(adjacency, v, u, x, slope=0.2):
    scores = jnp.where(adjacency[:, :, None], jax.nn.leaky_relu(v[:, None] + u[None], slope), -jnp.inf)
    weights = jnp.exp(scores - jnp.max(jnp.where(jnp.isfinite(scores), scores, -1e30), axis=1, keepdims=True))
    weights = jnp.where(adjacency[:, :, None], weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    return jnp.einsum("nmh,mhd->nhd", weights / jnp.where(total > 0, total, 1), x)


@pytest.fixture
def pairs(rng):
    """Several blocks of rows, a number of rows that they do not divide, a row without neighbours."""
    n, m = 533, 4001
    adjacency = rng.random((n, m)) < 0.2
    adjacency[7] = False
    v, u = rng.normal(size=(n, 2)) * 2, rng.normal(size=(m, 2)) * 2
    arrays = v, u, rng.normal(size=(m, 2, 3))
    return jnp.asarray(adjacency), *(jnp.asarray(array, jnp.float32) for array in arrays)


def test_blocks_of_rows_equal_the_whole_matrix(pairs):
    adjacency, *operands = pairs
    value, pullback = jax.vjp(lambda *x: dense_attention(adjacency, *x), *operands)
    expected, expected_pullback = jax.vjp(lambda *x: reference(adjacency, *x), *operands)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    assert np.all(value[7] == 0)
    g = jax.random.normal(jax.random.key(0), value.shape)
    for ours, theirs in zip(pullback(g), expected_pullback(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the blocks of edges are the CPU's")
def test_all_pairs_need_less_memory_than_the_edges_where_a_twentieth_is_linked(rng):
    nodes, heads = 1024, 8
    linked = rng.random((nodes, nodes)) < blocks._DENSE_ABOVE
    csr = CSR.from_sorted(*np.nonzero(linked), (nodes, nodes))

    def edges(v, u, x):
        return spmm(csr, segment_softmax(jax.nn.leaky_relu(edge_sum(csr, v, u), 0.2), csr.rows, nodes), x)

    def temporaries(function):
        gradient = jax.grad(lambda *a: jnp.sum(function(*a) ** 2), argnums=(0, 1, 2))
        ones = jnp.ones((nodes, heads)), jnp.ones((nodes, heads)), jnp.ones((nodes, heads, 8))
        return jax.jit(gradient).lower(*ones).compile().memory_analysis().temp_size_in_bytes

    assert 0 < temporaries(lambda *a: dense_attention(jnp.asarray(linked), *a)) < temporaries(edges)


def test_dense_attention_maps_over_seeds(pairs):
    adjacency, v, u, x = pairs
    batch = [jnp.stack([a, -a]) for a in (v, u, x)]
    together = jax.jit(jax.vmap(lambda *a: dense_attention(adjacency, *a)))(*batch)
    for k in range(2):
        alone = dense_attention(adjacency, *(a[k] for a in batch))
        np.testing.assert_allclose(together[k], alone, rtol=1e-5, atol=1e-6)


def test_large_scores_stay_finite(pairs):
    adjacency, v, u, x = pairs
    value, gradient = jax.value_and_grad(lambda v: dense_attention(adjacency, v, u + 500, x).sum())(1000 * v)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(("below", "size"), [(78, 1e5), (84, 1e3), (86, 10)])
def test_gradients_of_a_row_far_below_the_others(pairs, below, size):
    """Its weights are near the least float32 there is, and what they are divided by near the largest."""
    _, v, u, x = pairs
    adjacency = jnp.ones((6, 9), bool).at[2].set(jnp.arange(9) == 4)
    v, u, x = v[:6], u[:9].at[4].set(jnp.max(u[:9]) - below), x[:9]
    x += jnp.sign(x)  # a weight times less than 1 would be rounded to 0
    value, pullback = jax.vjp(lambda *a: dense_attention(adjacency, *a, negative_slope=1.0), v, u, x)
    expected, expected_pullback = jax.vjp(lambda *a: reference(adjacency, *a, slope=1.0), v, u, x)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    g = size * jax.random.normal(jax.random.key(6), value.shape)
    for ours, theirs in zip(pullback(g), expected_pullback(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * size)


def test_dropout_of_pairs_keeps_the_mean_and_its_gradient(pairs):
    adjacency, v, u, x = pairs

    def dropped(x, key):
        return dense_attention(adjacency, v, u, x, rate=0.5, key=key)

    draws = jax.vmap(lambda key: dropped(x, key))(jax.random.split(jax.random.key(1), 16))
    expected = dense_attention(adjacency, v, u, x)
    assert np.std(draws, axis=0).max() > 1e-2
    assert np.abs(np.mean(draws, axis=0) - expected).max() < 6 * np.std(draws, axis=0).max() / np.sqrt(16)
    one = jax.random.key(2)  # linear in x: the gradient of a draw gives the draw back
    value, pullback = jax.vjp(lambda x: dropped(x, one), x)
    g = jax.random.normal(jax.random.key(3), value.shape)
    np.testing.assert_allclose(jnp.vdot(pullback(g)[0], x), jnp.vdot(g, value), rtol=1e-3)


def test_gradients_of_scores_under_dropout(pairs):
    """Against the same draw with its mask read off: x = identity columns give the weights themselves."""
    adjacency, v, u, x = pairs
    adjacency, v, u = adjacency[:40, :50], v[:40], u[:50]
    key, x = jax.random.key(4), x[:50]
    identity = jnp.broadcast_to(jnp.eye(50)[:, None], (50, 2, 50))
    kept = dense_attention(adjacency, v, u, identity, rate=0.4, key=key) != 0  # [n, H, m]

    def masked(v, u, x):
        scores = jax.nn.leaky_relu(v[:, None] + u[None], 0.2)
        weights = jnp.where(adjacency[:, :, None], jnp.exp(scores), 0)
        weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
        return jnp.einsum("nmh,mhd->nhd", weights * kept.transpose(0, 2, 1) / 0.6, x)

    value, pullback = jax.vjp(lambda *a: dense_attention(adjacency, *a, rate=0.4, key=key), v, u, x)
    expected, expected_pullback = jax.vjp(masked, v, u, x)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    g = jax.random.normal(jax.random.key(5), value.shape)
    for ours, theirs in zip(pullback(g), expected_pullback(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_no_rows_or_no_columns(shape):
    n, m = shape
    out = dense_attention(jnp.zeros(shape, bool), jnp.zeros((n, 2)), jnp.zeros((m, 2)), jnp.zeros((m, 2, 3)))
    assert out.shape == (n, 2, 3) and not np.any(out)


def test_dense_attention_with_64_bit_numbers(pairs):
    adjacency, *operands = (x[:30] for x in pairs)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in operands]
        value, pullback = jax.vjp(lambda *a: dense_attention(adjacency[:, :30], *a), *wide)
        gradients = pullback(value)
    assert value.dtype == np.float64 and all(g.dtype == np.float64 for g in gradients)
    np.testing.assert_allclose(value, dense_attention(adjacency[:, :30], *operands), rtol=1e-5, atol=1e-6)


def test_a_rate_outside_the_unit_interval_is_refused(pairs):
    with pytest.raises(ValueError, match=re.escape("rate must be in [0, 1), got 1.0")):
        dense_attention(*pairs, rate=1.0, key=jax.random.key(0))


def test_a_slope_outside_the_unit_interval_is_refused(pairs):
    with pytest.raises(ValueError, match=re.escape("negative_slope must be in [0, 1], got 2.0")):
        dense_attention(*pairs, negative_slope=2.0)
