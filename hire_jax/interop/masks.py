"""Masks of training, validation and test nodes, from a column of a table or from arrays."""

from collections.abc import Mapping

import numpy as np

from hire_jax.data import DatasetError
from hire_jax.data.dataset import PARTS, labelled
from hire_jax.interop.labels import Labels
from hire_jax.interop.table import Table
from hire_jax.interop.values import brief, missing, shown


def column_masks(table: Table, column: str, labels: Labels) -> dict[str, np.ndarray]:
    """Masks from a column of "train", "val" and "test"; nodes where it is missing are in no part.

    Returns:
      bool [N] under "train" and "test", and under "val" where the column says so anywhere.

    Raises:
      DatasetError: another value, a part for a node without a label, or no training or test nodes.
    """
    has_label = labelled(labels.values)
    values = table.column(column, "the split", len(has_label)).tolist()
    for row, value in enumerate(values):
        if missing(value):
            continue
        if not isinstance(value, str) or value not in PARTS:
            raise DatasetError(str(table.error(column, row, f"one of {list(PARTS)}, or nothing", shown(value))))
        if not has_label[row]:
            raise DatasetError(str(table.error(column, row, "a part for labelled nodes only",
                                               f"{value!r} for a node without a label")))
    masks = {part: np.array([value == part for value in values]) for part in PARTS}
    return _with_parts(masks, f"{table.what}, column {column!r}")


def array_masks(masks: Mapping[str, np.ndarray], count: int, where: str, column: int | None) -> dict[str, np.ndarray]:
    """Masks from bool arrays [N], or [N, S] of S splits.

    Args:
      masks: arrays under "train", "val", "test"; "val" may be absent.
      count: N.
      where: what to call the arrays in errors.
      column: which of S splits; None where there is one.

    Raises:
      DatasetError: an array has another form, `column` is out of range or missing, or a part has no nodes.
    """
    taken = {}
    for part, mask in masks.items():
        if mask.dtype != np.bool_ or mask.ndim not in (1, 2) or len(mask) != count:
            raise DatasetError(f"{where}: {part}: expected a bool mask of {count} nodes, "
                               f"found {mask.dtype} of shape {list(mask.shape)}")
        if mask.ndim == 2:
            if isinstance(column, bool) or not isinstance(column, int) or not 0 <= column < mask.shape[1]:
                raise DatasetError(f"{where}: {part}: expected split= from 0 to {mask.shape[1] - 1}, one of the mask's "
                                   f"columns, found {brief(column)}")
            mask = mask[:, column]
        elif column is not None:
            raise DatasetError(f"{where}: {part}: expected masks of several splits for split={brief(column)}, "
                               "found one")
        taken[part] = mask
    return _with_parts(taken, where)


def _with_parts(masks: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The parts that have nodes; Raises DatasetError where training or test nodes are missing."""
    parts = {part: mask for part, mask in masks.items() if mask.any()}
    for part in ("train", "test"):
        if part not in parts:
            raise DatasetError(f"{where}: expected nodes for training and for testing, found none for {part!r}")
    return parts
