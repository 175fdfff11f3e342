"""Training on batches: what it learns and refuses, and that a stopped run ends as one that was not."""

import dataclasses
import importlib
import os
import signal

import jax
import numpy as np
import optax
import pytest

from hire_jax import Objective, TrainingError, parallel
from hire_jax.checkpoint import CheckpointError, Checkpoints
from hire_jax.identity import LATER
from hire_jax.models import MLP, RGCN
from hire_jax.parallel import step as steps
from hire_jax.sampling import BatchSource, HostGraph
from hire_jax.supervised import cross_entropy
from hire_jax.teachers import TeacherRows, save_teacher_rows

pytestmark = pytest.mark.usefixtures("quick_compilation")

RELATIONAL = RGCN(target="item", num_classes=3, hidden=8, layers=1, dropout=0.0)
MODEL = MLP(target="item", num_classes=3, hidden=8, layers=1, dropout=0.3)  # quick to compile, where any model will do


@pytest.fixture(scope="module")
def host(planted):
    return HostGraph.from_graph(planted.graph)


def source_of(host, planted, nodes, **changes):
    settings = {"target": "item", "batch_size": 8, "fanouts": [-1], "labels": planted.labels}
    return BatchSource(host, nodes=nodes, **(settings | changes))


@pytest.fixture(scope="module")
def training(host, planted):
    """Five batches, the last of three seeds."""
    return source_of(host, planted, np.arange(35))


@pytest.fixture(scope="module")
def validation(host, planted):
    return source_of(host, planted, np.arange(35, 70)[::-1], batch_size=16, shuffle=False)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(ours, theirs):
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_learns_and_keeps_the_best_epoch(training, validation, planted):
    seen = []
    result = parallel.fit(RELATIONAL, training, validation=validation, epochs=6, learning_rate=0.05, devices=2,
                          progress=lambda epoch, step, values: seen.append((epoch, step, dict(values))))
    assert result.history["train_loss"].shape == (6,) == result.history["val_loss"].shape
    assert result.history["train_loss"][-1] < 0.8 * result.history["train_loss"][0]
    best = int(result.metrics["best_epoch"])
    assert result.metrics["val_loss"] == result.history["val_loss"].min() == result.history["val_loss"][best - 1]
    assert result.metrics["steps"] == 18 and result.metrics["epochs"] == 6  # five batches on two devices: 3 steps
    whole = RELATIONAL.apply(result.params, planted.graph).logits  # all neighbours: what sampling saw
    expected = cross_entropy(whole[35:], planted.labels[35:])
    np.testing.assert_allclose(result.metrics["val_loss"], expected, rtol=1e-5)
    assert [(epoch, step) for epoch, step, _ in seen[:5]] == [(0, 1), (0, 2), (0, 3), (1, 3), (1, 1)]
    assert set(seen[3][2]) == {"train_loss", "train_supervised", "val_loss", "val_accuracy", "val_macro_f1",
                               "val_micro_f1"}
    assert result.compilations == 2 and result.compile_seconds > 0 and result.seconds > 0
    assert result.nodes > 6 * 35 and result.edges > 0 and result.num_parameters == sum(x.size for x in
                                                                                     leaves(result.params))


@pytest.mark.parametrize("form", ["jit", "pmap"])
def test_devices_do_what_one_does_with_larger_batches(host, planted, form):
    """Two epochs of four batches on four devices, and of one joined batch on one: the same parameters, without
    dropout and with all neighbours."""
    settings = {"optimizer": optax.sgd(0.1), "epochs": 2}
    joined = parallel.fit(RELATIONAL, source_of(host, planted, np.arange(32), batch_size=32), **settings)
    spread = parallel.fit(RELATIONAL, source_of(host, planted, np.arange(32)), devices=4, form=form, **settings)
    for a, b in zip(leaves(joined.params), leaves(spread.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(joined.history["train_loss"], spread.history["train_loss"], rtol=1e-6)


def test_it_distils_from_mapped_rows(host, planted, tmp_path):
    """A student of the teacher's form, without labels, comes to agree with it."""
    teacher = RGCN(target="item", num_classes=3, hidden=8, layers=2, dropout=0.0)
    variables = teacher.init(jax.random.key(3), planted.graph)
    taught = teacher.apply(variables, planted.graph)
    save_teacher_rows(tmp_path, taught, config={})
    source = source_of(host, planted, np.arange(35), fanouts=[-1, -1], teacher=TeacherRows(tmp_path),
                       uniform={"item": 30, "user": 20, "tag": 6})
    hire = Objective(supervised=0.0, soft_target_kl=1.0, type_pair_correlation=0.5)
    result = parallel.fit(teacher, source, objective=hire, epochs=15, learning_rate=0.02, weight_decay=0.0, seed=1)
    first, last = (result.history["train_soft_target_kl"][epoch] for epoch in (0, -1))
    assert last < 0.35 * first
    assert result.history["train_type_pair_correlation"][-1] < result.history["train_type_pair_correlation"][0]


def test_patience_and_no_validation(training, validation):
    stopped = parallel.fit(MODEL, training, validation=validation, epochs=30, patience=2, learning_rate=0.0)
    assert stopped.metrics["epochs"] == 3 and stopped.metrics["best_epoch"] == 1
    plain = parallel.fit(MODEL, training, epochs=2)
    assert plain.metrics == {"best_epoch": 2.0, "epochs": 2.0, "steps": 10.0} and set(plain.history) == {
        "train_loss", "train_supervised"}


def test_features_that_stay_on_the_devices(host, planted, training):
    bare = source_of(host, planted, np.arange(35), resident=["item", "user", "tag"])
    tables = {name: np.asarray(x) for name, x in planted.graph.features.items()}
    ours = parallel.fit(RELATIONAL, bare, epochs=2, devices=2, features=tables)
    theirs = parallel.fit(RELATIONAL, training, epochs=2, devices=2)
    for a, b in zip(leaves(ours.params), leaves(theirs.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class Stopped(Exception):
    """What ends a run in its middle."""


def until(step, action):
    """A `progress` that acts once, at the n-th call."""
    calls = []

    def progress(*_):
        calls.append(0)
        if len(calls) == step:
            action()
    return progress


def raise_stopped():
    raise Stopped


@pytest.fixture(scope="module")
def undisturbed(training, validation):
    return parallel.fit(MODEL, training, validation=validation, epochs=3, devices=2, learning_rate=0.05)


@pytest.mark.parametrize("calls", [3, *(pytest.param(calls, marks=pytest.mark.slow) for calls in (2, 4, 7))])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(training, validation, undisturbed, tmp_path, calls):
    """Within an epoch, at its last step, after its validation, and in a later one."""
    settings = {"validation": validation, "epochs": 3, "devices": 2, "learning_rate": 0.05, "every": 1}
    with pytest.raises(Stopped), Checkpoints(tmp_path, config={"a": 1}) as kept:
        parallel.fit(MODEL, training, checkpoints=kept, progress=until(calls, raise_stopped), **settings)
    with Checkpoints(tmp_path, config={"a": 1}) as kept:
        resumed = parallel.fit(MODEL, training, checkpoints=kept, **settings)
    assert_same_bits(resumed.params, undisturbed.params)
    assert resumed.metrics == undisturbed.metrics
    assert {name: values.tolist() for name, values in resumed.history.items()} == {
        name: values.tolist() for name, values in undisturbed.history.items()}
    with Checkpoints(tmp_path, config={"a": 1}) as kept:  # a finished run has nothing left to do
        again = parallel.fit(MODEL, training, checkpoints=kept, **settings)
    assert again.nodes == 0 and again.compilations == 0
    assert_same_bits(again.params, undisturbed.params)


@pytest.mark.parametrize("calls", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_sigterm_saves_and_exits_0(training, validation, undisturbed, tmp_path, calls):
    settings = {"validation": validation, "epochs": 3, "devices": 2, "learning_rate": 0.05}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, Checkpoints(tmp_path, config={}) as kept:
        parallel.fit(MODEL, training, checkpoints=kept, **settings,
                     progress=until(calls, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert stopped.value.code == 0 and signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [str(calls + 1) if calls < 3 else "3"]
    with Checkpoints(tmp_path, config={}) as kept:
        resumed = parallel.fit(MODEL, training, checkpoints=kept, **settings)
    assert_same_bits(resumed.params, undisturbed.params)


def test_a_loss_that_is_not_finite_is_named_and_never_saved(host, planted, training, tmp_path):
    """The third step's parameters overflow, so the fourth step's loss does."""
    def update(gradient, state, params=None):
        return jax.tree.map(lambda g: jax.numpy.where(state == 2, jax.numpy.nan, 0.0 * g), gradient), state + 1

    broken = optax.GradientTransformation(lambda params: jax.numpy.int32(0), update)
    with Checkpoints(tmp_path, config={}) as kept, pytest.raises(
            TrainingError, match=r"the loss is nan at step 4 of all, in epoch 1 \(loss nan, supervised nan\)"):
        parallel.fit(MODEL, training, optimizer=broken, epochs=2, checkpoints=kept, every=1)
    saved = sorted(int(path.name) for path in tmp_path.iterdir() if path.is_dir())
    assert saved and max(saved) <= 3
    with pytest.raises(TrainingError, match="at step 4 of all"):  # found while later steps are on their way
        parallel.fit(MODEL, source_of(host, planted, np.arange(35), batch_size=3), optimizer=broken, epochs=1)


@pytest.mark.parametrize("where", ["step", *(pytest.param(where, marks=pytest.mark.slow)
                                             for where in ("batch", "validation"))])
def test_out_of_memory_names_a_smaller_batch(training, validation, monkeypatch, where):
    """Where a batch is put, where a step is compiled, and where the logits of validation are."""
    def full(*_, **__):
        raise jax.errors.JaxRuntimeError(f"{kind}: Out of memory allocating 9 bytes.\nmore")

    place = {"batch": (parallel.Devices, "one_each"), "step": (steps, "train_step"),
             "validation": (steps, "seed_logits")}
    monkeypatch.setattr(*place[where], full)
    fits = importlib.import_module("hire_jax.parallel.fit")  # the name in the package is the function
    for name in ("train_step", "seed_logits"):
        monkeypatch.setattr(fits, name, getattr(steps, name))
    kind = "RESOURCE_EXHAUSTED"
    with pytest.raises(MemoryError, match=r"batches of 8 seeds does not fit .* batch_size=4, .* allocating 9 bytes"):
        parallel.fit(MODEL, training, validation=validation, epochs=1)
    kind = "INTERNAL"
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: Out"):  # another error stays what it is
        parallel.fit(MODEL, training, validation=validation, epochs=1)


@pytest.mark.slow
def test_without_validation_and_with_keys_in_the_optimisers_state(training, tmp_path):
    """The last parameters are the result; stopped after the first epoch, within the second, and finished."""
    settings = {"optimizer": optax.chain(optax.add_noise(0.01, 0.55, jax.random.key(0)), optax.sgd(0.1)),
                "epochs": 3, "devices": 2, "every": 2}
    expected = parallel.fit(MODEL, training, **(settings | {"every": None}))
    for calls in (4, 6):
        with pytest.raises(Stopped), Checkpoints(tmp_path, config={}) as kept:
            parallel.fit(MODEL, training, checkpoints=kept, progress=until(calls, raise_stopped), **settings)
        settings["epochs"] = 3
    with Checkpoints(tmp_path, config={}) as kept:
        resumed = parallel.fit(MODEL, training, checkpoints=kept, **settings)
    assert_same_bits(resumed.params, expected.params)
    assert resumed.metrics == expected.metrics == {"best_epoch": 3.0, "epochs": 3.0, "steps": 9.0}


def test_checkpoints_of_another_run_are_refused(host, planted, training, validation, tmp_path):
    settings = {"validation": validation, "epochs": 1, "devices": 2}
    with Checkpoints(tmp_path, config={}) as kept:
        parallel.fit(MODEL, training, checkpoints=kept, **settings)
    others = source_of(host, planted, np.arange(36))
    for model, source, changes, message in (
            (MODEL, training, {"seed": 1}, "seed: expected 1, found 0"),
            (MODEL, training, {"learning_rate": 1.0}, "learning_rate: expected 1.0, found 0.005"),
            (MODEL, training, {"monitor": "val_accuracy"}, "monitor: expected 'val_accuracy', found 'val_loss'"),
            (MODEL, training, {"validation": None}, "validation: expected None, found"),
            (MODEL, training, {"devices": 4}, "source: expected .*devices 4., found .*devices 2.$"),
            (MODEL, training, {"objective": Objective(label_smoothing=0.1)}, "objective: expected"),
            (MODEL.copy(dropout=0.1), training, {}, "model: expected .*dropout = 0.1"),
            (MODEL, others, {}, "source: expected")):
        with Checkpoints(tmp_path, config={}) as kept, pytest.raises(
                CheckpointError, match=rf"(?s)/3: a checkpoint of another run; {message}"):
            parallel.fit(model, source, checkpoints=kept, **(settings | changes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaterObjective(Objective):
    """An objective of a later version, with an option that this one does not have."""

    option: float = dataclasses.field(default=0.0, metadata=LATER)


def test_an_option_that_a_later_version_adds_is_another_run_only_where_it_is_used(training, validation, tmp_path):
    settings = {"validation": validation, "epochs": 1, "devices": 2}
    with Checkpoints(tmp_path, config={}) as kept:
        first = parallel.fit(MODEL, training, objective=Objective(), checkpoints=kept, **settings)
    with Checkpoints(tmp_path, config={}) as kept:
        same = parallel.fit(MODEL, training, objective=LaterObjective(), checkpoints=kept, **settings)
    assert_same_bits(same.params, first.params)
    with Checkpoints(tmp_path, config={}) as kept, pytest.raises(CheckpointError, match=r"objective: .*option"):
        parallel.fit(MODEL, training, objective=LaterObjective(option=1.0), checkpoints=kept, **settings)


def test_sigterm_during_validation_leaves_before_its_end(training, validation, undisturbed, tmp_path, monkeypatch):
    settings = {"validation": validation, "epochs": 3, "devices": 2, "learning_rate": 0.05}
    sample, asked = BatchSource.side_by_side, []

    def terminated(source, *arguments, **named):
        if source is validation and not asked:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))
        return sample(source, *arguments, **named)

    monkeypatch.setattr(BatchSource, "side_by_side", terminated)
    with pytest.raises(SystemExit) as stopped, Checkpoints(tmp_path, config={}) as kept:
        parallel.fit(MODEL, training, checkpoints=kept, **settings)
    assert stopped.value.code == 0 and asked
    with Checkpoints(tmp_path, config={}) as kept:
        resumed = parallel.fit(MODEL, training, checkpoints=kept, **settings)
    assert_same_bits(resumed.params, undisturbed.params)
    assert resumed.metrics == undisturbed.metrics


def test_what_is_refused(host, planted, training, validation, tmp_path):
    no_labels = source_of(host, planted, np.arange(35), labels=None)
    shuffled = source_of(host, planted, np.arange(35, 70))
    bare = source_of(host, planted, np.arange(35), resident=["item"])
    unlabelled = source_of(host, planted, np.arange(35, 70), shuffle=False,
                           labels=np.where(np.arange(70) == 40, -1, planted.labels))
    for settings, message in (
            ({"objective": Objective(soft_target_kl=1.0)}, "no teacher=: TeacherRows"),
            ({"objective": Objective(attention_map_kl=1.0)}, "attention_map_kl compares the ends of edges"),
            ({"objective": Objective(type_pair_correlation=1.0, variant="edges")}, "variant='edges' compares the ends"),
            ({"objective": Objective(type_pair_correlation=1.0, hubs="degree")}, "hubs='degree' counts edges, which"),
            ({"objective": Objective(supervised=0.0)}, "no term with a weight"),
            ({"epochs": 0}, "epochs must be at least 1, got 0"),
            ({"every": 5}, "every is given, but no checkpoints="),
            ({"patience": 5}, "patience is given, but no validation="),
            ({"monitor": "test_accuracy"}, "monitor must be"),
            ({"devices": 9}, "devices must be 1 to 8"),
            ({"devices": []}, "at least one device"),
            ({"devices": jax.devices()[:1] * 2}, "at least one device, and each once"),
            ({"seed": -1}, r"seed must be from 0 to 2\^32 - 1, got -1"),
            ({"form": "xla"}, "form must be 'jit' or 'pmap', got 'xla'"),
            ({"features": {"item": 0}}, r"resident types \[\], got \['item'\]"),
            ({"validation": no_labels}, "validation must have labels="),
            ({"validation": shuffled}, "validation must have shuffle=False"),
            ({"validation": bare}, "the target and the resident types"),
            ({"validation": unlabelled}, r"got 1 without a label, the first of them 40")):
        with pytest.raises(ValueError, match=message):
            parallel.fit(MODEL, training, **settings)
    with pytest.raises(ValueError, match="the source must have labels="):
        parallel.fit(MODEL, no_labels)
    for model, logits in ((MODEL.copy(target="user"), r"\[50, 3\]"), (MODEL.copy(num_classes=2), r"\[70, 2\]")):
        with pytest.raises(ValueError, match=rf"logits are {logits}, but 'item' has 70 nodes with labels of 3 classes"):
            parallel.fit(model, training)
    with pytest.raises(ValueError, match="the source has a teacher, but no distillation term"):
        teacher = MODEL.apply(MODEL.init(jax.random.key(0), planted.graph), planted.graph)
        save_teacher_rows(tmp_path, teacher, config={})
        parallel.fit(MODEL, source_of(host, planted, np.arange(35), teacher=TeacherRows(tmp_path)))
    with pytest.raises(ValueError, match="soft_target_kl reads nodes of the target: uniform must have some of 'item'"):
        parallel.fit(MODEL, source_of(host, planted, np.arange(35), teacher=TeacherRows(tmp_path), uniform={"user": 3}),
                     objective=Objective(soft_target_kl=1.0))
    with pytest.raises(ValueError, match="type_pair_correlation compares nodes of two types"):
        parallel.fit(MODEL, source_of(host, planted, np.arange(35), teacher=TeacherRows(tmp_path)),
                     objective=Objective(type_pair_correlation=1.0))
