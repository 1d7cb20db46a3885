"""SAM 3 asked by name, beside transformers' own model and processor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from semires.cache.bits import unpack_rows
from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.sam import load_sam3
from semires.stages.cache_sam.models.sam2_proposer import Sam2Proposer
from semires.stages.cache_sam.models.sam3_concepts import Sam3, Sam3Concepts, Sam3Grid

LOW_SIDE = 24  # of the small SAM 3's logits
WORDS = ("hat", "man", "zebra")
# As transformers' post-processing keeps masks, but for the threshold: no stability, no NMS.
KEPT = 0.42
AS_TRANSFORMERS = GeneratorSettings(pred_iou_thresh=KEPT, stability_score_thresh=0.0, box_nms_thresh=1.0)
GRID = GeneratorSettings(points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)


@pytest.fixture(scope="module")
def sam3(sam3_folder: Path) -> Sam3:
    loaded: Sam3 = load_sam3(str(sam3_folder), torch.device("cpu"), with_tracker=True).sam
    return loaded


@pytest.fixture(scope="module")
def originals(sam3_folder: Path) -> tuple[Any, Any]:
    """transformers' model and processor of the folder."""
    from transformers import Sam3Model, Sam3Processor

    return Sam3Model.from_pretrained(sam3_folder).eval(), Sam3Processor.from_pretrained(sam3_folder)


def picture(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def expected(originals: tuple[Any, Any], pixels: torch.Tensor, word: str, size: tuple[int, int]) -> tuple[Any, Any]:
    """What transformers answers to a word about an image: its output, and the masks made of it."""
    model, processor = originals
    with torch.no_grad():
        output = model(pixel_values=pixels, **processor(text=word, return_tensors="pt"))
    (masks,) = processor.post_process_instance_segmentation(output, threshold=KEPT, target_sizes=[size])
    return output, masks


def by_score(candidates: Candidates) -> NDArray[np.bool_]:
    return unpack_rows(candidates.bits, width=candidates.width)[np.argsort(-candidates.predicted_iou, kind="stable")]


@pytest.mark.parametrize("word", WORDS)
def test_generate__masks_of_a_word_are_transformers(sam3: Sam3, originals: tuple[Any, Any], word: str) -> None:
    """Of an image of as many pixels as the logits have, where nothing is upsampled."""
    model = Sam3Concepts(sam3, "fp32")
    image = picture((LOW_SIDE, LOW_SIDE))
    found = MaskGenerator(model, AS_TRANSFORMERS, words={7: [word]}).generate(7, image)
    output, masks = expected(originals, model.load([image]), word, (LOW_SIDE, LOW_SIDE))
    order = masks["scores"].argsort(descending=True)
    assert 1 <= found.num_masks <= output.pred_logits.shape[1]
    np.testing.assert_allclose(found.predicted_iou, masks["scores"][order], atol=1e-5)
    np.testing.assert_array_equal(by_score(found), masks["masks"][order].bool())
    assert 0.02 < by_score(found).mean() < 0.98
    assert np.isnan(found.points_xy).all()
    logits = output.pred_masks[0][output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid() > KEPT][order]
    stability = (logits > 1).sum((1, 2)) / (logits > -1).sum((1, 2))
    np.testing.assert_allclose(found.stability_score, stability, atol=1e-5)


def test_generate__of_another_size_from_upsampled_logits(sam3: Sam3, originals: tuple[Any, Any]) -> None:
    """As SAM 3's own processor does; transformers upsamples probabilities, and differs in a few pixels."""
    model, size = Sam3Concepts(sam3, "fp32"), (70, 101)
    image = picture(size)
    found = MaskGenerator(model, AS_TRANSFORMERS, words={7: ["man"]}).generate(7, image)
    output, masks = expected(originals, model.load([image]), "man", size)
    kept = output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid() > KEPT
    order = masks["scores"].argsort(descending=True)
    upsampled = F.interpolate(output.pred_masks[:, kept], size, mode="bilinear", align_corners=False)[0]
    np.testing.assert_array_equal(by_score(found), (upsampled > 0)[order])
    theirs = masks["masks"][order].bool().numpy()
    assert (by_score(found) != theirs).mean() < 0.05  # of a mask in 24 x 24, which is all edges


def test_generate__the_words_of_each_image_in_any_batch(sam3: Sam3) -> None:
    model = Sam3Concepts(sam3, "fp32")
    words = {1: ["man", "hat"], 2: [], 4: ["zebra", "hat", "man"]}
    generator = MaskGenerator(model, AS_TRANSFORMERS, words=words)
    images = [picture((40, 60), seed) for seed in range(4)]
    together = generator.generate_batch([1, 2, 3, 4], images)
    assert [found.num_masks for found in together[1:3]] == [0, 0]  # no word, and not known
    for image_id, image, found in zip([1, 2, 3, 4], images, together, strict=True):
        alone = [
            MaskGenerator(model, AS_TRANSFORMERS, words={image_id: [word]}).generate(image_id, image)
            for word in words.get(image_id, [])
        ]
        assert found.num_masks == sum(each.num_masks for each in alone)
        if alone:
            scores = np.concatenate([each.predicted_iou for each in alone])
            np.testing.assert_allclose(np.sort(found.predicted_iou), np.sort(scores), atol=1e-5)


def test_generate__one_of_masks_with_the_same_box(sam3: Sam3) -> None:
    """Two words that mean the same are one mask, as two points are."""
    model, image = Sam3Concepts(sam3, "fp32"), picture((40, 60))
    settings = GeneratorSettings(pred_iou_thresh=KEPT, stability_score_thresh=0.0)
    once = MaskGenerator(model, settings, words={7: ["man"]}).generate(7, image)
    twice = MaskGenerator(model, settings, words={7: ["man", "man"]}).generate(7, image)
    assert twice.num_masks == once.num_masks > 0


def test_beside__adds_to_the_grid_and_takes_nothing_away(sam3: Sam3) -> None:
    image, words = picture((40, 60)), {7: list(WORDS)}
    grid = MaskGenerator(Sam2Proposer(sam3.tracker, "fp32"), GRID).generate(7, image)
    concepts = Sam3Concepts(sam3, "fp32")
    of_words = MaskGenerator(concepts, AS_TRANSFORMERS, words=words)
    both = MaskGenerator(Sam3Grid(sam3, concepts), GRID, beside=of_words).generate(7, image)
    num_points = grid.num_masks
    assert num_points > 0
    np.testing.assert_array_equal(both.bits[:num_points], grid.bits)
    np.testing.assert_allclose(both.predicted_iou[:num_points], grid.predicted_iou, atol=1e-6)
    is_word = np.isnan(both.points_xy).all(axis=1)
    assert is_word.tolist() == [False] * num_points + [True] * (both.num_masks - num_points)
    found = of_words.generate(7, image)
    assert found.num_masks > 0
    np.testing.assert_array_equal(both.bits[is_word], found.bits)


def test_beside__the_vit_runs_once_an_image(sam3: Sam3, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = sam3.text.vision_encoder.backbone
    assert sam3.tracker.vision_encoder.backbone is backbone
    runs: list[int] = []
    forward = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda pixels: (runs.append(len(pixels)), forward(pixels))[1])
    concepts = Sam3Concepts(sam3, "fp32")
    of_words = MaskGenerator(concepts, AS_TRANSFORMERS, words={1: WORDS, 2: WORDS})
    MaskGenerator(Sam3Grid(sam3, concepts), GRID, beside=of_words).generate_batch([1, 2], [picture((40, 60))] * 2)
    assert sum(runs) == 2


def test_embed_word__a_word_as_long_as_any(sam3: Sam3, originals: tuple[Any, Any]) -> None:
    """transformers' processor makes more tokens of it than the text model has places; here what is too much goes."""
    model = Sam3Concepts(sam3, "fp32")
    features, is_token = model.embed_word("a" * 100)
    assert features.shape[:2] == is_token.shape == (1, 32)
    asked = originals[1](text="man", return_tensors="pt")
    with torch.no_grad():
        known = originals[0].get_text_features(**asked).pooler_output
    torch.testing.assert_close(model.embed_word("man")[0], known)


@pytest.mark.parametrize("precision", ["bf16"])
def test_generate__in_half_precision(sam3: Sam3, precision: str) -> None:
    concepts = Sam3Concepts(sam3, precision)
    of_words = MaskGenerator(concepts, AS_TRANSFORMERS, words={7: WORDS})
    both = MaskGenerator(Sam3Grid(sam3, concepts), GRID, beside=of_words)
    assert both.precision == precision
    assert both.generate(7, picture((40, 60))).num_masks > 0
