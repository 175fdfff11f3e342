"""The profile of an epoch: moments are divided among what runs in them, and names tell what an operation is for."""

import json

import pytest
from rich.console import Console

from experiments import bench_profile
from experiments.bench_profile import NOTHING, Operation, Settings, intervals_of, operations_of, purpose, shares


def called(name, begin, microseconds):
    return {"name": name, "ts": begin, "dur": microseconds, "args": {"hlo_op": name}}


def test_a_moment_is_divided_among_what_runs_in_it():
    taken = shares([("a", 0.0, 4.0), ("b", 2.0, 6.0), ("b", 3.0, 4.0), ("c", 8.0, 9.0)], 10.0)
    assert taken == pytest.approx({"a": 2 + 0.5 + 1 / 3, "b": 0.5 + 2 / 3 + 2, "c": 1.0, NOTHING: 3.0})


@pytest.mark.parametrize(("intervals", "expected"), [
    ([], {NOTHING: 7.0}),
    ([("a", 1.0, 1.0)], {"a": 0.0, NOTHING: 7.0}),
    ([("a", 0.0, 3.0), ("a", 0.0, 3.0), ("b", 1.0, 2.0)], {"a": 2 + 2 / 3, "b": 1 / 3, NOTHING: 4.0}),
])
def test_awkward_intervals(intervals, expected):
    taken = shares(intervals, 7.0)
    assert {"a": 0.0, **taken} == pytest.approx({"a": 0.0, **expected})


def test_an_operation_ends_where_the_trace_says_so():
    events = [called("sparse.1", 0, 5), called("dot.2", 7, 3), called("sparse.1", 100, 5),
              {"name": "end: sparse.1", "ts": 49, "dur": 1}, {"name": "end: sparse.1", "ts": 140, "dur": 0},
              {"name": "python", "ts": 0, "dur": 500}]
    expected = [("sparse.1", 0, 50e-6), ("sparse.1", 100e-6, 140e-6), ("dot.2", 7e-6, 10e-6)]
    for (name, begin, end), (name_of, begins, ends) in zip(intervals_of(events), expected, strict=True):
        assert (name, begin, end) == (name_of, pytest.approx(begins), pytest.approx(ends))
    # Where not every end is there, none can be matched: an operation then lasts as long as its call.
    assert intervals_of(events[:4])[0][2] == pytest.approx(5e-6)


def test_operations_are_read_from_the_text_of_a_program():
    text = """ENTRY %main {
  %dot.7 = f32[64,4]{1,0} dot(%a, %b), lhs_contracting_dims={0}, rhs_contracting_dims={0}, metadata={op_name="x/dot"}
  ROOT %while.9 = (s32[], /*index=5*/f32[2]{0}) while(%tuple.1), condition=%c, body=%d
}"""
    assert operations_of(text) == {"dot.7": Operation("f32[64,4]", "dot", "x/dot", True),
                                   "while.9": Operation("(s32[], f32[2])", "while", "", False)}


@pytest.mark.parametrize(("name", "code", "origin", "over_rows", "expected"), [
    ("ynn_fusion.2", "fusion", "jit(f)/jvp(RGCN)/RGCN.convolve/RGCNLayer_0/transpose", False,
     ("matrix products", "forward")),
    ("add_dot_fusion", "fusion", "jit(f)/jvp(RGCN)/RGCN.convolve/RGCNLayer_0/dot_general", False,
     ("matrix products", "forward")),
    ("ynn_fusion.3", "fusion", "jit(f)/RGCN/classifier/dot_general", False, ("matrix products", "validation")),
    ("dot.1", "dot", "jit(f)/transpose(jvp(RGCN))/RGCN.convolve/RGCNLayer_0/transpose", True,
     ("weights' gradients", "backward")),
    ("bcsr_dot_general.3", "custom-call", "jit(f)/RGCN/RGCN.convolve/RGCNLayer_1/cond/branch_0_fun/bcsr_dot_general",
     False, ("sparse products", "validation")),
    ("add_fusion", "fusion", "jit(f)/RGCN/RGCN._activate/NormAct_1/norm_paper/dot_general", False,
     ("norm and GELU", "validation")),
    ("select_fusion", "fusion", "jit(f)/jvp(RGCN)/Dropout_0/Dropout_0._drop/select_n", False, ("dropout", "forward")),
    ("add.1", "fusion", "jit(f)/transpose(jvp(RGCN))/RGCN.convolve/RGCNLayer_0/add", False,
     ("rest of the model", "backward")),
    ("log", "fusion", "jit(f)/jvp()/reduce_sum", False, ("loss, AdamW, scores", "other")),
    ("dot.5", "dot", "", True, ("weights' gradients", "backward")),
    ("ynn_fusion.5", "fusion", "", False, ("matrix products", "other")),
    ("copy.1", "copy", "", False, ("without a name", "other")),
])  # fmt: skip
def test_what_an_operation_is_for(name, code, origin, over_rows, expected):
    assert purpose(name, Operation("f32[2]", code, origin, over_rows), "RGCN") == expected


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("model", ["RGCN", "HGT"])
def test_a_profile_of_the_bundled_graph(model, tmp_path):
    console = Console(record=True, width=80)
    facts = bench_profile.main(Settings(hidden=32, epochs=2, model=model, layers=1, out=tmp_path), console)
    assert json.loads((tmp_path / f"profile_imdb_gtn_{model.lower()}.json").read_text()) == facts
    table, total = facts["by_purpose"], facts["milliseconds_profiled"]
    assert sum(sum(row.values()) for row in table.values()) == pytest.approx(total, rel=0.05)
    assert table[NOTHING]["other"] < total / 2
    assert sum(table["matrix products"].values()) > 0 and table["weights' gradients"]["backward"] > 0
    for kind in ("sparse products", "norm and GELU"):
        assert min(table[kind][which] for which in ("forward", "backward", "validation")) > 0, kind
    assert table["dropout"]["forward"] > 0 and table["dropout"]["validation"] == 0
    assert not bench_profile.CONTAINERS & {known["code"] for known in facts["operations"].values()}
    text = console.export_text()
    assert "weights' gradients" in text and "longest operations" in text


@pytest.mark.usefixtures("users_compilation")
def test_a_profile_of_the_program_users_get(tmp_path):
    settings = Settings(epochs=2, layers=1, longest=3, out=tmp_path)
    console = Console(record=True, width=80)
    table = bench_profile.main(settings, console)["by_purpose"]
    for kind in ("matrix products", "sparse products", "norm and GELU"):
        assert min(table[kind][which] for which in ("forward", "backward", "validation")) > 0, kind
    listed = console.export_text().split("longest operations")[1].splitlines()
    assert len([line for line in listed if "f32[" in line]) == 3


@pytest.mark.usefixtures("quick_compilation")
def test_a_profile_of_a_synthetic_graph(tmp_path):
    facts = bench_profile.main(Settings(smoke=True, synthetic_edges=2_000, layers=1, out=tmp_path), Console(quiet=True))
    assert facts["by_purpose"]["sparse products"]["backward"] > 0
    assert (tmp_path / "smoke" / "profile_synthetic_2000_rgcn.json").exists()


def test_a_profile_without_the_programs_operations_is_refused():
    with pytest.raises(RuntimeError, match="saw no operation of the program"):
        bench_profile.profile(lambda: 1.0, {})


@pytest.mark.parametrize(("option", "value", "message"), [
    ("dataset", "imdb_gtm", "imdb_gtm: dataset 'imdb_gtm' was not found"),
    ("epochs", 0, "--epochs: expected 1 or more, got 0"),
    ("longest", -1, "--longest: expected 0 or more, got -1"),
    ("synthetic_edges", 5, "--synthetic-edges: expected 1000 or more, got 5"),
])
def test_what_cannot_be_used_is_named(option, value, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        bench_profile.main(Settings(**{option: value, "out": tmp_path}), Console(quiet=True))
    assert not list(tmp_path.iterdir())
