from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from semires.stages.data.errors import InputError
from semires.stages.data.importing import picture_refs
from semires.stages.data.importing.run import import_data

HEIGHT, WIDTH = 24, 32
Edit = Callable[[dict[str, Any]], None]


def written(small: Any, write_parquet: Callable[..., Path], *, edit: Edit | None = None) -> Path:
    """testA, testB and val as lmms-lab has them, in two shards; val is made of the train refs of one image."""
    val = [{**row, "question_id": str(number)} for number, row in enumerate(small.picture_rows("train"))]
    if edit is not None:
        edit(val[1])
    write_parquet(val[:1], "lmms/data/val-00000-of-00002.parquet")
    write_parquet(val[1:], "lmms/data/val-00001-of-00002.parquet")
    write_parquet(small.picture_rows("testA"), "lmms/data/testA-00000-of-00001.parquet")
    write_parquet(small.picture_rows("testB"), "lmms/data/test-00000-of-00001.parquet")
    return write_parquet(small.picture_rows("testB"), "lmms/data/testB-00000-of-00001.parquet").parents[1]


@pytest.mark.parametrize("split", ["refcoco", "refcoco-lmms"])
def test_picture_refs__read_back(
    tmp_path: Path,
    small: Any,
    write_parquet: Callable[..., Path],
    read_back: Callable[..., Any],
    names_below: Callable[..., set[str]],
    split: str,
) -> None:
    report = import_data(str(written(small, write_parquet)), split, tmp_path / "data")
    assert report.name == "refcoco-lmms"
    assert {name: (c.refs, c.images, c.expressions) for name, c in report.counts.items()} == {
        "val": (2, 1, 3),
        "testA": (1, 1, 1),
        "testB": (1, 1, 2),
        "google-test": (1, 1, 2),
    }
    pictures = {f"refcoco-lmms/images/COCO_train2014_{number:012d}.jpg" for number in (950, 900, 910)}
    files = {"refcoco-lmms/refs(lmms).p", "refcoco-lmms/instances.json"}
    assert names_below(tmp_path / "data") == pictures | files
    dataset = read_back(tmp_path / "data", "refcoco-lmms")
    assert dataset.problems.summary() == []
    by_split = {name: dataset.refs_of(name) for name in dataset.spec.evaluation}
    assert [ref.image_id for ref in by_split["val"]] == [950, 950]
    for ref, ann_id in (*zip(by_split["val"], (10, 11), strict=True), (by_split["testA"][0], 13)):
        first = small.annotations[ann_id]["segmentation"][0]
        expected = coco_mask.merge(coco_mask.frPyObjects([np.float32(first).tolist()], HEIGHT, WIDTH))
        found = coco_mask.encode(np.asfortranarray(dataset.mask(ref).astype(np.uint8)))
        assert found["counts"] == expected["counts"]
        texts = next(record["sentences"] for record in small.refs if record["ann_id"] == ann_id)
        assert ref.raw_expressions == tuple(sentence["raw"] for sentence in texts)
    with Image.open(dataset.image_path(950)) as image:
        assert image.size == (WIDTH, HEIGHT)
    assert dataset.image_path(950).read_bytes() == small.picture(950)


def test_picture_refs__more_of_val_than_refers_is_said(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(written(small, write_parquet))
    assert import_data(source, "refcoco", tmp_path / "a").lines == ()
    monkeypatch.setitem(picture_refs.REFERS_VAL, "refcoco-lmms", 1)
    (line,) = import_data(source, "refcoco", tmp_path / "b").lines
    assert line.startswith("val: 2 refs, REFER's has 1: this copy mixes Google's val into it")


def test_picture_refs__refs_without_an_outline_are_left_out_and_named(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path]
) -> None:
    source = written(small, write_parquet, edit=lambda row: row.update(segmentation=[1.0, 2.0], question_id="777"))
    report = import_data(str(source), "refcoco", tmp_path / "data")
    assert report.counts["val"].refs == 1
    assert report.lines == ("left out: 1 refs: no outline of three points (question ids): 777",)


def test_picture_refs__empty_expressions_are_said(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path]
) -> None:
    source = written(small, write_parquet, edit=lambda row: row.update(answer=[" ", "cat"]))
    report = import_data(str(source), "refcoco", tmp_path / "data")
    assert report.lines == ("written as it is, but when read: 1 refs kept without their empty expressions (ref ids 5)",)
    assert report.counts["val"].expressions == 3


BAD: list[tuple[dict[str, Any], str]] = [
    ({"image": {"bytes": None, "path": "x.jpg"}}, "expected the bytes of a picture in `image`, found none"),
    ({"image": {"bytes": b"GIF89a nonsense", "path": None}}, "expected a JPEG, PNG or WebP picture in `image`"),
    ({"file_name": "photo.jpg"}, "expected `file_name` like COCO_train2014_000000581857_16.jpg"),
    ({"file_name": "../COCO_train2014_000000000950.jpg"}, "expected `file_name` as a plain file name"),
    ({"segmentation": [1.0, 2.0, 3.0]}, "expected a polygon to be a flat list"),
    ({"segmentation": [1e9, 2.0, 3.0, 4.0, 5.0, 6.0]}, "expected polygon points near the 24x32"),
    ({"bbox": [1.0, 2.0]}, "expected `bbox` as a list of 4 numbers"),
    ({"bbox": [1.0, 2.0, 3.0, float("nan")]}, "expected `bbox` as a list of 4 numbers"),
    ({"answer": None}, "expected `answer` as list, found None"),
    ({"question_id": None}, "expected `question_id` as str"),
]


@pytest.mark.parametrize(("changed", "expected"), BAD, ids=[expected[:50] for _, expected in BAD])
def test_picture_refs__a_row_that_contradicts_the_format_is_named(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], changed: dict[str, Any], expected: str
) -> None:
    source = written(small, write_parquet, edit=lambda row: row.update(changed))
    with pytest.raises(InputError, match=rf"val-00001-of-00002.parquet: row 1.*{expected}"):
        import_data(str(source), "refcoco", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_picture_refs__a_file_not_named_after_its_split(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path]
) -> None:
    source = write_parquet(small.picture_rows("testA"), "mine/0000.parquet")
    with pytest.raises(InputError, match=r"0000.parquet: row 1: expected a file named after its split \(val, testA"):
        import_data(str(source), "refcoco", tmp_path / "data")
    source = write_parquet(small.picture_rows("testA"), "testA/0000.parquet")
    assert list(import_data(str(source), "refcoco", tmp_path / "data").counts) == ["testA"]


def test_picture_refs__one_image_of_two_sizes(tmp_path: Path, small: Any, write_parquet: Callable[..., Path]) -> None:
    other = small.picture(950)
    Image.new("RGB", (8, 8)).save(tmp_path / "8.png")
    changed = {"image": {"bytes": (tmp_path / "8.png").read_bytes(), "path": None}}
    assert other != changed["image"]["bytes"]
    source = written(small, write_parquet, edit=lambda row: row.update(changed))
    with pytest.raises(
        InputError, match=r"row 1: expected the picture .* 32 x 24 pixels of an earlier row, found 8 x 8"
    ):
        import_data(str(source), "refcoco", tmp_path / "data")
