import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing.reviewed_list import clean, read_wrong
from semires.stages.data.importing.run import import_data

# image id, caption, box, quality
Entry = tuple[int, str, list[float], float]


def write_list(path: Path, entries: list[Entry]) -> Path:
    """As Ref-L4's `refcoco_val_reviewed.json`: an image record an expression, with an id of its own."""
    content = {
        "images": [
            {"id": number, "file_name": f"COCO_train2014_{image_id:012d}.jpg", "caption": caption}
            for number, (image_id, caption, _, _) in enumerate(entries)
        ],
        "annotations": [
            {"id": 100 + number, "image_id": number, "bbox": box, "caption_quality": quality}
            for number, (_, _, box, quality) in enumerate(entries)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_import__without_the_wrong_expressions(
    tmp_path: Path,
    small: Any,
    write_zip: Callable[..., Path],
    read_back: Callable[..., Any],
    names_below: Callable[..., set[str]],
) -> None:
    box = [12.0, 2.5, 10.25, 8.0]
    val = write_list(
        tmp_path / "val.json",
        [(920, "big  Crowd", box, 0), (920, "all of them", box, 1), (920, "PEOPLE", box, 0), (920, "nobody", box, 0)],
    )
    test = write_list(tmp_path / "testA.json", [(900, "the dog", [13.0, 2.5, 10.25, 8.0], 0)])
    report = import_data(str(write_zip(small)), "refcoco", tmp_path / "data", clean_lists=[val, test])
    assert report.name == "refcoco-clean"
    assert names_below(tmp_path / "data") == {"refcoco-clean/refs(unc).p", "refcoco-clean/instances.json"}
    assert report.lines == (
        "left out: 3 expressions that the lists call wrong: 2 of val, 1 of testA",
        "left out: 1 refs without any other: 3",
        "1 wrong expressions of the lists are not in this data set",
    )
    assert {split: (c.refs, c.expressions) for split, c in report.counts.items()} == {
        "train": (2, 3),
        "val": (1, 1),
        "testB": (1, 2),
    }
    dataset = read_back(tmp_path / "data", "refcoco-clean")
    assert [ref.expressions for ref in dataset.refs_of("val")] == [("all of them",)]


def test_import__of_parquet_too(tmp_path: Path, small: Any, write_parquet: Callable[..., Path]) -> None:
    wrong = write_list(tmp_path / "testB.json", [(910, "dog", [14.0, 2.5, 10.25, 8.0], 0)])
    source = write_parquet(small.hub_rows(), "refcoco.parquet")
    report = import_data(str(source), "refcoco-clean", tmp_path / "data", clean_lists=[wrong])
    assert (report.name, report.counts["testB"].expressions) == ("refcoco-clean", 1)


@pytest.mark.parametrize(("box", "left"), [([20.4, 0, 10, 10], [1]), ([0, 0, 10, 10], [2]), ([50, 0, 9, 9], [1, 2])])
def test_clean__box_of_the_wrong_one(tmp_path: Path, box: list[float], left: list[int]) -> None:
    refs: list[dict[str, Any]] = [
        {"ref_id": n, "image_id": 5, "ann_id": n, "split": "val", "sentences": [{"sent": "man", "raw": "Man"}]}
        for n in (1, 2)
    ]
    boxes = {1: (0.0, 0.0, 10.0, 10.0), 2: (20.0, 0.0, 10.0, 10.0)}
    found = clean(refs, boxes, [write_list(tmp_path / "val.json", [(5, "man", box, 0)])])
    assert [ref["ref_id"] for ref in found.refs] == left
    assert found.num_unknown == (len(left) == 2)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("no json", "could not read"),
        ("[]", "expected a dict with `images`"),
        ('{"images": [{"id": 1, "file_name": "x.jpg", "caption": "a"}]}', "expected COCO's file name, found 'x.jpg'"),
        (
            '{"images": [{"id": 1, "file_name": "COCO_train2014_000000000005.jpg", "caption": "a"}], '
            '"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            "expected `caption_quality` and an `image_id`",
        ),
    ],
)
def test_read_wrong__other_files(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        read_wrong(tmp_path / "list.json")
