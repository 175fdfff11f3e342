"""Losses between a student's and a teacher's hidden features, row by row or of the whole set of rows."""

import math
from functools import partial
from numbers import Real

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_temperature, check_where, real_array
from hire_jax.losses._reduce import (
    mean_rows,
    not_folded,
    row_count,
    unit_rows,
    working_dtype,
    zero_rows,
)

HIGHEST = lax.Precision.HIGHEST

# Entries of the matrix of cosines that `contrastive` holds at a time: 16 MiB in float32.
BLOCK_ENTRIES = 2**22


def hint(
    student: ArrayLike, teacher: ArrayLike, *, normalise: bool = False, where: ArrayLike | None = None
) -> jax.Array:
    """FitNets' hint: the student's features are to equal the teacher's, entry by entry.

    With rows h_v, divided by their Euclidean norms first where `normalise`::

        mean_v  mean_c  (h_vc^s - h_vc^t)²

    The mean goes over features as well as rows, so that a weight fits features of any width; multiply by D for
    the sum.

    Public codes differ. The paper has half the squared norm, summed over all entries; most codes have the mean
    over all entries, as here, those for graphs often of normalised rows.

    Args:
      student: [N, D], any real dtype. Half precision is raised to float32. Where the student is narrower, the
        caller projects it to the teacher's width first, in the paper by a learned map.
      teacher: [N, D]. A constant: no gradient flows into it.
      normalise: whether rows are divided by their norms, which leaves only their directions to be compared.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.

    Returns:
      A non-negative scalar, float32 (float64 where an input is), in squared units of the features; without
      unit and at most 4 / D where `normalise`. 0 with a zero gradient where no row is left. A normalised row
      of zeros stays zero, and the student's has a zero gradient.

    Raises:
      ValueError: features that are not both of one shape [N, D], a mask that is not bool [N].

    References:
      Romero et al.: FitNets: Hints for Thin Deep Nets, 2015. arXiv:1412.6550
    """
    students, teachers, mask = _prepare(where, student=student, teacher=teacher)
    return _hint(students, teachers, mask, bool(normalise))


def attention_transfer(
    student: ArrayLike, teacher: ArrayLike, *, power: float = 2.0, where: ArrayLike | None = None
) -> jax.Array:
    """Activation-based attention transfer: the student is to be active at the nodes where the teacher is.

    The activity of node v is one number, so student and teacher may differ in width. Over the rows that count::

        a_v = sum_c |h_vc|^power;     mean_v  (a_v^s / ||a^s|| - a_v^t / ||a^t||)²

    The whole map a has norm 1, so the loss is at most 2 / N and shrinks as rows
    are added: the weight is to grow with N.

    In the paper the map is over the pixels of one image and the norm of the difference is taken; its public
    code, like this, takes the mean square, and its mean over channels is the same after normalisation. Here
    nodes take the pixels' place, and all N rows form one map.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      power: a number, 1 or more; the larger, the more a row's largest entries decide.
      where: bool [N], the rows to form the map of and to take the mean over; all where None. What other rows
        hold, NaN included, has no influence.

    Returns:
      A non-negative scalar without unit, float32 (float64 where an input is). The scale of either side's
      features does not matter. A side that is zero throughout has a map of zeros, and the student's then has
      a zero gradient. 0 with a zero gradient where no row is left.

    Raises:
      ValueError: features that are not [N, D_s] and [N, D_t], a mask that is not bool [N], a power that is not a
        finite number of at least 1.

    References:
      Zagoruyko, Komodakis: Paying More Attention to Attention, 2017. arXiv:1612.03928
    """
    students, teachers, mask = _prepare(where, one_width=False, student=student, teacher=teacher)
    if not isinstance(power, Real) or not (power >= 1 and math.isfinite(power)):
        raise ValueError(f"power: expected a finite number of at least 1, got {power!r}")
    return _attention_transfer(students, teachers, mask, float(power))


def cosine_embedding(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """The student's rows are to point where the teacher's do. For rows h_v::

        mean_v  [1 - h_v^s · h_v^t / (||h_v^s|| ||h_v^t||)]

    It is half the squared distance of unit rows, D / 2 times `hint` with `normalise=True`, and is computed so:
    the subtraction from 1 would leave no digits where the rows are near each other.

    `torch.nn.CosineEmbeddingLoss` with target 1 has the same value but for zero rows, where an epsilon in its
    norms decides.

    Args:
      student: [N, D], any real dtype. Half precision is raised to float32. The caller projects a narrower
        student to the teacher's width first.
      teacher: [N, D]. A constant: no gradient flows into it.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.

    Returns:
      A scalar from 0 to 2 without unit, float32 (float64 where an input is). A row of zeros, of either side or
      both, has cosine 0 and adds 1 to the sum, with a zero gradient. 0 with a zero gradient where no row is
      left.

    Raises:
      ValueError: features that are not both of one shape [N, D], a mask that is not bool [N].
    """
    students, teachers, mask = _prepare(where, student=student, teacher=teacher)
    return _cosine_embedding(students, teachers, mask)


def contrastive(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    where: ArrayLike | None = None,
    sample: int | None = None,
    key: ArrayLike | None = None,
) -> jax.Array:
    """Graph contrastive representation distillation: each student row is to find its own teacher row.

    With unit rows s_v of the student and t_v of the teacher, over the rows that count (InfoNCE)::

        mean_v  log [ sum_u exp(s_v · t_u / τ) / exp(s_v · t_v / τ) ]

    Row v's positive is the teacher's row v and its negatives are all other teacher rows; student rows are not
    compared with each other, nor is the roles' exchange added.

    All N² cosines are taken, O(N² D) time, and taken again for the gradient. The matrix [N, N] is kept in neither
    pass: rows are worked through in blocks, so memory is O(N D) and some blocks of 4 million cosines (61 MB at
    20,000 rows of width 64, gradient included). `sample` bounds the time.

    The public code of G-CRD has τ = 0.075 and draws 8192 rows where there are more; otherwise it is the same.
    CRD itself compares with a buffer of past features in place of the batch and sums a noise-contrastive
    estimate of both directions.

    Args:
      student: [N, D], any real dtype. Half precision is raised to float32. The caller projects a student of
        another width than the teacher's first.
      teacher: [N, D]. A constant: no gradient flows into it.
      temperature: τ > 0, without unit; a number or a scalar array.
      where: bool [N], the rows that count, as positives and as negatives; all where None. What other rows
        hold, NaN included, has no influence.
      sample: take this many rows, drawn without replacement from those inside `where` (all of them where there
        are fewer), in place of all. From 1 to N. A loss of fewer negatives is smaller: about the logarithm of
        the rows' ratio.
      key: a `jax.random` key for the draw; with `sample` only.

    Returns:
      A non-negative scalar in nats, float32 (float64 where an input is). About log of the number of rows at
      random features; not 0 at student = teacher. 0 with a zero gradient where no row or only one is left. A
      row of zeros has cosine 0 with all others, and the student's has a zero gradient.

    Raises:
      ValueError: features that are not both of one shape [N, D], a mask that is not bool [N], a temperature
        that is not a positive scalar, a sample that is not an integer from 1 to N, a sample without a key or a
        key without a sample.

    References:
      Joshi et al.: On Representation Knowledge Distillation for Graph Neural Networks, 2022. arXiv:2111.04964
      Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020. arXiv:1910.10699
    """
    students, teachers, mask = _prepare(where, student=student, teacher=teacher)
    check_temperature(temperature)
    rows = _drawn_rows(sample, key, mask, len(students))
    if rows is not None:
        students, teachers = students[rows], teachers[rows]
        mask = None if mask is None else mask[rows]
    scale = jnp.asarray(temperature, working_dtype(students, teachers))
    return _contrastive(students, teachers, mask, scale)


def linear_cka(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """One less the linear centred kernel alignment: the rows' similarities to each other are to agree.

    With S [N, D_s] and T [N, D_t], less their means over the rows that count::

        1 - ||S' T||_F² / (||S' S||_F ||T' T||_F)

    A rotation or a common factor of either side changes nothing, and widths may differ. The kernels S S' are
    [N, N]; the form above needs the features' covariances only: O(N (D_s + D_t)²) time and no memory beyond the
    features' size.

    CKA is used to compare trained networks, where the index itself is reported; it is 1 less this loss. It is
    the estimate of the paper, which for few rows lies above the true alignment; some codes have an unbiased
    one.

    Args:
      student: [N, D_s], any real dtype. Half precision is raised to float32, and products are taken at the
        highest precision.
      teacher: [N, D_t]. A constant: no gradient flows into it.
      where: bool [N], the rows that count; all where None. What other rows hold, NaN included, has no
        influence.

    Returns:
      A scalar from 0 to 1 without unit, float32 (float64 where an input is). It is a difference from 1, so
      near agreement its error is that of 1 in the dtype, below 1e-6 where measured in float32. A side whose
      rows are all equal has no alignment: the loss is 1, with a zero gradient. So it is for a single row. 0
      with a zero gradient where no row is left.

    Raises:
      ValueError: features that are not [N, D_s] and [N, D_t], a mask that is not bool [N].

    References:
      Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, 2019.
      arXiv:1905.00414
    """
    students, teachers, mask = _prepare(where, one_width=False, student=student, teacher=teacher)
    return _linear_cka(students, teachers, mask)


def vid(
    student_mean: ArrayLike, log_variance: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Variational information distillation: the teacher's features are to be predictable from the student's.

    The student predicts a normal distribution of the teacher's row t_v, of mean μ_v and with a variance for
    each feature that is the same at all nodes. Its negative log-likelihood, but for the constant
    log(2π) / 2 a feature::

        mean_v  sum_c  1/2 [ log σ_c² + (t_vc - μ_vc)² / σ_c² ]

    A feature that the student cannot predict gets a large variance and then little weight.

    Public codes differ: the one in RepDistiller has the variance softplus(a) + 1e-5 of a parameter a, and the
    mean over features, this loss / D.

    Args:
      student_mean: μ [N, D], any real dtype, the caller's projection of the student's features to the
        teacher's width. Half precision is raised to float32.
      log_variance: log σ² [D], a parameter to be learned with the student's.
      teacher: t [N, D]. A constant: no gradient flows into it.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.

    Returns:
      A scalar in nats, float32 (float64 where an input is); negative where variances are small and errors
      too. 0 with a zero gradient where no row is left.

    Raises:
      ValueError: student_mean and teacher that are not both of one shape [N, D], a log_variance that is not
        [D], a mask that is not bool [N].

    References:
      Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge Transfer, 2019.
      arXiv:1904.05835
    """
    students, teachers, mask = _prepare(where, student_mean=student_mean, teacher=teacher)
    variances = real_array("log_variance", log_variance)
    if variances.shape != teachers.shape[1:]:
        raise ValueError(
            f"log_variance: expected shape [D], one a feature of teacher, got log_variance {variances.shape} "
            f"and teacher {teachers.shape}"
        )
    return _vid(students, variances, teachers, mask)


def _prepare(
    where: ArrayLike | None, *, one_width: bool = True, **features: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The student's and the teacher's features, checked, the teacher's a constant; the mask."""
    (name, student), (_, teacher) = ((name, real_array(name, value)) for name, value in features.items())
    listed = f"{name} {student.shape} and teacher {teacher.shape}"
    for side, shape in ((name, student.shape), ("teacher", teacher.shape)):
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"{side}: expected shape [N, D], got {listed}")
    if len(student) != len(teacher):
        raise ValueError(f"{name}, teacher: expected the same number of rows, got {listed}")
    if one_width and student.shape != teacher.shape:
        raise ValueError(
            f"{name}, teacher: expected one width, got {listed}; project the student to the teacher's first"
        )
    return student, lax.stop_gradient(teacher), check_where(where, len(student))


def _drawn_rows(sample: int | None, key: ArrayLike | None, where: jax.Array | None, rows: int) -> jax.Array | None:
    """int [sample], different rows, those inside `where` before any other; None where no sample is wanted."""
    if (sample is None) != (key is None):
        missing, given = ("key", "sample") if key is None else ("sample", "key")
        raise ValueError(f"{missing}: expected together with {given}=, got None")
    if sample is None or key is None:
        return None
    if not isinstance(sample, int | np.integer) or isinstance(sample, bool) or not 1 <= sample <= rows:
        raise ValueError(f"sample: expected an integer from 1 to the number of rows, {rows}, got {sample!r}")
    order = jax.random.uniform(key, (rows,))
    return lax.top_k(order if where is None else jnp.where(where, order, -1), int(sample))[1]


def _in_working_dtype(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, *others: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Both sides raised to the working precision, zero outside `where`. To be called inside a compiled function."""
    dtype = working_dtype(student, teacher, *others)
    return zero_rows(student, where).astype(dtype), zero_rows(not_folded(teacher), where).astype(dtype)


@partial(jax.jit, static_argnames="normalise")  # one compilation, also where the caller runs op by op
def _hint(student: jax.Array, teacher: jax.Array, where: jax.Array | None, normalise: bool) -> jax.Array:
    student, teacher = _in_working_dtype(student, teacher, where)
    if normalise:
        student, teacher = unit_rows(student), unit_rows(teacher)
    return mean_rows(jnp.mean(jnp.square(student - teacher), axis=-1), where)


@partial(jax.jit, static_argnames="power")
def _attention_transfer(student: jax.Array, teacher: jax.Array, where: jax.Array | None, power: float) -> jax.Array:
    def unit_map(rows: jax.Array) -> jax.Array:
        """[N]; powers of numbers up to 1 do not overflow, and a common factor has no influence."""
        activity = jnp.sum(_absolute_power(_shrunk(rows), power), axis=-1)
        return unit_rows(activity[None])[0] if len(rows) else activity

    student, teacher = _in_working_dtype(student, teacher, where)
    return mean_rows(jnp.square(unit_map(student) - unit_map(teacher)), where)


@jax.jit
def _cosine_embedding(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    student, teacher = _in_working_dtype(student, teacher, where)
    s, t = unit_rows(student), unit_rows(teacher)
    # 1 - s·t = (||s - t||² + (1 - ||s||²) + (1 - ||t||²)) / 2, of which the last two are 0 or 1.
    zeros = sum((jnp.sum(jnp.square(side), axis=-1) < 0.5).astype(s.dtype) for side in (s, t))
    return mean_rows(0.5 * (jnp.sum(jnp.square(s - t), axis=-1) + zeros), where)


@jax.jit
def _contrastive(student: jax.Array, teacher: jax.Array, where: jax.Array | None, temperature: jax.Array) -> jax.Array:
    student, teacher = _in_working_dtype(student, teacher, where)
    n = len(student)
    if n == 0:
        return jnp.zeros((), student.dtype)
    s, t = unit_rows(student), unit_rows(teacher)
    index = jnp.arange(n)

    @partial(jax.checkpoint, prevent_cse=False)
    def of_row(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        """log(1 + sum over negatives of exp(x)), x = (s_v · t_u - s_v · t_v) / τ: never negative, small where it
        should be."""
        v, s_v, t_v = row
        x = (jnp.matmul(t, s_v, precision=HIGHEST) - jnp.sum(s_v * t_v)) / temperature
        negative = index != v if where is None else (index != v) & where
        x = jnp.where(negative, x, -jnp.inf)
        top = lax.stop_gradient(jnp.maximum(jnp.max(x), 0))  # of no influence, but exp does not overflow
        return top + jnp.log1p(jnp.expm1(-top) + jnp.sum(jnp.exp(x - top)))

    # Blocks of equal length, or nearly so.
    blocks = -(-n * n // BLOCK_ENTRIES)
    return mean_rows(lax.map(of_row, (index, s, t), batch_size=-(-n // min(blocks, n))), where)


@jax.jit
def _linear_cka(student: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    student, teacher = _in_working_dtype(student, teacher, where)
    n = len(student)
    if n == 0:
        return jnp.zeros((), student.dtype)
    count = row_count(n, where, student.dtype)

    def centred(rows: jax.Array) -> jax.Array:
        """Less the mean, zero outside `where`, then shrunk. One of the rows is taken off first, so that equal
        rows give zeros and not the rounding of their mean; halving is exact, and the difference then finite."""
        one = lax.stop_gradient(rows[0] if where is None else rows[jnp.argmax(where)])
        rows = _shrunk(zero_rows(0.5 * rows - 0.5 * one, where))
        return _shrunk(zero_rows(rows - jnp.sum(rows, axis=0) / jnp.maximum(count, 1), where))

    def squared_product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(jnp.matmul(a.T, b, precision=HIGHEST) / jnp.maximum(count, 1)))

    s, t = centred(student), centred(teacher)
    # Both are 0 for a side without variance, whose part in the product above is then 0 too.
    of_s, of_t = squared_product(s, s), squared_product(t, t)
    norms = jnp.sqrt(jnp.where(of_s == 0, 1, of_s)) * jnp.sqrt(jnp.where(of_t == 0, 1, of_t))
    loss = 1 - squared_product(s, t) / norms
    loss = loss + lax.stop_gradient(jnp.maximum(-loss, 0))  # rounding can leave it below 0
    return jnp.where(count > 0, loss, 0)


@jax.jit
def _vid(student_mean: jax.Array, log_variance: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    mean, teacher = _in_working_dtype(student_mean, teacher, where, log_variance)
    log_variance = log_variance.astype(mean.dtype)
    deviations = (teacher - mean) * jnp.exp(-0.5 * log_variance)  # squared last: it overflows less
    return mean_rows(0.5 * jnp.sum(log_variance + jnp.square(deviations), axis=-1), where)


def _absolute_power(x: jax.Array, power: float) -> jax.Array:
    """|x|^power elementwise for a power of at least 1, with finite first and second derivatives at 0 too."""
    if power % 2 == 0:
        return x**power
    away = x != 0
    return jnp.where(away, jnp.abs(jnp.where(away, x, 1)) ** power, 0)


def _shrunk(rows: jax.Array) -> jax.Array:
    """The array divided by its largest entry, taken as a constant; zeros where that is below the normal numbers.

    For functions that a common factor does not change: their value and gradient are the same, and squares
    neither overflow nor vanish.
    """
    limits = jnp.finfo(rows.dtype)
    peak = lax.stop_gradient(jnp.max(jnp.abs(rows), initial=0))
    empty = peak < limits.tiny
    # The reciprocal of the very largest numbers is below the normal ones, and a processor may flush it to 0.
    return rows * jnp.where(empty, 0, 1 / jnp.minimum(jnp.where(empty, 1, peak), limits.max / 8))
