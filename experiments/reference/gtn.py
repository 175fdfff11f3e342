"""Node classification on the graphs of GTN (arXiv 1911.06455) as published: macro-F1 and micro-F1 in %, without spread.

Source: openhgnn/dataset/ohgb.md of BUPT-GAMMA/OpenHGNN, whose ACM and IMDB are split at random into as many nodes as
ours (600/300/2,125 and 300/300/2,339). Versions of that page differ: at commit 3fb1c0a HAN has 91.91/91.81 on ACM and
55.30/56.05 on IMDB, and Simple-HGN nothing on IMDB. GCN and GAT: the mean macro-F1 of five runs in NC/GTN/README of
THUDM/HGB, whose splits are not stated there.
"""

from experiments.reference.hgb import Published

PUBLISHED: dict[str, dict[str, Published]] = {
    "acm_gtn": {
        "RGCN": Published(92.42, None, 92.42, None),
        "HAN": Published(92.45, None, 92.33, None),
        "HGT": Published(89.46, None, 89.41, None),
        "SimpleHGN": Published(91.89, None, 91.81, None),
        "GCN": Published(92.28, None, None, None),
        "GAT": Published(92.49, None, None, None),
    },
    "imdb_gtn": {
        "RGCN": Published(57.57, None, 63.66, None),
        "HAN": Published(58.63, None, 60.37, None),
        "HGT": Published(54.40, None, 55.19, None),
        "SimpleHGN": Published(55.21, None, 56.35, None),
        "GCN": Published(59.11, None, None, None),
        "GAT": Published(58.86, None, None, None),
    },
}
