"""docs/data.md says what the registry says."""

import re

import pytest

from experiments import data_docs
from hire_jax.data.registry import entries


def test_the_document_is_current():
    """This is how CI checks it; `python -m experiments.data_docs` writes it again."""
    data_docs.main(data_docs.Settings(check=True))


def test_every_dataset_has_a_row_and_a_section():
    text = data_docs.ROOT.joinpath("docs", "data.md").read_text()
    for name, known in entries().items():
        (row,) = re.findall(rf"^\| \[`{name}`\]\(#{name}\) \|.*$", text, re.MULTILINE)
        assert f"| {sum(count for count, _ in known.nodes.values()):,} |" in row and known.target in row
        (section,) = re.findall(rf"^### {name}\n(?:(?!^#).*\n)*", text, re.MULTILINE)
        assert known.licence in section and known.description in section
        assert all(f"{count:,} (" in section for count, _ in known.nodes.values())


def test_what_is_not_current_is_shown(tmp_path, capsys):
    out = tmp_path / "data.md"
    out.write_text(f"words before\n{data_docs.START}\nwhat stood here before\n{data_docs.END}\nwords after\n")
    with pytest.raises(SystemExit):
        data_docs.main(data_docs.Settings(check=True, out=out))
    assert "python -m experiments.data_docs" in capsys.readouterr().out
    data_docs.main(data_docs.Settings(out=out))
    data_docs.main(data_docs.Settings(check=True, out=out))
    text = out.read_text()
    assert text.startswith("words before\n") and text.endswith("words after\n") and "what stood" not in text
    out.write_text("no marks")
    with pytest.raises(ValueError, match="expected the marks"):
        data_docs.main(data_docs.Settings(out=out))
