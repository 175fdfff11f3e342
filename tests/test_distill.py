"""The supervised loss against a loop, and the objective as the weighted sum of its terms."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.keys import key, plain
from hire_jax import ModelOutput, Objective, losses
from hire_jax.supervised import cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
LOGITS: Any = (RNG.normal(size=(6, 4)) * 3).astype(np.float32)
LABELS: Any = np.array([3, 0, -1, 2, 2, 1], np.int32)
MULTI_HOT: Any = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [-1] * 4, [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1]], np.int32)
WHERE: Any = np.array([True, True, True, False, True, False])


def by_loop(logits, labels, smoothing, where):
    """Mean over counted rows of the cross-entropy, in float64 and from the definition."""
    values, classes = [], logits.shape[1]
    for z, y, counted in zip(logits.astype(float), labels, where, strict=True):
        if not counted or np.min(y) < 0:
            continue
        if labels.ndim == 1:
            p = [math.exp(v) / sum(math.exp(u) for u in z) for v in z]
            target = [(1 - smoothing) * (c == y) + smoothing / classes for c in range(classes)]
            values.append(-sum(t * math.log(q) for t, q in zip(target, p, strict=True)))
        else:
            p = [1 / (1 + math.exp(-v)) for v in z]
            target = [(1 - smoothing) * c + smoothing / 2 for c in y]
            values.append(-sum(t * math.log(q) + (1 - t) * math.log(1 - q) for t, q in zip(target, p, strict=True)))
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("labels", [LABELS, MULTI_HOT], ids=["single", "multi"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("where", [None, WHERE, np.zeros(6, bool)], ids=["all", "some", "none"])
def test_cross_entropy(labels, smoothing, where: Any):
    expected = by_loop(LOGITS, labels, smoothing, np.ones(6, bool) if where is None else where)

    @jax.jit
    @jax.value_and_grad
    def loss(logits):
        return cross_entropy(logits, labels, label_smoothing=smoothing, where=where)

    value, gradient = loss(LOGITS)
    assert value.shape == () and value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()
    counted = (labels.reshape(6, -1) >= 0).all(axis=1) & (True if where is None else where)
    assert (np.abs(gradient).max(axis=1) > 0).tolist() == counted.tolist()


@pytest.mark.parametrize("labels", [LABELS, MULTI_HOT], ids=["single", "multi"])
def test_what_uncounted_rows_hold_has_no_influence(labels):
    logits = LOGITS.copy()
    logits[2], logits[3] = np.nan, np.inf  # unlabelled, and masked
    value, gradient = jax.jit(jax.value_and_grad(lambda z: cross_entropy(z, labels, where=WHERE)))(logits)
    np.testing.assert_allclose(value, by_loop(LOGITS, labels, 0.0, WHERE), rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_cross_entropy_of_large_logits_is_finite():
    value, gradient = jax.value_and_grad(lambda z: cross_entropy(z, jnp.array([0])))(jnp.array([[-1e4, 1e4]]))
    assert value == 2e4 and np.isfinite(gradient).all()


@pytest.mark.parametrize("labels", [LABELS[:5], MULTI_HOT[:, :3], MULTI_HOT.T])
def test_labels_of_neither_form_are_refused(labels):
    message = f"labels must be (6,) or (6, 4) to fit the logits, got {labels.shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        cross_entropy(LOGITS, labels)


# ---------------------------------------------------------------------------------------------- objective

EDGES = {("a", "r", "b"): (jnp.array([0, 5, 2]), jnp.array([0, 2, 1])),
         ("b", "s", "b"): (jnp.array([0]), jnp.array([1]))}


def output(seed, width, layers=3, types=("a", "b"), classes=4):
    """`a` is the target. The last hidden layer knows it alone."""
    rng = np.random.default_rng(seed)
    rows = {"a": 6, "b": 3, "c": 2}
    hidden = [{t: jnp.asarray(rng.normal(size=(rows[t], width)), jnp.float32) for t in types} for _ in range(layers)]
    hidden.append({"a": hidden[-1]["a"] * 2})
    return ModelOutput(jnp.asarray(rng.normal(size=(6, classes)), jnp.float32), tuple(hidden), ({},) * layers)


STUDENT, TEACHER = output(1, 3), output(2, 5)


def evaluate(objective, student=STUDENT, teacher: Any = TEACHER, labels=LABELS, **kwargs):
    return jax.jit(lambda s, t: objective(s, labels, teacher=t, where=WHERE, edges=EDGES, **kwargs))(student, teacher)


def test_the_default_is_cross_entropy_alone():
    total, terms = evaluate(Objective(), teacher=None)
    assert set(terms) == {"supervised"}
    np.testing.assert_allclose(total, cross_entropy(STUDENT.logits, LABELS, where=WHERE), rtol=1e-6)
    assert not Objective().needs_teacher


@pytest.mark.parametrize("variant", ["all_pairs", "prototype", "edges"])
def test_the_total_is_the_weighted_sum_of_its_terms(variant):
    objective = Objective(supervised=0.5, soft_target_kl=2.0, type_pair_correlation=10.0, temperature=2.0,
                          label_smoothing=0.1, variant=variant)
    assert objective.needs_teacher
    total, terms = evaluate(objective)
    edges = EDGES if variant == "edges" else None
    expected = {
        "supervised": cross_entropy(STUDENT.logits, LABELS, label_smoothing=0.1, where=WHERE),
        "soft_target_kl": losses.soft_target_kl(STUDENT.logits, TEACHER.logits, temperature=2.0),
        "type_pair_correlation": sum(losses.type_pair_correlation(
            STUDENT.hidden[k], TEACHER.hidden[k], variant=variant, edges=edges) for k in (1, 2)) / 2,
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert value > 1e-3
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        total, 0.5 * expected["supervised"] + 2 * expected["soft_target_kl"] + 10 * expected["type_pair_correlation"],
        rtol=1e-5)


@pytest.mark.parametrize(("weights", "present"), [
    ({"soft_target_kl": 1.0}, {"supervised", "soft_target_kl"}),
    ({"supervised": 0.0, "soft_target_kl": 1.0}, {"soft_target_kl"}),
    ({"type_pair_correlation": 1.0}, {"supervised", "type_pair_correlation"}),
    ({"supervised": 0.0}, set()),
])
def test_terms_of_weight_zero_are_not_computed(weights, present):
    total, terms = evaluate(Objective(**weights))
    assert set(terms) == present
    np.testing.assert_allclose(total, sum(terms.values(), jnp.zeros(())), rtol=1e-6)


def test_the_teacher_is_a_constant():
    objective = Objective(soft_target_kl=1.0, type_pair_correlation=1.0)
    floats = STUDENT._replace(attention=()), TEACHER._replace(attention=())
    gradients = jax.jit(jax.grad(lambda s, t: evaluate(objective, s, t)[0], argnums=(0, 1)))(*floats)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients[1]))
    of_student = gradients[0]
    assert np.abs(of_student.logits).min() > 0
    assert [bool(np.abs(layer["a"]).max() > 0) for layer in of_student.hidden] == [False, True, True, False]


def test_distilled_rows():
    """Transductive by default; the training rows alone on request."""
    objectives = (Objective(supervised=0.0, soft_target_kl=1.0),
                  Objective(supervised=0.0, soft_target_kl=1.0, distil_rows="train"))
    for objective, where in zip(objectives, (None, WHERE), strict=True):
        expected = losses.soft_target_kl(STUDENT.logits, TEACHER.logits, where=where)
        np.testing.assert_allclose(evaluate(objective)[0], expected, rtol=1e-6)


def test_multi_label_rows_are_distilled_class_by_class():
    total, _ = evaluate(Objective(supervised=0.0, soft_target_kl=1.0, temperature=3.0), labels=MULTI_HOT)
    expected = losses.bernoulli_kl(STUDENT.logits, TEACHER.logits, temperature=3.0)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert abs(expected - losses.soft_target_kl(STUDENT.logits, TEACHER.logits, temperature=3.0)) > 0.01


@pytest.mark.parametrize(("layers", "matched"), [((0,), (0,)), ((0, 2), (0, 2)), ((-2,), (2,)), ((-4, 1), (0, 1))])
def test_layers_are_matched_as_asked(layers, matched):
    total, _ = evaluate(Objective(supervised=0.0, type_pair_correlation=1.0, layers=layers))
    expected = sum(losses.type_pair_correlation(STUDENT.hidden[k], TEACHER.hidden[k]) for k in matched) / len(matched)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_models_of_different_depth_and_types_are_matched_where_they_share_types():
    deep = output(3, 5, layers=5, types=("a", "b", "c"))
    total, _ = evaluate(Objective(supervised=0.0, type_pair_correlation=1.0, layers=(1,)), teacher=deep)
    shared = {name: deep.hidden[1][name] for name in ("a", "b")}
    np.testing.assert_allclose(total, losses.type_pair_correlation(STUDENT.hidden[1], shared), rtol=1e-5)


def test_edges_of_types_a_layer_lacks_are_left_out():
    edges = EDGES | {("c", "t", "a"): (jnp.array([0]), jnp.array([0]))}
    objective = Objective(supervised=0.0, type_pair_correlation=1.0, variant="edges")
    total, _ = objective(STUDENT, LABELS, teacher=TEACHER, edges=edges)
    np.testing.assert_allclose(total, evaluate(objective)[0], rtol=1e-6)


@pytest.mark.parametrize(("arguments", "teacher", "message"), [
    ({"soft_target_kl": 1.0}, None, "need a teacher have a weight (soft_target_kl), but no teacher is given"),
    ({"type_pair_correlation": 1.0}, None, "but no teacher is given"),
    ({"type_pair_correlation": 1.0}, output(3, 5, layers=4), "student and teacher have 4 and 5 hidden layers; name the "
                                                             "layers to match with layers="),
    ({"type_pair_correlation": 1.0, "layers": (4,)}, TEACHER, "layers names hidden layer 4, but student and teacher "
                                                              "have 4 and 4"),
    ({"type_pair_correlation": 1.0, "layers": (-5,)}, TEACHER, "layers names hidden layer -5"),
    ({"type_pair_correlation": 1.0, "layers": (-1,)}, TEACHER, "hidden layer -1 has only the node types ['a'] in "
                                                               "student and teacher, and a correlation needs two"),
    ({"type_pair_correlation": 1.0, "layers": ()}, TEACHER, "none between input projection and output"),
    ({"soft_target_kl": 1.0}, output(2, 5, classes=3), "expected one shape [N, C]"),
])
def test_what_cannot_be_distilled_is_said(arguments, teacher, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Objective(**arguments)(STUDENT, LABELS, teacher=teacher, where=WHERE, edges=EDGES)


def test_a_model_of_one_layer_has_no_layer_to_match():
    student, teacher = output(1, 3, layers=1), output(2, 5, layers=1)
    with pytest.raises(ValueError, match="a model with 1 layers has none between input projection and output"):
        Objective(type_pair_correlation=1.0)(student, LABELS, teacher=teacher)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"soft_target_kl": -1.0}, "soft_target_kl is the weight of a term and must be >= 0, got -1.0"),
    ({"type_pair_correlation": math.nan}, "type_pair_correlation is the weight of a term and must be >= 0, got nan"),
    ({"supervised": -0.5}, "supervised is the weight of a term"),
    ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
    ({"label_smoothing": 1.0}, "label_smoothing must be in [0, 1), got 1.0"),
    ({"label_smoothing": -0.1}, "label_smoothing must be in [0, 1), got -0.1"),
    ({"variant": "pairs"}, "variant must be 'all_pairs', 'prototype' or 'edges', got 'pairs'"),
    ({"distil_rows": "val"}, "distil_rows must be 'all' or 'train', got 'val'"),
    ({"reliability": "entropy"}, "reliability is given, but no term that it acts on has a weight"),
    ({"group_weights": {"a": 1.0}, "soft_target_kl": 1.0}, "group_weights is given, but no term that it acts on"),
    ({"pcgrad": True, "supervised": 0.0}, "pcgrad is given, but no term that it acts on has a weight"),
    ({"reliability": "luck"}, "reliability must be 'entropy', 'correctness' or None, got 'luck'"),
    ({"group_weights": {"a": -1.0}, "type_pair_correlation": 1.0}, "group_weights of 'a' must be >= 0, got -1.0"),
])
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Objective(**arguments)


def test_an_objective_is_hashable_and_keyword_only():
    assert hash(Objective(soft_target_kl=1.0)) == hash(Objective(soft_target_kl=1.0))
    with pytest.raises(TypeError):
        Objective(1.0)  # type: ignore[call-arg]


# ---------------------------------------------------------------------------------------------- weighting


def test_a_weight_may_be_a_schedule():
    objective = Objective(soft_target_kl=optax.linear_schedule(0.0, 2.0, 10))
    assert objective.needs_teacher
    total = jax.jit(lambda epoch: objective(STUDENT, LABELS, teacher=TEACHER, where=WHERE, epoch=epoch)[0])
    _, terms = objective(STUDENT, LABELS, teacher=TEACHER, where=WHERE)
    for epoch, weight in ((0, 0.0), (5, 1.0), (20, 2.0)):
        np.testing.assert_allclose(total(epoch), terms["supervised"] + weight * terms["soft_target_kl"], rtol=1e-5)


def test_reliability_weighs_the_nodes_of_the_node_level_term():
    kl = losses.soft_target_kl
    for reliability, weights in (
        ("entropy", losses.entropy_reliability(TEACHER.logits, temperature=2.0)),
        ("correctness", losses.correctness_reliability(TEACHER.logits, np.where(WHERE, LABELS, -1))),
    ):
        _, terms = evaluate(Objective(soft_target_kl=1.0, temperature=2.0, reliability=reliability))
        expected = kl(STUDENT.logits, TEACHER.logits, temperature=2.0, weights=weights)
        np.testing.assert_allclose(terms["soft_target_kl"], expected, rtol=1e-5)
        _, terms = evaluate(Objective(soft_target_kl=1.0, reliability=reliability), labels=MULTI_HOT)
        assert np.isfinite(terms["soft_target_kl"])


def test_labels_outside_the_training_nodes_have_no_part_in_reliability():
    objective = Objective(soft_target_kl=1.0, reliability="correctness")
    for labels in (LABELS, MULTI_HOT):
        changed = labels.copy()
        changed[~WHERE] = 1
        assert evaluate(objective, labels=changed)[0] == evaluate(objective, labels=labels)[0]


@pytest.mark.parametrize(("variant", "weights"), [
    ("all_pairs", {"a": 2.0, "c": 0.5}), ("edges", {("a", "r", "b"): 3.0})])
def test_group_weights_reach_the_relation_level_term(variant, weights):
    student, teacher = output(1, 3, types=("a", "b", "c")), output(2, 5, types=("a", "b", "c"))
    objective = Objective(type_pair_correlation=1.0, layers=(1,), variant=variant, group_weights=weights)
    _, terms = evaluate(objective, student, teacher)
    expected = losses.type_pair_correlation(student.hidden[1], teacher.hidden[1], variant=variant, weights=weights,
                                            edges=EDGES if variant == "edges" else None)
    np.testing.assert_allclose(terms["type_pair_correlation"], expected, rtol=1e-5)
    assert hash(objective) == hash(Objective(type_pair_correlation=1.0, layers=(1,), variant=variant,
                                             group_weights=dict(reversed(weights.items()))))
    with pytest.raises(ValueError, match="group_weights names 'z', but the matched layers have"):
        evaluate(Objective(type_pair_correlation=1.0, group_weights={"z": 1.0}))


def test_uncertainty_weighs_terms_by_what_it_learns():
    objective = Objective(soft_target_kl=2.0, uncertainty=True)
    assert objective.init() == {"supervised": 0.0, "soft_target_kl": 0.0}
    learned = {"supervised": jnp.float32(0.5), "soft_target_kl": jnp.float32(-1.0)}

    def total(s):
        return objective(STUDENT, LABELS, teacher=TEACHER, where=WHERE, log_variances=s)

    value, terms = total(learned)
    parts = [0.5 * (np.exp(-0.5) * terms["supervised"] + 0.5), 0.5 * (np.exp(1) * 2 * terms["soft_target_kl"] - 1)]
    np.testing.assert_allclose(value, sum(parts), rtol=1e-5)
    at_best = {"supervised": jnp.log(terms["supervised"]), "soft_target_kl": jnp.log(2 * terms["soft_target_kl"])}
    slopes = jax.grad(lambda s: total(s)[0])(at_best)
    np.testing.assert_allclose([slopes["supervised"], slopes["soft_target_kl"]], 0, atol=1e-6)
    off = Objective(soft_target_kl=lambda epoch: 0.0 * epoch, uncertainty=True)
    infinite = TEACHER._replace(logits=TEACHER.logits.at[0, 0].set(jnp.inf))
    value, slopes = jax.value_and_grad(
        lambda s: off(STUDENT, LABELS, teacher=infinite, where=WHERE, log_variances=s)[0])(learned)
    assert np.isfinite(value) and slopes["soft_target_kl"] == 0
    with pytest.raises(ValueError, match="log_variances must be given with uncertainty=True"):
        objective(STUDENT, LABELS, teacher=TEACHER, where=WHERE)
    assert Objective(soft_target_kl=2.0).init() == {}


# ---------------------------------------------------------------------------------------------- attention

OWN = ("a", "self", "a")
INTO_A = {("b", "t", "a"): (jnp.array([0, 2, 1, 1, 0]), jnp.array([0, 0, 2, 4, 4])),
          ("a", "c", "a"): (jnp.array([1, 5, 0]), jnp.array([0, 2, 3]))}
TO = np.concatenate([INTO_A["b", "t", "a"][1], INTO_A["a", "c", "a"][1], np.arange(6)])  # and each node to itself


def maps(seed, heads, order=(("b", "t", "a"), ("a", "c", "a"), OWN)):
    """{edge type: [E, heads]}: over all relations, a node itself included, the weights into a node sum to 1."""
    weights = np.exp(1.5 * np.random.default_rng(seed).normal(size=(len(TO), heads)))
    weights /= np.stack([np.bincount(TO, column, 6)[TO] for column in weights.T], axis=1)
    parts = dict(zip([*INTO_A, OWN], np.split(weights.astype(np.float32), [5, 8]), strict=True))
    return {edge_type: jnp.asarray(parts[edge_type]) for edge_type in order}


def joined(layer):
    """All maps of a layer in the order of `TO`."""
    return np.concatenate([layer[edge_type] for edge_type in (*INTO_A, OWN)])


# The last layer with attention counts: another before it, and in the student one without after it.
ATTENTIVE = STUDENT._replace(attention=(maps(9, 2), maps(3, 2, order=(OWN, ("a", "c", "a"), ("b", "t", "a"))), {}))
EXPERT = TEACHER._replace(attention=(maps(8, 2), maps(4, 2)))
MAPS: dict[str, Any] = {"supervised": 0.0, "attention_map_kl": 1.0}


def attended(objective, student=ATTENTIVE, teacher: Any = EXPERT, edges: Any = INTO_A):
    return objective(student, LABELS, teacher=teacher, where=WHERE, edges=edges)


@pytest.mark.parametrize("heads", ["index", "mean", "assign"])
def test_the_attention_term_is_that_of_all_edges_and_the_nodes_themselves(heads):
    total, terms = jax.jit(lambda s, t: attended(Objective(**MAPS, attention_heads=heads), s, t))(ATTENTIVE, EXPERT)
    s, t = joined(ATTENTIVE.attention[1]), joined(EXPERT.attention[1])
    expected = losses.attention_map_kl(s, t, TO, 6, heads=heads)
    assert set(terms) == {"attention_map_kl"} and expected > 0.05
    np.testing.assert_allclose(terms["attention_map_kl"], expected, rtol=1e-5)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    by_hand = [t[e].astype(float) * np.log(t[e].astype(float) / s[e]) for e in range(len(TO))]
    if heads == "index":
        np.testing.assert_allclose(expected, np.sum(by_hand) / 6 / 2, rtol=1e-5)
    other = Objective(**MAPS, attention_heads="mean" if heads != "mean" else "index")
    assert abs(attended(other)[0] - expected) > 1e-3


def test_heads_of_different_numbers_are_compared():
    few = ATTENTIVE._replace(attention=(maps(5, 1),))
    for heads in ("index", "mean", "assign"):
        expected = losses.attention_map_kl(joined(few.attention[0]), joined(EXPERT.attention[1]), TO, 6, heads=heads)
        value = attended(Objective(**MAPS, attention_heads=heads), student=few)[0]
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("chosen", ["entropy", "degree"])
def test_nodes_of_the_attention_term_are_weighed(chosen):
    value, _ = attended(Objective(**MAPS, attention_weights=chosen))
    s, t = joined(ATTENTIVE.attention[1]), joined(EXPERT.attention[1])
    weights = np.bincount(TO, minlength=6) if chosen == "degree" else losses.attention_reliability(t, TO, 6)
    assert len(set(np.asarray(weights).tolist())) > 2
    np.testing.assert_allclose(value, losses.attention_map_kl(s, t, TO, 6, weights=weights), rtol=1e-5)
    assert abs(value - attended(Objective(**MAPS))[0]) > 1e-3


def test_the_attention_term_is_weighted_and_added():
    objective = Objective(supervised=0.5, soft_target_kl=2.0, attention_map_kl=0.1, temperature=2.0)
    assert objective.needs_teacher and objective.terms == ("supervised", "soft_target_kl", "attention_map_kl")
    total, terms = attended(objective)
    expected = {
        "supervised": cross_entropy(STUDENT.logits, LABELS, where=WHERE),
        "soft_target_kl": losses.soft_target_kl(STUDENT.logits, TEACHER.logits, temperature=2.0),
        "attention_map_kl": losses.attention_map_kl(joined(ATTENTIVE.attention[1]), joined(EXPERT.attention[1]), TO, 6)}
    assert set(terms) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(total, 0.5 * expected["supervised"] + 2 * expected["soft_target_kl"]
                               + 0.1 * expected["attention_map_kl"], rtol=1e-5)
    scheduled = Objective(supervised=0.0, attention_map_kl=optax.linear_schedule(0.0, 2.0, 10))
    half = scheduled(ATTENTIVE, LABELS, teacher=EXPERT, edges=INTO_A, epoch=5)[0]
    np.testing.assert_allclose(half, expected["attention_map_kl"], rtol=1e-5)
    assert set(Objective(attention_map_kl=1.0, uncertainty=True).init()) == {"supervised", "attention_map_kl"}


def test_a_relation_called_self_has_the_edges_it_is_given():
    """Where the graph has such a relation, its receivers count and not the nodes in their order."""
    named = {("a", "self", "a"): (jnp.array([0, 1, 2, 3]), jnp.array([1, 1, 3, 3]))}
    sides = [ATTENTIVE._replace(attention=({("a", "self", "a"): jnp.asarray(maps(seed, 2)[OWN][:4])},))
             for seed in (5, 6)]
    total, _ = Objective(**MAPS)(sides[0], LABELS, teacher=sides[1], edges=named)
    expected = losses.attention_map_kl(*(side.attention[0]["a", "self", "a"] for side in sides),
                                       named["a", "self", "a"][1], 6)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("chosen", [None, "entropy"])
def test_the_teachers_attention_is_a_constant(chosen):
    objective = Objective(**MAPS, attention_weights=chosen)

    def loss(s, t):
        return attended(objective, ATTENTIVE._replace(attention=(s,)), EXPERT._replace(attention=(t,)))[0]

    of_student, of_teacher = jax.grad(loss, argnums=(0, 1))(ATTENTIVE.attention[1], EXPERT.attention[1])
    assert all(np.abs(slope).max() > 0 for slope in of_student.values())
    assert all(not np.asarray(slope).any() for slope in of_teacher.values())


OTHERS = EXPERT._replace(attention=({name: x for name, x in maps(4, 2).items() if name != OWN},))


@pytest.mark.parametrize(("student", "teacher", "edges", "message"), [
    (ATTENTIVE, EXPERT, None, "attention_map_kl needs edges[('a', 'c', 'a')], got edges of []"),
    (ATTENTIVE, EXPERT, EDGES, "attention_map_kl needs edges[('a', 'c', 'a')], got edges of [('a', 'r', 'b'), ("),
    (ATTENTIVE, OTHERS, INTO_A, "attention_map_kl compares attention over the same relations, but the last layers with "
                                "attention have [('a', 'c', 'a'), ('a', 'self', 'a'), ('b', 't', 'a')] in the student "
                                "and [('a', 'c', 'a'), ('b', 't', 'a')] in the teacher"),
    (STUDENT, EXPERT, INTO_A, "attention have [] in the student and [('a', 'c', 'a'), "),
    (ATTENTIVE, TEACHER, INTO_A, "('b', 't', 'a')] in the student and [] in the teacher"),
    (STUDENT, TEACHER, INTO_A, "attention have [] in the student and [] in the teacher"),
    (ATTENTIVE, EXPERT._replace(attention=()), INTO_A, "and [] in the teacher; a teacher's outputs have their "
                                                       "maps with outputs(attention=True)"),
    (ATTENTIVE, None, INTO_A, "need a teacher have a weight (attention_map_kl), but no teacher is given"),
])
def test_attention_that_cannot_be_compared_is_said(student, teacher, edges, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        attended(Objective(**MAPS), student, teacher, edges)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"attention_map_kl": -1.0}, "attention_map_kl is the weight of a term and must be >= 0, got -1.0"),
    ({"attention_weights": "entropy"}, "attention_weights is given, but no term that it acts on has a weight"),
    ({"attention_weights": "degree", "soft_target_kl": 1.0}, "attention_weights is given, but no term that it acts on"),
    ({"attention_weights": "size", "attention_map_kl": 1.0}, "attention_weights must be 'entropy', 'degree' or None"),
    ({"attention_heads": "best"}, "attention_heads must be 'index', 'mean' or 'assign', got 'best'"),
])
def test_bad_settings_of_attention_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Objective(**arguments)


# Edges of each node at either end, those of a type that no layer has included: a self loop has two.
HUB_EDGES = {("a", "r", "b"): (jnp.array([0, 5, 5, 5, 2]), jnp.array([0, 2, 2, 1, 0])),
             ("b", "s", "b"): (jnp.array([0, 2]), jnp.array([1, 2])),
             ("c", "t", "a"): (jnp.array([0, 1]), jnp.array([5, 1]))}
HUBS = {"a": np.array([1, 1, 1, 1, 1, 1 / 4]), "b": np.array([1 / 3, 1 / 2, 1 / 4])}


@pytest.mark.parametrize(("variant", "centred"), [("all_pairs", True), ("edges", False), ("prototype", False)])
def test_hubs_are_weighed_down_and_rows_are_centred(variant, centred):
    objective = Objective(supervised=0.0, type_pair_correlation=1.0, variant=variant, centred=centred, hubs="degree")
    value, _ = jax.jit(lambda s, t, e: objective(s, LABELS, teacher=t, edges=e))(STUDENT, TEACHER, HUB_EDGES)
    within = {name: HUB_EDGES[name] for name in list(HUB_EDGES)[:2]} if variant == "edges" else None
    expected = sum(losses.type_pair_correlation(STUDENT.hidden[k], TEACHER.hidden[k], variant=variant, edges=within,
                                                centred=centred, row_weights=HUBS) for k in (1, 2)) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for change in ({"hubs": None}, {"centred": True}) if variant == "edges" else ({"hubs": None},):
        other = dataclasses.replace(objective, **change)(STUDENT, LABELS, teacher=TEACHER, edges=HUB_EDGES)[0]
        assert abs(value - other) > 1e-4


@pytest.mark.parametrize("edges", [None, {}, {("c", "t", "c"): (jnp.array([0]), jnp.array([1]))}])
def test_hubs_need_edges(edges: Any):
    objective = Objective(type_pair_correlation=1.0, hubs="degree")
    with pytest.raises(ValueError, match=r"hubs='degree' needs edges= of \['a', 'b'\], got edges of \["):
        objective(STUDENT, LABELS, teacher=TEACHER, edges=edges)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"centred": True}, "centred is given, but no term that it acts on has a weight"),
    ({"hubs": "degree", "soft_target_kl": 1.0}, "hubs is given, but no term that it acts on has a weight"),
    ({"hubs": "size", "type_pair_correlation": 1.0}, "hubs must be 'degree' or None, got 'size'"),
    ({"centred": True, "variant": "prototype", "type_pair_correlation": 1.0}, "centred is given with variant 'prototy"),
])
def test_bad_settings_of_the_relation_level_term_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Objective(**arguments)


def test_what_was_added_later_leaves_the_keys_of_older_cells():
    """The keys are those of the commit before attention came (67c731c)."""
    first = {"supervised", "soft_target_kl", "type_pair_correlation", "temperature", "label_smoothing", "variant",
             "layers", "distil_rows"}
    assert set(plain(Objective(), "objective")) == first
    assert key(Objective()) == "e45707911c242248"
    taught = Objective(soft_target_kl=1.0, type_pair_correlation=10.0, temperature=4.0, variant="edges",
                       reliability="entropy")
    assert set(plain(taught, "objective")) == first | {"reliability"} and key(taught) == "3b25b746db047c6e"
    attentive = Objective(attention_map_kl=0.1, attention_heads="assign", attention_weights="degree")
    assert set(plain(attentive, "objective")) == first | {"attention_map_kl", "attention_heads", "attention_weights"}
    assert len({key(Objective()), key(attentive), key(Objective(attention_map_kl=0.1))}) == 3
    weighed = dataclasses.replace(taught, centred=True, hubs="degree")
    assert set(plain(weighed, "objective")) == first | {"reliability", "centred", "hubs"}
