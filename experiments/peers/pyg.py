"""RGCN, HeteroSAGE, HGT and HAN as a user of PyG writes them, with torch's AdamW, one Python step an epoch.

The only module of the project that imports torch; `experiments.bench --peer pyg` imports it when asked to. Every
network computes what ours of that name computes and, like it, only the node types that can influence the target;
`load_flax` copies our parameters, so that the bench can compare logits before it compares times.
"""

import abc
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torch_geometric
from torch_geometric.nn import HANConv, HeteroConv, HGTConv, SAGEConv

import hire_jax as hj

VERSIONS = {"torch": torch.__version__, "torch_geometric": torch_geometric.__version__}
Tensors = dict[str, torch.Tensor]


class Peer(torch.nn.Module, abc.ABC):
    """The trunk of `hire_jax.models.NodeClassifier` in PyG; a subclass gives the layers.

    Args:
      dataset: graph, target and number of classes.
      network: ours, to copy; float32.
      sparse_features: keep CSR features as torch CSR matrices; otherwise they are made dense.
      sparse_adjacency: give relations as torch CSR matrices instead of edge lists, PyG's own fast path where a
        layer has one.

    Raises:
      ValueError: `network` uses what is not written here.
    """

    def __init__(self, dataset: hj.Dataset, network: Any, *, sparse_features: bool = False,
                 sparse_adjacency: bool = False) -> None:
        super().__init__()
        if network.dtype is not None:
            raise ValueError(f"the PyG peer has float32 only, got dtype={network.dtype}")
        self.network, graph, width = network, dataset.graph, network.hidden
        self.target, self.rate = network.target, network.dropout
        self.needed = self.reach(graph)
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
        used = [[edge_type for edge_type in graph.edge_types if edge_type[2] in types] for types in self.needed[1:]]
        adjacency = {
            edge_type: _adjacency(graph, edge_type, sparse_adjacency)
            for edge_type in dict.fromkeys(e for edge_types in used for e in edge_types)
        }
        self.adjacency = [{edge_type: adjacency[edge_type] for edge_type in edge_types} for edge_types in used]
        self.classifier = torch.nn.Linear(width, dataset.num_classes)
        with warnings.catch_warnings():  # types that are no destination keep no output: they are not needed
            warnings.filterwarnings("ignore", message="There exist node types")
            self.build(width, used)

    def reach(self, graph: hj.HeteroGraph) -> tuple[tuple[str, ...], ...]:
        """The node types known after the projection and after each layer."""
        return graph.receptive_field(self.network.target, self.network.layers)

    @abc.abstractmethod
    def build(self, width: int, used: list[list[tuple[str, str, str]]]) -> None:
        """Makes the layers; `used[l]` are the relations that layer l reads."""

    @abc.abstractmethod
    def convolve(self, layer: int, h: Tensors) -> Tensors:
        """One layer, without norm and activation."""

    @abc.abstractmethod
    def load_layer(self, layer: int, params: Mapping[str, Any]) -> None:
        """Takes the parameters of one Flax layer."""

    def forward(self) -> torch.Tensor:
        """Logits of the target nodes, [N, classes]."""
        h = dict(self.embeddings.items())
        for name, x in self.features.items():
            h[name] = x @ self.kernels[name] + self.biases[name]
        h = self._norm_act(0, h)
        for layer in range(len(self.needed) - 1):
            h = {name: self._drop(x) for name, x in h.items()}
            h = self._norm_act(layer + 1, self.convolve(layer, h))
        return self.classifier(self._drop(h[self.target]))

    def _norm_act(self, layer: int, h: Mapping[str, torch.Tensor]) -> Tensors:
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
        for layer in range(len(self.needed) - 1):
            self.load_layer(layer, params[f"{type(self.network).__name__}Layer_{layer}"])
        _set(self.classifier.weight, params["classifier"]["kernel"].T)
        _set(self.classifier.bias, params["classifier"]["bias"])


class RGCN(Peer):
    """`HeteroConv` over mean convolutions, and a root map a type; HeteroSAGE divides rows by their norm besides."""

    def build(self, width: int, used: list[list[tuple[str, str, str]]]) -> None:
        """Makes the layers."""
        network = self.network
        if getattr(network, "bases", None) is not None or getattr(network, "aggregation", "mean") != "mean":
            raise ValueError(f"the PyG peer has free weights and mean aggregation only, got bases={network.bases}, "
                             f"aggregation={network.aggregation!r}")
        self.normalise = getattr(network, "normalise", False)
        self.roots = torch.nn.ModuleList(
            torch.nn.ModuleDict({name: torch.nn.Linear(width, width) for name in types}) for types in self.needed[1:]
        )
        self.convolutions = torch.nn.ModuleList(
            HeteroConv({edge_type: SAGEConv((width, width), width, aggr="mean", root_weight=False, bias=False)
                        for edge_type in edge_types}, aggr="sum")
            for edge_types in used
        )

    def convolve(self, layer: int, h: Tensors) -> Tensors:
        """One layer, without norm and activation."""
        messages = self.convolutions[layer](h, self.adjacency[layer])
        h = {name: self.roots[layer][name](h[name]) + messages.get(name, 0.0) for name in self.needed[layer + 1]}
        return {name: F.normalize(x) for name, x in h.items()} if self.normalise else h

    def load_layer(self, layer: int, params: Mapping[str, Any]) -> None:
        """Takes the parameters of one Flax layer."""
        params = params.get("relations", params)  # HeteroSAGE's layer holds RGCN's
        for name in self.needed[layer + 1]:
            _set(self.roots[layer][name].weight, params[f"root_{name}"].T)
            _set(self.roots[layer][name].bias, params[f"bias_{name}"])
        for (source, destination), edge_types in self.blocks.items():
            if destination in self.needed[layer + 1]:
                for kernel, edge_type in zip(params[f"kernel_{source}->{destination}"], edge_types, strict=True):
                    _set(self.convolutions[layer].convs[edge_type].lin_l.weight, kernel.T)


class HGT(Peer):
    """`HGTConv`."""

    def build(self, width: int, used: list[list[tuple[str, str, str]]]) -> None:
        """Makes the layers."""
        self.convolutions = torch.nn.ModuleList(
            HGTConv(width, width, (list(types), edge_types), heads=self.network.heads)
            for types, edge_types in zip(self.needed, used, strict=False)
        )

    def convolve(self, layer: int, h: Tensors) -> Tensors:
        """One layer, without norm and activation."""
        out = self.convolutions[layer](h, self.adjacency[layer])
        return {name: out[name] for name in self.needed[layer + 1]}

    def load_layer(self, layer: int, params: Mapping[str, Any]) -> None:
        """Takes the parameters of one Flax layer."""
        conv, heads = self.convolutions[layer], self.network.heads
        for name in self.needed[layer]:
            shape = conv.kqv_lin.lins[name].weight.shape[0] // 3
            for index, role in enumerate(("key", "query", "value")):
                if f"{role}_{name}" in params:  # a type that is only read needs no query, and so on
                    part = slice(index * shape, (index + 1) * shape)
                    _set(conv.kqv_lin.lins[name].weight[part], params[f"{role}_{name}"].T)
                    _set(conv.kqv_lin.lins[name].bias[part], params[f"bias_{role}_{name}"])
            if name in self.needed[layer + 1]:
                _set(conv.out_lin.lins[name].weight, params[f"output_{name}"]["kernel"].T)
                _set(conv.out_lin.lins[name].bias, params[f"output_{name}"]["bias"])
                _set(conv.skip[name], np.reshape(params[f"skip_{name}"], 1))
        relations = list(conv.edge_types)
        for (source, destination), edge_types in self.blocks.items():
            for k, edge_type in enumerate(edge_types):
                if edge_type in relations:
                    rows = np.arange(heads) * len(relations) + relations.index(edge_type)
                    pair = f"{source}->{destination}"
                    conv.k_rel.weight[rows] = torch.from_numpy(np.array(params[f"relation_key_{pair}"][k]))
                    conv.v_rel.weight[rows] = torch.from_numpy(np.array(params[f"relation_value_{pair}"][k]))
                    _set(conv.p_rel["__".join(edge_type)], np.reshape(params[f"prior_{pair}"][k], (1, heads)))


class HAN(Peer):
    """`HANConv` over the same metapaths, each an edge list between target nodes."""

    def reach(self, graph: hj.HeteroGraph) -> tuple[tuple[str, ...], ...]:
        """The target type alone."""
        return ((self.network.target,),) * (self.network.layers + 1)

    def build(self, width: int, used: list[list[tuple[str, str, str]]]) -> None:
        """Makes the layers."""
        if self.network.semantic_features != width:
            raise ValueError(f"HANConv's semantic attention is as wide as its output, {width}; got "
                             f"semantic_features={self.network.semantic_features}")
        target = self.target
        self.adjacency = [{(target, path, target): x for (path, _, _), x in layer.items()} for layer in self.adjacency]
        self.convolutions = torch.nn.ModuleList(
            HANConv(width, width, ([target], list(layer)), heads=self.network.heads) for layer in self.adjacency
        )

    def convolve(self, layer: int, h: Tensors) -> Tensors:
        """One layer, without norm and activation."""
        return self.convolutions[layer](h, self.adjacency[layer])

    def load_layer(self, layer: int, params: Mapping[str, Any]) -> None:
        """Takes the parameters of one Flax layer."""
        conv, target = self.convolutions[layer], self.target
        _set(conv.proj[target].weight, params[f"projection_{target}"]["kernel"].T)
        _set(conv.proj[target].bias, params[f"projection_{target}"]["bias"])
        _set(conv.k_lin.weight, params["semantic"]["kernel"].T)
        _set(conv.k_lin.bias, params["semantic"]["bias"])
        _set(conv.q, params["semantic_query"][None])
        for _, path, _ in self.adjacency[layer]:
            name = f"{target}__{path}__{target}"
            _set(conv.lin_src[name], params[f"attention_source_{path}"][None])
            _set(conv.lin_dst[name], params[f"attention_destination_{path}"][None])


PEERS: dict[str, type[Peer]] = {"RGCN": RGCN, "HeteroSAGE": RGCN, "HGT": HGT, "HAN": HAN}


class Training:
    """Steps and validations of a `Peer`; calling it runs `epochs` of them and returns seconds an epoch."""

    def __init__(self, model: Peer, dataset: hj.Dataset, *, epochs: int) -> None:
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

    def held_bytes(self) -> int:
        """Bytes of what is there before the first epoch: parameters, features, relations, labels and splits."""
        model = self.model
        relations = {id(x): x for layer in model.adjacency for x in layer.values()}  # layers share them
        masks = [self.labels, self.train, self.val]
        tensors = [*model.parameters(), *model.features.values(), *relations.values(), *masks]
        return sum(_bytes(tensor) for tensor in tensors)

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


def peers(dataset: hj.Dataset, network: Any) -> dict[str, Peer]:
    """The ways to write it: the usual one first, then with what the user can make sparse by hand."""
    peer = PEERS[type(network).__name__]
    forms = {"PyG, dense features": peer(dataset, network)}
    if any(isinstance(x, hj.SparseFeatures) for x in dataset.graph.features.values()):
        forms["PyG, sparse features"] = peer(dataset, network, sparse_features=True)
        if peer is RGCN:  # the attention layers read edge lists alone
            forms["PyG, sparse features and adjacency"] = peer(
                dataset, network, sparse_features=True, sparse_adjacency=True
            )
    return forms


def difference(model: Peer, variables: Mapping[str, Any], logits: np.ndarray) -> float:
    """The largest |PyG - ours| over all logits, relative to the largest |ours|, at our parameters."""
    model.load_flax(variables)
    model.eval()
    with torch.no_grad():
        theirs = model().numpy()
    return float(np.abs(theirs - logits).max() / np.abs(logits).max())


def _bytes(tensor: torch.Tensor) -> int:
    parts = [tensor]
    if tensor.layout == torch.sparse_csr:
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return sum(part.numel() * part.element_size() for part in parts)


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
