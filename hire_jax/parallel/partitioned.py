"""A model on a full graph in parts: every device computes its own nodes, and has the output of all."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from hire_jax.models import APPNP, GCNII, GKEDM, SGC, NodeClassifier
from hire_jax.models.output import ModelOutput
from hire_jax.parallel.axis import AXIS, gathered, shared
from hire_jax.parallel.partition import Part
from hire_jax.sampling.batches import batch_variables

# Those whose rows depend on features, on edges into the receiver and on their senders' rows, which they refresh.
EXACT = (NodeClassifier, SGC, APPNP, GCNII, GKEDM)


class Partitioned:
    """`apply` of a model in a program mapped over AXIS, with the output that one device has on the whole graph.

        parts = partition(HostGraph.from_graph(graph), 8)
        student = Partitioned(model)

        def step(params, part):
            def loss(params):
                output = student.apply(params, part, train=True, rngs={"dropout": key})
                return objective(output, labels, teacher=teacher, where=train)[0]
            return jax.grad(loss)(params)  # the gradient of the whole, on every device

        gradients = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0))(params, parts.spread())

    Parameters are those of the whole graph: `model.init(key, graph)`. Before each layer the halo of every part is
    exchanged, after dropout, so that all of a node's neighbours see the mask of its owner. Logits and hidden rows are
    gathered at the end, in the order of the whole graph: a loss over all pairs of nodes is that of one device. Rows
    that the loss does not read are not gathered either, once the program is compiled.

    Args:
      model: a `NodeClassifier`, SGC, APPNP, GCNII or GKEDM. HAN, which averages over all nodes, and SeHGNN, which reads
        all types' rows side by side, are refused, as is any model that is not known to refresh what it reads. A
        `NodeClassifier` of one's own may read the rows and edges of its own nodes and the rows of their senders.

    Raises:
      ValueError: another model.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, EXACT):
            raise ValueError(f"model must be a {', '.join(kind.__name__ for kind in EXACT)}, whose layers exchange "
                             f"what they read of others; {type(model).__name__} would be wrong on a graph in parts")
        self.model = model

    def apply(self, variables: Any, part: Part, *, train: bool = False,
              rngs: Mapping[str, jax.Array] | None = None) -> ModelOutput:
        """The model's output on the whole graph, the same on every device; attention, whose rows are edges, is ().

        Args:
          variables: of the whole graph, the same on every device. Their gradient is averaged over the devices, which
            makes it that of the whole where every device takes the same loss of the output.
          part: this device's.
          train, rngs: as in the model's own `apply`; every device has random numbers of its own.

        Raises:
          ValueError: another number of devices than parts; GKEDM in training with `sign_flips`, which all devices would
            have to draw alike; sparse features with `projection=False`, whose rows cannot be exchanged.
        """
        if (devices := jax.lax.axis_size(AXIS)) != part.parts:
            raise ValueError(f"the graph is in {part.parts} parts, but the program is mapped over {devices} devices")
        if train and isinstance(self.model, GKEDM) and self.model.positions and self.model.sign_flips:
            raise ValueError("sign_flips=True draws one sign for all nodes, which devices with random numbers of their "
                             "own do not have; a graph in parts needs GKEDM(sign_flips=False) or positions=False")
        here = jax.lax.axis_index(AXIS)
        ids: Any = part  # all that is read of a batch are its ids, which a part has too
        output: Any = self.model.apply(
            batch_variables(shared(variables), ids), part.graph, train=train,
            rngs={name: jax.random.fold_in(key, here) for name, key in (rngs or {}).items()})
        room = dict(part.room)

        def whole(name: str, rows: jax.Array) -> jax.Array:
            return gathered(rows[:room[name]]).at[part.places[name]].get(mode="promise_in_bounds")

        target = self.model.backbone.target if isinstance(self.model, GKEDM) else self.model.target
        hidden = tuple({name: whole(name, rows) for name, rows in layer.items()} for layer in output.hidden)
        return ModelOutput(logits=whole(target, output.logits), hidden=hidden, attention=())
