"""Distillation losses: arrays in, a scalar out.

One rule for all: mean over rows, sum over classes, times T² where a temperature is used. `where` is a row
mask; with no row left the loss is 0 and its gradient finite. The teacher's arrays are constants. Arithmetic
is float32 or wider.
"""

from hire_jax.losses.logits import bernoulli_kl, soft_target_kl
from hire_jax.losses.relational import type_pair_correlation

__all__ = ["bernoulli_kl", "soft_target_kl", "type_pair_correlation"]
