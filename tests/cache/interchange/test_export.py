import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.interchange.export import export_coco
from semires.cache.interchange.importing import ImportReport, import_masks, imported_manifest
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.data.files.json_records import load_records

MakeCandidates = Callable[..., Candidates]
AssertSame = Callable[[Candidates, Candidates], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "json"
    path.mkdir()
    return path


def import_export(folder: Path, location: Path, manifest: Manifest) -> ImportReport:
    return import_masks(folder, location, manifest, format="coco", load_records=load_records)


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
    report = import_export(folder, tmp_path / "copy.zarr", manifest)
    assert report == ImportReport(num_present=0, num_added=5, num_masks=10)
    original, copy = CandidateStore(store), CandidateStore(tmp_path / "copy.zarr")
    assert copy.image_ids.tolist() == original.image_ids.tolist()
    for image_id in original.image_ids.tolist():
        assert_same(copy[image_id], original[image_id])
    assert np.signbit(copy[6].stability_score[0])


def test_import__keeps_the_manifest_of_an_export(store: Path, folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    export_coco(store, folder)
    import_export(folder, tmp_path / "same.zarr", imported_manifest(manifest.split, 8))
    assert CandidateStore(tmp_path / "same.zarr").manifest == replace(manifest, num_images=8)
    import_export(folder, tmp_path / "split.zarr", imported_manifest("refcoco"))
    assert CandidateStore(tmp_path / "split.zarr").manifest == imported_manifest("refcoco")
    # One file without it, and what the others say of the settings holds for them alone.
    (folder / "zz_99.json").write_text('{"image": {"image_id": 99, "width": 4, "height": 3}, "annotations": []}')
    import_export(folder, tmp_path / "mixed.zarr", imported_manifest(manifest.split))
    assert CandidateStore(tmp_path / "mixed.zarr").manifest == imported_manifest(manifest.split)


def test_import__a_manifest_that_changed_is_none(store: Path, folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    export_coco(store, folder)
    for path in folder.iterdir():
        path.write_text(path.read_text().replace('"sam": "', '"sam": "x'))
    import_export(folder, tmp_path / "copy.zarr", imported_manifest(manifest.split))
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
    import_export(root / "json", root / "b.zarr", imported_manifest("refcoco"))
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

    monkeypatch.setattr("semires.cache.interchange.export.os.replace", kill)
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


def test_import__an_export_of_a_large_photograph(folder: Path, tmp_path: Path, manifest: Manifest) -> None:
    """48 megapixels; 89 such masks, which take 543 MB packed, are as welcome as these two."""
    masks = np.zeros((2, 6048, 8064), np.bool_)
    masks[0, 17:5000, 4001:4011] = True
    masks[1, ::3, 7000:] = True
    with StoreWriter(tmp_path / "x.zarr", manifest) as writer:
        writer.add(Candidates.from_masks(1, masks, [0.5, 0.25], [1, 1], np.zeros((2, 2))))
    export_coco(tmp_path / "x.zarr", folder)
    import_export(folder, tmp_path / "y.zarr", manifest)
    np.testing.assert_array_equal(CandidateStore(tmp_path / "y.zarr")[1].bits, np.packbits(masks, axis=2))


def test_import__an_export_of_photographs(
    folder: Path, tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, assert_same: AssertSame
) -> None:
    """Their names are numbers, their ids are not these, and two are called the same in two folders."""
    names = {2**62 + 5: "a/0001.png", 2**62 + 1: "b/0001.png", 2**61: "0002.jpg"}
    with StoreWriter(tmp_path / "x.zarr", manifest) as writer:
        for image_id in names:
            writer.add(make_candidates(image_id))
    assert export_coco(tmp_path / "x.zarr", folder, file_names=names) == 3
    stored = {path.stem: json.loads(path.read_text())["image"]["file_name"] for path in folder.iterdir()}
    assert stored == {f"0001-{2**62 + 5}": "a/0001.png", f"0001-{2**62 + 1}": "b/0001.png", "0002": "0002.jpg"}
    import_export(folder, tmp_path / "y.zarr", manifest)
    for image_id in names:
        assert_same(CandidateStore(tmp_path / "y.zarr")[image_id], CandidateStore(tmp_path / "x.zarr")[image_id])
