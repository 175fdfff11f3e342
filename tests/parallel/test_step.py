"""One step over devices against one device that has all their batches: losses, gradients, masks, pairs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hire_jax import Objective
from hire_jax.models import HGT, RGCN
from hire_jax.parallel import Devices
from hire_jax.parallel.step import initial_state, mapped, seed_logits, train_step
from hire_jax.parallel.steps import Steps
from hire_jax.sampling import BatchSource, HostGraph, batch_variables
from hire_jax.teachers import TeacherRows, save_teacher_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

COMMON = {"target": "item", "num_classes": 3, "layers": 2, "dropout": 0.0}
STUDENT = RGCN(**COMMON, hidden=4)
HIRE = Objective(soft_target_kl=1.0, type_pair_correlation=0.5, temperature=2.0)
RECORDER = optax.GradientTransformation(  # its state is the gradient it was given, its step is none
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradient, state, params: (jax.tree.map(jnp.zeros_like, gradient), gradient))


@pytest.fixture(scope="module")
def sources(planted, parameters, tmp_path_factory):
    """A source of the first n items, with a teacher's rows."""
    host = HostGraph.from_graph(planted.graph)
    teacher = HGT(**COMMON, hidden=8, heads=2)
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher_rows(folder, teacher.apply(parameters(teacher, host.shapes()), planted.graph), config={})
    return lambda count: BatchSource(
        host, target="item", nodes=np.arange(count), batch_size=2, fanouts=[3, 2], labels=planted.labels,
        uniform={"item": 5, "user": 4, "tag": 3}, teacher=TeacherRows(folder))


@pytest.fixture(scope="module")
def source(sources):
    """Seven batches of two seeds, the last of one: eight devices do not come out even."""
    return sources(13)


def of_one_device(source, variables, objective, indices):
    """The loss of several batches' rows one after another, and its gradient: no axis, no collective."""
    batches = source.side_by_side(0, indices).batches

    def loss(variables):
        outputs = [STUDENT.apply(batch_variables(variables, batch), batch.graph) for batch in batches]

        def joined(*rows):
            return jnp.concatenate(rows)

        def taken(name):
            rows = [getattr(batch, name) for batch in batches]
            output = jax.tree.map(joined, *[r.of(o) for r, o in zip(rows, outputs, strict=True)])
            labels = np.concatenate([r.labels for r in rows])
            teacher = jax.tree.map(joined, *[r.teacher for r in rows])
            return output, labels, teacher, rows

        output, labels, _, rows = taken("seeds")
        where = np.concatenate([r.where for r in rows])
        total, _ = Objective(supervised=objective.supervised)(output, labels, where=where)
        if objective.needs_teacher:
            output, labels, teacher, _ = taken("uniform")
            distilled, _ = Objective(**{name: getattr(objective, name) for name in (
                "soft_target_kl", "type_pair_correlation", "temperature", "distil_rows")}, supervised=0.0)(
                output, labels, teacher=teacher, where=labels >= 0)
            total += distilled
        return total

    return jax.jit(jax.value_and_grad(loss))(variables)


def over_devices(source, variables, objective, count, form, epoch=0):
    """The same of a step on `count` devices: the recorder's state is the gradient."""
    devices = Devices(count, form=form)
    state = initial_state(0, variables, objective, RECORDER)
    step = mapped(partial(train_step, model=STUDENT, objective=objective, optimizer=RECORDER), devices)
    placed = Steps(source, devices)(0, 0)
    new, records = step(devices.everywhere(state), placed.batch, {}, devices.everywhere(np.int32(epoch)))
    return devices.on_host(records), devices.on_host(new.opt_state)


def assert_gradients_equal(ours, theirs):
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
    assert largest > 0.01
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, largest)), ours, theirs)


@pytest.mark.parametrize(("form", "count"), [
    ("jit", 1), ("jit", 8), ("pmap", 4),
    *(pytest.param(form, count, marks=pytest.mark.slow)
      for form, count in (("jit", 2), ("jit", 4), ("pmap", 1), ("pmap", 2), ("pmap", 8)))])
def test_the_gradient_is_one_devices_on_the_joined_batch(source, parameters, form, count):
    """With 8 devices the seventh has one seed that counts and the eighth none."""
    variables = parameters(STUDENT, source.graph.shapes())
    expected, theirs = of_one_device(source, variables, HIRE, range(count))
    records, ours = over_devices(source, variables, HIRE, count, form)
    np.testing.assert_allclose(records["loss"], expected, rtol=1e-6)
    assert_gradients_equal(ours, theirs)


@pytest.mark.parametrize("objective", [
    pytest.param(Objective(), marks=pytest.mark.slow), Objective(soft_target_kl=1.0, distil_rows="train")],
    ids=["supervised", "on training nodes"])
def test_terms_with_masks(sources, parameters, objective):
    """A batch of two seeds and one of one: the mean over three, which the mean of the two batches is not."""
    source = sources(3)
    variables = parameters(STUDENT, source.graph.shapes())
    expected, theirs = of_one_device(source, variables, objective, range(2))
    records, ours = over_devices(source, variables, objective, 2, "jit")
    np.testing.assert_allclose(records["loss"], expected, rtol=1e-6)
    assert_gradients_equal(ours, theirs)


def test_pairs_between_devices_are_in_the_loss(source, parameters):
    """The relation-level term of two devices is that of all their nodes, which the mean of the two is not."""
    variables = parameters(STUDENT, source.graph.shapes())
    relation = Objective(supervised=0.0, type_pair_correlation=1.0)
    joint, _ = of_one_device(source, variables, relation, [0, 1])
    alone = [of_one_device(source, variables, relation, [index])[0] for index in (0, 1)]
    records, _ = over_devices(source, variables, relation, 2, "jit")
    np.testing.assert_allclose(records["type_pair_correlation"], joint, rtol=1e-6)
    assert abs(np.mean(alone) - joint) > 1e-4


@pytest.mark.slow
def test_learned_weights_and_schedules(source, parameters):
    """What the objective learns has one gradient too, and weights follow the epoch they are given."""
    variables = parameters(STUDENT, source.graph.shapes())
    objective = Objective(soft_target_kl=lambda epoch: 2.0 * epoch, uncertainty=True)
    for epoch, weight in ((1, 2.0), (0, 0.0)):
        records, (_, log_variances) = over_devices(source, variables, objective, 2, "jit", epoch)
        np.testing.assert_allclose(log_variances["supervised"], 0.5 * (1 - records["supervised"]), rtol=1e-5)
        expected = 0.5 * (1 - weight * records["soft_target_kl"]) if weight else 0.0
        np.testing.assert_allclose(log_variances["soft_target_kl"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_conflicting_gradients_are_joined_before_they_are_projected(source, parameters):
    """With pcgrad, too, two devices do what one does on both batches."""
    variables = parameters(STUDENT, source.graph.shapes())
    plain = Objective(soft_target_kl=1.0)
    surgery = Objective(soft_target_kl=1.0, pcgrad=True)
    (_, straight), (_, projected) = (over_devices(source, variables, objective, 2, "jit")
                                     for objective in (plain, surgery))
    parts = [over_devices(source, variables, Objective(**weights), 2, "jit")[1]
             for weights in ({"supervised": 1.0}, {"supervised": 0.0, "soft_target_kl": 1.0})]
    flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(part)]) for part in (*parts, straight, projected)]
    np.testing.assert_allclose(flat[0] + flat[1], flat[2], atol=1e-6)
    against = flat[0] @ flat[1]
    expected = flat[2] if against >= 0 else flat[2] - against * (flat[0] / (flat[0] @ flat[0])
                                                                 + flat[1] / (flat[1] @ flat[1]))
    np.testing.assert_allclose(flat[3], expected, atol=1e-5)


def test_dropout_differs_from_device_to_device_and_from_step_to_step(source, parameters):
    """One device's batch on both: with equal masks the loss would be that of the one."""
    model = STUDENT.copy(dropout=0.5)
    variables, batches = parameters(model, source.graph.shapes()), source.side_by_side(0, [0]).batches

    def loss(count, number, model=model):
        devices = Devices(count)
        step = mapped(partial(train_step, model=model, objective=Objective(), optimizer=RECORDER), devices)
        state = initial_state(0, variables, Objective(), RECORDER)._replace(step=np.int32(number))
        return float(devices.on_host(step(devices.everywhere(state), devices.one_each(batches * count), {},
                                          devices.everywhere(np.int32(0)))[1])["loss"])

    one = loss(1, 0)
    assert one == loss(1, 0) != loss(1, 1)
    assert abs(loss(2, 0) - one) > 1e-3
    np.testing.assert_allclose(loss(2, 0, STUDENT), loss(1, 0, STUDENT), rtol=1e-6)


@pytest.mark.parametrize("objective", [
    pytest.param(Objective(supervised=0.0, soft_target_kl=1.0, reliability="entropy"), marks=pytest.mark.slow),
    Objective(supervised=0.0, soft_target_kl=1.0, reliability="correctness"),
    pytest.param(Objective(supervised=0.0, others={"logit_mse": 1.0, "dist": 1.0, "linear_cka": 1.0}),
                 marks=pytest.mark.slow)], ids=["entropy", "correctness", "others"])
def test_without_uniform_nodes_the_seeds_that_count_are_taught(sources, parameters, objective):
    """The last batch has one seed, and what fills it up is not compared: the loss of 7 rows, on two devices."""
    full = sources(7)
    source = BatchSource(full.graph, target="item", nodes=np.arange(7), batch_size=4, fanouts=[-1, -1],
                         labels=full.labels, teacher=full.teacher)
    variables = parameters(STUDENT, source.graph.shapes())
    records, _ = over_devices(source, variables, objective, 2, "jit")
    whole = BatchSource(full.graph, target="item", nodes=np.arange(7), batch_size=7, fanouts=[-1, -1],
                        labels=full.labels, teacher=full.teacher)
    batch = whole(0, 0)
    taken = batch.seeds.of(STUDENT.apply(variables, batch.graph))
    expected = objective(taken, batch.seeds.labels, teacher=batch.seeds.teacher)[1]
    for name, value in expected.items():
        np.testing.assert_allclose(records[name], value, rtol=1e-4, err_msg=name)


def test_logits_of_all_devices_seeds_in_their_order(source, parameters, planted):
    variables, devices = parameters(STUDENT, source.graph.shapes()), Devices(4)
    exact = BatchSource(source.graph, target="item", nodes=np.arange(13), batch_size=2, fanouts=[-1, -1],
                        labels=planted.labels, shuffle=False)
    logits = mapped(partial(seed_logits, model=STUDENT), devices)
    steps = Steps(exact, devices)
    assert len(exact) == 7 and len(steps) == 2
    found = np.concatenate([devices.on_host(logits(devices.everywhere(variables), steps(0, index).batch, {}))
                            for index in range(2)])
    np.testing.assert_allclose(found[:13], STUDENT.apply(variables, planted.graph).logits[:13], rtol=1e-4, atol=1e-5)
