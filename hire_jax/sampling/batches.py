"""What a training step is given: a sampled graph, and the rows of it that losses are taken on."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from hire_jax.graph import GraphError, HeteroGraph
from hire_jax.models.output import ModelOutput
from hire_jax.sparse import SparseFeatures


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Some nodes of a batch, with what is known of them.

    Attributes:
      index: {type: int32[n]}, where they stand in the batch.
      where: bool[n] of the target type; False for what fills up a last, shorter batch. None where all count.
      labels: int[n] or [n, C] of the target type, or None.
      teacher: the teacher's rows of the same nodes, or None.
      target: the node type with labels and logits.
    """

    index: dict[str, jax.Array]
    where: jax.Array | None
    labels: jax.Array | None
    teacher: ModelOutput | None
    target: str = dataclasses.field(metadata={"static": True})

    @property
    def labelled(self) -> jax.Array:
        """bool[n]: the rows with a label: not those whose label, or one of them, is negative. Raises ValueError where
        there are no labels."""
        if self.labels is None:
            raise ValueError("these rows have no labels: the source was given none, or they are of other types than "
                             "its target")
        known = jnp.asarray(self.labels) >= 0
        return known if known.ndim == 1 else known.all(axis=1)

    def of(self, output: ModelOutput) -> ModelOutput:
        """These rows of a model's output on the batch, in the order of `labels` and `teacher`.

        Logits are None where the target is not among the types; attention, whose rows are edges, is left out.
        """
        hidden = tuple({name: rows[self.index[name]] for name, rows in layer.items() if name in self.index}
                       for layer in output.hidden)
        logits: Any = output.logits[self.index[self.target]] if self.target in self.index else None
        return ModelOutput(logits=logits, hidden=hidden, attention=())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A sampled graph of static sizes.

    Attributes:
      graph: real nodes first in every type, then dummies, which only edges between dummies reach.
      ids: {type: int32[n]}, each node's number in the whole graph; 0 for dummies.
      real: {type: int32}, how many of the nodes are real.
      seeds: the batch's own nodes, its part of the epoch.
      uniform: nodes drawn uniformly from all of their type, independently from type to type; or None.
      counts: (type, nodes of the whole graph) for each type.
      resident: types whose features the batch comes without, for `with_features` to add.

    A step takes the supervised loss on the seeds and distils on the uniform nodes:

        output = model.apply(batch_variables(variables, batch), batch.graph, train=True, rngs=rngs)
        rows = batch.seeds.of(output)
        supervised = cross_entropy(rows.logits, batch.seeds.labels, where=batch.seeds.where)
        rows = batch.uniform.of(output)
        distilled, _ = objective(rows, batch.uniform.labels, teacher=batch.uniform.teacher,  # with supervised=0
                                 where=batch.uniform.labelled)

    `where` is read with `distil_rows="train"` and `reliability="correctness"`. The nodes of the epoch are the only ones
    with labels, so `labelled` are those of the training split where that is what the source goes through.

    With n_a of N_a nodes of type a drawn, every pair of nodes of two types is there with the same probability
    (n_a / N_a) (n_b / N_b). So the mean over the pairs drawn has the mean over all pairs as its expectation, and so has
    `losses.type_pair_correlation(variant="all_pairs")`, as has the mean over all nodes drawn of anything that belongs
    to one. Weighted means are ratios, and their expectation is only nearly the whole graph's value: the weights of
    `reliability` are normalised in each batch, and the number of `labelled` rows differs from batch to batch. The
    batch's other nodes are there for being neighbours: means over them favour nodes of high degree. With fan-outs that
    leave neighbours out, the expectation is that of the loss of the sampled model.
    """

    graph: HeteroGraph
    ids: dict[str, jax.Array]
    real: dict[str, jax.Array]
    seeds: Rows
    uniform: Rows | None
    counts: tuple[tuple[str, int], ...] = dataclasses.field(metadata={"static": True})
    resident: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def nodes_of(self, rows: Rows) -> dict[str, jax.Array]:
        """{type: int32[n]}: the numbers in the whole graph of `seeds` or `uniform`, in the order of their rows.

        Of seeds, those that do not count (`Rows.where`) are the others once more.
        """
        return {name: self.ids[name][index] for name, index in rows.index.items()}

    def with_features(self, tables: Mapping[str, jax.Array]) -> "Batch":
        """The batch with rows of features {type: [N, F]} of the whole graph, which are on the device already.

        It comes before `batch_variables`. A dummy gets the first row: nothing reads what becomes of it.

        Raises:
          GraphError: a table of a type that is not resident, or that is no matrix with a row for each of its nodes.
        """
        rows, counts = {}, dict(self.counts)
        for name, table in tables.items():
            if name not in self.resident:
                raise GraphError(f"features of {name!r} are given, but the source's resident types are "
                                 f"{list(self.resident)}")
            if isinstance(table, SparseFeatures) or table.ndim != 2 or len(table) != counts[name]:
                form = "sparse features" if isinstance(table, SparseFeatures) else f"{list(table.shape)}"
                raise GraphError(f"features of {name!r} must be an array [{counts[name]}, F], a row for each node of "
                                 f"the whole graph, got {form}")
            rows[name] = _taken(table, self.ids[name], 0)
        graph = dataclasses.replace(self.graph, features={**self.graph.features, **rows})
        return dataclasses.replace(self, graph=graph)


class Numbered(Protocol):
    """Nodes with their numbers in a larger graph: a `Batch`, or a part of a graph (`hire_jax.parallel`)."""

    @property
    def ids(self) -> dict[str, jax.Array]:
        """{type: int32[n]}."""


def batch_variables(variables: Any, batch: Numbered) -> Any:
    """A model's variables with the learned rows of a batch's nodes in place of those of all nodes.

    Types without features have a learned row a node ("embedding_TYPE" of an `InputProjection`). The gradient goes back
    into the rows that were taken. Leading axes, such as one of seeds, are kept.

    Raises:
      GraphError: resident features that `Batch.with_features` has not added yet, or a learned row missing for a node.
    """
    counts: dict[str, int] = {}
    if isinstance(batch, Batch):
        if missing := [name for name in batch.resident if name not in batch.graph.features]:
            raise GraphError(f"the features of {missing[0]!r} are resident, and the batch comes without them: "
                             "batch.with_features({type: [N, F]}) must add them first")
        counts = dict(batch.counts)

    def taken(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [str(getattr(key, "key", key)) for key in path]
        name = names[-1].removeprefix("embedding_")
        if name == names[-1] or not names[-2].startswith("InputProjection") or name not in batch.ids:
            return leaf
        if leaf.shape[-2] != counts.get(name, leaf.shape[-2]):
            raise GraphError(f"{names[-1]} has {leaf.shape[-2]} rows, but the whole graph has {counts[name]} nodes of "
                             f"{name!r}: variables must be those of the whole graph")
        return _taken(leaf, batch.ids[name], -2)

    return jax.tree.map_with_path(taken, variables)


def _taken(table: jax.Array, ids: jax.Array, axis: int) -> jax.Array:
    """The rows `ids` of a table, and zeros where it has none: of a type without nodes there are dummies alone."""
    if not table.shape[axis]:
        return jnp.zeros((*table.shape[:axis], len(ids), *table.shape[axis:][1:]), table.dtype)
    return jnp.take(table, ids, axis=axis)
