"""What a training step is given: a sampled graph, and the rows of it that losses are taken on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hire_jax.graph import HeteroGraph
from hire_jax.models.output import ModelOutput


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

    A step takes the supervised loss on the seeds and distils on the uniform nodes:

        output = model.apply(batch_variables(variables, batch), batch.graph, train=True, rngs=rngs)
        rows = batch.seeds.of(output)
        supervised = cross_entropy(rows.logits, batch.seeds.labels, where=batch.seeds.where)
        rows = batch.uniform.of(output)
        distilled, _ = objective(rows, batch.uniform.labels, teacher=batch.uniform.teacher)  # with supervised=0

    With n_a of N_a nodes of type a drawn, every pair of nodes of two types is there with the same probability
    (n_a / N_a) (n_b / N_b). So the mean over the pairs drawn has the mean over all pairs as its expectation, and so has
    `losses.type_pair_correlation(variant="all_pairs")`, as has the mean of anything that belongs to one node. The
    batch's other nodes are there for being neighbours: means over them favour nodes of high degree. With fan-outs that
    leave neighbours out, the expectation is that of the loss of the sampled model.
    """

    graph: HeteroGraph
    ids: dict[str, jax.Array]
    real: dict[str, jax.Array]
    seeds: Rows
    uniform: Rows | None

    def with_features(self, tables: Mapping[str, jax.Array]) -> "Batch":
        """The batch with rows of features {type: [N, F]} of the whole graph, which are on the device already.

        A dummy gets the first row: nothing reads what becomes of it.
        """
        rows = {name: jnp.take(table, self.ids[name], axis=0) for name, table in tables.items()}
        graph = dataclasses.replace(self.graph, features={**self.graph.features, **rows})
        return dataclasses.replace(self, graph=graph)


def batch_variables(variables: Any, batch: Batch) -> Any:
    """A model's variables with the learned rows of a batch's nodes in place of those of all nodes.

    Types without features have a learned row a node ("embedding_TYPE" of an `InputProjection`). The gradient goes back
    into the rows that were taken. Leading axes, such as one of seeds, are kept.
    """
    def taken(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [str(getattr(key, "key", key)) for key in path]
        name = names[-1].removeprefix("embedding_")
        if name == names[-1] or not names[-2].startswith("InputProjection") or name not in batch.ids:
            return leaf
        return jnp.take(leaf, batch.ids[name], axis=-2)

    return jax.tree.map_with_path(taken, variables)
