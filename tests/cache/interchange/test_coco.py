import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from semires.cache.errors import StoreError
from semires.cache.interchange import coco
from semires.cache.interchange.importing import ImportReport, import_masks, imported_manifest
from semires.cache.interchange.known_images import KnownImages
from semires.cache.reader import CandidateStore
from semires.stages.data.files import json_records
from semires.stages.data.files.json_records import load_records

ImportFrom = Callable[..., tuple[ImportReport, CandidateStore]]

# 3x4 with the pixels (y, x) = (1, 0), (2, 0), (0, 1), (2, 3) set: runs down the columns, as text and as list.
COUNTS_LIST = [1, 3, 7, 1]
COUNTS_TEXT = "137N"
AREA = 4
MASK = [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]


def annotation(**changes: Any) -> dict[str, Any]:
    record = {
        "id": 123,
        "segmentation": {"size": [3, 4], "counts": COUNTS_TEXT},
        "area": AREA,
        "bbox": [0, 0, 3, 2],
        "predicted_iou": 0.9123456789,
        "stability_score": 0.98,
        "point_coords": [[1.5, 2.25]],
        "crop_box": [0, 0, 4, 3],
    }
    return record | changes


def sa1b(*annotations: object, **image: Any) -> dict[str, Any]:
    described = {"image_id": 9, "width": 4, "height": 3, "file_name": ""} | image
    return {"image": described, "annotations": list(annotations)}


def result(image_id: object, **changes: Any) -> dict[str, Any]:
    record = {"image_id": image_id, "category_id": 1, "score": 0.5, "segmentation": annotation()["segmentation"]}
    return record | changes


def images(*image_ids: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"id": image_id, "height": 3, "width": 4, "file_name": f"{image_id}.jpg"} | changes for image_id in image_ids
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "json"
    path.mkdir()
    return path


def write(folder: Path, **documents: object) -> None:
    for name, document in documents.items():
        text = document if isinstance(document, str) else json.dumps(document)
        (folder / f"{name}.json").write_text(text)


def test_import__one_image_a_file(folder: Path, import_from: ImportFrom) -> None:
    plain = annotation(segmentation={"size": [3, 4], "counts": COUNTS_LIST}, predicted_iou=None)
    del plain["area"], plain["bbox"], plain["crop_box"], plain["id"], plain["stability_score"]
    write(
        folder,
        sa_9=sa1b(annotation(), annotation(area=4.0)),
        sa_10=sa1b(image_id=10),
        COCO_train2014_000000581857=[plain],
    )
    report, store = import_from(folder, manifest=imported_manifest("refcoco", 3))
    assert report == ImportReport(num_present=0, num_added=3, num_masks=3)
    assert store.manifest == imported_manifest("refcoco", 3)
    assert store.image_ids.tolist() == [9, 10, 581857]
    assert store[9].masks().astype(int).tolist() == [MASK] * 2
    assert store[9].boxes_xyxy.tolist() == [[0, 0, 4, 3]] * 2
    assert store[9].points_xy.tolist() == [[1.5, 2.25]] * 2
    assert store[9].predicted_iou.tolist() == [np.float32(0.9123456789)] * 2
    assert (store[10].num_masks, store[10].height, store[10].width) == (0, 3, 4)
    assert store[581857].masks().astype(int).tolist() == [MASK]
    assert np.isnan([store[581857].predicted_iou[0], store[581857].stability_score[0]]).all()


def test_import__results_of_several_images(folder: Path, import_from: ImportFrom) -> None:
    """Grouped by their own ids: the number in the file's name is none of an image."""
    write(folder, sam_masks_2024=[result(17), result(42, score=0.25), result(17, score=1, predicted_iou=0.75)])
    report, store = import_from(folder)
    assert report == ImportReport(num_present=0, num_added=2, num_masks=3)
    assert store.image_ids.tolist() == [17, 42]
    assert store[17].predicted_iou.tolist() == [0.5, 0.75]
    assert store[42].predicted_iou.tolist() == [0.25]
    assert np.isnan(store[17].points_xy).all()
    assert store[42].masks().astype(int).tolist() == [MASK]


@pytest.mark.parametrize("is_behind", [False, True])
def test_import__file_of_many_images(folder: Path, import_from: ImportFrom, is_behind: bool) -> None:
    """In no order; LVIS names images by their address; one has no annotation."""
    lvis = {"id": 8, "height": 3, "width": 4, "coco_url": "http://x/train2017/000000000008.jpg"}
    document = {
        "images": [lvis, *images(3, 7)],
        "annotations": [result(7), result(8, area=3.9, bbox=[0.2, 0, 3.5, 3]), result(7)],
        "categories": [],
    }
    if is_behind:
        document = dict(reversed(document.items()))
    write(folder, instances=document)
    report, store = import_from(folder / "instances.json")
    assert report == ImportReport(num_present=0, num_added=3, num_masks=3)
    assert {int(number): store[number].num_masks for number in store.image_ids} == {3: 0, 7: 2, 8: 1}
    assert store[8].masks().astype(int).tolist() == [MASK]


def polygons(rng: np.random.Generator, height: int, width: int) -> list[list[float]]:
    """One to three polygons of three to nine points, some of them a little outside."""
    return [
        (rng.random((rng.integers(3, 9), 2)) * (width + 2, height + 2) - 1).round(2).reshape(-1).tolist()
        for _ in range(rng.integers(1, 4))
    ]


# pycocotools 2.0.11's decode is not ready for a later numpy's copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(seed=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_import__masks_are_pycocotools(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("coco")
    listed, records = [], []
    for image_id in range(1, 5):
        height, width = rng.integers(3, 40, 2).tolist()
        listed.append({"id": image_id, "height": height, "width": width, "file_name": f"{image_id}.jpg"})
    for number in range(12):
        image = listed[rng.integers(len(listed))]
        size = image["height"], image["width"]
        segmentation: Any = polygons(rng, *size)
        if number % 3:
            encoded = coco_mask.encode(np.asfortranarray(rng.random(size) < 0.3, np.uint8))
            counts: Any = encoded["counts"].decode()
            if number % 3 == 2:
                counts = runs_of(coco_mask.decode(encoded).T.reshape(-1))
            segmentation = {"size": list(size), "counts": counts}
        records.append({"id": number + 1, "image_id": image["id"], "iscrowd": 0, "segmentation": segmentation})
    (folder / "x.json").write_text(json.dumps({"images": listed, "annotations": records}))
    import_masks(folder, folder / "s.zarr", imported_manifest("x"), format="coco", load_records=load_records)
    reference, store = COCO(str(folder / "x.json")), CandidateStore(folder / "s.zarr")
    for image_id in range(1, 5):
        expected = [reference.annToMask(record) for record in reference.loadAnns(reference.getAnnIds(image_id))]
        assert store[image_id].masks().astype(np.uint8).tolist() == [mask.tolist() for mask in expected]


def runs_of(pixels: NDArray[np.uint8]) -> list[int]:
    """Run lengths of flat pixels, the first of zeros."""
    cuts = np.flatnonzero(np.diff(pixels)) + 1
    return [0] * int(pixels[0]) + np.diff([0, *cuts, len(pixels)]).tolist()


def test_import__long_files_are_not_kept(
    folder: Path, import_from: ImportFrom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a window of a few records, with the masks on disk."""
    monkeypatch.setattr(json_records, "WINDOW", 300)
    monkeypatch.setattr(coco, "_SPOOLED", 100)
    write(folder, x=[result(number % 7, score=number / 64) for number in range(64)])
    _, store = import_from(folder)
    assert store[3].predicted_iou.tolist() == [number / 64 for number in range(3, 64, 7)]
    assert all(mask.astype(int).tolist() == MASK for mask in store[3].masks())


def test_import__known_images(folder: Path, import_from: ImportFrom) -> None:
    """Another program's ids are its own, where the names lead to ours; what is of other images is left out aloud."""
    known = KnownImages(where="photos", file_names={2**60: "a/1.png", 2**61: "b/1.png"}, sizes={2**60: (3, 4)})
    named = [*images(1, file_name="b/1.png"), *images(2, file_name="a/1.png"), *images(3, file_name="c/1.png")]
    write(folder, x={"images": named, "annotations": [result(1), result(2), result(2), result(3)]})
    report, store = import_from(folder, images=known)
    assert {int(number): store[number].num_masks for number in store.image_ids} == {2**60: 2, 2**61: 1}
    assert report.left_out == (f"{folder / 'x.json'}: image 3 'c/1.png' is none of photos",)


def test_import__folders_endings_and_files_without_masks(folder: Path, import_from: ImportFrom) -> None:
    for name in ("a/b", ".hidden", "__MACOSX"):
        (folder / name).mkdir(parents=True)
    for path in ("a/b/7.JSON", "8.Json"):
        (folder / path).write_text(json.dumps([annotation()]))
    for path in (".hidden/1.json", "__MACOSX/2.json", "._3.json"):
        (folder / path).write_text("no JSON")
    write(folder, metadata={"made_by": "us", "date": None})
    (folder / "a" / "up").symlink_to(folder)
    report, store = import_from(folder)
    assert store.image_ids.tolist() == [7, 8]
    assert report.left_out == (f"{folder / 'metadata.json'}: no masks, it has no key image, images or annotations",)


def test_import__resumes_after_a_bad_mask(folder: Path, import_from: ImportFrom) -> None:
    write(folder, a=sa1b(annotation(), image_id=1), b=sa1b({}, image_id=2), c=sa1b(annotation(), image_id=3))
    calls: list[tuple[int, int]] = []

    def run() -> ImportReport:
        calls.clear()
        return import_from(folder, images_per_part=1, on_progress=lambda done, total: calls.append((done, total)))[0]

    with pytest.raises(StoreError, match=r"b\.json: annotation 0: expected a segmentation"):
        run()
    assert CandidateStore(folder.parent / "store.zarr").image_ids.tolist() == [1]
    write(folder, b=sa1b(annotation(), annotation(), image_id=2))
    assert run() == ImportReport(num_present=1, num_added=2, num_masks=3)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert run() == ImportReport(num_present=3, num_added=0, num_masks=0)
    assert calls == [(3, 3)]


def rle(counts: object, *size: object) -> dict[str, Any]:
    return annotation(segmentation={"size": list(size or (3, 4)), "counts": counts})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("\udcff", "expected a JSON document"),
        ('{"a":' * 200_000, "expected a JSON document, found RecursionError"),
        ("1" * 5000, "expected a JSON document, found ValueError"),
        (3, "expected SA-1B's .* found 3"),
        ({"annotations": []}, "expected SA-1B's .* found {'annotations': "),
        (sa1b() | {"images": []}, "expected SA-1B's .* found "),
        ({"image": {"image_id": 9}}, "annotations: expected a list, found None"),
        (sa1b(image_id="9"), "image: expected an integer image_id, found '9'"),
        (sa1b(image_id=2**63), "image: expected an integer image_id, found 9223"),
        (sa1b(height=0), "image: expected a height of 1 to 32768 pixels, found 0"),
        (sa1b(width=10**12), "image: expected a width of 1 to 32768 pixels, found 1000000000000"),
        (sa1b(width=None), "image: expected a width of 1 to 32768 pixels, found None"),
        (sa1b(width=32768, height=32768), "image: expected an image of at most 268435456 pixels, found 32768 x 32768"),
        (sa1b(file_name=3), "image: expected a text as file_name, found 3"),
        (sa1b(*[annotation()] * 300, width=16384, height=16384), "masks that take at most .* found 300 of 16384 x"),
        (sa1b(annotation(), "x"), "annotation 1: expected an annotation with a segmentation, found 'x'"),
        (sa1b({}), "annotation 0: expected a segmentation"),
        (sa1b(annotation(segmentation=[])), "annotation 0: expected a segmentation"),
        (sa1b(annotation(segmentation=[[1, 2, 3, 4]])), "expected the mask's area of 0 pixels, found 4"),
        (sa1b(annotation(segmentation={"counts": "1", "size": 3})), r"expected the image's size \[3, 4\], found 3"),
        (sa1b(rle(COUNTS_TEXT, 4, 3)), r"annotation 0: expected the image's size \[3, 4\], found \[4, 3\]"),
        (sa1b(annotation(image_id=8)), "annotation 0: expected the image_id of the file's image, 9, found 8"),
        ([annotation()], "expected an image id as name, such as 9, .* found 'x'; give the images"),
        ([annotation(), result(3)], "expected annotations with an image_id each, found 1 without"),
        ([result("3")], "annotation 0: expected an integer image_id, found '3'"),
        ([result(3, segmentation=[[0, 0, 1, 1, 1, 0]])], "annotation 0: expected a segmentation with counts and size"),
        ([result(3), result(3, segmentation=rle([12], 2, 6)["segmentation"])], "annotation 1: .* found .2, 6."),
        ({"images": [3], "annotations": []}, "image 0: expected an object with id, height and width, found 3"),
        ({"images": images(3, 3), "annotations": []}, "image 1: expected an id of its own, found 3, which image 0 has"),
        ({"images": images(3), "annotations": [result(4)]}, "annotation 0: expected an image_id of the file's images"),
        ({"images": images(3), "annotations": [annotation()]}, "expected annotations with an image_id each, found 1"),
        ({"images": images(3), "annotations": {}}, "annotations: expected a list, found {}"),
        ({"images": images(3, height=10**6), "annotations": []}, "image 0: expected a height of 1 to 32768 pixels"),
        ({"made_by": "us"}, "expected masks, found none .left out: .*x.json: no masks, it has no key image, images"),
    ],
)
def test_import__malformed(folder: Path, tmp_path: Path, import_from: ImportFrom, document: Any, message: str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=message) as caught:
        import_from(folder)
    assert "x.json: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2 * len(str(tmp_path)) + 400
    assert not (tmp_path / "store.zarr").exists()


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("image_12", [], "expected an annotation to take the image's size from, found none; remove it, or"),
        ("12", [{"counts": [1, 2], "size": [3, 4]}], "annotation 0: .*; import this folder with `--format semires`"),
        ("12", [rle([10**10], 10**5, 10**5)], "annotation 0: expected a height of 1 to 32768 pixels, found 100000"),
        ("12", [annotation(), rle([12], 2, 6)], r"annotation 1: expected the image's size \[3, 4\], found \[2, 6\]"),
        ("photo_1024x768", [annotation()], "expected an image id as name, .* found 'photo_1024x768'"),
        ("sam_masks_2024", [annotation()], "expected an image id as name, .* found 'sam_masks_2024'"),
        ("sa_12", sa1b(annotation()), "image: expected the image_id that the file's name says, 12, found 9"),
        ("12", sa1b(file_name="sa_9.jpg"), "image: expected the image_id that the file's name says, 12, found 9"),
    ],
)
def test_import__name_and_contents(
    folder: Path, tmp_path: Path, import_from: ImportFrom, name: str, document: Any, message: str
) -> None:
    write(folder, **{name: document})
    with pytest.raises(StoreError, match=rf"{name}\.json: .*{message}"):
        import_from(folder)
    assert not (tmp_path / "store.zarr").exists()


def test_import__a_bad_record_of_many_images_stores_none(folder: Path, tmp_path: Path, import_from: ImportFrom) -> None:
    """One file is whole or it is not imported, wherever in it the fault is."""
    write(folder, x=[*(result(number) for number in range(9)), result(9, segmentation=rle([3, 4])["segmentation"])])
    with pytest.raises(StoreError, match="annotation 9: expected runs that sum to the size's 12 pixels"):
        import_from(folder, images_per_part=1)
    assert not (tmp_path / "store.zarr").exists()
