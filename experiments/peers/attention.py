"""PyG's `TransformerConv` beside our `GKEDMLayer`: the same parameters, the same loss, value and gradients."""

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch_geometric
from torch_geometric.nn import TransformerConv

VERSIONS = {"torch": torch.__version__, "torch_geometric": torch_geometric.__version__}


class Attention:
    """One call: value and gradients, by x and all parameters, of sum(layer(x) * target); returns seconds."""

    def __init__(self, x: np.ndarray, edges: np.ndarray, target: np.ndarray, params: Mapping[str, Any], *,
                 heads: int) -> None:
        features = target.shape[1]
        self.layer = TransformerConv(x.shape[1], features // heads, heads=heads, root_weight=False)
        names = {"query": "lin_query", "key": "lin_key", "value": "lin_value"}
        # Without its root map the layer still holds one, which nothing reads.
        state = {f"lin_skip.{name}": value for name, value in self.layer.lin_skip.state_dict().items()}
        for ours, theirs in names.items():
            state[f"{theirs}.weight"] = torch.from_numpy(np.array(params[ours]["kernel"]).T.copy())
            state[f"{theirs}.bias"] = torch.from_numpy(np.array(params[ours]["bias"]))
        self.layer.load_state_dict(state)
        self.x = torch.from_numpy(x.copy()).requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.edges = torch.from_numpy(edges.astype(np.int64))
        self.target = torch.from_numpy(target)

    def __call__(self) -> float:
        start = time.perf_counter()
        self.value_and_gradient()
        return time.perf_counter() - start

    def value_and_gradient(self) -> tuple[float, np.ndarray]:
        """The loss, and its gradient by x."""
        self.x.grad = None
        self.layer.zero_grad(set_to_none=True)
        value = (self.layer(self.x, self.edges) * self.target).sum()
        value.backward()
        assert self.x.grad is not None
        return float(value.detach()), self.x.grad.numpy()
