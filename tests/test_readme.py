"""The README's Python examples run as they stand, and its two commands are the ones that are tested."""

import csv
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


OWN_GRAPHS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "interop.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("example", [*EXAMPLES, *OWN_GRAPHS])
def test_example_runs(example, capsys):
    if "import torch" in example:
        pytest.importorskip("torch_geometric", reason="this example is for those who have PyTorch Geometric")
    exec(compile(example, "example", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_there_are_examples():
    assert len(EXAMPLES) == 2 and len(OWN_GRAPHS) == 5


@pytest.mark.parametrize("command", ["python -m experiments.hire", "python -m pytest"])
def test_commands_are_complete(command):
    assert f"pip install -r requirements.txt && {command}" in TEXT


def test_continuous_integration_reads_the_command_from_here():
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def main_rows():
    """The rows of the README's HIRE table, from the committed results."""
    with open(ROOT / "experiments" / "results" / "tables" / "hire.csv", newline="") as file:
        cells = {(row["dataset"], row["model"], row["method"]): row for row in csv.DictReader(file)}

    def score(row):
        return f"{100 * float(row['test_macro_f1_mean']):.1f} ± {100 * float(row['test_macro_f1_sd']):.1f}"

    for dataset, model in dict.fromkeys(name[:2] for name in cells):
        teacher, student, node, hire = (cells[dataset, model, method] for method in
                                        ("teacher", "student", "node-level", "HIRE"))
        mean, low, high = (f"{100 * float(hire[f'difference_{name}']):+.1f}" for name in ("mean", "low", "high"))
        yield " | ".join(["", dataset, model, *map(score, (teacher, student, node, hire)), f"{mean} [{low}, {high}]",
                          hire["p (Holm)"], ""]).strip()


def test_the_main_rows_of_the_tables_are_the_committed_ones():
    rows = list(main_rows())
    found = [line for line in TEXT.splitlines() if re.match(r"\| (imdb|acm|dblp)_", line)]
    assert found == rows and len(rows) >= 8


def test_links_point_to_files():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
