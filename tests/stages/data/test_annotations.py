import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from semires.stages.data.annotations import SharedAnnotations
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset, Text


@pytest.mark.parametrize("text", ["raw", "sent"])
def test_shared_annotations__each_is_what_the_data_set_has(refshapes: ReferDataset, text: Text) -> None:
    refs = refshapes.refs_of("train")[3:9]
    shared = SharedAnnotations(refshapes, refs, text)
    assert len(shared) == 6
    assert shared.ref_ids.tolist() == [ref.ref_id for ref in refs]
    assert shared.num_texts.tolist() == [len(ref.expressions) for ref in refs]
    for index, ref in enumerate(refs):
        found = shared[index]
        assert (found.ref_id, found.image_id, found.texts) == (ref.ref_id, ref.image_id, ref.texts(text))
        np.testing.assert_array_equal(shared.image(found), refshapes.image(ref.image_id))
        np.testing.assert_array_equal(cast(Any, shared.mask(found)), refshapes.mask(ref))


def test_shared_annotations__of_no_ref(refshapes: ReferDataset) -> None:
    shared = SharedAnnotations(refshapes, [], "raw")
    assert (len(shared), shared.ref_ids.tolist(), shared.num_texts.tolist()) == (0, [], [])


def test_shared_annotations__sent_to_a_process_as_a_handle(refshapes: ReferDataset) -> None:
    shared = SharedAnnotations(refshapes, refshapes.refs_of("train"), "raw")
    num_bytes = shared._bytes.nbytes
    assert num_bytes > 3000
    # As multiprocessing sends it to a spawned process: the records stay, in memory that both see.
    assert len(ForkingPickler.dumps(shared)) < 3000
    assert shared._bytes.is_shared()
    copy = pickle.loads(pickle.dumps(shared))
    assert copy[5].texts == shared[5].texts


def test_image__of_another_size_than_recorded(refshapes: ReferDataset, tmp_path: object) -> None:
    shared = SharedAnnotations(refshapes, refshapes.refs_of("train")[:1], "raw")
    annotation = shared[0]
    shared._image_folder = tmp_path  # type: ignore[assignment]
    Image.new("RGB", (5, 4)).save(shared._image_folder / annotation.image.file_name)
    with pytest.raises(InputError, match=r"expected \(96, 128\) pixels .* found \(4, 5\); the masks need the original"):
        shared.image(annotation)


def test_shared_annotations__a_mask_that_is_not_known(
    refshapes: ReferDataset, without_masks: Callable[..., ReferDataset]
) -> None:
    refs = refshapes.refs_of("train")[:2]
    own = without_masks([refs[0].ref_id])
    shared = SharedAnnotations(own, own.refs_of("train")[:2], "raw")
    assert shared.mask(shared[0]) is None
    np.testing.assert_array_equal(cast(Any, shared.mask(shared[1])), refshapes.mask(refs[1]))
