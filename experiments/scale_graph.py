"""The graph of experiments.scale: made once, kept as .npy files, mapped into memory by every process that reads it."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import hire_jax as hj
from experiments.keys import key
from hire_jax.data import mag_shaped
from hire_jax.files import write_whole
from hire_jax.sampling import HostGraph
from hire_jax.sampling.host import Incoming

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a graph: the arguments of `hire_jax.data.mag_shaped`."""

    share: float
    num_classes: int
    noise: float
    feature_noise: float
    seed: int


@dataclasses.dataclass(frozen=True)
class MappedGraph:
    """A graph on the disk. Its large arrays take memory only where they are read, and the system may take that back."""

    host: HostGraph
    target: str
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    num_classes: int
    facts: dict[str, Any]  # what making it took

    @property
    def nodes(self) -> int:
        """Of all types."""
        return sum(self.host.counts.values())

    @property
    def edges(self) -> int:
        """Of all relations, without their reverses."""
        return sum(relation.senders.size for edge_type, relation in self.host.relations.items()
                   if not edge_type[1].startswith("rev_"))


def folder_of(recipe: Recipe, cache: Path) -> Path:
    """Where a graph is kept: a folder named after its recipe, so that another graph has another."""
    return cache / f"mag_{recipe.share:g}_{key({'format': FORMAT, 'recipe': recipe, 'version': hj.__version__})}"


def make(recipe: Recipe, cache: Path, peak: Callable[[], int | None]) -> None:
    """Makes a graph and keeps it; the folder is there whole or not at all.

    Args:
      recipe: what graph.
      cache: the folder that graphs are kept in.
      peak: gives the largest resident set in bytes so far, or None where it is not known; noted beside the graph.
    """
    folder = folder_of(recipe, cache)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        start = time.perf_counter()
        arrays = mag_shaped(recipe.share, num_classes=recipe.num_classes, noise=recipe.noise,
                            feature_noise=recipe.feature_noise, seed=recipe.seed)
        facts = {"generator_seconds": time.perf_counter() - start, "generator_peak_bytes": peak()}
        host = HostGraph.from_arrays(arrays.num_nodes, arrays.edges, arrays.features)
        named = {"labels": arrays.labels} | {f"split {part}": mask for part, mask in arrays.splits.items()}
        named |= {f"features {name}": x for name, x in host.features.items() if isinstance(x, np.ndarray)}
        for number, relation in enumerate(host.relations.values()):
            named |= {f"indptr {number}": relation.indptr, f"senders {number}": relation.senders}
        for name, array in named.items():
            np.save(partial / f"{name.replace(' ', '_')}.npy", array, allow_pickle=False)
        facts |= {"seconds": time.perf_counter() - start, "peak_bytes": peak(),
                  "bytes_on_disk": sum(path.stat().st_size for path in partial.iterdir())}
        description = {"counts": host.counts, "relations": list(host.relations), "target": arrays.target,
                       "num_classes": arrays.num_classes, "arguments": arrays.arguments, "facts": facts,
                       "shapes": {name: list(array.shape) for name, array in named.items()}}
        write_whole(partial / "graph.json", json.dumps(description, indent=1).encode())
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # of an error or Ctrl-C; there is none after the renaming


def opened(recipe: Recipe, cache: Path) -> MappedGraph:
    """The graph that `make` has kept.

    Raises:
      FileNotFoundError: it has not been made.
      ValueError: a file is not what was written; the message names it.
    """
    folder = folder_of(recipe, cache)
    described = json.loads((folder / "graph.json").read_bytes())
    arrays = {}
    for name, shape in described["shapes"].items():
        path = folder / f"{name.replace(' ', '_')}.npy"
        try:
            arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: expected an array {shape}, found a file that cannot be read ({error}); delete "
                             f"{folder}, and it is made again") from error
        if list(arrays[name].shape) != shape:
            raise ValueError(f"{path}: expected an array {shape}, found {list(arrays[name].shape)}; delete {folder}, "
                             "and it is made again")
    counts = described["counts"]
    relations = {tuple(edge_type): Incoming(arrays[f"indptr {number}"], arrays[f"senders {number}"])
                 for number, edge_type in enumerate(described["relations"])}
    features: dict[str, Any] = {name: arrays[f"features {name}"] for name in counts if f"features {name}" in arrays}
    splits = {name.removeprefix("split "): mask for name, mask in arrays.items() if name.startswith("split ")}
    return MappedGraph(HostGraph(counts, relations, features, {}), described["target"], arrays["labels"], splits,
                       described["num_classes"], described["facts"])


def whole(graph: MappedGraph) -> hj.HeteroGraph:
    """All of it on the device, for the outputs of a model on every node."""
    edges = {}
    for edge_type, relation in graph.host.relations.items():
        receivers = np.repeat(np.arange(relation.indptr.size - 1, dtype=np.int32), np.diff(relation.indptr))
        edges[edge_type] = np.stack([relation.senders, receivers])
    return hj.HeteroGraph.from_arrays(graph.host.counts, edges, graph.host.features)
