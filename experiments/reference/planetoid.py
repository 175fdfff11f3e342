"""Node classification on Cora, Citeseer and Pubmed (public split) as published: test accuracy in %, mean and sd.

Sources, read in repositories: GCN (arXiv 1609.02907), GAT (1710.10903) and GCNII (2007.02133): their papers' numbers.
APPNP and SGC: DGL's examples, on this split (APPNP's paper has splits of its own). GraphSAGE: numbers of the literature
for the mean aggregator (the RUM paper's table). Where a source gives no sd, the bar is the mean itself.
"""

from typing import NamedTuple


class Accuracy(NamedTuple):
    """Percent; None where the source does not give it."""

    mean: float
    sd: float | None = None


PUBLISHED: dict[str, dict[str, Accuracy]] = {
    "cora": {"GCN": Accuracy(81.5), "GAT": Accuracy(83.0, 0.7), "GraphSAGE": Accuracy(77.4, 1.0),
             "APPNP": Accuracy(83.7), "SGC": Accuracy(81.9), "GCNII": Accuracy(85.5, 0.5)},
    "citeseer": {"GCN": Accuracy(70.3), "GAT": Accuracy(72.5, 0.7), "GraphSAGE": Accuracy(67.0, 1.0),
                 "APPNP": Accuracy(71.5), "SGC": Accuracy(72.5), "GCNII": Accuracy(73.4, 0.6)},
    "pubmed": {"GCN": Accuracy(79.0), "GAT": Accuracy(79.0, 0.3), "GraphSAGE": Accuracy(76.6, 0.8),
               "APPNP": Accuracy(79.3), "SGC": Accuracy(78.8), "GCNII": Accuracy(80.3, 0.4)},
}  # fmt: skip
