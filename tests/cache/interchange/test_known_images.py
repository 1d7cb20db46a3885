from pathlib import Path

import pytest

from semires.cache.errors import StoreError
from semires.cache.interchange.known_images import KnownImages, number_in

PATH = Path("masks/x")

PHOTOS = KnownImages(
    where="photos", file_names={100: "1.jpg", 101: "a/2.png", 102: "b/2.png", 103: "c/3.png", 104: "c/3.jpg"}
)
COCO = KnownImages(
    where="refcoco", file_names={9: "COCO_train2014_000000000009.jpg", 30: "COCO_train2014_000000000030.jpg"}
)


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("1", 100),
        ("1.jpg", 100),
        ("train/1", 100),
        ("a/2", 101),
        ("x/b/2.png", 102),
        ("3.jpg", 104),
        ("100", 100),
        ("d/2", None),
        ("4", None),
        ("c", None),
    ],
)
def test_of_name__paths_and_their_ends(name: str, image_id: int | None) -> None:
    assert PHOTOS.of_name(PATH, name) == image_id


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("2", "'a/2.png', 'b/2.png'"),
        ("c/3", "'c/3.png', 'c/3.jpg'"),
    ],
)
def test_of_name__several_are_meant(name: str, found: str) -> None:
    with pytest.raises(StoreError, match=f"masks/x: expected a name of one image of photos, .* means {found}; name it"):
        PHOTOS.of_name(PATH, name)


def test_of_name__by_name_one_image_by_number_another() -> None:
    known = KnownImages(where="x", file_names={7: "12.jpg", 12: "7.jpg"})
    with pytest.raises(StoreError, match=r"'12', which means '12\.jpg', '7\.jpg'"):
        known.of_name(PATH, "12")


def test_of_name__numbers_of_coco() -> None:
    for name in ("9", "000000000009", "COCO_train2014_000000000009", "COCO_val2014_000000000009.jpg", "val2017/9"):
        assert COCO.of_name(PATH, name) == 9
    assert COCO.of_name(PATH, "photo_1024x9") is None


def test_of_name__nothing_known() -> None:
    assert KnownImages().of_name(PATH, "a/sa_12") == 12
    for name in ("photo_1024x768", "sam_masks_2024", "1.5", "a", str(2**63), "12_mask", ""):
        with pytest.raises(StoreError, match=f"expected an image id as name, such as 9, .* found {name!r}; give the"):
            KnownImages().of_name(PATH, name)


def test_of_record__ids_and_names() -> None:
    assert KnownImages().of_record(PATH, "", 5, "COCO_train2014_000000000009.jpg") == 5
    for file_name in (None, "COCO_train2014_000000000009.jpg", "000000000009.jpg", "x/COCO_train2014_000000000009.jpg"):
        assert COCO.of_record(PATH, "", 9, file_name) == 9
    assert COCO.of_record(PATH, "", 1, "COCO_train2014_000000000030.jpg") == 30
    assert COCO.of_record(PATH, "", 1, "photo.jpg") is None
    assert COCO.of_record(PATH, "", 1, None) is None
    assert KnownImages(where="x", file_names={-4: "a.jpg"}).of_record(PATH, "", -4, None) == -4
    assert PHOTOS.of_record(PATH, "", 101, "2.png") == 101  # one of the two so called, and the id says which


@pytest.mark.parametrize("file_name", ["COCO_train2014_000000000030.jpg", "photo.jpg", "000000000031.jpg"])
def test_of_record__another_programs_id_is_by_chance_ours(file_name: str) -> None:
    expected = r"image 3: expected the file name of image 9 of refcoco, 'COCO_train2014_000000000009\.jpg', found "
    with pytest.raises(StoreError, match=f"{expected}'{file_name}'"):
        COCO.of_record(PATH, "image 3", 9, file_name)


def test_number_in__names() -> None:
    assert [number_in(name) for name in ("7", "sa_7.jpg", "007.JPEG", "a/7.png")] == [7] * 4
    assert [number_in(name) for name in ("x7", "7x", "7.8", "sa_7_8", "-7", "٧")] == [None] * 6
