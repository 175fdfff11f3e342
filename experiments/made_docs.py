"""Documents that are made from the code: written, or checked to be current."""

import difflib
import sys
from pathlib import Path


def write_or_check(text: str, out: Path, *, check: bool, command: str) -> None:
    """Writes a document; with `check`, exits with status 1 and the difference where the file is not this text.

    Args:
      text: the whole document.
      out: its file.
      check: write nothing.
      command: what writes it again, for the message.
    """
    if not check:
        out.write_text(text)
        return
    found = out.read_text() if out.exists() else ""
    if found != text:
        print(*difflib.unified_diff(found.splitlines(), text.splitlines(), "found", "expected", lineterm=""),
              f"{out} is not current; to write it again: {command}", sep="\n")
        sys.exit(1)
