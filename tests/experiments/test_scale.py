"""experiments.scale on a graph of a few thousand nodes: its parts in this process, and what holds them together."""

import dataclasses
import json
import mmap
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest
from rich.console import Console

import hire_jax as hj
from experiments import scale, scale_graph, scale_parts
from experiments.keys import key
from experiments.scale import Settings, resolved
from experiments.scale_graph import Recipe
from experiments.scale_memory import Watch, largest_resident_set
from experiments.scale_plan import NETWORKS, Part, Scale, config, plan
from hire_jax.models import ModelOutput
from hire_jax.sampling import HostGraph

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECIPE = Recipe(share=0.002, num_classes=4, noise=0.3, feature_noise=0.2, seed=0)
TINY = Settings(smoke=True, num_classes=4, noise=0.3, feature_noise=0.2, teacher_hidden=8, student_hidden=4, steps=3,
                batch_size=32, fanouts=(2, 2), validation_nodes=40, memory_batches=(32,), memory_steps=1)
QUIET = Console(quiet=True)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's account is Linux's")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder with one graph in it."""
    folder = tmp_path_factory.mktemp("graphs")
    scale_graph.make(RECIPE, folder, lambda: 7)
    return folder


class Quick(nn.Module):
    """Layers without messages, which compile in no time, with the outputs of a two-layer network."""

    target: str
    num_classes: int
    hidden: int

    @nn.compact
    def __call__(self, graph, *, train=False):
        dense = nn.Dense(self.hidden)
        hidden = [{name: dense(x) for name, x in graph.features.items()}]
        for types in graph.receptive_field(self.target, 2)[1:]:
            hidden.append({name: hidden[-1][name] for name in types})
        return ModelOutput(nn.Dense(self.num_classes)(hidden[-1][self.target]), tuple(hidden), ())


@pytest.fixture
def in_this_process(monkeypatch):
    """Parts are run here, with networks that compile quickly; gives their labels in the order they were run."""
    started = []

    def run(numbers, part, out, cache):
        started.append(part.label)
        job = json.loads(scale_parts.arguments(numbers, part, out, cache))
        scale_parts.run(Scale.from_json(job["scale"]), Part(**job["part"]), Path(job["out"]), Path(job["cache"]), QUIET)

    monkeypatch.setattr(scale, "apart", run)
    monkeypatch.setattr(scale_parts, "_model", lambda scale, graph, hidden: Quick(
        target=graph.target, num_classes=graph.num_classes, hidden=hidden))
    monkeypatch.setattr(scale_parts, "use_heap_for_large_arrays", lambda: None)  # for the life of the process
    return started


# -------------------------------------------------------------------------------------------------- graphs


def test_a_graph_is_mapped_as_it_was_made(cache):
    arrays = hj.data.mag_shaped(0.002, num_classes=4, noise=0.3, feature_noise=0.2)
    expected, graph = HostGraph.from_arrays(arrays.num_nodes, arrays.edges, arrays.features), \
        scale_graph.opened(RECIPE, cache)
    assert graph.host.counts == expected.counts and list(graph.host.relations) == list(expected.relations)
    for edge_type, relation in expected.relations.items():
        np.testing.assert_array_equal(graph.host.relations[edge_type].indptr, relation.indptr)
        np.testing.assert_array_equal(graph.host.relations[edge_type].senders, relation.senders)
    for name, x in expected.features.items():
        np.testing.assert_array_equal(graph.host.features[name], x)
        assert isinstance(graph.host.features[name].base, np.memmap)
    np.testing.assert_array_equal(graph.labels, arrays.labels)
    assert all(np.array_equal(mask, arrays.splits[part]) for part, mask in graph.splits.items())
    assert set(graph.splits) == {"train", "val", "test"}
    assert graph.nodes == sum(arrays.num_nodes.values()) and 2 * graph.edges == sum(
        found.shape[1] for found in arrays.edges.values())
    assert graph.facts["generator_peak_bytes"] == 7 and graph.facts["bytes_on_disk"] > 3879 * 128 * 4


def test_the_whole_graph_is_the_same(cache):
    arrays = hj.data.mag_shaped(0.002, num_classes=4, noise=0.3, feature_noise=0.2)
    expected = hj.HeteroGraph.from_arrays(arrays.num_nodes, arrays.edges, arrays.features)
    graph = scale_graph.whole(scale_graph.opened(RECIPE, cache))
    for edge_type, relation in expected.relations.items():
        np.testing.assert_array_equal(graph.relations[edge_type].senders, relation.senders)
        np.testing.assert_array_equal(graph.relations[edge_type].receivers, relation.receivers)


def test_a_graph_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"graph\.json"):
        scale_graph.opened(RECIPE, tmp_path)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scale_graph, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        scale_graph.make(RECIPE, tmp_path, lambda: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["short", "other", "gone"])
def test_a_damaged_file_is_named(tmp_path, change):
    scale_graph.make(RECIPE, tmp_path, lambda: None)
    path = scale_graph.folder_of(RECIPE, tmp_path) / "features_author.npy"
    if change == "short":
        path.write_bytes(path.read_bytes()[:-1000])
    elif change == "other":
        np.save(path, np.zeros((3, 2)))
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"features_author\.npy: expected an array \[2269, 128\].*delete .*mag_0\.002"):
        scale_graph.opened(RECIPE, tmp_path)


def test_another_recipe_has_another_folder():
    folders = {scale_graph.folder_of(dataclasses.replace(RECIPE, **change), Path("graphs"))
               for change in ({}, {"share": 0.01}, {"num_classes": 5}, {"noise": 0.5}, {"seed": 1})}
    assert len(folders) == 5


# ---------------------------------------------------------------------------------------------------- plan


def test_the_plan_has_every_part_once_and_after_what_it_needs():
    parts = plan(resolved(Settings(full=True)))
    assert len(set(parts)) == len(parts)
    assert [part.kind for part in parts] == ["graph"] * 4 + list(NETWORKS) + ["memory"] * 7
    points = [(part.share, part.batch_size) for part in parts if part.kind == "memory"]
    assert sorted(points) == [(0.125, 1024), (0.25, 1024), (0.5, 1024),
                              (1.0, 256), (1.0, 512), (1.0, 1024), (1.0, 2048)]
    assert {share for share, _ in points} == {part.share for part in parts if part.kind == "graph"}


def test_a_part_is_found_by_the_settings_it_reads():
    first = resolved(Settings())
    parts = {kind: Part(kind, first.share) for kind in ("graph", *NETWORKS)}
    parts["memory"] = Part("memory", first.share, 32)

    def changed(**change):
        other = dataclasses.replace(first, **change)
        return {kind for kind, part in parts.items() if config(other, part) != config(first, part)}

    assert changed(alpha=2.0) == changed(uniform=5) == {"HIRE"}
    assert changed(student_hidden=3) == {"student", "HIRE"} and changed(steps=9) == set(NETWORKS)
    assert changed(teacher_hidden=3) == {"teacher", "HIRE", "memory"} and changed(memory_steps=2) == {"memory"}
    assert changed(seed=3) == set(parts) and changed(memory_batches=(1,)) == set()


def test_presets_give_way_to_what_is_set():
    assert resolved(Settings(full=True)).share == 1.0 and resolved(Settings(smoke=True, share=0.1)).share == 0.1
    assert resolved(Settings(batch_size=100)).uniform == 100
    with pytest.raises(SystemExit, match="choose one"):
        scale.main(Settings(full=True, smoke=True), QUIET)


# ------------------------------------------------------------------------------------------------- running


def test_it_runs_once_and_is_then_found(tmp_path, in_this_process, capsys):
    settings = dataclasses.replace(TINY, out=tmp_path)
    cells = scale.main(settings, Console(width=200))
    printed = capsys.readouterr().out
    assert in_this_process == [part.label for part in plan(resolved(settings))] == list(cells) and len(cells) == 5
    networks = {kind: cells[f"{kind} at 0.002 of ogbn-mag"] for kind in NETWORKS}
    for cell in networks.values():
        assert cell.metrics["steps"] == [3] and 0 <= cell.metrics["test_accuracy"][0] <= 1
        assert cell.facts["edges_a_second"] > cell.facts["seeds_a_second"] > 0 <= cell.facts["waited_share"] < 1
    assert networks["teacher"].facts["parameters"] > networks["student"].facts["parameters"]
    curves = histories(tmp_path / "smoke")
    assert "train_type_pair_correlation" in curves[networks["HIRE"].key]
    assert "train_type_pair_correlation" not in curves[networks["student"].key]
    written = {path.name for path in (tmp_path / "smoke").iterdir()}
    assert written >= {"results.jsonl", "table.md", "scale.png", "teachers", "graphs"}
    assert not list((tmp_path / "smoke").glob("checkpoints/*")), "what a finished part no longer needs"
    assert (tmp_path / "smoke" / "scale.png").read_bytes().startswith(b"\x89PNG")
    graph = cells["graph at 0.002 of ogbn-mag"]
    assert f"{graph.facts['edges']:,}" in printed and "| HIRE |" in (tmp_path / "smoke" / "table.md").read_text()
    in_this_process.clear()
    again = scale.main(settings, QUIET)
    assert in_this_process == [] and again == cells
    more = dataclasses.replace(settings, memory_batches=(16, 32), memory_shares=(1.0, 0.9))
    missing = [part.label for part in plan(resolved(more)) if part.label not in cells]
    assert missing == ["graph at 0.0018 of ogbn-mag", "memory at 0.002 of ogbn-mag, batches of 16",
                       "memory at 0.0018 of ogbn-mag, batches of 32"]


def test_a_teacher_whose_rows_are_gone_can_be_trained_again(tmp_path, cache):
    numbers = resolved(TINY)
    with pytest.raises(SystemExit, match=r"teacher\.json: no teacher outputs there(.|\n)*remove the line of "
                                         + key(config(numbers, Part("teacher", 0.002)))):
        scale_parts.run(numbers, Part("HIRE", 0.002), tmp_path, cache, QUIET)


def histories(folder):
    """The curves of a folder, by key."""
    lines = map(json.loads, (folder / "curves.jsonl").read_text().splitlines())
    return {line["key"]: line["history"] for line in lines}


def test_a_part_that_fails_is_named(tmp_path, monkeypatch):
    part = Part("graph", 0.002)
    for code, error, says in ((3, SystemExit, "graph at 0.002 of ogbn-mag: its process ended with 3"),
                              (130, KeyboardInterrupt, None), (143, SystemExit, "^0$")):
        ended = subprocess.CompletedProcess([], code)
        monkeypatch.setattr(subprocess, "run", lambda *_, ended=ended, **__: ended)
        with pytest.raises(error, match=says):
            scale.apart(resolved(TINY), part, tmp_path, tmp_path)


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(0), 143)])
def test_a_part_that_is_stopped_is_not_finished(stop, status, tmp_path, monkeypatch, capsys):
    """By Ctrl-C, or by SIGTERM, which `fit` answers with an end of status 0."""
    def stopped(*_args):
        raise stop

    monkeypatch.setattr(scale_parts, "run", stopped)
    with pytest.raises(SystemExit) as of_part:
        scale_parts.main(scale_parts.arguments(resolved(TINY), Part("graph", 0.002), tmp_path, tmp_path))
    assert of_part.value.code == status
    monkeypatch.setattr(scale, "apart", stopped)
    with pytest.raises(SystemExit) as ended:
        scale.main(dataclasses.replace(TINY, out=tmp_path), Console(width=200))
    assert ended.value.code == status and "0 of 5 cells are finished" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------- memory


@linux
def test_the_watch_tells_arrays_from_mapped_files(tmp_path):
    path, size = tmp_path / "x.npy", 128 << 20
    np.save(path, np.ones(size // 8))
    mapped = np.load(path, mmap_mode="r")
    with Watch() as reading:
        mapped.sum()
    assert reading.found()["resident"] - reading.found()["anonymous"] >= size
    with Watch() as before:
        pass
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:  # pages that no array has left
        with Watch() as making:
            fresh.write(bytes(size))
    for name in ("resident", "anonymous"):
        assert making.found()[name] - before.found()[name] > size // 2
    assert largest_resident_set() > size


def test_a_system_that_does_not_say(monkeypatch):
    monkeypatch.setattr(sys, "platform", "other")
    with Watch() as watch:
        pass
    assert watch.found() == {"resident": None, "anonymous": None} and largest_resident_set() is None
    assert scale.gib(None) == "-" and scale.gib(3 << 29) == "1.50"


@pytest.mark.slow
def test_the_smoke_run_in_processes_of_its_own(tmp_path):
    """As a user runs it. Half a minute on two quiet cores, most of it compiling."""
    command = [sys.executable, "-m", "experiments.scale", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600,
                          cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 0, done.stderr
    for kind in NETWORKS:
        assert f"{kind} at 0.002 of ogbn-mag, train loss" in done.stdout
    assert "results.jsonl" in done.stdout and (tmp_path / "smoke" / "scale.png").exists()
