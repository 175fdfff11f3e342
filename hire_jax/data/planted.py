"""Drawing from planted communities: nodes, edges and features, each part from a random stream of its own."""

import zlib

import numpy as np

from hire_jax.sparse import SparseFeatures

_ROWS_AT_ONCE = 65_536


def stream_seed(seed: int, *names: str) -> int:
    """A seed for one named part. crc32 because Python's own hash of a string changes from run to run."""
    entropy = [seed, *(zlib.crc32(name.encode()) for name in names)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def stream_of(seed: int, *names: str) -> np.random.Generator:
    """The generator of one named part."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))


def planted_communities(node_type: str, count: int, num_classes: int, seed: int) -> np.ndarray:
    """int32 [count]: each node's community in `synthetic_hetero`; sizes differ by one at most."""
    return stream_of(seed, "community", node_type).permutation(np.arange(count, dtype=np.int32) % num_classes)


class Pool:
    """One type's nodes, drawn with weights from a community or from all, by inverting cumulative weights."""

    def __init__(
        self, groups: np.ndarray, num_classes: int, power_law: float | None, stream: np.random.Generator
    ):
        self.groups = groups
        self.order = np.argsort(groups, kind="stable")
        ends = np.cumsum(np.bincount(groups, minlength=num_classes))
        starts = np.concatenate([[0], ends[:-1]])
        empty = starts == ends  # a community without nodes here: its edges go anywhere
        self.starts, self.ends = np.where(empty, 0, starts), np.where(empty, len(groups), ends)
        self.cumulative: np.ndarray | None = None
        if power_law is not None:  # weights rank^(-1/(exponent-1)) have a tail with that exponent
            ranks = stream.permutation(len(groups)) + 1.0
            self.cumulative = np.concatenate([[0.0], np.cumsum(ranks ** (-1 / (power_law - 1)))])

    def draw(self, groups: np.ndarray | None, count: int, stream: np.random.Generator) -> np.ndarray:
        """int64 [count]: nodes of the given communities [count], or of any."""
        start, end = (0, len(self.groups)) if groups is None else (self.starts[groups], self.ends[groups])
        uniform = stream.random(count)
        if self.cumulative is None:
            place = (start + uniform * (end - start)).astype(np.int64)
        else:
            low, high = self.cumulative[start], self.cumulative[end]
            place = np.searchsorted(self.cumulative, low + uniform * (high - low), side="right") - 1
        return self.order[np.minimum(place, np.asarray(end) - 1)]  # rounding may reach the end itself


def draw_edges(
    source: Pool, destination: Pool, count: int, noise: float, same_type: bool, stream: np.random.Generator
) -> np.ndarray:
    """int32 [2, count] distinct edges, without self loops, sorted; fewer if ten rounds do not find them all.

    Senders are drawn from all nodes; receivers from the sender's community, or from all with probability
    `noise`.

    Raises:
        ValueError: more edges are asked for than half the possible pairs.
    """
    width = len(destination.groups)
    room = len(source.groups) * width - (width if same_type else 0)
    if 2 * count > room:
        raise ValueError(
            f"mean_degree: expected at most half of the {room} possible pairs as edges, found {count}"
        )
    keys = np.zeros(0, dtype=np.int64)
    for _ in range(10):
        missing = count - len(keys)
        if missing <= 0:
            break
        senders = source.draw(None, missing, stream)
        groups = source.groups[senders]
        receivers = np.where(
            stream.random(missing) < noise,
            destination.draw(None, missing, stream),
            destination.draw(groups, missing, stream),
        )
        drawn = senders * width + receivers
        keys = _distinct(np.concatenate([keys, drawn[senders != receivers] if same_type else drawn]))
    return np.stack([keys // max(width, 1), keys % max(width, 1)]).astype(np.int32)


def draw_features(
    groups: np.ndarray,
    width: int,
    num_classes: int,
    density: float,
    noise: float,
    stream: np.random.Generator,
) -> np.ndarray | SparseFeatures:
    """float32 [N, width]: words that prefer the community's block of the vocabulary; Gaussian at density
    1."""
    count = len(groups)
    if density == 1:
        means = stream.standard_normal((num_classes, width), dtype=np.float32)
        values = stream.standard_normal((count, width), dtype=np.float32)
        means *= np.float32(1 - noise)
        for first in range(0, count, _ROWS_AT_ONCE):  # no second array of this size
            values[first:first + _ROWS_AT_ONCE] += means[groups[first:first + _ROWS_AT_ONCE]]
        return values
    # Each type shuffles its vocabulary, so that no column means the same in two types.
    vocabulary = stream.permutation(width)
    blocks = np.linspace(0, width, num_classes + 1).astype(np.int64)
    words = max(1, round(density * width))
    rows = np.repeat(np.arange(count, dtype=np.int64), words)
    anywhere = stream.random(rows.size) < noise
    own = groups[rows]
    start, end = np.where(anywhere, 0, blocks[own]), np.where(anywhere, width, blocks[own + 1])
    drawn = (start + stream.random(rows.size) * (end - start)).astype(np.int64)
    columns = vocabulary[np.minimum(drawn, end - 1)]
    keys = _distinct(rows * width + columns)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(keys // width, minlength=count))])
    return SparseFeatures.from_csr(indptr, keys % width, np.ones(keys.size, dtype=np.float32), (count, width))


def _distinct(keys: np.ndarray) -> np.ndarray:
    """The distinct values, sorted. `np.unique` may hash first (numpy 2.4), many times slower on 10^7 keys."""
    keys = np.sort(keys)
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if keys.size else keys
