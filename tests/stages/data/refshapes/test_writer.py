import json
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.expressions import WORDS
from semires.stages.data.refshapes.scene import make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES
from semires.stages.data.refshapes.writer import REFS_PER_IMAGE, RefShapesConfig, write_refshapes

TINY = RefShapesConfig(num_train=2, num_val=1, num_test=1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_write_refshapes__files(refshapes_root: Path) -> None:
    expected = {"refs(procedural).p", "instances.json", "scenes.json"}
    expected |= {f"images/train_{n:06d}.png" for n in range(12)} | {f"images/val_{n:06d}.png" for n in range(4)}
    expected |= {f"images/test{which}_{n:06d}.png" for which in "AB" for n in range(3)}
    assert set(files_of(refshapes_root)) == {f"refshapes/{name}" for name in expected}


def test_write_refshapes__reads_without_problems(refshapes: ReferDataset) -> None:
    assert refshapes.problems.num_dropped == 0
    assert refshapes.problems.summary() == []
    # An image without a referent is possible, of one kind in testA and testB above all.
    assert {split: len({ref.image_id for ref in refshapes.refs_of(split)}) for split in ("train", "val")} == {
        "train": 12,
        "val": 4,
    }
    for split in ("train", "val", "testA", "testB"):
        refs = refshapes.refs_of(split)
        per_image = Counter(ref.image_id for ref in refs)
        assert max(per_image.values()) <= REFS_PER_IMAGE
        assert len({ref.ann_id for ref in refs}) == len(refs)
        assert all(refshapes.image_path(ref.image_id).name.startswith(f"{split}_") for ref in refs)


def test_write_refshapes__images_and_masks_are_the_scenes(
    refshapes: ReferDataset, refshapes_config: RefShapesConfig
) -> None:
    for ref in refshapes.refs:
        index = int(refshapes.image_path(ref.image_id).stem.split("_")[1])
        scene = make_scene(ref.split, refshapes_config.seed, index)
        assert np.array_equal(refshapes.image(ref.image_id), scene.image)
        matches = [n for n, mask in enumerate(scene.object_masks) if np.array_equal(mask, refshapes.mask(ref))]
        assert len(matches) == 1
        assert refshapes.category(ref) == scene.objects[matches[0]].category


def test_write_refshapes__annotations_are_cocos(refshapes_root: Path) -> None:
    content = json.loads((refshapes_root / "refshapes" / "instances.json").read_text())
    scenes = json.loads((refshapes_root / "refshapes" / "scenes.json").read_text())
    assert [category["name"] for category in content["categories"]] == [category.name for category in CATEGORIES]
    names = {category["id"]: category["name"] for category in content["categories"]}
    written = [(str(ann["image_id"]), names[ann["category_id"]]) for ann in content["annotations"]]
    assert written == [(image_id, obj["category"]) for image_id, objects in scenes.items() for obj in objects]
    scene = make_scene("train", 0, 0)
    for annotation, mask in zip(content["annotations"], scene.object_masks, strict=False):
        y, x = np.nonzero(mask)
        assert annotation["image_id"] == 1
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]


def test_write_refshapes__expressions_are_true_of_their_referent_alone(
    refshapes_root: Path, refshapes: ReferDataset, referents: Callable[..., list[int]]
) -> None:
    scenes = json.loads((refshapes_root / "refshapes" / "scenes.json").read_text())
    first: dict[int, int] = {}
    for annotation in json.loads((refshapes_root / "refshapes" / "instances.json").read_text())["annotations"]:
        first.setdefault(annotation["image_id"], annotation["id"])
    assert sum(len(ref.expressions) for ref in refshapes.refs) > 60
    for ref in refshapes.refs:
        assert 1 <= len(ref.expressions) <= 3
        assert len(set(ref.expressions)) == len(ref.expressions)
        for expression in ref.expressions:
            assert set(expression.split()) <= set(WORDS)
            assert referents(expression, scenes[str(ref.image_id)]) == [ref.ann_id - first[ref.image_id]], expression


def test_write_refshapes__test_a_simple_test_b_composite(refshapes: ReferDataset) -> None:
    composites = {category.name for category in CATEGORIES if category.is_composite}
    found = {
        split: {refshapes.category(ref) in composites for ref in refshapes.refs_of(split)}
        for split in ("train", "testA", "testB")
    }
    assert found == {"train": {False, True}, "testA": {False}, "testB": {True}}


def test_write_refshapes__refs_as_refer_pickles_them(refshapes_root: Path) -> None:
    refs = pickle.loads((refshapes_root / "refshapes" / "refs(procedural).p").read_bytes())
    sent_ids = [sentence["sent_id"] for ref in refs for sentence in ref["sentences"]]
    assert sent_ids == list(range(len(sent_ids)))
    assert [ref["ref_id"] for ref in refs] == list(range(1, len(refs) + 1))
    for ref in refs:
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        assert all(sentence["tokens"] == sentence["sent"].split() for sentence in ref["sentences"])


def test_write_refshapes__same_seed_same_bytes(
    tmp_path: Path, refshapes_root: Path, refshapes_config: RefShapesConfig
) -> None:
    again = write_refshapes(tmp_path, refshapes_config)
    assert again == tmp_path / "refshapes"
    assert files_of(again) == files_of(refshapes_root / "refshapes")


def test_write_refshapes__other_seed_other_images(tmp_path: Path) -> None:
    one = files_of(write_refshapes(tmp_path / "one", TINY))
    other = files_of(write_refshapes(tmp_path / "two", RefShapesConfig(num_train=2, num_val=1, num_test=1, seed=1)))
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one)


def test_write_refshapes__more_images_keep_the_first(tmp_path: Path, refshapes_root: Path) -> None:
    few = files_of(write_refshapes(tmp_path, TINY))
    many = files_of(refshapes_root / "refshapes")
    images = [name for name in few if name.startswith("images/")]
    assert len(images) == 5
    assert all(few[name] == many[name] for name in images)


def test_write_refshapes__complete_one_is_left_alone(tmp_path: Path) -> None:
    folder = write_refshapes(tmp_path, TINY)
    (folder / "images" / "train_000000.png").write_bytes(b"changed")
    calls: list[tuple[int, int]] = []
    assert write_refshapes(tmp_path, TINY, lambda done, total: calls.append((done, total))) == folder
    assert calls == []
    assert (folder / "images" / "train_000000.png").read_bytes() == b"changed"


def test_write_refshapes__refused_with_other_settings(tmp_path: Path) -> None:
    folder = write_refshapes(tmp_path, TINY)
    before = files_of(folder)
    with pytest.raises(InputError, match=r"was written with .*'seed': 0.*asked for .*'seed': 4") as caught:
        write_refshapes(tmp_path, RefShapesConfig(num_train=2, num_val=1, num_test=1, seed=4))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"'num_train': 2.*'num_train': 3"):
        write_refshapes(tmp_path, RefShapesConfig(num_train=3, num_val=1, num_test=1))
    assert files_of(folder) == before


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"info": 3}'])
def test_write_refshapes__folder_of_something_else(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "refshapes").mkdir()
    if content is not None:
        (tmp_path / "refshapes" / "instances.json").write_text(content)
    with pytest.raises(InputError, match="exists but is not RefShapes"):
        write_refshapes(tmp_path, TINY)


def test_write_refshapes__progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_refshapes(tmp_path, TINY, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_write_refshapes__stopped_half_way_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise error

    with pytest.raises(error):
        write_refshapes(tmp_path / "root", TINY, stop)
    assert list((tmp_path / "root").iterdir()) == []
    assert len(files_of(write_refshapes(tmp_path / "root", TINY))) == 8


def test_write_refshapes__another_process_was_faster(tmp_path: Path) -> None:
    other = write_refshapes(tmp_path / "other", TINY)

    def finish_other(done: int, total: int) -> None:
        if done == total:
            shutil.copytree(other, tmp_path / "root" / "refshapes")

    folder = write_refshapes(tmp_path / "root", TINY, finish_other)
    assert files_of(folder) == files_of(other)
    assert list((tmp_path / "root").iterdir()) == [folder]

    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"'seed': 0.*asked for .*'seed': 4"):
        write_refshapes(tmp_path / "root", RefShapesConfig(num_train=2, num_val=1, num_test=1, seed=4), finish_other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_train": 0}, "num_train is 0"),
        ({"num_val": -1}, "num_val is -1"),
        ({"num_test": 0}, "num_test is 0"),
        ({"seed": -1}, "found -1"),
    ],
)
def test_config__out_of_range(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RefShapesConfig(**settings)


def test_config__images_of() -> None:
    config = RefShapesConfig(num_train=5, num_val=4, num_test=3)
    assert list(config.images_of().items()) == [("train", 5), ("val", 4), ("testA", 3), ("testB", 3)]
