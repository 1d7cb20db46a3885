import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.interchange.importing import FORMATS, ImportReport, imported_manifest
from semires.cache.interchange.known_images import KnownImages
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter

ImportFrom = Callable[..., tuple[ImportReport, CandidateStore]]
MakeCandidates = Callable[..., Candidates]


def save(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name.removeprefix('n')}.npy", array)
    return folder


def test_import__skips_what_is_there(tmp_path: Path, import_from: ImportFrom) -> None:
    ones = np.ones((2, 3, 4), np.bool_)
    folder = save(tmp_path / "npy", n1=ones, n2=ones[:1])
    calls: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> None:
        calls.append((done, total))

    report, store = import_from(folder, "npy", on_progress=on_progress)
    assert report == ImportReport(num_present=0, num_added=2, num_masks=3)
    assert store.manifest == imported_manifest("refcoco")
    assert calls == [(0, 2), (1, 2), (2, 2)]
    save(folder, n3=ones[:0])
    calls.clear()
    report, store = import_from(folder, "npy", on_progress=on_progress)
    assert report == ImportReport(num_present=2, num_added=1, num_masks=0)
    assert store.image_ids.tolist() == [1, 2, 3]
    assert calls == [(2, 3), (3, 3)]


def test_import__of_other_settings(
    tmp_path: Path, import_from: ImportFrom, manifest: Manifest, make_candidates: MakeCandidates
) -> None:
    folder = save(tmp_path / "npy", n1=np.ones((3, 4), np.bool_))
    with StoreWriter(tmp_path / "store.zarr", manifest) as writer:
        writer.add(make_candidates(7))
    with pytest.raises(StoreError, match="store was made with split 'refshapes', asked for 'refcoco'"):
        import_from(folder, "npy")
    assert CandidateStore(tmp_path / "store.zarr").image_ids.tolist() == [7]


@pytest.mark.parametrize("format", FORMATS)
def test_import__nothing_to_import_leaves_no_store(tmp_path: Path, import_from: ImportFrom, format: str) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "nowhere"):
        with pytest.raises(StoreError, match=f"{source}: expected .*, found"):
            import_from(tmp_path / source, format)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_import__one_image_in_two_places(tmp_path: Path, import_from: ImportFrom) -> None:
    folder = save(tmp_path / "npy", n7=np.ones((3, 4), np.bool_), sa_7=np.ones((3, 4), np.bool_))
    with pytest.raises(StoreError, match=r"sa_7\.npy: expected an image in one place, found image 7 also in .*/7\.npy"):
        import_from(folder, "npy")
    known = KnownImages(where="photos", file_names={5: "a.jpg"})
    images = [{"id": number, "height": 3, "width": 4, "file_name": "a.jpg"} for number in (1, 2)]
    (folder / "x.json").write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(StoreError, match=r"x\.json: expected an image in one place, found image 5 twice; remove one"):
        import_from(folder, images=known)
    assert not (tmp_path / "store.zarr").exists()


@pytest.mark.parametrize("format", ["npy", "coco"])
def test_import__another_size_than_the_images(tmp_path: Path, import_from: ImportFrom, format: str) -> None:
    """Before the masks are read where the files say their size, else after."""
    known = KnownImages(where="refcoco", file_names={7: "x_7.jpg", 8: "8.jpg"}, sizes={7: (3, 4)})
    folder = save(tmp_path / "x", n7=np.ones((4, 3), np.bool_), n8=np.ones((9, 9), np.bool_))
    (folder / "7.json").write_text(json.dumps([{"segmentation": {"size": [4, 3], "counts": [12]}}]))
    expected = rf"7\.{'npy' if format == 'npy' else 'json'}: expected masks of the 3 x 4 pixels \(height x width\) of "
    with pytest.raises(StoreError, match=rf"{expected}image 7 \('x_7\.jpg'\) of refcoco, found 4 x 3; import the"):
        import_from(folder, format, images=known)
    assert not (tmp_path / "store.zarr").exists()


def test_import__images_of_others_are_left_out(tmp_path: Path, import_from: ImportFrom) -> None:
    folder = save(tmp_path / "npy", n7=np.ones((3, 4), np.bool_), n8=np.ones((3, 4), np.bool_))
    report, store = import_from(folder, "npy", images=KnownImages(where="refcoco", file_names={7: "7.jpg"}))
    assert store.image_ids.tolist() == [7]
    assert report.left_out == (f"{folder / '8.npy'}: '8' is none of refcoco",)
    other = KnownImages(where="photos", file_names={1: "1.jpg"})
    with pytest.raises(StoreError, match=r"npy: expected masks of images of photos, found none .left out: .*, ….;"):
        import_from(folder, "npy", images=other, name="other.zarr")
    assert not (tmp_path / "other.zarr").exists()
