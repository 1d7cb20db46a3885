import os
from pathlib import Path

import pytest

from semires.stages.cache_sam.listing import list_folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_folder(folder).paths]


def test_list_folder__every_format_that_pillow_opens(tmp_path: Path) -> None:
    touch(tmp_path, "a.JPG", "b.jfif", "c.gif", "d.jp2", "e.png", "f.tif", "sub/deep/g.webp", "h.ppm")
    assert names(tmp_path) == ["a.JPG", "b.jfif", "c.gif", "d.jp2", "e.png", "f.tif", "h.ppm", "sub/deep/g.webp"]
    assert list_folder(tmp_path).left_out() == ""


def test_list_folder__the_rest_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "1.txt", "2.txt", "sub/3.TXT", "b.zzz", "c.eps", "README")
    listing = list_folder(tmp_path)
    assert listing.left_out() == "6 files of no picture format (3 .txt, 1 without ending, 1 .eps, 1 .zzz)"
    assert [path.name for path in listing.paths] == ["a.png"]


def test_list_folder__hidden_and_system_entries(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".hidden/b.png", ".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.png/x.jpg")
    touch(tmp_path, "__MACOSX/._a.png", "#recycle/c.png", "$RECYCLE.BIN/d.png", "sub/.DS_Store", "Thumbs.db", ".notes")
    listing = list_folder(tmp_path)
    assert [path.name for path in listing.paths] == ["a.png"]
    assert listing.left_out() == "7 hidden or system entries"


def test_list_folder__a_hidden_folder_that_is_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/a.png")
    assert names(tmp_path / ".cache") == ["a.png"]


def test_list_folder__links(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    touch(folder, "a.png", "sub/b.png")
    touch(elsewhere, "c.png", "more/d.png")
    (folder / "0-linked").symlink_to(elsewhere)
    (folder / "linked-again").symlink_to(elsewhere)  # the same pictures: once
    (folder / "0-sub").symlink_to(folder / "sub")
    (folder / "file.png").symlink_to(elsewhere / "c.png")
    (elsewhere / "back").symlink_to(folder)  # a loop
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "itself.png").symlink_to("itself.png")
    assert names(folder) == ["0-linked/c.png", "0-linked/more/d.png", "a.png", "file.png", "sub/b.png"]
    assert list_folder(folder).left_out() == "2 broken links (gone.png, itself.png)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_list_folder__unreadable_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "secret/b.png")
    (tmp_path / "secret").chmod(0)
    try:
        assert list_folder(tmp_path).left_out() == "1 folder that cannot be read (secret)"
    finally:
        (tmp_path / "secret").chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_list_folder__names_of_any_bytes(tmp_path: Path) -> None:
    for name in (b"bl\xfcte.png", b"gone\xfc.png", b"a.\xfc", b"b.\n"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    os.replace(os.path.join(os.fsencode(tmp_path), b"gone\xfc.png"), tmp_path / "x")
    os.symlink(b"nowhere", os.path.join(os.fsencode(tmp_path), b"gone\xfc.png"))
    listing = list_folder(tmp_path)
    assert [os.fsencode(path.name) for path in listing.paths] == [b"bl\xfcte.png"]
    assert listing.left_out() == (
        "3 files of no picture format (1 without ending, 1 .\\n, 1 .\\udcfc), 1 broken link (gone\\udcfc.png)"
    )
