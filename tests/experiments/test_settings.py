"""What the training experiments' command lines have in common."""

import pytest
import tyro
from rich.console import Console

from experiments import baselines, hire, tune
from experiments.settings import load_named, resumable

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("experiment, seeds, out", [(hire, 5, "hire"), (tune, 3, "tune"), (baselines, 10, "baselines")])
def test_help_explains_inherited_options_too(experiment, seeds, out, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(experiment.Settings, args=["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"--seeds INT Seeds 0 .. n-1, trained together as one program. (default: {seeds})" in shown
    assert f"finished cells found there are not run again. (default: runs/{out})" in shown
    assert "Folder with dataset files. (default: None)" in shown
    if experiment is baselines:  # its own words for an inherited option
        assert "The bundled IMDB, width 8, 2 seeds, 3 epochs" in shown and "Narrow models" not in shown
    else:
        assert "A bundled name, or NAME of a NAME.npz in --root or $HIRE_JAX_DATA. (default: imdb_gtn)" in shown


@pytest.mark.parametrize("finished, message", [(None, "Finished cells are in"),
                                               (lambda: "2 of 3", "2 of 3 cells are finished in")])
def test_ctrl_c_says_where_to_go_on(finished, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped, resumable(tmp_path, Console(width=80), finished):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capsys.readouterr().out == f"\nStopped. {message} {tmp_path}; the same command goes on from there.\n"


def test_an_error_is_none_of_its_business(tmp_path):
    with pytest.raises(ValueError, match="mine"), resumable(tmp_path, Console()):
        raise ValueError("mine")


def test_a_dataset_that_cannot_be_had_is_named_without_a_traceback(tmp_path):
    for experiment, chosen in ((baselines, {"datasets": ("imdb_gtm",)}), (hire, {"dataset": "imdb_gtm"}),
                               (tune, {"dataset": "imdb_gtm"})):
        with pytest.raises(SystemExit, match=r"^imdb_gtm: dataset 'imdb_gtm' was not found"):
            experiment.main(experiment.Settings(out=tmp_path, **chosen), Console(quiet=True))
    with pytest.raises(SystemExit, match=r"^imdb_gtn/hgb:1: .*imdb_gtn\.npz: split: expected"):
        load_named("imdb_gtn/hgb:1")


def test_a_split_is_taken_from_the_name_or_beside_it():
    assert load_named("synthetic/random:3").meta["split"] == load_named("synthetic", split="random:3").meta["split"]
    assert load_named("imdb_gtn").meta["split"] == load_named("imdb_gtn/default").meta["split"]
