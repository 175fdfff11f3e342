"""The tables under experiments/results are what their lines give: drawn again, they are the same bytes.

Figures are left out, because their bytes depend on the version of matplotlib.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments import relational, tables
from experiments.configs.tables import TABLES
from experiments.tables_cells import Pair
from hire_jax.identity import identifying

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


@pytest.mark.parametrize(("folder", "script"), [("tables", tables), ("relational", relational)])
def test_what_is_committed_is_what_the_lines_give(folder, script, tmp_path):
    shutil.copy(RESULTS / folder / "results.jsonl", tmp_path)
    script.main(script.Settings(out=tmp_path, render=True), Console(quiet=True))
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".md", ".csv", ".tex")}
    assert drawn == {path.name: path.read_bytes() for path in (RESULTS / folder).iterdir()
                     if path.suffix in (".md", ".csv", ".tex") and path.name != "README.md"}
    assert drawn


@pytest.mark.parametrize("model", TABLES["hire"].models)
@pytest.mark.parametrize("name", TABLES["hire"].datasets)
def test_teachers_are_configured_as_the_committed_ones_were(name, model):
    """So that the command of the table finds its cells, whatever becomes of the baselines' configurations."""
    lines = [json.loads(line)["config"] for line in (RESULTS / "tables" / "results.jsonl").read_text().splitlines()]
    committed = [line["network"] for line in lines
                 if (line["dataset"], line["model"], line["label"]) == (name, model, "teacher")]
    dataset: Any = None  # networks are known without it
    assert identifying(Pair(name, dataset, model, TABLES["hire"]).networks["teacher"]) in committed
