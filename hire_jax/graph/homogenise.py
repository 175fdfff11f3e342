"""A typed graph as one `jraph.GraphsTuple` without types, for tools that know only such."""

from collections.abc import Mapping

import jax.numpy as jnp
import jraph
import numpy as np

from hire_jax.graph.types import EdgeType, Features
from hire_jax.sparse import SparseFeatures


def homogenise(num_nodes: Mapping[str, int], edges: Mapping[EdgeType, np.ndarray],
               features: Mapping[str, Features]) -> jraph.GraphsTuple:
    """All types' nodes one after another, all relations' edges ordered by receiver: `HeteroGraph.to_graphs_tuple`."""
    starts = dict(zip(num_nodes, np.cumsum([0, *num_nodes.values()]), strict=False))
    pairs = [np.stack([array[0] + starts[s], array[1] + starts[d]]) for (s, _, d), array in edges.items()]
    joined = np.concatenate([*pairs, np.zeros((2, 0), np.int32)], axis=1)
    relation = np.repeat(np.arange(len(pairs)), [array.shape[1] for array in pairs])
    order = np.lexsort((relation, joined[0], joined[1]))
    nodes = {"type": jnp.asarray(np.repeat(np.arange(len(num_nodes)), list(num_nodes.values())), jnp.int32)}
    present = [features.get(name) for name in num_nodes]
    dense = [x for x in present if x is not None and not isinstance(x, SparseFeatures)]
    if len(dense) == len(present) and len({x.shape[1] for x in dense}) == 1:
        nodes["features"] = jnp.concatenate(dense)
    return jraph.GraphsTuple(
        nodes=nodes, edges={"relation": jnp.asarray(relation[order], jnp.int32)},
        senders=jnp.asarray(joined[0][order], jnp.int32), receivers=jnp.asarray(joined[1][order], jnp.int32),
        n_node=jnp.asarray([sum(num_nodes.values())], jnp.int32),
        n_edge=jnp.asarray([joined.shape[1]], jnp.int32), globals=None)
