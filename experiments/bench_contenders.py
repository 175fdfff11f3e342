"""What the benches time: our models and their epochs as programs, and how contenders take turns."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

import hire_jax as hj
from experiments.console import Tracker
from hire_jax import training

# Threads of an OpenMP program go on spinning for a while after its work, and would be timed with the next one's.
PAUSE = 0.1

Contender = Callable[[], float]  # runs some epochs, returns seconds an epoch
Seconds = dict[str, list[float]]


class Network(Protocol):
    """What a bench's settings say of the network."""

    @property
    def model(self) -> str: ...
    @property
    def hidden(self) -> int: ...
    @property
    def layers(self) -> int: ...


def with_metapaths(dataset: hj.Dataset, settings: Network) -> hj.Dataset:
    """The dataset as the model reads it: HAN's graph is made of the metapaths proposed from the schema."""
    if settings.model != "HAN":
        return dataset
    return dataset.with_graph(hj.metapaths.metapath_graph(dataset.graph, dataset.target))


def network(dataset: hj.Dataset, settings: Network) -> Any:
    """The model all contenders train; dropout 0.5 as everywhere."""
    arguments: dict[str, Any] = {"target": dataset.target, "num_classes": dataset.num_classes,
                                 "hidden": settings.hidden, "layers": settings.layers, "dropout": 0.5}
    if settings.model == "HAN":  # one layer, and the semantic attention as wide as PyG's
        arguments |= {"layers": 1, "heads": 8, "semantic_features": settings.hidden}
    elif settings.model == "HGT":
        arguments["heads"] = 4
    return getattr(hj.models, settings.model)(**arguments)


class OurEpochs:
    """The epochs of `hire_jax.fit` as one compiled program; calling it runs them, returns seconds an epoch.

    Times what `fit` repeats: the compiled chunk and the copy of its records to the host.

    Args:
      dataset, model: what to train, with AdamW as in `fit`.
      seeds: how many at once.
      epochs: in one chunk.
      seed_batch: as in `fit`; None is its default.
    """

    def __init__(
        self, dataset: hj.Dataset, model: Any, *, seeds: int = 1, epochs: int = 5, seed_batch: int | None = None
    ) -> None:
        # No patience and no last epoch: a chunk costs the same however often it is run.
        program = training.compile_fit(model, dataset, seeds=seeds, epochs=2**30, patience=2**30,
                                       seed_batch=seed_batch, chunk=epochs)
        self.epochs, self.run, self.state, self.compiled = epochs, program.run, program.state, program.compiled

    def __call__(self) -> float:
        start = time.perf_counter()
        self.state, records = self.run(self.state)
        for values in records.values():
            np.asarray(values)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - start) / self.epochs

    def variables(self) -> Any:
        """The first seed's variables as they are now."""
        return jax.tree.map(lambda x: x[0], self.state.params)


def in_turns(contenders: Mapping[str, Contender], repeats: int, tracker: Tracker | None = None) -> Seconds:
    """Seconds of every call: each contender once a turn, on a machine at rest, after two calls of each that
    are not counted."""
    seconds: Seconds = {name: [] for name in contenders}
    for repeat in range(-2, repeats):
        for name, contender in contenders.items():
            time.sleep(PAUSE)
            taken = contender()
            if repeat >= 0:
                seconds[name].append(taken)
        if tracker is not None:
            tracker.update(repeat + 3)
    return seconds


def ratio(seconds: Seconds, name: str, base: str) -> float:
    """How many times longer `name` takes than `base`: the median over turns."""
    return float(np.median(np.array(seconds[name]) / np.array(seconds[base])))
