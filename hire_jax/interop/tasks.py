"""A graph with labels and a split, as a `Dataset`."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from hire_jax.data import Dataset, DatasetError, holdout, random_split
from hire_jax.data.dataset import PARTS
from hire_jax.graph import EdgeType, HeteroGraph
from hire_jax.interop.assemble import Edges, Nodes, assemble
from hire_jax.interop.ids import Imported
from hire_jax.interop.labels import Labels, column_labels
from hire_jax.interop.masks import column_masks
from hire_jax.interop.roles import Roles
from hire_jax.interop.values import brief, shown

VAL_FRACTION = 0.2  # as `load_dataset` holds out


@dataclass(frozen=True)
class Drawing:
    """What is drawn where the data gives no split, or none with validation nodes.

    Attributes:
      seed: the same seed gives the same nodes on every machine.
      train_per_class, val_per_class: as `hire_jax.data.random_split`.

    Raises:
      DatasetError: one of them is not a whole number from 0.
    """

    seed: int
    train_per_class: int
    val_per_class: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise DatasetError(f"{name}: expected a whole number from 0, found {shown(value)}")


@dataclass(frozen=True)
class Task:
    """What to learn of a target table; the attributes are arguments of `dataset_from_columns`.

    Raises:
      DatasetError: one of them has the wrong type.
    """

    target: str
    label: str
    split: str | None
    separator: str | None
    drawing: Drawing
    name: str

    def __post_init__(self) -> None:
        for name in ("target", "label", "split", "separator", "name"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and not (value is None and name in ("split", "separator")):
                found = repr(value) if isinstance(value, str | None) else shown(value)
                raise DatasetError(f"{name}: expected a string{' or None' if name[0] == 's' else ''}, found {found}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The target table's columns that are no features."""
        return (self.label,) if self.split is None else (self.label, self.split)


def table_dataset(nodes: Mapping[str, Nodes], edges: Mapping[EdgeType, Edges], roles: Roles, task: Task
                  ) -> tuple[Dataset, Imported]:
    """The dataset of tables, and its graph with ids and the names of features.

    Raises:
      GraphError: as `assemble`.
      DatasetError: the target is no node type, a column has two roles, or the labels or the split are not in order.
    """
    check_target(task.target, nodes)
    ids, table, taken = nodes[task.target]
    if len({*taken, *task.columns}) < len(taken) + len(task.columns):
        raise DatasetError(f"{table.what}: expected different columns for {list(taken)}, the label and the split, "
                           f"found {list(task.columns)}")
    labels = column_labels(table, task.label, task.separator, len(ids.ids))
    masks = None if task.split is None else column_masks(table, task.split, labels)
    imported = assemble({**nodes, task.target: Nodes(ids, table, (*taken, *task.columns))}, edges, roles)
    split = task.label if task.split is None else task.split
    return make_dataset(imported.graph, task.target, labels, masks, split=split, drawing=task.drawing, name=task.name,
                        where=f"{table.what}, column {split!r}"), imported


def make_dataset(graph: HeteroGraph, target: str, labels: Labels, masks: Mapping[str, np.ndarray] | None, *,
                 split: str, where: str, drawing: Drawing, name: str) -> Dataset:
    """The dataset of a graph, labels and masks.

    Args:
      graph, target: as `Dataset` has them.
      labels: with their class names.
      masks: bool [N] under "train" and "test" and perhaps "val"; without "val", a fifth of the training nodes is held
        out. None draws a random split.
      split: what `meta["split"]` calls the masks.
      where: where labels and masks come from, for errors.
      drawing: how the random parts are drawn.
      name: the dataset's name.

    Raises:
      DatasetError: the masks do not fit the labels, or there are too few nodes to draw from.
    """
    try:
        if masks is None:
            taken = f"random:{drawing.seed} ({drawing.train_per_class} + {drawing.val_per_class} a class)"
            parts = random_split(labels.values, train_per_class=drawing.train_per_class,
                                 val_per_class=drawing.val_per_class, seed=drawing.seed)
        else:
            taken, parts = split, dict(masks)
            if "val" not in parts:
                taken = f"{split}:{drawing.seed}"
                parts["train"], parts["val"] = holdout(parts["train"], fraction=VAL_FRACTION, seed=drawing.seed)
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from error
    return Dataset(graph=graph, target=target, labels=jnp.asarray(labels.values),
                   splits={part: jnp.asarray(parts[part]) for part in PARTS}, num_classes=len(labels.classes),
                   multilabel=labels.multilabel, meta={"name": name, "classes": labels.classes, "split": taken})


def check_target(target: str, node_types: Mapping[str, object]) -> None:
    """Raises DatasetError unless the target is a node type."""
    if not isinstance(target, str) or target not in node_types:
        raise DatasetError(f"target: expected one of {list(node_types)}, found {brief(target)}")
