import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.download.archive import unpack
from semires.stages.data.download.sources import Unpacking
from semires.stages.data.errors import InputError
from semires.stages.data.files.zip_files import ArchiveError

Make = Callable[..., Any]
UNPACKING = Unpacking(inside="mini", folder="mini", needed=("a.txt",), size=10)
FILES = {"mini/a.txt": b"a" * 5000, "mini/sub/b.txt": b"b", "__MACOSX/._a.txt": b"junk", ".DS_Store": b"junk"}


@pytest.fixture
def archive(tmp_path: Path, make_zip: Make) -> Path:
    path = tmp_path / "mini.zip"
    path.write_bytes(make_zip(FILES))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unpack__what_is_wanted(archive: Path, told: Any, tmp_path: Path) -> None:
    sizes = unpack(archive, tmp_path / "out" / "mini", UNPACKING, told)
    assert sizes == {"a.txt": 5000, "sub/b.txt": 1}
    assert contents(tmp_path / "out") == {"mini/a.txt": b"a" * 5000, "mini/sub/b.txt": b"b"}
    assert told.lines == [
        "left out: 2 files of the archive that are not in mini/, __MACOSX/._a.txt, .DS_Store",
    ]
    assert told.counts == [("unpacking mini.zip, files", 1, 2), ("unpacking mini.zip, files", 2, 2)]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out" / "mini").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize(
    "name", ["../evil.txt", "mini/../../evil.txt", "/evil.txt", "mini\\..\\evil.txt", "C:/evil.txt", "mini/c:x", ".."]
)
def test_unpack__a_name_that_leads_out(told: Any, tmp_path: Path, make_zip: Make, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip(FILES | {name: b"evil"}))
    before = set(tmp_path.iterdir())
    with pytest.raises(ArchiveError, match="which leads elsewhere") as caught:
        unpack(tmp_path / "a.zip", tmp_path / "root" / "mini", UNPACKING, told)
    assert repr(name) in str(caught.value)
    assert set(tmp_path.iterdir()) == before
    assert not list(tmp_path.parent.glob("evil*"))


def test_unpack__a_link(told: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("mini/a.txt", b"a")
        link = zipfile.ZipInfo("mini/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    with pytest.raises(ArchiveError, match="expected files, found a link, 'mini/link'"):
        unpack(tmp_path / "a.zip", tmp_path / "mini", UNPACKING, told)
    assert not (tmp_path / "mini").exists()


def damaged(content: bytes, kind: str, make_zip: Make) -> bytes:
    if kind == "flipped byte":
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            start = opened.getinfo("mini/a.txt").header_offset
        at = start + 30 + len("mini/a.txt") + 3
        return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
    return {
        "cut": content[: len(content) // 2],
        "no zip": b"<html>Not found</html>",
        "empty": b"",
        "twice": content,
        "without what is needed": make_zip({"mini/other.txt": b""}),
        "not in its folder": make_zip({"a.txt": b""}),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("flipped byte", "damaged or other file"),
        ("cut", "damaged or other file"),
        ("no zip", "damaged or other file"),
        ("empty", "damaged or other file"),
        ("without what is needed", "expected a folder mini/ with a.txt in it, found no a.txt"),
        ("not in its folder", "expected a folder mini/ with a.txt in it, found no a.txt"),
    ],
)
def test_unpack__nothing_of_a_damaged_archive(
    archive: Path, told: Any, tmp_path: Path, make_zip: Make, kind: str, text: str
) -> None:
    archive.write_bytes(damaged(archive.read_bytes(), kind, make_zip))
    with pytest.raises(ArchiveError, match=text):
        unpack(archive, tmp_path / "out" / "mini", UNPACKING, told)
    assert not list((tmp_path / "out").iterdir() if (tmp_path / "out").exists() else [])


def test_unpack__a_damaged_stream_is_not_taken_for_a_full_disk(told: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as opened:
        opened.writestr("mini/a.txt", b"a" * 5000)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[40:60] = bytes(20)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged or other file \(Invalid data stream\)"):
        unpack(tmp_path / "a.zip", tmp_path / "mini", UNPACKING, told)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_unpack__too_few_files(archive: Path, told: Any, tmp_path: Path) -> None:
    many = Unpacking(inside="mini", folder="mini", num_files=3, size=10)
    with pytest.raises(ArchiveError, match="expected a folder mini/ with 3 files in it, found 2"):
        unpack(archive, tmp_path / "out", many, told)


def test_unpack__a_name_twice(told: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("mini/a.txt", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            opened.writestr("mini/a.txt", b"2")
    with pytest.raises(ArchiveError, match=r"found 'mini/a.txt' twice"):
        unpack(tmp_path / "a.zip", tmp_path / "mini", UNPACKING, told)


def test_unpack__into_a_folder_that_is_there(archive: Path, told: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"another")
    (folder / "mine.txt").write_bytes(b"mine")
    unpack(archive, folder, UNPACKING, told)
    assert contents(folder) == {
        "a.txt": b"a" * 5000,
        "a.txt.differs": b"another",
        "mine.txt": b"mine",
        "sub/b.txt": b"b",
    }
    assert told.lines[-2:] == [
        f"{folder} was there with 0 of 2 files, which stay as they were",
        "1 files there were others, and are kept as a.txt.differs",
    ]
    unpack(archive, folder, UNPACKING, told)
    assert told.lines[-1] == f"{folder} was there with 2 of 2 files, which stay as they were"


def test_unpack__into_a_link_to_another_disk(archive: Path, told: Any, tmp_path: Path, other_disk: Path) -> None:
    (tmp_path / "mini").symlink_to(other_disk)
    (other_disk / "a.txt").write_bytes(b"another")
    unpack(archive, tmp_path / "mini", UNPACKING, told)
    assert contents(other_disk) == {"a.txt": b"a" * 5000, "a.txt.differs": b"another", "sub/b.txt": b"b"}


def test_unpack__what_a_killed_process_left_is_removed(archive: Path, told: Any, tmp_path: Path) -> None:
    left = tmp_path / ".mini.unpacking"
    left.mkdir()
    (left / "half.txt").write_text("half")
    unpack(archive, tmp_path / "mini", UNPACKING, told)
    assert sorted(contents(tmp_path / "mini")) == ["a.txt", "sub/b.txt"]
    assert not left.exists()


def test_unpack__no_room_or_no_folder(
    archive: Path, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder that can be written, found Not a directory"):
        unpack(archive, tmp_path / "file" / "mini", UNPACKING, told)
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.stat_result and type("Usage", (), {"free": 5000}))
    with pytest.raises(InputError, match="free disk space"):
        unpack(archive, tmp_path / "mini", UNPACKING, told)
    assert {path.name for path in tmp_path.iterdir()} == {"mini.zip", "file"}
