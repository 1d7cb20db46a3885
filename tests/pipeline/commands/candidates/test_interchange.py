"""`semires cache export` and `semires cache import` from the outside; the formats are tested where they lie."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.cache.reader import CandidateStore
from semires.stages.data.images import image_id_of

Semires = Callable[..., Any]
Refused = Callable[..., str]
WriteStore = Callable[..., None]
WriteRefer = Callable[..., Any]

FULL = {"size": [24, 32], "counts": [0, 768]}


def test_import__codec_and_settings(
    semires: Semires, assert_refused: Refused, tmp_path: Path, write_store: WriteStore
) -> None:
    write_store(tmp_path / "x.zarr", "photos", [3])
    assert semires("cache", "export", "x.zarr", "json").code == 0
    arguments = ("cache", "import", "json", "--split", "photos", "--store", "y z.zarr")
    assert_refused(semires(*arguments, "--codec", "gzip"), "codec: expected zstd-LEVEL")
    assert not (tmp_path / "y z.zarr").exists()
    finished = semires(*arguments, "--codec", "zstd-3")
    # A name that is no data set's has no expressions: `semires train` would refuse it.
    assert finished.out.splitlines()[-1].endswith("next: semires cache info 'y z.zarr'")
    (metadata,) = (tmp_path / "y z.zarr").glob("parts/*/bits/zarr.json")
    assert '"zstd"' in metadata.read_text()
    # What was exported says how it was made, so that cache-sam can go on with it.
    assert CandidateStore(tmp_path / "y z.zarr").manifest == CandidateStore(tmp_path / "x.zarr").manifest


def test_export_import__there_and_back(
    semires: Semires, tmp_path: Path, write_store: WriteStore, write_refer: WriteRefer
) -> None:
    fake = write_refer("refcoco", num_train=2)
    write_store(tmp_path / "x.zarr", "refcoco", fake.train_ids)
    finished = semires("cache", "export", "x.zarr", "json", "--split", "refcoco")
    assert finished.code == 0, finished.err
    assert finished.out.splitlines()[-1] == "2 files written to json"
    names = [f"COCO_train2014_{image_id:012d}" for image_id in fake.train_ids]
    assert sorted(path.stem for path in (tmp_path / "json").iterdir()) == names
    assert json.loads((tmp_path / "json" / f"{names[0]}.json").read_text())["image"]["file_name"] == f"{names[0]}.jpg"
    assert "0 files written" in semires("cache", "export", "x.zarr", "json", "--split", "refcoco").out

    finished = semires("cache", "import", "json", "--split", "refcoco")
    assert finished.code == 0, finished.err
    last = "data/cache/refcoco.zarr: 2 images added with 6 candidate masks, 0 were there; next: semires train --split "
    assert finished.out.splitlines()[-1] == f"{last}refcoco"
    assert "0 images added" in semires("cache", "import", "json", "--split", "refcoco").out
    before, after = CandidateStore(tmp_path / "x.zarr"), CandidateStore(fake.root / "cache" / "refcoco.zarr")
    assert after.manifest.num_images == 2
    for image_id in fake.train_ids:
        np.testing.assert_array_equal(before[image_id].bits, after[image_id].bits)


def test_import__the_public_codes_folder(semires: Semires, tmp_path: Path, write_refer: WriteRefer) -> None:
    fake = write_refer("refcoco", num_train=2)
    (tmp_path / "sam_rle_mask").mkdir()
    # Refs 0 and 1 are of the first image, 2 of the second; columns of 24 pixels, counted from 1.
    for ref_id, runs in {0: [1, 24], 1: [25, 48], 2: [1, 2]}.items():
        text = json.dumps([{"counts": runs, "size": [24, 32]}])
        (tmp_path / "sam_rle_mask" / f"{ref_id}.json").write_text(text)
    arguments = ("cache", "import", "sam_rle_mask", "--format", "semires", "--split", "refcoco", "--store", "y.zarr")
    finished = semires(*arguments)
    assert finished.code == 0, finished.err
    assert "y.zarr: 2 images added with 3 candidate masks" in finished.out
    store = CandidateStore(tmp_path / "y.zarr")
    assert store.image_ids.tolist() == fake.train_ids
    assert store[fake.train_ids[0]].boxes_xyxy.tolist() == [[0, 0, 1, 24], [1, 0, 3, 24]]
    assert semires("cache", "show", "y.zarr", fake.train_ids[0]).code == 0  # scores are not known


def test_import__refusals(semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    assert_refused(semires("cache", "import", "nowhere", "--split", "photos"), "nowhere")
    assert_refused(semires("cache", "import", ".", "--split", "refcoco", "--format", "semires"), "no data for refcoco")
    assert_refused(semires("cache", "import", "."), "expected either --split NAME or --images FOLDER, found neither")
    assert_refused(semires("cache", "import", ".", "--split", "x", "--images", "."), "found both")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs of one name in two folders, and one beside."""
    folder = tmp_path / "photos"
    for name in ("a/1.png", "b/1.png", "ok.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), "red").save(path)
    return folder


def test_export__two_photographs_of_one_name(
    semires: Semires, tmp_path: Path, photos: Path, write_store: WriteStore
) -> None:
    names = {image_id_of(name): name for name in ("a/1.png", "b/1.png", "ok.png")}
    write_store(tmp_path / "x.zarr", "photos", list(names))
    finished = semires("cache", "export", "x.zarr", "json", "--images", "photos")
    assert finished.code == 0, finished.err
    images = [json.loads(path.read_text())["image"] for path in (tmp_path / "json").iterdir()]
    assert {image["image_id"]: image["file_name"] for image in images} == names
    finished = semires("cache", "import", "json", "--images", "photos")
    assert finished.code == 0, finished.err
    assert "data/cache/photos.zarr: 3 images added with 9 candidate masks" in finished.out
    assert sorted(names) == CandidateStore(tmp_path / "data" / "cache" / "photos.zarr").image_ids.tolist()


def test_import__masks_of_photographs(semires: Semires, assert_refused: Refused, tmp_path: Path, photos: Path) -> None:
    """By their names below the folder; another program's ids are not theirs."""
    images = [{"id": 1, "height": 24, "width": 32, "file_name": "b/1.png"}]
    images.append({"id": 2, "height": 24, "width": 32, "file_name": "c/1.png"})
    annotations = [{"id": 1, "image_id": 1, "segmentation": FULL}, {"id": 2, "image_id": 2, "segmentation": FULL}]
    (tmp_path / "cvat.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    finished = semires("cache", "import", "cvat.json", "--images", "photos", "--store", "x.zarr")
    assert finished.code == 0, finished.err
    left_out, last = finished.out.splitlines()[-2:]
    assert left_out == "left out: cvat.json: image 2 'c/1.png' is none of photos"
    assert last == "x.zarr: 1 image added with 1 candidate mask, 0 were there; next: semires cache info x.zarr"
    assert semires("cache", "info", "x.zarr").code == 0
    store = CandidateStore(tmp_path / "x.zarr")
    assert store.image_ids.tolist() == [image_id_of("b/1.png")]
    assert (store.manifest.split, store.manifest.num_images) == ("photos", 3)
    images[0]["file_name"] = "1.png"
    (tmp_path / "cvat.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    refused = semires("cache", "import", "cvat.json", "--images", "photos", "--store", "y.zarr")
    assert_refused(
        refused, "cvat.json: expected a name of one image of photos, found '1.png', which means 'a/1.png', 'b/"
    )
    assert not (tmp_path / "y.zarr").exists()


def test_import__another_folder_of_that_name(
    semires: Semires, assert_refused: Refused, tmp_path: Path, photos: Path
) -> None:
    """Ids are made of names alone: whose images they are is recorded, and what their files were."""
    images = [{"id": 1, "height": 24, "width": 32, "file_name": "ok.png"}]
    annotations = [{"id": 1, "image_id": 1, "segmentation": FULL}]
    (tmp_path / "cvat.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    assert semires("cache", "import", "cvat.json", "--images", "photos").code == 0
    store = CandidateStore(tmp_path / "data" / "cache" / "photos.zarr")
    record = store.file(image_id_of("ok.png"))
    assert record is not None
    assert record.sha256 == hashlib.sha256((photos / "ok.png").read_bytes()).hexdigest()

    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    Image.new("RGB", (32, 24), "blue").save(other / "ok.png")
    refused = semires("cache", "import", "cvat.json", "--images", "other/photos")
    assert_refused(refused, "expected a store of these images, found one of another folder of photographs")
    # The same photographs elsewhere are the same.
    moved = tmp_path / "moved" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    again = semires("cache", "import", "cvat.json", "--images", moved)
    assert "0 images added with 0 candidate masks, 1 were there" in again.out, again.err

    moved.rename(photos)
    Image.new("RGB", (32, 24), "green").save(photos / "ok.png")
    finished = semires("cache", "import", "cvat.json", "--images", "photos")
    said = "1 images have changed since they were cached (ok.png): to import them anew, `semires cache drop` them first"
    assert said in finished.out


def test_import__many_left_out(semires: Semires, tmp_path: Path, photos: Path) -> None:
    results = [{"image_id": number, "score": 1, "segmentation": FULL} for number in [image_id_of("ok.png"), *range(30)]]
    (tmp_path / "results.json").write_text(json.dumps(results))
    finished = semires("cache", "import", "results.json", "--images", "photos")
    assert finished.out.count("left out: results.json: image ") == 20
    assert "left out: 10 more" in finished.out
    assert "1 image added with 1 candidate mask" in finished.out


def test_import__advice_is_what_can_be_typed(semires: Semires, tmp_path: Path, write_refer: WriteRefer) -> None:
    fake = write_refer("refcoco", num_train=2)
    results = [{"image_id": number, "score": 1, "segmentation": FULL} for number in fake.train_ids]
    (tmp_path / "results.json").write_text(json.dumps(results))
    fake.root.rename(tmp_path / "my data")
    arguments = ("cache", "import", "results.json", "--split", "refcoco")
    finished = semires(*arguments, "--data", "my data")
    assert finished.out.splitlines()[-1].endswith("; next: semires train --split refcoco --data 'my data'")
    finished = semires(*arguments, "--store", "x.zarr")  # whose data is not here
    assert finished.out.splitlines()[-1].endswith("; next: semires cache info x.zarr")


def test_import__of_a_data_sets_other_size(
    semires: Semires, assert_refused: Refused, tmp_path: Path, write_refer: WriteRefer
) -> None:
    fake = write_refer("refcoco", num_train=2)
    result = {"image_id": fake.train_ids[0], "score": 1, "segmentation": {"size": [12, 16], "counts": [192]}}
    (tmp_path / "results.json").write_text(json.dumps([result]))
    refused = semires("cache", "import", "results.json", "--split", "refcoco")
    assert_refused(refused, "results.json: expected masks of the 24 x 32 pixels", "of refcoco, found 12 x 16")
    assert not (fake.root / "cache").exists()
