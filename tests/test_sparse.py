"""Sparse products against a loop in numpy: values, gradients, batches, and what they compile to."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hire_jax import sparse
from hire_jax.sparse import CSR, sddmm, spmm, spmm_reference

KERNEL = "cpu_csr_sparse_dense"
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CSR kernel and the blocks are the CPU's")

PATTERNS = {
    # rows 0, 3 and 5 are empty, column 2 is empty, (1, 0) stands there three times
    "duplicates": CSR.from_sorted(np.array([1, 1, 1, 1, 2, 4, 4]), np.array([0, 3, 0, 0, 3, 1, 4]), (6, 5)),
    "no entries": CSR.from_sorted(np.zeros(0, int), np.zeros(0, int), (3, 4)),
    "one row": CSR.from_sorted(np.array([0, 0]), np.array([1, 0]), (1, 2)),
}
DUPLICATES = PATTERNS["duplicates"]


def loop(csr, weights, x):
    """The definition, one entry at a time, in float64."""
    y = np.zeros((csr.shape[0], *x.shape[1:]))
    for e, (row, col) in enumerate(zip(np.asarray(csr.rows), np.asarray(csr.cols), strict=True)):
        w = np.asarray(1.0 if weights is None else weights[e], float)
        y[row] += w.reshape(w.shape + (1,) * (x.ndim - 1 - w.ndim)) * np.asarray(x, float)[col]
    return y


def operands(rng, csr, heads=None, trailing=(3,), batch=()):
    """Weights [*batch, E] or [*batch, E, H] and x to fit."""
    axes = () if heads is None else (heads,)
    weights = rng.normal(size=(*batch, csr.num_entries, *axes)).astype(np.float32)
    x = rng.normal(size=(*batch, csr.shape[1], *axes, *trailing)).astype(np.float32)
    return jnp.asarray(weights), jnp.asarray(x)


def both_gradients(product, cotangent):
    return jax.jit(jax.grad(lambda w, x: jnp.sum(product(w, x) * cotangent), argnums=(0, 1)))


# ------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("heads", "trailing"), [(None, ()), (None, (3,)), (None, (20,)), (None, (2, 3)), (2, ()),
                                                 (2, (3,)), (2, (2, 3))])
def test_values(rng, pattern, heads, trailing):
    csr = PATTERNS[pattern]
    weights, x = operands(rng, csr, heads, trailing)
    results = list(jax.jit(lambda w, x: (spmm(csr, w, x), spmm_reference(csr, w, x)))(weights, x))
    if pattern == "duplicates":
        results.append(spmm(csr, weights, x))
    for result in results:
        assert result.dtype == x.dtype
        np.testing.assert_allclose(result, loop(csr, weights, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_weights_are_ones(rng, pattern):
    csr = PATTERNS[pattern]
    _, x = operands(rng, csr)
    for product in (spmm, spmm_reference):
        np.testing.assert_allclose(product(csr, None, x), loop(csr, None, x), rtol=1e-5, atol=1e-6)


def test_types_without_nodes_and_width_zero():
    nothing = CSR.from_sorted(np.zeros(0, int), np.zeros(0, int), (2, 0))
    assert spmm(nothing, None, jnp.zeros((0, 3))).tolist() == [[0, 0, 0]] * 2
    assert spmm(nothing.T, None, jnp.zeros((2, 3))).shape == (0, 3)
    assert spmm(nothing, jnp.zeros((0, 2)), jnp.zeros((0, 2, 3))).shape == (2, 2, 3)
    assert sddmm(nothing, jnp.zeros((2, 2, 3)), jnp.zeros((0, 2, 3))).shape == (0, 2)
    assert spmm(DUPLICATES, None, jnp.zeros((5, 0))).shape == (6, 0)
    gradient = jax.grad(lambda x: jnp.sum(jax.vmap(lambda one: spmm(nothing, None, one))(x)))(jnp.zeros((4, 0, 3)))
    assert gradient.shape == (4, 0, 3)
    batch = jax.vmap(lambda w, x: spmm(DUPLICATES, w, x))(jnp.ones((4, 7)), jnp.zeros((4, 5, 0)))
    assert batch.shape == (4, 6, 0)


@pytest.mark.parametrize("width", [1, 16])
def test_more_than_32768_rows(rng, width):
    """A size at which jit(vmap(W @ r)) of one JAX release was wrong."""
    n = 33_000
    rows = np.sort(rng.integers(0, n, 3 * n))
    csr = CSR.from_sorted(rows, rng.integers(0, n, 3 * n), (n, n))
    weights, x = operands(rng, csr, trailing=(width,), batch=(2,))
    expected = np.stack([scipy.sparse.csr_matrix((np.asarray(w, float), (csr.rows, csr.cols)), shape=(n, n))
                         @ np.asarray(one, float) for w, one in zip(weights, x, strict=True)])
    batched = jax.vmap(lambda w, one: spmm(csr, w, one))
    np.testing.assert_allclose(jax.jit(batched)(weights, x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batched(weights, x), expected, rtol=1e-4, atol=1e-5)
    folded = jax.jit(jax.vmap(lambda one: spmm(csr, weights[0], one)))(x)
    np.testing.assert_allclose(folded[0], expected[0], rtol=1e-4, atol=1e-5)


def test_float64(rng):
    with jax.enable_x64(True):
        weights, x = (jnp.asarray(np.asarray(a), jnp.float64) for a in operands(rng, DUPLICATES, trailing=(4,)))
        result = jax.jit(spmm)(DUPLICATES, weights, x)
        assert result.dtype == jnp.float64
        np.testing.assert_allclose(result, loop(DUPLICATES, weights, x), rtol=1e-14)
        dw, dx = both_gradients(lambda w, x: spmm(DUPLICATES, w, x), result)(weights, x)
        assert dw.dtype == dx.dtype == jnp.float64
        np.testing.assert_allclose(dx, loop(DUPLICATES.T, weights[DUPLICATES.t_entries], result), rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("heads", [None, 1])
def test_narrow_types_are_summed_in_float32(dtype, heads):
    count = 4001  # in bfloat16 a sum of ones ends at 256, in float16 at 2048
    csr = CSR.from_sorted(np.zeros(count, int), np.zeros(count, int), (1, 1))
    axes = () if heads is None else (heads,)
    result = spmm(csr, jnp.ones((count, *axes), dtype), jnp.ones((1, *axes, 2), dtype))
    assert result.dtype == dtype
    np.testing.assert_allclose(np.asarray(result, float), count, rtol=2 ** -8)
    gradient = jax.grad(lambda x: spmm(csr, None, x).astype(jnp.float32).sum())(jnp.ones((1, 2), dtype))
    assert gradient.dtype == dtype
    np.testing.assert_allclose(np.asarray(gradient, float), count, rtol=2 ** -8)


# ---------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("heads", "trailing"), [(None, ()), (None, (20,)), (2, (3,))])
def test_gradients(rng, pattern, heads, trailing):
    csr = PATTERNS[pattern]
    weights, x = operands(rng, csr, heads, trailing)
    cotangent = rng.normal(size=(csr.shape[0], *x.shape[1:])).astype(np.float32)
    dw, dx = both_gradients(lambda w, x: spmm(csr, w, x), cotangent)(weights, x)

    rows, cols = np.asarray(csr.rows), np.asarray(csr.cols)
    products = cotangent[rows].astype(float) * np.asarray(x, float)[cols]
    expected_dw = products.reshape(*weights.shape, -1).sum(-1) if products.size else np.zeros(weights.shape)
    np.testing.assert_allclose(dw, expected_dw, rtol=1e-5, atol=1e-6)
    expected_dx = np.zeros(x.shape)
    for e in range(csr.num_entries):
        w = np.asarray(weights[e], float)
        expected_dx[cols[e]] += w.reshape(w.shape + (1,) * (x.ndim - 1 - w.ndim)) * cotangent[rows[e]]
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-5, atol=1e-6)
    for ours, reference in zip((dw, dx), both_gradients(lambda w, x: spmm_reference(csr, w, x), cotangent)(weights, x),
                               strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [None, 2])
def test_second_derivatives(rng, heads):
    weights, x = operands(rng, DUPLICATES, heads)

    def penalised(product):
        def inner(w, x):
            return jnp.sum(jnp.sin(product(DUPLICATES, w, x)))

        def outer(w, x):
            dw, dx = jax.grad(inner, argnums=(0, 1))(w, x)
            return jnp.sum(dw ** 2) + jnp.sum(dx ** 3)

        return jax.jit(jax.grad(outer, argnums=(0, 1)))(weights, x)

    for ours, reference in zip(penalised(spmm), penalised(spmm_reference), strict=True):
        assert np.abs(reference).max() > 0.1
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [None, 2])
def test_sddmm(rng, heads):
    axes = () if heads is None else (heads,)
    a = jnp.asarray(rng.normal(size=(6, *axes, 4)).astype(np.float32))
    b = jnp.asarray(rng.normal(size=(5, *axes, 4)).astype(np.float32))

    def plain(a, b):
        return jnp.sum(a[DUPLICATES.rows] * b[DUPLICATES.cols], axis=-1)

    def loss(product):
        return jax.jit(jax.value_and_grad(lambda a, b: jnp.sum(jnp.sin(product(a, b))), argnums=(0, 1)))(a, b)

    np.testing.assert_allclose(sddmm(DUPLICATES, a, b), plain(a, b), rtol=1e-5, atol=1e-6)
    for ours, reference in zip(jax.tree.leaves(loss(lambda a, b: sddmm(DUPLICATES, a, b))),
                               jax.tree.leaves(loss(plain)), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


def test_sddmm_gradients_keep_their_dtypes():
    gradients = jax.grad(lambda a, b: sddmm(DUPLICATES, a, b).sum(), argnums=(0, 1))
    da, db = gradients(jnp.ones((6, 4)), jnp.ones((5, 4), jnp.bfloat16))
    assert (da.dtype, db.dtype) == (jnp.float32, jnp.bfloat16)


# ------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=["weights", "x", "both"])
@pytest.mark.parametrize(("heads", "trailing"), [(None, (3,)), (None, (20,)), (2, (3,))],
                         ids=["narrow", "wide", "heads"])
def test_vmap_equals_a_loop(rng, axes, heads, trailing):
    weights, x = operands(rng, DUPLICATES, heads, trailing, batch=(3,))
    weights, x = (a if axis == 0 else a[0] for a, axis in zip((weights, x), axes, strict=True))
    cotangent = rng.normal(size=(6, *x.shape[2 if axes[1] == 0 else 1:])).astype(np.float32)

    def value_and_gradients(product):
        def one(w, x):
            y, pull = jax.vjp(lambda w, x: product(DUPLICATES, w, x), w, x)
            return y, pull(jnp.asarray(cotangent))
        return one

    batched = jax.jit(jax.vmap(value_and_gradients(spmm), in_axes=axes))(weights, x)
    plain = jax.jit(value_and_gradients(spmm_reference))
    looped = [plain(*(a if axis is None else a[k] for a, axis in zip((weights, x), axes, strict=True)))
              for k in range(3)]
    for ours, expected in zip(jax.tree.leaves(batched), zip(*map(jax.tree.leaves, looped), strict=True), strict=True):
        np.testing.assert_allclose(ours, np.stack(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inner", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("outer", [(0, None), (None, 0), (0, 0)])
def test_nested_vmap(rng, inner, outer):
    sizes = (2, 3)  # outer, inner
    shape = [tuple(size for size, axes in zip(sizes, (outer, inner), strict=True) if axes[operand] == 0)
             for operand in (0, 1)]
    weights = jnp.asarray(rng.normal(size=(*shape[0], 7)).astype(np.float32))
    x = jnp.asarray(rng.normal(size=(*shape[1], 5, 2)).astype(np.float32))
    nested = jax.vmap(jax.vmap(lambda w, x: spmm(DUPLICATES, w, x), inner), outer)(weights, x)
    for i, j in itertools.product(range(2), range(3)):
        w, one = (operand[tuple(k for k, axes in ((i, outer), (j, inner)) if axes[which] == 0)]
                  for which, operand in enumerate((weights, x)))
        np.testing.assert_allclose(nested[i, j], loop(DUPLICATES, w, one), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("x_batched", [True, False])
def test_patterns_of_a_batch(rng, x_batched):
    """A vmap over the index arrays themselves: several graphs of the same counts."""
    parts = [CSR.from_sorted(np.sort(rng.integers(0, 6, 7)), rng.integers(0, 5, 7), (6, 5)) for _ in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *parts)
    weights, x = operands(rng, parts[0], batch=(3,))
    x = x if x_batched else x[0]
    def value_and_gradient(csr, w, x):
        y, pull = jax.vjp(lambda x: spmm(csr, w, x), x)
        return y, pull(2 * y)[0]

    batched, gradients = jax.jit(jax.vmap(value_and_gradient, (0, 0, 0 if x_batched else None)))(stacked, weights, x)
    for k, csr in enumerate(parts):
        one = x[k] if x_batched else x
        y = loop(csr, weights[k], one)
        np.testing.assert_allclose(batched[k], y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradients[k], loop(csr.T, weights[k][csr.t_entries], 2 * y), rtol=1e-4, atol=1e-5)


def test_a_batch_too_long_for_int32_indices_is_looped(rng, monkeypatch):
    weights, x = operands(rng, DUPLICATES, batch=(3,))
    one_product = jax.vmap(lambda w, x: spmm(DUPLICATES, w, x))(weights, x)
    assert "while" not in jax.jit(jax.vmap(lambda w, x: spmm(DUPLICATES, w, x))).lower(weights, x).as_text()
    monkeypatch.setattr(sparse.kernels, "INDEX_LIMIT", 3 * 7 - 1)
    looped = jax.vmap(lambda w, x: spmm(DUPLICATES, w, x))
    assert "while" in jax.jit(looped).lower(weights, x).as_text()
    np.testing.assert_allclose(jax.jit(looped)(weights, x), one_product, rtol=1e-6)
    # A narrow x alone is folded into the width, where no index grows.
    folded = jax.jit(jax.vmap(lambda x: spmm(DUPLICATES, weights[0], x)))
    assert "while" not in folded.lower(x).as_text()


# ------------------------------------------------------------------------------------------ blocks of entries


@pytest.fixture(params=[1, 2, 3, 6], ids=lambda entries: f"{entries} of 7 at a time")
def few_at_a_time(request, monkeypatch):
    """So many of the seven entries of DUPLICATES with 2 heads of 3 numbers: blocks that end evenly and that overlap."""
    monkeypatch.setattr(sparse.kernels, "_BLOCK_BYTES", request.param * 2 * 3 * 4)
    return request.param


@pytest.mark.parametrize("batch", [(), (3,)])
def test_blocks_of_entries_give_what_a_loop_gives(rng, few_at_a_time, batch):
    def one(w, x, a):
        y, pull = jax.vjp(lambda w, x: spmm(DUPLICATES, w, x), w, x)
        scores, push = jax.vjp(lambda a, x: sddmm(DUPLICATES, a, x), a, x)
        return y, pull(y), scores, push(scores)

    weights, x = operands(rng, DUPLICATES, 2, (3,), batch)
    a = jnp.asarray(rng.normal(size=(*batch, 6, 2, 3)), jnp.float32)
    results = jax.jit(jax.vmap(one) if batch else one)(weights, x, a)
    for k in range(3) if batch else [...]:
        y, (dw, dx), scores, (da, db) = jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), results)
        w, rows, own = (np.asarray(array[k], float) for array in (weights, x, a))
        ends = list(zip(np.asarray(DUPLICATES.rows), np.asarray(DUPLICATES.cols), strict=True))
        np.testing.assert_allclose(y, loop(DUPLICATES, w, rows), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dx, loop(DUPLICATES.T, w[DUPLICATES.t_entries], y), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dw, [np.sum(y[i] * rows[j], axis=-1) for i, j in ends], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scores, [np.sum(own[i] * rows[j], axis=-1) for i, j in ends], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(da, loop(DUPLICATES, scores, rows), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(db, loop(DUPLICATES.T, scores[DUPLICATES.t_entries], own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("product", ["spmm", "sddmm"])
def test_only_a_cpu_goes_over_blocks_and_over_those_asked_for(rng, few_at_a_time, product, batched):
    weights, x = operands(rng, DUPLICATES, 2, (3,), (3,))
    function = {"spmm": lambda w, x: spmm(DUPLICATES, w, x),
                "sddmm": lambda w, x: sddmm(DUPLICATES, jnp.ones((6, 2, 3)), x)}[product]

    def lowered(platform):
        mapped = jax.vmap(function) if batched else function
        given = (weights, x) if batched else (weights[0], x[0])
        return jax.jit(mapped).trace(*given).lower(lowering_platforms=(platform,)).as_text()

    entries = 7 * (3 if batched and product == "spmm" else 1)  # a batch of products is one block-diagonal product
    assert lowered("cpu").count("stablehlo.while") == 1
    assert f"tensor<{-(-entries // few_at_a_time)}xi32>" in lowered("cpu")  # the first entries of the blocks
    assert "stablehlo.while" not in lowered("cuda") and "stablehlo.while" not in lowered("tpu")


def test_entries_that_are_one_block_are_taken_at_once(rng):
    weights, x = operands(rng, DUPLICATES, 2)
    for function in (lambda w, x: spmm(DUPLICATES, w, x), lambda w, x: sddmm(DUPLICATES, jnp.ones((6, 2, 3)), x)):
        assert "while" not in jax.jit(function).lower(weights, x).as_text()
        assert "while" not in jax.jit(jax.vmap(function, (None, 0))).lower(weights, jnp.stack([x] * 3)).as_text()


@pytest.mark.usefixtures("few_at_a_time")
def test_blocks_that_overlap_make_no_nan_of_an_infinity(rng):
    weights, x = operands(rng, DUPLICATES, 2)
    x = x.at[1].set(jnp.inf)  # of the last entry but one, which the last block may begin with
    y = jax.jit(lambda w, x: spmm(DUPLICATES, w, x))(jnp.abs(weights), x)
    assert np.all(y[4, :] == np.inf) and np.all(np.isfinite(y[:4])) and not np.any(np.isnan(y))


@pytest.mark.usefixtures("few_at_a_time")
def test_blocks_where_shard_map_checks_what_varies(rng):
    weights, x = operands(rng, DUPLICATES, 2, (3,), (2,))
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("seeds",))

    def gradient(w, x):
        return jax.grad(lambda w, x: jnp.sum(spmm(DUPLICATES, w, x) ** 2), argnums=(0, 1))(w, x)

    def shard(w, x):
        return jax.tree.map(lambda leaf: leaf[None], gradient(w[0], x[0]))

    spec = jax.sharding.PartitionSpec("seeds")
    sharded = jax.jit(jax.shard_map(shard, mesh=mesh, in_specs=(spec, spec), out_specs=spec))(weights, x)
    for got, expected in zip(sharded, jax.vmap(gradient)(weights, x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@on_cpu
def test_the_rows_of_all_entries_are_nowhere_in_memory(rng):
    entries, nodes, heads, width = 200_000, 500, 4, 16
    csr = CSR.from_sorted(np.sort(rng.integers(0, nodes, entries)), rng.integers(0, nodes, entries), (nodes, nodes))
    a = jnp.ones((nodes, heads, width))
    attend = jax.grad(lambda a: jnp.sum(spmm(csr, sddmm(csr, a, a), a) ** 2))
    for function, arguments in ((attend, a), (jax.vmap(attend), jnp.stack([a] * 3))):
        memory = jax.jit(function).lower(arguments).compile().memory_analysis()
        scores = arguments.size // a.size * entries * heads * 4
        # Scores and their gradients, in both orders, are kept: 16 times less than the rows.
        assert memory.temp_size_in_bytes < 10 * scores < arguments.size // a.size * entries * heads * width * 4


# ---------------------------------------------------------------------------------------- what is compiled


@on_cpu
@pytest.mark.parametrize("width", [3, 20], ids=["narrow", "wide"])
@pytest.mark.parametrize("axes", [None, (0, None), (None, 0), (0, 0)])
def test_the_cpu_kernel_survives_vmap_and_grad(rng, width, axes):
    weights, x = operands(rng, DUPLICATES, trailing=(width,), batch=(3,))
    weights, x = (a if axes is not None and axes[k] == 0 else a[0] for k, a in enumerate((weights, x)))

    def forward(w, x):
        return spmm(DUPLICATES, w, x)

    def gradient(w, x):
        return jax.grad(lambda x: jnp.sum(forward(w, x) ** 2))(x)

    for function, kernels in ((forward, 1), (gradient, 2)):
        mapped = function if axes is None else jax.vmap(function, axes)
        text = jax.jit(mapped).lower(weights, x).compile().as_text()
        assert text is not None and text.count(KERNEL) == kernels
        assert "while(" not in text and "scatter(" not in text


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_plain_form(rng, platform):
    weights, x = operands(rng, DUPLICATES, batch=(3,))
    gradient = jax.vmap(jax.grad(lambda w, x: jnp.sum(spmm(DUPLICATES, w, x) ** 2), argnums=(0, 1)))
    text = jax.jit(gradient).trace(weights, x).lower(lowering_platforms=(platform,)).as_text()
    assert "scatter" in text and "custom_call" not in text and "bcsr" not in text


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(("weights", "x", "message"), [
    (None, np.zeros((4, 2), np.float32), r"x must have 5 rows to fit the sparse pattern, got shape \(4, 2\)"),
    (None, np.float32(1), r"x must have 5 rows"),
    (None, np.zeros((5, 2), int), r"x must be of floating dtype, got int"),
    (np.zeros(6, np.float32), np.zeros((5, 2), np.float32), r"weights must be \[7\] or \[7, heads\], got \(6,\)"),
    (np.zeros((7, 1, 1), np.float32), np.zeros((5, 2), np.float32), r"weights must be \[7\] or \[7, heads\]"),
    (np.zeros((7, 3), np.float32), np.zeros((5, 2), np.float32), r"3 heads, so x must be \[5, 3, ...\], got \(5, 2\)"),
    (np.zeros((7, 3), np.float32), np.zeros(5, np.float32), r"3 heads, so x must be"),
])
def test_spmm_errors(weights, x, message):
    with pytest.raises(ValueError, match=message):
        spmm(DUPLICATES, weights, x)


@pytest.mark.parametrize(("a", "b", "message"), [
    ((5, 2), (5, 2), "a must have 6 rows"),
    ((6, 2), (6, 2), "b must have 5 rows"),
    ((6, 2), (5, 3), r"a and b must be .* got \(6, 2\), \(5, 3\)"),
    ((6,), (5,), "a and b must be"),
])
def test_sddmm_errors(a, b, message):
    with pytest.raises(ValueError, match=message):
        sddmm(DUPLICATES, jnp.zeros(a), jnp.zeros(b))


@pytest.mark.parametrize(("rows", "cols", "message"), [
    ([0, 2, 1], [0, 0, 0], "rows must be ascending; entry 2 has row 1 after row 2"),
    ([0, 3], [0, 0], r"rows\[1\] is 3, outside \[0, 3\)"),
    ([-1, 0], [0, 0], r"rows\[0\] is -1, outside"),
    ([0, 1], [0, 2], r"cols\[1\] is 2, outside \[0, 2\)"),
    ([0, 1], [0], "one length"),
    ([[0]], [[0]], "vectors"),
])
def test_pattern_errors(rows, cols, message):
    with pytest.raises(ValueError, match=message):
        CSR.from_sorted(np.array(rows), np.array(cols), (3, 2))


def test_a_pattern_beyond_int32_is_refused():
    with pytest.raises(ValueError, match="at most 2147483647 rows"):
        CSR.from_sorted(np.zeros(0, int), np.zeros(0, int), (2 ** 31, 1))


# ----------------------------------------------------------------------------------------------- patterns


def dense(csr):
    matrix = np.zeros(csr.shape, int)
    np.add.at(matrix, (np.asarray(csr.rows), np.asarray(csr.cols)), 1)
    return matrix


@settings(max_examples=25)
@given(hnp.arrays(int, 9, elements=st.integers(0, 3)), hnp.arrays(int, 9, elements=st.integers(0, 5)))
def test_transpose_and_merge(rows, cols):
    csr = CSR.from_sorted(np.sort(rows), cols, (4, 6))
    np.testing.assert_array_equal(dense(csr.T), dense(csr).T)
    assert np.all(np.diff(csr.T.rows) >= 0)
    for name in ("rows", "cols", "indptr", "t_entries", "t_rows", "t_cols", "t_indptr"):
        np.testing.assert_array_equal(getattr(csr.T.T, name), getattr(csr, name), err_msg=name)
    assert csr.T.T.shape == csr.shape

    weights = np.arange(1.0, 10)
    of_transposed = np.zeros((6, 4))
    np.add.at(of_transposed, (np.asarray(csr.t_rows), np.asarray(csr.t_cols)), weights[np.asarray(csr.t_entries)])
    straight = np.zeros((4, 6))
    np.add.at(straight, (np.asarray(csr.rows), np.asarray(csr.cols)), weights)
    np.testing.assert_array_equal(of_transposed, straight.T)

    merged = csr.merge_columns(2)
    np.testing.assert_array_equal(dense(merged), dense(csr).reshape(4, 3, 2).sum(2))
    np.testing.assert_array_equal(dense(merged.T), dense(merged).T)
    for pattern in (csr, merged, csr.T):
        np.testing.assert_array_equal(np.diff(pattern.indptr), dense(pattern).sum(1))
        np.testing.assert_array_equal(np.diff(pattern.t_indptr), dense(pattern).sum(0))


def test_gradients_through_a_transposed_and_a_merged_pattern(rng):
    csr = CSR.from_sorted(np.sort(rng.integers(0, 4, 9)), rng.integers(0, 6, 9), (4, 6))
    for pattern in (csr.T, csr.merge_columns(3)):
        weights, x = operands(rng, pattern)
        cotangent = rng.normal(size=(pattern.shape[0], 3)).astype(np.float32)
        ours = both_gradients(lambda w, x, p=pattern: spmm(p, w, x), cotangent)(weights, x)
        plain = both_gradients(lambda w, x, p=pattern: spmm_reference(p, w, x), cotangent)(weights, x)
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_merge_refuses_a_group_that_does_not_fit():
    with pytest.raises(ValueError, match="5 columns cannot be merged in groups of 2"):
        DUPLICATES.merge_columns(2)


def test_a_pattern_is_a_pytree_with_a_static_shape():
    assert len(jax.tree.leaves(DUPLICATES)) == 7
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(DUPLICATES))
    assert jax.jit(lambda csr: jnp.zeros(csr.shape))(DUPLICATES).shape == (6, 5)
    assert DUPLICATES.num_entries == 7


# ----------------------------------------------------------------------------------------------- features


@pytest.fixture
def features():
    return sparse.SparseFeatures.from_csr([0, 2, 2, 3, 5], [0, 3, 1, 2, 2], [1.0, -2.0, 0.5, 1.0, 3.0], (4, 5))


DENSE = np.array([[1, 0, 0, -2, 0], [0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0], [0, 0, 4, 0, 0]], np.float32)


def test_features(features, rng):
    assert (features.shape, features.dtype, features.nnz) == ((4, 5), jnp.float32, 5)
    np.testing.assert_array_equal(features.todense(), DENSE)
    w = rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(lambda f, w: f @ w)(features, w), DENSE @ w, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum((features @ w) ** 2)))(w)
    np.testing.assert_allclose(gradient, 2 * DENSE.T @ (DENSE @ w), rtol=1e-5, atol=1e-6)
    batch = jnp.asarray(rng.normal(size=(3, 5, 2)).astype(np.float32))
    np.testing.assert_allclose(jax.vmap(lambda w: features @ w)(batch), DENSE @ batch, rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(lambda w: features @ w, jnp.ones((5, 2), jnp.bfloat16)).dtype == jnp.bfloat16


def test_features_take_rows_and_normalise(features):
    order = [3, 1, 0, 3]
    np.testing.assert_array_equal(features.take_rows(order).todense(), DENSE[order])
    np.testing.assert_array_equal(features.take_rows(np.zeros(0, int)).todense(), DENSE[:0])
    total = np.abs(DENSE).sum(1, keepdims=True)
    normalised = jax.jit(lambda f: f.row_normalised())(features)
    np.testing.assert_allclose(normalised.todense(), DENSE / np.where(total, total, 1), rtol=1e-6)
    assert normalised.shape == features.shape


def test_features_are_stored_as_float32():
    for data in (np.array([1.5]), np.array([3]), np.array([True]), np.array([1.5], jnp.bfloat16)):
        assert sparse.SparseFeatures.from_csr([0, 1], [0], data, (1, 1)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert sparse.SparseFeatures.from_csr([0, 1], [0], np.array([1.5]), (1, 1)).dtype == jnp.float64


@pytest.mark.parametrize(("changed", "message"), [
    ({"indptr": [0.0, 2, 3]}, r"indptr must be a vector of integers, got float64\[3\]"),
    ({"indices": [[0, 1, 1]]}, r"indices must be a vector of integers, got int64\[1, 3\]"),
    ({"indptr": [0, 3]}, "indptr must have 3 entries for 2 rows, got 2"),
    ({"indptr": [1, 2, 3]}, "indptr must rise from 0 to 3"),
    ({"indptr": [0, 2, 4]}, "indptr must rise from 0 to 3 without descending, got 0 to 4"),
    ({"indptr": [0, 4, 3]}, "indptr must rise"),
    ({"data": [1.0, 2]}, r"data must have the shape of indices \(3,\), got \(2,\)"),
    ({"indices": [0, 2, -1]}, r"indices\[1\] is 2, outside \[0, 2\)"),
    ({"data": [1.0, 2, np.nan]}, r"data\[2\] is not finite"),
    ({"data": [-np.inf, 2, np.nan]}, r"data\[0\] is not finite"),
    ({"data": ["a", "b", "c"]}, "data must be numbers"),
])
def test_features_errors(changed, message):
    arguments = {"indptr": [0, 2, 3], "indices": [0, 1, 1], "data": [1.0, 2, 3]} | changed
    with pytest.raises(ValueError, match=message):
        sparse.SparseFeatures.from_csr(**arguments, shape=(2, 2))


def test_features_times_a_matrix_that_does_not_fit(features):
    with pytest.raises(ValueError, match="must have 5 rows"):
        features @ jnp.ones((4, 2))


# ----------------------------------------------------------------------------------------------- segments

SEGMENTS = jnp.asarray([0, 0, 2, 2, 2, 4])  # 1, 3 and 5 are empty
MASK = jnp.asarray([True, False, True, True, False, False])  # 4 is wholly masked


def by_segment(data, where, function, empty):
    result = np.full((6, *np.shape(data)[1:]), empty, float)
    for k in range(6):
        rows = [e for e in range(6) if SEGMENTS[e] == k and (where is None or where[e])]
        if rows:
            result[k] = function(np.asarray(data, float)[rows], axis=0)
    return result


@pytest.mark.parametrize("where", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("trailing", [(), (2,)])
@pytest.mark.parametrize(("name", "function", "empty"), [("segment_sum", np.sum, 0), ("segment_mean", np.mean, 0),
                                                         ("segment_max", np.max, 0)])
def test_segments(rng, name, function, empty, trailing, where):
    data = rng.normal(size=(6, *trailing)).astype(np.float32) - 3
    expected = by_segment(data, where, function, empty)
    if where is not None:  # what is masked has no influence, on values or gradients
        data = np.where(np.reshape(where, (6, *(1,) * len(trailing))), data, np.nan)

    def reduced(data):
        return getattr(sparse, name)(data, SEGMENTS, 6, where=where)

    value, pull = jax.jit(lambda data: jax.vjp(reduced, data))(data)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    gradient = np.asarray(jax.jit(pull)(jnp.ones_like(value))[0])
    counted = np.ones(6, bool) if where is None else np.asarray(where)
    assert np.isfinite(gradient).all() and not gradient[~counted].any()
    if name == "segment_sum":
        assert np.all(gradient[counted] == 1)
    else:  # mean and maximum share one out among a segment's entries
        per_segment = by_segment(gradient, where, np.sum, 0)
        np.testing.assert_allclose(per_segment[np.asarray(SEGMENTS)[counted]], 1, rtol=1e-6)


def test_segment_max_of_empty_is_as_asked():
    assert sparse.segment_max(jnp.ones(6), SEGMENTS, 6, where=MASK, empty=-7.0).tolist() == [1, -7, 1, -7, -7, -7]
    assert sparse.segment_max(jnp.full(6, -jnp.inf), SEGMENTS, 6)[0] == -jnp.inf


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_segments_of_narrow_types_are_summed_in_float32(dtype):
    ones, zeros = jnp.ones(4001, dtype), jnp.zeros(4001, jnp.int32)
    reduced = jax.jit(lambda ones: (sparse.segment_sum(ones, zeros, 1), sparse.segment_mean(ones, zeros, 1),
                                    sparse.segment_mean(ones, zeros, 1, where=zeros == 0),
                                    sparse.segment_softmax(ones, zeros, 1)))(ones)
    assert {value.dtype for value in reduced} == {jnp.dtype(dtype)}
    for value, expected in zip(reduced, (4001, 1, 1, 1), strict=True):
        np.testing.assert_allclose(np.asarray(value, float).sum(), expected, rtol=2 ** -7)


@pytest.mark.parametrize("where", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("trailing", [(), (2,)])
def test_segment_softmax(rng, where, trailing):
    logits = rng.normal(size=(6, *trailing)).astype(np.float32) * 50  # exp overflows without the shift
    expected = np.zeros(logits.shape)
    for k in range(6):
        rows = [e for e in range(6) if SEGMENTS[e] == k and (where is None or where[e])]
        if rows:
            powers = np.exp(logits[rows].astype(float) - logits[rows].max(axis=0))
            expected[rows] = powers / powers.sum(axis=0)
    if where is not None:
        logits = np.where(np.reshape(where, (6, *(1,) * len(trailing))), logits, np.nan)
    weights = rng.normal(size=logits.shape).astype(np.float32)
    value, pull = jax.vjp(jax.jit(lambda logits: sparse.segment_softmax(logits, SEGMENTS, 6, where=where)), logits)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)
    gradient = pull(jnp.asarray(weights))[0]
    inner = by_segment(expected * weights, where, np.sum, 0)[np.asarray(SEGMENTS)]
    np.testing.assert_allclose(gradient, expected * (weights - inner), rtol=1e-4, atol=1e-5)


def test_segment_softmax_of_minus_infinity_is_zero():
    logits = jnp.asarray([-jnp.inf, -jnp.inf, 1.0, -jnp.inf, 1.0, 5.0])
    def loss(logits):
        softmax = sparse.segment_softmax(logits, SEGMENTS, 6)
        return jnp.sum(softmax[:5] ** 2), softmax

    (value, softmax), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
    assert softmax.tolist() == [0, 0, 0.5, 0, 0.5, 1]
    assert value == 0.5
    assert gradient.tolist() == [0] * 6


def test_segment_softmax_shows_a_nan_in_its_segment_only():
    logits = jnp.asarray([1.0, jnp.nan, 1.0, 1.0, 2.0, 5.0])
    found = np.isnan(sparse.segment_softmax(logits, SEGMENTS, 6))
    assert found.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("masked", [False, True])
def test_joint_softmax_is_the_softmax_of_the_concatenation(rng, masked):
    segments = [jnp.asarray([0, 0, 2]), jnp.asarray([0, 1, 2, 2]), jnp.zeros(0, jnp.int32)]
    logits = [jnp.asarray(rng.normal(size=(len(s), 2)).astype(np.float32)) for s in segments]
    masks = [jnp.asarray([True, False, True]), jnp.asarray([True, False, True, True]), jnp.zeros(0, bool)]
    where = masks if masked else None
    whole, everywhere = jnp.concatenate(segments), jnp.concatenate(masks)
    order = np.argsort(whole, kind="stable")

    def joint(logits):
        return jnp.concatenate(sparse.joint_segment_softmax(logits, segments, 4, where=where))[order]

    def merged(logits):
        return sparse.segment_softmax(jnp.concatenate(logits)[order], whole[order], 4,
                                      where=everywhere[order] if masked else None)

    def value_and_gradient(softmax):
        return jax.jit(lambda logits: (softmax(logits), jax.grad(
            lambda logits: jnp.sum(jnp.sin(softmax(logits)) * np.arange(7.0)[:, None]))(logits)))(logits)

    (value, gradients), (expected, expected_gradients) = map(value_and_gradient, (joint, merged))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    total = np.zeros((4, 2))
    np.add.at(total, np.asarray(whole)[order], np.asarray(value))
    np.testing.assert_allclose(total, [[1, 1], [0 if masked else 1] * 2, [1, 1], [0, 0]], rtol=1e-6)
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------- sums of ends, constant weights


def test_edge_sum_is_its_formula_with_its_gradient(rng):
    a, b = rng.normal(size=(DUPLICATES.shape[0], 3)), rng.normal(size=(DUPLICATES.shape[1], 3))
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    value, pullback = jax.vjp(lambda a, b: sparse.edge_sum(DUPLICATES, a, b), a, b)
    rows, cols = np.asarray(DUPLICATES.rows), np.asarray(DUPLICATES.cols)
    np.testing.assert_allclose(value, a[rows] + b[cols], rtol=1e-6)
    ds = rng.normal(size=value.shape).astype(np.float32)
    expected = np.zeros(a.shape), np.zeros(b.shape)
    for e, (i, j) in enumerate(zip(rows, cols, strict=True)):
        expected[0][i] += ds[e]
        expected[1][j] += ds[e]
    for ours, theirs in zip(pullback(ds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    batched = jax.vmap(lambda a: sparse.edge_sum(DUPLICATES, a, b))(jnp.stack([a, 2 * a]))
    np.testing.assert_allclose(batched[1], 2 * a[rows] + b[cols], rtol=1e-5)


def test_edge_sum_errors(rng):
    a, b = jnp.zeros((DUPLICATES.shape[0], 2)), jnp.zeros((DUPLICATES.shape[1], 3))
    with pytest.raises(ValueError, match="a and b must agree in all but their rows"):
        sparse.edge_sum(DUPLICATES, a, b)
    with pytest.raises(ValueError, match=r"b must have \d+ rows"):
        sparse.edge_sum(DUPLICATES, a, a[:1])


def test_weights_given_transposed_change_nothing(rng):
    """Values, first and second derivatives; a wrong shape is refused."""
    weights, x = operands(rng, DUPLICATES)
    t_weights = weights[DUPLICATES.t_entries]

    def loss(x, t_weights):
        return jnp.sum(jnp.sin(spmm(DUPLICATES, weights, x, t_weights=t_weights)))

    for function in (loss, jax.grad(loss), jax.grad(lambda x, t: jnp.sum(jax.grad(loss)(x, t) ** 2))):
        np.testing.assert_allclose(function(x, t_weights), function(x, None), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="t_weights must have the shape of weights"):
        spmm(DUPLICATES, weights, x, t_weights=t_weights[:-1])
