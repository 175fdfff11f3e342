"""The four problems that the examples learn: bundled, drawn or read from Python itself, never downloaded."""

import argparse
import inspect

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax import SparseFeatures, load_dataset


def citeseer() -> tuple[jax.Array, ...]:
    """Words [N, F] of documents, the same averaged over two steps of citations, classes [N], and masks [N]: with
    a label, not of the test, of the test."""
    dataset = load_dataset("citeseer")
    splits = dataset.splits
    features = dataset.graph.features["node"]
    assert isinstance(features, SparseFeatures)
    words = context = features.row_normalised().todense()
    senders, receivers = dataset.graph.host_edges()["node", "to", "node"]
    degree = jnp.ones((len(words), 1)).at[receivers].add(1)
    for _ in range(2):
        context = context.at[receivers].add(context[senders]) / degree
    return words, context, dataset.labels, splits["train"], ~splits["test"], splits["test"]


def clusters(key: jax.Array, points: int) -> tuple[jax.Array, jax.Array]:
    """Points [points, 20] of 30 overlapping Gaussian clusters, three to a class, and their classes [points]."""
    keys = jax.random.split(key, 3)
    cluster = jax.random.randint(keys[0], (points,), 0, 30)
    centres = 0.7 * jax.random.normal(keys[1], (30, 20))
    return centres[cluster] + jax.random.normal(keys[2], (points, 20)), cluster % 10


def shapes(key: jax.Array, images: int) -> tuple[jax.Array, jax.Array]:
    """Noisy images [images, 16, 16, 1] of one shape each, of any place and size, and which of six it is [images]."""
    keys = jax.random.split(key, 4)
    centre = jax.random.uniform(keys[0], (2, images, 1, 1), minval=5.0, maxval=10.0)
    size = jax.random.uniform(keys[1], (images, 1, 1), minval=3.0, maxval=5.0)
    y, x = jnp.abs(jnp.mgrid[:16, :16][:, None] - centre) / size
    radius, far, near = jnp.hypot(x, y), jnp.maximum(x, y), jnp.minimum(x, y)
    drawn = jnp.stack([
        radius < 1,  # disc
        (radius < 1) & (radius > 0.6),  # ring
        far < 1,  # square
        (far < 1) & (far > 0.6),  # frame
        (far < 1) & (near < 0.2),  # upright cross
        (far < 1) & (far - near < 0.3),  # diagonal cross
    ])
    label = jax.random.randint(keys[2], (images,), 0, len(drawn))
    noise = 0.5 * jax.random.normal(keys[3], (images, 16, 16))
    return (drawn[label, jnp.arange(images)] + noise)[..., None], label


def source_lines(width: int = 64) -> tuple[np.ndarray, int]:
    """The different lines of Python's argparse as character numbers [lines, width], and how many numbers there are.

    0 pads, 1 ends a line; indents are left out and lines are cut to `width` with their end.
    """
    lines = sorted({line.strip() for line in inspect.getsource(argparse).splitlines()} - {""})
    alphabet = {character: number for number, character in enumerate(sorted(set("".join(lines))), start=2)}
    table = np.zeros((len(lines), width), np.int32)
    for row, line in zip(table, lines, strict=True):
        codes = [alphabet[character] for character in line[: width - 1]] + [1]
        row[: len(codes)] = codes
    return table, len(alphabet) + 2
