"""The terms of an objective: what each loss compares in the outputs of a student and its teacher.

`Objective` weighs and adds them. Outputs are `ModelOutput`, or anything with its `logits`, `hidden` and `attention`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hire_jax import losses
from hire_jax.graph import SELF, EdgeType

Edges = Mapping[EdgeType, tuple[jax.Array, jax.Array]]
Variant = Literal["all_pairs", "prototype", "edges"]

# Of other papers, by what they read: logits at a temperature, logits, or rows of the target before the classifier.
SOFTENED: dict[str, Callable[..., jax.Array]] = {
    "reverse_kl": losses.reverse_kl, "jensen_shannon": losses.jensen_shannon, "dist": losses.dist}
LOGITS: dict[str, Callable[..., jax.Array]] = {"logit_mse": losses.logit_mse}
EMBEDDINGS: dict[str, Callable[..., jax.Array]] = {
    "attention_transfer": losses.attention_transfer, "linear_cka": losses.linear_cka,
    "rkd_distance": losses.rkd_distance, "similarity_preserving": losses.similarity_preserving}
RELATIONS = ("typed_local_structure", "class_prototype_correlation")  # of nodes of several types and of edges
OTHERS = (*SOFTENED, *LOGITS, *EMBEDDINGS, *RELATIONS)


def node_level(student: Any, teacher: Any, labels: jax.Array, *, temperature: float, where: jax.Array | None,
               reliability: str | None, known: jax.Array | None) -> jax.Array:
    """The node-level term of HIRE: softened KL over classes, per class Bernoulli with labels [N, C].

    `known` bool[N] marks the nodes whose labels `reliability="correctness"` may see.
    """
    weights = None
    if reliability == "entropy":
        weights = losses.entropy_reliability(teacher.logits, temperature=temperature, multilabel=labels.ndim == 2)
    elif reliability == "correctness":
        if known is not None:
            labels = jnp.where(known if labels.ndim == 1 else known[:, None], labels, -1)
        weights = losses.correctness_reliability(teacher.logits, labels)
    divergence = losses.soft_target_kl if labels.ndim == 1 else losses.bernoulli_kl
    return divergence(student.logits, teacher.logits, temperature=temperature, where=where, weights=weights)


def relation_level(student: Any, teacher: Any, *, layers: Sequence[int] | None, variant: Variant, edges: Edges | None,
                   group_weights: Mapping[Any, float], centred: bool, hubs: str | None) -> jax.Array:
    """The relation-level term of HIRE: type-pair correlations, the mean over the matched layers.

    `hubs="degree"` weighs each node by 1 / its number of `edges`.
    """
    values, known = [], set()
    for s, t in matched_layers(student.hidden, teacher.hidden, layers, "type_pair_correlation"):
        within = edges_within(edges, s) if variant == "edges" else None
        groups = [e for e in within if e[0] != e[2]] if within is not None else list(s)
        known |= set(groups)
        values.append(losses.type_pair_correlation(s, t, variant=variant, edges=within,
                                                   weights={g: w for g, w in group_weights.items() if g in groups},
                                                   centred=centred,
                                                   row_weights=inverse_degrees(s, edges) if hubs else None))
    unknown = sorted(set(group_weights) - known, key=repr)
    if unknown:
        listed = sorted(known, key=repr)
        raise ValueError(f"group_weights names {unknown[0]!r}, but the matched layers have {listed}")
    return sum(values, jnp.zeros(())) / len(values)


def attention_maps(student: Any, teacher: Any, *, edges: Edges | None, heads: Literal["index", "mean", "assign"],
                   weighing: str | None) -> jax.Array:
    """The attention term of GKEDM, on the last layer with attention of each."""
    maps: list[dict] = [next((layer for layer in reversed(side.attention) if layer), {}) for side in (student, teacher)]
    if not maps[0] or set(maps[0]) != set(maps[1]):
        raise ValueError("attention_map_kl compares attention over the same relations, but the last layers with "
                         f"attention have {sorted(maps[0])} in the student and {sorted(maps[1])} in the teacher; a "
                         "teacher's outputs have their maps with outputs(attention=True)")
    nodes = student.logits.shape[0]
    known, receivers = edges or {}, []
    for edge_type, weights in maps[0].items():
        source, relation, destination = edge_type
        if edge_type in known:
            receivers.append(known[edge_type][1])
        elif relation == SELF and source == destination:
            receivers.append(jnp.arange(weights.shape[0]))
        else:
            raise ValueError(f"attention_map_kl needs edges[{edge_type}], got edges of {sorted(known)}")
    to = jnp.concatenate(receivers)
    s, t = (jnp.concatenate([side[edge_type] for edge_type in maps[0]]) for side in maps)
    importance = None
    if weighing == "entropy":
        importance = losses.attention_reliability(t, to, nodes)
    elif weighing == "degree":
        importance = jnp.zeros(nodes).at[to].add(1.0)
    return losses.attention_map_kl(s, t, to, nodes, heads=heads, weights=importance)


def other(name: str, student: Any, teacher: Any, labels: jax.Array, *, temperature: float, where: jax.Array | None,
          layers: Sequence[int] | None, edges: Edges | None) -> jax.Array:
    """A term of another paper, one of `OTHERS`.

    Those on embeddings read the target's rows that the classifier reads; typed_local_structure the hidden embeddings
    of `layers`, as `relation_level` does, and the edges among their types; class_prototype_correlation the same
    embeddings, and the teacher's logits for the classes, which all edges carry from the target to the other types.
    """
    if name in SOFTENED:
        if labels.ndim == 2:
            raise ValueError(f"{name} compares distributions over classes, but a node may have several labels; "
                             "soft_target_kl knows both")
        return SOFTENED[name](student.logits, teacher.logits, temperature=temperature, where=where)
    if name in LOGITS:
        return LOGITS[name](student.logits, teacher.logits, where=where)
    if name in EMBEDDINGS:
        return EMBEDDINGS[name](*(_read_by_classifier(side, name) for side in (student, teacher)), where=where)
    pairs = matched_layers(student.hidden, teacher.hidden, layers, name)
    if name == "class_prototype_correlation":
        shares = class_shares(student, teacher, edges, multilabel=labels.ndim == 2)
        if len(shares) < 2:
            raise ValueError(f"{name} carries classes along edges from the target {next(iter(shares))!r} to other node "
                             f"types, but none of {sorted(edges or {})} leads away from it")
        values = [losses.class_prototype_correlation(s, t, {a: shares[a] for a in s if a in shares}) for s, t in pairs]
    else:
        values = [losses.typed_local_structure(s, t, _needed(edges, s, name)) for s, t in pairs]
    return sum(values, jnp.zeros(())) / len(values)


def class_shares(student: Any, teacher: Any, edges: Edges | None, *, multilabel: bool) -> dict[str, jax.Array]:
    """{type: [N, C]}: the teacher's class probabilities, carried from the target along `edges`.

    Edges of types that no layer of the student has are left out.
    """
    name = "class_prototype_correlation"
    counts = {a: len(rows) for layer in student.hidden for a, rows in layer.items()}
    shares = (jax.nn.sigmoid if multilabel else jax.nn.softmax)(teacher.logits.astype(jnp.float32))
    return losses.neighbour_shares({_target(student, name): shares}, _needed(edges, counts, name), counts)


def inverse_degrees(layer: Mapping[str, jax.Array], edges: Edges | None) -> dict[str, jax.Array]:
    """{type: [N]}: 1 / max(1, number of edges of all relations that a node is an end of), of a layer's types."""
    ends = [(edge_type[side], index) for edge_type, both in (edges or {}).items()
            for side, index in zip((0, 2), both, strict=True)]
    if not any(name in layer for name, _ in ends):
        raise ValueError(f"hubs='degree' needs edges= of {sorted(layer)}, got edges of {sorted(edges or {})}")
    degrees = {name: jnp.zeros(len(rows)) for name, rows in layer.items()}
    for name, index in ends:
        if name in degrees:
            degrees[name] = degrees[name].at[index].add(1.0)
    return {name: 1 / jnp.maximum(degree, 1) for name, degree in degrees.items()}


def _needed(edges: Edges | None, layer: Mapping[str, Any], term: str) -> Edges:
    """The edges within a layer, of which there have to be some."""
    within = edges_within(edges, layer)
    if not within:
        raise ValueError(f"{term} needs edges= among {sorted(layer)}, got edges of {sorted(edges or {})}")
    return within


def edges_within(edges: Edges | None, layer: Mapping[str, Any]) -> Edges | None:
    """The edges whose ends both have rows in a layer."""
    if edges is None:
        return None
    return {edge_type: ends for edge_type, ends in edges.items() if edge_type[0] in layer and edge_type[2] in layer}


def matched_layers(student: Sequence[Mapping[str, jax.Array]], teacher: Sequence[Mapping[str, jax.Array]],
                   layers: Sequence[int] | None, term: str) -> list[tuple[dict, dict]]:
    """[(student layer, teacher layer)], both cut to the node types they share.

    `layers=None` takes all between input projection and last. Raises ValueError where two node types cannot be matched.
    """
    if not len(teacher):
        raise ValueError(f"the teacher has no hidden embeddings for {term} to match; a mean_teacher "
                         "has some with hidden_of=, a RandomTeacher where all its teachers have one form")
    if layers is None and len(student) != len(teacher):
        raise ValueError(f"student and teacher have {len(student)} and {len(teacher)} hidden layers; "
                         "name the layers to match with layers=")
    pairs = []
    for layer in range(1, len(student) - 1) if layers is None else layers:
        if not -min(len(student), len(teacher)) <= layer < min(len(student), len(teacher)):
            raise ValueError(f"layers names hidden layer {layer}, but student and teacher have {len(student)} "
                             f"and {len(teacher)}")
        shared = [name for name in student[layer] if name in teacher[layer]]
        if len(shared) < 2:
            raise ValueError(f"hidden layer {layer} has only the node types {shared} in student and teacher, and "
                             "a correlation needs two; where the graph has more, match a layer further from "
                             "the output")
        pairs.append(({name: student[layer][name] for name in shared}, {name: teacher[layer][name] for name in shared}))
    if not pairs:
        raise ValueError(f"a model with {len(student) - 1} layers has none between input projection and output; "
                         "match the input projection with layers=(0,)")
    return pairs


def _read_by_classifier(output: Any, term: str) -> jax.Array:
    """The rows of the target in the last hidden layer."""
    return output.hidden[-1][_target(output, term)]


def _target(output: Any, term: str) -> str:
    """The name of the target: the last hidden layer has no other type."""
    if not len(output.hidden) or len(output.hidden[-1]) != 1:
        found = [sorted(layer) for layer in output.hidden[-1:]]
        raise ValueError(f"{term} looks for the target in the last hidden layer, but that has the types {found}")
    return next(iter(output.hidden[-1]))
