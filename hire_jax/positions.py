"""Where a node stands in its graph: Laplacian positional encodings, computed once on the host."""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg

from hire_jax.files import write_whole
from hire_jax.graph import HeteroGraph

EXACT_UP_TO = 1_000_000  # nodes; beyond, the eigenvectors are approximated
DENSE_UP_TO = 256  # nodes; below, all eigenvectors are computed, which needs no start vector and cannot stall
ITERATIONS = 100  # of the approximation

Positions = dict[str, np.ndarray]


def laplacian_positions(graph: HeteroGraph, *, k: int = 8, exact: bool | None = None,
                        cache: str | os.PathLike | None = None) -> Positions:
    """Laplacian positional encodings of all nodes (arXiv 2003.00982, section "Laplacian positional encodings").

    The k eigenvectors of L = I - D^-1/2 A D^-1/2 with the smallest non-zero eigenvalues, each scaled to a mean square
    of 1, A being the graph with types, directions, multiplicities and self loops forgotten. The eigenvectors of
    eigenvalue 0 say which component a node is in and nothing else; there is one for each component, they are known,
    and they are left out. A disconnected graph therefore needs no case of its own: nodes outside the components
    that vary slowest, isolated ones among them, have zeros.

    An eigenvector is known up to its sign, and several of one eigenvalue up to a rotation. The sign is chosen so that
    the entry of largest magnitude is positive; a rotation is what the solver, which starts from a fixed vector, makes
    of it. The same graph gives the same numbers on the same machine; a renumbering of its nodes may not.

    Args:
      k: number of eigenvectors; where there are fewer, the last columns are 0.
      exact: whether to use Lanczos iterations (`scipy.sparse.linalg.eigsh`) or 100 steps of subspace iteration with
        (I + D^-1/2 A D^-1/2) / 2, a smooth approximation in time linear in k and in the number of edges. None is exact
        up to 1,000,000 nodes. Up to 256 nodes the whole spectrum is computed, whatever is asked.
      cache: a folder in which the result is kept, by a hash of the edges; it is made where it is not there.

    Returns:
      {node type: float32[N, k]}, for `HeteroGraph.with_positions`.

    Raises:
      ValueError: k is not a positive integer.
      RuntimeError: Lanczos iterations did not converge; `exact=False` always does.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a positive integer, got {k!r}")
    total = sum(graph.num_nodes.values())
    exact = total <= EXACT_UP_TO if exact is None else exact
    adjacency = _adjacency(graph, total)
    path = None if cache is None else Path(cache) / f"positions-{_digest(adjacency, k, exact)}.npz"
    vectors = None if path is None else _cached(path, (total, k))
    if vectors is None:
        vectors = np.zeros((total, k), np.float32)
        found = _oriented(_eigenvectors(adjacency, k, exact))
        vectors[:, :found.shape[1]] = found
        if path is not None:
            buffer = io.BytesIO()
            np.savez(buffer, vectors=vectors)
            write_whole(path, buffer.getvalue())
    bounds = np.cumsum(list(graph.num_nodes.values()))[:-1]
    return dict(zip(graph.num_nodes, np.split(vectors, bounds), strict=True))


def _adjacency(graph: HeteroGraph, total: int) -> scipy.sparse.csr_matrix:
    """Symmetric, of 0 and 1, without a diagonal; all types' nodes one after another."""
    starts: Mapping[str, int] = dict(zip(graph.num_nodes, np.cumsum([0, *graph.num_nodes.values()]), strict=False))
    pairs = [array.astype(np.int64) + np.array([[starts[s]], [starts[d]]])
             for (s, _, d), array in graph.host_edges().items()]
    ends = np.concatenate([*pairs, np.zeros((2, 0), np.int64)], axis=1)
    ends = ends[:, ends[0] != ends[1]]
    rows, columns = np.concatenate([ends, ends[::-1]], axis=1)
    matrix = scipy.sparse.csr_matrix((np.ones(rows.size), (rows, columns)), shape=(total, total))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _digest(adjacency: scipy.sparse.csr_matrix, k: int, exact: bool) -> str:
    digest = hashlib.sha256(f"1 {adjacency.shape[0]} {k} {exact}".encode())
    for array in (adjacency.indptr, adjacency.indices):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    return digest.hexdigest()[:32]


def _cached(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What was kept; None where there is nothing, or nothing of use."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            vectors = archive["vectors"]
    except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None


def _eigenvectors(adjacency: scipy.sparse.csr_matrix, k: int, exact: bool) -> np.ndarray:
    """float64[N, at most k], in the order of their eigenvalues."""
    total = adjacency.shape[0]
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    inverse_root = np.divide(1.0, np.sqrt(degree), out=np.zeros(total), where=degree > 0)
    normalised = scipy.sparse.diags_array(inverse_root) @ adjacency @ scipy.sparse.diags_array(inverse_root)
    components, label = scipy.sparse.csgraph.connected_components(adjacency, directed=False)
    volume = np.bincount(label, weights=degree, minlength=components)
    known = np.sqrt(np.divide(degree, volume[label], out=np.ones(total), where=degree > 0))

    def lowered(x: np.ndarray) -> np.ndarray:
        """D^-1/2 A D^-1/2 x, with the eigenvectors of L's eigenvalue 0, `known` on each component, moved below all."""
        columns = x.reshape(total, -1)
        within = np.stack([np.bincount(label, weights=known * column, minlength=components) for column in columns.T])
        return (normalised @ columns - 3 * known[:, None] * within.T[label]).reshape(x.shape)

    count = min(k, total - components)  # the others have eigenvalue 0
    if count <= 0:
        return np.zeros((total, 0))
    if total <= DENSE_UP_TO:
        values, vectors = np.linalg.eigh(lowered(np.eye(total)))
        return vectors[:, np.argsort(-values, kind="stable")[:count]]
    start = np.random.default_rng(0).standard_normal((total, count + 8))
    if not exact:
        return _subspace_iteration(lowered, start, count)
    return _lanczos(lowered, start[:, 0], count)


def _lanczos(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, count: int) -> np.ndarray:
    """The `count` eigenvectors of largest eigenvalue, by Lanczos iterations.

    From one start vector they find one eigenvector of each eigenvalue. So those found are moved below all others and
    the iterations begin again, until they find none that belongs among the `count` largest.
    """
    total, random = len(start), np.random.default_rng(1)
    values, vectors = np.zeros(0), np.zeros((total, 0))

    def remaining(x: np.ndarray) -> np.ndarray:
        return product(x) + x - 3 * (vectors @ (vectors.T @ x))  # + x: convergence is relative to the eigenvalue

    while True:
        operator = scipy.sparse.linalg.LinearOperator((total, total), matvec=remaining, matmat=remaining,
                                                      dtype=np.float64)
        try:
            more, found = scipy.sparse.linalg.eigsh(operator, k=min(count, total - 1), which="LA", v0=start,
                                                    ncv=min(total, max(4 * count, 40)), maxiter=2000, tol=1e-6)
        except scipy.sparse.linalg.ArpackNoConvergence as error:
            raise RuntimeError(f"the {count} eigenvectors did not converge in 2000 Lanczos restarts ({error}); "
                               "exact=False approximates them") from error
        least = np.sort(values)[-count] if len(values) >= count else -np.inf
        new = (more > least + 1e-6) & (more > -0.5)  # what was moved lies at -1 and below
        if not new.any():
            break
        values = np.concatenate([values, more[new]])
        vectors = np.linalg.qr(np.concatenate([vectors, found[:, new]], axis=1))[0]
        start = random.standard_normal(total)
    return vectors[:, np.argsort(-values, kind="stable")[:count]]


def _subspace_iteration(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal vectors that span nearly the space of the `count` largest eigenvalues, by Rayleigh and Ritz."""
    basis = np.linalg.qr(start)[0]
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(0.5 * (basis + product(basis)))[0]
    values, inner = np.linalg.eigh(basis.T @ product(basis))
    return basis @ inner[:, np.argsort(-values, kind="stable")[:count]]


def _oriented(vectors: np.ndarray) -> np.ndarray:
    """Mean square 1, the largest entry positive; the first of those that are within rounding of it."""
    magnitude = np.abs(vectors)
    first = np.argmax(magnitude >= (1 - 1e-6) * magnitude.max(axis=0, initial=0), axis=0)
    sign = np.sign(vectors[first, np.arange(vectors.shape[1])])
    return (vectors * np.where(sign == 0, 1, sign) * np.sqrt(len(vectors))).astype(np.float32)
