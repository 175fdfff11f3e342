"""A small plain-JAX character model with little text learns from a larger one that has read eight times as much.

The text is lines of Python's argparse, so the numbers change with the Python version: 1,200 for the teacher, 150 of
them for the student, and the others to test. `where=` leaves out the padding of the lines to one length.
"""

import jax
import jax.numpy as jnp

from experiments.reuse import data
from experiments.reuse.common import compare, cross_entropy, fit
from hire_jax.losses import soft_target_kl

CONTEXT = 8  # characters that the next is predicted from


def init(key, vocabulary, width):
    """Embedding, hidden layer and head."""
    shapes = (vocabulary, 16), (16 * CONTEXT, width), (width, vocabulary)
    return [jax.random.normal(k, s) * s[0] ** -0.5 for k, s in zip(jax.random.split(key, 3), shapes, strict=True)]


def apply(params, lines):
    """Logits [batch * time, vocabulary] of every character of lines [batch, time], from those before it."""
    embedding, hidden, head = params
    before = jnp.pad(lines, ((0, 0), (CONTEXT, 0)))
    seen = jnp.concatenate([embedding[before[:, i : i + lines.shape[1]]] for i in range(CONTEXT)], axis=-1)
    return (jax.nn.relu(seen @ hidden) @ head).reshape(-1, head.shape[1])


def main(steps: int = 400, seeds: int = 5, weight: float = 1.0):
    """Prints, and returns by name, the scores of teacher, plain and distilled student: [seeds] each."""
    lines, vocabulary = data.source_lines()

    def run(key):
        data_key, model_key, batch_key = jax.random.split(key, 3)
        text = jax.random.permutation(data_key, lines)
        batches = jax.random.randint(batch_key, (steps, 16), 0, 1200)
        def supervised(params, rows):
            return cross_entropy(apply(params, text[rows]), text[rows].ravel(), where=text[rows].ravel() > 0)

        teacher = fit(init(model_key, vocabulary, 192), supervised, batches)

        def student(weight):
            def loss(params, batch):
                own = text[batch % 150]
                kl = soft_target_kl(apply(params, own), apply(teacher, own), where=own.ravel() > 0)
                return supervised(params, batch % 150) + weight * kl
            return supervised(fit(init(model_key, vocabulary, 24), loss, batches), slice(1200, None))

        return supervised(teacher, slice(1200, None)), student

    return compare(run, seeds, weight, "nats per test character", lower_is_better=True)


if __name__ == "__main__":
    import tyro

    tyro.cli(main, prog="python -m experiments.reuse.language_model", description=__doc__)
