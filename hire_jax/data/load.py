"""`load_dataset`: finds a dataset by name, reads it and chooses its split."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hire_jax.data.dataset import Dataset
from hire_jax.data.errors import DatasetError, DatasetNotFoundError
from hire_jax.data.fetch import cache_folder
from hire_jax.data.npz import KEY_FORMS, read_npz
from hire_jax.data.obtain import get
from hire_jax.data.registry import BUNDLED, Entry, entries, nearest
from hire_jax.data.split_names import choose_split
from hire_jax.data.synthetic import synthetic_hetero


def load_dataset(name: str, root: str | os.PathLike[str] | None = None, split: str | None = None, *,
                 download: bool = True) -> Dataset:
    """Loads a dataset by name; the first time, a dataset of the registry is fetched and checked.

    The file NAME.npz (form: `hire_jax.data.npz`) is looked for in `root`, then in the cache (the folder that the
    environment variable HIRE_JAX_DATA names, else the platform's cache folder), then among the bundled files:
    "imdb_gtn" and "citeseer". "synthetic" needs no file: it is `synthetic_hetero(seed=0)`. What is not there but has
    addresses in the registry (`python -m hire_jax.data list`) is fetched into the cache, unless HIRE_JAX_OFFLINE is
    set. CSR features stay CSR (`SparseFeatures`).

    `split` is one of
      - a split in the file, by its name there, such as "hgb", "magnn", "heco_20", or "0" to "9";
      - "default" or None: the file's `default_split`, else its only split, else "random:0";
      - "random:SEED": 20 nodes per class for training, 30 for validation, all others for testing
        (`splits.random_split`); "random" is "random:0";
      - "fraction:TRAIN:VAL:SEED", such as "fraction:0.6:0.2:0": these shares of every class for training and
        validation, all others for testing (`splits.fraction_split`);
      - "fold:K/N:SEED", such as "fold:0/5:0" to "fold:4/5:0": fold K of N for testing, the next for validation, the
        others for training (`splits.k_fold`);
      - "NAME:SEED", such as "hgb:3" or "default:3": for a split without a validation set (the HGB graphs),
        where 20 % of the training nodes are held out (`splits.holdout`) by this seed; without SEED it is 0.

    `meta` of the result is the file's, with "file" (its path), "split" (the split taken, seed included) and
    "splits" (the names in the file).

    Args:
        name: the dataset's name.
        root: a folder to look in first.
        split: see above.
        download: whether a dataset that is not there may be fetched.

    Raises:
        DatasetNotFoundError: no such file; the message says where it was looked for and what to do.
        DatasetError: `root` is not a folder, the file is not in order, it has no such split, or it could not be
            fetched.
    """
    for argument, value in (("name", name), ("split", split)):
        if not isinstance(value, str) and (argument == "name" or value is not None):
            raise DatasetError(f"{argument}: expected a string, found {value!r}")
    # Only a plain name may become part of a path: the search must not leave the folders.
    if re.fullmatch(r"[\w.+-]+", name) is None:
        raise DatasetError(
            f"name: expected a plain name, found {name!r}; a folder to look in is given by root="
        )
    if root is not None and not Path(root).expanduser().is_dir():
        raise DatasetError(f"root: expected a folder, found {os.fspath(root)!r}")
    folders = [*([] if root is None else [Path(root).expanduser()]), cache_folder()]
    path = next((folder / f"{name}.npz" for folder in folders if (folder / f"{name}.npz").is_file()), None)
    if path is not None:
        return _from_file(path, name, split, str(path))
    if name in BUNDLED:
        with bundled(name) as file:
            return _from_file(file, name, split, f"hire_jax/data/bundled/{name}.npz")
    if name == "synthetic":
        return _synthetic(split)
    known = entries().get(name)
    if known is None or known.way == "convert":
        raise DatasetNotFoundError(_not_found(name, folders, known))
    try:
        path = get(name, folders[-1], offline=None if download else True, say=_say)
    except DatasetNotFoundError as error:  # offline: what to put where
        raise DatasetNotFoundError(f"{_not_found(name, folders, known)}\n{error}") from error
    return _from_file(path, name, split, str(path))


def _say(line: str) -> None:
    """Where a download is told of: not the standard output, which is the program's own."""
    print(line, file=sys.stderr)


@contextmanager
def bundled(name: str) -> Iterator[Path]:
    """A path to one of the datasets shipped in the package, also where the package is imported from a zip."""
    with resources.as_file(resources.files("hire_jax.data").joinpath("bundled", f"{name}.npz")) as path:
        yield path


def _not_found(name: str, folders: list[Path], known: Entry | None) -> str:
    looked = "".join(f"{folder}{'' if folder.is_dir() else ' (no such folder)'}, " for folder in folders)
    offered = sorted({*BUNDLED, "synthetic", *(p.stem for folder in folders for p in folder.glob("*.npz"))})
    lines = [f"dataset {name!r} was not found.",
             f"Looked in: {looked}the bundled files. Available: {', '.join(offered)}. "
             f"Bundled: {', '.join(BUNDLED)}; synthetic is generated."]
    if known is not None and known.way == "get":
        lines.append(f"With a connection: python -m hire_jax.data get {name}; with its original files at hand: "
                     f"python -m hire_jax.data convert PATH --name {name}.")
    elif known is not None:
        lines.append(f"{known.notes['download']}: python -m hire_jax.data convert PATH --name {name}.")
    elif near := nearest(name, (*offered, *entries())):
        lines.append(f"Did you mean {' or '.join(near)}?")
    lines.append(
        f"To use a graph of your own, set HIRE_JAX_DATA, or pass root=, to a folder with {name}.npz: plain "
        f"numpy arrays under the keys {KEY_FORMS} (see hire_jax.data.npz); or see hire_jax.interop."
    )
    return "\n".join(lines)


def _from_file(path: Path, name: str, split: str | None, file: str) -> Dataset:
    raw = read_npz(path, name)
    graph = raw.graph(path)
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
