"""The tables under experiments/results are what their lines give: drawn again, they are the same bytes.

Figures are left out, because their bytes depend on the version of matplotlib.
"""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from experiments import relational, tables

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


@pytest.mark.parametrize(("folder", "script"), [("tables", tables), ("relational", relational)])
def test_what_is_committed_is_what_the_lines_give(folder, script, tmp_path):
    shutil.copy(RESULTS / folder / "results.jsonl", tmp_path)
    script.main(script.Settings(out=tmp_path, render=True), Console(quiet=True))
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".md", ".csv", ".tex")}
    assert drawn == {path.name: path.read_bytes() for path in (RESULTS / folder).iterdir()
                     if path.suffix in (".md", ".csv", ".tex") and path.name != "README.md"}
    assert drawn
