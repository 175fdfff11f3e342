"""Several teachers: the mean of their softened outputs, or another one every step."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hire_jax.models.output import ModelOutput


def mean_teacher(teachers: Sequence[ModelOutput], *, temperature: float = 1.0, weights: ArrayLike | None = None,
                 gates: ArrayLike | None = None, multilabel: bool = False, hidden_of: int | None = None) -> ModelOutput:
    """One teacher whose softened class probabilities are the weighted mean of several teachers'.

    With `p_k = softmax(z_k / T)` of teacher k (`sigmoid` for several labels a node) and u_kv = weights_k gates_kv::

        softmax(z_v / T) = sum_k u_kv p_kv / sum_k u_kv

    The logits z are T times the logarithm of that mean (of its odds for a sigmoid), so they are right for a loss at
    this T only. A mean of logits, which some codes take, is a geometric mean of the probabilities instead.

    Args:
      teachers: K outputs with logits [N, C], or [S, N, C] with a teacher a seed; numpy or JAX arrays.
      temperature: T > 0 of the loss that will compare them.
      weights: [K], one weight a teacher; equal by default. Only their ratios matter.
      gates: [K, N], one weight a teacher and node, such as `losses.entropy_reliability` of each. Where all gates of
        a node are 0, the teachers count as by `weights` alone.
      multilabel: whether each class is a question of its own.
      hidden_of: number of the teacher whose hidden embeddings and attention the result has. None: it has none,
        because embeddings of different networks have no common axes to take a mean on.

    Returns:
      A `ModelOutput`; a class to which all teachers give probability 0 has the logit -inf.

    Raises:
      ValueError: no teacher, logits of different shapes, weights that are not [K], gates that are not [K, N],
        weights below 0 or all 0, a temperature that is not positive, a teacher that is not there.

    References:
      Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015. arXiv:1503.02531
      You, Xu, Xu, Tao: Learning from Multiple Teacher Networks, KDD 2017.
    """
    logits = _stacked_logits(teachers)
    count, nodes = len(teachers), logits.shape[-2]
    if not isinstance(temperature, jax.core.Tracer) and not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature!r}")
    given = jnp.ones(count) if weights is None else jnp.asarray(weights)
    if given.shape != (count,):
        raise ValueError(f"weights: expected shape ({count},), one a teacher, got {given.shape}")
    if not isinstance(given, jax.core.Tracer) and not (bool(jnp.all(given >= 0)) and bool(jnp.any(given > 0))):
        raise ValueError(f"weights: expected numbers of at least 0, one of them more, got {given}")
    shares = jnp.broadcast_to(given[:, None], (count, nodes))
    if gates is not None:
        gate = jnp.asarray(gates)
        if gate.shape != (count, nodes):
            raise ValueError(f"gates: expected shape ({count}, {nodes}), one a teacher and node, got {gate.shape}")
        gated = shares * gate
        shares = jnp.where(jnp.sum(gated, axis=0) > 0, gated, shares)
    if hidden_of is not None and not 0 <= hidden_of < count:
        raise ValueError(f"hidden_of: expected 0 to {count - 1}, got {hidden_of}")

    log_shares = jnp.log(shares / jnp.sum(shares, axis=0))
    log_shares = log_shares.reshape(count, *(1,) * (logits.ndim - 3), nodes, 1)
    softened = logits / temperature

    def log_mean(log_probabilities: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(log_shares + log_probabilities, axis=0)

    if multilabel:
        mean = log_mean(jax.nn.log_sigmoid(softened)) - log_mean(jax.nn.log_sigmoid(-softened))
    else:
        mean = log_mean(jax.nn.log_softmax(softened))
    of = None if hidden_of is None else teachers[hidden_of]
    return ModelOutput(temperature * mean, of.hidden if of else (), of.attention if of else ())


class RandomTeacher(NamedTuple):
    """Another of several teachers every step, drawn with equal chances: for `fit(teacher=...)`.

    A student sees each teacher's own distributions and not their mean, at the cost of one teacher a step. Make it
    with `RandomTeacher.of([...])`.

    Attributes:
      outputs: a `ModelOutput` whose arrays have a leading axis of K teachers.
    """

    outputs: ModelOutput

    @classmethod
    def of(cls, teachers: Sequence[ModelOutput]) -> "RandomTeacher":
        """Of K outputs of one form: the same nodes and classes, and the same layers, types and widths.

        Where layers differ, only the logits are kept.

        Raises:
          ValueError: no teacher, or logits that are not all of one shape.
        """
        logits = _stacked_logits(teachers)
        shapes = [jax.tree.map(jnp.shape, (teacher.hidden, teacher.attention)) for teacher in teachers]
        if any(shape != shapes[0] for shape in shapes):
            return cls(ModelOutput(logits, (), ()))
        return cls(jax.tree.map(lambda *arrays: jnp.stack(arrays), *teachers))

    def draw(self, key: jax.Array) -> ModelOutput:
        """One of the teachers."""
        index = jax.random.randint(key, (), 0, self.outputs.logits.shape[0])
        return jax.tree.map(lambda array: array[index], self.outputs)


def _stacked_logits(teachers: Sequence[ModelOutput]) -> jax.Array:
    """[K, ..., N, C]."""
    if not teachers:
        raise ValueError("teachers: expected at least one, got none")
    shapes = [jnp.shape(teacher.logits) for teacher in teachers]
    if len(set(shapes)) > 1 or len(shapes[0]) < 2:
        raise ValueError(f"teachers: expected logits of one shape [N, C] or [S, N, C], got {shapes}")
    return jnp.stack([jnp.asarray(teacher.logits) for teacher in teachers])
