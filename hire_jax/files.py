"""Files that are either old or new, never half."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name beside its own, and renames it once it is on the disk.

    A reader, or a kill at any moment, meets the old file or the new one. The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # what an error or Ctrl-C left
