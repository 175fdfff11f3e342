"""Distillation losses: arrays in, a scalar out.

One rule for all losses of single rows: mean over rows, sum over classes (mean over features where a docstring says so),
times T² where class probabilities are softened. `where` is a row mask; with no row left the loss is 0 and its gradient
finite. The teacher's arrays are constants. Arithmetic is float32 or wider. `weights`, where a loss has it, makes a
weighted mean: of rows, types or relations. `neighbour_shares` is no loss, but what one of them reads.
"""

from hire_jax.losses.alignment import linear_cka
from hire_jax.losses.attention_maps import attention_map_kl
from hire_jax.losses.class_relations import dist
from hire_jax.losses.contrast import contrastive
from hire_jax.losses.decoupled import decoupled_kd
from hire_jax.losses.divergences import jensen_shannon, reverse_kl
from hire_jax.losses.features import attention_transfer, cosine_embedding, hint, vid
from hire_jax.losses.logits import bernoulli_kl, logit_mse, soft_target_kl
from hire_jax.losses.neighbourhoods import local_structure, typed_local_structure
from hire_jax.losses.prototypes import class_prototype_correlation, neighbour_shares
from hire_jax.losses.relational import type_pair_correlation
from hire_jax.losses.reliability import attention_reliability, correctness_reliability, entropy_reliability
from hire_jax.losses.rkd import rkd_angle, rkd_distance
from hire_jax.losses.similarities import global_structure, similarity_preserving

__all__ = [
    "attention_map_kl",
    "attention_reliability",
    "attention_transfer",
    "bernoulli_kl",
    "class_prototype_correlation",
    "contrastive",
    "correctness_reliability",
    "cosine_embedding",
    "decoupled_kd",
    "dist",
    "entropy_reliability",
    "global_structure",
    "hint",
    "jensen_shannon",
    "linear_cka",
    "local_structure",
    "logit_mse",
    "neighbour_shares",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
    "soft_target_kl",
    "type_pair_correlation",
    "typed_local_structure",
    "vid",
]
