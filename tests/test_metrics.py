"""Accuracy and F1 against scikit-learn's stored values and against a loop written independently."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hire_jax.metrics import accuracy, macro_f1, micro_f1, predict

CASES = json.loads((Path(__file__).parent / "golden" / "sklearn_f1.json").read_text())["cases"]


def loop_scores(predictions, labels, num_classes, where):
    """Accuracy, macro and micro F1 by counting one entry at a time, in float64."""
    multilabel = np.ndim(labels) == 2
    kept = [i for i in range(len(labels)) if where[i] and np.min(labels[i]) >= 0]
    right = sum(1 for i in kept if np.array_equal(predictions[i], labels[i]))
    scores, hits, errors = [], 0, 0
    for c in range(num_classes):
        hit = miss = 0
        for i in kept:
            predicted = predictions[i][c] > 0 if multilabel else predictions[i] == c
            actual = labels[i][c] > 0 if multilabel else labels[i] == c
            hit += bool(predicted and actual)
            miss += bool(predicted != actual)
        if multilabel or hit + miss:
            scores.append(2 * hit / (2 * hit + miss) if hit + miss else 0.0)
        hits, errors = hits + hit, errors + miss
    return (
        right / len(kept) if kept else 0.0,
        sum(scores) / len(scores) if scores else 0.0,
        2 * hits / (2 * hits + errors) if hits + errors else 0.0,
    )


def all_scores(predictions, labels, num_classes, where=None):
    f1 = {"num_classes": num_classes, "where": where}
    right = accuracy(predictions, labels, where=where)
    return right, macro_f1(predictions, labels, **f1), micro_f1(predictions, labels, **f1)


compiled_scores = jax.jit(all_scores, static_argnums=2)


def ours(predictions, labels, num_classes, where=None):
    """The three scores as one compiled program: one compilation a shape keeps the suite short."""
    return [float(v) for v in compiled_scores(predictions, labels, num_classes, where)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_equal_to_scikit_learn(case):
    expected = [case["accuracy"], case["macro_f1"], case["micro_f1"]]
    predictions, labels = np.array(case["predictions"]), np.array(case["labels"])
    np.testing.assert_allclose(ours(predictions, labels, case["num_classes"]), expected, rtol=1e-6)
    if labels.ndim == 2:
        np.testing.assert_allclose(ours(predictions > 0, labels, case["num_classes"]), expected, rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_masked_and_unlabelled_rows_change_nothing(case):
    """The same rows, with one masked and one unlabelled row beside each."""
    predictions, labels = np.array(case["predictions"]), np.array(case["labels"])
    masked = np.concatenate([labels, np.flip(labels, 0), np.full_like(labels, -1)])
    guesses = np.concatenate([predictions, np.roll(predictions, 1, 0), predictions])
    where = np.arange(len(masked)) // len(labels) != 1
    expected = [case["accuracy"], case["macro_f1"], case["micro_f1"]]
    np.testing.assert_allclose(ours(guesses, masked, case["num_classes"], where), expected, rtol=1e-6)


def test_compiled_equals_eager():
    for case in (CASES[6], CASES[10]):
        arguments = np.array(case["predictions"]), np.array(case["labels"]), case["num_classes"]
        assert [float(v) for v in all_scores(*arguments)] == ours(*arguments)


def test_published_golden_values():
    """Values of the fixed example used for all golden numbers of this project (scikit-learn, float64)."""
    labels, predictions = np.array([0, 0, 1, 1, 2, 2, 2, 0]), np.array([0, 1, 1, 1, 2, 0, 2, 0])
    np.testing.assert_allclose(ours(predictions, labels, 3)[1:], [0.7555555555555555, 0.75], rtol=1e-6)
    labels = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    predictions = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]])
    expected = [0.25, 0.7222222222222222, 0.7272727272727273]
    np.testing.assert_allclose(ours(predictions, labels, 3), expected, rtol=1e-6)
    absent = ours(np.array([0, 2, 1]), np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(absent[1], 0.5555555555555555, rtol=1e-6)


@st.composite
def scored_rows(draw, multilabel):
    """Fixed row count, so that hypothesis varies values and not compiled shapes."""
    rows, classes = 12, 4
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if multilabel:
        rates = st.sampled_from([0.0, 0.1, 0.5, 1.0])
        labels = (rng.random((rows, classes)) < draw(rates)).astype(np.int32)
        predictions = (rng.random((rows, classes)) < draw(rates)).astype(np.int32)
        labels[rng.random(rows) < 0.2] = -1
    else:
        labels = rng.integers(-1, draw(st.integers(1, classes)), size=rows).astype(np.int32)
        predictions = rng.integers(0, draw(st.integers(1, classes)), size=rows).astype(np.int32)
    where = rng.random(rows) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return predictions, labels, classes, where


@pytest.mark.parametrize("multilabel", [False, True])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equal_to_an_independent_loop(multilabel, data):
    predictions, labels, classes, where = data.draw(scored_rows(multilabel))
    expected = loop_scores(predictions, labels, classes, where)
    np.testing.assert_allclose(ours(predictions, labels, classes, where), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_mapped_seed_axis_equals_one_call_a_seed(multilabel):
    rng = np.random.default_rng(0)
    shape = (50, 3) if multilabel else (50,)
    labels = rng.integers(0, 2 if multilabel else 3, size=shape)
    guesses = rng.integers(0, 2 if multilabel else 3, size=(4, *shape))
    where = rng.random(50) < 0.7
    mapped = jax.jit(jax.vmap(lambda g: macro_f1(g, labels, num_classes=3, where=where)))(guesses)
    expected = [loop_scores(g, labels, 3, where)[1] for g in guesses]
    np.testing.assert_allclose(mapped, expected, rtol=1e-6)
    mapped = jax.vmap(accuracy, in_axes=(0, None))(guesses, labels)
    expected = [loop_scores(g, labels, 3, np.ones(50))[0] for g in guesses]
    np.testing.assert_allclose(mapped, expected, rtol=1e-6)


@pytest.mark.parametrize("labels", [np.full(5, -1), np.full((5, 3), -1), np.zeros(0, np.int32)])
def test_no_counted_row_gives_zero_not_nan(labels):
    assert ours(np.zeros_like(labels), labels, 3) == [0.0, 0.0, 0.0]


def test_an_abstention_misses_its_label():
    values = ours(np.array([0, -1]), np.array([0, 1]), 2)
    np.testing.assert_allclose(values, [0.5, 0.5, 2 / 3], rtol=1e-6)


def test_counts_stay_exact_beyond_float32_integers():
    """2^24 + 3 rows: a float32 running count would lose the odd ones."""
    rows = 2**24 + 3
    labels = np.zeros(rows, np.int8)
    predictions = np.zeros(rows, np.int8)
    predictions[:3] = 1
    assert float(accuracy(predictions, labels)) == np.float32(2**24) / np.float32(rows)


def test_narrow_integers_and_many_classes():
    """An int8 array cannot hold the number 200 that cuts rows off."""
    values = all_scores(np.array([0, 1, 1], np.int8), np.array([0, 1, 2], np.uint8), 200)
    np.testing.assert_allclose(values, [2 / 3, (1 + 2 / 3) / 3, 2 / 3], rtol=1e-6)


def test_predict():
    logits = jnp.array([[0.0, 2.0, 2.0], [-1.0, -3.0, -2.0]])
    assert predict(logits).tolist() == [1, 0]
    assert predict(logits).dtype == jnp.int32
    assert predict(logits, multilabel=True).tolist() == [[False, True, True], [False, False, False]]
    assert predict(jnp.zeros((5, 4, 3))).shape == (5, 4)
    with pytest.raises(ValueError, match="logits"):
        predict(jnp.float32(1.0))


@pytest.mark.parametrize(
    ("predictions", "labels", "where", "match"),
    [
        (np.zeros(4, int), np.zeros(5, int), None, r"predictions: expected the labels' shape \(5,\)"),
        (np.zeros(5), np.zeros(5, int), None, "predictions: expected integers.*float32.*predict"),
        (np.zeros(5, int), np.zeros(5), None, "labels: expected integers"),
        (np.zeros(5, bool), np.zeros(5, int), None, "predictions: expected integers"),
        (np.zeros((5, 3, 1), int), np.zeros((5, 3, 1), int), None, "labels: expected .N. or multi-hot"),
        (np.zeros(5, int), np.zeros(5, int), np.arange(5), "where: expected bool .5,., got int32"),
        (np.zeros(5, int), np.zeros(5, int), np.ones(4, bool), "where: expected bool .5,."),
        (np.full(5, 3), np.zeros(5, int), None, "predictions: expected classes below num_classes=3, got 3"),
        (np.zeros(5, int), np.full(5, 4), None, "labels: expected classes below num_classes=3, got 4"),
        (np.zeros((5, 2), int), np.zeros((5, 2), int), None, "labels: expected num_classes=3 columns"),
    ],
)
def test_bad_input_is_named(predictions, labels, where, match):
    for score in (macro_f1, micro_f1):
        with pytest.raises(ValueError, match=match):
            score(predictions, labels, num_classes=3, where=where)


def test_labels_held_as_constants_are_checked_while_tracing():
    """The range check must not stage an operation: labels are usually a constant of the compiled step."""
    labels = np.array([0, 1, 2])
    assert float(jax.jit(lambda p: macro_f1(p, labels, num_classes=3))(labels)) == 1.0
    device_labels = jnp.asarray(labels)
    assert float(jax.jit(lambda p: macro_f1(p, device_labels, num_classes=3))(device_labels)) == 1.0
