"""A few hundred inputs of the fuzz in the default suite; that the fuzz sees what is wrong; hypothesis's own inputs.

Thousands: `python -m tests.fuzz.run`.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from rich.console import Console

from hire_jax import HeteroGraph
from hire_jax.data import DatasetError
from hire_jax.data.formats.heco import parse_heco
from hire_jax.data.formats.hgb import parse_hgb
from hire_jax.data.formats.ogb import parse_ogb
from hire_jax.data.originals import Originals
from hire_jax.data.unpickle import load_nested
from hire_jax.graph import GraphError
from tests.fuzz import coverage_guided, planted, run, seeds
from tests.fuzz.cases import CASES
from tests.fuzz.outcome import Limits, generator, judge, made, normalised
from tests.fuzz.packing import packed
from tests.fuzz.valid import check_arrays, check_graph

SEED, EACH = 11, 15
QUICK = settings(max_examples=40)


@pytest.mark.parametrize("name", CASES)
def test_whole_input_is_accepted(name: str, tmp_path: Path) -> None:
    CASES[name].read(CASES[name].whole(), tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_malformed_input_is_refused_or_valid(name: str) -> None:
    outcomes = [judge(CASES[name], SEED, number, Limits(seconds=60)) for number in range(EACH)]
    assert not [outcome for outcome in outcomes if outcome.kind == "finding"]
    assert any(outcome.kind == "refused" for outcome in outcomes)


@pytest.mark.parametrize("name", CASES)
def test_the_same_seed_gives_the_same_input(name: str) -> None:
    if name in ("from_arrays", "from_columns"):
        pytest.skip("its values have no equality; they come from the same generator")
    first, second = ([made(CASES[name], 3, number) for number in range(4)] for _ in range(2))
    assert first == second
    assert generator(name, 0, 1).random() != generator(name, 1, 1).random() != generator(name, 1, 0).random()


@pytest.mark.parametrize("name", planted.FAULTS | planted.RIGHT)
def test_planted_faults_are_found(name: str) -> None:
    outcome = judge(planted.CASES[name], 0, 0, Limits(seconds=0.3 if name == "a hang" else 60))
    if name in planted.RIGHT:
        assert outcome.kind == planted.RIGHT[name][1]
    else:
        assert outcome.kind == "finding" and planted.FAULTS[name][1] in outcome.detail


def test_command_reports_an_input_that_ends_its_process(tmp_path: Path) -> None:
    """The others of its kind are judged all the same; the status says that there was a finding."""
    console, out = Console(file=io.StringIO(), width=120), tmp_path / "report.json"
    ends = [number for number in range(6) if made(planted.ENDING["ends its process"], 8, number) == 0]
    assert len(ends) == 1
    options = ["--cases", "tests.fuzz.planted:ENDING", "--inputs", "6", "--seed", "8", "--out", str(out)]
    assert run.main(options, console) == 1
    report = json.loads(out.read_text())
    assert report["findings"] == 1 and report["inputs"] == 6
    (case,) = report["cases"].values()
    assert case["refused"] == 5 and case["errors"] == {"a.txt: expected #": 5}
    assert [found["number"] for found in case["found"]] == ends
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ended its process with the status -6" in shown and f"--only {ends[0]} --seed 8" in shown
    assert "crashes and other findings = 1" in shown


def test_command_shows_one_input_again(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    assert run.main(["--case", "hgb", "--only", "3", "--keep", str(tmp_path)], console) == 0
    written = {file.name for file in tmp_path.iterdir()}
    assert {Path(name).name for name in made(CASES["hgb"], 0, 3)} == written
    assert "node.dat" in console.file.getvalue()  # type: ignore[attr-defined]
    assert run.main(["--cases", "tests.fuzz.planted:CASES", "--case", "no place", "--only", "0"], console) == 1


@pytest.mark.parametrize("arguments, says", [
    (["--case", "nothing"], "--case: expected some of 'planetoid'"),
    (["--only", "1"], "--only: expected one --case"),
    (["--inputs", "0"], "expected at least 1, found 0"),
])
def test_command_says_what_is_wrong(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2 and says in capsys.readouterr().err


def test_errors_count_once_whatever_their_numbers() -> None:
    assert normalised("a.txt:3: expected 'x y' in [1, 2], found -4.5e3") == normalised(
        'a.txt:77: expected "z" in [3], found 12')
    assert normalised("a.txt:3: expected 1") != normalised("b.txt:3: expected 1")
    assert normalised("a.txt: expected numpy's 'x', found 1") == "a.txt: expected numpy's …"


# ------------------------------------------------------------------------------------------- hypothesis's inputs

fields = st.one_of(st.integers(-2, 9).map(str), st.text(max_size=4),
                   st.sampled_from(["1.0", "1e999", "nan", "0,1", "99999999999", "+1"]))
lines = st.lists(st.lists(fields, max_size=5), max_size=6)


@QUICK
@given(member=st.sampled_from(["node.dat", "link.dat", "label.dat", "label.dat.test"]), rows=lines, after=st.booleans())
def test_any_text_in_hgb(member: str, rows: list[list[str]], after: bool, tmp_path_factory: Any) -> None:
    files = seeds.hgb(False)
    text = "".join("\t".join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    files[member] = files[member] + text if after else text
    refused_or_valid(lambda: parse_hgb(Originals.of_files(files, "here"), seeds.HGB_FORMS[False]), tmp_path_factory)


@QUICK
@given(member=st.sampled_from(sorted(seeds.ogb("one type"))), rows=lines)
def test_any_table_in_ogb(member: str, rows: list[list[str]], tmp_path_factory: Any) -> None:
    text = [",".join(row).encode("utf-8", "replace").decode() for row in rows]
    files = Originals.of_files(seeds.ogb("one type") | {member: packed(*text)}, "here")
    refused_or_valid(lambda: parse_ogb(files, seeds.OGB_FORMS["one type"]), tmp_path_factory)


@QUICK
@given(member=st.sampled_from(["pa.txt", "train_20.npy", "p_feat.npz"]), content=st.binary(max_size=60))
def test_any_bytes_in_heco(member: str, content: bytes, tmp_path_factory: Any) -> None:
    files = seeds.heco() | {member: content}
    refused_or_valid(lambda: parse_heco(Originals.of_files(files, "here"), seeds.HECO_FORM), tmp_path_factory)


def refused_or_valid(parse: Any, folders: Any) -> None:
    try:
        arrays = parse()
    except DatasetError as error:
        assert str(error).startswith("here: ")
        return
    check_arrays(arrays, folders.mktemp("accepted"))


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_any_bytes_as_a_pickle(data: bytes) -> None:
    try:
        load_nested(data, "here")
    except DatasetError as error:
        assert str(error).startswith("here: expected")


names = st.sampled_from(["a", "b", "c", 0, None, ("a", "b")])
numpy_arrays = arrays_of.arrays(
    st.one_of(arrays_of.integer_dtypes(), arrays_of.floating_dtypes(), arrays_of.boolean_dtypes(),
              arrays_of.unicode_string_dtypes(max_len=2), st.just(np.dtype(object))),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
small_edges = arrays_of.arrays(np.int64, st.tuples(st.just(2), st.integers(0, 4)), elements=st.integers(-1, 3))


@settings(max_examples=50)
@given(
    num_nodes=st.dictionaries(names, st.one_of(st.integers(-1, 4), st.floats(), st.just(2**31), st.none()), max_size=3),
    edges=st.dictionaries(st.one_of(st.tuples(names, st.just("r"), names), names), st.one_of(small_edges, numpy_arrays),
                          max_size=2),
    features=st.one_of(st.none(), st.dictionaries(names, numpy_arrays, max_size=2)),
)
def test_any_dicts_of_arrays_as_a_graph(num_nodes: Any, edges: Any, features: Any) -> None:
    try:
        graph = HeteroGraph.from_arrays(num_nodes, edges, features)
    except GraphError:
        return
    check_graph(graph)


# ------------------------------------------------------------------------------------------- the coverage-guided one


@pytest.mark.parametrize("name", ["hgb", "npz form", "ogb", "planetoid", "pickles"])
def test_every_part_of_whole_files_goes_back_unchanged(name: str, tmp_path: Path) -> None:
    files = CASES[name].whole()
    corpus = coverage_guided.corpus_of(files)
    assert len(corpus) >= len(files)
    for place in (0, len(corpus) - 1):
        again = coverage_guided.packed_again(files, corpus[place])
        assert coverage_guided.corpus_of(files | again)[place] == corpus[place]
    assert coverage_guided.read_one(CASES[name], files, corpus[-1]) == "accepted"
    assert coverage_guided.read_one(CASES[name], files, corpus[-1][:1] + b"\x00x") == "refused"


def test_coverage_guided_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    (tmp_path / "input").write_bytes(b"\x04nothing")
    assert coverage_guided.main(["--case", "hgb", "--input", str(tmp_path / "input")]) == 0
    assert capsys.readouterr().out == "refused\n"
    with pytest.raises(SystemExit):
        coverage_guided.main(["--case", "from_columns", "--input", str(tmp_path / "input")])
    assert "--case: expected one of 'planetoid', " in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert coverage_guided.main(["--case", "hgb"]) == 2
    assert "pip install atheris" in capsys.readouterr().err


def test_coverage_guided_finding_is_an_error() -> None:
    with pytest.raises(AssertionError, match="names no file"):
        coverage_guided.read_one(planted.CASES["no place"], {"a.txt": b"x"}, b"\x00x")
