import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from semires.stages.data.errors import InputError
from semires.stages.data.labeled import draw_labeled_images, split_refs
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.splits import SPLITS

HEIGHT, WIDTH = 12, 16
# image id, annotation id, category, split, expressions; the file's order is not the ref ids' order.
ROWS: list[tuple[int, int, int, int, str, list[str]]] = [
    (3, 900, 13, 1, "val", ["the dog"]),
    (0, 950, 10, 1, "train", ["left dog", " brown dog "]),
    (1, 950, 11, 2, "train", ["cat"]),
    (2, 920, 12, 2, "testA", ["big cat", "big cat"]),
    (4, 910, 14, 1, "testB", ["dog", "it"]),
]
BOX = [1.0, 2.0, 5.0, 2.0, 5.0, 6.0, 1.0, 6.0]

Edit = Callable[[list[dict[str, Any]], dict[str, Any]], None]


def mask_of(ann_id: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    if ann_id in (10, 13, 14):
        mask[2:6, 1:5] = True
    if ann_id == 10:
        mask[8:10, 10:12] = True
    if ann_id in (11, 12):
        mask[3:9, 7] = True
    return mask


def segmentation_of(ann_id: int) -> Any:
    if ann_id == 10:
        return [BOX, [10, 8, 12, 8, 12, 10, 10, 10]]
    if ann_id == 11:
        before = 7 * HEIGHT + 3
        return {"size": [HEIGHT, WIDTH], "counts": [before, 6, HEIGHT * WIDTH - before - 6]}
    if ann_id == 12:
        counts = coco_mask.encode(np.asfortranarray(mask_of(12).astype(np.uint8)))["counts"]
        return {"size": [HEIGHT, WIDTH], "counts": counts.decode()}
    return [BOX]


def file_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def write_refer(root: Path, edit: Edit | None = None, split_name: str = "refcoco") -> Path:
    """A small data set in REFER's layout, changed by `edit(refs, instances)` before it is written."""
    spec = SPLITS[split_name]
    image_ids = sorted({row[1] for row in ROWS})
    refs: list[dict[str, Any]] = [
        {
            "ref_id": ref_id,
            "image_id": image_id,
            "ann_id": ann_id,
            "category_id": category_id,
            "split": split,
            "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
            "sent_ids": list(range(len(texts))),
            "sentences": [
                {"sent": text, "raw": f"{text.capitalize()}! ", "sent_id": i, "tokens": []}
                for i, text in enumerate(texts)
            ],
        }
        for ref_id, image_id, ann_id, category_id, split, texts in ROWS
    ]
    instances: dict[str, Any] = {
        "images": [{"id": i, "file_name": file_name(i), "height": HEIGHT, "width": WIDTH} for i in [*image_ids, 999]],
        "annotations": [
            {"id": row[2], "image_id": row[1], "category_id": row[3], "segmentation": segmentation_of(row[2])}
            for row in ROWS
        ]
        # Objects and images nobody refers to are not looked at.
        + [{"id": 99, "image_id": 999, "category_id": 1, "segmentation": "nonsense"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    images = root / spec.images
    images.mkdir(parents=True)
    for image_id in image_ids:
        Image.new("RGB", (WIDTH, HEIGHT), (image_id % 256, 0, 0)).save(images / file_name(image_id))
    if edit is not None:
        edit(refs, instances)
    (root / spec.folder).mkdir(exist_ok=True)
    (root / spec.folder / f"refs({spec.by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    (root / spec.folder / "instances.json").write_text(json.dumps(instances))
    return root


def test_splits__names_and_files() -> None:
    assert {name: (spec.folder, spec.by, spec.evaluation) for name, spec in SPLITS.items()} == {
        "refcoco": ("refcoco", "unc", ("val", "testA", "testB")),
        "refcoco+": ("refcoco+", "unc", ("val", "testA", "testB")),
        "refcocog": ("refcocog", "umd", ("val", "test")),
        "refcocog-google": ("refcocog", "google", ("val",)),
        "refshapes": ("refshapes", "procedural", ("val", "testA", "testB")),
        "refcoco-clean": ("refcoco-clean", "unc", ("val", "testA", "testB")),
        "refcoco+-clean": ("refcoco+-clean", "unc", ("val", "testA", "testB")),
        "refcocog-clean": ("refcocog-clean", "umd", ("val", "test")),
        "refcoco-lmms": ("refcoco-lmms", "lmms", ("val", "testA", "testB")),
        "refcoco+-lmms": ("refcoco+-lmms", "lmms", ("val", "testA", "testB")),
        "refcocog-lmms": ("refcocog-lmms", "lmms", ("val", "test")),
        "grefcoco": ("grefcoco", "unc", ("val", "testA", "testB")),
        "refcoco-m": ("refcoco-m", "moondream", ("val",)),
    }
    assert all(name == spec.name for name, spec in SPLITS.items())


@pytest.mark.parametrize("split_name", list(SPLITS))
def test_load__every_data_set(tmp_path: Path, split_name: str) -> None:
    dataset = ReferDataset.load(write_refer(tmp_path, split_name=split_name), split_name)
    assert len(dataset.refs) == 5
    assert dataset.spec.name == split_name
    assert dataset.problems.num_dropped == 0
    assert dataset.problems.summary() == []


def test_load__refs_in_ref_id_order(tmp_path: Path) -> None:
    dataset = ReferDataset.load(str(write_refer(tmp_path)), "refcoco")
    assert [ref.ref_id for ref in dataset.refs] == [0, 1, 2, 3, 4]
    assert dataset.image_ids == [950, 920, 900, 910]
    assert dataset.refs[0] == Ref(
        ref_id=0,
        image_id=950,
        ann_id=10,
        category_id=1,
        split="train",
        expressions=("left dog", "brown dog"),
        raw_expressions=("Left dog!", "brown dog !"),
    )
    assert dataset.refs[2].expressions == ("big cat", "big cat")


def test_load__with_labeled_split(tmp_path: Path) -> None:
    train = ReferDataset.load(write_refer(tmp_path), "refcoco").refs_of("train")
    labeled, unlabeled = split_refs(train, draw_labeled_images(train, 1.0))
    assert [ref.ref_id for ref in labeled] == [0, 1]
    assert unlabeled == []


def test_refs_of__names(tmp_path: Path) -> None:
    dataset = ReferDataset.load(write_refer(tmp_path), "refcoco")
    assert {split: [ref.ref_id for ref in dataset.refs_of(split)] for split in ("train", "val", "testA", "testB")} == {
        "train": [0, 1],
        "val": [3],
        "testA": [2],
        "testB": [4],
    }
    assert [ref.ref_id for ref in dataset.refs_of("test")] == [2, 4]
    with pytest.raises(InputError, match="found 'testC'; it has testA, testB, train, val"):
        dataset.refs_of("testC")


def test_mask__polygons_and_both_run_lengths(tmp_path: Path) -> None:
    dataset = ReferDataset.load(write_refer(tmp_path), "refcoco")
    for ref in dataset.refs:
        mask = dataset.mask(ref)
        assert mask.dtype == np.bool_
        assert np.array_equal(mask, mask_of(ref.ann_id)), ref


def test_image__path_size_and_pixels(tmp_path: Path) -> None:
    dataset = ReferDataset.load(write_refer(tmp_path), "refcoco")
    assert dataset.image_path(950) == tmp_path / "images/mscoco/images/train2014/COCO_train2014_000000000950.jpg"
    assert dataset.image_size(950) == (HEIGHT, WIDTH)
    assert dataset.image(950).shape == (HEIGHT, WIDTH, 3)
    for unknown in (999, 7):
        with pytest.raises(InputError, match=f"found id {unknown}"):
            dataset.image_path(unknown)


def test_image__of_another_size(tmp_path: Path) -> None:
    dataset = ReferDataset.load(write_refer(tmp_path), "refcoco")
    Image.new("RGB", (HEIGHT, WIDTH)).save(dataset.image_path(950))
    with pytest.raises(InputError, match=r"expected \(12, 16\) pixels.*found \(16, 12\)"):
        dataset.image(950)


def test_load__image_folder_of_ones_own(tmp_path: Path) -> None:
    write_refer(tmp_path)
    (tmp_path / SPLITS["refcoco"].images).rename(tmp_path / "coco")
    dataset = ReferDataset.load(tmp_path, "refcoco", images=tmp_path / "coco")
    assert dataset.image(900).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(InputError, match=r"no images for refcoco.*train2014, found none.*README"):
        ReferDataset.load(tmp_path, "refcoco")


def test_category__name(tmp_path: Path) -> None:
    def edit(refs: list[dict[str, Any]], instances: dict[str, Any]) -> None:
        refs[0]["category_id"] = 77

    dataset = ReferDataset.load(write_refer(tmp_path, edit), "refcoco")
    assert [dataset.category(dataset.refs[i]) for i in (0, 1)] == ["dog", "cat"]
    with pytest.raises(InputError, match=r"ref 3: expected a category .* found id 77"):
        dataset.category(dataset.refs[3])


def test_load__pickles_to_workers(tmp_path: Path) -> None:
    dataset = ReferDataset.load(write_refer(tmp_path), "refcoco")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.refs == dataset.refs
    assert copy.problems == dataset.problems
    assert all(np.array_equal(copy.mask(ref), dataset.mask(ref)) for ref in dataset.refs)
    assert copy.image_path(950) == dataset.image_path(950)


def test_problems__drops_and_names_single_refs(tmp_path: Path) -> None:
    def edit(refs: list[dict[str, Any]], instances: dict[str, Any]) -> None:
        by_id = {ref["ref_id"]: ref for ref in refs}
        more = [{**by_id[0], "ref_id": ref_id} for ref_id in range(10, 17)]
        more[0]["image_id"] = 4
        more[1]["image_id"] = 999
        more[2]["ann_id"] = 1234
        more[3]["ann_id"] = 13
        more[4]["ann_id"] = 50
        more[5]["sentences"] = [{"sent": "  "}]
        more[6]["sentences"] = []
        by_id[1]["sentences"] = [{"sent": ""}, {"sent": "cat"}]
        refs.extend(more)
        instances["annotations"].append({"id": 50, "image_id": 950, "category_id": 1, "segmentation": [[1, 1, 2, 2]]})

    dataset = ReferDataset.load(write_refer(tmp_path, edit), "refcoco")
    problems = dataset.problems
    assert [ref.ref_id for ref in dataset.refs] == [0, 1, 2, 3, 4]
    assert dataset.refs[1].expressions == ("cat",)
    assert problems.no_image_record == (10,)
    assert problems.no_image_file == (11,)
    assert problems.no_annotation == (12,)
    assert problems.other_image == (13,)
    assert problems.no_mask == (14,)
    assert problems.no_expression == (15, 16)
    assert problems.empty_expressions == (1,)
    assert problems.single_text == (1,)
    assert problems.num_dropped == 7
    (split,) = {ref.split for ref in dataset.refs if ref.ref_id == 0}
    assert problems.lost(split) == (10, 11, 12, 13, 14, 15, 16)
    assert problems.num_refs_of(split) == len(dataset.refs_of(split)) + 7
    assert sum(problems.num_refs.values()) == len(dataset.refs) + 7
    assert len(problems.summary()) == 8
    assert "1 refs dropped: image file missing (ref ids 11)" in problems.summary()
    assert "2 refs dropped: no expression (ref ids 15, 16)" in problems.summary()


def test_load__refs_of_several_annotations_and_of_none(tmp_path: Path) -> None:
    """As gRefCOCO has them; of several, each must be there."""

    def edit(refs: list[dict[str, Any]], instances: dict[str, Any]) -> None:
        by_id = {ref["ref_id"]: ref for ref in refs}
        by_id[0].update(ann_id=[10, 11, 10], category_id=[1, 2, 1])
        by_id[2].update(ann_id=[-1], category_id=[-1])
        by_id[3].update(ann_id=[13], category_id=[1])
        refs.append({**by_id[4], "ref_id": 20, "ann_id": [14, 1234]})
        refs.append({**by_id[4], "ref_id": 21, "ann_id": [14, 10]})
        refs.append({**by_id[4], "ref_id": 22, "ann_id": []})

    dataset = ReferDataset.load(write_refer(tmp_path, edit), "refcoco")
    refs = {ref.ref_id: ref for ref in dataset.refs}
    found = {ref_id: ref.ann_ids for ref_id, ref in refs.items()}
    assert found == {0: (10, 11), 1: (11,), 2: (), 3: (13,), 4: (14,), 22: ()}
    assert (dataset.problems.no_annotation, dataset.problems.other_image) == ((20,), (21,))
    assert np.array_equal(dataset.mask(refs[0]), mask_of(10) | mask_of(11))
    assert not dataset.mask(refs[2]).any()
    assert [ref.ref_id for ref in dataset.refs_of("train")] == [1]
    assert dataset.notes == ("training skips 1 train refs that mean several objects or none",)


@pytest.mark.parametrize("ann_id", [[10, "11"], [10, None], [-1, 10], [True], "10"])
def test_load__annotation_that_is_no_number_nor_a_list_of_numbers(tmp_path: Path, ann_id: Any) -> None:
    root = write_refer(tmp_path, lambda refs, _: refs[1].update(ann_id=ann_id))
    with pytest.raises(InputError, match="ref 1: expected `ann_id` as"):
        ReferDataset.load(root, "refcoco")


def sentences_of_ref_1(*sentences: dict[str, Any]) -> Edit:
    def edit(refs: list[dict[str, Any]], instances: dict[str, Any]) -> None:
        next(ref for ref in refs if ref["ref_id"] == 1)["sentences"] = list(sentences)

    return edit


@pytest.mark.parametrize(
    ("sentence", "sent", "raw"),
    [
        ({"sent": " cat, left", "raw": "Cat, LEFT! "}, "cat, left", "Cat, LEFT!"),
        ({"sent": "cat"}, "cat", "cat"),
        ({"sent": "cat", "raw": None}, "cat", "cat"),
        ({"sent": "cat ", "raw": " \t"}, "cat", "cat"),
        ({"sent": "", "raw": "CAT"}, "CAT", "CAT"),
        ({"raw": "CAT "}, "CAT", "CAT"),
        ({"sent": None, "raw": "CAT"}, "CAT", "CAT"),
    ],
)
def test_texts__sent_and_raw_or_one_for_both(tmp_path: Path, sentence: dict[str, Any], sent: str, raw: str) -> None:
    edit = sentences_of_ref_1({"sent": "it", "raw": "It"}, sentence)
    dataset = ReferDataset.load(write_refer(tmp_path, edit), "refcoco")
    ref = dataset.refs[1]
    assert ref.expressions == ref.texts("sent") == ("it", sent)
    assert ref.raw_expressions == ref.texts("raw") == ("It", raw)
    problems = dataset.problems
    assert problems.single_text == (() if sent != raw else (1,))
    assert (problems.num_dropped, problems.empty_expressions) == (0, ())
    lines = ["1 refs kept with sentences that lack `raw` or `sent`: one stands for both (ref ids 1)"]
    assert problems.summary() == (lines if problems.single_text else [])


def test_texts__a_sentence_without_either_is_dropped_in_both(tmp_path: Path) -> None:
    edit = sentences_of_ref_1({"sent": " ", "raw": ""}, {"sent": "cat", "raw": "Cat"}, {"sent": ""})
    dataset = ReferDataset.load(write_refer(tmp_path, edit), "refcoco")
    assert (dataset.refs[1].expressions, dataset.refs[1].raw_expressions) == (("cat",), ("Cat",))
    assert (dataset.problems.empty_expressions, dataset.problems.single_text) == ((1,), ())


def test_problems__missing_image_files(tmp_path: Path) -> None:
    write_refer(tmp_path)
    folder = tmp_path / SPLITS["refcoco"].images
    (folder / file_name(950)).unlink()
    (folder / file_name(900)).unlink()
    (folder / file_name(900)).mkdir()
    dataset = ReferDataset.load(tmp_path, "refcoco")
    assert dataset.problems.no_image_file == (0, 1, 3)
    assert dataset.image_ids == [920, 910]


def test_load__no_usable_ref(tmp_path: Path) -> None:
    write_refer(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"found none of 5 usable \(5 refs dropped: image file missing .*README"):
        ReferDataset.load(tmp_path, "refcoco", images=tmp_path / "other")


def test_load__empty_list_of_refs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found none of 0 usable \(the list is empty\)"):
        ReferDataset.load(write_refer(tmp_path, lambda refs, instances: refs.clear()), "refcoco")


def test_load__unknown_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected one of refcoco, refcoco\+.*found 'refclef'"):
        ReferDataset.load(tmp_path, "refclef")


def test_load__missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ReferDataset.load(tmp_path, "refcoco")
    message = str(caught.value)
    assert str(tmp_path / "refcoco" / "refs(unc).p") in message
    assert str(tmp_path / "refcoco" / "instances.json") in message
    assert "missing refs(unc).p and instances.json" in message
    assert "RefCOCO step by step" in message
    assert "\n" not in message

    write_refer(tmp_path)
    (tmp_path / "refcoco" / "instances.json").unlink()
    with pytest.raises(InputError, match=r"missing instances\.json;"):
        ReferDataset.load(tmp_path, "refcoco")


def _set(table: str, key: str, value: Any) -> Edit:
    def edit(refs: list[dict[str, Any]], instances: dict[str, Any]) -> None:
        (refs if table == "refs" else instances[table])[0][key] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("refs", "ref_id", 1), r"ref 2: expected a ref id of its own, found 1"),
        (_set("refs", "ref_id", "3"), r"ref 0: expected `ref_id` as int, found '3'"),
        (_set("refs", "image_id", 9.0), r"ref 0: expected `image_id` as int, found 9.0"),
        (_set("refs", "split", None), r"ref 0: expected `split` as str"),
        (_set("refs", "sentences", "the dog"), r"ref 0: expected `sentences` as list"),
        (_set("refs", "sentences", ["the dog"]), r"ref 0, sentences: expected a dict with `sent`, found a str"),
        (_set("refs", "sentences", [{"sent": 3, "raw": "dog"}]), r"ref 0, sentences: expected `sent` as str, found 3"),
        (_set("refs", "sentences", [{"sent": "dog", "raw": 3}]), r"ref 0, sentences: expected `raw` as str, found 3"),
        (_set("annotations", "segmentation", None), r"annotations\[0\] \(id 13\): expected a list of polygons"),
    ],
)
def test_load__contradicts_the_format(tmp_path: Path, edit: Edit, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ReferDataset.load(write_refer(tmp_path, edit), "refcoco")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
