from pathlib import Path

import pytest
from PIL import Image

from semires.stages.cache_sam.sources import folder_images, train_images
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.refer import ReferDataset


def test_train_images__each_once(refshapes: ReferDataset) -> None:
    images = train_images(refshapes)
    assert [image.image_id for image in images] == list(range(1, 13))
    assert all(image.path == refshapes.image_path(image.image_id) for image in images)
    assert all(image.size == refshapes.image_size(image.image_id) for image in images)
    assert all(image.path.name.startswith("train_") for image in images)


def save_photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (10, 20, 30)).save(path)


def test_folder_images__sorted_with_sub_folders(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPEG", "sub/c.png", "sub/deeper/a.webp"):
        save_photograph(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a photograph")
    (tmp_path / "folder.jpg").mkdir()
    images = folder_images(tmp_path)
    assert [str(image.path.relative_to(tmp_path)) for image in images] == [
        "a.JPEG",
        "b.jpg",
        "sub/c.png",
        "sub/deeper/a.webp",
    ]
    assert [image.image_id for image in images] == [image_id_of(image.path.relative_to(tmp_path)) for image in images]
    assert len({image.image_id for image in images}) == 4


def test_folder_images__ids_stay_when_the_folder_grows_or_moves(tmp_path: Path) -> None:
    save_photograph(tmp_path / "one" / "sub" / "b.jpg")
    before = folder_images(tmp_path / "one")[0].image_id
    save_photograph(tmp_path / "one" / "a.jpg")
    (tmp_path / "one").rename(tmp_path / "two")
    assert folder_images(tmp_path / "two")[1].image_id == before


def test_folder_images__no_folder(tmp_path: Path) -> None:
    save_photograph(tmp_path / "photo.jpg")
    for path in (tmp_path / "nowhere", tmp_path / "photo.jpg"):
        with pytest.raises(InputError, match=f"--images: expected a folder of photographs, found no folder at {path}"):
            folder_images(path)


def test_folder_images__no_photograph(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected picture files such as \.jpg or \.png, found none in \S+$"):
        folder_images(tmp_path)
    (tmp_path / "notes.txt").write_text("not a photograph")
    with pytest.raises(InputError, match=r"found none in .*, only 1 file of no picture format \(1 \.txt\)$"):
        folder_images(tmp_path)


def test_folder_images__says_what_is_left_out(tmp_path: Path) -> None:
    save_photograph(tmp_path / "a.jpg")
    said: list[str] = []
    folder_images(tmp_path, on_left_out=said.append)
    (tmp_path / "a.heif2").touch()
    folder_images(tmp_path, on_left_out=said.append)
    assert said == ["1 file of no picture format (1 .heif2)"]


def test_folder_images__opens_no_file(tmp_path: Path) -> None:
    save_photograph(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("not a photograph")
    assert [image.path.name for image in folder_images(tmp_path)] == ["a.jpg", "b.jpg"]
