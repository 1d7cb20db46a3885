import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from semires.stages.data.annotations import SharedAnnotations
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.json_lines.reading import load_json_lines, read_json_lines
from semires.stages.data.refer import ReferDataset

from .conftest import HEIGHT, WIDTH, WriteLines

BOX = [1, 2, 5, 2, 5, 6, 1, 6]


def run_lengths(mask: np.ndarray) -> str:
    counts: bytes = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode()


def reasons(path: Path) -> list[str]:
    return [str(bad) for bad in read_json_lines(path).bad]


def test_load__masks_in_every_form(folder: Path, write_lines: WriteLines, square: np.ndarray) -> None:
    (folder / "masks").mkdir()
    Image.fromarray(square).save(folder / "masks" / "1.png")
    forms: list[Any] = [
        [BOX],
        BOX,
        [BOX[:4], BOX],  # two points of no area, and the box
        {"size": [HEIGHT, WIDTH], "counts": run_lengths(square)},
        {"size": [HEIGHT, WIDTH], "counts": [14, 4, 8, 4, 8, 4, 8, 4, 138]},
        "masks/1.png",
        str(folder / "masks" / "1.png"),
    ]
    dataset = load_json_lines(str(write_lines(*({"mask": form} for form in forms))))
    assert len(dataset.refs) == len(forms)
    for ref in dataset.refs:
        assert ref.has_mask
        np.testing.assert_array_equal(dataset.mask(ref), square)


def test_load__is_the_data_set_that_refer_has(refshapes: ReferDataset, refshapes_root: Path, tmp_path: Path) -> None:
    """The same refs, texts, masks and images, whatever the layout they come in."""
    lines = [
        {
            "image": str(refshapes.image_path(ref.image_id)),
            "expressions": list(ref.raw_expressions),
            "split": ref.split,
            "mask": {"size": [96, 128], "counts": run_lengths(refshapes.mask(ref))},
            "ref": ref.ref_id,
            "category": refshapes.category(ref),
        }
        for ref in reversed(refshapes.refs)
    ]
    path = tmp_path / "same.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    own = load_json_lines(str(path))

    assert own.spec.evaluation == refshapes.spec.evaluation == ("val", "testA", "testB")
    assert (own.problems.num_dropped, own.notes) == (0, ())
    assert len(own.image_ids) == len(refshapes.image_ids)
    for split in ("train", "val", "testA", "testB", "test"):
        pairs = list(zip(own.refs_of(split), refshapes.refs_of(split), strict=True))
        assert pairs
        for mine, theirs in pairs:
            assert (mine.ref_id, mine.split, mine.texts("raw")) == (theirs.ref_id, theirs.split, theirs.texts("raw"))
            assert mine.texts("sent") == mine.texts("raw")
            assert own.category(mine) == refshapes.category(theirs)
            assert own.image_size(mine.image_id) == refshapes.image_size(theirs.image_id)
            np.testing.assert_array_equal(own.mask(mine), refshapes.mask(theirs))
            np.testing.assert_array_equal(own.image(mine.image_id), refshapes.image(theirs.image_id))


def test_load__ids_of_images_and_refs(folder: Path, write_lines: WriteLines) -> None:
    path = write_lines(
        {"image": "sub/b.jpg"},
        {"image": "./sub/../a.png", "ref": 100},
        {"image": str(folder / "a.png")},
        "",
        {"image": "a.png", "category": "dog"},
    )
    dataset = load_json_lines(str(path))
    assert [ref.ref_id for ref in dataset.refs] == [1, 3, 5, 100]  # without `ref`, the number of the line
    a, b = image_id_of("a.png"), image_id_of("sub/b.jpg")
    assert [ref.image_id for ref in dataset.refs] == [b, a, a, a]
    assert [ref.ann_id for ref in dataset.refs] == [1, 3, 5, 100]
    assert [dataset.category(ref) for ref in dataset.refs] == ["", "", "dog", ""]
    assert dataset.image_path(b) == folder / "sub" / "b.jpg"
    # A line more, at the top, renumbers no image.
    more = load_json_lines(str(write_lines({"image": "sub/b.jpg", "ref": 7}, {"image": "a.png"})))
    assert more.image_ids == [a, b]


def test_load__the_folder_moves_with_its_file(folder: Path, write_lines: WriteLines, tmp_path: Path) -> None:
    before = load_json_lines(str(write_lines({"image": "sub/b.jpg"}))).image_ids
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    folder.rename(moved)
    assert load_json_lines(str(moved / "my.jsonl")).image_ids == before


def test_load__refs_without_a_mask(write_lines: WriteLines) -> None:
    dataset = load_json_lines(str(write_lines({"mask": [BOX]}, {}, {"mask": None, "image": "sub/b.jpg"})))
    assert [ref.has_mask for ref in dataset.refs] == [True, False, False]
    assert [dataset.segmentation(ref) is None for ref in dataset.refs] == [False, True, True]
    with pytest.raises(InputError, match=r"expected a ref of .*my\.jsonl with a mask, found ref 2 without one"):
        dataset.mask(dataset.refs[1])
    assert dataset.notes == (
        "1 train images have refs with a mask and refs without one ('a.png'): the former are labeled, the latter are "
        "not",
    )


def test_load__bom_windows_line_ends_and_blank_lines(write_lines: WriteLines) -> None:
    line = b'{"image": "a.png", "expressions": ["dog"], "split": "train"}'
    path = write_lines(b"\xef\xbb\xbf" + line + b"\r", b"", b"  \r", line)
    assert [ref.ref_id for ref in load_json_lines(str(path)).refs] == [1, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="file systems elsewhere allow fewer names")
@pytest.mark.parametrize("name", ["[bold]{x} %s.png", "a\nb.png", "Blüte 中.png", "bl\udcfcte.png", "-x.png", "~.png"])
def test_load__names_of_any_character(folder: Path, write_lines: WriteLines, square: np.ndarray, name: str) -> None:
    os.rename(folder / "a.png", folder / name)
    Image.fromarray(square).save(folder / "m.png")
    os.rename(folder / "m.png", folder / f"m{name}")
    dataset = load_json_lines(str(write_lines({"image": name, "mask": f"m{name}"})))
    (ref,) = dataset.refs
    assert dataset.image(ref.image_id).shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(dataset.mask(ref), square)


def test_load__a_bad_line_is_one_line(write_lines: WriteLines) -> None:
    path = write_lines({}, "", {"image": "gone\n.png"})
    with pytest.raises(InputError) as caught:
        load_json_lines(str(path))
    assert str(caught.value) == (
        rf"{path}: line 3: {path.parent}/gone\n.png: expected an image file, found none; check the path"
    )


def test_load__bad_lines_are_all_counted_and_twenty_named(write_lines: WriteLines) -> None:
    path = write_lines({}, *({"split": f"no{number}"} for number in range(25)))
    with pytest.raises(InputError) as caught:
        load_json_lines(str(path))
    first, *named, last = str(caught.value).splitlines()
    assert first == f"{path}: 25 of 26 lines cannot be used, mend them:"
    assert [line.partition(":")[0] for line in named] == [f"  line {number}" for number in range(2, 22)]
    assert named[0].endswith("found 'no0'")
    assert last == "  and 5 more: `semires data check` names all"


def test_load__nothing_to_read(folder: Path, write_lines: WriteLines) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: expected a JSON-lines file, could not read it \(No such file"):
        load_json_lines(str(folder / "none.jsonl"))
    (folder / "sub.jsonl").mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        load_json_lines(str(folder / "sub.jsonl"))
    with pytest.raises(InputError, match="expected JSON lines, an object a line, found none"):
        load_json_lines(str(write_lines("", " ")))


def test_read__refs_of_one_number(write_lines: WriteLines) -> None:
    path = write_lines({"ref": 3}, {"ref": 3}, {})
    assert reasons(path) == [
        "line 2: expected a ref of its own, found 3, which line 1 has; give it another `ref`",
        "line 3: expected a ref of its own, found 3, the number of its line, which line 1 has; give it another `ref`",
    ]


def test_read__every_line_of_a_bad_image_is_named(folder: Path, write_lines: WriteLines) -> None:
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:20])
    found = reasons(write_lines({"image": "cut.png"}, {"image": "cut.png"}, {"image": "sub"}))
    assert [text.partition(":")[0] for text in found] == ["line 1", "line 2", "line 3"]
    assert "cut.png: expected an image, found a damaged or other file" in found[1]
    assert "IsADirectoryError" in found[2]


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ([], "expected a `mask` that covers a pixel, found an empty one"),
        ([[1, 2, 3, 4]], "expected a `mask` that covers a pixel, found an empty one"),
        ([[-9, -9, -5, -9, -5, -5]], "expected a `mask` that covers a pixel, found an empty one"),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, "expected a `mask` that covers a pixel"),
        ([[0, 0, float("nan"), 1, 2, 2]], "expected polygon points near the 12x16"),
        ([[0, 0, 99, 1, 2, 2]], r"expected polygon points near the 12x16 .* found \(99, 1\)"),
        ([[[0, 0], [1, 1], [2, 0]]], "expected a polygon to be a flat list"),
        ({"size": [WIDTH, HEIGHT], "counts": [192]}, r"expected a mask of the image's size \[12, 16\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [191]}, "expected runs that add up to 12 x 16"),
        ({"size": [HEIGHT, WIDTH]}, "expected `counts` to be a list of integers or a string"),
        ("none.png", "none.png: expected an image file, found none"),
        ("sub/b.jpg", "sub/b.jpg: expected a mask as PNG, found JPEG"),
        ("small.png", r"small.png: expected a mask of the image's size \(12, 16\) .* found \(3, 4\)"),
        ("black.png", "expected a `mask` that covers a pixel, found an empty one"),
    ],
)
def test_read__masks_that_do_not_fit(folder: Path, write_lines: WriteLines, mask: Any, text: str) -> None:
    Image.new("L", (4, 3), 255).save(folder / "small.png")
    Image.new("L", (WIDTH, HEIGHT)).save(folder / "black.png")
    (reason,) = reasons(write_lines({}, {"mask": mask}))
    assert reason.startswith("line 2: ")
    with pytest.raises(InputError, match=text):
        raise InputError(reason)


def test_notes__shared_images_and_turned_ones(folder: Path, write_lines: WriteLines) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(5):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{number}.jpg", exif=exif)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(folder / "deep.png")
    path = write_lines(
        *({"image": f"{number}.jpg"} for number in range(5)),
        {"image": "deep.png"},
        {"image": "a.png"},
        {"image": "a.png", "split": "val", "mask": [BOX]},
        {"image": "a.png", "split": "test", "mask": [BOX]},
        {"image": "sub/b.jpg", "split": "val", "mask": [BOX]},
        {"image": "sub/b.jpg", "split": "test", "mask": [BOX]},
    )
    dataset = load_json_lines(str(path))
    assert dataset.spec.evaluation == ("val", "test")
    assert dataset.notes == (
        "1 train images are evaluated on too ('a.png'): scores are too good",
        "5 images ask by EXIF to be turned ('0.jpg', '1.jpg', '2.jpg', …), which is done: masks and expressions "
        "must fit the upright pictures",
        "1 images have more than 8 bits a pixel ('deep.png'): each is scaled by its own range",
    )


def test_load__photographs_are_upright(folder: Path, write_lines: WriteLines) -> None:
    """Whoever draws a mask sees the photograph upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, :4] = 255  # what is stored on the left is on top
    Image.fromarray(pixels).save(folder / "phone.png", exif=exif)
    Image.fromarray(pixels[:, :, 0].T.copy()).save(folder / "upright.png")
    Image.fromarray(pixels[:, :, 0]).save(folder / "stored.png")
    dataset = load_json_lines(str(write_lines({"image": "phone.png", "mask": "upright.png"}, {"image": "a.png"})))
    (ref, _) = dataset.refs
    assert dataset.is_upright
    assert dataset.turned_ids == {ref.image_id}
    assert dataset.image_size(ref.image_id) == (WIDTH, HEIGHT)
    samples = SharedAnnotations(dataset, [ref], "raw")
    for image in (dataset.image(ref.image_id), samples.image(samples[0])):
        np.testing.assert_array_equal(image[..., 0] > 0, dataset.mask(ref))
    (reason,) = reasons(write_lines({"image": "phone.png", "mask": "stored.png"}))
    assert reason.endswith(", that of the pixels as stored; turn the mask as its image is")
