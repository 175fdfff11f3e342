"""Terms of other papers in an objective: each is the loss of its name on what it reads."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hire_jax as hj
from experiments.keys import key, plain
from hire_jax import ModelOutput, Objective, losses, terms

pytestmark = pytest.mark.usefixtures("quick_compilation")

EDGES = {("a", "r", "b"): (jnp.array([0, 5, 2]), jnp.array([0, 2, 0])),
         ("b", "s", "b"): (jnp.array([0, 2]), jnp.array([1, 1])),
         ("c", "t", "a"): (jnp.array([0]), jnp.array([0]))}  # of a type that no layer has
LABELS: Any = np.array([3, 0, -1, 2, 2, 1], np.int32)
WHERE: Any = np.array([True, True, True, False, True, False])


def output(seed, width, *, last=("a",), layers=3):
    """Target a with 6 nodes and 4 classes, b with 3 nodes."""
    rng = np.random.default_rng(seed)
    hidden = [{"a": rng.normal(size=(6, width)), "b": rng.normal(size=(3, width))} for _ in range(layers)]
    hidden.append({name: rng.normal(size=(6 if name == "a" else 3, width)) for name in last})
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32),
                        ModelOutput(rng.normal(size=(6, 4)), tuple(hidden), ({},) * layers))


STUDENT, TEACHER = output(1, 3), output(2, 5)


def on_logits(loss, **options):
    return lambda where: loss(STUDENT.logits, TEACHER.logits, where=where, **options)


def on_embeddings(loss):
    return lambda where: loss(STUDENT.hidden[-1]["a"], TEACHER.hidden[-1]["a"], where=where)


def on_relations(where):
    known = {name: EDGES[name] for name in list(EDGES)[:2]}
    return sum(losses.typed_local_structure(STUDENT.hidden[k], TEACHER.hidden[k], known) for k in (1, 2)) / 2


def on_classes(where):
    """The edges carry the target's classes to b; those of a type that no layer has are left out."""
    y = jax.nn.softmax(TEACHER.logits)
    shares = {"a": y, "b": jnp.stack([(y[0] + y[2]) / 2, jnp.zeros(4), y[5]])}
    return sum(losses.class_prototype_correlation(STUDENT.hidden[k], TEACHER.hidden[k], shares) for k in (1, 2)) / 2


EXPECTED: dict[str, Any] = {
    "reverse_kl": on_logits(losses.reverse_kl, temperature=2.0),
    "jensen_shannon": on_logits(losses.jensen_shannon, temperature=2.0),
    "dist": on_logits(losses.dist, temperature=2.0),
    "logit_mse": on_logits(losses.logit_mse),
    "attention_transfer": on_embeddings(losses.attention_transfer),
    "linear_cka": on_embeddings(losses.linear_cka),
    "rkd_distance": on_embeddings(losses.rkd_distance),
    "similarity_preserving": on_embeddings(losses.similarity_preserving),
    "typed_local_structure": on_relations,
    "class_prototype_correlation": on_classes,
}


def evaluate(objective, student=STUDENT, teacher=TEACHER, labels=LABELS, edges: Any = EDGES):
    return objective(student, labels, teacher=teacher, where=WHERE, edges=edges)


def test_every_other_term_is_tested():
    assert set(EXPECTED) == set(terms.OTHERS)


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("rows", ["all", "train"])
def test_a_term_is_the_loss_of_its_name(name, rows):
    """The rows of the last two are nodes of every type, of which training knows one: all are taken."""
    objective = Objective(supervised=0.0, others={name: 3.0}, temperature=2.0, distil_rows=rows)
    assert objective.terms == (name,) and objective.needs_teacher
    total, values = evaluate(objective)
    expected = EXPECTED[name](WHERE if rows == "train" else None)
    assert expected > 1e-3
    np.testing.assert_allclose(values[name], expected, rtol=1e-5)
    np.testing.assert_allclose(total, 3 * expected, rtol=1e-5)


def test_classes_of_nodes_with_several_labels_are_sigmoids():
    labels: Any = np.ones((6, 4), np.int32)
    objective = Objective(supervised=0.0, others={"class_prototype_correlation": 1.0})
    (value,) = evaluate(objective, labels=labels)[1].values()
    y = jax.nn.sigmoid(TEACHER.logits)
    shares = losses.neighbour_shares({"a": y}, {("a", "r", "b"): EDGES["a", "r", "b"]}, {"a": 6, "b": 3})
    expected = sum(losses.class_prototype_correlation(STUDENT.hidden[k], TEACHER.hidden[k], shares) for k in (1, 2)) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert abs(value - evaluate(objective)[0]) > 1e-4


def test_other_terms_stand_beside_the_papers_own():
    objective = Objective(soft_target_kl=2.0, others={"linear_cka": 0.5, "dist": lambda epoch: 1.0 + epoch})
    assert objective.terms == ("supervised", "soft_target_kl", "dist", "linear_cka")
    total, values = objective(STUDENT, LABELS, teacher=TEACHER, where=WHERE, epoch=3)
    weights = {"supervised": 1, "soft_target_kl": 2, "dist": 4, "linear_cka": 0.5}
    np.testing.assert_allclose(total, sum(weight * values[name] for name, weight in weights.items()), rtol=1e-5)


def test_the_teacher_is_a_constant_and_every_term_moves_the_student():
    objective = Objective(supervised=0.0, others=dict.fromkeys(EXPECTED, 1.0))
    floats = STUDENT._replace(attention=()), TEACHER._replace(attention=())
    of_student, of_teacher = jax.grad(lambda s, t: evaluate(objective, s, t)[0], argnums=(0, 1))(*floats)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(of_teacher))
    assert np.abs(of_student.logits).max() > 0 and np.abs(of_student.hidden[-1]["a"]).max() > 0
    assert np.abs(of_student.hidden[1]["b"]).max() > 0


@pytest.mark.parametrize(("others", "changes", "message"), [
    ({"reverse_kl": 1.0}, {"labels": np.ones((6, 4), np.int32)}, "reverse_kl compares distributions over classes, but "
                                                                 "a node may have several labels; soft_target_kl know"),
    ({"rkd_distance": 1.0}, {"student": output(1, 3, last=("a", "b"))}, "rkd_distance looks for the target in the "
                                                                        "last hidden layer, but that has the types"),
    ({"class_prototype_correlation": 1.0}, {"student": output(1, 3, last=("a", "b"))},
     "class_prototype_correlation looks for the target in the last hidden layer, but that has the types [['a', 'b']]"),
    ({"class_prototype_correlation": 1.0}, {"edges": None}, "class_prototype_correlation needs edges= among ['a', 'b'],"
                                                            " got edges of []"),
    ({"class_prototype_correlation": 1.0}, {"edges": {("b", "s", "b"): EDGES["b", "s", "b"]}},
     "class_prototype_correlation carries classes along edges from the target 'a' to other node types, but none of"),
    ({"typed_local_structure": 1.0}, {"edges": None}, "typed_local_structure needs edges= among ['a', 'b'], got edges "
                                                      "of []"),
    ({"typed_local_structure": 1.0}, {"student": output(1, 3, layers=1), "teacher": output(2, 5, layers=1)},
     "a model with 1 layers has none between input projection and output"),
    ({"dist": 1.0}, {"teacher": None}, "need a teacher have a weight (dist), but no teacher is given"),
])
def test_what_cannot_be_compared_is_said(others, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate(Objective(others=others), **changes)


@pytest.mark.parametrize(("others", "message"), [
    ({"hint": 1.0}, "others names 'hint'; it takes reverse_kl, jensen_shannon, dist, logit_mse, attention_transfer"),
    ({"dist": -1.0}, "dist is the weight of a term and must be >= 0, got -1.0"),
])
def test_bad_names_and_weights_are_refused(others, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Objective(others=others)


def test_others_are_in_the_key_and_change_no_older_one():
    assert "others" not in plain(Objective(), "objective")
    first, second = Objective(others={"dist": 1.0, "linear_cka": 2.0}), Objective(others={"linear_cka": 2.0, "dist": 1})
    assert hash(first) == hash(dataclasses.replace(first)) and first.terms == second.terms
    assert len({key(Objective()), key(first), key(Objective(others={"dist": 1.0}))}) == 3
    assert plain(first, "objective")["others"] == [["dist", 1.0], ["linear_cka", 2.0]]


@pytest.mark.slow
def test_fit_trains_on_all_of_them():
    dataset = hj.data.synthetic_hetero({"movie": 20, "actor": 15}, [("actor", "in", "movie")], feature_width=6)
    teacher, student = (hj.models.RGCN(target=dataset.target, num_classes=dataset.num_classes, hidden=width, layers=3)
                        for width in (8, 4))
    expert = hj.fit(teacher, dataset, epochs=2, seeds=1)
    objective = Objective(others=dict.fromkeys(EXPECTED, 1.0))
    result = hj.fit(student, dataset, epochs=3, seeds=1, objective=objective, teacher=expert.outputs())
    for name in EXPECTED:
        curve = result.history[f"train_{name}"]
        assert curve.shape == (1, 3) and np.isfinite(curve).all() and curve.min() > 0, name
