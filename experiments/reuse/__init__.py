"""The losses in models that know nothing of this package: four examples to copy from, each under 60 lines.

`nnx_classifier` (Flax NNX: `soft_target_kl` and `linear_cka`), `equinox_classifier` (Equinox: `soft_target_kl` and
`rkd_distance`), `image_classifier` (plain JAX: `soft_target_kl` and, an image at a time, `attention_transfer`) and
`language_model` (plain JAX: `soft_target_kl` of every character, `where=` leaving out the padding). Each trains a
teacher, a small student on its own and the same student with the teacher, and says whether the teacher helped:
`python -m experiments.reuse.nnx_classifier`. `--weight` is that of the teacher's terms beside the labels' loss;
0 leaves the plain student. Nothing is downloaded. `common.py` trains and compares, `data.py` has the problems.
"""
