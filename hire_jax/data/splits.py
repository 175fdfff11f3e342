"""Seeded splits: pure functions from labels or masks to bool masks.

The random order comes from the raw 64-bit output of PCG64, whose stream numpy guarantees; the order of
`Generator.permutation` may change between numpy versions, and a published split must not.
"""

import numpy as np

from hire_jax.data.dataset import labelled


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
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels: expected shape [N] or [N, C], found {list(labels.shape)}")
    if train_per_class < 1 or val_per_class < 0:
        raise ValueError(
            "train_per_class, val_per_class: expected at least 1 and 0 nodes, "
            f"found {train_per_class} and {val_per_class}"
        )
    order = random_order(len(labels), seed)
    order = order[labelled(labels)[order]]
    if labels.ndim == 2:
        groups = [("the labelled nodes together", order, labels.shape[1])]
    else:
        groups = [(f"class {c}", order[labels[order] == c], 1) for c in np.unique(labels[order])]
    masks = {part: np.zeros(len(labels), dtype=bool) for part in ("train", "val", "test")}
    for name, members, classes in groups:
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
