"""A synthetic graph of ogbn-mag's shape."""

from collections.abc import Mapping

from hire_jax.data.synthetic_arrays import GraphArrays, synthetic_arrays
from hire_jax.graph import EdgeType

# ogbn-mag (arXiv 2005.00687, table 6): nodes of each type and edges of each relation.
MAG_NODES = {"paper": 736_389, "author": 1_134_649, "institution": 8_740, "field": 59_965}
MAG_EDGES: Mapping[EdgeType, int] = {
    ("author", "writes", "paper"): 7_145_660,
    ("paper", "cites", "paper"): 5_416_271,
    ("author", "of", "institution"): 1_043_998,
    ("paper", "about", "field"): 7_505_078,
}
MAG_CLASSES = 349
MAG_TRAIN, MAG_VAL = 0.85, 0.09  # of all papers, by year; the rest is for testing


def mag_shaped(
    share: float = 1.0,
    *,
    num_classes: int = MAG_CLASSES,
    noise: float = 0.6,
    power_law: float | None = 2.5,
    feature_width: int = 128,
    feature_noise: float = 0.6,
    reverse: bool = True,
    seed: int = 0,
) -> GraphArrays:
    """Arrays with ogbn-mag's counts: 1,939,743 nodes of four types and 21,111,007 edges of four relations.

    Papers are classified. Communities, heavy-tailed degrees and dense features are planted as in `synthetic_arrays`;
    unlike in ogbn-mag every type has features, and the split is random. With `reverse`, which models need to pass
    messages both ways, every relation has its reverse besides: twice the edges.

    Args:
        share: of the nodes and of the edges of every type, above 0. Mean degrees stay, so that small shares are denser.
        num_classes, noise, power_law, feature_width, feature_noise, reverse, seed: as there.

    Returns:
        `GraphArrays`; at share 1 they take 1.2 GB.

    Raises:
        ValueError: an argument is out of range, or so small a share that a relation has more edges than fit.
    """
    if not share > 0:
        raise ValueError(f"share: expected a number above 0, found {share}")
    nodes = {name: max(1, round(count * share)) for name, count in MAG_NODES.items()}
    degrees = {edge_type: round(count * share) / nodes[edge_type[0]] for edge_type, count in MAG_EDGES.items()}
    return synthetic_arrays(
        nodes,
        list(MAG_EDGES),
        target="paper",
        num_classes=num_classes,
        mean_degree=degrees,
        noise=noise,
        power_law=power_law,
        reverse=reverse,
        feature_width=feature_width,
        feature_density=1.0,
        feature_noise=feature_noise,
        train_rate=MAG_TRAIN,
        val_rate=MAG_VAL,
        seed=seed,
    )
