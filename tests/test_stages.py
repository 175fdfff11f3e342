"""Two stages: what a module takes over from a trained network, where `fit` begins, and a backbone that moves slowly."""

import re
from functools import partial
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hire_jax as hj
from hire_jax.data import synthetic_hetero
from hire_jax.models import GAT, GCN, GKEDM, GraphSAGE
from hire_jax.training import fit, named_key

pytestmark = pytest.mark.usefixtures("quick_compilation")

FORM: dict[str, Any] = {"target": "item", "num_classes": 3, "hidden": 4, "projection": False, "norm": False}
BACKBONE = GCN(**FORM, dropout=0.2)
MODULE = GKEDM(backbone=BACKBONE, heads=2, positions=False)
SHORT: dict[str, Any] = {"seeds": (4, 2), "epochs": 3, "chunk": 3, "monitor": "val_loss"}


@pytest.fixture(scope="module")
def dataset():
    return synthetic_hetero({"item": 40}, [("item", "to", "item")], reverse=False, feature_width=6, feature_density=1.0,
                            feature_noise=0.4, train_rate=0.3, val_rate=0.3, mean_degree=3.0)


def variables(model, dataset, seeds=(4, 2)):
    """Fresh ones, without compiling `init`."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), dataset.graph)
    rng = np.random.default_rng(0)
    axis = () if seeds is None else (len(seeds),)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(*axis, *x.shape)), x.dtype), shapes)


@pytest.fixture(scope="module")
def trained(dataset):
    """Variables of two seeds of the backbone, as if trained."""
    return variables(BACKBONE, dataset)


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def assert_equal(left, right):
    left, right = flat(left), flat(right)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


# --------------------------------------------------------------------------------------------------------- lift


def test_a_lifted_module_begins_where_its_backbone_ended(dataset, trained):
    fresh = variables(MODULE, dataset)
    before = jax.tree.map(np.array, fresh)
    lifted = hj.lift(fresh, backbone=trained)
    assert_equal(fresh, before)  # neither argument is changed
    assert lifted.keys() == fresh.keys() and lifted["params"].keys() == fresh["params"].keys()
    whole, own = trained["params"], lifted["params"]
    assert own["backbone"].keys() == {"GCNLayer_0"} and whole.keys() == {"GCNLayer_0", "GCNLayer_1"}
    assert_equal(own["backbone"]["GCNLayer_0"], whole["GCNLayer_0"])
    # The last convolution's matrix gives every head its values, and the bias stays.
    for head in (slice(0, 3), slice(3, 6)):
        np.testing.assert_array_equal(own["attention"]["value"]["kernel"][..., head], whole["GCNLayer_1"]["kernel"])
    np.testing.assert_array_equal(own["bias"], whole["GCNLayer_1"]["bias"])
    taken = {"attention/value/kernel", "bias"}
    rest = {name: x for name, x in flat(own).items() if not name.startswith("backbone") and name not in taken}
    assert_equal(rest, {name: flat(fresh["params"])[name] for name in rest})
    assert {"attention/query/kernel", "attention/key/bias", "attention/value/bias"} < rest.keys()
    # Without an axis of seeds likewise.
    one = hj.lift(jax.tree.map(lambda x: x[1], fresh), backbone=jax.tree.map(lambda x: x[1], trained))
    assert_equal(one, jax.tree.map(lambda x: x[1], lifted))


def test_without_choice_the_lifted_module_is_the_mean_of_what_its_backbone_sent(dataset):
    """With queries of 0 all weights into a node are equal, and a GraphSAGE layer's matrices do the rest."""
    backbone = GraphSAGE(**FORM, dropout=0.0)
    module: Any = GKEDM(backbone=backbone, heads=2, positions=False, residual=True)
    old = variables(backbone, dataset, None)
    new = hj.lift(variables(module, dataset, None), backbone=old)
    last = old["params"]["SAGELayer_1"]
    np.testing.assert_array_equal(new["params"]["own"]["kernel"], last["root"])
    attention = new["params"]["attention"]
    attention["query"], attention["value"]["bias"] = jax.tree.map(jnp.zeros_like, attention["query"]), jnp.zeros(6)
    output = jax.jit(module.apply)(new, dataset.graph)
    z = np.asarray(output.hidden[-1]["item"])
    senders, receivers = dataset.graph.host_edges()["item", "to", "item"]
    sums = z.copy()
    np.add.at(sums, receivers, z[senders])
    mean = sums / (1 + np.bincount(receivers, minlength=40))[:, None]
    np.testing.assert_allclose(output.logits, mean @ last["kernel"] + z @ last["root"] + last["bias"], rtol=1e-4,
                               atol=1e-4)


@pytest.mark.parametrize(("backbone", "options", "taken"), [
    (BACKBONE, {"readout": "classifier"}, set()),
    (BACKBONE.clone(projection=True), {}, set()),  # its last layer does not give logits
    (GAT(**FORM, heads=2, readout_heads=4), {}, {"bias"}),  # more heads than the module has
], ids=["classifier", "projection", "more heads"])
def test_what_has_no_counterpart_is_left_as_it_is(dataset, backbone, options, taken):
    module = GKEDM(backbone=backbone, heads=2, positions=False, **options)
    fresh, old = variables(module, dataset, None), variables(backbone, dataset, None)
    lifted = hj.lift(fresh, backbone=old)
    kept = lifted["params"]["backbone"]
    assert kept.keys() < old["params"].keys()
    assert_equal(kept, {name: old["params"][name] for name in kept})
    changed = {name for name, x in flat(lifted["params"]).items()
               if not name.startswith("backbone") and np.any(x != flat(fresh["params"])[name])}
    assert changed == taken


@pytest.mark.parametrize(("backbone", "seeds", "message"), [
    (BACKBONE.clone(hidden=5), (4, 2), "backbone: expected GCNLayer_0/bias of shape (2, 4), got (2, 5)"),
    (BACKBONE, (4, 2, 1), "backbone: expected GCNLayer_0/bias of shape (2, 4), got (3, 4)"),
    (BACKBONE, None, "backbone: expected GCNLayer_0/bias of shape (2, 4), got (4,)"),
    (GAT(**FORM, heads=2), (4, 2), "backbone: expected GCNLayer_0/bias of shape (2, 4), got nothing"),
    (BACKBONE.clone(projection=True, norm=True), (4, 2),
     "backbone: expected GCNLayer_0/kernel of shape (2, 6, 4), got (2, 4, 4)"),
])
def test_another_architecture_or_number_of_seeds_is_named(dataset, backbone, seeds, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hj.lift(variables(MODULE, dataset), backbone=variables(backbone, dataset, seeds))


# ------------------------------------------------------------------------------------------------ slow_backbone


def steps(optimizer, params, count=3):
    """Parameters after some steps along gradients that depend on them."""
    state = optimizer.init(params)
    for k in range(count):
        gradient = jax.tree.map(lambda x, k=k: jnp.cos(3 * x + k), params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.fixture
def params(rng):
    def array(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {"params": {"backbone": {"GCNLayer_0": {"kernel": array(3, 2), "bias": array(2)}},
                       "attention": {"value": {"kernel": array(2, 2)}}, "bias": array(4)}}


PLAIN = optax.flatten(optax.adamw(0.1, weight_decay=0.3))


def test_a_factor_of_zero_keeps_the_backbone_to_the_bit(params):
    slow, plain = steps(hj.slow_backbone(PLAIN), params)["params"], steps(PLAIN, params)["params"]
    assert_equal(slow["backbone"], params["params"]["backbone"])
    for name in ("attention", "bias"):  # the rest goes its way
        jax.tree.map(np.testing.assert_array_equal, slow[name], plain[name])
        assert all(np.abs(a - b).min() > 1e-3 for a, b in
                   zip(jax.tree.leaves(slow[name]), jax.tree.leaves(params["params"][name]), strict=True))
    also = steps(hj.slow_backbone(PLAIN, factor=0.0), (params, {"supervised": jnp.ones(())}))  # with log variances
    assert_equal(also[0]["params"]["backbone"], params["params"]["backbone"])
    assert also[1]["supervised"] != 1


def test_a_factor_of_one_is_the_plain_optimizer(params):
    assert_equal(steps(hj.slow_backbone(PLAIN, factor=1.0), params), steps(PLAIN, params))


@pytest.mark.parametrize("optimizer", [PLAIN, optax.sgd(0.1)])
def test_a_factor_of_a_half_is_half_the_step(params, optimizer):
    """Weight decay included."""
    slow = steps(hj.slow_backbone(optimizer, factor=0.5), params, 1)["params"]
    plain = steps(optimizer, params, 1)["params"]
    start = params["params"]
    assert_equal({"rest": slow["attention"]}, {"rest": plain["attention"]})
    for name, x in flat(slow["backbone"]).items():
        whole = flat(plain["backbone"])[name] - flat(start["backbone"])[name]
        assert np.abs(whole).min() > 1e-4
        np.testing.assert_allclose(x - flat(start["backbone"])[name], 0.5 * whole, rtol=1e-3, atol=1e-7)


def test_every_relation_begins_with_the_last_layers_values(dataset, trained):
    module = MODULE.clone(relation_wise=True)
    fresh = variables(module, dataset)
    lifted = hj.lift(fresh, backbone=trained)["params"]["attention"]
    kernel = trained["params"]["GCNLayer_1"]["kernel"]
    maps = [name for name in lifted if name.startswith("value")]
    assert sorted(maps) == ["value", "value_item->item"]
    for name in maps:
        np.testing.assert_array_equal(lifted[name]["kernel"], np.concatenate([kernel, kernel], axis=-1))


@pytest.mark.parametrize(("arguments", "message"), [
    (("module", {}), "backbone: expected trained variables, {'params': ...}, such as result.params, got []"),
    (("module", 3), "such as result.params, got int"),
    (("backbone", "trained"), "fresh: expected variables of a GKEDM, {'params': {'backbone': ...}}, got the p"),
])
def test_what_is_no_variables_is_said(dataset, trained, arguments, message):
    fresh = variables(MODULE, dataset) if arguments[0] == "module" else trained
    with pytest.raises(ValueError, match=re.escape(message)):
        hj.lift(fresh, backbone=trained if arguments[1] == "trained" else arguments[1])


def test_a_slow_backbone_needs_a_backbone(trained):
    with pytest.raises(ValueError, match="slow_backbone: no parameter is under 'backbone'; it is for a GKEDM's"):
        hj.slow_backbone(PLAIN).init(trained)


@pytest.mark.parametrize("factor", [-0.1, float("nan")])
def test_a_negative_factor_is_refused(factor):
    with pytest.raises(ValueError, match=f"factor must be at least 0, got {factor}"):
        hj.slow_backbone(PLAIN, factor=factor)


# ------------------------------------------------------------------------------------------- fit(initialise=...)


def spread(params):
    """Seeds on two devices, where there are two."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:min(2, jax.device_count())]), ("seed",))
    return jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seed")))


def test_fit_begins_at_the_variables_it_is_given(dataset, trained):
    """At a rate of 0 it ends there too: parameters, and metrics in the order of the seeds. On one device, wherever the
    variables were."""
    seen = []

    def initialise(fresh):
        seen.append(fresh)
        return spread(trained)

    still = fit(BACKBONE, dataset, **SHORT, learning_rate=0.0, weight_decay=0.0, initialise=initialise)
    assert_equal(still.params, trained)
    logits = jax.jit(jax.vmap(BACKBONE.apply, in_axes=(0, None)))(trained, dataset.graph).logits
    right = np.argmax(logits, axis=2) == np.asarray(dataset.labels)
    for split, mask in dataset.splits.items():
        expected = right[:, np.asarray(mask)].mean(axis=1)
        np.testing.assert_allclose(still.metrics[f"{split}_accuracy"], expected, rtol=1e-6)
    assert len({tuple(x.tolist()) for x in right}) == 2  # seeds that were mixed up would show
    np.testing.assert_array_equal(still.metrics["best_epoch"], 1)
    np.testing.assert_array_equal(still.history["val_loss"], still.history["val_loss"][:, :1].repeat(3, axis=1))
    fresh, = seen
    for index, seed in enumerate((4, 2)):  # what it is given is what each seed would begin with
        first = BACKBONE.init(named_key(jax.random.key(seed), "init"), dataset.graph)
        assert_equal(jax.tree.map(lambda x, k=index: x[k], fresh), first)


SGD = optax.flatten(optax.sgd(0.03))


@pytest.fixture(scope="module")
def second(dataset, trained):
    """The second stage with the backbone kept, each seed on its own."""
    return fit(MODULE, dataset, **SHORT, optimizer=hj.slow_backbone(SGD),
               initialise=partial(hj.lift, backbone=trained))


def test_the_second_stage_keeps_a_backbone_that_does_not_move(trained, second):
    kept, whole = second.params["params"], trained["params"]
    assert_equal(kept["backbone"]["GCNLayer_0"], whole["GCNLayer_0"])  # the first stage's arrays still live
    moved = np.abs(kept["attention"]["value"]["kernel"][..., :3] - whole["GCNLayer_1"]["kernel"])
    assert 1e-3 < moved.max() < 0.2  # it began there and took at most three steps
    assert np.abs(kept["attention"]["value"]["kernel"][..., 3:] - whole["GCNLayer_1"]["kernel"]).max() < 0.2


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices, real or fake")
def test_devices_change_nothing(dataset, trained, second):
    """The first stage's parameters lie on two devices as well."""
    result = fit(MODULE, dataset, **SHORT, devices=2, optimizer=hj.slow_backbone(SGD),
                 initialise=partial(hj.lift, backbone=spread(trained)))
    assert len(jax.tree.leaves(result.params)[0].sharding.device_set) == 2
    assert_equal(result.params["params"]["backbone"], second.params["params"]["backbone"])
    for name, x in flat(result.params).items():
        np.testing.assert_allclose(x, flat(second.params)[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for name, values in second.history.items():
        np.testing.assert_allclose(result.history[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("change", [
    lambda fresh: {"params": fresh["params"]["GCNLayer_0"]},
    lambda fresh: fresh["params"],
    lambda fresh: jax.tree.map(lambda x: x[0], fresh),  # of one seed
    lambda fresh: jax.tree.map(lambda x: x.astype(jnp.bfloat16), fresh),
    lambda fresh: None,
])
def test_variables_of_another_form_are_refused(dataset, change):
    message = "initialise must return variables of the structure, shapes and dtypes that it is given: expected"
    with pytest.raises(ValueError, match=message):
        fit(BACKBONE, dataset, **SHORT, initialise=change)
