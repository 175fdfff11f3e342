"""A planted graph in which every type has dense features of one width, so that every model can read it."""

import jax
import numpy as np
import pytest

from hire_jax.data import synthetic_hetero
from hire_jax.sampling import BatchSource, HostGraph


@pytest.fixture(scope="session")
def planted():
    """70 items, 50 users and 12 tags with heavy-tailed degrees: a Dataset."""
    return synthetic_hetero({"item": 70, "user": 50, "tag": 12}, feature_density=1, feature_width=6, mean_degree=2.0,
                            featureless=(), power_law=2.5, seed=3)


@pytest.fixture(scope="session")
def parameters():
    """Parameters of no special value for a model and a graph of shapes: `init` starts biases at 0 and gates at 1."""
    def drawn(model, shapes):
        rng = np.random.default_rng(1)
        tree = jax.eval_shape(lambda key, graph: model.init(key, graph), jax.random.key(0), shapes)
        return jax.tree.map_with_path(lambda path, leaf: (
            rng.normal(scale=0.4, size=leaf.shape) + (path[-1].key.split("_")[0] in ("scale", "prior", "skip"))
        ).astype(leaf.dtype), tree)
    return drawn


@pytest.fixture(scope="session")
def host(planted):
    """The planted graph on the host."""
    return HostGraph.from_graph(planted.graph)


@pytest.fixture(scope="session")
def source_of(host):
    """A source of four batches of 40 items, or with other settings."""
    def made(**changes):
        settings = {"target": "item", "nodes": np.arange(5, 45), "batch_size": 12, "fanouts": [3, 2],
                    "uniform": {"tag": 2}, "labels": np.arange(70) % 3, "seed": 5}
        return BatchSource(changes.pop("graph", host), **(settings | changes))
    return made


@pytest.fixture(scope="session")
def seeds_of():
    """The numbers in the whole graph of a batch's seeds that count, in their order."""
    def found(batch):
        return np.asarray(batch.nodes_of(batch.seeds)["item"])[np.asarray(batch.seeds.where)].tolist()
    return found


@pytest.fixture(scope="session")
def assert_same():
    """That two batches are equal in every number."""
    def check(left, right):
        assert jax.tree.structure(left) == jax.tree.structure(right)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
            np.testing.assert_array_equal(a, b)
    return check
