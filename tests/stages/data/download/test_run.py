import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.download import transfer
from semires.stages.data.download.run import check_mirror, download, find_sources, is_here
from semires.stages.data.download.sources import DOWNLOADS, SOURCES
from semires.stages.data.errors import InputError

Make = Callable[..., Any]
FILES = {"mini/a.txt": b"a" * 100, "mini/b.txt": b"b"}


def test_download__an_archive_and_then_nothing(
    serve: Make, make_source: Make, make_zip: Make, told: Any, tmp_path: Path
) -> None:
    content = make_zip(FILES)
    served = serve({"mini.zip": content})
    source = make_source(content, served.url)
    assert not is_here(source, tmp_path)
    download(source, tmp_path, told)
    assert (tmp_path / "sets" / "mini" / "a.txt").read_bytes() == b"a" * 100
    assert told.lines[-1] == f"mini: {tmp_path}/sets/mini"
    assert {path.name for path in (tmp_path / DOWNLOADS).iterdir()} == {"mini.json"}  # the archive is removed
    assert is_here(source, tmp_path)
    download(source, tmp_path, told)
    assert told.lines[-1] == f"mini: here, 2 files in {tmp_path}/sets/mini as they were unpacked; not fetched"
    assert len(served.asked) == 1


def test_download__keeps_the_archive_when_asked(
    serve: Make, make_source: Make, make_zip: Make, told: Any, tmp_path: Path
) -> None:
    content = make_zip(FILES)
    download(make_source(content, serve({"mini.zip": content}).url), tmp_path, told, keep_archive=True)
    assert (tmp_path / DOWNLOADS / "mini.zip").read_bytes() == content


def test_download__files_that_got_lost_come_back(
    serve: Make, make_source: Make, make_zip: Make, told: Any, tmp_path: Path
) -> None:
    content = make_zip(FILES)
    source = make_source(content, serve({"mini.zip": content}).url)
    download(source, tmp_path, told)
    (tmp_path / "sets" / "mini" / "b.txt").unlink()
    assert not is_here(source, tmp_path)
    download(source, tmp_path, told)
    assert (tmp_path / "sets" / "mini" / "b.txt").read_bytes() == b"b"
    assert f"{tmp_path}/sets/mini: 1 of 2 files are missing or changed, such as b.txt" in told.lines


def test_download__an_archive_got_by_hand(make_source: Make, make_zip: Make, told: Any, tmp_path: Path) -> None:
    content = make_zip(FILES)
    source = make_source(content, "http://127.0.0.1:9")
    with pytest.raises(InputError, match=rf"put it at {tmp_path}/downloads/mini.zip and type the command again"):
        download(source, tmp_path, told, wait=0)
    (tmp_path / DOWNLOADS / "mini.zip").write_bytes(content)
    download(source, tmp_path, told)
    assert is_here(source, tmp_path)


def test_download__a_folder_that_somebody_unpacked(make_source: Make, told: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "mini"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    source = make_source(b"", "http://127.0.0.1:9")
    download(source, tmp_path, told)
    assert told.lines == [
        f"mini: here, 1 files in {folder} that this command did not put there; not fetched, not compared"
    ]
    (folder / "a.txt").unlink()
    with pytest.raises(InputError, match="found none that does"):
        download(source, tmp_path, told, wait=0)
    assert f"{folder}: there, but not whole: no a.txt" in told.lines


def test_download__an_archive_that_is_none(serve: Make, make_source: Make, told: Any, tmp_path: Path) -> None:
    content = b"<html>"
    with pytest.raises(InputError, match=r"mini.zip: expected a whole zip archive.*kept as mini.zip.differs") as caught:
        download(make_source(content, serve({"mini.zip": content}).url), tmp_path, told)
    assert "\n" not in str(caught.value)
    assert (tmp_path / DOWNLOADS / "mini.zip.differs").read_bytes() == content
    assert not (tmp_path / "sets").exists()


def test_download__an_archive_that_leads_out(
    serve: Make, make_source: Make, make_zip: Make, told: Any, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    content = make_zip(FILES | {"../../evil.txt": b"evil"})
    with pytest.raises(InputError, match=r"found '../../evil.txt', which leads elsewhere; it is kept"):
        download(make_source(content, serve({"mini.zip": content}).url), root, told)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "root/downloads/mini.zip.differs"
    ]


def test_download__no_room_is_said_before_anything_is_asked(
    serve: Make, make_source: Make, make_zip: Make, told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = make_zip(FILES)
    served = serve({"mini.zip": content})
    free = type("Usage", (), {"free": len(content) + 9})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: free)
    with pytest.raises(InputError, match="free disk space"):
        download(make_source(content, served.url), tmp_path, told)  # 10 bytes are needed for what is unpacked
    assert served.asked == []


def test_download__several_files(serve: Make, make_file: Make, make_source: Make, told: Any, tmp_path: Path) -> None:
    served = serve({"m/one.txt": b"1", "m/two.txt": b"22"})
    files = (make_file(b"1", served.url, path="m/one.txt"), make_file(b"22", served.url, path="m/two.txt"))
    source = dataclasses.replace(make_source(b""), files=files, unpacking=None, folder="weights", option="--m {}")
    download(source, tmp_path, told)
    assert told.lines[-1] == f"mini: {tmp_path}/weights/m; use it with --m {tmp_path}/weights/m"
    assert (tmp_path / "weights" / "m" / "two.txt").read_text() == "22"
    assert source.target(tmp_path) == tmp_path / "weights" / "m"
    assert is_here(source, tmp_path)
    (tmp_path / "weights" / "m" / "two.txt").write_text("x")
    assert not is_here(source, tmp_path)


def test_download__a_file_in_the_way(make_source: Make, told: Any, tmp_path: Path) -> None:
    (tmp_path / DOWNLOADS).write_text("")
    with pytest.raises(InputError, match=r"mini.zip: expected a file that can be written"):
        download(make_source(b""), tmp_path, told)


def test_find_sources__each_once() -> None:
    assert [source.name for source in find_sources(["bert", "refcoco", "bert"])] == ["bert", "refcoco"]
    with pytest.raises(InputError, match=r"expected one of refcoco, refcoco\+, .*, found 'coco'"):
        find_sources(["coco"])
    assert list(SOURCES) == [
        "refcoco", "refcoco+", "refcocog", "coco-train2014", "sam-vit-h", "sam-vit-l", "sam-vit-b", "swin-base", "bert",
    ]  # fmt: skip


def test_check_mirror() -> None:
    assert check_mirror(None) is None
    assert check_mirror("") is None
    assert check_mirror("https://host/x") == "https://host/x"
    for wrong in ("file:///etc", "host/x", "http://", "ftp://host"):
        with pytest.raises(InputError, match="--from: expected an address such as"):
            check_mirror(wrong)
