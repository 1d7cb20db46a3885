import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.instances import AnnotationRecord, ImageRecord, field_of, read_instances
from semires.stages.data.masks import decode_segmentation

HEIGHT, WIDTH = 12, 16
BOX = [1.0, 2.0, 5.0, 2.0, 5.0, 6.0, 1.0, 6.0]

Edit = Callable[[dict[str, Any]], None]


def write_instances(folder: Path, edit: Edit | None = None) -> Path:
    """Images 7 and 8 with annotations 70, 71 and 80, changed by `edit(content)` before they are written."""
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in (7, 8)],
        "annotations": [
            {"id": ann_id, "image_id": image_id, "segmentation": [BOX]}
            for ann_id, image_id in ((70, 7), (71, 7), (80, 8))
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 90, "name": "cat"}],
    }
    if edit is not None:
        edit(content)
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_read_instances__only_what_is_asked_for(tmp_path: Path) -> None:
    instances = read_instances(write_instances(tmp_path), {71, 80, 1234}, {7, 999})
    assert instances.images == {7: ImageRecord("7.jpg", HEIGHT, WIDTH)}
    assert set(instances.annotations) == {71, 80}
    assert instances.annotations[71].image_id == 7
    mask = instances.annotations[71].mask
    assert mask is not None
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[2:6, 1:5] = True
    assert np.array_equal(decode_segmentation(mask, HEIGHT, WIDTH), expected)
    # Without its image's size a mask cannot be checked; the ref on it is dropped anyway.
    assert instances.annotations[80] == AnnotationRecord(8, None)
    assert instances.categories == {1: "dog", 90: "cat"}


def test_read_instances__annotations_listed_before_their_images(tmp_path: Path) -> None:
    path = write_instances(tmp_path)
    content = json.loads(path.read_text())
    expected = read_instances(path, {71, 80}, {7})
    path.write_text(json.dumps(dict(reversed(content.items()))))
    found = read_instances(path, {71, 80}, {7})
    assert list(content) != list(json.loads(path.read_text()))
    assert (found.images, found.categories) == (expected.images, expected.categories)
    assert np.array_equal(found.annotations[71].mask, expected.annotations[71].mask)  # type: ignore[arg-type]
    assert found.annotations[80] == expected.annotations[80]


def test_read_instances__two_images_of_one_id(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["images"].append(content["images"][0] | changed)

    changed: dict[str, Any] = {}
    path = write_instances(tmp_path, edit)  # the same record again says nothing else
    assert read_instances(path, {70}, {7}).images == {7: ImageRecord("7.jpg", HEIGHT, WIDTH)}
    changed = {"file_name": "8.jpg"}
    with pytest.raises(InputError, match=r"images\[2\]: expected an id of its own, found 7 a second time"):
        read_instances(write_instances(tmp_path, edit), {70}, {7})
    assert set(read_instances(path, {80}, {8}).images) == {8}


def test_read_instances__annotation_without_a_mask(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]

    assert read_instances(write_instances(tmp_path, edit), {70}, {7}).annotations == {70: AnnotationRecord(7, None)}


def test_read_instances__damage_nobody_asks_for(tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["images"][1] = {"id": 8, "file_name": "../8.jpg", "height": 0}
        content["annotations"][2] = {"id": 80, "segmentation": "nonsense"}
        content["annotations"].append({"id": 80})

    assert set(read_instances(write_instances(tmp_path, edit), {70}, {7}).annotations) == {70}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"images": 1}'])
def test_read_instances__damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"instances\.json: expected") as caught:
        read_instances(path, {70}, {7})
    assert "\n" not in str(caught.value)


def test_read_instances__missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"instances\.json: expected COCO's JSON, could not read it"):
        read_instances(tmp_path / "instances.json", {70}, {7})


@pytest.mark.parametrize(
    "name", ["../x.jpg", "..", "", ".", "/etc/passwd", "a/b.jpg", "a\\b.jpg", "C:x.jpg", "x\0.jpg"]
)
def test_read_instances__image_name_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"images\[0\]: expected a plain file name"):
        read_instances(write_instances(tmp_path, _set("images", "file_name", name)), {70}, {7})


def _set(table: str, key: str, value: Any) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        content[table][0][key] = value

    return edit


def _replace(table: str, value: Any) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        content[table] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("images", "height", 0), r"images\[0\]: expected sides of 1 to 65535 pixels, found 0x16"),
        (_set("images", "width", 65_536), r"images\[0\]: expected sides of 1 to 65535 pixels, found 12x65536"),
        (_set("images", "width", "16"), r"images\[0\]: expected `width` as int"),
        (_set("annotations", "id", 71), r"annotations\[1\]: expected an id of its own, found 71"),
        (_set("annotations", "image_id", 7.0), r"annotations\[0\]: expected `image_id` as int, found 7.0"),
        (_set("annotations", "segmentation", None), r"annotations\[0\] \(id 70\): expected a list of polygons"),
        (
            _set("annotations", "segmentation", {"size": [16, 12], "counts": [192]}),
            r"annotations\[0\] \(id 70\): expected a mask of the image's size \[12, 16\].*found \[16, 12\]",
        ),
        (_set("categories", "name", 4), r"categories\[0\]: expected `name` as str"),
        (_replace("images", {}), r"instances\.json: expected `images` as list"),
        (_replace("annotations", [4]), r"annotations\[0\]: expected a dict with `id`, found a int"),
    ],
)
def test_read_instances__contradicts_the_format(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_instances(write_instances(tmp_path, edit), {70, 71}, {7})
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_field_of__exact_types() -> None:
    record = {"number": 4, "truth": True, "text": "dog", "nothing": None}
    assert field_of(record, "number", int, "here") == 4
    assert field_of(record, "text", str, "here") == "dog"
    for key, found in (("truth", "True"), ("nothing", "None"), ("missing", "None")):
        with pytest.raises(InputError, match=f"here: expected `{key}` as int, found {found}"):
            field_of(record, key, int, "here")
    with pytest.raises(InputError, match=r"here: expected a dict with `number`, found a list"):
        field_of([4], "number", int, "here")
