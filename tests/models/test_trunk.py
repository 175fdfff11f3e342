"""The trunk without norm: its equations, and how its learned rows start."""

import jax
import numpy as np
import pytest

from hire_jax.models import GCN, GCNLayer


def test_without_norm_it_is_its_equations(awkward):
    model = GCN(target="paper", num_classes=3, hidden=4, layers=2, norm=False)
    variables = model.init(jax.random.key(0), awkward)
    params = variables["params"]
    assert not [name for name in params if "Norm" in name]
    output = model.apply(variables, awkward)
    projected = params["InputProjection_0"]
    hidden = {"paper": awkward.features["paper"] @ projected["kernel_paper"] + projected["bias_paper"],
              "author": awkward.features["author"].todense() @ projected["kernel_author"] + projected["bias_author"],
              "venue": projected["embedding_venue"]}
    for layer, types in enumerate((("paper", "author", "venue"), ("paper",))):
        for name in output.hidden[layer]:
            np.testing.assert_allclose(output.hidden[layer][name], hidden[name], rtol=1e-5, atol=1e-6)
        assert ("kernel" in params[f"GCNLayer_{layer}"]) == (layer > 0)  # the projection is the first one's
        module = GCNLayer(features=4, mapped=layer > 0)
        hidden = module.apply({"params": params[f"GCNLayer_{layer}"]}, awkward, hidden, types)
        hidden = {name: np.where(x > 0, x, np.expm1(np.minimum(x, 0))) for name, x in hidden.items()}
    np.testing.assert_allclose(output.hidden[2]["paper"], hidden["paper"], rtol=1e-5, atol=1e-6)
    classifier = params["classifier"]
    logits = hidden["paper"] @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(output.logits, logits, rtol=1e-5, atol=1e-6)


def test_without_its_matrix_a_gcn_layer_has_that_of_one(awkward, rng):
    hidden = {name: rng.normal(size=(n, 4)).astype(np.float32) for name, n in awkward.num_nodes.items()}
    bias = rng.normal(size=4).astype(np.float32)
    types, one = awkward.node_types, np.eye(4, dtype=np.float32)
    bare = GCNLayer(features=4, mapped=False).apply({"params": {"bias": bias}}, awkward, hidden, types)
    whole = GCNLayer(features=4).apply({"params": {"bias": bias, "kernel": one}}, awkward, hidden, types)
    assert bare.keys() == whole.keys() == set(types)
    for name in bare:
        np.testing.assert_allclose(bare[name], whole[name], rtol=1e-6, atol=1e-6)
    sparse = {"author": awkward.features["author"]}
    for width, rows, found in ((5, hidden, "'paper' are dense, 4 wide"), (4, sparse, "'author' are sparse, 4 wide")):
        with pytest.raises(ValueError, match=f"mapped=False needs dense rows of {width} .* but those of {found}"):
            GCNLayer(features=width, mapped=False).init(jax.random.key(0), awkward, rows, types)


def test_learned_rows_start_small_without_norm(awkward):
    rows = {}
    for norm in (True, False):
        model = GCN(target="paper", num_classes=3, hidden=512, norm=norm)
        params = jax.jit(model.init)(jax.random.key(1), awkward)["params"]
        rows[norm] = params["InputProjection_0"]["embedding_venue"]
    np.testing.assert_allclose(0.03 * rows[True], rows[False], rtol=1e-5)
    assert 0.9 < rows[True].std() < 1.1
