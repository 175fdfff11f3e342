"""Additive attention over the edges into a node, shared by GAT, Simple-HGN and HAN; GATv2 has scores of its own.

For an edge e = (j -> i) and each head: s_e = LeakyReLU(u_j + v_i + w_r), with u, v the scores of its ends and w
that of its relation where there is one; a = softmax of s over all edges into i; m_i = sum_e a_e x_j.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hire_jax.graph import SELF, EdgeType, GraphError, HeteroGraph, RelationBlock
from hire_jax.models.dense_attention import dense_attention
from hire_jax.models.dropout import Dropout
from hire_jax.sparse import CSR, edge_sum, joint_segment_softmax, segment_softmax, spmm


class Attended(NamedTuple):
    """What `attend` gives: messages [N, H, d], attention by relation, and by block for a layer that follows."""

    messages: jax.Array
    attention: dict[EdgeType, jax.Array]  # [E_r, H], and [N, H] of (destination, "self", destination) with self loops
    weights: list[jax.Array]  # [E_b, H], one a block, the nodes themselves last (with self loops)


def attend(graph: HeteroGraph, destination: str, values: Mapping[str, jax.Array], sources: Mapping[str, jax.Array],
           scores: jax.Array, *, relation_scores: Mapping[EdgeType, jax.Array] | None = None,
           self_score: jax.Array | None = None, previous: list[jax.Array] | None = None, residual: float = 0.0,
           negative_slope: float = 0.2, self_loops: bool = True,
           drop: Callable[[jax.Array], jax.Array] = lambda x: x) -> Attended:
    """Attention of the nodes of one type over all their neighbours, and over themselves, in one softmax.

    Args:
      values: {type: [N, H, d]}, what is summed; sources: {type: [N, H]}, u; scores: [N_destination, H], v.
      relation_scores: {edge type: [H]}, w; None adds nothing.
      self_score: [H], w of a node to itself.
      self_loops: whether a node attends to itself.
      previous, residual: a = (1 - residual) softmax(s) + residual * previous, the `weights` of a layer before.
      drop: applied to the weights that sum the values, not to those returned.
    """
    edges = edges_into(graph, destination)
    logits = []
    for source, block, pattern in edges:
        score = edge_sum(pattern, scores, sources[source])
        if relation_scores is not None:
            of_relations = jnp.stack([relation_scores[edge_type] for edge_type in block.edge_types])
            score += of_relations[0] if block.num_relations == 1 else of_relations[block.relation_ids]
        logits.append(score)
    if self_loops:
        own = scores + sources[destination]
        logits.append(own if self_score is None else own + self_score)
    logits = [nn.leaky_relu(score, negative_slope) for score in logits]
    return softmax_sum(destination, edges, logits, [values[source] for source, _, _ in edges], values[destination],
                       previous=previous, residual=residual, self_loops=self_loops, drop=drop)


def edges_into(graph: HeteroGraph, destination: str) -> list[tuple[str, RelationBlock, CSR]]:
    """[(source type, block, its pattern by source)] of all relations into one node type."""
    return [(source, block, block.by_source()) for source, block in graph.blocks_into(destination)]


def softmax_sum(destination: str, edges: Sequence[tuple[str, RelationBlock, CSR]], logits: Sequence[jax.Array],
                values: Sequence[jax.Array], own: jax.Array, *, previous: list[jax.Array] | None = None,
                residual: float = 0.0, self_loops: bool = True,
                drop: Callable[[jax.Array], jax.Array] = lambda x: x) -> Attended:
    """What `attend` makes of its scores: one softmax over all edges into a node, and the sum of the values by it.

    Args:
      destination: the node type; edges: what `edges_into` gives.
      logits: [E_b, H] of each of its blocks and, with `self_loops`, [N, H] last.
      values: [N_source, H, d] of each block; own: [N, H, d] of the nodes themselves, without `self_loops` their shape
        alone.
      previous, residual, self_loops, drop: as in `attend`.

    Raises GraphError where the graph has the relation (destination, "self", destination) beside `self_loops`.
    """
    to_itself = (destination, SELF, destination)
    if self_loops and any(to_itself in block.edge_types for _, block, _ in edges):
        raise GraphError(f"relation {to_itself} stands for a node's attention to itself; give the graph's another name")
    if not logits:  # a type that no relation enters
        return Attended(jnp.zeros_like(own), {}, [])
    weights = joint_softmax(edges, logits, own.shape[0])
    if previous is not None:
        weights = [(1 - residual) * now + residual * before for now, before in zip(weights, previous, strict=True)]

    messages = drop(weights[-1])[:, :, None].astype(own.dtype) * own if self_loops else jnp.zeros_like(own)
    attention = {}
    for (_, block, pattern), weight, value in zip(edges, weights, values, strict=False):
        attention.update(block.split(weight))
        messages += aggregate(pattern, drop(weight), value)
    if self_loops:
        attention[to_itself] = weights[-1]
    return Attended(messages, attention, weights)


def joint_softmax(edges: Sequence[tuple[str, RelationBlock, CSR]], logits: Sequence[jax.Array],
                  nodes: int) -> list[jax.Array]:
    """The softmax of `softmax_sum`: over all edges into each of so many nodes, in float32."""
    rows = [pattern.rows for _, _, pattern in edges]
    if len(logits) > len(edges):
        rows.append(jnp.arange(nodes, dtype=jnp.int32))
    return joint_segment_softmax([score.astype(jnp.float32) for score in logits], rows, nodes)


def aggregate(pattern: CSR, weights: jax.Array, values: jax.Array) -> jax.Array:
    """sum_e a_e x_j for every head: [E, H] and [N_source, H, d] to [N_destination, H, d]."""
    return spmm(pattern, weights.astype(values.dtype), values)


def attend_relation(block: RelationBlock, scores: jax.Array, sources: jax.Array, values: jax.Array, *,
                    counts: jax.Array | None = None, negative_slope: float = 0.2, dropout: Dropout,
                    train: bool) -> tuple[jax.Array, jax.Array]:
    """Attention of the destinations of one relation over their neighbours alone: messages and weights.

    Args:
      scores, sources: v [N_destination, H] and u [N_source, H]; values: [N_source, H, d].
      counts: float[E], edges that stand for several; None takes each once.
      dropout: of the weights that sum the values, not of those returned.

    Returns:
      [N_destination, H, d], 0 where there is no neighbour, and the attention [E, H].
    """
    logits = nn.leaky_relu(edge_sum(block.csr, scores, sources), negative_slope).astype(jnp.float32)
    if counts is not None:
        logits += jnp.log(counts)[:, None]
    weights = segment_softmax(logits, block.csr.rows, scores.shape[0])
    if block.adjacency is None or counts is not None:
        return aggregate(block.csr, dropout(weights, train=train), values), weights
    # The weights above are then only computed where somebody reads them.
    rate = dropout.rate if train else 0.0
    message = dense_attention(block.adjacency, scores, sources, values, negative_slope=negative_slope, rate=rate,
                              key=dropout.make_rng("dropout") if rate > 0 else None)
    return message, weights
