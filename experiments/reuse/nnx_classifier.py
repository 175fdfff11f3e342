"""A Flax NNX classifier of documents learns from a teacher that also reads which documents cite each other.

The student labels documents by their words alone; the teacher's input is words averaged over two steps of citations.
Both know Citeseer's 120 public labels. The teacher's logits and features teach on all documents outside the test.
"""

import optax
from flax import nnx

from experiments.reuse import data
from experiments.reuse.common import accuracy, compare, cross_entropy
from hire_jax.losses import linear_cka, soft_target_kl


class MLP(nnx.Module):
    """One hidden layer; calling it gives logits and hidden features."""

    def __init__(self, inputs, width, classes, rngs):
        self.hidden = nnx.Linear(inputs, width, rngs=rngs)
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        hidden = nnx.relu(self.hidden(x))
        return self.head(hidden), hidden


def fit(model, loss, steps):
    """The model after `steps` steps of AdamW."""
    def step(_, state):
        model, optimizer = state
        optimizer.update(model, nnx.grad(loss)(model))
        return model, optimizer
    optimizer = nnx.Optimizer(model, optax.adamw(0.01), wrt=nnx.Param)
    return nnx.fori_loop(0, steps, step, (model, optimizer))[0]


def main(steps: int = 100, seeds: int = 5, weight: float = 1.0):
    """Prints, and returns by name, the scores of teacher, plain and distilled student: [seeds] each."""
    words, context, labels, train, seen, test = data.citeseer()
    def run(key):
        teacher = MLP(words.shape[1], 128, 6, nnx.Rngs(key))
        teacher = fit(teacher, lambda model: cross_entropy(model(context[train])[0], labels[train]), steps)
        taught_logits, taught_hidden = teacher(context)
        def student(weight):
            def loss(model):
                logits, hidden = model(words)
                gap = soft_target_kl(logits, taught_logits, where=seen) + linear_cka(hidden, taught_hidden, where=seen)
                return cross_entropy(logits[train], labels[train]) + weight * gap
            return accuracy(fit(MLP(words.shape[1], 16, 6, nnx.Rngs(key)), loss, steps)(words[test])[0], labels[test])
        return accuracy(taught_logits[test], labels[test]), student

    return compare(run, seeds, weight, "test accuracy %")


if __name__ == "__main__":
    import tyro

    tyro.cli(main, prog="python -m experiments.reuse.nnx_classifier", description=__doc__)
