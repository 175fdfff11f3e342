"""`fit` against a plain loop, and that nothing but seeds, data and settings decides its numbers."""

import dataclasses
import logging
import os
import re
import signal
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hire_jax as hj
from hire_jax.checkpoint import Checkpoints
from hire_jax.data import synthetic_hetero
from hire_jax.models import HGT, RGCN, ModelOutput
from hire_jax.models.dropout import Dropout
from hire_jax.training import TrainingError, compile_fit, fit, named_key, predict

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Small(nn.Module, kw_only=True):
    """A model that compiles in a moment: one dense layer a type, dropout, a classifier of the items."""

    width: int = 5
    rate: float = 0.3
    classes: int = 3

    @nn.compact
    def __call__(self, graph, *, train=False):
        hidden = {name: nn.tanh(nn.Dense(self.width, name=name)(x)) for name, x in graph.features.items()}
        last: Any = Dropout(rate=self.rate)(hidden["item"], train=train)
        return ModelOutput(nn.Dense(self.classes, name="out")(last), (hidden, hidden, {"item": last}), ({}, {}))


SETTINGS: dict[str, Any] = {"seeds": 3, "epochs": 12, "patience": 4, "learning_rate": 0.05, "chunk": 5}


@pytest.fixture(scope="module")
def dataset():
    return synthetic_hetero({"item": 60, "user": 15}, feature_width=6, feature_density=1.0, feature_noise=0.6,
                            train_rate=0.3, val_rate=0.3, mean_degree=2.0)


@pytest.fixture(scope="module")
def base(dataset):
    return fit(Small(), dataset, **SETTINGS)


@pytest.fixture(scope="module")
def teachers(dataset):
    """Outputs of eight networks, [8, ...]."""
    model = Small(width=7)
    params = jax.jit(jax.vmap(lambda key: model.init(key, dataset.graph)))(jax.random.split(jax.random.key(9), 8))
    return predict(model, jax.tree.map(lambda x: 3 * x, params), dataset.graph)


def assert_same(left, right, rtol=0.0, atol=0.0):
    """Metrics, histories and parameters agree; exactly, unless a tolerance is given."""
    for name in ("metrics", "history", "params"):
        a, b = getattr(left, name), getattr(right, name)
        assert str(jax.tree.structure(a)) == str(jax.tree.structure(b))
        for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=f"{name} {jax.tree_util.keystr(path)}")


def one_seed(result, index):
    """The same result, of one seed alone."""
    cut = jax.tree.map(lambda x: x[index:index + 1], (result.metrics, result.history, result.params))
    epochs = int(cut[0]["epochs"][0])
    history = {name: values[:, :epochs] for name, values in cut[1].items()}
    return dataclasses.replace(result, metrics=cut[0], history=history, params=cut[2])


# ------------------------------------------------------------------------------------ what the numbers are


@pytest.fixture(scope="module")
def plain_loop(dataset):
    """One seed, one epoch after another, as one would write it by hand."""
    labels, model = np.asarray(dataset.labels), Small()
    train, val = (np.flatnonzero(dataset.splits[name]) for name in ("train", "val"))
    optimizer = optax.adamw(0.1, weight_decay=0.2)

    @jax.jit
    def step(params, state, dropout):
        def loss(params):
            output: Any = model.apply(params, dataset.graph, train=True, rngs={"dropout": dropout})
            return optax.softmax_cross_entropy_with_integer_labels(output.logits[train], labels[train]).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        output: Any = model.apply(params, dataset.graph)
        logits = output.logits[val]
        return params, state, value, optax.softmax_cross_entropy_with_integer_labels(logits, labels[val]).mean(), logits

    def run(seed, *, epochs, patience, monitor):
        key = jax.random.key(seed)
        params = model.init(named_key(key, "init"), dataset.graph)
        state = optimizer.init(params)
        history: dict[str, list[float]] = {"train_loss": [], "val_loss": [], "val_accuracy": []}
        best, best_params, best_epoch, waited = -np.inf, params, 0, 0
        for epoch in range(epochs):
            dropout = jax.random.fold_in(named_key(key, "dropout"), epoch)
            params, state, train_loss, val_loss, logits = step(params, state, dropout)
            history["train_loss"].append(float(train_loss))
            history["val_loss"].append(float(val_loss))
            history["val_accuracy"].append(float(np.mean(np.argmax(logits, axis=1) == labels[val])))
            score = -history["val_loss"][-1] if monitor == "val_loss" else history[monitor][-1]
            if score > best:
                best, best_params, best_epoch, waited = score, params, epoch + 1, 0
            else:
                waited += 1
                if waited == patience:
                    break
        return history, best_params, best_epoch

    return run


@pytest.mark.parametrize(("monitor", "patience"), [("val_loss", 1), ("val_accuracy", 3)])
def test_fit_is_the_plain_loop(dataset, plain_loop, monitor, patience):
    settings = {"epochs": 25, "patience": patience, "monitor": monitor}
    result = fit(Small(), dataset, seeds=(4, 2), chunk=7, learning_rate=0.1, weight_decay=0.2, **settings)
    for index, seed in enumerate((4, 2)):
        history, params, best_epoch = plain_loop(seed, **settings)
        epochs = len(history["val_loss"])
        assert result.metrics["best_epoch"][index] == best_epoch
        assert result.metrics["epochs"][index] == epochs
        assert 1 < epochs < 25  # patience did end it
        for name, values in history.items():
            np.testing.assert_allclose(result.history[name][index, :epochs], values, rtol=1e-4, atol=1e-5)
            assert np.isnan(result.history[name][index, epochs:]).all()
        jax.tree.map(lambda ours, loop, k=index: np.testing.assert_allclose(ours[k], loop, rtol=1e-3, atol=1e-4),
                     result.params, params)
    assert result.history["val_loss"].shape == (2, result.metrics["epochs"].max())


def test_metrics_are_those_of_the_kept_parameters(dataset, base):
    labels, best = np.asarray(dataset.labels), base.metrics["best_epoch"]
    output = jax.jit(lambda params: Small().apply(params, dataset.graph))
    for index in range(3):
        params = jax.tree.map(lambda x, k=index: x[k], base.params)
        logits = np.asarray(output(params).logits, float)
        for split in ("train", "val", "test"):
            rows = np.asarray(dataset.splits[split])
            accuracy = np.mean(logits[rows].argmax(axis=1) == labels[rows])
            assert base.metrics[f"{split}_accuracy"][index] == pytest.approx(accuracy)
            assert base.metrics[f"{split}_micro_f1"][index] == pytest.approx(accuracy)
            assert 0 <= base.metrics[f"{split}_macro_f1"][index] <= 1
        rows = np.asarray(dataset.splits["val"])
        log_p = logits[rows] - np.log(np.exp(logits[rows]).sum(axis=1, keepdims=True))
        assert base.metrics["val_loss"][index] == pytest.approx(-log_p[np.arange(len(log_p)), labels[rows]].mean())
        recorded = base.history["val_loss"][index, best[index] - 1]
        assert recorded == pytest.approx(base.metrics["val_loss"][index], rel=1e-5)
        assert base.history["val_accuracy"][index, best[index] - 1] == base.metrics["val_accuracy"][index]
        assert np.nanargmin(base.history["val_loss"][index]) + 1 == best[index]


def test_the_result_is_as_documented(dataset, base):
    assert base.seeds == (0, 1, 2) and base.model == Small() and base.seconds > 0 and base.compile_seconds > 0
    assert set(base.history) == {"train_loss", "train_supervised", "val_loss", "val_accuracy", "val_macro_f1"}
    assert all(values.shape == (3, base.metrics["epochs"].max()) for values in base.history.values())
    assert all(len(leaf) == 3 for leaf in jax.tree.leaves(base.params))
    assert base.num_parameters == (6 * 5 + 5) * 2 + 5 * 3 + 3
    outputs = base.outputs(attention=True)
    assert base.outputs().attention == ()
    assert outputs.logits.shape == (3, 60, 3)
    for index in range(3):
        expected: Any = Small().apply(jax.tree.map(lambda x, k=index: x[k], base.params), dataset.graph)
        jax.tree.map(lambda ours, one, k=index: np.testing.assert_allclose(ours[k], one, rtol=1e-5, atol=1e-6),
                     outputs, expected)


def test_test_labels_have_no_part_in_it(dataset, base):
    labels = np.asarray(dataset.labels).copy()
    rows = np.asarray(dataset.splits["test"])
    labels[rows] = (labels[rows] + 1) % 3
    changed = fit(Small(), dataclasses.replace(dataset, labels=jnp.asarray(labels)), **SETTINGS)
    for name in ("test_accuracy", "test_macro_f1", "test_micro_f1"):
        assert np.any(changed.metrics.pop(name) != base.metrics[name])
    kept = {name: value for name, value in base.metrics.items() if not name.startswith("test")}
    assert_same(changed, dataclasses.replace(base, metrics=kept))


# --------------------------------------------------------------------------- what must not change a number


def test_a_teacher_no_term_listens_to_is_refused(dataset, teachers):
    with pytest.raises(ValueError, match="no distillation term has a weight"):
        fit(Small(), dataset, **SETTINGS, teacher=jax.tree.map(lambda x: x[0], teachers))


def test_logits_that_do_not_fit_the_labels_are_refused(dataset):
    wrong = dataclasses.replace(dataset, num_classes=dataset.num_classes + 1)
    with pytest.raises(ValueError, match="check the model's target and num_classes"):
        fit(Small(), wrong, **SETTINGS)


def test_the_same_call_gives_the_same_numbers(dataset, base):
    """Whoever looks on."""
    calls = []
    again = fit(Small(), dataset, **SETTINGS, progress=lambda done, history: calls.append((done, dict(history))))
    assert_same(again, base)
    longest = int(base.metrics["epochs"].max())
    assert [done for done, _ in calls] == [5, 10, 12][:-(-longest // 5)]
    for done, history in calls:
        shown = min(done, longest)
        np.testing.assert_array_equal(history["val_loss"][:, :shown], base.history["val_loss"][:, :shown])


def test_the_chunk_changes_nothing_and_nothing_is_compiled_between_chunks(dataset, base, caplog):
    compiled = []

    def count(done, history):
        compiled.append(sum("Finished XLA compilation" in record.getMessage() for record in caplog.records))

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        result = fit(Small(), dataset, **(SETTINGS | {"chunk": 1}), progress=count)
    assert_same(result, base, rtol=1e-6, atol=1e-7)
    assert len(compiled) == base.metrics["epochs"].max()
    assert compiled[0] >= 1 and compiled[-1] == compiled[0]


def test_a_seed_alone_is_the_seed_among_others(dataset, base):
    assert len(set(base.metrics["epochs"].tolist())) > 1  # some wait for others
    first = int(np.argmin(base.metrics["epochs"]))
    assert_same(fit(Small(), dataset, **(SETTINGS | {"seeds": [first]})), one_seed(base, first), rtol=1e-4, atol=1e-5)


def test_batches_of_seeds_change_nothing(dataset, base):
    assert_same(fit(Small(), dataset, **SETTINGS, seed_batch=2), base, rtol=1e-4, atol=1e-5)  # two, then one


def test_seeds_one_after_another_take_no_step_after_their_end(dataset, base):
    steps = []

    def update(gradient, state, params=None):
        jax.debug.callback(lambda: steps.append(1))
        return gradient, state

    counting = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    adam = optax.flatten(optax.adamw(SETTINGS["learning_rate"], weight_decay=1e-3))  # what `fit` takes by itself
    result = fit(Small(), dataset, **SETTINGS, seed_batch=1, optimizer=optax.chain(counting, adam))
    jax.effects_barrier()
    assert_same(result, base, rtol=1e-4, atol=1e-5)
    ends = base.metrics["epochs"]
    assert len(steps) == ends.sum() < len(ends) * ends.max()


def test_seeds_one_after_another_trace_no_more_than_mapped_ones(dataset):
    traced = []

    class Counting(Small):
        def __call__(self, graph, *, train=False):
            traced.append(train)
            return super().__call__(graph, train=train)

    def traces(seed_batch):
        traced.clear()
        compile_fit(Counting(), dataset, **SETTINGS, seed_batch=seed_batch)
        return list(traced)

    assert traces(1) == traces(3) and len(traced) >= 3  # shapes, a gradient, a look at the validation nodes


needs_eight_devices = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices, real or fake")


@pytest.fixture(scope="module")
def student(dataset, teachers):
    """A student of every term with a teacher of its own for each of eight seeds, on one device."""
    objective = hj.Objective(soft_target_kl=1.0, type_pair_correlation=5.0, variant="edges", temperature=2.0)
    settings: dict[str, Any] = {"objective": objective, "seeds": 8, "epochs": 6, "learning_rate": 0.05}
    return settings, fit(Small(), dataset, teacher=teachers, **settings)


@needs_eight_devices
@pytest.mark.parametrize(("devices", "seed_batch"), [
    pytest.param(2, None, marks=pytest.mark.slow), pytest.param(2, 1, marks=pytest.mark.slow), (8, None)])
def test_devices_change_nothing(dataset, teachers, student, devices, seed_batch):
    settings, expected = student
    # the teacher lies where another fit left it
    elsewhere = jax.device_put(teachers, jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.asarray(jax.devices()[:4]), ("seed",)), jax.sharding.PartitionSpec("seed")))
    result = fit(Small(), dataset, teacher=elsewhere, devices=devices, seed_batch=seed_batch, **settings)
    assert len(jax.tree.leaves(result.params)[0].sharding.device_set) == devices
    assert_same(result, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.outputs().logits, expected.outputs().logits, rtol=1e-4, atol=1e-5)


class Stopped(Exception):
    """What ends a run between two chunks."""


def stop_at(epoch, action):
    def progress(done, _):
        if done == epoch:
            action()
    return progress


def interrupt():
    raise Stopped


@needs_eight_devices
@pytest.mark.parametrize(("devices", "seed_batch"), [
    pytest.param(None, None, marks=pytest.mark.slow), pytest.param(2, None, marks=pytest.mark.slow), (2, 1)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(dataset, tmp_path, devices, seed_batch):
    """Three seeds on two devices carry a fourth that is not seen; SIGTERM after the second chunk, an error after the
    third."""
    settings = SETTINGS | {"epochs": 14, "patience": 14, "chunk": 3, "devices": devices, "seeds": 3,
                           "seed_batch": seed_batch}
    expected = fit(Small(), dataset, **settings)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, Checkpoints(tmp_path, config={}) as kept:
        fit(Small(), dataset, checkpoints=kept, **settings,
            progress=stop_at(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert ended.value.code == 0 and signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(Stopped), Checkpoints(tmp_path, config={}) as kept:
        fit(Small(), dataset, checkpoints=kept, progress=stop_at(9, interrupt), **settings)
    seen = []
    with Checkpoints(tmp_path, config={}) as kept:
        resumed = fit(Small(), dataset, checkpoints=kept, progress=lambda done, _: seen.append(done), **settings)
    assert seen == [12, 14]
    for ours, theirs in ((resumed.params, expected.params), (resumed.metrics, expected.metrics),
                         (resumed.history, expected.history)):
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_devices_that_do_not_fit_are_refused(dataset):
    count = jax.device_count()
    for devices, message in ((0, f"devices must be 1 to {count}, the devices JAX sees, got 0"),
                             (count + 1, f"devices must be 1 to {count}, the devices JAX sees, got {count + 1}")):
        with pytest.raises(ValueError, match=message):
            fit(Small(), dataset, seeds=3, devices=devices)


@needs_eight_devices
def test_ten_seeds_on_eight_devices(dataset, teachers, student):
    """Sixteen places for ten seeds: the six that repeat the last one are not seen."""
    settings, expected = student
    ten = jax.tree.map(lambda rows: jnp.concatenate([rows, rows[:2]]), teachers)
    result = fit(Small(), dataset, teacher=ten, devices=8, **(settings | {"seeds": 10}))
    assert result.seeds == tuple(range(10))
    for ours, theirs in ((result.params, expected.params), (result.metrics, expected.metrics),
                         (result.history, expected.history)):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert len(a) == 10 and np.isfinite(a).all()
            np.testing.assert_allclose(a[:8], b, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ teachers


TAUGHT = SETTINGS | {"objective": hj.Objective(supervised=0.0, soft_target_kl=1.0), "patience": 12}


def first(teachers):
    return jax.tree.map(lambda x: x[0], teachers)


@pytest.fixture(scope="module")
def taught(dataset, teachers):
    return fit(Small(), dataset, teacher=first(teachers), **TAUGHT)


def test_a_teacher_pulls_the_student_towards_it(taught, teachers, base):
    def divergence(result):
        return [float(hj.losses.soft_target_kl(logits, teachers.logits[0])) for logits in result.outputs().logits]

    assert np.all(np.asarray(divergence(taught)) < np.asarray(divergence(base)) - 0.02)
    assert np.all(taught.history["train_loss"][:, -1] < 0.8 * taught.history["train_loss"][:, 0])
    np.testing.assert_array_equal(taught.history["train_loss"], taught.history["train_soft_target_kl"])


def test_every_seed_has_its_own_teacher(dataset, teachers, taught):
    """Three teachers, of whom two are the shared one of `taught`, in batches of two seeds."""
    mixed = jax.tree.map(lambda x: jnp.stack([x[0], x[1], x[0]]), teachers)
    result = fit(Small(), dataset, teacher=mixed, seed_batch=2, **TAUGHT)
    for index in (0, 2):
        assert_same(one_seed(result, index), one_seed(taught, index), rtol=1e-4, atol=1e-5)
    first = [r.history["train_soft_target_kl"][1, 0] for r in (result, taught)]
    assert abs(first[0] - first[1]) > 1e-3
    initial = Small().init(named_key(jax.random.key(1), "init"), dataset.graph)
    rngs = {"dropout": jax.random.fold_in(named_key(jax.random.key(1), "dropout"), 0)}
    output: Any = Small().apply(initial, dataset.graph, train=True, rngs=rngs)
    assert first[0] == pytest.approx(float(hj.losses.soft_target_kl(output.logits, teachers.logits[1])), rel=1e-4)


def test_a_random_teacher_is_another_one_every_step(dataset, teachers):
    """Without dropout and at a rate of 0, each step's loss is that of one of the two at the student's start."""
    pool = hj.teachers.RandomTeacher(jax.tree.map(lambda x: x[:2], teachers))
    still = TAUGHT | {"learning_rate": 0.0, "weight_decay": 0.0, "epochs": 12, "patience": 12, "seeds": 1}
    result = fit(Small(rate=0.0), dataset, teacher=pool, **still)
    logits = result.outputs().logits[0]
    known = np.array([hj.losses.soft_target_kl(logits, teachers.logits[k]) for k in range(2)])
    drawn = result.history["train_loss"][0]
    nearest = np.abs(known[:, None] - drawn).argmin(axis=0)
    np.testing.assert_allclose(drawn, known[nearest], rtol=1e-5)
    assert set(nearest) == {0, 1}
    with pytest.raises(ValueError, match="the random teacher's logits must be"):
        fit(Small(), dataset, teacher=hj.teachers.RandomTeacher(pool.outputs._replace(logits=pool.outputs.logits[0])),
            **still)


def test_what_the_objective_learns_is_trained_beside_the_student(dataset, teachers):
    objective = hj.Objective(soft_target_kl=1.0, uncertainty=True)
    result = fit(Small(), dataset, teacher=first(teachers), objective=objective, seeds=3, epochs=30, patience=30,
                 learning_rate=0.05)
    for name in ("supervised", "soft_target_kl"):
        s, term = result.history[f"log_variance_{name}"], result.history[f"train_{name}"]
        assert (s[:, 0] == 0).all()
        assert (np.sign(s[:, 1]) == np.sign(np.log(term[:, 0]))).all()  # towards the term's logarithm
    assert jax.tree.structure(result.params) == jax.tree.structure(fit(Small(), dataset, seeds=1, epochs=1).params)


def test_pcgrad_acts_on_the_student_where_terms_oppose_each_other(dataset, teachers):
    """Steps differ from the plain ones, but not what the objective learns of the same losses."""
    opposed = first(teachers)._replace(logits=-5 * first(teachers).logits)
    two = {"teacher": opposed, "seeds": 3, "epochs": 12, "patience": 12, "learning_rate": 0.05}
    weights = {"soft_target_kl": 1.0, "uncertainty": True}
    surgery = fit(Small(), dataset, objective=hj.Objective(pcgrad=True, **weights), **two)
    summed = fit(Small(), dataset, objective=hj.Objective(**weights), **two)
    np.testing.assert_allclose(surgery.history["train_loss"][:, 0], summed.history["train_loss"][:, 0], rtol=1e-5)
    assert (np.abs(surgery.history["train_loss"] - summed.history["train_loss"]).max(axis=1) > 1e-3).all()
    for name in ("log_variance_supervised", "log_variance_soft_target_kl"):  # Adam's first step, of the plain sign
        np.testing.assert_allclose(surgery.history[name][:, 1], summed.history[name][:, 1], rtol=1e-4)


def test_a_weight_follows_its_schedule(dataset, teachers):
    objective = hj.Objective(soft_target_kl=lambda epoch: jnp.where(epoch < 2, 0.0, 3.0))
    history = fit(Small(), dataset, teacher=first(teachers), objective=objective, seeds=3, epochs=4).history
    for epoch, weight in enumerate((0, 0, 3, 3)):
        expected = history["train_supervised"][:, epoch] + weight * history["train_soft_target_kl"][:, epoch]
        np.testing.assert_allclose(history["train_loss"][:, epoch], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 60, 3), (60, 4), (59, 3), (3, 60, 4)])
def test_a_teacher_that_fits_neither_form_is_refused(dataset, shape):
    teacher = ModelOutput(jnp.zeros(shape), (), ())
    message = f"the teacher's logits must be [60, 3], or [3, 60, 3] with one teacher a seed, got {list(shape)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(Small(), dataset, teacher=teacher, objective=hj.Objective(soft_target_kl=1.0), seeds=3)


def test_a_missing_teacher_and_an_idle_one_are_said(dataset, teachers):
    with pytest.raises(ValueError, match="no teacher is given"):
        fit(Small(), dataset, objective=hj.Objective(soft_target_kl=1.0), seeds=1)
    with pytest.raises(ValueError, match="a teacher is given, but no distillation term has a weight"):
        fit(Small(), dataset, teacher=jax.tree.map(lambda x: x[0], teachers), seeds=1)


@pytest.mark.parametrize("model", [Small(classes=4), RGCN(target="user", num_classes=3)])
def test_a_model_that_does_not_fit_the_labels_is_refused(dataset, model):
    with pytest.raises(ValueError, match=re.escape("but the dataset has labels for [60, 3] (nodes, classes)")):
        fit(model, dataset, seeds=1)


# ------------------------------------------------------------------------------------------ loss not finite


def test_a_loss_that_is_not_finite_names_seed_and_epoch(dataset, teachers):
    """The second of two teachers knows nothing but NaN."""
    bad = jax.tree.map(lambda x: x[:2].at[1].set(jnp.nan), teachers)
    with pytest.raises(TrainingError, match="train_loss of seed 7 is nan at epoch 1;"):
        fit(Small(), dataset, objective=hj.Objective(soft_target_kl=1.0), teacher=bad, seeds=(5, 7), epochs=3)


def test_the_first_epoch_that_is_not_finite_is_named(dataset):
    """The step of epoch 7, in the second chunk, breaks the parameters: validation shows it before the next step."""
    calls = []
    with pytest.raises(TrainingError, match="val_loss of seed 5 is nan at epoch 7;"):
        fit(Small(), dataset, seeds=(5, 7), epochs=30, chunk=4, progress=lambda done, _: calls.append(done),
            learning_rate=lambda count: jnp.where(count == 6, jnp.nan, 0.01))
    assert calls == [4]  # and the run ends there


# ------------------------------------------------------------------------------------------------- options


def test_a_schedule_over_epochs(dataset):
    """A rate of zero from the third epoch on leaves everything as it is, weight decay included."""
    result = fit(Small(), dataset, seeds=2, epochs=6, patience=6, learning_rate=optax.piecewise_constant_schedule(
        0.05, {2: 0.0}))
    losses = result.history["val_loss"]
    assert np.all(losses[:, 2:] == losses[:, 1:2]) and np.all(losses[:, 1] != losses[:, 0])


def by_sign():
    """A user's own transformation, whose first state is the parameters themselves."""
    def update(gradient, state, params):
        return jax.tree.map(lambda g: -0.01 * jnp.sign(g), gradient), params

    return optax.GradientTransformation(lambda params: params, update)


def test_an_optimizer_of_ones_own(dataset):
    result = fit(Small(), dataset, seeds=2, epochs=1, optimizer=by_sign())
    for index in range(2):
        initial = Small().init(named_key(jax.random.key(index), "init"), dataset.graph)
        moved = jax.tree.map(lambda new, old, k=index: np.abs(new[k] - old), result.params, initial)
        np.testing.assert_allclose(moved["params"]["item"]["kernel"], 0.01, rtol=1e-3)
        assert not moved["params"]["user"]["kernel"].any()  # users have no part in a supervised loss here


def test_monitor_macro_f1(dataset):
    result = fit(Small(), dataset, seeds=2, epochs=10, learning_rate=0.1, monitor="val_macro_f1")
    np.testing.assert_array_equal(np.argmax(result.history["val_macro_f1"], axis=1) + 1, result.metrics["best_epoch"])
    np.testing.assert_allclose(result.history["val_macro_f1"].max(axis=1), result.metrics["val_macro_f1"], rtol=1e-6)


def test_multi_label():
    multi = synthetic_hetero({"item": 60, "user": 15}, feature_width=8, feature_density=1.0, feature_noise=0.3,
                             train_rate=0.4, val_rate=0.3, num_classes=4, multilabel=True)
    model = Small(classes=4, rate=0.0)
    plain = fit(model, multi, seeds=2, epochs=60, learning_rate=0.05)
    logits, labels = np.asarray(plain.outputs().logits, float), np.asarray(multi.labels)
    rows = np.asarray(multi.splits["test"])
    for index in range(2):
        right = (logits[index, rows] > 0) == (labels[rows] > 0)
        assert plain.metrics["test_accuracy"][index] == pytest.approx(right.all(axis=1).mean())
        assert right.mean() > 0.75  # half of the classes are positive
    taught = fit(model, multi, seeds=2, epochs=2, teacher=plain.outputs(), objective=hj.Objective(soft_target_kl=1.0))
    first: Any = model.apply(model.init(named_key(jax.random.key(1), "init"), multi.graph), multi.graph)
    expected = hj.losses.bernoulli_kl(first.logits, logits[1])
    assert taught.history["train_soft_target_kl"][1, 0] == pytest.approx(float(expected), rel=1e-4)


def test_named_keys_differ_by_name_and_key():
    keys = [named_key(jax.random.key(seed), name) for seed in (0, 1) for name in ("init", "dropout")]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4
    assert jax.random.key_data(named_key(jax.random.key(0), "init")).tolist() == jax.random.key_data(keys[0]).tolist()


@pytest.mark.parametrize(("settings", "message"), [
    ({"seeds": 0}, "seeds must name at least one seed"),
    ({"seeds": (1, 1)}, "seeds must be distinct, from 0 to 2^32 - 1, got [1, 1]"),
    ({"seeds": (-1,)}, "seeds must be distinct, from 0 to 2^32 - 1, got [-1]"),
    ({"seeds": (2 ** 32,)}, "seeds must be distinct, from 0 to 2^32 - 1, got [4294967296]"),
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"patience": 0}, "patience must be at least 1, got 0"),
    ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ({"seed_batch": 0}, "seed_batch must be at least 1, got 0"),
    ({"monitor": "test_accuracy"}, "monitor must be 'val_loss', 'val_accuracy' or 'val_macro_f1', got 'test_accuracy'"),
])
def test_bad_settings_are_refused(dataset, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(Small(), dataset, **settings)


class Loose:
    """A dataset that checks nothing itself."""

    def __init__(self, dataset, splits):
        self.graph, self.labels, self.num_classes, self.multilabel = dataset.graph, dataset.labels, 3, False
        self.splits = splits


@pytest.mark.parametrize(("changed", "message"), [
    ({"val": None}, "the dataset has no split 'val'; it has ['test', 'train']"),
    ({"val": np.zeros(60, bool)}, "split 'val' holds no node"),
    ({"test": np.zeros(60, int)}, "split 'test' must be a mask bool[60], got int64[60]"),
    ({"train": np.ones(59, bool)}, "split 'train' must be a mask bool[60], got bool[59]"),
])
def test_splits_that_cannot_be_used_are_refused(dataset, changed, message):
    splits = {name: mask for name, mask in (dict(dataset.splits) | changed).items() if mask is not None}
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(Small(), Loose(dataset, splits))


# ------------------------------------------------------------------------------------------- real networks


@pytest.fixture(scope="module")
def planted():
    """Neighbours and sparse features tell the community; guessing gives a third."""
    return synthetic_hetero({"item": 120, "user": 60}, feature_width=30, feature_density=0.2, feature_noise=0.3,
                            train_rate=0.3, val_rate=0.3, noise=0.1)


LEARN: dict[str, Any] = {"seeds": 4, "epochs": 40, "learning_rate": 0.02}


@pytest.mark.slow
@needs_eight_devices
def test_rgcn_learns_on_one_device_and_on_four(planted):
    model = RGCN(target="item", num_classes=3, hidden=8, layers=1, dropout=0.2)
    one = fit(model, planted, **LEARN)
    committed = dataclasses.replace(planted, graph=jax.device_put(planted.graph, jax.devices()[1]))
    four = fit(model, committed, devices=jax.devices()[2:6], seed_batch=1, **LEARN)
    for result in (one, four):
        assert np.all(result.metrics["test_accuracy"] > 0.75)
        assert np.all(result.metrics["train_accuracy"] > 0.9)
    for name, values in one.history.items():  # later epochs enlarge differences in rounding
        np.testing.assert_allclose(four.history[name][:, :5], values[:, :5], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_hgt_learns_in_bfloat16(planted):
    model = HGT(target="item", num_classes=3, hidden=8, layers=1, heads=2, dropout=0.2, dtype=jnp.bfloat16)
    result = fit(model, planted, **LEARN)
    assert np.all(result.metrics["test_accuracy"] > 0.75)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype("float32")}


class Centred(Small, kw_only=True):
    """Its first variables depend on the data: shapes alone do not give them."""

    @nn.compact
    def __call__(self, graph, *, train=False):
        output = super().__call__(graph, train=train)
        mean = self.param("mean", lambda key: output.logits.mean(axis=0))
        return output._replace(logits=output.logits - mean)


@pytest.mark.usefixtures("users_compilation")
def test_a_model_that_starts_from_the_data(dataset):
    still = fit(Centred(), dataset, seeds=1, epochs=1, learning_rate=0.0, weight_decay=0.0)
    variables = Small().init(named_key(jax.random.key(0), "init"), dataset.graph)
    output: Any = Small().apply(variables, dataset.graph)
    np.testing.assert_allclose(still.params["params"]["mean"][0], output.logits.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(still.params["params"]["out"]["kernel"][0], variables["params"]["out"]["kernel"])
