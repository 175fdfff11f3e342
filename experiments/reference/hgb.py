"""Node classification on the HGB graphs as published: macro-F1 and micro-F1 in %, mean and sd of 5 runs.

Source: Lv et al., "Are we really making much progress?", KDD 2021, arXiv 2112.14936, the node classification
table, as copied in Table 1 of the LMSPS paper and in the results image of the SeHGNN repository (SeHGNN's row is
that image's). HeteroSAGE stands beside that table's GraphSAGE row, which is homogeneous.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """Percent: mean and sd of macro-F1, then of micro-F1; None where the source does not give it."""

    macro: float
    macro_sd: float | None
    micro: float | None
    micro_sd: float | None


PUBLISHED: dict[str, dict[str, Published]] = {
    "dblp_hgb": {
        "RGCN": Published(91.52, 0.50, 92.07, 0.50),
        "HAN": Published(91.67, 0.49, 92.05, 0.62),
        "HGT": Published(93.01, 0.23, 93.49, 0.25),
        "GCN": Published(90.84, 0.32, 91.47, 0.34),
        "GAT": Published(93.83, 0.27, 93.39, 0.30),  # macro above micro in every copy: probably swapped
        "HeteroSAGE": Published(92.53, 0.53, 93.06, 0.47),
        "SimpleHGN": Published(94.01, 0.24, 94.46, 0.22),
        "SeHGNN": Published(95.06, 0.17, 95.42, 0.17),
    },
    "acm_hgb": {
        "RGCN": Published(91.55, 0.74, 91.41, 0.75),
        "HAN": Published(90.89, 0.43, 90.79, 0.43),
        "HGT": Published(91.12, 0.76, 91.00, 0.76),
        "GCN": Published(92.17, 0.24, 92.12, 0.23),
        "GAT": Published(92.26, 0.94, 92.19, 0.93),
        "SimpleHGN": Published(93.42, 0.44, 93.35, 0.45),
        "SeHGNN": Published(94.05, 0.35, 93.98, 0.36),
    },
    "imdb_hgb": {
        "RGCN": Published(58.85, 0.26, 62.05, 0.15),
        "HAN": Published(57.74, 0.96, 64.63, 0.58),
        "HGT": Published(63.00, 1.19, 67.20, 0.57),
        "GCN": Published(57.88, 1.18, 64.82, 0.64),
        "GAT": Published(58.94, 1.35, 64.86, 0.43),
        "HeteroSAGE": Published(58.36, 0.70, 61.92, 0.72),
        "SimpleHGN": Published(63.53, 1.36, 67.36, 0.57),
        "SeHGNN": Published(67.11, 0.25, 69.17, 0.43),
    },
}
