from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.cache.errors import StoreError
from semires.cache.interchange.importing import ImportReport
from semires.cache.interchange.known_images import KnownImages
from semires.cache.reader import CandidateStore

ImportFrom = Callable[..., tuple[ImportReport, CandidateStore]]

MASKS = np.random.default_rng(0).random((12, 5, 11)) < 0.4
HEADER = "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,stability_score,crop_box_x0"


def write_folder(folder: Path, metadata: str | None = None) -> Path:
    folder.mkdir(parents=True)
    for number, mask in enumerate(MASKS):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{number}.png")
    if metadata is not None:
        (folder / "metadata.csv").write_text(metadata)
    return folder


def table(**changes: str) -> str:
    """amg.py's, of all masks; `changes` are texts in the row of mask 3."""
    rows = [HEADER]
    for number, mask in enumerate(MASKS):
        row = dict(zip(HEADER.split(","), [str(number), str(mask.sum()), *"123456789"], strict=True))
        row |= {"predicted_iou": str(number / 8), "point_input_x": "7.5"} | (changes if number == 3 else {})
        rows.append(",".join(row.values()))
    return "\n".join(rows) + "\n"


def test_import__a_folder_an_image(tmp_path: Path, import_from: ImportFrom) -> None:
    write_folder(tmp_path / "out" / "7")
    write_folder(tmp_path / "out" / "sub" / "sa_9", table())
    (tmp_path / "out" / "sub" / "notes.txt").touch()
    report, store = import_from(tmp_path / "out", "masks")
    assert report == ImportReport(num_present=0, num_added=2, num_masks=24)
    for image_id in (7, 9):
        np.testing.assert_array_equal(store[image_id].masks(), MASKS)  # 10.png comes after 9.png
    assert np.isnan(store[7].predicted_iou).all()
    assert np.isnan(store[7].points_xy).all()
    assert store[9].predicted_iou.tolist() == [number / 8 for number in range(12)]
    assert store[9].stability_score.tolist() == [8] * 12
    assert store[9].points_xy.tolist() == [[7.5, 6]] * 12


def test_import__named_after_photographs(tmp_path: Path, import_from: ImportFrom) -> None:
    """As amg.py names its folders, after the images' files."""
    write_folder(tmp_path / "out" / "dog")
    write_folder(tmp_path / "out" / "photo_1024x768")
    known = KnownImages(where="photos", file_names={2**60: "dog.jpg", 2**61: "b/photo_1024x768.png"})
    _, store = import_from(tmp_path / "out", "masks", images=known)
    assert store.image_ids.tolist() == [2**60, 2**61]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (table(area="1"), r"3\.png: expected the mask of 1 pixels that metadata\.csv says, found "),
        (table(predicted_iou="good"), r"metadata\.csv: id 3: expected a number as predicted_iou, found 'good'"),
        (table(id="99"), r"metadata\.csv: expected a row of each of the folder's 12 masks, .* found 12 rows: \['0'"),
        (table(id="4"), r"metadata\.csv: expected a row of each of the folder's 12 masks"),
        ("name,score\n0.png,1\n", r"metadata\.csv: expected a row of each of the folder's 12 masks, .* \[None\]"),
        ("", r"metadata\.csv: expected a row of each of the folder's 12 masks, .* found 0 rows"),
        ("id\n\0\n", r"metadata\.csv: expected "),
    ],
)
def test_import__metadata_that_is_not_the_masks(
    tmp_path: Path, import_from: ImportFrom, metadata: str, message: str
) -> None:
    write_folder(tmp_path / "out" / "7", metadata)
    with pytest.raises(StoreError, match=message):
        import_from(tmp_path / "out", "masks")
    assert not (tmp_path / "store.zarr").exists()


def test_import__refused_files(tmp_path: Path, import_from: ImportFrom) -> None:
    folder = write_folder(tmp_path / "out" / "7")
    Image.fromarray(np.zeros((5, 12), np.uint8)).save(folder / "11.png")
    with pytest.raises(StoreError, match=r"11\.png: expected the 5 x 11 pixels of 0\.png, found 5 x 12"):
        import_from(tmp_path / "out", "masks")
    soft = np.tile(np.arange(11, dtype=np.uint8), (5, 1))
    Image.fromarray(soft).save(folder / "11.png")
    with pytest.raises(
        StoreError, match=r"11\.png: expected a mask in black and one other value, found several; write"
    ):
        import_from(tmp_path / "out", "masks")
    for source in (folder, folder / "0.png"):
        with pytest.raises(StoreError, match=r"0\.png: expected a folder an image, found a file outside of one"):
            import_from(source, "masks")
    assert not (tmp_path / "store.zarr").exists()
