"""Models on sampled batches against the whole graph: equal where the fan-outs cover all neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError
from hire_jax.metapaths import metapath_graph
from hire_jax.models import (
    APPNP,
    GAT,
    GCN,
    GCNII,
    GKEDM,
    HAN,
    HGT,
    IEHGCN,
    RGCN,
    SGC,
    GATv2,
    GraphSAGE,
    HeteroSAGE,
    MoNet,
    SimpleHGN,
)
from hire_jax.sampling import BatchSource, HostGraph, batch_variables
from hire_jax.supervised import cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON = {"target": "item", "num_classes": 3, "hidden": 8, "layers": 2, "dropout": 0.0}
# What a node is sent depends on features and on the edges into the receiver: as many hops as layers.
LOCAL = {
    "rgcn": RGCN(**COMMON),
    "rgcn sum": RGCN(**COMMON, bases=2, aggregation="sum"),
    "hgt": HGT(**COMMON, heads=2),
    "sage": HeteroSAGE(**COMMON),
    "simple_hgn": SimpleHGN(**COMMON, heads=2, edge_features=4),
    "gat": GAT(**COMMON, heads=2, residual=True),
    "gatv2": GATv2(**COMMON, heads=2),
    "graph_sage": GraphSAGE(**COMMON),
    "ie_hgcn": IEHGCN(**COMMON, attention_features=4),
    "gkedm": GKEDM(backbone=GAT(**COMMON, heads=2), heads=2, positions=False, dropout=0.0),
}
# The sender's degree matters too, which one hop more makes known.
DEGREES = {
    "gcn": GCN(**COMMON),
    "gcn of the literature": GCN(**COMMON, projection=False, norm=False),
    "gcn without norm": GCN(**COMMON, norm=False),
    "monet": MoNet(**COMMON),
    "sgc": SGC(target="item", num_classes=3, hops=2),
    "appnp": APPNP(**COMMON, hops=2),
    "gcnii": GCNII(**COMMON),
}
DEPTHS = {
    "rgcn of 3 layers": RGCN(**(COMMON | {"layers": 3})),
    "gat of 1 layer": GAT(**(COMMON | {"layers": 1}), heads=2),
}


def largest_errors(model, graph, parameters, *, hops, **options):
    """(of the seeds' logits, of the uniform nodes' embeddings that are promised), over an epoch of batches."""
    host = HostGraph.from_graph(graph)
    variables = parameters(model, host.shapes())
    whole = model.apply(variables, graph)
    count = graph.num_nodes["item"]
    source = BatchSource(host, target="item", nodes=np.arange(count), batch_size=12, fanouts=[-1] * hops,
                         uniform={name: 3 for name in graph.node_types}, **options)
    apply = jax.jit(lambda variables, batch: model.apply(batch_variables(variables, batch), batch.graph))
    logits, hidden = 0.0, 0.0
    for index in range(0, len(source), 2):
        batch = source(0, index)
        output = apply(variables, batch)
        for rows in (batch.seeds, batch.uniform):
            ids = batch.nodes_of(rows)
            taken = rows.of(output)
            logits = max(logits, np.abs(taken.logits - whole.logits[ids["item"]]).max())
            for layer, expected in list(zip(taken.hidden, whole.hidden, strict=True))[:-1]:
                for name, x in layer.items():
                    hidden = max(hidden, np.abs(x - expected[name][ids[name]]).max())
    assert np.abs(whole.logits).max() > 0.1
    return logits, hidden


@pytest.mark.parametrize("name", [*LOCAL, *DEPTHS])
def test_all_neighbours_give_the_logits_of_the_whole_graph(planted, parameters, name):
    model = (LOCAL | DEPTHS)[name]
    layers = 2 if name == "gkedm" else model.layers
    logits, hidden = largest_errors(model, planted.graph, parameters, hops=layers)
    assert logits < 2e-5 and hidden < 2e-5


@pytest.mark.parametrize("name", DEGREES)
def test_models_that_read_the_senders_degree_need_one_hop_more(planted, parameters, name):
    logits, _ = largest_errors(DEGREES[name], planted.graph, parameters, hops=3)
    assert logits < 2e-5
    short, _ = largest_errors(DEGREES[name], planted.graph, parameters, hops=2)
    assert short > 1e-3


def test_too_few_hops_are_not_equal(planted, parameters):
    logits, _ = largest_errors(LOCAL["rgcn"], planted.graph, parameters, hops=1)
    assert logits > 1e-2


@pytest.mark.parametrize("name", ["rgcn", "hgt", "sage", "simple_hgn"])
def test_sparse_features_learned_rows_and_everything_awkward(awkward, parameters, name):
    model = LOCAL[name].copy(target="paper")
    host = HostGraph.from_graph(awkward)
    variables = parameters(model, host.shapes())
    whole = model.apply(variables, awkward)
    source = BatchSource(host, target="paper", nodes=np.arange(7), batch_size=2, fanouts=[-1, -1])
    apply = jax.jit(lambda variables, batch: model.apply(batch_variables(variables, batch), batch.graph))
    for index in range(len(source)):
        batch = source(0, index)
        output = batch.seeds.of(apply(variables, batch))
        ids = batch.nodes_of(batch.seeds)["paper"]
        np.testing.assert_allclose(output.logits, whole.logits[ids], rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_the_whole_graph(awkward, parameters):
    """Of learned rows too, which a batch holds a few of; so that neither padding nor another node leaks into them."""
    model = LOCAL["rgcn"].copy(target="paper")
    host = HostGraph.from_graph(awkward)
    variables, labels = parameters(model, host.shapes()), np.array([0, 1, 2, 0, 1, 2, 0])
    source = BatchSource(host, target="paper", nodes=np.arange(5), batch_size=3, fanouts=[-1, -1], labels=labels)
    batch = source(0, 1)
    assert batch.seeds.where.tolist() == [True, True, False]

    def sampled(variables):
        rows = batch.seeds.of(model.apply(batch_variables(variables, batch), batch.graph))
        return cross_entropy(rows.logits, batch.seeds.labels, where=batch.seeds.where)

    def whole(variables):
        seeds = np.isin(np.arange(7), batch.ids["paper"][batch.seeds.index["paper"][:2]])
        return cross_entropy(model.apply(variables, awkward).logits, labels, where=jnp.asarray(seeds))

    (value, ours), (expected, theirs) = (jax.jit(jax.value_and_grad(loss))(variables)
                                           for loss in (sampled, whole))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.any(theirs["params"]["InputProjection_0"]["embedding_venue"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def test_metapath_models_refuse_a_batch(planted):
    """HAN's attention over metapaths is a mean over all nodes, which no sample knows."""
    graph = metapath_graph(planted.graph, "item")
    model = HAN(target="item", num_classes=3, hidden=8, heads=2)
    source = BatchSource(HostGraph.from_graph(graph), target="item", nodes=np.arange(70), batch_size=12, fanouts=[-1])
    with pytest.raises(GraphError, match="HAN reads a graph of metapaths"):
        model.init(jax.random.key(0), source(0, 0).graph)
