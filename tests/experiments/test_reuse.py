"""The four examples of reusing a loss: short, about the losses alone, and their distilled student is truly taught."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import reuse
from experiments.reuse import common, data

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(reuse.__file__).parent
NAMES = ("nnx_classifier", "equinox_classifier", "image_classifier", "language_model")


def example(name):
    return importlib.import_module(f"experiments.reuse.{name}")


def imported(name):
    """Modules that the example's own import statements name."""
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_takes_nothing_but_losses_from_the_package(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 60
    assert {module for module in imported(name) if module.startswith("hire_jax")} == {"hire_jax.losses"}
    assert name in reuse.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_is_taught_and_gives_its_verdict(name, capsys):
    scores = example(name).main(steps=6, seeds=2, weight=30.0)
    assert list(scores) == ["teacher", "plain", "distilled"]
    for values in scores.values():
        assert values.shape == (2,) and np.isfinite(values).all() and (values >= 0).all()
    assert (scores["distilled"] != scores["plain"]).any()  # by the teacher's terms, the one thing that differs
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and printed[-1].startswith("The distilled student ")


def test_the_plain_student_is_the_distilled_one_without_the_teacher():
    language_model = example("language_model")
    untaught = language_model.main(steps=6, seeds=2, weight=0.0)
    np.testing.assert_array_equal(untaught["distilled"], untaught["plain"])
    taught = language_model.main(steps=6, seeds=2, weight=30.0)
    np.testing.assert_array_equal(taught["plain"], untaught["plain"])
    assert (taught["distilled"] != taught["plain"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_helps_at_the_defaults(name, capsys):
    example(name).main()
    assert "The distilled student beats its undistilled twin" in capsys.readouterr().out


@pytest.mark.parametrize("plain, distilled, lower_is_better, verdict", [
    ((50, 51, 50), (60, 61, 61), False, "beats its undistilled twin: difference +10.33, paired standard error 0.33"),
    ((50, 51, 50), (60, 61, 61), True, "is worse than its"),
    ((60, 61, 61), (50, 51, 50), True, "beats its"),
    ((50, 51, 50), (50, 55, 48), False, "does not clearly differ from its"),
    ((50, 51, 50), (50, 51, 50), False, "does not clearly differ from its"),
])
def test_verdict(plain, distilled, lower_is_better, verdict, capsys):
    scores = {"teacher": np.ones(3), "plain": np.array(plain), "distilled": np.array(distilled)}
    common.report(scores, "%", lower_is_better)
    assert verdict in capsys.readouterr().out


def test_one_seed_is_refused():
    with pytest.raises(ValueError, match="seeds: expected at least 2"):
        common.compare(lambda key: (key, key), 1, 1.0, "%")


def test_source_lines_are_padded_after_their_end():
    lines, vocabulary = data.source_lines(width=16)
    assert lines.shape[1] == 16 and lines.min() == 0 and lines.max() == vocabulary - 1
    ends = (lines == 1).argmax(axis=1)
    assert ((lines == 1).sum(axis=1) == 1).all()
    assert all((line[:end] > 1).all() and not line[end + 1 :].any() for line, end in zip(lines, ends, strict=True))


def test_a_missing_equinox_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)  # what an import of a missing package meets
    monkeypatch.delitem(sys.modules, "experiments.reuse.equinox_classifier", raising=False)
    with pytest.raises(ImportError, match="pip install equinox"):
        example("equinox_classifier")


@pytest.mark.parametrize("name", NAMES[:1])  # a process each; the others differ in their defaults alone
def test_help(name):
    done = subprocess.run([sys.executable, "-m", f"experiments.reuse.{name}", "--help"], cwd=FOLDER.parent.parent,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--steps" in done.stdout and "--weight" in done.stdout
