import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.interchange.coco import export_coco, import_coco
from semires.cache.interchange.run_lengths import ImportReport, imported_manifest
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]
AssertSame = Callable[[Candidates, Candidates], None]

# 3x4 with the pixels (y, x) = (1, 0), (2, 0), (0, 1), (2, 3) set: runs down the columns, as text and as list.
COUNTS_LIST = [1, 3, 7, 1]
COUNTS_TEXT = "137N"
AREA = 4


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
    described = {"image_id": 9, "width": 4, "height": 3, "file_name": "sa_9.jpg"} | image
    return {"image": described, "annotations": list(annotations)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "json"
    path.mkdir()
    return path


def write(folder: Path, **documents: object) -> None:
    for name, document in documents.items():
        text = document if isinstance(document, str) else json.dumps(document)
        (folder / f"{name}.json").write_text(text)


@pytest.fixture
def store(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> Path:
    location = tmp_path / "store.zarr"
    with StoreWriter(location, manifest, images_per_part=2) as writer:
        for image_id, num_masks in ((7, 3), (2, 0), (2**40, 1), (5, 4)):
            writer.add(make_candidates(image_id, num_masks=num_masks))
        masks = np.stack([np.ones((2, 3), np.bool_), np.zeros((2, 3), np.bool_)])
        nan = np.nan
        writer.add(Candidates.from_masks(6, masks, [nan, 1e-42], [-0.0, 3e38], [[nan, nan], [1 / 3, 1e-30]]))
    return location


# pycocotools 2.0.11's decode is not ready for a later numpy's copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_export__layout(store: Path, folder: Path, manifest: Manifest) -> None:
    calls: list[tuple[int, int]] = []
    names = {5: "COCO_train2014_000000000005.jpg", 7: "images/seven.png"}
    num_written = export_coco(
        store, folder, file_names=names, on_progress=lambda done, total: calls.append((done, total))
    )
    assert num_written == 5
    assert calls == [(done, 5) for done in range(6)]
    expected_files = ["2", "6", "COCO_train2014_000000000005", "seven", str(2**40)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{stem}.json" for stem in expected_files)

    document = json.loads((folder / "COCO_train2014_000000000005.json").read_text())
    assert document["info"] == manifest.to_attributes()
    assert document["image"] == {"image_id": 5, "width": 11, "height": 6, "file_name": names[5]}
    candidates = CandidateStore(store)[5]
    assert [record["id"] for record in document["annotations"]] == [1, 2, 3, 4]
    for record, mask, (x0, y0, x1, y1) in zip(
        document["annotations"], candidates.masks(), candidates.boxes_xyxy.tolist(), strict=True
    ):
        rle = record["segmentation"]
        np.testing.assert_array_equal(coco_mask.decode(rle), mask)
        assert record["area"] == coco_mask.area(rle) == mask.sum()
        assert record["bbox"] == coco_mask.toBbox(rle).tolist() == [x0, y0, x1 - x0, y1 - y0]
        assert record["crop_box"] == [0, 0, 11, 6]
    assert [record["predicted_iou"] for record in document["annotations"]] == candidates.predicted_iou.tolist()
    assert [record["point_coords"] for record in document["annotations"]] == candidates.points_xy[:, None].tolist()
    empty = json.loads((folder / "2.json").read_text())
    assert (empty["annotations"], empty["image"]["file_name"]) == ([], "")


def test_import__of_an_export_is_the_store(
    store: Path, folder: Path, tmp_path: Path, manifest: Manifest, assert_same: AssertSame
) -> None:
    export_coco(store, folder)
    report = import_coco(folder, tmp_path / "copy.zarr", manifest)
    assert report == ImportReport(num_present=0, num_added=5, num_masks=10)
    original, copy = CandidateStore(store), CandidateStore(tmp_path / "copy.zarr")
    assert copy.image_ids.tolist() == original.image_ids.tolist()
    for image_id in original.image_ids.tolist():
        assert_same(copy[image_id], original[image_id])
    assert np.signbit(copy[6].stability_score[0])


def test_import__keeps_the_manifest_of_an_export(store: Path, folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    export_coco(store, folder)
    import_coco(folder, tmp_path / "same.zarr", imported_manifest(manifest.split, 8))
    assert CandidateStore(tmp_path / "same.zarr").manifest == replace(manifest, num_images=8)
    import_coco(folder, tmp_path / "split.zarr", imported_manifest("refcoco"))
    assert CandidateStore(tmp_path / "split.zarr").manifest == imported_manifest("refcoco")
    # One file without it, and what the others say of the settings holds for them alone.
    write(folder, zz_99=sa1b(image_id=99))
    import_coco(folder, tmp_path / "mixed.zarr", imported_manifest(manifest.split))
    assert CandidateStore(tmp_path / "mixed.zarr").manifest == imported_manifest(manifest.split)


def test_import__a_manifest_that_changed_is_none(store: Path, folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    export_coco(store, folder)
    for path in folder.iterdir():
        path.write_text(path.read_text().replace('"sam": "', '"sam": "x'))
    import_coco(folder, tmp_path / "copy.zarr", imported_manifest(manifest.split))
    assert CandidateStore(tmp_path / "copy.zarr").manifest == imported_manifest(manifest.split)


@st.composite
def draw_candidates(draw: st.DrawFn) -> Callable[[int], Candidates]:
    """Any masks, scores and points of an image whose id is to be told."""
    masks = draw(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 18)).flatmap(lambda s: arrays(bool, s)))
    numbers = st.floats(width=32, allow_infinity=False)
    columns = [draw(arrays(np.float32, (len(masks), *axes), elements=numbers)) for axes in ((), (), (2,))]
    return lambda image_id: Candidates.from_masks(image_id, masks, *columns)


@given(images=st.lists(draw_candidates(), min_size=4, max_size=8))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip__any_masks_and_scores(
    tmp_path_factory: pytest.TempPathFactory, assert_same: AssertSame, images: list[Callable[[int], Candidates]]
) -> None:
    expected = [make(image_id) for image_id, make in enumerate(images)]
    root = tmp_path_factory.mktemp("round")
    with StoreWriter(root / "a.zarr", imported_manifest("refcoco")) as writer:
        for candidates in expected:
            writer.add(candidates)
    export_coco(root / "a.zarr", root / "json")
    import_coco(root / "json", root / "b.zarr", imported_manifest("refcoco"))
    copy = CandidateStore(root / "b.zarr")
    for candidates in expected:
        assert_same(copy[candidates.image_id], candidates)


def test_export__resumes(store: Path, folder: Path) -> None:
    export_coco(store, folder)
    before = {path: path.read_text() for path in folder.iterdir()}
    (folder / "7.json").unlink()
    (folder / ".5.json.00ff00ff.tmp").write_text("what a kill leaves")
    kept = (folder / "5.json").stat().st_mtime_ns
    assert export_coco(store, folder) == 1
    assert (folder / "5.json").stat().st_mtime_ns == kept
    assert {path: path.read_text() for path in folder.glob("[!.]*")} == before
    assert export_coco(store, folder) == 0


def test_export__killed_while_writing(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("semires.cache.interchange.coco.os.replace", kill)
    with pytest.raises(KeyboardInterrupt):
        export_coco(store, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "document", ["{", "[]", '{"info": {}, "image": {"image_id": 5}}', '{"image": 5, "info": null}']
)
def test_export__another_file_in_the_way(store: Path, folder: Path, document: str) -> None:
    (folder / "5.json").write_text(document)
    with pytest.raises(StoreError, match=r"5\.json: expected nothing, or this store's earlier export of image 5"):
        export_coco(store, folder)
    assert (folder / "5.json").read_text() == document


def test_export__two_images_of_one_name(store: Path, folder: Path) -> None:
    """Both are told apart, also where only one of them is stored yet."""
    export_coco(store, folder, file_names={5: "a/one.jpg", 7: "b/one.png", 6: "c/two.png", 99: "d/two.png"})
    names = {path.name for path in folder.iterdir()}
    assert {"one-5.json", "one-7.json", "two-6.json"} <= names
    assert export_coco(store, folder, file_names={5: "one.jpg", 7: "one.png", 6: "two.png", 99: "two.jpg"}) == 0
    with pytest.raises(StoreError, match=r"5\.json: expected one image a file, found images 5 and 7"):
        export_coco(store, folder, file_names={7: "5.png"})


def test_export__folder_is_a_file(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="expected a file that can be written, found"):
        export_coco(store, tmp_path / "file")


def test_export__infinite_score(tmp_path: Path, folder: Path, manifest: Manifest) -> None:
    with StoreWriter(tmp_path / "inf.zarr", manifest) as writer:
        writer.add(Candidates.from_masks(1, np.ones((1, 2, 2), np.bool_), [np.inf], [0], [[0, 0]]))
    with pytest.raises(StoreError, match="image 1: expected a finite predicted_iou or NaN"):
        export_coco(tmp_path / "inf.zarr", folder)


def test_import__layouts_by_hand(folder: Path, tmp_path: Path) -> None:
    plain = annotation(segmentation={"size": [3, 4], "counts": COUNTS_LIST}, predicted_iou=None)
    del plain["area"], plain["bbox"], plain["crop_box"], plain["id"]
    write(
        folder,
        sa_9=sa1b(annotation(), annotation(area=4.0)),
        sa_10=sa1b(image_id=10),
        COCO_train2014_000000581857=[plain],
    )
    report = import_coco(folder, tmp_path / "store.zarr", imported_manifest("refcoco", 3))
    assert report == ImportReport(num_present=0, num_added=3, num_masks=3)
    store = CandidateStore(tmp_path / "store.zarr")
    assert store.manifest == imported_manifest("refcoco", 3)
    assert store.image_ids.tolist() == [9, 10, 581857]
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]
    assert store[9].masks().astype(int).tolist() == [expected] * 2
    assert store[9].boxes_xyxy.tolist() == [[0, 0, 4, 3]] * 2
    assert store[9].points_xy.tolist() == [[1.5, 2.25]] * 2
    assert store[9].predicted_iou.tolist() == [np.float32(0.9123456789)] * 2
    assert (store[10].num_masks, store[10].height, store[10].width) == (0, 3, 4)
    assert store[581857].masks().astype(int).tolist() == [expected]
    assert np.isnan(store[581857].predicted_iou[0])


def test_import__resumes_after_a_bad_file(folder: Path, tmp_path: Path) -> None:
    write(folder, a=sa1b(annotation(), image_id=1), b="[", c=sa1b(annotation(), image_id=3))
    location, manifest = tmp_path / "store.zarr", imported_manifest("refcoco")
    calls: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> None:
        calls.append((done, total))

    def run() -> ImportReport:
        calls.clear()
        return import_coco(folder, location, manifest, on_progress=on_progress, images_per_part=1)

    with pytest.raises(StoreError, match=r"b\.json: expected a JSON document"):
        run()
    assert CandidateStore(location).image_ids.tolist() == [1]
    write(folder, b=sa1b(annotation(), annotation(), image_id=2))
    assert run() == ImportReport(num_present=1, num_added=2, num_masks=3)
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert run() == ImportReport(num_present=3, num_added=0, num_masks=0)
    assert CandidateStore(location).image_ids.tolist() == [1, 2, 3]


def test_import__more_files_than_a_batch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semires.cache.interchange.coco._FILES_PER_BATCH", 2)
    for image_id in range(5):
        write(folder, **{f"sa_{image_id}": sa1b(annotation(), image_id=image_id)})
    report = import_coco(folder, tmp_path / "store.zarr", imported_manifest("refcoco"))
    assert report == ImportReport(num_present=0, num_added=5, num_masks=5)
    write(folder, zz_99=sa1b(image_id=3))
    with pytest.raises(
        StoreError, match=r"zz_99\.json: expected one file an image, found image 3 also in .*sa_3\.json"
    ):
        import_coco(folder, tmp_path / "store.zarr", imported_manifest("refcoco"))


def test_import__store_of_other_settings(folder: Path, store: Path) -> None:
    write(folder, a=sa1b(annotation()))
    with pytest.raises(StoreError, match="store was made with split 'refshapes', asked for 'refcoco'"):
        import_coco(folder, store, imported_manifest("refcoco"))


def rle(counts: object, *size: object) -> dict[str, Any]:
    return annotation(segmentation={"size": list(size or (3, 4)), "counts": counts})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("\udcff", "expected a JSON document"),
        ('{"a":' * 200_000, "expected a JSON document, found RecursionError"),
        ("1" * 5000, "expected a JSON document, found ValueError"),
        (3, "expected SA-1B's .* found 3"),
        ({"images": [], "annotations": []}, "expected SA-1B's .* found {'annotations': "),
        ({"image": {"image_id": 9}}, "annotations: expected a list, found None"),
        (sa1b(image_id="9"), "image: expected an integer image_id, found '9'"),
        (sa1b(image_id=2**63), "image: expected an integer image_id, found 9223"),
        (sa1b(height=0), "image: expected a height of 1 to 32768 pixels, found 0"),
        (sa1b(width=10**12), "image: expected a width of 1 to 32768 pixels, found 1000000000000"),
        (sa1b(width=None), "image: expected a width of 1 to 32768 pixels, found None"),
        (sa1b(width=32768, height=32768), "image: expected an image of at most 268435456 pixels, found 32768 x 32768"),
        (sa1b(*[annotation()] * 300, width=16384, height=16384), "masks that take at most .* found 300 of 16384 x"),
        (sa1b(annotation(), "x"), "annotation 1: expected a segmentation with counts and size .* found 'x'"),
        (sa1b({}), "annotation 0: expected a segmentation"),
        (sa1b(annotation(segmentation=[[1, 2, 3, 4]])), "annotation 0: expected a segmentation"),
        (sa1b(annotation(segmentation={"counts": "1", "size": 3})), "annotation 0: expected a segmentation"),
        (sa1b(rle(COUNTS_TEXT, 4, 3)), r"annotation 0: expected the image's size \[3, 4\], found \[4, 3\]"),
        (sa1b(rle(None)), "annotation 0: expected counts as a list of integers, found None"),
        (sa1b(rle([1, "2"])), "annotation 0: expected counts as a list of integers"),
        (sa1b(rle([12.0])), "annotation 0: expected counts as a list of integers"),
        (sa1b(rle([-1, 13])), "annotation 0: expected runs of 0 to 12 pixels, found a run of -1"),
        (sa1b(rle([2**61, 12])), "annotation 0: expected runs of 0 to 12 pixels"),
        (sa1b(rle([3, 4])), "annotation 0: expected runs that sum to the size's 12 pixels, found a sum of 7"),
        (sa1b(rle([])), "annotation 0: expected runs that sum to the size's 12 pixels, found a sum of 0"),
        (sa1b(rle("")), "annotation 0: expected counts that end with a whole number, found ''"),
        (sa1b(rle("13P")), "annotation 0: expected counts that end with a whole number, found '13P'"),
        (sa1b(rle("PP")), "annotation 0: expected counts that end with a whole number, found 'PP'"),
        (sa1b(rle("P" * 7 + "1")), "annotation 0: expected counts of at most 7 characters each, found one of 8"),
        (sa1b(rle("13 7")), 'annotation 0: expected counts of characters "0" to "o", found '),
        (sa1b(rle("13\ud800")), 'annotation 0: expected counts of characters "0" to "o", found '),
        (sa1b(rle("1" * 5000)), "annotation 0: expected runs of 0 to 12 pixels, found a run of"),
        (sa1b(annotation(area=5)), "annotation 0: expected the mask's area of 4 pixels, found 5"),
        (sa1b(annotation(area="4")), "annotation 0: expected the mask's area of 4 pixels, found '4'"),
        (sa1b(annotation(predicted_iou="1")), "annotation 0: expected a number or null as predicted_iou, found '1'"),
        (sa1b(annotation(predicted_iou=1e39)), "annotation 0: expected a number or null as predicted_iou"),
        (sa1b(annotation(stability_score=True)), "annotation 0: expected a number or null as stability_score"),
        (sa1b({"segmentation": annotation()["segmentation"]}), "null as predicted_iou, found no such key"),
        (sa1b(annotation(point_coords=[1, 2])), r"expected point_coords \[\[x, y\]\], found \[1, 2\]"),
        (sa1b(annotation(point_coords=[[1]])), r"expected point_coords \[\[x, y\]\], found \[\[1\]\]"),
        (sa1b(annotation(point_coords=[[1, "2"]])), "expected a number or null as y, found '2'"),
        ([annotation()], "expected an image id in the name of a file that holds a list of annotations, found 'x'"),
    ],
)
def test_import__malformed(folder: Path, tmp_path: Path, document: Any, message: str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=rf"x\.json: .*{message}") as caught:
        import_coco(folder, tmp_path / "store.zarr", imported_manifest("refcoco"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400
    assert len(CandidateStore(tmp_path / "store.zarr")) == 0


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected an annotation to take the image's size from, found none; remove it, or"),
        ([{"counts": [1, 2], "size": [3, 4]}], "annotation 0: .*; import this folder with `--format semires`"),
        ([rle([10**10], 10**5, 10**5)], "annotation 0: expected a height of 1 to 32768 pixels, found 100000"),
        ([annotation(), rle([12], 2, 6)], r"annotation 1: expected the image's size \[3, 4\], found \[2, 6\]"),
    ],
)
def test_import__malformed_list(folder: Path, tmp_path: Path, document: Any, message: str) -> None:
    write(folder, image_12=document)
    with pytest.raises(StoreError, match=rf"image_12\.json: .*{message}"):
        import_coco(folder, tmp_path / "store.zarr", imported_manifest("refcoco"))
    assert len(CandidateStore(tmp_path / "store.zarr")) == 0
