"""`load_dataset`: finds a dataset by name, reads it and chooses its split."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hire_jax.data.dataset import Dataset
from hire_jax.data.errors import DatasetError, DatasetNotFoundError
from hire_jax.data.npz import KEY_FORMS, read_npz
from hire_jax.data.splits import holdout, random_split
from hire_jax.data.synthetic import synthetic_hetero
from hire_jax.graph import GraphError, HeteroGraph

BUNDLED = ("citeseer", "imdb_gtn")
# Names that papers on these graphs use: only to tell a misspelt name from a graph that is not shipped.
KNOWN = (
    *("acm_gtn", "acm_hgb", "acm_heco", "actor", "amazon_computers", "amazon_photo", "aminer_heco"),
    *("chameleon_filtered", "citeseer", "coauthor_cs", "coauthor_physics", "cora", "dblp_gtn", "dblp_hgb"),
    *("dblp_heco", "freebase_heco", "imdb_gtn", "imdb_hgb", "imdb_magnn", "ogbn_arxiv", "ogbn_mag", "ppi"),
    *("pubmed", "squirrel_filtered", "synthetic", "tolokers"),
)
VAL_FRACTION = 0.2


def load_dataset(name: str, root: str | os.PathLike[str] | None = None, split: str | None = None) -> Dataset:
    """Loads a dataset by name.

    The file NAME.npz (form: `hire_jax.data.npz`) is looked for in `root`, then in the folder that the
    environment variable HIRE_JAX_DATA names, then among the bundled files: "imdb_gtn" and "citeseer".
    "synthetic" needs no file: it is `synthetic_hetero(seed=0)`. CSR features stay CSR (`SparseFeatures`).

    `split` is one of
      - a split in the file, by its name there, such as "hgb", "magnn", "heco_20", or "0" to "9";
      - "default" or None: the file's `default_split`, else its only split, else "random:0";
      - "random:SEED": 20 nodes per class for training, 30 for validation, all others for testing
        (`splits.random_split`); available for every dataset; "random" is "random:0";
      - "NAME:SEED", such as "hgb:3" or "default:3": for a split without a validation set (the HGB graphs),
        where 20 % of the training nodes are held out (`splits.holdout`) by this seed; without SEED it is 0.

    `meta` of the result is the file's, with "file" (its path), "split" (the split taken, seed included) and
    "splits" (the names in the file).

    Args:
        name: the dataset's name.
        root: a folder to look in first.
        split: see above.

    Raises:
        DatasetNotFoundError: no such file; the message says where it was looked for and what to do.
        DatasetError: `root` is not a folder, the file is not in order, or it has no such split.
    """
    # Only a plain name may become part of a path: the search must not leave the folders.
    if re.fullmatch(r"[\w.+-]+", name) is None:
        raise DatasetError(
            f"name: expected a plain name, found {name!r}; a folder to look in is given by root="
        )
    if root is not None and not Path(root).expanduser().is_dir():
        raise DatasetError(f"root: expected a folder, found {os.fspath(root)!r}")
    folders = [] if root is None else [Path(root).expanduser()]
    if os.environ.get("HIRE_JAX_DATA"):
        folders.append(Path(os.environ["HIRE_JAX_DATA"]).expanduser())
    path = next((folder / f"{name}.npz" for folder in folders if (folder / f"{name}.npz").is_file()), None)
    if path is not None:
        return _from_file(path, name, split, str(path))
    if name in BUNDLED:
        with _bundled(f"{name}.npz") as bundled:
            return _from_file(bundled, name, split, f"hire_jax/data/bundled/{name}.npz")
    if name == "synthetic":
        return _synthetic(split)
    raise DatasetNotFoundError(_not_found(name, folders))


@contextmanager
def _bundled(file: str) -> Iterator[Path]:
    """A path to a file shipped in the package, also where the package is imported from a zip."""
    with resources.as_file(resources.files("hire_jax.data").joinpath("bundled", file)) as path:
        yield path


def _not_found(name: str, folders: list[Path]) -> str:
    looked = "".join(f"{folder}{'' if folder.is_dir() else ' (no such folder)'}, " for folder in folders)
    offered = sorted({*BUNDLED, "synthetic", *(p.stem for folder in folders for p in folder.glob("*.npz"))})
    near = difflib.get_close_matches(name.lower(), sorted({*offered, *KNOWN}), n=3, cutoff=0.5)
    lines = [
        f"dataset {name!r} was not found.",
        f"Looked in: {looked}the bundled files"
        + ("" if folders else " (no root was given and HIRE_JAX_DATA is not set)")
        + f". Available: {', '.join(offered)}. Bundled: {', '.join(BUNDLED)}; synthetic is generated.",
    ]
    if name in KNOWN:
        lines.append(f"{name} is a known graph, but not one of those shipped.")
    elif near:
        lines.append(f"Did you mean {' or '.join(near)}?")
    lines.append(
        f"To use a graph of your own, set HIRE_JAX_DATA, or pass root=, to a folder with {name}.npz: plain "
        f"numpy arrays under the keys {KEY_FORMS} (see hire_jax.data.npz)."
    )
    return "\n".join(lines)


def _from_file(path: Path, name: str, split: str | None, file: str) -> Dataset:
    raw = read_npz(path, name)
    try:
        graph = HeteroGraph.from_arrays(num_nodes=raw.num_nodes, edges=raw.edges, features=raw.features)
    except GraphError as error:
        raise DatasetError(f"{path}: {error}") from error
    try:
        masks, taken = choose_split(raw.splits, raw.meta["default_split"], raw.labels, split)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    return Dataset(
        graph=graph,
        target=raw.target,
        labels=jnp.asarray(raw.labels),
        splits={part: jnp.asarray(mask) for part, mask in masks.items()},
        num_classes=len(raw.classes),
        multilabel=raw.multilabel,
        meta=raw.meta | {"file": file, "split": taken, "splits": sorted(raw.splits)},
    )


def _synthetic(split: str | None) -> Dataset:
    dataset = synthetic_hetero(seed=0)
    planted = {part: np.asarray(mask) for part, mask in dataset.splits.items()}
    masks, taken = choose_split({"planted": planted}, "planted", np.asarray(dataset.labels), split)
    return Dataset(
        graph=dataset.graph,
        target=dataset.target,
        labels=dataset.labels,
        splits={part: jnp.asarray(mask) for part, mask in masks.items()},
        num_classes=dataset.num_classes,
        multilabel=dataset.multilabel,
        meta=dataset.meta | {"split": taken, "splits": ["planted"]},
    )


def choose_split(
    named: Mapping[str, Mapping[str, np.ndarray]], default: str | None, labels: np.ndarray, split: str | None
) -> tuple[dict[str, np.ndarray], str]:
    """The masks that a `split` argument stands for, and the split's full name; the forms are those of
    `load_dataset`.

    Args:
        named: name -> part -> bool [N]; "val" may be absent.
        default: the name that "default" stands for, or None.
        labels: int [N] or multi-hot [N, C], for random splits.
        split: the argument.

    Raises:
        DatasetError: there is no such split, or it needs no seed.
        ValueError: the split cannot be drawn from so few nodes.
    """
    asked = "default" if split is None else split
    name, seed = asked, None
    if asked not in named and (match := re.fullmatch(r"(.*):(\d+)", asked)):
        name, seed = match[1], int(match[2])
    if name == "default" and name not in named:
        name = _default(named, default)
    if name == "random" and name not in named:
        return random_split(
            labels, train_per_class=20, val_per_class=30, seed=seed or 0
        ), f"random:{seed or 0}"
    if name not in named:
        raise DatasetError(f"split: expected {_listed(named)}'default' or 'random:SEED', found {asked!r}")
    parts = dict(named[name])
    if "val" in parts:
        if seed is not None:
            raise DatasetError(
                f"split: expected no seed, found {asked!r}: this split has its own validation set"
            )
        return parts, name
    seed = seed or 0
    parts["train"], parts["val"] = holdout(parts["train"], fraction=VAL_FRACTION, seed=seed)
    return parts, f"{name}:{seed}"


def _listed(named: Mapping[str, object]) -> str:
    """The names of a file's splits, for errors; the unnamed one is reached as "default"."""
    return "".join(f"{name!r}, " for name in sorted(named) if name)


def _default(named: Mapping[str, object], default: str | None) -> str:
    if default is not None:
        if default not in named:
            raise DatasetError(
                f"meta: expected default_split among the splits {sorted(named)}, found {default!r}"
            )
        return default
    if len(named) > 1:
        raise DatasetError(f"split: expected one of {sorted(named)} (the file names no default), found none")
    return next(iter(named), "random")
