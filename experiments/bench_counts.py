"""What an epoch must at least do, counted by hand from sizes alone: floating-point operations and bytes.

An epoch is two forward passes (training, validation), one backward pass and AdamW:

  matrix product [n, k] [k, m]   2 n k m operations; nk + km + nm numbers. The backward pass is two of them, or one
                                 where the left side is data
  sparse product, E entries      2 E d; 2 E + (rows + columns) d. One backward (weights get no gradient)
  attention over E entries       2 E d for the sum of values, and as many for scores that are products of queries and
                                 keys; two of each backward. Every operand and result once; an index an entry, or a bit
                                 a pair where that is less. A score that is a sum counts nothing for the entry; its two
                                 ends, and HAN's sum over metapaths, count operations and no numbers
  norm, GELU and dropout [n, d]  no operations counted; 2 n d forward, 3 n d backward
  AdamW and best parameters      12 operations a parameter; 5 numbers read, 4 written

Everything elementwise is taken to be fused and to cost no operations, an exponential or tanh too; an operand is read
once by a product however often it is gathered, and again by the next product; a number is 4 bytes. It is a floor of the
products in the order the model has them: in another order HGT's could be fewer.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import hire_jax as hj


@dataclasses.dataclass
class Count:
    """Operations, numbers read or written, and parameters so far."""

    operations: float = 0.0
    numbers: float = 0.0
    parameters: float = 0.0

    def matrix(self, n: int, k: int, m: int, *, backward: int = 2, parameters: int | None = None) -> None:
        """A matrix [k, m] applied to n rows, made of so many parameters; None takes all its entries."""
        self.operations += (2 + backward) * 2 * n * k * m
        self.numbers += (2 + backward) * (n * k + k * m + n * m)
        self.parameters += k * m if parameters is None else parameters

    def sparse(self, entries: int, rows: int, columns: int, width: int) -> None:
        """A sparse product of fixed weights."""
        self.operations += 3 * 2 * entries * width
        self.numbers += 3 * (2 * entries + (rows + columns) * width)

    def attention(self, entries: int, rows: int, columns: int, width: int, *, products: bool) -> None:
        """A sum of values [columns, width] by attention, whose scores are `products` of queries and keys, or not."""
        sums = 2 if products else 1
        pattern = min(entries, rows * columns / 32)
        self.operations += (2 + 2) * sums * 2 * entries * width
        # Queries, keys, values, output; backward, queries, keys, values and their gradients, and the output's gradient.
        self.numbers += 2 * (pattern + sums * (rows + columns) * width)
        self.numbers += pattern + (2 * sums * (rows + columns) - rows) * width

    def norm_act(self, n: int, width: int) -> None:
        """Norm, activation and dropout of n rows."""
        self.numbers += 7 * n * width

    def total(self) -> tuple[float, float]:
        """(operations, bytes), the optimiser's among them."""
        return self.operations + 12 * self.parameters, 4 * (self.numbers + 9 * self.parameters)


def hand_count(model: Any, dataset: hj.Dataset) -> Count:
    """What an epoch of RGCN, HeteroSAGE, HGT or HAN must do. Parameters are those of matrices; vectors are left out."""
    count, graph = Count(), dataset.graph
    if isinstance(model, hj.models.HAN):
        _project(count, graph, [model.target], model.hidden)
        for _ in range(model.layers):
            _han_layer(count, graph, model)
    else:
        layer = LAYERS[type(model).__name__]
        needed = graph.receptive_field(model.target, model.layers)
        _project(count, graph, needed[0], model.hidden)
        for destinations in needed[1:]:
            layer(count, graph, destinations, model)
            for name in destinations:
                count.norm_act(graph.num_nodes[name], model.hidden)
    count.matrix(graph.num_nodes[model.target], model.hidden, model.num_classes)
    return count


def _project(count: Count, graph: hj.HeteroGraph, types: Sequence[str], width: int) -> None:
    for name in types:
        features, nodes = graph.features.get(name), graph.num_nodes[name]
        if isinstance(features, hj.SparseFeatures):
            count.sparse(features.nnz, nodes, features.shape[1], width)
            count.parameters += features.shape[1] * width
        elif features is not None:
            count.matrix(nodes, features.shape[1], width, backward=1)
        else:
            count.parameters += nodes * width
        count.norm_act(nodes, width)


def _relational_layer(count: Count, graph: hj.HeteroGraph, destinations: Sequence[str], model: Any) -> None:
    """Of RGCN, and of HeteroSAGE, which divides rows besides."""
    width = model.hidden
    for destination in destinations:
        nodes = graph.num_nodes[destination]
        count.matrix(nodes, width, width)
        for source, block in graph.blocks_into(destination):
            relations, columns = block.num_relations, graph.num_nodes[source]
            count.matrix(min(columns, nodes) if relations == 1 else columns, width, relations * width)
            count.sparse(block.csr.num_entries, nodes, columns * relations, width)


def _hgt_layer(count: Count, graph: hj.HeteroGraph, destinations: Sequence[str], model: Any) -> None:
    """Keys and values through a relation are one product each: the type's matrix and the relation's are composed."""
    width, head = model.hidden, model.hidden // model.heads
    used = {source for destination in destinations for source, _ in graph.blocks_into(destination)}
    count.parameters += 2 * len(used) * width * width  # keys and values of a type
    for destination in destinations:
        nodes, entries, columns = graph.num_nodes[destination], 0, 0
        count.matrix(nodes, width, width)  # queries
        count.matrix(nodes, width, width)  # the output
        for source, block in graph.blocks_into(destination):
            relations = block.num_relations
            count.parameters += relations * model.heads  # the priors
            for _ in ("keys", "values"):
                count.operations += 4 * 2 * width * width * head * relations  # the composition
                count.matrix(graph.num_nodes[source], width, relations * width, parameters=relations * width * head)
            entries += block.csr.num_entries
            columns += graph.num_nodes[source] * relations
        count.attention(entries, nodes, columns, width, products=True)


def _han_layer(count: Count, graph: hj.HeteroGraph, model: hj.models.HAN) -> None:
    nodes, width = graph.num_nodes[model.target], model.hidden
    blocks = graph.blocks_into(model.target)
    count.matrix(nodes, width, width)
    for _, block in blocks:
        count.operations += (2 + 2) * 2 * 2 * nodes * width  # scores of both ends
        count.parameters += 2 * width
        count.attention(block.csr.num_entries, nodes, nodes, width, products=False)
    count.matrix(len(blocks) * nodes, width, model.semantic_features)
    count.operations += (2 + 2) * 2 * len(blocks) * nodes * width  # the sum over metapaths
    count.norm_act(nodes, width)


LAYERS = {"RGCN": _relational_layer, "HeteroSAGE": _relational_layer, "HGT": _hgt_layer}
