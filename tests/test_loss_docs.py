"""docs/losses.md and the docstrings it is made from."""

import pytest

from experiments import loss_docs
from hire_jax import losses

DOCSTRING = """The student does as the teacher. For logits z::

    mean_v  (z_v^s - z_v^t)²

Half as much::

    1/2 a

      b

Cost: O(N C) time
  and memory.
Use: always. And
  ever.
Pitfalls: none.

Args:
  student: [N, C].

References:
  Someone: A Paper, with a long
    title, 2020. arXiv:2001.00001
  Someone Else: A Book, 1991; no arXiv id, being a book.
"""


def test_the_file_is_current(capsys):
    """This is how CI checks it; `python -m experiments.loss_docs` writes it again."""
    loss_docs.main(loss_docs.Settings(check=True))
    assert capsys.readouterr().out == ""


def test_a_file_that_is_not_current_is_shown(tmp_path, capsys):
    out = tmp_path / "losses.md"
    for change in (None, ("O(N C) time", "O(1) time")):
        if change is not None:
            out.write_text(out.read_text().replace(*change))
        with pytest.raises(SystemExit) as stopped:
            loss_docs.main(loss_docs.Settings(check=True, out=out))
        assert stopped.value.code == 1
        shown = capsys.readouterr().out
        assert "+- Cost: O(N C) time and memory." in shown and "python -m experiments.loss_docs" in shown
        loss_docs.main(loss_docs.Settings(out=out))
    loss_docs.main(loss_docs.Settings(check=True, out=out))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_is_described(name):
    (doc,) = [doc for doc in loss_docs.collect() if doc.name == name]
    assert doc.cost.startswith(("O(", '`"')) and "O(" in doc.cost and doc.use and doc.pitfalls
    assert doc.papers or all("no arXiv id" in reference for reference in doc.references)
    assert (loss_docs.ROOT / (doc.module.replace(".", "/") + ".py")).exists()
    assert f"\n### {name}\n" in (loss_docs.ROOT / "docs" / "losses.md").read_text()


def test_without_a_paper_are_the_reliabilities_alone():
    assert {doc.name for doc in loss_docs.collect() if not doc.papers} == {
        "entropy_reliability", "correctness_reliability", "attention_reliability"}


def test_parts_of_a_docstring():
    doc = loss_docs.parse("do", DOCSTRING, "hire_jax.losses.do")
    assert doc == loss_docs.LossDoc(
        name="do", module="hire_jax.losses.do", purpose="The student does as the teacher.",
        cost="O(N C) time and memory.",
        formulas=(("For logits z", "mean_v  (z_v^s - z_v^t)²"), ("Half as much", "1/2 a\n\n  b")),
        use="always. And ever.", pitfalls="none.",
        references=("Someone: A Paper, with a long title, 2020. arXiv:2001.00001",
                    "Someone Else: A Book, 1991; no arXiv id, being a book."))
    assert doc.papers == ("2001.00001",)


@pytest.mark.parametrize("old, new, message", [
    ("Cost: ", "Price: ", "do: its docstring lacks the section 'Cost:'$"),
    ("Use: always. And\n  ever.\n", "", "do: its docstring lacks the section 'Use:'$"),
    ("Pitfalls: none.\n", "", "do: its docstring lacks the section 'Pitfalls:'$"),
    ("Use: always. And\n  ever.\nPitfalls: none.\n", "", "lacks the section 'Use:' and 'Pitfalls:'"),
    ("Pitfalls: none.\n\n", "Pitfalls: none.\n\nMore.\n\n", "do: .* right before Args"),
    ("Use: always. And\n  ever.\nPitfalls: none.", "Pitfalls: none.\nUse: always.", "do: .* in this order"),
    ("::", ":", "do: its docstring has no formula"),
    ("The student does as the teacher. For logits z::", "For logits z::", "do: its docstring starts with no sentence"),
    ("References:", "See:", "do: its docstring has no section 'References:'"),
    (" arXiv:2001.00001\n", "\n", "do: a reference has neither"),
    ("; no arXiv id, being a book.", ".", "do: a reference has neither"),
])
def test_a_missing_part_is_named(old, new, message):
    assert old in DOCSTRING
    with pytest.raises(ValueError, match=message):
        loss_docs.parse("do", DOCSTRING.replace(old, new))


def test_a_loss_outside_the_groups_is_named(monkeypatch):
    monkeypatch.setattr(losses, "__all__", [*losses.__all__, "brand_new"])
    with pytest.raises(ValueError, match=r"differ in: brand_new$"):
        loss_docs.collect()
