"""Relation blocks: all relations between two node types in one sparse pattern, built once on the host.

One block for each (source type, destination type), so that the cost of a model in operations grows with the number
of type pairs and not with the number of relations.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from hire_jax.graph.types import EdgeType
from hire_jax.sparse import CSR

# A relation between at most _DENSE_PAIRS pairs that links more than this share of them also keeps the full matrix
# (a byte a pair): attention over all pairs then needs less memory than over the edges, and less time
# (docs/performance.md).
_DENSE_ABOVE = 0.05
_DENSE_PAIRS = 2 ** 28


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelationBlock:
    """All R relations from one node type to another, as one pattern with E entries.

    Entries are ordered by destination, then relation, then source. Column `source * R + k` of the pattern is
    the message of `source` through relation k: reshaping per-relation messages [N_s, R, d] to [N_s * R, d]
    makes them the operand of one `spmm`. With R = 1 the column is the source itself.
    """

    csr: CSR  # [N_destination, N_source * R]
    mean: jax.Array  # float32[E], 1 / (number of entries of that destination and relation)
    t_mean: jax.Array  # float32[E], the same in the order of the transposed pattern
    positions: dict[EdgeType, jax.Array] | None  # int32[E_r], where relation r's edges stand; None if R = 1
    adjacency: jax.Array | None  # bool[N_destination, N_source] of one relation that links a good part of all pairs
    edge_types: tuple[EdgeType, ...] = dataclasses.field(metadata={"static": True})

    @property
    def num_relations(self) -> int:
        """R."""
        return len(self.edge_types)

    @property
    def relation_ids(self) -> jax.Array:
        """int32[E]: the index of each entry's relation in `edge_types`."""
        return self.csr.cols % self.num_relations

    def by_source(self) -> CSR:
        """The same entries with columns that are sources: [N_destination, N_source]."""
        return self.csr if self.num_relations == 1 else self.csr.merge_columns(self.num_relations)

    def by_relation(self) -> CSR:
        """The same entries with row `destination * R + k` for relation k: [N_destination * R, N_source]."""
        if self.num_relations == 1:
            return self.csr
        csr, width = self.by_source(), self.num_relations
        rows = csr.rows * width + self.relation_ids  # ascending: entries are ordered by destination, then relation
        return CSR(rows=rows, cols=csr.cols, indptr=jnp.searchsorted(rows, jnp.arange(csr.shape[0] * width + 1)
                   ).astype(jnp.int32), t_entries=csr.t_entries, t_rows=csr.t_rows,
                   t_cols=rows[csr.t_entries], t_indptr=csr.t_indptr, shape=(csr.shape[0] * width, csr.shape[1]))

    def split(self, values: jax.Array) -> dict[EdgeType, jax.Array]:
        """Values [E, ...] of the block's entries as {edge type: [E_r, ...]}, in each relation's own order."""
        if self.positions is None:
            return {self.edge_types[0]: values}
        return {edge_type: values[self.positions[edge_type]] for edge_type in self.edge_types}


def relation_blocks(relations: Mapping[EdgeType, jraph.GraphsTuple],
                    counts: Mapping[str, int]) -> dict[tuple[str, str], RelationBlock]:
    """{(source, destination): block} of relations whose edges are ordered by receiver, then sender."""
    members: dict[tuple[str, str], list[EdgeType]] = {}
    for edge_type in relations:
        members.setdefault((edge_type[0], edge_type[2]), []).append(edge_type)
    return {pair: _block(tuple(edge_types), relations, counts) for pair, edge_types in members.items()}


def _block(edge_types: tuple[EdgeType, ...], relations: Mapping[EdgeType, jraph.GraphsTuple],
           counts: Mapping[str, int]) -> RelationBlock:
    source, _, destination = edge_types[0]
    width = len(edge_types)
    senders = [np.asarray(relations[edge_type].senders) for edge_type in edge_types]
    receivers = np.concatenate([np.asarray(relations[edge_type].receivers) for edge_type in edge_types])
    relation = np.repeat(np.arange(width), [array.size for array in senders])
    columns = np.concatenate(senders).astype(np.int64) * width + relation
    order = np.argsort(receivers, kind="stable")  # relations follow each other, so ties keep their order
    rows, columns, relation = receivers[order].astype(np.int64), columns[order], relation[order]
    degree = np.bincount(rows * width + relation, minlength=counts[destination] * width)
    mean = 1.0 / degree[rows * width + relation]
    positions = None
    if width > 1:
        grouped = np.split(np.argsort(relation, kind="stable"), np.cumsum([array.size for array in senders])[:-1])
        positions = {edge_type: jnp.asarray(index, jnp.int32)
                     for edge_type, index in zip(edge_types, grouped, strict=True)}
    csr = CSR.from_sorted(rows, columns, (counts[destination], counts[source] * width))
    mean = jnp.asarray(mean, jnp.float32)
    return RelationBlock(csr=csr, mean=mean, t_mean=mean[csr.t_entries], positions=positions,
                         adjacency=_dense_adjacency(rows, columns, csr.shape) if width == 1 else None,
                         edge_types=edge_types)


def _dense_adjacency(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> jax.Array | None:
    """Which pairs are linked, where that is many of them, none twice, and the matrix is not too large."""
    pairs = shape[0] * shape[1]
    if not _DENSE_ABOVE * pairs < rows.size <= pairs <= _DENSE_PAIRS:
        return None
    adjacency = np.zeros(shape, np.bool_)
    adjacency[rows, columns] = True
    return jnp.asarray(adjacency) if np.count_nonzero(adjacency) == rows.size else None
