from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.pipeline import datasets
from semires.pipeline.notebook.referents import ReferDataset
from semires.stages.data import refer
from semires.stages.data.errors import InputError
from semires.stages.data.refshapes.writer import RefShapesConfig


def test_refer_dataset__refshapes_as_its_reader_has_it(
    refshapes: refer.ReferDataset,
    refshapes_root: Path,
    refshapes_config: RefShapesConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets, "REFSHAPES", refshapes_config)
    dataset = ReferDataset("refshapes", "testA", data=refshapes_root)
    refs = refshapes.refs_of("testA")
    assert len(dataset) == len(refs) > 1
    for referent, ref in zip(dataset, refs, strict=True):
        assert (referent.ref_id, referent.image_id, referent.split) == (ref.ref_id, ref.image_id, "testA")
        assert referent.expressions == ref.raw_expressions
        assert referent.image_path == refshapes.image_path(ref.image_id)
        assert referent.category == refshapes.category(ref)
        assert referent.has_mask
        assert np.array_equal(referent.image(), refshapes.image(ref.image_id))
        assert np.array_equal(referent.mask(), refshapes.mask(ref))
    assert [referent.ref_id for referent in dataset[1:]] == [ref.ref_id for ref in refs[1:]]
    assert dataset[-1].ref_id == refs[-1].ref_id
    assert len(ReferDataset("refshapes", data=refshapes_root)) == len(refshapes.refs)
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    with pytest.raises(InputError, match="expected a split of refshapes with refs, found 'nonsense'"):
        ReferDataset("refshapes", "nonsense", data=refshapes_root)


def test_refer_dataset__own_data(write_own: Callable[..., Any]) -> None:
    own = write_own(num_labeled=1)
    dataset = ReferDataset(own.file, "train")
    assert [referent.has_mask for referent in dataset[:3]] == [True, True, False]
    assert dataset[0].mask().sum() > 0
    assert dataset[0].expressions == ("Left box!", "Box on the left!")
    assert dataset[0].category == ""
    with pytest.raises(InputError, match="without one"):
        dataset[2].mask()


def test_refer_dataset__what_people_typed_or_refer_made_of_it(write_refer: Callable[..., Any]) -> None:
    fake = write_refer("refcoco", num_train=1)
    assert ReferDataset("refcoco", "train", data=fake.root)[0].expressions[0] == "Left box!"
    assert ReferDataset("refcoco", "train", data=fake.root, text="sent")[0].expressions[0] == "left box"
    assert ReferDataset("refcoco", "train", data=fake.root, coco_images=fake.images)[0].image_path.is_file()
