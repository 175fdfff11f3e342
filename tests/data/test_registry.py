"""The registry: complete, well-formed, and true of every graph that is here."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from hire_jax.data import DatasetError
from hire_jax.data.build import PARSERS
from hire_jax.data.load import bundled, load_dataset
from hire_jax.data.npz import read_npz
from hire_jax.data.registry import BUNDLED, entries, entry, nearest
from hire_jax.data.verify import differences, unpaired

FOLDER = os.environ.get("HIRE_JAX_DATA")  # read before the fixture takes it away
NAMES = """acm_gtn acm_hgb acm_heco dblp_gtn dblp_hgb dblp_heco imdb_gtn imdb_magnn imdb_hgb freebase_heco aminer_heco
cora citeseer pubmed amazon_photo amazon_computers coauthor_cs coauthor_physics actor chameleon_filtered
squirrel_filtered tolokers ogbn_arxiv ogbn_mag ppi synthetic""".split()


def test_every_dataset_is_there():
    assert sorted(entries()) == sorted(NAMES) and set(BUNDLED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_complete(name):
    known = entry(name)
    assert known.description and known.licence
    assert known.way == "generated" or re.search(r"arXiv \d{4}\.\d{4,5}", known.citation)
    assert known.target in known.nodes and len(known.classes) == len(set(known.classes)) > 1
    assert known.counts_from in ("files", "published")
    assert known.default_split is None or known.splits is None or known.default_split in known.splits
    for source, _, destination in known.edges:
        assert {source, destination} <= set(known.nodes)
        assert any((s, d) == (destination, source) for s, _, d in known.edges)  # every relation in both directions
    for sizes in (known.splits or {}).values():
        assert min(sizes[0], sizes[2]) > 0 and sum(sizes) <= known.nodes[known.target][0]
    assert known.way != "convert" or "convert" in known.notes["download"]
    for source in known.sources:
        assert source.form in PARSERS and source.files
        for file in source.files:
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.git_blob_sha1 is None or re.fullmatch("[0-9a-f]{40}", file.git_blob_sha1)
            for url in file.urls:  # of a commit, not of a branch that moves
                assert re.fullmatch(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/.+", url)


@pytest.mark.parametrize("name", NAMES)
def test_the_registry_is_true_of_the_graphs_that_are_here(name):
    if name in BUNDLED:
        with bundled(name) as path:
            raw = read_npz(path)
    elif FOLDER and (Path(FOLDER) / f"{name}.npz").is_file():
        raw = read_npz(Path(FOLDER) / f"{name}.npz")
    elif name == "synthetic":
        dataset = load_dataset(name)
        assert {t: (n, dataset.graph.features[t].shape[1] if t in dataset.graph.features else None)
                for t, n in dataset.graph.num_nodes.items()} == entry(name).nodes
        assert dataset.graph.num_edges == entry(name).edges
        return
    else:
        pytest.skip(f"{name} is not bundled, and no folder that HIRE_JAX_DATA names has it")
    assert differences(raw, entry(name)) == [] and unpaired(raw.edges) == []


def test_differences_are_told(arrays, meta, write):
    raw = read_npz(write(arrays, meta))
    found = differences(raw, entry("acm_gtn"))
    assert "nodes of paper: expected 3025, found 10" in found
    assert "nodes of subject: expected 57, found None" in found
    assert "feature width of author: expected 1902, found 2" in found
    assert "split 'full': expected None, found (2, 2, 2)" in found
    assert any(text.startswith("relations: expected ['author__to__paper',") for text in found)
    assert unpaired(raw.edges) == [("author", "writes", "paper"), ("paper", "has", "tag")]
    pair = {("a", "x", "b"): np.array([[0, 1], [2, 0]]), ("b", "y", "a"): np.array([[0, 2], [1, 0]])}
    assert unpaired(pair) == []
    assert unpaired(pair | {("b", "y", "a"): np.array([[0, 2], [1, 1]])}) == list(pair)


def test_nearest_names():
    with pytest.raises(DatasetError, match=r"found 'imbd_gtn'; did you mean imdb_gtn or"):
        entry("imbd_gtn")
    with pytest.raises(DatasetError, match=r"the registry has acm_gtn, acm_hgb"):
        entry("zzzzzzzz")
    assert nearest("ACM-HGB", tuple(NAMES))[0] == "acm_hgb"
