import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing.reviewed_list import clean, read_list
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


def two_men() -> list[dict[str, Any]]:
    return [
        {"ref_id": n, "image_id": 5, "ann_id": n, "split": "val", "sentences": [{"sent": "man", "raw": "Man"}]}
        for n in (1, 2)
    ]


@pytest.mark.parametrize(("box", "left"), [([20.4, 0, 10, 10], [1]), ([0, 0, 10, 10], [2])])
def test_clean__box_of_the_wrong_one(tmp_path: Path, box: list[float], left: list[int]) -> None:
    boxes = {1: (0.0, 0.0, 10.0, 10.0), 2: (20.0, 0.0, 10.0, 10.0)}
    entries: list[Entry] = [(5, "man", box, 0), (5, "man", [50, 0, 9, 9], 0)]
    found = clean(two_men(), boxes, [read_list(write_list(tmp_path / "val.json", entries))])
    assert [ref["ref_id"] for ref in found.refs] == left
    assert found.num_unknown == 1


def test_clean__one_ref_of_that_text_but_another_box(tmp_path: Path) -> None:
    """A list of another data set: the same image and words, another object."""
    refs, reviewed = two_men()[:1], read_list(write_list(tmp_path / "val.json", [(5, "man", [50, 0, 9, 9], 0)]))
    with pytest.raises(InputError, match=r"none of the 1 expressions that .*val.json calls wrong; is it of"):
        clean(refs, {1: (0.0, 0.0, 10.0, 10.0)}, [reviewed])
    # Without a box, image and text tell; of two refs they do not.
    assert clean(refs, {}, [reviewed]).lost_refs == [1]
    with pytest.raises(InputError, match="found none of the 1 expressions"):
        clean(two_men(), {}, [reviewed])


def test_clean__a_list_without_wrong_expressions(tmp_path: Path) -> None:
    reviewed = read_list(write_list(tmp_path / "val.json", [(5, "man", [0, 0, 10, 10], 1)]))
    assert clean(two_men(), {}, [reviewed]).refs == two_men()


@pytest.mark.parametrize(
    ("sentences", "box", "expected"),
    [
        (None, [12.0, 2.5, 10.25, 8.0], "ref 2: expected `sentences` as list"),
        ([{"sent": 1, "raw": "x"}], [12.0, 2.5, 10.25, 8.0], "ref 2, sentences: expected `sent` as str"),
        ([{"sent": "people", "raw": "x"}], ["a", "b", "c", "d"], "annotation 12: expected `bbox` as a list of 4 num"),
    ],
)
def test_import__archive_that_cannot_be_cleaned_is_one_line(
    tmp_path: Path, small: Any, write_zip: Callable[..., Path], sentences: Any, box: list[Any], expected: str
) -> None:
    small.refs[2]["sentences"], small.annotations[12]["bbox"] = sentences, box
    wrong = write_list(tmp_path / "val.json", [(920, "people", [12.0, 2.5, 10.25, 8.0], 0)])
    with pytest.raises(InputError, match=expected):
        import_data(str(write_zip(small)), "refcoco", tmp_path / "data", clean_lists=[wrong])
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("no json", "could not read"),
        ("[]", "expected a dict with `images`"),
        ('{"images": [], "annotations": [1]}', "expected a dict with `image_id`, found a int"),
        ('{"images": [{"id": 1, "file_name": "x.jpg", "caption": "a"}]}', "expected COCO's file name, found 'x.jpg'"),
        (
            '{"images": [{"id": 1, "file_name": "COCO_train2014_000000000005.jpg", "caption": "a"}], '
            '"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            "expected `caption_quality` and an `image_id`",
        ),
    ],
)
def test_read_list__other_files(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(InputError, match=expected):
        read_list(tmp_path / "list.json")
