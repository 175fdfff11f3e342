"""Every reader of foreign input, as a case of the fuzz."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

from hire_jax import HeteroGraph
from hire_jax.data import DatasetError, load_dataset
from hire_jax.data.formats.gnn_benchmark import parse_gnn_benchmark
from hire_jax.data.formats.gtn import parse_gtn
from hire_jax.data.formats.heco import parse_heco
from hire_jax.data.formats.heterophilous import parse_heterophilous
from hire_jax.data.formats.hgb import parse_hgb
from hire_jax.data.formats.imdb_tables import parse_imdb_tables
from hire_jax.data.formats.magnn import parse_magnn
from hire_jax.data.formats.ogb import parse_ogb
from hire_jax.data.formats.planetoid import parse_planetoid
from hire_jax.data.formats.ppi import parse_ppi
from hire_jax.data.originals import Originals
from hire_jax.data.unpickle import load_arrays, load_nested
from hire_jax.interop import dataset_from_columns, dataset_from_csv_folder, from_columns, from_csv_folder
from tests.fuzz import inputs, seeds
from tests.fuzz.archives import hostile_archive
from tests.fuzz.outcome import Case
from tests.fuzz.packing import Files, zipped
from tests.fuzz.structure import damaged_files
from tests.fuzz.valid import check_arrays, check_dataset, check_graph, require
from tests.fuzz.values import damaged

WHERE = "fuzz"  # what `Originals` calls the folder, in errors
_whole = cache(lambda make, *arguments: make(*arguments))


def parser(name: str, files: Callable[[], Files], parse: Callable[[Originals], Any]) -> Case:
    """A case of a parser of original files.

    Args:
        name: its name.
        files: gives whole files.
        parse: the parser.
    """

    def read(value: Files, folder: Path) -> None:
        check_arrays(parse(Originals.of_files(value, WHERE)), folder)

    names = {PurePosixPath(member).name for member in files()}
    # Of a folder without the file in question, or of several files together, errors say the pattern.
    patterns = {f"one {PurePosixPath(member).suffix} file" for member in names} | {"ind.tiny.*", "_*.npy"}
    return Case(name, files, lambda rng: damaged_files(_whole(files), rng), read, (*sorted(names), *sorted(patterns)))


def _read_archive(value: Files, folder: Path) -> None:
    path = folder / "tiny.zip"
    path.write_bytes(value.get("tiny.zip", b""))
    files = Originals.of(path)
    for member in files.openers:
        require(len(files.read(member)) <= 1 << 26, f"{member} unpacks to more than was packed")
        for line, content_of_line in files.lines(member):
            require(line > 0 and content_of_line, f"{member}: line {line}")


def _read_pickle(value: Files, folder: Path) -> None:
    refused = None
    for name, content in value.items():
        for load in (load_arrays, load_nested):
            try:
                load(content, f"{WHERE}: {name}")
            except DatasetError as error:
                refused = error
    if refused is not None:
        raise refused


def _pickles() -> Files:
    return {f"{name}.pickle": content for name, content in inputs.pickles().items()}


def _make_pickle(rng: Random) -> Files:
    name, content = rng.choice(sorted(_whole(_pickles).items()))
    return {name: damaged_files({name: content}, rng).get(name, b"")}


def _read_npz_form(value: Files, folder: Path) -> None:
    (folder / "tiny.npz").write_bytes(value.get("tiny.npz", b""))
    check_dataset(load_dataset("tiny", root=folder))


def _damaged_arguments(arguments: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The values of arguments damaged, not their names."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice([key for key in arguments for _ in range(8 if key in ("nodes", "edges") else 1)])
        arguments[name] = damaged(arguments[name], rng)
    return arguments


def _make_graph(rng: Random) -> dict[str, Any]:
    """Counts that int32 holds are honoured, whatever memory they take: vast ones are made vaster."""
    arguments = _damaged_arguments(inputs.graph(), rng)
    counts = arguments["num_nodes"]
    if isinstance(counts, dict):
        for name, count in counts.items():
            if isinstance(count, int) and 1 << 24 < count < 1 << 31:
                counts[name] = 1 << 31
    return arguments


def _read_graph(value: dict[str, Any], folder: Path) -> None:
    check_graph(HeteroGraph.from_arrays(**value))


def _read_columns(value: dict[str, Any], folder: Path) -> None:
    dataset, imported = dataset_from_columns(**value, train_per_class=1, val_per_class=1)
    check_dataset(dataset)
    roles = {key: value[key] for key in ("nodes", "edges", "id", "source", "destination", "categorical")}
    check_graph(from_columns(**roles, ignore={"paper": ["topic", "part", "title"]}).graph)
    require(imported.ids.keys() == dataset.graph.num_nodes.keys(), "ids")


def _read_csv(value: Files, folder: Path) -> None:
    place = folder / "csv"
    if "zip" in value:
        place = folder / "csv.zip"
        place.write_bytes(zipped({name: content for name, content in value.items() if name != "zip"}))
    else:
        place.mkdir()
        for name, content in value.items():
            if ".." not in PurePosixPath(name).parts and not (place / name).exists():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
    dataset, _ = dataset_from_csv_folder(place, target="paper", label="topic", split="part", train_per_class=1,
                                         val_per_class=1)
    check_dataset(dataset)
    check_graph(from_csv_folder(place, categorical={"paper": ["topic"]}, ignore={"paper": ["part"]}).graph)


def _make_csv(rng: Random) -> Files:
    files = damaged_files(_whole(inputs.csv_folder), rng)
    return files | {"zip": b""} if rng.random() < 0.3 else files


def _cases() -> list[Case]:
    tables = importlib.util.find_spec("pyarrow") is not None
    return [
        parser("planetoid", seeds.planetoid, lambda files: parse_planetoid(files, "tiny", num_val=2)),
        parser("hgb", lambda: seeds.hgb(False), lambda files: parse_hgb(files, seeds.HGB_FORMS[False])),
        parser("hgb, multi-label", lambda: seeds.hgb(True), lambda files: parse_hgb(files, seeds.HGB_FORMS[True])),
        parser("heco", seeds.heco, lambda files: parse_heco(files, seeds.HECO_FORM)),
        parser("gtn", lambda: seeds.gtn("published"), lambda files: parse_gtn(files, seeds.GTN_FORMS["published"])),
        parser("gtn, joined", lambda: seeds.gtn("joined"), lambda files: parse_gtn(files, seeds.GTN_FORMS["joined"])),
        parser("magnn", seeds.magnn, parse_magnn),
        parser("gnn_benchmark", lambda: seeds.gnn_benchmark(False), parse_gnn_benchmark),
        parser("gnn_benchmark, pickled", lambda: seeds.gnn_benchmark(True), parse_gnn_benchmark),
        parser("heterophilous", seeds.heterophilous, parse_heterophilous),
        parser("ogb", lambda: seeds.ogb("one type"), lambda files: parse_ogb(files, seeds.OGB_FORMS["one type"])),
        parser("ogb, heterogeneous", lambda: seeds.ogb("heterogeneous"),
               lambda files: parse_ogb(files, seeds.OGB_FORMS["heterogeneous"])),
        parser("ppi", seeds.ppi, parse_ppi),
        *([parser("imdb_tables", seeds.imdb_tables, parse_imdb_tables)] if tables else []),
        Case("zip archives", inputs.archive, hostile_archive, _read_archive, ("tiny.zip",)),
        Case("pickles", _pickles, _make_pickle, _read_pickle, (".pickle",)),
        Case("npz form", inputs.npz_form, lambda rng: damaged_files(_whole(inputs.npz_form), rng), _read_npz_form,
             ("tiny.npz",)),
        Case("from_arrays", inputs.graph, _make_graph, _read_graph,
             ("num_nodes", "node type", "relation", "edge type", "edges", "features", "edge_features")),
        Case("from_columns", inputs.columns, lambda rng: _damaged_arguments(inputs.columns(), rng), _read_columns,
             ("table", "nodes", "edges", *inputs.columns())),
        Case("from_csv_folder", inputs.csv_folder, _make_csv, _read_csv,
             ("csv/", "csv.zip", ".csv", "nodes/", "edges/", "target")),
    ]


CASES: dict[str, Case] = {case.name: case for case in _cases()}
