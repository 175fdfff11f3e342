"""Products of a sparse pattern with dense arrays, differentiable to any order.

The kernel behind `spmm` has a slow gradient, so one is given here: a product with the transposed pattern, built once
on the host. `spmm` and `sddmm` are each other's gradients. The plain form is kept as `spmm_reference`.
"""

import jax
import jax.numpy as jnp

from hire_jax.sparse.csr import CSR
from hire_jax.sparse.kernels import flatten_after, pairs, product, take
from hire_jax.sparse.segments import segment_sum

Array = jax.Array


def spmm(csr: CSR, weights: Array | None, x: Array, *, t_weights: Array | None = None) -> Array:
    """Sparse times dense: y_i = sum over entries e of row i of w_e x_{col(e)}.

    Args:
      csr: pattern of an (n, m) matrix with E entries.
      weights: [E], or [E, H] for H heads side by side, or None for ones.
      x: [m] or [m, ...]; with weights [E, H] it must be [m, H, ...].
      t_weights: weights[csr.t_entries] where it is at hand: constant weights need not be gathered at every
        step for the gradient. No gradient flows into it.

    Returns:
      [n, ...] of x's dtype. Sums run in float32 for narrower types.

    Differentiable in weights and x to any order in reverse mode; `jax.vmap` over weights, x or both stays one
    product. Rows without entries give 0. With heads, a CPU goes over blocks of entries (`hire_jax.sparse.kernels`).

    Raises:
      ValueError: a shape does not fit the pattern, or x is not of floating dtype.
    """
    _check_operand("x", x, csr.shape[1])
    if weights is None:
        weights = t_weights = jnp.ones(csr.num_entries, x.dtype)
    if t_weights is not None and t_weights.shape != weights.shape:
        raise ValueError(f"t_weights must have the shape of weights {weights.shape}, got {t_weights.shape}")
    if weights.ndim not in (1, 2) or weights.shape[0] != csr.num_entries:
        raise ValueError(f"weights must be [{csr.num_entries}] or [{csr.num_entries}, heads], got {weights.shape}")
    if weights.ndim == 2:
        if x.ndim < 2 or x.shape[1] != weights.shape[1]:
            raise ValueError(f"weights {weights.shape} have {weights.shape[1]} heads, so x must be "
                             f"[{csr.shape[1]}, {weights.shape[1]}, ...], got {x.shape}")
    dtype = x.dtype
    compute = dtype if dtype in (jnp.float32, jnp.float64) else jnp.float32
    flat = flatten_after(weights.ndim, x).astype(compute)
    y = _spmm(csr, weights.astype(compute), None if t_weights is None else t_weights.astype(compute), flat)
    return y.reshape(csr.shape[0], *x.shape[1:]).astype(dtype)


def sddmm(csr: CSR, a: Array, b: Array) -> Array:
    """Sampled dense times dense: s_e = <a_{row(e)}, b_{col(e)}> over the last axis.

    Args:
      csr: pattern of an (n, m) matrix with E entries.
      a: [n, d] or [n, H, d].
      b: [m, d] or [m, H, d].

    Returns:
      [E] or [E, H]. The gradients are sparse products, not scatters.

    Raises:
      ValueError: shapes that do not fit the pattern or each other.
    """
    _check_operand("a", a, csr.shape[0])
    _check_operand("b", b, csr.shape[1])
    if a.shape[1:] != b.shape[1:] or a.ndim not in (2, 3):
        raise ValueError(f"a and b must be [n, d] and [m, d], or [n, H, d] and [m, H, d], got {a.shape}, {b.shape}")
    dtype = jnp.promote_types(a.dtype, b.dtype)  # outside the custom gradient, which must keep each one's dtype
    return _sddmm(csr, a.astype(dtype), b.astype(dtype))


def edge_sum(csr: CSR, a: Array, b: Array) -> Array:
    """Sampled sum: s_e = a_{row(e)} + b_{col(e)}, what additive attention scores an edge with.

    Args:
      csr: pattern of an (n, m) matrix with E entries.
      a: [n] or [n, H].
      b: [m] or [m, H], of a's dtype.

    Returns:
      [E] or [E, H]. Gradients are sums over sorted segments.

    Raises:
      ValueError: shapes that do not fit the pattern or each other.
    """
    _check_operand("a", a, csr.shape[0])
    _check_operand("b", b, csr.shape[1])
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        raise ValueError(f"a and b must agree in all but their rows, got {a.dtype}{list(a.shape)} and "
                         f"{b.dtype}{list(b.shape)}")
    return _edge_sum(csr, a, b)


def spmm_reference(csr: CSR, weights: Array | None, x: Array) -> Array:
    """The plain form of `spmm`: gather, scale, `segment_sum`. Kept to hold the fast forms against."""
    gathered = x[csr.cols]
    if weights is not None:
        gathered = gathered * weights.reshape(weights.shape + (1,) * (x.ndim - weights.ndim))
    return jax.ops.segment_sum(gathered, csr.rows, csr.shape[0], indices_are_sorted=True)


def _check_operand(name: str, x: Array, length: int) -> None:
    if x.ndim < 1 or x.shape[0] != length:
        raise ValueError(f"{name} must have {length} rows to fit the sparse pattern, got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be of floating dtype, got {x.dtype}")


@jax.custom_vjp
def _spmm(csr: CSR, weights: Array, t_weights: Array | None, x: Array) -> Array:
    return product(csr.rows, csr.cols, csr.indptr, weights, x)


def _spmm_fwd(csr: CSR, weights: Array, t_weights: Array | None, x: Array) -> tuple[Array, tuple]:
    return _spmm(csr, weights, t_weights, x), (csr, weights, t_weights, x)


def _spmm_bwd(residuals: tuple, dy: Array) -> tuple:
    # Written with the differentiable products themselves, so that second derivatives exist too. Whichever
    # of the two is not asked for is dead code and removed by the compiler.
    csr, weights, t_weights, x = residuals
    if t_weights is None:
        t_weights = weights[csr.t_entries]
    return None, _sddmm(csr, dy, x), None, _spmm(csr.T, t_weights, weights, dy)


_spmm.defvjp(_spmm_fwd, _spmm_bwd)


@jax.custom_vjp
def _sddmm(csr: CSR, a: Array, b: Array) -> Array:
    return pairs(csr.rows, csr.cols, a, b)


def _sddmm_fwd(csr: CSR, a: Array, b: Array) -> tuple[Array, tuple[CSR, Array, Array]]:
    return _sddmm(csr, a, b), (csr, a, b)


def _sddmm_bwd(residuals: tuple[CSR, Array, Array], ds: Array) -> tuple[None, Array, Array]:
    csr, a, b = residuals
    return None, spmm(csr, ds, b), spmm(csr.T, ds[csr.t_entries], a)


_sddmm.defvjp(_sddmm_fwd, _sddmm_bwd)


@jax.custom_vjp
def _edge_sum(csr: CSR, a: Array, b: Array) -> Array:
    return take(a, csr.rows) + take(b, csr.cols)


def _edge_sum_fwd(csr: CSR, a: Array, b: Array) -> tuple[Array, CSR]:
    return _edge_sum(csr, a, b), csr


def _edge_sum_bwd(csr: CSR, ds: Array) -> tuple[None, Array, Array]:
    return (None, segment_sum(ds, csr.rows, csr.shape[0]),
            segment_sum(take(ds, csr.t_entries), csr.t_rows, csr.shape[1]))


_edge_sum.defvjp(_edge_sum_fwd, _edge_sum_bwd)
