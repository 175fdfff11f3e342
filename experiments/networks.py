"""From a `Baseline` to what trains it: the Flax module, its optimizer, and features as it reads them."""

import dataclasses
from typing import Any

import optax

import hire_jax as hj
from experiments.configs.baselines import Baseline


def build(model: str, network: Baseline, dataset: hj.Dataset) -> Any:
    """The model of that name in `hire_jax.models`, for the classes of the dataset."""
    arguments: dict[str, Any] = {"hidden": network.hidden, "layers": network.layers, "dropout": network.dropout}
    if model == "SGC":
        arguments = {"hops": network.hops, "dropout": network.dropout}
    elif model == "APPNP":
        arguments["hops"] = network.hops
    elif model == "GCNII":
        arguments["theta"] = network.theta
    else:
        if not network.norm:
            arguments["norm"] = False
        if not network.projection:
            arguments["projection"] = False
    if model in ("HAN", "HGT", "GAT", "GATv2", "SimpleHGN"):
        arguments |= {"heads": network.heads, "attention_dropout": network.attention_dropout}
    if model in ("GAT", "GATv2"):
        arguments["readout_heads"] = network.readout_heads
    return getattr(hj.models, model)(target=dataset.target, num_classes=dataset.num_classes, **arguments)


def coupled_adam(learning_rate: float, l2: float) -> optax.GradientTransformation:
    """Adam with its decay in the gradient, as torch's Adam has it."""
    return optax.flatten(optax.chain(optax.add_decayed_weights(l2), optax.adam(learning_rate)))


def row_normalised(graph: hj.HeteroGraph) -> hj.HeteroGraph:
    """The graph with rows of sparse features (bags of words) that sum to 1."""
    return dataclasses.replace(graph, features={name: x.row_normalised() if isinstance(x, hj.SparseFeatures) else x
                                                for name, x in graph.features.items()})
