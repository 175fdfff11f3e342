"""Original files as streams; archives that are not to be trusted."""

import io
import stat
import zipfile

import pytest

from hire_jax.data import DatasetError
from hire_jax.data import originals as module
from hire_jax.data.originals import Originals


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["folder", "zip", "bytes"])
def files(request, tmp_path):
    content = {"top/node.dat": b"0\ta\n\n1\tb\r\n", "top/sub/link.dat": b"0 1"}
    if request.param == "bytes":
        return Originals.of_files(content, "memory")
    if request.param == "zip":
        return Originals.of(zipped(tmp_path / "a.zip", [("top/", ""), *content.items()]))
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return Originals.of(tmp_path)


def test_members_are_found_read_and_streamed(files):
    assert sorted(files.openers) == ["top/node.dat", "top/sub/link.dat"]
    assert files.find("node.dat") == "top/node.dat" and files.find("sub/link.dat") == "top/sub/link.dat"
    assert files.find("dat") is None
    assert files.read("link.dat") == b"0 1"
    assert list(files.lines("node.dat")) == [(1, "0\ta"), (3, "1\tb")]
    with pytest.raises(DatasetError, match=r"expected a file label\.dat, found top/node\.dat, top/sub/link\.dat"):
        files.read("label.dat")
    with pytest.raises(DatasetError, match="at most 2 bytes, found more"):
        files.read("link.dat", limit=2)


def test_one_file_by_itself(tmp_path):
    (tmp_path / "photo.npz").write_bytes(b"x")
    assert Originals.of(tmp_path / "photo.npz").read("photo.npz") == b"x"
    with pytest.raises(DatasetError, match="nothing"):
        Originals.of(tmp_path / "missing")


def test_a_name_in_two_folders_is_not_guessed():
    files = Originals.of_files({"a/x": b"1", "b/x": b"2"}, "memory")
    assert files.find("x") is None and files.find("a/x") == "a/x"
    assert Originals.of_files({"x": b"1", "b/x": b"2"}, "memory").read("x") == b"1"  # the exact name wins


def test_lines_name_what_is_wrong_and_where():
    files = Originals.of_files({"long": b"ab\n" + b"c" * 20, "latin": b"ab\nc\xe9\n"}, "memory")
    with pytest.raises(DatasetError, match="memory: long:2: expected a line of at most 10 bytes"):
        list(files.lines("long", limit=10))
    with pytest.raises(DatasetError, match="memory: latin:2: expected UTF-8 text, found byte 0xe9"):
        list(files.lines("latin"))


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("member, says", [
    ("../evil", "below the archive's own folder"), ("/etc/passwd", "below the archive's own folder"),
    ("a/../../b", "below the archive's own folder"), ("c:evil", "below the archive's own folder"),
    (link("a"), "found the link 'a'")])
def test_members_outside_and_links_are_refused(tmp_path, member, says):
    with pytest.raises(DatasetError, match=says):
        Originals.of(zipped(tmp_path / "a.zip", [(member, "target")]))


@pytest.mark.parametrize("name", ["", "a" * 201, "\x1b[31m", "a\nb"])
def test_names_that_cannot_be_shown_are_refused(tmp_path, name):
    info = zipfile.ZipInfo("a")
    info.filename = name
    with pytest.raises(DatasetError, match=rf"a\.zip: expected members with printable names .* of {len(name)}$"):
        Originals.of(zipped(tmp_path / "a.zip", [("b", "1"), (info, "2")]))


def test_packing_that_states_its_own_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", "content")
    with pytest.raises(DatasetError, match=r"a: expected a member that is deflated or not packed, .* 14 of zip"):
        Originals.of(tmp_path / "a.zip")


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", [("zeros", bytes(1 << 20)), ("b", b"b")])
    assert Originals.of(path).read("b") == b"b"  # what is small may be packed well
    bomb = zipped(tmp_path / "bomb.zip", [("zeros", bytes(17 << 20))])
    with pytest.raises(DatasetError, match=r"zeros: expected to unpack to at most 200 times"):
        Originals.of(bomb)
    with monkeypatch.context() as patch:
        patch.setattr(module, "MAX_BYTES", 1 << 20)
        with pytest.raises(DatasetError, match=r"at most 1048576 bytes unpacked, found 1048577 stated"):
            Originals.of(path)
    monkeypatch.setattr(module, "MAX_MEMBERS", 1)
    with pytest.raises(DatasetError, match="at most 1 members, found 2"):
        Originals.of(path)


def test_a_member_never_gives_more_than_it_states(tmp_path):
    """The stated size is what bombs lie about: a reader stops there, and the checksum then fails."""
    path = zipped(tmp_path / "a.zip", [("zeros", bytes(5000))])
    data = path.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged one"):
        Originals.of(path).read("zeros")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="'a' twice"):
        Originals.of(zipped(tmp_path / "a.zip", [("a", "1"), ("a", "2")]))


def test_encrypted_members_are_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a", "1")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="'a' encrypted"):
        Originals.of(path)


@pytest.mark.parametrize("cut", [3, 30, 100])
def test_a_damaged_archive(tmp_path, cut):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"some content that is long enough to be cut" * 9)
    (tmp_path / "a.zip").write_bytes(buffer.getvalue()[:cut])
    with pytest.raises(DatasetError, match="expected a zip archive"):
        Originals.of(tmp_path / "a.zip")
    middle = bytearray(buffer.getvalue())
    middle[45] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(bytes(middle))
    with pytest.raises(DatasetError, match=r"a: expected a whole file, found a damaged one"):
        Originals.of(tmp_path / "a.zip").read("a")
