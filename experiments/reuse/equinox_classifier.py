"""An Equinox classifier with 100 labels learns from a teacher with 2,000, on points whose labels only that one knows.

Each seed draws its own problem: 10 classes of three overlapping Gaussian clusters in 20 dimensions. The student takes
over class probabilities and, by `rkd_distance`, which points are near each other; its embedding is narrower.
"""

import jax

from experiments.reuse import data
from experiments.reuse.common import accuracy, compare, cross_entropy, fit
from hire_jax.losses import rkd_distance, soft_target_kl

try:
    import equinox as eqx
except ImportError as error:
    raise ImportError("This example needs Equinox: install it with `pip install equinox`.") from error


class Classifier(eqx.Module):
    """One hidden layer; calling it gives logits and the embedding of a point."""

    body: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, width, key):
        self.body = eqx.nn.Linear(20, width, key=key)
        self.head = eqx.nn.Linear(width, 10, key=jax.random.fold_in(key, 1))

    def __call__(self, x):
        embedding = jax.nn.relu(self.body(x))
        return self.head(embedding), embedding


def main(steps: int = 500, seeds: int = 5, weight: float = 1.0):
    """Prints, and returns by name, the scores of teacher, plain and distilled student: [seeds] each."""
    def run(key):
        data_key, model_key, batch_key = jax.random.split(key, 3)
        x, y = data.clusters(data_key, 4000)
        batches = jax.random.randint(batch_key, (steps, 128), 0, 2000)
        def supervised(model, rows):
            return cross_entropy(jax.vmap(model)(x[rows])[0], y[rows])
        teacher_logits, teacher_embedding = jax.vmap(fit(Classifier(128, model_key), supervised, batches))(x)
        def student(weight):
            def loss(model, batch):
                logits, embedding = jax.vmap(model)(x[batch])
                gap = soft_target_kl(logits, teacher_logits[batch]) + rkd_distance(embedding, teacher_embedding[batch])
                return supervised(model, slice(100)) + weight * gap
            return accuracy(jax.vmap(fit(Classifier(16, model_key), loss, batches))(x[2000:])[0], y[2000:])

        return accuracy(teacher_logits[2000:], y[2000:]), student

    return compare(run, seeds, weight, "test accuracy %")


if __name__ == "__main__":
    import tyro

    tyro.cli(main, prog="python -m experiments.reuse.equinox_classifier", description=__doc__)
