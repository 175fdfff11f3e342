"""Writing the npz form so that equal arrays give equal bytes."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hire_jax.files import write_whole

# The earliest time a zip can state: a real one would make every file different.
_TIME = (1980, 1, 1, 0, 0, 0)


def npz_bytes(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """The bytes of an npz file with `arrays` and `meta` as JSON: keys sorted, times fixed, members not
    compressed.

    `np.savez` stamps the current time, and what compression gives depends on the zlib in use. Without either,
    a checksum of the file holds on every machine; git and wheels compress the whole file anyway.
    """
    text = json.dumps(dict(meta), sort_keys=True, ensure_ascii=False, indent=1)
    members = dict(arrays) | {"meta": np.frombuffer(text.encode(), dtype=np.uint8)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(members):
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.asarray(members[key], order="C"), version=(1, 0), allow_pickle=False
            )
            info = zipfile.ZipInfo(f"{key}.npy", date_time=_TIME)
            info.create_system = 3  # stated as Unix on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes a dataset in the npz form (see `hire_jax.data.npz`)."""
    write_whole(Path(path), npz_bytes(arrays, meta))
