"""A planted graph in which every type has dense features of one width, so that every model can read it."""

import jax
import numpy as np
import pytest

from hire_jax.data import synthetic_hetero


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
