from pathlib import Path

import pytest

from semires.cache.errors import StoreError
from semires.cache.interchange.files import check_packed_bytes, list_files, name_below, parse_size

PATH = Path("7.json")


def test_list_files__folders_in_order_without_the_systems(tmp_path: Path) -> None:
    for name in ("10.png", "9.PNG", "b/1.png", "a/2.png", "a/.x.png", ".git/3.png", "@eaDir/4.png", "5.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "a" / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path, ".png")]
    assert found == ["9.PNG", "10.png", "a/2.png", "b/1.png"]
    assert list_files(tmp_path / "5.json", ".json") == [tmp_path / "5.json"]


def test_list_files__links_are_followed_loops_cut(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "here")
    assert list_files(tmp_path / "here", ".png") == [tmp_path / "here" / "linked" / "1.png"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nowhere", "expected a folder that can be read, found: No such file"),
        ("empty", "expected files ending in .json, found none"),
        ("x.png", "expected a file ending in .json, found another"),
    ],
)
def test_list_files__nothing_there(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "empty" / "folder.json").mkdir(parents=True)
    (tmp_path / "empty" / "._1.json").touch()
    (tmp_path / "x.png").touch()
    with pytest.raises(StoreError, match=found):
        list_files(tmp_path / name, ".json")


def test_name_below__files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "1.5").mkdir(parents=True)
    (tmp_path / "a" / "1.png").touch()
    assert name_below(tmp_path / "a" / "1.png", tmp_path) == "a/1"
    assert name_below(tmp_path / "a" / "1.5", tmp_path) == "a/1.5"
    assert name_below(tmp_path / "a" / "1.png", tmp_path / "a" / "1.png") == "1"


def test_check_packed_bytes__many_masks() -> None:
    check_packed_bytes(PATH, 500, 1500, 2250)
    check_packed_bytes(PATH, 89, 6048, 8064)
    with pytest.raises(
        StoreError, match="at most 4294967296 bytes packed, found 129 of 16384 x 16384 that take 4328521728"
    ):
        check_packed_bytes(PATH, 129, 16384, 16384)


@pytest.mark.parametrize("size", [(0, 4), (3, 40000), (3.0, 4), (True, 4), ("3", 4), (None, 4), (32768, 32768)])
def test_parse_size__refused(size: tuple[object, object]) -> None:
    with pytest.raises(StoreError, match=r"7\.json: image: expected a"):
        parse_size(PATH, "image", *size)
