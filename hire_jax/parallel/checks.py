"""What training on batches asks of its sources and its objective, checked before anything is compiled."""

from typing import Any

import flax.linen as nn
import jax

from hire_jax.distill import Objective
from hire_jax.sampling import BatchSource
from hire_jax.terms import RELATIONS


def check_objective(objective: Objective, source: BatchSource) -> None:
    """Raises ValueError for terms that batches cannot give, and for a source without what the terms read."""
    edges = [f"{name} compares the ends of" for name in ("attention_map_kl", *RELATIONS) if name in objective.terms]
    if "type_pair_correlation" in objective.terms:
        if objective.variant == "edges":
            edges.append("type_pair_correlation with variant='edges' compares the ends of")
        if objective.hubs is not None:
            edges.append(f"type_pair_correlation with hubs={objective.hubs!r} counts")
    if edges:
        raise ValueError(f"{edges[0]} edges, which a teacher's rows do not have; terms on rows of nodes can be "
                         "distilled in batches")
    if not objective.terms:
        raise ValueError("the objective has no term with a weight")
    if source.labels is None:
        raise ValueError("the source must have labels=: int[N] or [N, C] of all target nodes")
    if objective.needs_teacher and source.teacher is None:
        raise ValueError("a distillation term has a weight, but the source has no teacher=: TeacherRows(folder)")
    if not objective.needs_teacher and source.teacher is not None:
        raise ValueError("the source has a teacher, but no distillation term has a weight; pass objective=Objective()")
    on_logits = [name for name in objective.terms if name not in ("supervised", "type_pair_correlation")]
    if on_logits and source.uniform and source.target not in source.uniform:
        raise ValueError(f"{on_logits[0]} reads nodes of the target: uniform must have some of {source.target!r}, got "
                         f"{source.uniform}")
    if "type_pair_correlation" in objective.terms and len(source.uniform) < 2:
        raise ValueError("type_pair_correlation compares nodes of two types: the source must have uniform="
                         f"{{type: number}} of at least two, got {source.uniform}")


def check_model(model: nn.Module, source: BatchSource) -> int:
    """The number of classes of a model. Raises ValueError where its logits do not fit the target and its labels."""
    shapes: Any = jax.eval_shape(lambda graph: model.init_with_output(jax.random.key(0), graph)[0],
                                 source.graph.shapes())
    labels: Any = source.labels
    nodes, classes = shapes.logits.shape
    named = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    if nodes != source.graph.counts[source.target] or classes < named or (labels.ndim == 2 and classes != named):
        raise ValueError(f"the model's logits are [{nodes}, {classes}], but {source.target!r} has "
                         f"{source.graph.counts[source.target]} nodes with labels of {named} classes; check the "
                         "model's target and num_classes")
    return int(classes)


def check_validation(validation: BatchSource, source: BatchSource) -> None:
    """Raises ValueError for a source that cannot validate what another trains."""
    if validation.target != source.target or validation.resident != source.resident:
        raise ValueError("validation must have the target and the resident types of the source, got "
                         f"{validation.target!r} and {sorted(validation.resident)} instead of {source.target!r} and "
                         f"{sorted(source.resident)}")
    if validation.labels is None:
        raise ValueError("validation must have labels=")
    if validation.shuffle:
        raise ValueError("validation must have shuffle=False: its logits are put in the order of its nodes")
    if (bare := (validation.labels[validation.nodes].reshape(validation.nodes.size, -1) < 0).any(axis=1)).any():
        raise ValueError(f"validation must hold labelled nodes, got {int(bare.sum())} without a label, the first of "
                         f"them {int(validation.nodes[bare.argmax()])}")
