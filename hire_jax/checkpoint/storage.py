"""Arrays on the disk, by orbax: this process alone reads and writes, and waits for no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes {name: array of at least one element} into `folder`, which must not exist; returns when it is written."""
    ocp = _orbax()
    with _checkpointer(ocp) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(dict(arrays)))


def read_arrays(folder: Path, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays that `write_arrays` wrote, as numpy has them; `names` are all of them."""
    ocp = _orbax()
    asked = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0),
                                   restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names})
    with _checkpointer(ocp) as checkpointer:
        return checkpointer.restore(folder, args=asked)


def _orbax() -> Any:
    import orbax.checkpoint as ocp  # type: ignore[import-untyped]  # half a second, which runs without it need not wait

    return ocp


def _checkpointer(ocp: Any) -> Any:
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=this, active_processes={this})  # no barriers
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)
