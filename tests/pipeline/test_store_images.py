from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from semires.pipeline.paths import Paths
from semires.pipeline.store_images import StoreImages, parse_image_id
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.refer import ReferDataset


def test_of_split__train_images_files_and_refs(write_refer: Callable[..., Any]) -> None:
    fake = write_refer("refcoco", num_train=3)
    paths = Paths(data=fake.root)
    known = StoreImages.of_split("refcoco", paths)
    dataset = ReferDataset.load(fake.root, "refcoco")
    assert known.train_ids == set(fake.train_ids)
    assert set(known.paths) == set(dataset.image_ids)
    assert known.path(fake.train_ids[1]) == dataset.image_path(fake.train_ids[1])
    assert known.names[fake.train_ids[0]] == f"COCO_train2014_{fake.train_ids[0]:012d}.jpg"
    assert known.sizes == dict.fromkeys(dataset.image_ids, (24, 32))
    assert known.refs == {str(ref.ref_id): (ref.image_id, 24, 32) for ref in dataset.refs}
    with pytest.raises(InputError, match="expected an image of refcoco, found id 5"):
        known.path(5)


def test_of_split__not_here(tmp_path: Path, write_refer: Callable[..., Any]) -> None:
    paths = Paths(data=tmp_path / "data")
    with pytest.raises(InputError, match="no data for refcoco"):
        StoreImages.of_split("refcoco", paths)
    assert StoreImages.of_split_if_here("refcoco", paths) is None
    assert StoreImages.of_split_if_here("photos", paths) is None
    fake = write_refer("refcoco")
    found = StoreImages.of_split_if_here("refcoco", paths)
    assert found is not None
    assert found.train_ids == set(fake.train_ids)


def test_of_folder__as_cache_sam_numbers_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    known = StoreImages.of_folder(tmp_path)
    ids = {image_id_of(Path(name)) for name in ("a.png", "sub/b.png")}
    assert known.train_ids == set(known.paths) == ids
    assert known.path(image_id_of(Path("sub/b.png"))) == tmp_path / "sub" / "b.png"
    assert known.names == {image_id_of(name): name for name in ("a.png", "sub/b.png")}
    assert known.sizes == {}
    assert known.refs == {}


def test_parse_image_id__however_the_path_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a way around, absolute, or from where the user types; of own data also out of its file's folder."""
    for path in ("photos/sub/ok.png", "photos/12", "sets/12"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    photos = tmp_path / "photos"
    for text in ("sub/ok.png", "sub/../sub/ok.png", "../photos/sub/ok.png", str(photos / "sub" / "ok.png")):
        assert parse_image_id(text, photos) == image_id_of("sub/ok.png")
    assert parse_image_id("../photos/sub/ok.png", tmp_path / "sets") == image_id_of("../photos/sub/ok.png")
    monkeypatch.chdir(tmp_path)
    assert parse_image_id("photos/sub/ok.png", Path("photos")) == image_id_of("sub/ok.png")
    assert parse_image_id("photos/sub/ok.png", Path("sets")) == image_id_of("../photos/sub/ok.png")
    monkeypatch.chdir(tmp_path / "sets")
    assert parse_image_id("12", tmp_path) == 12  # a number, though there is such a file here


def test_parse_image_id__number_or_path(tmp_path: Path) -> None:
    (tmp_path / "12").touch()
    (tmp_path / "a.png").touch()
    assert parse_image_id("12", None) == 12
    assert parse_image_id("12", tmp_path) == image_id_of(Path("12"))
    assert parse_image_id("13", tmp_path) == 13
    assert parse_image_id("a.png", tmp_path) == image_id_of(Path("a.png"))
    with pytest.raises(InputError, match=r"expected an image id, found 'a\.png'; give its number, or its path"):
        parse_image_id("a.png", None)
    with pytest.raises(InputError, match=r"found 'b\.png'"):
        parse_image_id("b.png", tmp_path)


def test_parse_image_id__however_the_path_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "photos" / "sub" / "a.png").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    photos = Path("../photos")
    expected = image_id_of("sub/a.png")
    for text in ("sub/a.png", "./sub//a.png", "../photos/sub/a.png", str(tmp_path / "photos" / "sub" / "a.png")):
        assert parse_image_id(text, photos) == expected
        assert parse_image_id(text, None, {expected, image_id_of("a.png")}) == expected
    # The store knows names alone: the file need not be there any more.
    assert parse_image_id("gone/b.png", photos, {image_id_of("gone/b.png")}) == image_id_of("gone/b.png")
    assert parse_image_id("x/gone/b.png", None, {image_id_of("b.png")}) == image_id_of("b.png")
    with pytest.raises(InputError, match=r"found 'c\.png'"):
        parse_image_id("c.png", None, {expected})
