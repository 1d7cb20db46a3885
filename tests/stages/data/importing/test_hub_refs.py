import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing.run import import_data

Edit = Callable[[dict[str, Any]], None]


def written(small: Any, write_parquet: Callable[..., Path], *, hub_names: bool = True) -> Path:
    """A folder as the hub's: a file a split; testA is `test` there, val `validation`."""
    folder = Path()
    for split, name in (("train", "train"), ("val", "validation"), ("testA", "test"), ("testB", "testB")):
        rows = [row for row in small.hub_rows() if row["split"] == split]
        for row in rows:
            row["split"] = name if hub_names else split
        folder = write_parquet(rows, f"hub/data/{name}-00000-of-00001-0a1b.parquet").parent
    return folder


@pytest.mark.parametrize("hub_names", [True, False])
def test_hub_refs__read_back(
    tmp_path: Path,
    small: Any,
    write_parquet: Callable[..., Path],
    read_back: Callable[..., Any],
    assert_same_refs: Callable[..., None],
    hub_names: bool,
) -> None:
    source = written(small, write_parquet, hub_names=hub_names)
    report = import_data(str(source), "refcoco", tmp_path / "data")
    assert {split: (c.refs, c.images, c.expressions) for split, c in report.counts.items()} == {
        "train": (2, 1, 3),
        "val": (1, 1, 3),
        "testA": (1, 1, 1),
        "testB": (1, 1, 2),
    }
    assert all("has other counts than the published ones" in line for line in report.lines)
    assert_same_refs(read_back(tmp_path / "data", "refcoco"), small)
    instances = json.loads((tmp_path / "data/refcoco/instances.json").read_bytes())
    boxes = {record["id"]: record["bbox"] for record in instances["annotations"]}
    assert boxes == {record["id"]: record["bbox"] for record in small.instances["annotations"]}


def test_hub_refs__a_single_file(tmp_path: Path, small: Any, write_parquet: Callable[..., Path]) -> None:
    source = write_parquet(small.hub_rows(), "refcocog.parquet")
    with pytest.raises(
        InputError, match=r"refcocog.parquet: row 4: expected a split of train, val, test, found 'testA'"
    ):
        import_data(str(source), "refcocog", tmp_path / "data")
    assert import_data(str(source), "refcoco+", tmp_path / "data").name == "refcoco+"


def set_to(key: str, value: Any) -> Edit:
    return lambda row: row.__setitem__(key, value)


def in_json(key: str, field: str, value: Any) -> Edit:
    return lambda row: row.__setitem__(key, json.dumps({**json.loads(row[key]), field: value}))


BAD: list[tuple[Edit, str]] = [
    (set_to("raw_anns", "{no json"), "expected `raw_anns` as JSON text"),
    (set_to("raw_anns", "[1]"), "expected `raw_anns` as a JSON object, found a list"),
    (set_to("raw_anns", None), "expected `raw_anns` as str, found None"),
    (in_json("raw_anns", "id", 99), "expected `id` 13 in its raw_anns, found 99"),
    (in_json("raw_anns", "image_id", 950), "expected `image_id` 900 in its raw_anns, found 950"),
    (in_json("raw_anns", "segmentation", [[1, 2, 3]]), "expected a polygon to be a flat list"),
    (in_json("raw_anns", "segmentation", "text"), "expected a list of polygons or a run-length dict"),
    (in_json("raw_image_info", "id", 1), "expected `id` 900 in its raw_image_info, found 1"),
    (in_json("raw_image_info", "height", 0), "expected sides of 1 to 65535 pixels, found 0x32"),
    (in_json("raw_image_info", "file_name", "../../x.jpg"), "expected `file_name` as a plain file name"),
    (set_to("ref_id", 7), "expected a ref id of its own, found 7 a second time"),
    (set_to("split", "dev"), "expected a split of train, val, testA, testB, found 'dev'"),
    (set_to("bbox", [1.0, 2.0, 3.0, 4.0]), r"expected `bbox` \[13.0, 2.5, 23.25, 10.5\]"),
    (set_to("bbox", [1.0]), "expected `bbox` as a list of 4 numbers"),
    (set_to("sentences", [{"raw": "x", "sent": None, "sent_id": 1, "tokens": ["x"]}]), "expected `sent` as str"),
]


@pytest.mark.parametrize(("edit", "expected"), BAD, ids=[expected[:40] for _, expected in BAD])
def test_hub_refs__a_row_that_contradicts_the_format_is_named(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], edit: Edit, expected: str
) -> None:
    rows = small.hub_rows()
    edit(rows[3])
    source = write_parquet(rows, "train.parquet")
    with pytest.raises(InputError, match=rf"train.parquet: row 4.*{expected}") as caught:
        import_data(str(source), "refcoco", tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_hub_refs__rows_that_say_two_things_of_one_image_or_annotation(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path]
) -> None:
    rows = small.hub_rows()
    in_json("raw_image_info", "width", 640)(rows[1])
    with pytest.raises(InputError, match="row 2: expected image 950 with the width of an earlier row, 32, found 640"):
        import_data(str(write_parquet(rows, "a.parquet")), "refcoco", tmp_path / "data")
    rows = [*small.hub_rows(), {**small.hub_rows()[0], "ref_id": 99}]
    in_json("raw_anns", "segmentation", [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0]])(rows[-1])
    with pytest.raises(InputError, match="row 6: expected annotation 10 as in an earlier row"):
        import_data(str(write_parquet(rows, "b.parquet")), "refcoco", tmp_path / "data")


def test_hub_refs__boxes_as_sides_and_none(tmp_path: Path, small: Any, write_parquet: Callable[..., Path]) -> None:
    rows = small.hub_rows()
    for row in rows:
        row["bbox"] = small.annotations[row["ann_id"]]["bbox"]
    rows[1]["bbox"] = None
    assert import_data(str(write_parquet(rows, "refcoco.parquet")), "refcoco", tmp_path / "data").num_files == 2
