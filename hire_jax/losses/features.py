"""Losses between a student's and a teacher's hidden features."""

import math
from functools import partial
from numbers import Real

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.losses._checks import check_weights, real_array, two_sides
from hire_jax.losses._reduce import in_working_dtype, mean_rows, one_less_cosine, shrunk, unit_rows


def hint(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    normalise: bool = False,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """FitNets' hint: the student's features are to equal the teacher's, entry by entry.

    With rows h_v, divided by their Euclidean norms first where `normalise`::

        mean_v  mean_c  (h_vc^s - h_vc^t)²

    The mean goes over features as well as rows, so that a weight fits features of any width; multiply by D for
    the sum.

    Cost: O(N D) time and memory.
    Use: where a hidden layer of the student is to take over the teacher's features as they are.
    Pitfalls: both sides need one width. The paper has half the squared norm, summed over all entries; most public codes
      have the mean over all entries, as here, those for graphs often of normalised rows. Unless `normalise`, the weight
      depends on the features' scale.

    Args:
      student: [N, D], any real dtype. Half precision is raised to float32. Where the student is narrower, the
        caller projects it to the teacher's width first, in the paper by a learned map.
      teacher: [N, D]. A constant: no gradient flows into it.
      normalise: whether rows are divided by their norms, which leaves only their directions to be compared.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A non-negative scalar, float32 (float64 where an input is), in squared units of the features; without
      unit and at most 4 / D where `normalise`. 0 with a zero gradient where no row is left. A normalised row
      of zeros stays zero, and the student's has a zero gradient.

    Raises:
      ValueError: features that are not both of one shape [N, D], a mask that is not bool [N], weights that are not
        [N].

    References:
      Romero et al.: FitNets: Hints for Thin Deep Nets, 2015. arXiv:1412.6550
    """
    students, teachers, mask = two_sides(student, teacher, where, one_width=True)
    mask, row_weights = check_weights(weights, mask, len(students))
    return _hint(students, teachers, mask, row_weights, bool(normalise))


def attention_transfer(
    student: ArrayLike, teacher: ArrayLike, *, power: float = 2.0, where: ArrayLike | None = None
) -> jax.Array:
    """Activation-based attention transfer: the student is to be active at the nodes where the teacher is.

    The activity of node v is one number, so student and teacher may differ in width. Over the rows that count::

        a_v = sum_c |h_vc|^power;     mean_v  (a_v^s / ||a^s|| - a_v^t / ||a^t||)²

    In the paper the map is over the pixels of one image and the norm of the difference is taken; its public
    code, like this, takes the mean square, and its mean over channels is the same after normalisation. Here
    nodes take the pixels' place, and all N rows form one map.

    Cost: O(N (D_s + D_t)) time and memory.
    Use: where widths differ and it is enough that the same nodes stand out; which features do so is left free.
    Pitfalls: the whole map a has norm 1, so the loss is at most 2 / N and shrinks as rows are added: the weight is to
      grow with N, and in mini-batches the map depends on the batch.

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
    students, teachers, mask = two_sides(student, teacher, where)
    if not isinstance(power, Real) or not (power >= 1 and math.isfinite(power)):
        raise ValueError(f"power: expected a finite number of at least 1, got {power!r}")
    return _attention_transfer(students, teachers, mask, float(power))


def cosine_embedding(
    student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None, weights: ArrayLike | None = None
) -> jax.Array:
    """The student's rows are to point where the teacher's do. For rows h_v::

        mean_v  [1 - h_v^s · h_v^t / (||h_v^s|| ||h_v^t||)]

    It is half the squared distance of unit rows, D / 2 times `hint` with `normalise=True`, and is computed so.

    Cost: O(N D) time and memory.
    Use: where the direction of the teacher's rows matters and their length does not.
    Pitfalls: both sides need one width. A subtraction from 1, as the formula has it, leaves no digits where the rows
      are near each other. `torch.nn.CosineEmbeddingLoss` with target 1 has the same value but for zero rows, where an
      epsilon in its norms decides.

    Args:
      student: [N, D], any real dtype. Half precision is raised to float32. The caller projects a narrower
        student to the teacher's width first.
      teacher: [N, D]. A constant: no gradient flows into it.
      where: bool [N], the rows to take the mean over; all where None. What other rows hold, NaN included, has
        no influence.
      weights: [N], non-negative, for a weighted mean over rows, such as a reliability of the teacher. A constant;
        a row of weight 0 is left out.

    Returns:
      A scalar from 0 to 2 without unit, float32 (float64 where an input is). A row of zeros, of either side or
      both, has cosine 0 and adds 1 to the sum, with a zero gradient. 0 with a zero gradient where no row is
      left.

    Raises:
      ValueError: features that are not both of one shape [N, D], a mask that is not bool [N], weights that are not
        [N].

    References:
      Sanh, Debut, Chaumond, Wolf: DistilBERT, 2019, where it aligns hidden states. arXiv:1910.01108
    """
    students, teachers, mask = two_sides(student, teacher, where, one_width=True)
    mask, row_weights = check_weights(weights, mask, len(students))
    return _cosine_embedding(students, teachers, mask, row_weights)


def vid(
    student_mean: ArrayLike, log_variance: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Variational information distillation: the teacher's features are to be predictable from the student's.

    The student predicts a normal distribution of the teacher's row t_v, of mean μ_v and with a variance for
    each feature that is the same at all nodes. Its negative log-likelihood, but for the constant
    log(2π) / 2 a feature::

        mean_v  sum_c  1/2 [ log σ_c² + (t_vc - μ_vc)² / σ_c² ]

    Cost: O(N D) time and memory.
    Use: where the student cannot predict all of the teacher's features: such a one gets a large variance and then
      little weight.
    Pitfalls: `log_variance` is a parameter: left out of the optimiser, it never learns which features to give up. The
      public code in RepDistiller has the variance softplus(a) + 1e-5 of a parameter a, and the mean over features, this
      loss / D.

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
    students, teachers, mask = two_sides(student_mean, teacher, where, one_width=True, name="student_mean")
    variances = real_array("log_variance", log_variance)
    if variances.shape != teachers.shape[1:]:
        raise ValueError(
            f"log_variance: expected shape [D], one a feature of teacher, got log_variance {variances.shape} "
            f"and teacher {teachers.shape}"
        )
    return _vid(students, variances, teachers, mask)


@partial(jax.jit, static_argnames="normalise")  # one compilation, also where the caller runs op by op
def _hint(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, weights: jax.Array | None, normalise: bool
) -> jax.Array:
    student, teacher = in_working_dtype(student, teacher, where)
    if normalise:
        student, teacher = unit_rows(student), unit_rows(teacher)
    return mean_rows(jnp.mean(jnp.square(student - teacher), axis=-1), where, weights)


@partial(jax.jit, static_argnames="power")
def _attention_transfer(student: jax.Array, teacher: jax.Array, where: jax.Array | None, power: float) -> jax.Array:
    def unit_map(rows: jax.Array) -> jax.Array:
        """[N]; powers of numbers up to 1 do not overflow, and a common factor has no influence."""
        activity = jnp.sum(_absolute_power(shrunk(rows), power), axis=-1)
        return unit_rows(activity[None])[0] if len(rows) else activity

    student, teacher = in_working_dtype(student, teacher, where)
    return mean_rows(jnp.square(unit_map(student) - unit_map(teacher)), where)


@jax.jit
def _cosine_embedding(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None, weights: jax.Array | None
) -> jax.Array:
    return mean_rows(one_less_cosine(*in_working_dtype(student, teacher, where)), where, weights)


@jax.jit
def _vid(student_mean: jax.Array, log_variance: jax.Array, teacher: jax.Array, where: jax.Array | None) -> jax.Array:
    mean, teacher = in_working_dtype(student_mean, teacher, where, log_variance)
    log_variance = log_variance.astype(mean.dtype)
    deviations = (teacher - mean) * jnp.exp(-0.5 * log_variance)  # squared last: it overflows less
    return mean_rows(0.5 * jnp.sum(log_variance + jnp.square(deviations), axis=-1), where)


def _absolute_power(x: jax.Array, power: float) -> jax.Array:
    """|x|^power elementwise for a power of at least 1, with finite first and second derivatives at 0 too."""
    if power % 2 == 0:
        return x**power
    away = x != 0
    return jnp.where(away, jnp.abs(jnp.where(away, x, 1)) ** power, 0)
