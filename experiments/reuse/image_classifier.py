"""A plain-JAX convolutional classifier of drawn shapes with 60 labels learns from a larger one with 2,000.

Discs, rings, squares, frames and crosses have any place and size, under strong noise. The student takes over class
probabilities and, image by image, where its last feature map is active, on images whose labels the teacher alone knows.
"""

import jax
import jax.numpy as jnp

from experiments.reuse import data
from experiments.reuse.common import accuracy, compare, cross_entropy, fit
from hire_jax.losses import attention_transfer, soft_target_kl


def init(key, width):
    """Three convolutions and a head."""
    shapes = (9, width), (9 * width, width), (9 * width, width), (width, 6)
    return [jax.random.normal(k, s) * (2 / s[0]) ** 0.5 for k, s in zip(jax.random.split(key, 4), shapes, strict=True)]


def apply(params, x):
    """Logits [n, 6] and the last feature map [n, pixels, width] of images [n, height, width, 1]."""
    for kernel, stride in zip(params[:-1], (2, 1, 1), strict=True):
        padded, size = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1]
        shifted = [padded[:, i : i + size : stride, j : j + size : stride] for i in range(3) for j in range(3)]
        x = jax.nn.relu(jnp.concatenate(shifted, axis=-1) @ kernel)  # a 3 x 3 convolution
    return x.mean(axis=(1, 2)) @ params[-1], x.reshape(len(x), -1, x.shape[-1])


def main(steps: int = 300, seeds: int = 5, weight: float = 1.0):
    """Prints, and returns by name, the scores of teacher, plain and distilled student: [seeds] each."""
    def run(key):
        data_key, model_key, batch_key = jax.random.split(key, 3)
        x, y = data.shapes(data_key, 3000)
        batches = jax.random.randint(batch_key, (steps, 64), 0, 2000)
        def supervised(params, rows):
            return cross_entropy(apply(params, x[rows])[0], y[rows])

        teacher_logits, teacher_maps = apply(fit(init(model_key, 16), supervised, batches), x)

        def student(weight):
            def loss(params, batch):
                logits, maps = apply(params, x[batch])
                attention = jax.vmap(attention_transfer)(maps, teacher_maps[batch]).mean()
                gap = soft_target_kl(logits, teacher_logits[batch]) + maps.shape[1] * attention
                return supervised(params, slice(60)) + weight * gap
            params = fit(init(model_key, 6), loss, batches)
            return accuracy(apply(params, x[2000:])[0], y[2000:])

        return accuracy(teacher_logits[2000:], y[2000:]), student

    return compare(run, seeds, weight, "test accuracy %")


if __name__ == "__main__":
    import tyro

    tyro.cli(main, prog="python -m experiments.reuse.image_classifier", description=__doc__)
