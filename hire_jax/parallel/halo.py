"""Rows that one device reads and another computes: which they are, and how they come."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hire_jax.parallel.axis import AXIS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Halo:
    """What a device sends to all others, and where it finds what they send; the `halo` of a part's `HeteroGraph`.

    The rows of a type are a device's own, then its halo: H copies of rows that others own.

    Attributes:
      sent: {type: int32[devices * M]}, the own rows that each device needs, those of device 0 first. M is the most that
        any device needs of any other; shorter lists are filled up with row 0.
      arriving: {type: int32[H]}, where each row of the halo stands among the devices * M rows that arrive. A shorter
        halo is filled up with the first of them.
    """

    sent: dict[str, jax.Array]
    arriving: dict[str, jax.Array]

    def __call__(self, name: str, rows: jax.Array) -> jax.Array:
        """The rows [n, d] of a type with the halo as its owners have it; within a program mapped over AXIS.

        Gradients of the halo go back to the owners. What stood in its place has none.
        """
        sent, arriving = self.sent[name], self.arriving[name]
        if not sent.shape[0]:  # nobody needs any
            return rows
        arrived = jax.lax.all_to_all(_take(rows, sent), AXIS, split_axis=0, concat_axis=0, tiled=True)
        return jnp.concatenate([rows[:rows.shape[0] - arriving.shape[0]], _take(arrived, arriving)])


def exchange(foreign: Sequence[np.ndarray], owner: np.ndarray,
             rank: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How the nodes of one type travel.

    Args:
      foreign: for each part, int[h] the nodes of its halo, each once and none its own.
      owner, rank: int[N], the part that each node belongs to and its place there.

    Returns:
      `Halo.sent` int32[parts, parts * M] and `Halo.arriving` int32[parts, H] of all parts, and int64[parts, parts],
      how many rows the first part needs of the second.
    """
    parts = len(foreign)
    needed = np.stack([np.bincount(owner[ids], minlength=parts) for ids in foreign])
    most = int(needed.max())
    sent = np.zeros((parts, parts, most), np.int32)  # [from, to, M]
    arriving = np.zeros((parts, max(ids.size for ids in foreign)), np.int32)
    for part, ids in enumerate(foreign):
        order = np.argsort(owner[ids], kind="stable")
        sender, place = owner[ids[order]], np.arange(ids.size)
        place -= np.repeat(np.cumsum(needed[part]) - needed[part], needed[part])
        sent[sender, part, place] = rank[ids[order]]
        arriving[part, order] = sender * most + place
    return sent.reshape(parts, parts * most), arriving, needed


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """rows[index] for indices that `exchange` made."""
    return rows.at[index].get(mode="promise_in_bounds")
