"""Teacher outputs that stay on the disk: a folder of arrays, mapped into memory and read row by row."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hire_jax._version import __version__
from hire_jax.files import write_whole
from hire_jax.models.output import ModelOutput
from hire_jax.teachers.store import TeacherError, check_config, named_arrays, output_of

FORMAT = 2
_BLOCK = 1 << 24  # bytes that are hashed at a time
_DESCRIBED = "teacher.json"
_OURS = re.compile(r"\.?rows-[0-9a-f]{16}\.npy(\.\d+\.partial)?")  # arrays, named after what is in them


class TeacherRows:
    """The logits and hidden embeddings of a teacher, of which `take` reads some nodes' rows.

    Args:
      folder: what `save_teacher_rows` wrote.
      config: what the output must have been made with; None takes whatever is there.
      verify: compare all checksums, which reads every byte once; otherwise shapes and sizes alone are compared.

    Attributes:
      num_rows: {node type: rows of its embeddings, in every layer that has some}.
      num_logits: rows of the logits.

    Raises:
      FileNotFoundError: no such folder, or one that was not written to its end.
      TeacherError: a file that is not what was written, an edited description, or another configuration; the message
        names the file.
    """

    def __init__(self, folder: str | os.PathLike[str], *, config: Mapping[str, Any] | None = None,
                 verify: bool = True) -> None:
        self.folder = Path(folder)
        described = self.folder / _DESCRIBED
        if not described.exists():
            raise FileNotFoundError(f"{described}: no teacher outputs there; save_teacher_rows writes them")
        try:
            meta = json.loads(described.read_bytes())
            if meta["format"] != FORMAT:
                raise TeacherError(f"{described}: expected format {FORMAT}, found {meta['format']!r}; make it again")
            if (found := _signature(meta)) != meta["sha256"]:
                raise TeacherError(f"{described}: expected sha256 {meta['sha256']}, found {found}: the description was "
                                   "edited; make it again")
            if config is not None:
                check_config(described, config, meta["config"])
            self._output = output_of({name: self._mapped(facts, verify) for name, facts in meta["arrays"].items()})
            self.num_logits = len(self._output.logits)
            self.num_rows = _num_rows(self._output)
        except TeacherError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise TeacherError(f"{described}: expected a description as save_teacher_rows writes it, found one that "
                               f"cannot be read ({type(error).__name__}: {error})") from error

    def take(self, index: Mapping[str, np.ndarray], target: str) -> ModelOutput:
        """The rows of the nodes {type: int[n]} in every hidden layer, and of those of `target` in the logits.

        Logits are None where `index` has no target; types without an entry are left out of the layers.
        """
        hidden = tuple({name: rows[index[name]] for name, rows in layer.items() if name in index}
                       for layer in self._output.hidden)
        logits: Any = self._output.logits[index[target]] if target in index else None
        return ModelOutput(logits=logits, hidden=hidden, attention=())

    def _mapped(self, facts: Mapping[str, Any], verify: bool) -> np.ndarray:
        path = self.folder / facts["file"]
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TeacherError(f"{path}: expected an array as save_teacher_rows writes it, found a file that cannot "
                               f"be read ({error})") from error
        form = [array.dtype.str, *array.shape]
        if form != [facts["stored"], *facts["shape"]]:
            raise TeacherError(f"{path}: expected {facts['stored']}{facts['shape']}, found {form[0]}{form[1:]}")
        if verify and _sha256(array) != facts["sha256"]:
            raise TeacherError(f"{path}: expected sha256 {facts['sha256']}, found {_sha256(array)}; make it again")
        return np.asarray(array).view(jnp.dtype(facts["dtype"]))


def save_teacher_rows(folder: str | os.PathLike[str], output: ModelOutput, *, config: Mapping[str, Any]) -> None:
    """Writes a teacher's logits and hidden embeddings as one file an array, for `TeacherRows`.

    Attention maps, whose rows are edges, are left out. The arrays are written beside those of a teacher that is there
    already, so both need room for a moment; then the description is replaced at once, and what it no longer names is
    deleted. Whenever this is stopped, by a full disk too, readers find the old teacher or the new one, and who has
    opened the old one keeps it. One process writes to a folder at a time.

    Args:
      folder: made where it is missing.
      output: of one seed: logits [N, C], hidden embeddings [N, D]. Memory-mapped arrays are read a block at a time.
      config: what made it, as plain values that JSON can hold.

    Raises:
      TypeError, ValueError: a config that JSON cannot hold, NaN included; an array that is no matrix; layers that have
        different numbers of nodes of one type.
    """
    folder = Path(folder)
    plain = json.loads(json.dumps(dict(config), sort_keys=True, allow_nan=False))
    arrays = {name: np.asarray(x) for name, x in named_arrays(output._replace(attention=())).items()}
    for name, array in arrays.items():
        if array.ndim != 2 and name != "layers":
            raise ValueError(f"{name}: expected a matrix with one row a node, got {list(array.shape)}")
    _num_rows(output)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = {name: _written(folder, array) for name, array in arrays.items()}
        meta = {"format": FORMAT, "hire_jax": __version__, "config": plain, "arrays": files}
        write_whole(folder / _DESCRIBED, json.dumps(meta | {"sha256": _signature(meta)}, indent=1).encode())
    finally:
        _tidy(folder)


def _num_rows(output: ModelOutput) -> dict[str, int]:
    """{node type: rows of its embeddings}. Raises ValueError where layers differ."""
    counts: dict[str, int] = {}
    for number, layer in enumerate(output.hidden):
        for name, rows in layer.items():
            if counts.setdefault(name, len(rows)) != len(rows):
                raise ValueError(f"layer {number} has embeddings of {len(rows)} nodes of {name!r}, an earlier one of "
                                 f"{counts[name]}")
    return counts


def _written(folder: Path, array: np.ndarray) -> dict[str, Any]:
    """Writes an array under a name that follows from what is in it; gives its description."""
    stored = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array  # npz knows bfloat16 as bits only
    facts = {"dtype": array.dtype.name, "stored": stored.dtype.str, "shape": list(array.shape),
             "sha256": _sha256(stored)}
    file = f"rows-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.npy"
    _write(folder / file, stored)
    return {"file": file, **facts}


def _tidy(folder: Path) -> None:
    """Deletes arrays that the description does not name: of an older teacher, or of one that was not written whole."""
    described = folder / _DESCRIBED
    try:
        named = {facts["file"] for facts in json.loads(described.read_bytes())["arrays"].values()}
    except FileNotFoundError:
        named = set()
    except (ValueError, LookupError, TypeError, AttributeError):
        return  # damaged before: somebody may still want to know what it was
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)


def _signature(meta: Mapping[str, Any]) -> str:
    """sha256 of a description, without its own."""
    plain = {name: value for name, value in meta.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _write(path: Path, array: np.ndarray) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256()
    rows = max(1, _BLOCK // max(1, array.itemsize * int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start:start + rows]).tobytes())
    return digest.hexdigest()
