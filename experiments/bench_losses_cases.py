"""What experiments.bench_losses measures: the inputs of every loss that hire_jax.losses exports, at n rows.

n counts all rows: of both types together where a loss has types. Logits have CLASSES columns, features WIDTH, graphs
DEGREE edges a node with random ends, attention maps HEADS heads.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax import losses

WIDTH, CLASSES, DEGREE, HEADS = 128, 16, 10, 4
DIMENSIONS = {"width": WIDTH, "classes": CLASSES, "edges_a_node": DEGREE, "heads": HEADS}

# Exported too, but weights or classes of rows for a loss: they have no gradient.
NOT_LOSSES = frozenset({"attention_reliability", "correctness_reliability", "entropy_reliability", "neighbour_shares"})

Inputs = tuple[Any, ...]  # positional arguments of a loss, pytrees of numpy arrays


@dataclasses.dataclass(frozen=True)
class Case:
    """One loss: `make(n, random)` gives its inputs, of which the first `learned` have a gradient; `options(n)` gives
    keyword arguments."""

    make: Callable[[int, np.random.Generator], Inputs]
    learned: int = 1
    power: int = 1
    """Time grows as rows to this power by the algorithm, which small sizes need not show."""
    options: Callable[[int], dict[str, Any]] = lambda rows: {}


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


def _logits(rows: int, random: np.random.Generator) -> Inputs:
    return _normal(random, rows, CLASSES), _normal(random, rows, CLASSES)


def _labelled_logits(rows: int, random: np.random.Generator) -> Inputs:
    return *_logits(rows, random), random.integers(0, CLASSES, rows, np.int32)


def _features(rows: int, random: np.random.Generator) -> Inputs:
    return _normal(random, rows, WIDTH), _normal(random, rows, WIDTH)


def _predicted_features(rows: int, random: np.random.Generator) -> Inputs:
    return _normal(random, rows, WIDTH), _normal(random, WIDTH), _normal(random, rows, WIDTH)


def _ends(edges: int, senders: int, receivers: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random.integers(0, senders, edges, np.int32), random.integers(0, receivers, edges, np.int32)


def _linked_features(rows: int, random: np.random.Generator) -> Inputs:
    return *_features(rows, random), *_ends(DEGREE * rows, rows, rows, random)


def _counts(rows: int) -> dict[str, int]:
    return {"a": rows // 2, "b": rows - rows // 2}


def _typed_features(rows: int, random: np.random.Generator) -> Inputs:
    student, teacher = ({t: _normal(random, n, WIDTH) for t, n in _counts(rows).items()} for _ in range(2))
    return student, teacher


def _typed_classes(rows: int, random: np.random.Generator) -> Inputs:
    """A class a node, as one-hot rows."""
    sides, one_hot = _typed_features(rows, random), np.eye(CLASSES, dtype=np.float32)
    return *sides, {t: one_hot[random.integers(0, CLASSES, n)] for t, n in _counts(rows).items()}


def _typed_linked_features(rows: int, random: np.random.Generator) -> Inputs:
    """Two relations, from either type to the other, with half of the edges each."""
    counts, edges = _counts(rows), DEGREE * rows // 2
    relations = {(s, "to", d): _ends(edges, counts[s], counts[d], random) for s, d in ("ab", "ba")}
    return *_typed_features(rows, random), relations


def _attention(rows: int, random: np.random.Generator) -> Inputs:
    """Weights that sum to 1 over the edges into a node."""
    receivers = _ends(DEGREE * rows, rows, rows, random)[1]

    def weights() -> np.ndarray:
        raw = random.random((len(receivers), HEADS), np.float32) + 0.1
        sums = np.stack([np.bincount(receivers, head, rows) for head in raw.T], axis=1)
        return (raw / sums[receivers]).astype(np.float32)

    return weights(), weights(), receivers


CASES = {
    "soft_target_kl": Case(_logits),
    "bernoulli_kl": Case(_logits),
    "reverse_kl": Case(_logits),
    "jensen_shannon": Case(_logits),
    "decoupled_kd": Case(_labelled_logits),
    "dist": Case(_logits),
    "logit_mse": Case(_logits),
    "hint": Case(_features),
    "attention_transfer": Case(_features),
    "cosine_embedding": Case(_features),
    "linear_cka": Case(_features),
    "vid": Case(_predicted_features, learned=2),
    "contrastive": Case(_features, power=2),
    "rkd_distance": Case(_features, power=2),
    "rkd_angle": Case(_features, power=3),
    "similarity_preserving": Case(_features, power=2),
    "global_structure": Case(_features),
    "type_pair_correlation": Case(_typed_features),
    "local_structure": Case(_linked_features),
    "typed_local_structure": Case(_typed_linked_features),
    "class_prototype_correlation": Case(_typed_classes),
    "attention_map_kl": Case(_attention, options=lambda rows: {"num_receivers": rows}),
}


def inputs(name: str, rows: int) -> Inputs:
    """The positional arguments, the same at every call."""
    return CASES[name].make(rows, np.random.default_rng(rows))


def compiled(name: str, rows: int, arguments: Inputs, sample: int | None = None) -> tuple[Any, Inputs]:
    """The loss and its gradient as a compiled program, and its arguments on the device."""
    case, loss = CASES[name], getattr(losses, name)
    options = case.options(rows)

    def confined(*arguments: Any) -> jax.Array:
        *rest, key = arguments
        return loss(*rest, sample=sample, key=key, **options)

    def whole(*arguments: Any) -> jax.Array:
        return loss(*arguments, **options)

    on_device = jax.tree.map(jnp.asarray, arguments)
    if sample is not None:  # the key is an argument, or XLA would draw the rows while it compiles
        on_device = *on_device, jax.random.key(0)
    step = jax.value_and_grad(whole if sample is None else confined, argnums=tuple(range(case.learned)))
    return jax.jit(step).lower(*on_device).compile(), jax.block_until_ready(on_device)


def takes_sample(name: str) -> bool:
    """Whether the loss has `sample=`."""
    return "sample" in inspect.signature(getattr(losses, name)).parameters


def refusal(name: str, rows: int) -> str | None:
    """What the loss says where it does not take so many rows without `sample=`; None where it does.

    Only shapes are looked at, no array is made.
    """
    if not takes_sample(name):
        return None
    side = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)
    try:
        jax.eval_shape(getattr(losses, name), side, side)
    except ValueError as error:
        return str(error)
    return None


def row_limit(name: str, rows: int = 10_000_000) -> int | None:
    """The number of rows beyond which the loss wants `sample=`, by its own message; None where it takes `rows`."""
    message = refusal(name, rows)
    return None if message is None else limit_named(message)


def limit_named(message: str) -> int:
    """The number in a refusal such as "sample: expected sample= of at most 16384 rows with key=, ...".

    Raises:
      ValueError: the message does not say that `sample=` helps, or up to how many rows.
    """
    found = re.search(r"sample=.* at most ([\d,_]+) rows", message)
    if found is None:
        raise ValueError(f"a refusal is to name sample= and its limit, got: {message}")
    return int(re.sub("[,_]", "", found[1]))
