"""A batch: which nodes its rows are, resident features, learned rows, and what is said where they do not fit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import GraphError, SparseFeatures
from hire_jax.models import RGCN
from hire_jax.sampling import BatchSource, HostGraph, batch_variables

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = RGCN(target="item", num_classes=3, hidden=4, layers=2)


def test_predictions_go_back_to_their_nodes(host, parameters, planted):
    """An epoch's rows, put where `nodes_of` says, are what the whole graph gives."""
    source = BatchSource(host, target="item", nodes=np.arange(65), batch_size=12, fanouts=[-1, -1],
                         uniform={"tag": 2, "item": 3})
    variables = parameters(MODEL, host.shapes())
    expected, found = jax.jit(MODEL.apply)(variables, planted.graph).logits, np.full((70, 3), np.nan, np.float32)
    apply = jax.jit(lambda batch: batch.seeds.of(MODEL.apply(batch_variables(variables, batch), batch.graph)).logits)
    for index in range(len(source)):
        batch = source(0, index)
        found[batch.nodes_of(batch.seeds)["item"]] = apply(batch)  # seeds that do not count are others once more
    np.testing.assert_allclose(found[:65], expected[:65], rtol=1e-4, atol=1e-5)
    assert np.isnan(found[65:]).all()
    drawn = batch.nodes_of(batch.uniform)
    assert {name: ids.size for name, ids in drawn.items()} == {"item": 3, "tag": 2}


def test_rows_know_which_have_a_label(source_of):
    batch = source_of(uniform={"item": 70})(0, 0)
    ids = batch.nodes_of(batch.uniform)["item"]
    np.testing.assert_array_equal(batch.uniform.labelled, (ids >= 5) & (ids < 45))
    several = np.zeros((70, 2), int)
    several[9, 1] = -1
    batch = source_of(labels=several)(0, 0)
    np.testing.assert_array_equal(batch.seeds.labelled, batch.nodes_of(batch.seeds)["item"] != 9)
    with pytest.raises(ValueError, match="these rows have no labels"):
        source_of(labels=None)(0, 0).seeds.labelled  # noqa: B018


def test_features_that_stay_on_the_device(host, source_of, parameters, planted):
    tables = {name: jnp.asarray(x) for name, x in planted.graph.features.items()}
    variables = parameters(MODEL, host.shapes())
    given, bare = source_of()(0, 0), source_of(resident=["item", "user", "tag"])(0, 0)
    assert not bare.graph.features and given.graph.features
    apply = jax.jit(lambda batch: batch.seeds.of(MODEL.apply(variables, batch.graph)).logits)
    of_given, of_bare = (apply(batch) for batch in (given, bare.with_features(tables)))
    np.testing.assert_allclose(of_bare, of_given, rtol=1e-5, atol=1e-5)
    one_by_one = bare.with_features({"item": tables["item"]}).with_features({"user": tables["user"]})
    with pytest.raises(GraphError, match="the features of 'tag' are resident, and the batch comes without them"):
        batch_variables(variables, one_by_one)


NO_WORDS = SparseFeatures.from_csr(np.zeros(71, int), np.zeros(0, int), np.zeros(0), (70, 2))


@pytest.mark.parametrize("tables, message", [
    ({"user": np.ones((50, 2))}, "features of 'user' are given, but the source's resident types are ['item', 'tag']"),
    ({"shop": np.ones((50, 2))}, "features of 'shop' are given"),
    ({"item": np.ones((69, 2))}, "features of 'item' must be an array [70, F], a row for each node of the whole graph, "
                                 "got [69, 2]"),
    ({"item": np.ones(70)}, "got [70]"),
    ({"item": NO_WORDS}, "got sparse features"),
])  # fmt: skip
def test_tables_that_do_not_fit(source_of, tables, message):
    with pytest.raises(GraphError, match=re.escape(message)):
        source_of(resident=["tag", "item"])(0, 0).with_features(tables)


def test_learned_rows_keep_leading_axes(awkward):
    source = BatchSource(HostGraph.from_graph(awkward), target="paper", nodes=[0, 3], batch_size=2, fanouts=[-1])
    batch = source(0, 0)
    rows = np.arange(24.0).reshape(2, 3, 4)
    variables = {"params": {"InputProjection_0": {"embedding_venue": rows, "kernel_paper": rows},
                            "other": {"embedding_venue": rows}}}
    taken = batch_variables(variables, batch)["params"]
    np.testing.assert_array_equal(taken["InputProjection_0"]["embedding_venue"], rows[:, batch.ids["venue"]])
    np.testing.assert_array_equal(taken["InputProjection_0"]["kernel_paper"], rows)
    np.testing.assert_array_equal(taken["other"]["embedding_venue"], rows)
    variables["params"]["InputProjection_0"]["embedding_venue"] = rows[:, :2]
    with pytest.raises(GraphError, match="embedding_venue has 2 rows, but the whole graph has 3 nodes of 'venue'"):
        batch_variables(variables, batch)


def test_types_without_nodes_learn_nothing(parameters):
    """A type of no nodes has a dummy in every batch, and no row or feature for it."""
    host = HostGraph.from_arrays({"item": 6, "user": 5, "none": 0, "void": 0}, {
        ("user", "of", "item"): [[0, 1, 2], [0, 0, 1]], ("none", "of", "item"): np.zeros((2, 0), int),
        ("void", "of", "item"): np.zeros((2, 0), int)}, {"item": np.ones((6, 2)), "void": np.zeros((0, 3))})
    source = BatchSource(host, target="item", nodes=np.arange(6), batch_size=4, fanouts=[-1, -1], resident=["void"])
    variables = parameters(MODEL, host.shapes())
    batch = source(0, 0).with_features({"void": jnp.zeros((0, 3))})
    assert batch.graph.features["void"].shape == (batch.graph.num_nodes["void"], 3)

    def loss(variables):
        own = batch_variables(variables, batch)
        assert own["params"]["InputProjection_0"]["embedding_none"].shape == (batch.graph.num_nodes["none"], 4)
        return batch.seeds.of(MODEL.apply(own, batch.graph)).logits.sum()

    gradient = jax.jit(jax.grad(loss))(variables)
    assert gradient["params"]["InputProjection_0"]["embedding_none"].shape == (0, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
