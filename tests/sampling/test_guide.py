"""docs/sampling.md: its loop by hand and its call of `parallel.fit` run as they stand."""

import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

GUIDE = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text()


def test_the_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where it writes a teacher
    examples, names = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL), {}
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/sampling.md", "exec"), names)
    printed = capsys.readouterr().out
    assert float(re.search(r"test accuracy (\S+)", printed)[1]) > 0.33 and "val_accuracy" in printed
