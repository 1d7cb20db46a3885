from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.stages.data.errors import InputError
from semires.stages.data.importing.run import import_data


@pytest.mark.parametrize("is_binary", [False, True])
def test_refcoco_m__read_back(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], read_back: Callable[..., Any], is_binary: bool
) -> None:
    rows = small.m_rows()
    for sample in (sample for row in rows for sample in row["samples"] if is_binary):
        sample["mask"]["counts"] = sample["mask"]["counts"].encode()
    source = write_parquet(rows, "data/validation-00000-of-00001.parquet")
    report = import_data(str(source), "refcoco-m", tmp_path / "root")
    assert {name: (c.refs, c.images, c.expressions) for name, c in report.counts.items()} == {"val": (5, 4, 9)}
    dataset = read_back(tmp_path / "root", "refcoco-m")
    assert dataset.problems.summary() == []
    assert {ref.ref_id for ref in dataset.refs_of("val")} == {10, 11, 12, 13, 14}
    for ref in dataset.refs:
        record = next(record for record in small.refs if record["ann_id"] == ref.ann_id)
        assert ref.expressions == tuple(sentence["sent"] for sentence in record["sentences"])
        assert np.array_equal(dataset.mask(ref), small.mask(ref.ann_id))
        assert dataset.category(ref) == "dog"
        # A PNG is not called .jpg, and its bytes are the source's.
        assert dataset.image_path(ref.image_id).name == f"COCO_train2014_{ref.image_id:012d}.png"
        assert dataset.image_path(ref.image_id).read_bytes() == small.picture(ref.image_id, "PNG")
        assert dataset.image(ref.image_id).shape == (24, 32, 3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"mask": {"counts": "0", "size": [24, 32]}}, "mask: expected runs that add up to 24 x 32"),
    ({"mask": {"counts": "0", "size": [32, 24]}}, r"mask: expected a mask of the image's size \[24, 32\]"),
    ({"mask": None}, "expected `mask` as dict, found None"),
    ({"category": "unicorn"}, "expected one of COCO's categories, found 'unicorn'"),
    ({"image_id": 1}, "expected `image_id` 950 in its sample, found 1"),
    ({"id": 10}, "expected annotation 10 as in an earlier row"),
]


@pytest.mark.parametrize(("changed", "expected"), BAD, ids=[expected[:40] for _, expected in BAD])
def test_refcoco_m__a_sample_that_contradicts_the_format_is_named(
    tmp_path: Path, small: Any, write_parquet: Callable[..., Path], changed: dict[str, Any], expected: str
) -> None:
    rows = small.m_rows()
    rows[0]["samples"][1].update(changed)
    source = write_parquet(rows, "validation.parquet")
    with pytest.raises(InputError, match=rf"validation.parquet: row 1, sample 2.*{expected}"):
        import_data(str(source), "refcoco-m", tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
