"""Distillation on batches: the teacher's rows go with their nodes, and what is estimated has the right expectation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import Objective
from hire_jax.losses import type_pair_correlation
from hire_jax.models import HGT, RGCN
from hire_jax.sampling import BatchSource, HostGraph, Rows, batch_variables
from hire_jax.teachers import TeacherRows, save_teacher_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON = {"target": "item", "num_classes": 3, "layers": 2, "dropout": 0.0}
OBJECTIVE = Objective(supervised=0.0, soft_target_kl=1.0, type_pair_correlation=1.0, temperature=2.0)
UNIFORM = {"item": 25, "user": 15, "tag": 4}


def rows(seed, counts, width):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(count, width)).astype(np.float32) for name, count in counts.items()}


def test_the_expectation_over_all_draws_is_the_loss_of_all_nodes():
    """Every pair of a set of two types' nodes with another, each as likely: the estimator itself, without noise."""
    counts, numbers = {"a": 4, "b": 3, "c": 3}, {"a": 2, "b": 2, "c": 1}
    student, teacher = rows(0, counts, 3), rows(1, counts, 5)
    sets = [list(itertools.combinations(range(counts[name]), numbers[name])) for name in counts]
    values = [type_pair_correlation({n: student[n][list(i)] for n, i in zip(counts, drawn, strict=True)},
                                    {n: teacher[n][list(i)] for n, i in zip(counts, drawn, strict=True)})
              for drawn in itertools.product(*sets)]
    assert len(values) == 6 * 3 * 3 and np.std(values) > 0.01
    np.testing.assert_allclose(np.mean(values), type_pair_correlation(student, teacher), rtol=1e-6)


@pytest.fixture(scope="module")
def distilled(planted, parameters, tmp_path_factory):
    """(source with the teacher's rows, student, its variables, what it and the teacher give on the whole graph)."""
    host = HostGraph.from_graph(planted.graph)
    student, teacher = RGCN(**COMMON, hidden=4), HGT(**COMMON, hidden=8, heads=2)
    taught = teacher.apply(parameters(teacher, host.shapes()), planted.graph)
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher_rows(folder, taught, config={})
    source = BatchSource(host, target="item", nodes=np.flatnonzero(planted.splits["train"]), batch_size=6,
                         fanouts=[-1, -1], labels=planted.labels, uniform=UNIFORM, teacher=TeacherRows(folder))
    variables = parameters(student, host.shapes())
    return source, student, variables, student.apply(variables, planted.graph), taught


def test_the_teachers_rows_are_those_of_the_batchs_nodes(distilled, planted):
    source, student, variables, _, taught = distilled
    batch = source(0, 1)
    output = student.apply(variables, batch.graph)
    assert set(batch.seeds.index) == {"item"}
    assert {name: index.size for name, index in batch.uniform.index.items()} == UNIFORM
    for known in (batch.seeds, batch.uniform):
        ids = batch.nodes_of(known)
        np.testing.assert_array_equal(known.teacher.logits, taught.logits[ids["item"]])
        training = np.asarray(planted.splits["train"])[ids["item"]]  # labels of other nodes stay away
        assert known is batch.seeds or not training.all()
        np.testing.assert_array_equal(known.labels, np.where(training, np.asarray(planted.labels)[ids["item"]], -1))
        assert known.of(output).logits.shape == known.teacher.logits.shape
        for ours, theirs, whole in zip(known.of(output).hidden, known.teacher.hidden, taught.hidden, strict=True):
            assert set(ours) == set(theirs) == set(whole) & set(ids)
            for name, x in theirs.items():
                np.testing.assert_array_equal(x, whole[name][ids[name]])
                assert ours[name].shape[0] == x.shape[0]
        assert all(np.unique(of_type).size == of_type.size for of_type in ids.values())


@pytest.mark.parametrize("settings", [{"reliability": "correctness"}, {"distil_rows": "train"}, {"supervised": 1.0}])
def test_labels_of_other_nodes_change_no_gradient(distilled, planted, settings):
    """A step with every term that reads labels, on uniform nodes of which most are not of the epoch."""
    source, student, variables, _, _ = distilled
    objective = Objective(**({"supervised": 0.0, "soft_target_kl": 1.0, "type_pair_correlation": 1.0} | settings))
    labels, training = np.asarray(planted.labels), np.asarray(planted.splits["train"])

    @jax.jit
    def gradient_of(variables, batch):
        def loss(variables):
            rows = batch.uniform.of(student.apply(batch_variables(variables, batch), batch.graph))
            return objective(rows, batch.uniform.labels, teacher=batch.uniform.teacher, where=batch.uniform.labelled)[0]

        return jax.grad(loss)(variables)

    def gradient(labels):
        batch = BatchSource(source.graph, target="item", nodes=source.nodes, batch_size=6, fanouts=[-1, -1],
                            labels=labels, uniform=UNIFORM, teacher=source.teacher)(0, 1)
        assert 0 < batch.uniform.labelled.sum() < UNIFORM["item"] - 5
        return gradient_of(variables, batch)

    ours = gradient(labels)
    jax.tree.map(np.testing.assert_array_equal, ours, gradient(np.where(training, labels, (labels + 1) % 3)))
    others = gradient(np.where(training, (labels + 1) % 3, labels))
    equal = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True)]
    assert all(equal) == ("distil_rows" in settings)  # which reads no label, but who has one


def test_batch_losses_have_the_whole_losses_as_their_mean(distilled, planted, parameters):
    """Both terms, and their derivative along a direction: the mean over 600 batches, within its own standard error."""
    source, student, variables, _, taught = distilled
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), variables)

    @jax.jit
    def of_rows(graph, rows):
        """The terms in alphabetical order, then their derivatives."""
        terms, pullback = jax.vjp(lambda v: OBJECTIVE.unweighted(rows.of(student.apply(v, graph)), rows.labels,
                                                                 teacher=rows.teacher), variables)
        names = sorted(terms)
        gradients = [pullback({n: jnp.float32(n == name) for n in names})[0] for name in names]
        slopes = [sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction))) for gradient in gradients]
        return jnp.stack([*(terms[name] for name in names), *slopes])

    @jax.jit  # the pairs that happen to be in a batch, as one might take them
    def of_neighbours(batch, teacher):
        output = student.apply(variables, batch.graph)
        where = {name: jnp.arange(ids.size) < batch.real[name] for name, ids in batch.ids.items()}
        return type_pair_correlation(output.hidden[1], teacher, where=where)

    drawn, biased = [], []
    for place in range(600):
        batch = source(*divmod(place, len(source)))
        drawn.append(of_rows(batch.graph, batch.uniform))
        if place % 10 == 0:
            biased.append(of_neighbours(batch, {name: np.asarray(x)[batch.ids[name]]
                                                for name, x in taught.hidden[1].items()}))
    everything = {name: np.arange(count) for name, count in planted.graph.num_nodes.items()}
    expected = of_rows(planted.graph, Rows(everything, None, planted.labels, taught._replace(attention=()), "item"))
    drawn, expected = np.array(drawn, np.float64), np.array(expected, np.float64)
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(np.mean(drawn, axis=0) - expected) < 4 * error)
    assert np.all(error[:2] < 0.015 * expected[:2])  # so that the line above could fail
    assert sorted(OBJECTIVE.terms)[1] == "type_pair_correlation"
    assert abs(np.mean(biased) - expected[1]) > 10 * np.std(biased) / np.sqrt(len(biased))
