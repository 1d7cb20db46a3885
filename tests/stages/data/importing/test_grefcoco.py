import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.stages.data.annotations import SharedAnnotations
from semires.stages.data.errors import InputError
from semires.stages.data.importing.run import import_data

HEIGHT, WIDTH = 24, 32
Edit = Callable[[list[dict[str, Any]]], None]


def written(small: Any, folder: Path, edit: Edit | None = None) -> Path:
    """gRefCOCO's two files: a pair of objects and nothing in val, single ones and a pair in train, a crowd in testA."""
    small.instances["annotations"].append({**small.annotations[10], "id": 20, "image_id": 900})
    by_id = {ref["ref_id"]: ref for ref in small.refs}
    rows: list[tuple[int, str, list[int], bool]] = [
        (7, "train", [10], False),
        (1, "train", [10, 11], False),
        (2, "val", [12, 12], False),
        (3, "val", [13, 20], False),
        (4, "val", [-1], True),
    ]
    grefs = [
        {**by_id[ref_id], "split": split, "ann_id": targets, "category_id": [18] * len(targets), "no_target": none}
        for ref_id, split, targets, none in rows
    ]
    grefs.append({**grefs[0], "ref_id": 30, "split": "testB", "sentences": [], "sent_ids": []})
    grefs.append({**grefs[3], "ref_id": 31, "image_id": 920, "split": "testA", "ann_id": [12], "category_id": [18]})
    if edit is not None:
        edit(grefs)
    folder.mkdir(parents=True)
    (folder / "grefs(unc).json").write_text(json.dumps(grefs))
    (folder / "instances.json").write_text(json.dumps(small.instances))
    return folder


def no_crowd(small: Any) -> None:
    small.annotations[12]["iscrowd"] = 0


def test_grefcoco__read_back(
    tmp_path: Path, small: Any, read_back: Callable[..., Any], names_below: Callable[..., set[str]]
) -> None:
    no_crowd(small)
    report = import_data(str(written(small, tmp_path / "grefcoco")), "grefcoco", tmp_path / "data")
    assert names_below(tmp_path / "data") == {"grefcoco/refs(unc).p", "grefcoco/instances.json"}
    assert report.lines == ("left out: 1 refs: no expression (ref ids): 30",)
    assert {name: (c.refs, c.images, c.expressions) for name, c in report.counts.items()} == {
        "train": (2, 1, 3),
        "val": (3, 3, 6),
        "testA": (1, 1, 1),
    }
    dataset = read_back(tmp_path / "data", "grefcoco")
    assert dataset.problems.summary() == []
    found = {ref.ref_id: ref for ref in dataset.refs}
    assert {ref_id: ref.ann_ids for ref_id, ref in found.items()} == {
        7: (10,),
        1: (10, 11),
        2: (12,),
        3: (13, 20),
        4: (),
        31: (12,),
    }
    # A polygon, two of them, run lengths alone, two of one image, none.
    for ref_id, ann_ids in ((7, [10]), (1, [10, 11]), (2, [12]), (3, [13, 20])):
        expected = np.any([small.mask(ann_id) for ann_id in ann_ids], axis=0)
        assert np.array_equal(dataset.mask(found[ref_id]), expected)
    assert dataset.mask(found[4]).shape == (HEIGHT, WIDTH)
    assert not dataset.mask(found[4]).any()
    # And so do the processes that read for a model.
    shared = SharedAnnotations(dataset, dataset.refs, "raw")
    for number, ref in enumerate(dataset.refs):
        assert np.array_equal(shared.mask(shared[number]), dataset.mask(ref))


def test_grefcoco__training_skips_what_is_not_one_object_and_says_so(
    tmp_path: Path, small: Any, read_back: Callable[..., Any]
) -> None:
    no_crowd(small)
    import_data(str(written(small, tmp_path / "grefcoco")), "grefcoco", tmp_path / "data")
    dataset = read_back(tmp_path / "data", "grefcoco")
    assert [ref.ref_id for ref in dataset.refs_of("train")] == [7]
    assert [ref.ref_id for ref in dataset.refs_of("val")] == [2, 3, 4]
    assert dataset.notes == ("training skips 1 train refs that mean several objects or none",)


def test_grefcoco__crowds_are_no_targets(tmp_path: Path, small: Any, read_back: Callable[..., Any]) -> None:
    def edit(grefs: list[dict[str, Any]]) -> None:
        grefs[2]["split"] = "train"

    report = import_data(str(written(small, tmp_path / "grefcoco", edit)), "grefcoco", tmp_path / "data")
    assert report.lines == (
        "left out: 3 targets: crowds, as in the authors' code (annotation ids): 12, 12, 12",
        "left out: 2 refs: no target but crowds (ref ids): 2, 31",
        "left out: 1 refs: no expression (ref ids): 30",
    )
    assert [ref.ref_id for ref in read_back(tmp_path / "data", "grefcoco").refs] == [1, 3, 4, 7]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"ann_id": []}, "expected `ann_id` as a list of numbers"),
    ({"ann_id": [10, "11"]}, "expected `ann_id` as a list of numbers"),
    ({"ann_id": None}, "expected `ann_id` as a list of numbers"),
    ({"ann_id": [-1]}, r"expected `ann_id` \[-1\] where `no_target` is true and nowhere else"),
    ({"no_target": True}, r"expected `ann_id` \[-1\] where `no_target` is true and nowhere else"),
    ({"split": "dev"}, "expected a split of train, val, testA, testB, found 'dev'"),
    ({"ref_id": 7}, "expected a ref id of its own"),
    ({"sentences": None}, "expected `sentences` as list"),
    ({"image_id": "950"}, "expected `image_id` as int"),
]


@pytest.mark.parametrize(("changed", "expected"), BAD, ids=[f"{changed}" for changed, _ in BAD])
def test_grefcoco__a_record_that_contradicts_the_format_is_named(
    tmp_path: Path, small: Any, changed: dict[str, Any], expected: str
) -> None:
    source = written(small, tmp_path / "grefcoco", lambda grefs: grefs[1].update(changed))
    with pytest.raises(InputError, match=rf"ref 1.*{expected}"):
        import_data(str(source), "grefcoco", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_grefcoco__not_whole_or_damaged(tmp_path: Path, small: Any) -> None:
    source = written(small, tmp_path / "grefcoco")
    (source / "grefs(unc).json").write_text("[")
    with pytest.raises(InputError, match=r"grefcoco: expected JSON in grefs\(unc\).json, found none"):
        import_data(str(source), "grefcoco", tmp_path / "data")
    (source / "instances.json").unlink()
    with pytest.raises(InputError, match=r"grefcoco: expected instances.json beside grefs\(unc\).json"):
        import_data(str(source), "grefcoco", tmp_path / "data")
    (source / "grefs(unc).json").unlink()
    with pytest.raises(InputError, match=r"grefcoco: expected grefs\(unc\).json in a folder grefcoco, found none"):
        import_data(str(source), "grefcoco", tmp_path / "data")


def test_grefcoco__a_split_in_a_copys_word_is_stored_in_refers(tmp_path: Path, small: Any) -> None:
    def renamed(grefs: list[dict[str, Any]]) -> None:
        for record in grefs:
            record["split"] = record["split"].replace("val", "validation")

    no_crowd(small)
    report = import_data(str(written(small, tmp_path / "grefcoco", renamed)), "grefcoco", tmp_path / "data")
    assert list(report.counts) == ["train", "val", "testA"]
