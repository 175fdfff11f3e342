"""Dropout whose mask is a hash of the element's index, cheap enough to be computed twice.

On a CPU most of a small graph network's step went into threefry bits for dropout (docs/performance.md). Here
the key gives two words and every element mixes its index with them by two rounds of a 32-bit finaliser
(xor-shift and multiply, the MurmurHash3 constants). That is not a generator to draw samples with; for masks
it passes the independence tests in tests/models/test_dropout.py. Being a few elementwise operations it fuses
with its surroundings, so no mask is stored between the forward and the backward pass.
"""

from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.sparse import SparseFeatures

Rows = TypeVar("Rows", jax.Array, SparseFeatures)
Arrays = TypeVar("Arrays", jax.Array, dict[str, Any])


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """bool[shape], each element False with probability `rate` (to 2^-32), a pure function of key and index.

    Raises:
      ValueError: more than 2^32 elements, whose indices would repeat.
    """
    if np.prod(shape, dtype=np.int64) >= 2 ** 32:
        raise ValueError(f"a dropout mask holds at most 2^32 elements, got shape {shape}")
    words = jax.random.bits(key, (2,), jnp.uint32)
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return keep_at(words, index, rate)


def keep_at(words: jax.Array, index: jax.Array, rate: float) -> jax.Array:
    """bool of index's shape: False with probability `rate`, from two key words and uint32 indices."""
    return _mix(_mix(index + words[0]) ^ words[1]) >= jnp.uint32(round(rate * (2 ** 32 - 1)))


def _mix(h: jax.Array) -> jax.Array:
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


class Dropout(nn.Module, kw_only=True):
    """Inverted dropout (arXiv 1207.0580): zero with probability `rate`, the rest divided by 1 - rate.

    Takes an array or a dictionary of arrays, each with a mask of its own; the dictionary keeps its order. Of
    `SparseFeatures` the stored entries are dropped, which are all that is not zero. Needs the "dropout" random stream
    when `train` is true and rate > 0. Raises ValueError for a rate outside [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Arrays, *, train: bool) -> Arrays:
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout rate must be in [0, 1), got {self.rate}")
        if not train or self.rate == 0:
            return x
        if not isinstance(x, dict):
            return self._drop(x)
        dropped = {name: self._drop(x[name]) for name in sorted(x)}  # masks do not depend on the order
        return {name: dropped[name] for name in x}

    def _drop(self, x: Rows) -> Rows:
        if isinstance(x, SparseFeatures):
            data = self._mask(x.data)
            return SparseFeatures(csr=x.csr, data=data, t_data=data[x.csr.t_entries])
        return self._mask(x)

    def _mask(self, x: jax.Array) -> jax.Array:
        return jnp.where(keep_mask(self.make_rng("dropout"), x.shape, self.rate), x / (1 - self.rate), 0)
