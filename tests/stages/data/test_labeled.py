import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semires.stages.data.errors import InputError
from semires.stages.data.labeled import draw_labeled_images, load_labeled_images, split_refs


@dataclass(frozen=True)
class FakeRef:
    ref_id: int
    image_id: int
    has_mask: bool = True


# Two or three refs an image, image ids falling as in RefCOCO.
REFS = [FakeRef(ref_id, 5000 - ref_id * 2 // 5) for ref_id in range(500)]


def test_draw_labeled_images__is_the_public_protocol() -> None:
    image_ids = list(dict.fromkeys(ref.image_id for ref in REFS))
    assert len(image_ids) == 200
    random.seed(0)
    expected = random.sample(image_ids, 20)
    assert draw_labeled_images(REFS, 0.1) == expected
    assert draw_labeled_images(REFS, 0.1, seed=1) != expected


def test_draw_labeled_images__refcoco_counts() -> None:
    refs = [FakeRef(ref_id, ref_id) for ref_id in range(16_994)]
    drawn = draw_labeled_images(refs, 0.01)
    assert len(set(drawn)) == 169
    # Python keeps this sequence for a seed; another would silently make another labeled split.
    assert sorted(drawn)[:3] == [37, 407, 432]
    assert [len(draw_labeled_images(refs, share)) for share in (0.005, 0.02, 0.05, 1)] == [84, 339, 849, 16_994]


def test_draw_labeled_images__order_of_refs_does_not_matter() -> None:
    shuffled = random.Random(3).sample(REFS, len(REFS))
    assert draw_labeled_images(shuffled, 0.1) == draw_labeled_images(REFS, 0.1)


def test_draw_labeled_images__leaves_the_global_generator_alone() -> None:
    state = random.getstate()
    draw_labeled_images(REFS, 0.1)
    assert random.getstate() == state


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_draw_labeled_images__share_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="labeled share above 0 and at most 1"):
        draw_labeled_images(REFS, share)


def test_draw_labeled_images__less_than_one_image() -> None:
    with pytest.raises(InputError, match=r"at least one image, found 0\.001 of 200 images; use at least 0\.005"):
        draw_labeled_images(REFS, 0.001)
    with pytest.raises(InputError, match="no train refs"):
        draw_labeled_images([], 0.5)


@given(st.integers(1, 3000))
def test_draw_labeled_images__the_share_advised_is_enough(num_images: int) -> None:
    refs = [FakeRef(ref_id, ref_id) for ref_id in range(num_images)]
    with pytest.raises(InputError) as caught:
        draw_labeled_images(refs, 1e-9)
    advised = float(str(caught.value).rsplit(maxsplit=1)[1])
    assert len(draw_labeled_images(refs, advised)) == 1


def test_load_labeled_images__lines(tmp_path: Path) -> None:
    path = tmp_path / "labeled.txt"
    path.write_text("# my images\n581857\n\n 17 \r\n581857\n3\n", encoding="utf-8")
    assert load_labeled_images(path) == [581857, 17, 3]


def test_load_labeled_images__json_list(tmp_path: Path) -> None:
    path = tmp_path / "labeled.json"
    path.write_text("\n [5, 3, 5]")
    assert load_labeled_images(str(path)) == [5, 3]


def test_load_labeled_images__public_code(tmp_path: Path) -> None:
    entries = [{"iid": iid, "bbox": [0, 0, 1, 1], "refs": ["left"], "mask_id": 1} for iid in (580631, 580631, 568557)]
    path = tmp_path / "refcoco_1%_image.json"
    path.write_text(json.dumps({"train": entries, "val": [{"iid": 9}]}))
    assert load_labeled_images(path) == [580631, 568557]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found none"),
        ("# nothing\n", "found none"),
        ("[]", "found none"),
        ('{"train": []}', "found none"),
        ("12\n-3\n", "'-3' in line 2"),
        ("COCO_train2014_000000581857.jpg", "one image id a line"),
        ("1.5", "'1.5' in line 1"),
        ("[1, 2", "damaged file"),
        ('["1"]', "integer image ids"),
        ("[true]", "integer image ids"),
        ('{"val": [{"iid": 1}]}', "integer image ids"),
        ('{"train": [{"image_id": 1}]}', "integer image ids"),
        ('{"train": [7]}', "integer image ids"),
        ('{"train": 7}', "integer image ids"),
        ("[" * 100_000, "damaged file"),
    ],
)
def test_load_labeled_images__refuses(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labeled"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_labeled_images(path)
    assert str(path) in str(caught.value)


def test_load_labeled_images__by_the_names_that_a_data_set_has(tmp_path: Path) -> None:
    names = {"photos/a b.jpg": 7, "12": 3}
    path = tmp_path / "labeled.txt"
    path.write_text("photos/a b.jpg\n12\n13\n photos/a b.jpg \n")
    assert load_labeled_images(path, names) == [7, 3, 13]
    path.write_text("photos/c.jpg\n")
    with pytest.raises(InputError, match=r"or the name of one of the data set's images, found 'photos/c\.jpg'"):
        load_labeled_images(path, names)


def test_load_labeled_images__unreadable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not read it"):
        load_labeled_images(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\x80\x02\xff")
    with pytest.raises(InputError, match="could not read it"):
        load_labeled_images(tmp_path / "binary")


def test_split_refs__by_image() -> None:
    drawn = draw_labeled_images(REFS, 0.1)
    labeled, unlabeled = split_refs(REFS, drawn)
    assert {ref.image_id for ref in labeled} == set(drawn)
    assert not {ref.image_id for ref in labeled} & {ref.image_id for ref in unlabeled}
    assert sorted(labeled + unlabeled, key=lambda ref: ref.ref_id) == REFS
    assert labeled == sorted(labeled, key=lambda ref: ref.ref_id)


def test_split_refs__all_labeled() -> None:
    labeled, unlabeled = split_refs(REFS, draw_labeled_images(REFS, 1))
    assert labeled == REFS
    assert unlabeled == []


def test_split_refs__refuses_images_of_no_ref() -> None:
    with pytest.raises(InputError, match=r"found 7 of 8 that are on none \(1, 2, 3, 4, 5, …\)"):
        split_refs(REFS, [5000, 1, 2, 3, 4, 5, 6, 7])
    with pytest.raises(InputError, match="no image at all"):
        split_refs(REFS, [])


def test_draw_labeled_images__only_of_those_with_masks() -> None:
    refs = [FakeRef(ref_id, ref_id // 2, has_mask=ref_id % 4 == 1) for ref_id in range(40)]  # on every other image
    assert sorted(draw_labeled_images(refs, 1)) == list(range(0, 20, 2))
    assert len(draw_labeled_images(refs, 0.5)) == 5
    with pytest.raises(InputError, match=r"of 0 images; the split has no train refs with masks"):
        draw_labeled_images([FakeRef(1, 1, has_mask=False)], 1)


def test_split_refs__a_ref_without_a_mask_is_unlabeled_wherever_it_is() -> None:
    refs = [FakeRef(1, 1), FakeRef(2, 1, has_mask=False), FakeRef(3, 2), FakeRef(4, 3, has_mask=False)]
    assert split_refs(refs, [1]) == ([refs[0]], refs[1:])
    assert split_refs(refs, [1, 2]) == ([refs[0], refs[2]], [refs[1], refs[3]])
    with pytest.raises(InputError, match=r"of the train refs with masks, found 1 of 2 that are on none \(3\)"):
        split_refs(refs, [1, 3])
