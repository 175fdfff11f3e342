"""Figures as files: valid, repeatable, refusing records without what is drawn."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from hire_jax.figures import bar_figure, curve_figure, hire_figure, new_figure
from hire_jax.report import Record, results_table


def figure_records(seeds=5, epochs=30):
    rng = np.random.default_rng(1)
    records = []
    for model in ("RGCN", "HGT"):
        for i, method in enumerate(("teacher", "student", "HIRE")):
            accuracy = 0.55 + 0.01 * i + 0.01 * rng.standard_normal(seeds)
            rise = 1 - np.exp(-np.arange(1, epochs + 1) / 5)
            history = {
                "val_accuracy": accuracy[:, None] * rise,
                "train_loss": 1 - rise + rng.random((seeds, 1)),
            }
            history["val_accuracy"][0, epochs // 2 :] = np.nan
            records.append(Record(model, method, range(seeds), {"test_accuracy": accuracy}, history=history))
    return records


def png_pixels(path):
    """Pixels of an 8-bit RGBA PNG, its filters left on: enough to tell a drawing from an empty page."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, color = struct.unpack(">IIBB", data[16:26])
    assert (depth, color) == (8, 6)
    place, packed, kinds = 8, b"", []
    while place < len(data):
        (length,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        packed += body if kind == b"IDAT" else b""
        kinds.append(kind)
        place += 12 + length
    raw = zlib.decompress(packed)
    assert kinds[-1] == b"IEND" and len(raw) == height * (1 + 4 * width)
    return (width, height), raw, set(kinds)


@pytest.mark.parametrize(
    ("draw", "size"), [(bar_figure, (1080, 660)), (curve_figure, (1080, 840)), (hire_figure, (1080, 1350))]
)
def test_figures_are_png_files_of_the_right_size(draw, size, tmp_path):
    path = draw(figure_records(), tmp_path / "new" / "figure.png", title="imdb_gtn")
    assert path == tmp_path / "new" / "figure.png"
    found, raw, kinds = png_pixels(path)
    assert found == size
    assert sum(byte != 0 for byte in raw) > 20_000, "something is drawn"
    assert kinds <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}, "no version, no date"
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


def test_the_same_records_give_the_same_bytes_whatever_the_users_settings(tmp_path):
    import matplotlib

    first = hire_figure(figure_records(), tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 33, "axes.grid": True}):
        assert hire_figure(figure_records(), tmp_path / "b.png").read_bytes() == first
        assert matplotlib.rcParams["font.size"] == 20, "and leaves those alone"
    changed = figure_records()
    changed[0].metrics["test_accuracy"][0] += 0.01
    assert hire_figure(changed, tmp_path / "c.png").read_bytes() != first


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [0.5], [0.01, 0.99], [0.62, 0.92, 0.92]])
def test_bars_at_the_edges_draw_without_warnings(values, tmp_path):
    records = [Record("A", f"method {i}", range(len(values)), {"test_accuracy": values}) for i in range(10)]
    assert bar_figure(records, tmp_path / "a.png").stat().st_size > 5000


def test_curves_at_the_edges_draw_without_warnings(tmp_path):
    empty = {"val_accuracy": np.full((2, 3), np.nan), "train_loss": np.ones((2, 1))}
    records = [Record("A", "b", [0, 1], {}, history=empty), Record("A", "c", [0, 1], {})]
    assert curve_figure(records, tmp_path / "a.png").stat().st_size > 5000


@pytest.mark.parametrize("draw", [bar_figure, curve_figure, hire_figure])
def test_figures_refuse_records_without_their_values(draw, tmp_path):
    for records in ([], [Record("A", "b", [0], {"loss": [1.0]})]):
        with pytest.raises(
            ValueError, match="records: expected at least one, and what is drawn in them, got "
        ):
            draw(records, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_tables_work_and_figures_name_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "hire-jax\[experiments\]"'):
        bar_figure(figure_records(), tmp_path / "a.png")
    assert results_table(figure_records(), metrics=["test_accuracy"]).to_markdown()


def test_importing_the_package_does_not_import_matplotlib():
    code = "import sys, hire_jax; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_while_drawing_leaves_the_older_figure(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"older")
    with pytest.raises(KeyError), new_figure(path, (2, 2)) as figure:
        figure.add_subplot().plot([0, 1], [0, 1])
        raise KeyError
    assert path.read_bytes() == b"older"
    with new_figure(path, (2, 2)) as figure:
        figure.add_subplot().plot([0, 1], [0, 1])
    assert path.read_bytes().startswith(b"\x89PNG")
