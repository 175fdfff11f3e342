"""Teacher outputs on disk, with a checksum and the configuration that made them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hire_jax._version import __version__
from hire_jax.data.write import npz_bytes
from hire_jax.files import write_whole
from hire_jax.models.output import ModelOutput

FORMAT = 1


class TeacherError(ValueError):
    """A file of teacher outputs that is damaged, foreign, or of another configuration."""


def save_teacher(path: str | os.PathLike[str], output: ModelOutput, *, config: Mapping[str, Any]) -> None:
    """Writes a teacher's output: logits, hidden embeddings and attention, in the npz form.

    A reader sees the old file or the new one, whenever this is stopped.

    Args:
      path: the file; its folder is made where it is missing.
      output: arrays of any leading axes, such as one of seeds.
      config: what made it (dataset, model, hyper-parameters, seeds), as plain values that JSON can hold. It is
        compared when the file is loaded.

    Raises:
      TypeError, ValueError: a config that JSON cannot hold, NaN included.
    """
    file = Path(path)
    text = json.dumps(dict(config), sort_keys=True, allow_nan=False)
    arrays = {name: np.asarray(array) for name, array in named_arrays(output).items()}
    narrow = {name: array.dtype.name for name, array in arrays.items() if array.dtype.kind == "V"}
    arrays = {name: array.view(f"u{array.itemsize}") if name in narrow else array for name, array in arrays.items()}
    meta = {"format": FORMAT, "hire_jax": __version__, "config": json.loads(text), "sha256": _checksum(arrays, text),
            "dtypes": narrow}  # such as bfloat16, which npz knows as bits only
    write_whole(file, npz_bytes(arrays, meta))


def load_teacher(path: str | os.PathLike[str], *, config: Mapping[str, Any] | None = None) -> ModelOutput:
    """The output that `save_teacher` wrote, as numpy arrays.

    Args:
      path: the file.
      config: what the output must have been made with; None takes whatever is there.

    Raises:
      FileNotFoundError: no such file.
      TeacherError: a file that is no complete npz file of this form, whose arrays do not give its checksum, or whose
        config differs; the message names the file, and the first setting that differs with both values.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no teacher outputs there; save_teacher writes them")
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        text = json.dumps(meta["config"], sort_keys=True, allow_nan=False)
        written, stated, narrow = meta["format"], meta["sha256"], meta["dtypes"]
    except Exception as error:  # damaged bytes surface as a dozen types
        raise TeacherError(f"{file}: expected teacher outputs as save_teacher writes them, found a file that cannot "
                           f"be read ({type(error).__name__}: {error}); make it again") from error
    if written != FORMAT:
        raise TeacherError(f"{file}: expected format {FORMAT}, found {written!r}")
    if _checksum(arrays, text) != stated:
        raise TeacherError(f"{file}: expected sha256 {stated}, found {_checksum(arrays, text)}; make it again")
    if config is not None:
        check_config(file, config, meta["config"])
    return output_of({name: a.view(jnp.dtype(narrow[name])) if name in narrow else a for name, a in arrays.items()})


def check_config(file: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises TeacherError with the first setting of `file` that differs from what is expected."""
    expected = json.loads(json.dumps(dict(expected), sort_keys=True, allow_nan=False))
    for name in sorted(set(expected) | set(found)):
        if name not in expected or name not in found or expected[name] != found[name]:
            raise TeacherError(f"{file}: config {name!r}: expected {expected.get(name, 'nothing')!r}, found "
                               f"{found.get(name, 'nothing')!r}")


def _checksum(arrays: Mapping[str, np.ndarray], config: str) -> str:
    """sha256 over names, dtypes, shapes and bytes of all arrays, and the config."""
    digest = hashlib.sha256(config.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def named_arrays(output: ModelOutput) -> dict[str, Any]:
    """{"logits", "hidden/LAYER/TYPE", "attention/LAYER/[source, relation, destination]": array}; the number of
    layers under "layers", because a layer may be empty."""
    named: dict[str, Any] = {"logits": output.logits, "layers": np.array([len(output.hidden), len(output.attention)])}
    for layer, of_types in enumerate(output.hidden):
        named |= {f"hidden/{layer}/{json.dumps(name)}": rows for name, rows in of_types.items()}
    for layer, of_relations in enumerate(output.attention):
        named |= {f"attention/{layer}/{json.dumps(list(name))}": maps for name, maps in of_relations.items()}
    return named


def output_of(arrays: Mapping[str, Any]) -> ModelOutput:
    """The output whose `named_arrays` these are."""
    hidden: list[dict] = [{} for _ in range(int(arrays["layers"][0]))]
    attention: list[dict] = [{} for _ in range(int(arrays["layers"][1]))]
    for name, array in arrays.items():
        if name in ("logits", "layers"):
            continue
        kind, layer, group = name.split("/", 2)
        decoded = json.loads(group)
        (hidden if kind == "hidden" else attention)[int(layer)][
            decoded if kind == "hidden" else tuple(decoded)] = array
    return ModelOutput(arrays["logits"], tuple(hidden), tuple(attention))
