"""From original files to the npz form: which parser reads which form, and what a dataset joins from several."""

from collections.abc import Callable

from hire_jax.data.errors import DatasetError
from hire_jax.data.formats.arrays import Arrays
from hire_jax.data.formats.gnn_benchmark import parse_gnn_benchmark
from hire_jax.data.formats.gtn import GTN, parse_gtn
from hire_jax.data.formats.heco import HECO, heco_splits, parse_heco
from hire_jax.data.formats.heterophilous import parse_heterophilous
from hire_jax.data.formats.hgb import HGB, parse_hgb
from hire_jax.data.formats.imdb_tables import parse_imdb_tables
from hire_jax.data.formats.magnn import magnn_split, parse_magnn
from hire_jax.data.formats.ogb import OGB, parse_ogb
from hire_jax.data.formats.planetoid import parse_planetoid
from hire_jax.data.formats.ppi import parse_ppi
from hire_jax.data.originals import Originals


def _hgb(name: str, files: Originals) -> Arrays:
    arrays = parse_hgb(files, HGB[name])
    if name != "dblp_hgb":
        return arrays
    # The same graph is MAGNN's and HeCo's, whose splits are usual on it too.
    authors = int(arrays["num_nodes/author"])
    if authors <= 800:
        raise DatasetError(f"{files.where}: node.dat: expected the 4,057 authors of dblp_hgb, found {authors}")
    arrays |= {f"split/magnn/{part}": nodes for part, nodes in
               magnn_split(authors, train=400, val=400).items()}
    published = {member.removeprefix("heco_"): opener for member, opener in files.openers.items()
                 if member.startswith("heco_")}
    return arrays | heco_splits(Originals(files.where, published)) if published else arrays


PARSERS: dict[str, Callable[[str, Originals], Arrays]] = {
    "gnn_benchmark": lambda name, files: parse_gnn_benchmark(files),
    "gtn": lambda name, files: parse_gtn(files, GTN[name]),
    "heco": lambda name, files: parse_heco(files, HECO[name]),
    "heterophilous": lambda name, files: parse_heterophilous(files),
    "hgb": _hgb,
    "imdb_tables": lambda name, files: parse_imdb_tables(files),
    "magnn": lambda name, files: parse_magnn(files),
    "ogb": lambda name, files: parse_ogb(files, OGB[name]),
    "planetoid": lambda name, files: parse_planetoid(files, name),
    "ppi": lambda name, files: parse_ppi(files),
}
PICKLED = ("gnn_benchmark", "gtn", "planetoid")  # forms that hold pickles, or may
