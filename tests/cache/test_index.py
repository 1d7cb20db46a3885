import numpy as np

from semires.cache.index import ImageIndex, ImageLocation, contiguous_runs
from semires.cache.parts import PartIndex


def part(image_ids: list[int], counts: list[int], height: int = 3, width: int = 9) -> PartIndex:
    size = np.ones(len(image_ids), np.int64)
    return PartIndex(
        image_id=np.array(image_ids, np.int64),
        height=size * height,
        width=size * width,
        masks_per_image=np.array(counts, np.int64),
    )


def test_locate__rows_and_bytes() -> None:
    index = ImageIndex({"b": part([7, 5], [2, 4]), "a": part([6], [1])})
    assert index.image_ids.tolist() == [5, 6, 7]
    assert index.masks_per_image.tolist() == [4, 1, 2]
    found = index.locate(5)
    assert found is not None
    assert (found.part, found.height, found.width, found.num_masks) == ("b", 3, 9, 4)
    assert (found.mask_start, found.mask_stop) == (2, 6)
    assert (found.byte_start, found.byte_stop) == (2 * 3 * 2, 6 * 3 * 2)


def test_locate__first_part_by_name_wins_in_any_order() -> None:
    parts = {"c": part([1, 2], [9, 1]), "b": part([3, 1], [1, 5]), "d": part([1], [7])}
    for names in (["b", "c", "d"], ["d", "c", "b"]):
        index = ImageIndex({name: parts[name] for name in names})
        found = index.locate(1)
        assert found is not None
        assert (found.part, found.num_masks) == ("b", 5)
        assert len(index) == 3
        assert index.masks_per_image.tolist() == [5, 1, 1]


def test_locate__absent() -> None:
    index = ImageIndex({"a": part([2, 4], [0, 1])})
    assert [image_id in index for image_id in (1, 2, 3, 4, 5)] == [False, True, False, True, False]
    assert index.locate(3) is None
    assert index.locate(2**70) is None
    found = index.locate(2)
    assert found is not None
    assert found.num_masks == 0


def test_init__no_parts() -> None:
    index = ImageIndex({})
    assert len(index) == 0
    assert index.image_ids.dtype == np.int64
    assert 0 not in index


def test_contiguous_runs__neighbours_in_one_part() -> None:
    index = ImageIndex({"a": part([3, 1, 2, 9], [2, 0, 1, 4]), "b": part([7], [1])})

    def runs(*image_ids: int) -> list[list[int]]:
        found = [index.locate(image_id) for image_id in image_ids]
        located = [location for location in found if isinstance(location, ImageLocation)]
        assert len(located) == len(image_ids)
        return [[location.image_id for location in run] for run in contiguous_runs(located)]

    assert runs() == []
    assert runs(9, 7, 1, 3, 2, 1) == [[3, 1, 2, 9], [7]]
    assert runs(9, 3) == [[3], [9]]
    assert runs(2, 3) == [[3, 2]]  # image 1 between them has no masks
    assert runs(1) == [[1]]
