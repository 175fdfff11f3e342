"""What experiments.scale does: its sizes, its parts, and the configuration by which a finished part is found again."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import hire_jax as hj
from experiments.scale_graph import Recipe

Kind = Literal["graph", "teacher", "student", "HIRE", "memory"]
NETWORKS: tuple[Kind, ...] = ("teacher", "student", "HIRE")


@dataclasses.dataclass(frozen=True)
class Scale:
    """All numbers of a run; the command line's, with its presets filled in."""

    share: float
    num_classes: int
    noise: float
    feature_noise: float
    seed: int
    teacher_hidden: int
    student_hidden: int
    dropout: float
    learning_rate: float
    weight_decay: float
    alpha: float
    beta: float
    temperature: float
    batch_size: int
    uniform: int
    fanouts: tuple[int, ...]
    steps: int
    validation_nodes: int
    workers: int
    prefetch: int
    devices: int
    memory_batches: tuple[int, ...]
    memory_shares: tuple[float, ...]
    memory_steps: int

    def recipe(self, share: float) -> Recipe:
        """The graph of a share of ogbn-mag's size."""
        return Recipe(share=share, num_classes=self.num_classes, noise=self.noise, feature_noise=self.feature_noise,
                      seed=self.seed)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Scale":
        """What `dataclasses.asdict` and JSON have made of one: lists are tuples again."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                  for name, value in fields.items()}
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Part:
    """What one process does: a graph, a network, or one point of the memory curves."""

    kind: Kind
    share: float
    batch_size: int = 0  # of a memory point

    @property
    def label(self) -> str:
        """For progress and messages."""
        of_memory = f", batches of {self.batch_size}" if self.kind == "memory" else ""
        return f"{self.kind} at {self.share:g} of ogbn-mag{of_memory}"


def plan(scale: Scale) -> list[Part]:
    """All parts, each after those it needs."""
    points = [(scale.share, size) for size in scale.memory_batches]
    points += [(fraction * scale.share, scale.batch_size) for fraction in scale.memory_shares]
    graphs = dict.fromkeys([scale.share, *(share for share, _ in points)])
    return [*(Part("graph", share) for share in graphs), *(Part(kind, scale.share) for kind in NETWORKS),
            *(Part("memory", share, size) for share, size in dict.fromkeys(points))]


def config(scale: Scale, part: Part) -> dict[str, Any]:
    """What decides a part's result: the settings that it reads, and no others."""
    found: dict[str, Any] = {"experiment": "scale", "version": hj.__version__, "part": part.kind,
                             "graph": scale.recipe(part.share)}
    if part.kind == "graph":
        return found
    names = ["dropout", "learning_rate", "weight_decay", "fanouts", "workers", "prefetch", "devices"]
    if part.kind == "memory":
        names += ["teacher_hidden", "memory_steps"]
        return found | {name: getattr(scale, name) for name in names} | {"batch_size": part.batch_size}
    names += ["batch_size", "steps", "validation_nodes"]
    names += ["teacher_hidden"] if part.kind != "student" else []
    names += ["student_hidden"] if part.kind != "teacher" else []
    names += ["alpha", "beta", "temperature", "uniform"] if part.kind == "HIRE" else []
    return found | {name: getattr(scale, name) for name in names}
