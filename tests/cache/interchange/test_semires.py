import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from semires.cache.errors import StoreError
from semires.cache.interchange.importing import ImportReport, import_masks, imported_manifest
from semires.cache.interchange.known_images import KnownImages
from semires.cache.reader import CandidateStore
from semires.stages.data.files.json_records import load_records

SMALL_MASKS = st.tuples(st.integers(1, 9), st.integers(1, 18)).flatmap(lambda shape: arrays(np.bool_, shape))


def literal_encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The public format by its definition: 1-based start and length of each run down the columns."""
    pixels = [bool(mask[y, x]) for x in range(mask.shape[1]) for y in range(mask.shape[0])]
    counts: list[int] = []
    for position, value in enumerate(pixels, start=1):
        if value and (position == 1 or not pixels[position - 2]):
            counts += [position, 0]
        if value:
            counts[-1] += 1
    return {"counts": counts, "size": list(mask.shape)}


def literal_decode(record: dict[str, Any]) -> NDArray[np.bool_]:
    """The public format pixel by pixel."""
    height, width = record["size"]
    mask = np.zeros((height, width), np.bool_)
    for start, length in zip(record["counts"][0::2], record["counts"][1::2], strict=True):
        for position in range(start - 1, start - 1 + length):
            mask[position % height, position // height] = True
    return mask


@pytest.fixture
def import_files(tmp_path: Path) -> Callable[..., tuple[ImportReport, CandidateStore]]:
    """Writes {ref id: document} (texts as they are) and imports them, every ref of one 3x4 image 9 unless told."""

    def run(files: dict[str, Any], images: dict[str, tuple[int, int, int]] | None = None, **options: Any) -> Any:
        folder, location = tmp_path / "sam_rle_mask", tmp_path / "store.zarr"
        folder.mkdir(exist_ok=True)
        for name, document in files.items():
            text = document if isinstance(document, str) else json.dumps(document)
            (folder / f"{name}.json").write_text(text)
        known = KnownImages(where="refcoco", refs=images or dict.fromkeys(files, (9, 3, 4)))
        how = {"format": "semires", "load_records": load_records, "images": known}
        return import_masks(folder, location, imported_manifest("refcoco"), **how, **options), CandidateStore(location)

    return run


def test_import__by_hand(import_files: Callable[..., tuple[ImportReport, CandidateStore]]) -> None:
    # Columns of the 3x4 image are pixels 1-3, 4-6, 7-9 and 10-12.
    records = [{"counts": [2, 3, 12, 1], "size": [3, 4]}, {"counts": [], "size": [3, 4]}]
    report, store = import_files({"41": records})
    assert report == ImportReport(num_present=0, num_added=1, num_masks=2)
    found = store[9]
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]
    assert found.masks().astype(int).tolist() == [expected, np.zeros((3, 4), int).tolist()]
    assert found.area.tolist() == [4, 0]
    assert found.boxes_xyxy.tolist() == [[0, 0, 4, 3], [0, 0, 0, 0]]
    for unknown in (found.predicted_iou, found.stability_score, found.points_xy):
        assert unknown.dtype == np.float32
        assert np.isnan(unknown).all()
    assert store.manifest == imported_manifest("refcoco")


def test_import__refs_of_an_image_are_merged(
    import_files: Callable[..., tuple[ImportReport, CandidateStore]],
) -> None:
    first, second, third = ({"counts": [start, 2], "size": [3, 4]} for start in (1, 5, 9))
    # The same mask as `second`, written in two touching runs.
    split = {"counts": [6, 1, 5, 1], "size": [3, 4]}
    files = {"2": [first, second], "10": [split, third, first], "5": [third], "6": []}
    images = {"2": (9, 3, 4), "10": (9, 3, 4), "5": (8, 3, 4), "6": (7, 5, 6), "11": (3, 3, 4)}
    calls: list[tuple[int, int]] = []
    report, store = import_files(files, images, on_progress=lambda done, total: calls.append((done, total)))
    assert report == ImportReport(num_present=0, num_added=3, num_masks=4)
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert store.image_ids.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(store[9].masks(), [literal_decode(record) for record in (first, second, third)])
    assert (store[7].num_masks, store[7].height, store[7].width) == (0, 5, 6)


@given(masks=st.lists(SMALL_MASKS, min_size=4, max_size=8), seed=st.integers(0, 9))
@settings(max_examples=5, deadline=None)
def test_import__equals_the_literal_decoder(
    tmp_path_factory: pytest.TempPathFactory, masks: list[NDArray[np.bool_]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("import")
    (root / "rle").mkdir()
    expected: dict[int, list[NDArray[np.bool_]]] = {}
    for image_id, mask in enumerate(masks):
        records = [literal_encode(mask)]
        np.testing.assert_array_equal(literal_decode(records[0]), mask)
        for _ in range(3):  # any runs, in any order, overlapping or not
            starts = rng.integers(1, mask.size, 3, endpoint=True)
            lengths = [rng.integers(1, mask.size + 2 - start) for start in starts]
            counts = np.stack([starts, lengths], axis=1).reshape(-1).tolist()
            records.append({"counts": counts, "size": list(mask.shape)})
        (root / "rle" / f"{image_id}.json").write_text(json.dumps(records))
        distinct = expected[image_id] = []
        for record in records:
            decoded = literal_decode(record)
            if not any(np.array_equal(decoded, other) for other in distinct):
                distinct.append(decoded)

    images = {str(image_id): (image_id, *mask.shape) for image_id, mask in enumerate(masks)}
    how = {"format": "semires", "load_records": load_records, "images": KnownImages(refs=images)}
    import_masks(root / "rle", root / "store", imported_manifest("refcoco"), **how)
    store = CandidateStore(root / "store")
    for image_id, distinct in expected.items():
        np.testing.assert_array_equal(store[image_id].masks(), distinct)


def test_import__resumes_after_a_bad_file(import_files: Callable[..., tuple[ImportReport, CandidateStore]]) -> None:
    good = [{"counts": [1, 5], "size": [3, 4]}]
    images = {name: (int(name), 3, 4) for name in "123"}
    with pytest.raises(StoreError, match=r"2\.json: expected a JSON document"):
        import_files({"1": good, "2": "[{", "3": good}, images)
    report, store = import_files({"2": good}, images)
    assert report == ImportReport(num_present=1, num_added=2, num_masks=2)
    assert store.image_ids.tolist() == [1, 2, 3]
    report, _ = import_files({}, images)
    assert report == ImportReport(num_present=3, num_added=0, num_masks=0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "expected a JSON document, found JSONDecodeError"),
        ("[" * 200_000, "expected a JSON document, found RecursionError"),
        ({"counts": []}, r"expected a list of masks, found \{'counts': \[\]\}"),
        ([[1, 2]], r"mask 0: expected an object with counts and size, found \[1, 2\]"),
        ([{"counts": [1, 1]}], "mask 0: expected an object with counts and size"),
        ([{"counts": [1, 1], "size": [4, 3]}], r"expected the image's size \[3, 4\], found \[4, 3\]; import with the"),
        ([{"counts": [1, 1], "size": [10**9, 10**9]}], r"expected the image's size \[3, 4\]"),
        ([{"counts": "12", "size": [3, 4]}], "expected counts as a list of integers, found '12'"),
        ([{"counts": [1, 2.5], "size": [3, 4]}], r"expected counts as a list of integers, found \[1, 2.5\]"),
        ([{"counts": [1, True], "size": [3, 4]}], "expected counts as a list of integers"),
        ([{"counts": [1, 10**30], "size": [3, 4]}], "expected counts below the number of pixels, found 1000"),
        ([{"counts": [1], "size": [3, 4]}], "expected counts in pairs of start and length, found 1 numbers"),
        ([{"counts": [0, 1], "size": [3, 4]}], "inside 1 to 12, found start 0 and length 1"),
        ([{"counts": [1, 2, 3, 0], "size": [3, 4]}], "at least 1 pixel inside 1 to 12, found start 3 and length 0"),
        ([{"counts": [12, 2], "size": [3, 4]}], "inside 1 to 12, found start 12 and length 2"),
    ],
)
def test_import__malformed(
    import_files: Callable[..., tuple[ImportReport, CandidateStore]], tmp_path: Path, document: Any, message: str
) -> None:
    with pytest.raises(StoreError, match=rf"2\.json: .*{message}") as caught:
        import_files({"2": document})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300
    assert not (tmp_path / "store.zarr").exists()


def test_import__ref_of_another_data_set(
    import_files: Callable[..., tuple[ImportReport, CandidateStore]], tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=r"5\.json: expected a ref id of the data set as file name, found '5'; import"):
        import_files({"5": []}, {"4": (1, 3, 4)})
    assert not (tmp_path / "store.zarr").exists()
