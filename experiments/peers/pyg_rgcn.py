"""RGCN as a user of PyG writes it: `HeteroConv` over mean convolutions, torch's AdamW, one Python step an epoch.

The only module of the project that imports torch; `experiments.bench --peer pyg` imports it when asked to. The
network computes what `hire_jax.models.RGCN` computes and, like it, only the node types that can influence the
target; `load_flax` copies our parameters, so that the bench can compare logits before it compares times.
"""

import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torch_geometric
from torch_geometric.nn import HeteroConv, SAGEConv

import hire_jax as hj

VERSIONS = {"torch": torch.__version__, "torch_geometric": torch_geometric.__version__}


class PygRGCN(torch.nn.Module):
    """hire_jax's RGCN in PyG.

    Args:
      dataset: graph, target and number of classes.
      network: the RGCN to copy, with free weights (no bases), mean aggregation and float32.
      sparse_features: keep CSR features as torch CSR matrices; otherwise they are made dense.
      sparse_adjacency: give relations as torch CSR matrices instead of edge lists, PyG's own fast path.

    Raises:
      ValueError: `network` uses what is not written here.
    """

    def __init__(
        self,
        dataset: hj.Dataset,
        network: hj.models.RGCN,
        *,
        sparse_features: bool = False,
        sparse_adjacency: bool = False,
    ) -> None:
        super().__init__()
        if network.bases is not None or network.aggregation != "mean" or network.dtype is not None:
            raise ValueError(
                "the PyG peer has free weights, mean aggregation and float32 only, got "
                f"bases={network.bases}, aggregation={network.aggregation!r}, dtype={network.dtype}"
            )
        graph, width = dataset.graph, network.hidden
        self.target, self.rate = network.target, network.dropout
        self.needed = graph.receptive_field(network.target, network.layers)
        self.blocks = {(s, d): block.edge_types for (s, d), block in graph.blocks.items()}
        self.features = {
            name: _features(graph.features[name], sparse_features) for name in self.needed[0] if name in graph.features
        }
        # `features @ kernel` rather than a Linear: it is the one form dense and CSR features share.
        self.kernels = torch.nn.ParameterDict(
            {name: torch.empty(x.shape[1], width) for name, x in self.features.items()}
        )
        self.biases = torch.nn.ParameterDict({name: torch.zeros(width) for name in self.features})
        self.embeddings = torch.nn.ParameterDict(
            {name: torch.randn(graph.num_nodes[name], width) for name in self.needed[0] if name not in self.features}
        )
        for kernel in self.kernels.values():
            torch.nn.init.xavier_uniform_(kernel)
        self.norms = torch.nn.ModuleList(
            torch.nn.ModuleDict({name: torch.nn.LayerNorm(width, eps=1e-6) for name in types}) for types in self.needed
        )
        self.roots = torch.nn.ModuleList(
            torch.nn.ModuleDict({name: torch.nn.Linear(width, width) for name in types}) for types in self.needed[1:]
        )
        used = [[edge_type for edge_type in graph.edge_types if edge_type[2] in types] for types in self.needed[1:]]
        with warnings.catch_warnings():  # types that are no destination keep no output: they are not needed
            warnings.filterwarnings("ignore", message="There exist node types")
            self.convolutions = torch.nn.ModuleList(
                HeteroConv(
                    {
                        edge_type: SAGEConv((width, width), width, aggr="mean", root_weight=False, bias=False)
                        for edge_type in edge_types
                    },
                    aggr="sum",
                )
                for edge_types in used
            )
        adjacency = {
            edge_type: _adjacency(graph, edge_type, sparse_adjacency)
            for edge_type in dict.fromkeys(e for edge_types in used for e in edge_types)
        }
        self.adjacency = [{edge_type: adjacency[edge_type] for edge_type in edge_types} for edge_types in used]
        self.classifier = torch.nn.Linear(width, dataset.num_classes)

    def forward(self) -> torch.Tensor:
        """Logits of the target nodes, [N, classes]."""
        h = dict(self.embeddings.items())
        for name, x in self.features.items():
            h[name] = x @ self.kernels[name] + self.biases[name]
        h = self._norm_act(0, h)
        for layer, types in enumerate(self.needed[1:]):
            h = {name: self._drop(x) for name, x in h.items()}
            messages = self.convolutions[layer](h, self.adjacency[layer])
            h = {name: self.roots[layer][name](h[name]) + messages.get(name, 0.0) for name in types}
            h = self._norm_act(layer + 1, h)
        return self.classifier(self._drop(h[self.target]))

    def _norm_act(self, layer: int, h: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: F.gelu(self.norms[layer][name](x), approximate="tanh") for name, x in h.items()}

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.rate, self.training)

    @torch.no_grad()
    def load_flax(self, variables: Mapping[str, Any]) -> None:
        """Takes the parameters of the Flax model: one set, without a seed axis."""
        params = variables["params"]
        projection = params["InputProjection_0"]
        for name in self.features:
            _set(self.kernels[name], projection[f"kernel_{name}"])
            _set(self.biases[name], projection[f"bias_{name}"])
        for name in self.embeddings:
            _set(self.embeddings[name], projection[f"embedding_{name}"])
        for layer, types in enumerate(self.needed):
            for name in types:
                norm = params[f"NormAct_{layer}"][f"norm_{name}"]
                _set(self.norms[layer][name].weight, norm["scale"])
                _set(self.norms[layer][name].bias, norm["bias"])
        for layer, types in enumerate(self.needed[1:]):
            values = params[f"RGCNLayer_{layer}"]
            for name in types:
                _set(self.roots[layer][name].weight, values[f"root_{name}"].T)
                _set(self.roots[layer][name].bias, values[f"bias_{name}"])
            for (source, destination), edge_types in self.blocks.items():
                if destination in types:
                    for kernel, edge_type in zip(values[f"kernel_{source}->{destination}"], edge_types, strict=True):
                        _set(self.convolutions[layer].convs[edge_type].lin_l.weight, kernel.T)
        _set(self.classifier.weight, params["classifier"]["kernel"].T)
        _set(self.classifier.bias, params["classifier"]["bias"])


class Training:
    """Steps and validations of a `PygRGCN`; calling it runs `epochs` of them and returns seconds an epoch."""

    def __init__(self, model: PygRGCN, dataset: hj.Dataset, *, epochs: int) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self.model, self.epochs = model, epochs
        self.labels = torch.from_numpy(np.array(dataset.labels)).long()
        self.train, self.val = (torch.from_numpy(np.array(dataset.splits[split])) for split in ("train", "val"))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-3)

    def __call__(self) -> float:
        start = time.perf_counter()
        for _ in range(self.epochs):
            self.epoch()
        return (time.perf_counter() - start) / self.epochs

    def epoch(self) -> tuple[float, float]:
        """One gradient step, then loss and accuracy on the validation nodes."""
        self.model.train()
        self.optimizer.zero_grad()
        self._loss(self.model(), self.train).backward()
        self.optimizer.step()
        self.model.eval()
        with torch.no_grad():
            logits = self.model()
            predictions = logits.argmax(1) if self.labels.ndim == 1 else (logits > 0).long()
            accuracy = (predictions == self.labels)[self.val].float().mean()
            return self._loss(logits, self.val).item(), accuracy.item()

    def _loss(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if self.labels.ndim == 1:
            return F.cross_entropy(logits[rows], self.labels[rows])
        targets = self.labels[rows].to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits[rows], targets, reduction="none").sum(1).mean()


def peers(dataset: hj.Dataset, network: hj.models.RGCN) -> dict[str, PygRGCN]:
    """The ways to write it: the usual one first, then with what the user can make sparse by hand."""
    forms = {"PyG, dense features": PygRGCN(dataset, network)}
    if any(isinstance(x, hj.SparseFeatures) for x in dataset.graph.features.values()):
        forms["PyG, sparse features"] = PygRGCN(dataset, network, sparse_features=True)
        forms["PyG, sparse features and adjacency"] = PygRGCN(
            dataset, network, sparse_features=True, sparse_adjacency=True
        )
    return forms


def difference(model: PygRGCN, variables: Mapping[str, Any], logits: np.ndarray) -> float:
    """The largest |PyG - ours| over all logits, relative to the largest |ours|, at our parameters."""
    model.load_flax(variables)
    model.eval()
    with torch.no_grad():
        theirs = model().numpy()
    return float(np.abs(theirs - logits).max() / np.abs(logits).max())


def _set(parameter: torch.Tensor, value: Any) -> None:
    parameter.copy_(torch.from_numpy(np.array(value)))


def _features(features: Any, sparse: bool) -> torch.Tensor:
    if not isinstance(features, hj.SparseFeatures):
        return torch.from_numpy(np.array(features))
    matrix = _csr(features.csr.indptr, features.csr.cols, features.data, features.shape)
    return matrix if sparse else matrix.to_dense()


def _adjacency(graph: hj.HeteroGraph, edge_type: tuple[str, str, str], sparse: bool) -> torch.Tensor:
    relation = graph.relations[edge_type]
    senders, receivers = np.array(relation.senders), np.array(relation.receivers)
    if not sparse:
        return torch.from_numpy(np.stack([senders, receivers])).long()
    counts = graph.num_nodes
    indptr = np.searchsorted(receivers, np.arange(counts[edge_type[2]] + 1))
    return _csr(indptr, senders, np.ones(senders.size, np.float32), (counts[edge_type[2]], counts[edge_type[0]]))


def _csr(indptr: Any, indices: Any, data: Any, shape: tuple[int, int]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
        return torch.sparse_csr_tensor(
            *(torch.from_numpy(np.array(x, np.int32)) for x in (indptr, indices)),
            torch.from_numpy(np.array(data)),
            shape,
            check_invariants=False,
        )
