"""The README's Python examples run as they stand, and its two commands are the ones that are tested."""

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


def test_links_point_to_files():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
