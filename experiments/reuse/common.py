"""What the examples share beside the losses: training, score, and the comparison that they print."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import stdtrit

Params = TypeVar("Params")


def fit(params: Params, loss: Callable[[Params, jax.Array], jax.Array], batches: jax.Array) -> Params:
    """One step of Adam for each of `batches`, which `loss` gets; `params` is any pytree of arrays."""
    def step(carry, batch):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return (optax.apply_updates(params, updates), state), None

    optimizer = optax.adam(3e-3)
    return jax.lax.scan(step, (params, optimizer.init(params)), batches)[0][0]


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Per cent of rows whose largest logit is the label's."""
    return 100 * jnp.mean(logits.argmax(axis=-1) == labels)


def cross_entropy(logits: jax.Array, labels: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Mean over the rows inside `where`, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(where=where)


def compare(
    run: Callable[[jax.Array], tuple[jax.Array, Callable[[jax.Array], jax.Array]]], seeds: int, weight: float,
    measure: str, *, lower_is_better: bool = False,
) -> dict[str, np.ndarray]:
    """Runs all seeds at once, prints mean ± sd of teacher, plain and distilled student, and whether the last won.

    Args:
      run: from a key, the teacher's score and a function from the weight of the teacher's terms to the student's.
      seeds: at least two; seed i has the key i.
      weight: the distilled student's; the plain one has 0 and is the same in all else.
      measure: what the scores are, such as "test accuracy %".
      lower_is_better: whether they are errors.

    Returns:
      {"teacher", "plain", "distilled": scores [seeds]}.
    """
    if seeds < 2:
        raise ValueError(f"seeds: expected at least 2 for a standard error, got {seeds}")

    def scores_of(seed):
        teacher, student = run(jax.random.key(seed))
        plain, distilled = jax.vmap(student)(jnp.array([0.0, weight]))
        return {"teacher": teacher, "plain": plain, "distilled": distilled}

    columns = jax.jit(jax.vmap(scores_of))(jnp.arange(seeds))
    scores = {name: np.asarray(columns[name], float) for name in ("teacher", "plain", "distilled")}
    report(scores, measure, lower_is_better)
    return scores


def report(scores: Mapping[str, np.ndarray], measure: str, lower_is_better: bool) -> None:
    """Prints what `compare` says of its scores."""
    for name, values in scores.items():
        print(f"{name:<9} {values.mean():6.2f} ± {values.std(ddof=1):.2f}  {measure}")

    difference = scores["distilled"] - scores["plain"]
    seeds = len(difference)
    mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(seeds)
    if abs(mean) <= stdtrit(seeds - 1, 0.975) * error:  # 0 lies in the 95 % interval
        verdict = "does not clearly differ from"
    else:
        verdict = "is worse than" if (mean > 0) == lower_is_better else "beats"
    print(f"The distilled student {verdict} its undistilled twin: difference {mean:+.2f}, paired standard error "
          f"{error:.2f}, {seeds} seeds.")
