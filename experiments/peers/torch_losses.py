"""The losses as public torch codes usually write them, for experiments.bench_losses: full [n, n] matrices, no masks.

Each takes our positional arguments as tensors. Values equal ours on data without special cases, but for `bernoulli_kl`:
codes take the cross-entropy, which has the same gradient. CPU only.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VERSION = torch.__version__
# Memory grows as rows to this power where the matrices of all pairs or triplets outgrow the rest; else as rows.
POWER = {"contrastive": 2, "rkd_distance": 2, "similarity_preserving": 2, "global_structure": 2,
         "type_pair_correlation": 2, "rkd_angle": 3}  # fmt: skip
GRADIENT_ONLY = frozenset({"bernoulli_kl"})  # the value differs from ours by a constant


def tensors(arguments: Any, learned: int) -> tuple[list[Any], list[Tensor]]:
    """Arguments as tensors, integers as the int64 that torch's scatter wants; and those with a gradient."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64) if array.dtype.kind == "i" else array)

    made = [jax.tree.map(tensor, argument) for argument in arguments]
    leaves = [leaf.requires_grad_() for argument in made[:learned] for leaf in jax.tree.leaves(argument)]
    return made, leaves


def value_and_gradients(name: str, arguments: list[Any], leaves: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss, and its gradient for each of `leaves`."""
    value = PEERS[name](*arguments)
    return value.detach(), torch.autograd.grad(value, leaves)


def soft_target_kl(s: Tensor, t: Tensor) -> Tensor:
    """`kl_div` of log-probabilities, divided by the batch."""
    return F.kl_div(F.log_softmax(s, dim=1), F.softmax(t, dim=1), reduction="batchmean")


def bernoulli_kl(s: Tensor, t: Tensor) -> Tensor:
    """Cross-entropy against the teacher's probabilities, which contains their entropy."""
    return F.binary_cross_entropy_with_logits(s, torch.sigmoid(t), reduction="sum") / len(s)


def reverse_kl(s: Tensor, t: Tensor) -> Tensor:
    """`kl_div` with the roles exchanged."""
    return F.kl_div(F.log_softmax(t, dim=1), F.softmax(s, dim=1), reduction="batchmean")


def jensen_shannon(s: Tensor, t: Tensor) -> Tensor:
    """Two `kl_div` to the mean of the probabilities."""
    p, q = F.softmax(s, dim=1), F.softmax(t, dim=1)
    middle = (0.5 * (p + q)).log()
    return 0.5 * (F.kl_div(middle, p, reduction="batchmean") + F.kl_div(middle, q, reduction="batchmean"))


def decoupled_kd(s: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The other classes' softmax by taking 1000 from the true class's logit; weights 1 and 8."""
    true = F.one_hot(labels, s.shape[1])

    def two(p: Tensor) -> Tensor:
        return torch.stack([(p * true).sum(1), (p * (1 - true)).sum(1)], dim=1)

    target = F.kl_div(two(F.softmax(s, dim=1)).log(), two(F.softmax(t, dim=1)), reduction="batchmean")
    return target + 8.0 * soft_target_kl(s - 1000.0 * true, t - 1000.0 * true)


def dist(s: Tensor, t: Tensor) -> Tensor:
    """Cosines of centred probabilities, over rows and over columns."""
    def pearson(a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1, eps=1e-8).mean()

    p, q = F.softmax(s, dim=1), F.softmax(t, dim=1)
    return (1 - pearson(p, q)) + (1 - pearson(p.T, q.T))


def logit_mse(s: Tensor, t: Tensor) -> Tensor:
    """Summed over classes like ours."""
    return F.mse_loss(s, t) * s.shape[1]


def attention_transfer(s: Tensor, t: Tensor) -> Tensor:
    """Mean square of maps of length 1."""
    return F.mse_loss(F.normalize(s.pow(2).mean(1), dim=0), F.normalize(t.pow(2).mean(1), dim=0))


def cosine_embedding(s: Tensor, t: Tensor) -> Tensor:
    """With target 1."""
    return F.cosine_embedding_loss(s, t, torch.ones(len(s)))


def linear_cka(s: Tensor, t: Tensor) -> Tensor:
    """By the covariances of centred features."""
    s, t = s - s.mean(0), t - t.mean(0)
    return 1 - (s.T @ t).pow(2).sum() / ((s.T @ s).norm() * (t.T @ t).norm())


def vid(mean: Tensor, log_variance: Tensor, t: Tensor) -> Tensor:
    """Normal log-likelihood with a variance a feature."""
    return 0.5 * (log_variance + (t - mean).pow(2) / log_variance.exp()).sum(1).mean()


def contrastive(s: Tensor, t: Tensor) -> Tensor:
    """Cross-entropy over the whole matrix of cosines, temperature 0.1."""
    return F.cross_entropy(F.normalize(s) @ F.normalize(t).T / 0.1, torch.arange(len(s)))


def rkd_distance(s: Tensor, t: Tensor) -> Tensor:
    """Distances by the Gram matrix, each side divided by its mean."""
    def distances(e: Tensor) -> Tensor:
        squares = e.pow(2).sum(1)
        d = (squares[:, None] + squares[None] - 2 * (e @ e.T)).clamp(min=1e-12).sqrt()
        d = d * (1 - torch.eye(len(e)))
        return d / d[d > 0].mean()

    with torch.no_grad():
        of_teacher = distances(t)
    return F.smooth_l1_loss(distances(s), of_teacher)


def rkd_angle(s: Tensor, t: Tensor) -> Tensor:
    """All n³ angles at once."""
    def angles(e: Tensor) -> Tensor:
        arms = F.normalize(e[None] - e[:, None], p=2, dim=2)
        return torch.bmm(arms, arms.transpose(1, 2))

    with torch.no_grad():
        of_teacher = angles(t)
    return F.smooth_l1_loss(angles(s), of_teacher)


def similarity_preserving(s: Tensor, t: Tensor) -> Tensor:
    """Both [n, n] matrices, rows of length 1."""
    return (F.normalize(t @ t.T) - F.normalize(s @ s.T)).pow(2).sum() / len(s) ** 2


def global_structure(s: Tensor, t: Tensor) -> Tensor:
    """Both matrices of cosines."""
    s, t = F.normalize(s), F.normalize(t)
    return F.mse_loss(s @ s.T, t @ t.T)


def type_pair_correlation(s: dict[str, Tensor], t: dict[str, Tensor]) -> Tensor:
    """Both matrices of cosines between two types."""
    return F.mse_loss(F.normalize(s["a"]) @ F.normalize(s["b"]).T, F.normalize(t["a"]) @ F.normalize(t["b"]).T)


def class_prototype_correlation(s: dict[str, Tensor], t: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
    """The cosines of the classes' prototypes, over the classes that either type has."""
    known = (y["a"].sum(dim=0) > 0)[:, None] & (y["b"].sum(dim=0) > 0)
    of_student, of_teacher = (F.normalize(y["a"].T @ F.normalize(side["a"])) @ F.normalize(
        y["b"].T @ F.normalize(side["b"])).T for side in (s, t))
    return F.mse_loss(of_student[known], of_teacher[known])


def local_structure(s: Tensor, t: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
    """One relation within one type, by scattered softmaxes."""
    return _of_relation((s, s), (t, t), senders, receivers)


def typed_local_structure(s: dict[str, Tensor], t: dict[str, Tensor], edges: dict[Any, Any]) -> Tensor:
    """The mean over relations."""
    terms = [_of_relation((s[a], s[b]), (t[a], t[b]), *ends) for (a, _, b), ends in edges.items()]
    return torch.stack(terms).mean()


def attention_map_kl(s: Tensor, t: Tensor, receivers: Tensor) -> Tensor:
    """`kl_div` of attention weights over the number of receivers."""
    return F.kl_div(s.log(), t, reduction="sum") / (s.shape[1] * len(receivers.unique()))


def _of_relation(s: tuple[Tensor, Tensor], t: tuple[Tensor, Tensor], senders: Tensor, receivers: Tensor) -> Tensor:
    def logs(source: Tensor, destination: Tensor) -> Tensor:
        similarity = F.cosine_similarity(source[senders], destination[receivers], dim=1)
        sums = torch.zeros(len(destination)).index_add(0, receivers, similarity.exp())  # cosines: exp is safe
        return similarity - sums.log()[receivers]

    with torch.no_grad():
        of_teacher = logs(*t)
    return F.kl_div(logs(*s), of_teacher, reduction="sum", log_target=True) / len(receivers.unique())


PEERS: dict[str, Callable[..., Tensor]] = {
    "soft_target_kl": soft_target_kl, "bernoulli_kl": bernoulli_kl, "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon, "decoupled_kd": decoupled_kd, "dist": dist, "logit_mse": logit_mse,
    "hint": F.mse_loss, "attention_transfer": attention_transfer, "cosine_embedding": cosine_embedding,
    "linear_cka": linear_cka, "vid": vid, "contrastive": contrastive, "rkd_distance": rkd_distance,
    "rkd_angle": rkd_angle, "similarity_preserving": similarity_preserving, "global_structure": global_structure,
    "type_pair_correlation": type_pair_correlation, "local_structure": local_structure,
    "typed_local_structure": typed_local_structure, "attention_map_kl": attention_map_kl,
    "class_prototype_correlation": class_prototype_correlation,
}  # fmt: skip
