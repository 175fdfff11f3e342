"""The mean of teachers' softened outputs, and a random one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hire_jax import ModelOutput, Objective
from hire_jax.losses import entropy_reliability, soft_target_kl
from hire_jax.teachers import RandomTeacher, mean_teacher

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 5, 4)).astype("f4") * 2


def teacher(k, width=2):
    return ModelOutput(LOGITS[k], ({"a": np.full((5, width), float(k), "f4")},), ({},))


TEACHERS = [teacher(k) for k in range(3)]


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mean_of_softened_probabilities(temperature):
    weights, gates = np.array([1.0, 2.0, 0.5]), RNG.random((3, 5))
    gates[:, 2] = 0
    probabilities = softmax(LOGITS.astype(float) / temperature)
    for gate in (None, gates):
        shares = np.tile(weights[:, None], (1, 5))
        if gate is not None:
            shares = np.where(gate.sum(axis=0) > 0, shares * gate, shares)
        expected = (shares[..., None] * probabilities).sum(axis=0) / shares.sum(axis=0)[:, None]
        mean = mean_teacher(TEACHERS, temperature=temperature, weights=weights, gates=gate)
        np.testing.assert_allclose(softmax(np.asarray(mean.logits) / temperature), expected, rtol=1e-4)
        assert mean.hidden == () and mean.attention == ()


def test_the_mean_of_several_answers_a_node():
    mean = mean_teacher(TEACHERS, temperature=2.0, multilabel=True)
    expected = (1 / (1 + np.exp(-LOGITS.astype(float) / 2))).mean(axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(mean.logits) / 2)), expected, rtol=1e-4)


def test_one_teacher_is_its_own_mean_and_gates_choose():
    alone = mean_teacher(TEACHERS[:1], temperature=2.0, hidden_of=0)
    assert soft_target_kl(alone.logits, LOGITS[0], temperature=2.0) < 1e-6
    assert alone.hidden is TEACHERS[0].hidden
    gates = np.eye(3)[:, [0, 1, 2, 0, 1]]
    chosen = mean_teacher(TEACHERS, gates=gates)
    for node, k in enumerate([0, 1, 2, 0, 1]):
        np.testing.assert_allclose(softmax(np.asarray(chosen.logits[node])), softmax(LOGITS[k, node]), rtol=1e-5)
    sure = jnp.stack([entropy_reliability(t.logits) for t in TEACHERS])
    assert np.isfinite(mean_teacher(TEACHERS, gates=sure).logits).all()


def test_classes_no_teacher_allows_and_teachers_a_seed():
    excluded = [t._replace(logits=np.where(np.arange(4) == 1, -np.inf, t.logits)) for t in TEACHERS]
    mean = mean_teacher(excluded)
    assert (mean.logits[:, 1] == -np.inf).all() and np.isfinite(mean.logits[:, [0, 2, 3]]).all()
    seeds = [t._replace(logits=np.stack([t.logits, t.logits + 1])) for t in TEACHERS]
    both = mean_teacher(seeds, weights=[1, 2, 3]).logits
    np.testing.assert_allclose(both[0], mean_teacher(TEACHERS, weights=[1, 2, 3]).logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"teachers": []}, "teachers: expected at least one"),
    ({"teachers": [TEACHERS[0], TEACHERS[1]._replace(logits=LOGITS[1, :4])]}, r"one shape .*\(5, 4\), \(4, 4\)"),
    ({"weights": [1.0, 2.0]}, r"weights: expected shape \(3,\), one a teacher, got \(2,\)"),
    ({"gates": np.ones((3, 4))}, r"gates: expected shape \(3, 5\).*got \(3, 4\)"),
    ({"weights": [0.0, 0.0, 0.0]}, "weights: expected numbers of at least 0, one of them more, got"),
    ({"weights": [2.0, -1.0, 0.0]}, "weights: expected numbers of at least 0"),
    ({"temperature": 0.0}, "temperature: expected a positive number, got 0.0"),
    ({"hidden_of": 3}, "hidden_of: expected 0 to 2, got 3"),
])
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        mean_teacher(**({"teachers": TEACHERS} | arguments))


def test_the_mean_works_inside_a_compiled_function():
    mean = jax.jit(lambda t, w: mean_teacher(TEACHERS, temperature=t, weights=w).logits)(2.0, jnp.arange(3.0))
    np.testing.assert_allclose(mean, mean_teacher(TEACHERS, temperature=2.0, weights=np.arange(3.0)).logits, rtol=1e-5)


def test_a_mean_without_embeddings_says_so():
    objective = Objective(type_pair_correlation=1.0)
    with pytest.raises(ValueError, match=r"the teacher has no hidden embeddings .*hidden_of="):
        objective(TEACHERS[0], np.zeros(5, int), teacher=mean_teacher(TEACHERS))


def test_a_random_teacher_draws_every_one():
    pool = RandomTeacher.of(TEACHERS)
    drawn = jax.jit(lambda key: pool.draw(key))
    seen = set()
    for seed in range(30):
        one = drawn(jax.random.key(seed))
        k = int(one.hidden[0]["a"][0, 0])
        np.testing.assert_array_equal(one.logits, LOGITS[k])
        seen.add(k)
    assert seen == {0, 1, 2}


def test_teachers_of_other_layers_keep_their_logits():
    pool = RandomTeacher.of([teacher(0), teacher(1, width=3)])
    assert pool.outputs.hidden == () and pool.outputs.logits.shape == (2, 5, 4)
