from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.pipeline.predicting.snapping import candidates_in, snap
from semires.stages.cache_sam.held import file_record_at
from semires.stages.cache_sam.loading import decode
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.refer import ReferDataset
from semires.stages.train.matching.config import MatchConfig
from semires.stages.train.matching.reference import match_reference


def random_masks(height: int, width: int, number: int) -> NDArray[np.bool_]:
    """Rectangles."""
    rng = np.random.default_rng(height * width)
    masks = np.zeros((number, height, width), np.bool_)
    for mask in masks:
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = True
    return masks


def candidates_of(masks: NDArray[np.bool_]) -> Candidates:
    return Candidates.from_masks(1, masks, np.ones(len(masks)), np.ones(len(masks)), np.zeros((len(masks), 2)))


@pytest.mark.parametrize("strategy", ["iom", "cpi", "cpi-u", "cpi-o"])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (7, 13), (13, 7), (1, 1), (30, 41)])
def test_snap__is_the_matching_of_training_at_any_shape(strategy: str, height: int, width: int) -> None:
    """The reference takes squares: the image is padded to one, which changes no count."""
    masks, config = random_masks(height, width, 9), MatchConfig(strategy=strategy, inter1=0.5, inter2=0.5)  # type: ignore[arg-type]
    label, rest = masks[0], masks[1:]
    side = max(height, width)
    square = np.zeros((9, side, side), np.bool_)
    square[:, :height, :width] = masks
    expected = match_reference(torch.from_numpy(square[1:]), torch.tensor([0, 8]), torch.from_numpy(square[:1]), config)
    found = snap(label, candidates_of(rest), config)
    if not bool(expected.matched[0]):
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found, expected.refined[0].numpy()[:height, :width])


def test_snap__nothing_to_match(tmp_path: Path) -> None:
    masks = random_masks(10, 12, 3)
    assert snap(masks[0], candidates_of(masks[:0]), MatchConfig()) is None
    assert snap(np.zeros((10, 12), np.bool_), candidates_of(masks), MatchConfig()) is None
    with pytest.raises(InputError, match="expected candidates of 12 x 10 pixels"):
        snap(masks[0].T, candidates_of(masks), MatchConfig())


def test_candidates_in__by_content_else_by_name(tmp_path: Path, refshapes: ReferDataset) -> None:
    first, second, third = (refshapes.image_path(image_id) for image_id in sorted(refshapes.image_ids)[:3])
    height, width = decode(ImageSource(image_id=0, path=first)).pixels.shape[:2]  # type: ignore[union-attr]
    masks = random_masks(height, width, 2)
    with StoreWriter(tmp_path / "x.zarr", Manifest(split="x", sam="tiny", sam_sha256="0" * 64)) as writer:
        for image_id, path in ((7, first), (image_id_of(second.name), None)):
            made = Candidates.from_masks(image_id, masks, np.ones(2), np.ones(2), np.zeros((2, 2)))
            writer.add(made, file_record_at(path))
    find = candidates_in(CandidateStore(tmp_path / "x.zarr"))
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(first.read_bytes())
    found = [find(decode(ImageSource(image_id=0, path=path))) for path in (renamed, second, third)]
    assert [one and one.image_id for one in found] == [7, image_id_of(second.name), None]


def test_candidates_in__another_picture_of_that_name(tmp_path: Path, refshapes: ReferDataset) -> None:
    """Ids of photographs are made of their names: what the store knows of the file decides."""
    first, second = (refshapes.image_path(image_id) for image_id in sorted(refshapes.image_ids)[:2])
    height, width = decode(ImageSource(image_id=0, path=first)).pixels.shape[:2]  # type: ignore[union-attr]
    masks = random_masks(height, width, 2)
    with StoreWriter(tmp_path / "x.zarr", Manifest(split="x", sam="tiny", sam_sha256="0" * 64)) as writer:
        made = Candidates.from_masks(image_id_of("same.png"), masks, np.ones(2), np.ones(2), np.zeros((2, 2)))
        writer.add(made, file_record_at(first))
    (tmp_path / "same.png").write_bytes(second.read_bytes())
    find = candidates_in(CandidateStore(tmp_path / "x.zarr"))
    assert find(decode(ImageSource(image_id=0, path=tmp_path / "same.png"))) is None
