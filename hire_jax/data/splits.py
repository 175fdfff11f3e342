"""Seeded splits: pure functions from labels or masks to bool masks.

The random order comes from the raw 64-bit output of PCG64, whose stream numpy guarantees; the order of
`Generator.permutation` may change between numpy versions, and a published split must not.
"""

import numpy as np

from hire_jax.data.dataset import PARTS, labelled


def random_order(count: int, seed: int) -> np.ndarray:
    """int64 [count]: a permutation of 0 .. count-1, the same on every machine and numpy version.

    Raises:
        ValueError: `seed` is negative.
    """
    if seed < 0:
        raise ValueError(f"seed: expected a non-negative integer, found {seed}")
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def random_split(
    labels: np.ndarray, *, train_per_class: int = 20, val_per_class: int = 30, seed: int
) -> dict[str, np.ndarray]:
    """A fixed number of nodes per class for training and validation, all other labelled nodes for testing.

    The protocol of Shchur et al., "Pitfalls of Graph Neural Network Evaluation" (arXiv 1811.05868), for
    graphs whose source gives no split. A multi-label node belongs to no single class: there, C times as many
    nodes are drawn without regard to class.

    Args:
        labels: int [N], -1 unlabelled, or multi-hot int [N, C], rows of -1 unlabelled.
        train_per_class: training nodes per class.
        val_per_class: validation nodes per class.
        seed: non-negative; the same seed gives the same split everywhere.

    Returns:
        bool [N] masks under "train", "val", "test".

    Raises:
        ValueError: a count or the seed is out of range, or a class has too few nodes to leave one for
            testing.
    """
    labels = np.asarray(labels)
    if train_per_class < 1 or val_per_class < 0:
        raise ValueError(
            "train_per_class, val_per_class: expected at least 1 and 0 nodes, "
            f"found {train_per_class} and {val_per_class}"
        )
    masks = {part: np.zeros(len(labels), dtype=bool) for part in PARTS}
    for name, members in _drawn(labels, seed, stratified=True).items():
        classes = labels.shape[1] if labels.ndim == 2 else 1
        end_train = classes * train_per_class
        end_val = end_train + classes * val_per_class
        if len(members) <= end_val:
            raise ValueError(
                f"labels: expected more than {end_val} nodes in {name} ({end_train} for training, "
                f"{end_val - end_train} for validation, the rest for testing), found {len(members)}"
            )
        masks["train"][members[:end_train]] = True
        masks["val"][members[end_train:end_val]] = True
        masks["test"][members[end_val:]] = True
    return masks


def fraction_split(
    labels: np.ndarray, *, train: float = 0.6, val: float = 0.2, seed: int, stratified: bool = True
) -> dict[str, np.ndarray]:
    """Shares of the labelled nodes for training and validation, all other labelled nodes for testing.

    60/20/20 and 48/32/20 per cent are usual on graphs with heterophily (arXiv 2002.05287). Of n nodes of a class,
    the first round(train * n), and at least one, are for training, those up to round((train + val) * n) for
    validation. Nodes of a multi-label task belong to no single class and are drawn without regard to it.

    Args:
        labels: int [N], -1 unlabelled, or multi-hot int [N, C], rows of -1 unlabelled.
        train: share for training, above 0.
        val: share for validation, from 0; together with `train` below 1.
        seed: non-negative; the same seed gives the same split everywhere.
        stratified: takes the shares of every class; otherwise of all labelled nodes together.

    Returns:
        bool [N] masks under "train", "val", "test"; "val" is empty if its share is 0.

    Raises:
        ValueError: a share or the seed is out of range, or a part would be left without nodes.
    """
    labels = np.asarray(labels)
    if not (0 < train < 1 and 0 <= val < 1 and train + val < 1):
        raise ValueError(
            "train, val: expected shares above 0 and from 0, together below 1, "
            f"found {train:g} and {val:g}"
        )
    masks = {part: np.zeros(len(labels), dtype=bool) for part in PARTS}
    for members in _drawn(labels, seed, stratified).values():
        end_train = max(1, round(train * len(members)))
        end_val = max(end_train, round((train + val) * len(members)))
        masks["train"][members[:end_train]] = True
        masks["val"][members[end_train:end_val]] = True
        masks["test"][members[end_val:]] = True
    for part, mask in masks.items():
        if not mask.any() and (part != "val" or val > 0):
            raise ValueError(f"labels: expected labelled nodes for every part, found none left for {part}")
    return masks


def fold_split(
    labels: np.ndarray, *, fold: int, folds: int = 5, val_folds: int = 1, seed: int
) -> dict[str, np.ndarray]:
    """One split of `k_fold`: fold number `fold`, from 0, is for testing.

    Args:
        labels: int [N], -1 unlabelled, or multi-hot int [N, C], rows of -1 unlabelled.
        fold: which fold is for testing.
        folds: number of folds.
        val_folds: folds for validation, from 0; one fold at least must be left for training.
        seed: non-negative; the same seed gives the same folds everywhere.

    Returns:
        bool [N] masks under "train", "val", "test"; "val" is empty without `val_folds`.

    Raises:
        ValueError: a number is out of range, or there are fewer labelled nodes than folds.
    """
    labels = np.asarray(labels)
    if val_folds < 0 or folds < val_folds + 2:
        raise ValueError(
            "folds, val_folds: expected one fold each for training and testing beside 0 or more for "
            f"validation, found {folds} and {val_folds}"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"fold: expected a number from 0 to {folds - 1}, found {fold}")
    dealt = np.concatenate([np.zeros(0, int), *_drawn(labels, seed, stratified=True).values()])
    if len(dealt) < folds:
        raise ValueError(f"labels: expected a labelled node for each of {folds} folds, found {len(dealt)}")
    after = np.full(len(labels), -1)
    after[dealt] = (np.arange(len(dealt)) - fold) % folds  # 0 is the fold for testing, 1 the next
    return {"train": after > val_folds, "val": (after > 0) & (after <= val_folds), "test": after == 0}


def k_fold(labels: np.ndarray, *, folds: int = 5, val_folds: int = 1, seed: int) -> list[dict[str, np.ndarray]]:
    """Cross-validation: every labelled node is for testing in exactly one of several splits.

    The nodes of each class, in random order, are dealt to the folds in turn, so that the folds differ by one node
    at most, in total and in every class. In split k fold k is for testing, the next `val_folds` (after the last
    comes the first) are for validation, the others for training. Nodes of a multi-label task belong to no single
    class and are dealt without regard to it.

    Args:
        labels: int [N], -1 unlabelled, or multi-hot int [N, C], rows of -1 unlabelled.
        folds: number of folds and of splits.
        val_folds: folds for validation, from 0; one fold at least must be left for training.
        seed: non-negative; the same seed gives the same splits everywhere.

    Returns:
        The masks of `fold_split` for each fold.

    Raises:
        ValueError: a number is out of range, or there are fewer labelled nodes than folds.
    """
    return [
        fold_split(labels, fold=fold, folds=folds, val_folds=val_folds, seed=seed)
        for fold in range(max(folds, 1))  # fold_split refuses what is below 2
    ]


def _drawn(labels: np.ndarray, seed: int, stratified: bool) -> dict[str, np.ndarray]:
    """The labelled nodes in random order: {"class c": those of c}, or all under one name."""
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels: expected shape [N] or [N, C], found {list(labels.shape)}")
    order = random_order(len(labels), seed)
    order = order[labelled(labels)[order]]
    if labels.ndim == 2 or not stratified:
        return {"the labelled nodes together": order}
    return {f"class {c}": order[labels[order] == c] for c in np.unique(labels[order])}


def holdout(mask: np.ndarray, *, fraction: float = 0.2, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Holds out floor(fraction * count) nodes of a mask, drawn without regard to class.

    The HGB graphs (Lv et al., arXiv 2112.14936) define no validation set; their baselines take 20 % of the
    training nodes at random. Here the seed is stated.

    Args:
        mask: bool [N].
        fraction: share held out, between 0 and 1.
        seed: non-negative; the same seed gives the same nodes everywhere.

    Returns:
        (kept, held out), two disjoint bool [N] masks whose union is `mask`.

    Raises:
        ValueError: `mask` is not a bool vector, or either part would be empty.
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.ndim != 1:
        raise ValueError(f"mask: expected a bool vector, found {mask.dtype} of shape {list(mask.shape)}")
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: expected a number between 0 and 1, found {fraction}")
    indices = np.flatnonzero(mask)
    count = int(fraction * len(indices))
    if count == 0:
        raise ValueError(
            f"mask: expected enough nodes to hold out {fraction:g} of them, found {len(indices)}"
        )
    held = np.zeros_like(mask)
    held[indices[random_order(len(indices), seed)[:count]]] = True
    return mask & ~held, held
