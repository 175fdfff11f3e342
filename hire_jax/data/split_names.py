"""Which masks the name of a split stands for."""

import re
from collections.abc import Mapping

import numpy as np

from hire_jax.data.errors import DatasetError
from hire_jax.data.splits import fold_split, fraction_split, holdout, random_split

VAL_FRACTION = 0.2
Masks = dict[str, np.ndarray]


def choose_split(
    named: Mapping[str, Mapping[str, np.ndarray]], default: str | None, labels: np.ndarray, split: str | None
) -> tuple[Masks, str]:
    """The masks that a `split` argument stands for, and the split's full name; the forms are those of
    `load_dataset`. A name in the file goes before a form.

    Args:
        named: name -> part -> bool [N]; "val" may be absent.
        default: the name that "default" stands for, or None.
        labels: int [N] or multi-hot [N, C], for splits that are drawn.
        split: the argument.

    Raises:
        DatasetError: there is no such split, it needs no seed, a number in it is out of range, or there are too
            few nodes to draw it from.
        ValueError: a split of the file has too few training nodes to hold some out.
    """
    asked = "default" if split is None else split
    name, seed = asked, None
    if asked not in named and (match := re.fullmatch(r"(.*):(\d{1,18})", asked)):
        name, seed = match[1], int(match[2])
    if name == "default" and name not in named:
        name = _default(named, default)
    if name not in named:
        try:
            drawn = _drawn_split(labels, name, seed or 0)
        except ValueError as error:
            raise DatasetError(f"split {asked!r}: {error}") from error
        if drawn is None:
            names = "".join(f"{name!r}, " for name in sorted(named) if name)  # the unnamed one is "default"
            raise DatasetError(
                f"split: expected {names}'default' or 'random:SEED', found {asked!r} "
                "('fraction:TRAIN:VAL:SEED' and 'fold:K/N:SEED' are drawn as well)"
            )
        return drawn
    parts = dict(named[name])
    if "val" in parts:
        if seed is not None:
            raise DatasetError(
                f"split: expected no seed, found {asked!r}: this split has its own validation set"
            )
        return parts, name
    seed = seed or 0
    parts["train"], parts["val"] = holdout(parts["train"], fraction=VAL_FRACTION, seed=seed)
    return parts, f"{name}:{seed}"


def _drawn_split(labels: np.ndarray, form: str, seed: int) -> tuple[Masks, str] | None:
    """The split that a form without its seed asks for, and its full name; None if it is none of the forms."""
    number = r"(\d{0,9}\.?\d{1,9})"
    if form == "random":
        masks = random_split(labels, train_per_class=20, val_per_class=30, seed=seed)
    elif match := re.fullmatch(f"fraction:{number}:{number}", form):
        masks = fraction_split(labels, train=float(match[1]), val=float(match[2]), seed=seed)
    elif match := re.fullmatch(r"fold:(\d{1,9})/(\d{1,9})", form):
        masks = fold_split(labels, fold=int(match[1]), folds=int(match[2]), seed=seed)
    else:
        return None
    return masks, f"{form}:{seed}"


def _default(named: Mapping[str, object], default: str | None) -> str:
    if default is not None:
        if default not in named:
            raise DatasetError(
                f"meta: expected default_split among the splits {sorted(named)}, found {default!r}"
            )
        return default
    if len(named) > 1:
        raise DatasetError(f"split: expected one of {sorted(named)} (the file names no default), found none")
    return next(iter(named), "random")
