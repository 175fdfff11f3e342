"""From a `Baseline` to what is trained: the Flax module, its optimizer, and the graph as it reads it."""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

import hire_jax as hj
from experiments.configs.baselines import Baseline
from hire_jax import metapaths

# On the path of a parameter that `l2_layers` decays: GCNII's convolutions, and the matrix of APPNP's first layer.
DECAYED_APART = {"GCNII": {"layers"}, "APPNP": {"SharedDense_0", "kernel"}}


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


def optimizer_of(model: str, network: Baseline) -> optax.GradientTransformation | None:
    """The network's `coupled_adam`, with a decay of its own for what the model's authors set apart; None where it
    takes AdamW."""
    if network.l2_layers is None:
        return coupled_adam(network.learning_rate, network.l2) if network.l2 else None
    apart = DECAYED_APART[model]

    def is_apart(params: Any, wanted: bool) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: ({entry.key for entry in path} >= apart) == wanted, params)

    return optax.chain(optax.add_decayed_weights(network.l2, mask=partial(is_apart, wanted=False)),
                       optax.add_decayed_weights(network.l2_layers, mask=partial(is_apart, wanted=True)),
                       optax.flatten(optax.adam(network.learning_rate)))


def row_normalised(graph: hj.HeteroGraph) -> hj.HeteroGraph:
    """The graph with rows of sparse features (bags of words) that sum to 1."""
    return dataclasses.replace(graph, features={name: x.row_normalised() if isinstance(x, hj.SparseFeatures) else x
                                                for name, x in graph.features.items()})


def count_parameters(model: Any, dataset: hj.Dataset) -> int:
    """Number of trained numbers, from shapes alone."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), dataset.graph)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def prepared(model: str, network: Baseline, dataset: hj.Dataset) -> hj.Dataset:
    """The dataset in the form the model reads: features chosen, metapaths composed, features propagated."""
    graph = dataset.graph
    if network.row_normalised:
        graph = row_normalised(graph)
    if network.features != "all":
        graph = graph.keep_features([dataset.target] if network.features == "target" else [])
    if model == "HAN":
        graph = metapaths.metapath_graph(graph, dataset.target)
    elif model == "SeHGNN":
        graph = metapaths.propagated_graph(graph, dataset.target, hops=network.hops, labels=training_labels(dataset),
                                           label_hops=network.label_hops, one_hot=True)
    return dataset.with_graph(graph)


def training_labels(dataset: hj.Dataset) -> np.ndarray:
    """float32[N, C]: the labels of training nodes, zeros elsewhere."""
    labels = np.asarray(dataset.labels)
    hot = labels if dataset.multilabel else np.asarray(jax.nn.one_hot(labels, dataset.num_classes))
    return np.where(np.asarray(dataset.splits["train"])[:, None], hot, 0).astype(np.float32)
