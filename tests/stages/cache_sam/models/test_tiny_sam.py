import numpy as np
import torch
from segment_anything.modeling import Sam

from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.tiny_sam import GENERATOR_SETTINGS, IMAGE_SIZE, build_tiny_sam, weights_path
from semires.stages.data.refshapes.scene import HEIGHT, WIDTH, make_scene


def test_build_tiny_sam__is_tiny_and_fits_the_scenes(random_sam: Sam) -> None:
    assert sum(parameter.numel() for parameter in random_sam.parameters()) < 1.5e6
    assert random_sam.image_encoder.img_size == IMAGE_SIZE == max(HEIGHT, WIDTH)
    assert not random_sam.training


def test_build_tiny_sam__random_without_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one, other = build_tiny_sam().state_dict(), build_tiny_sam().state_dict()
    key = "image_encoder.patch_embed.proj.weight"
    assert not torch.equal(one[key], other[key])


def test_build_tiny_sam__runs_as_a_sam(random_sam: Sam) -> None:
    image = torch.from_numpy(make_scene("sam_check", 0, 0).image).permute(2, 0, 1).float()
    with torch.no_grad():
        outputs = random_sam(
            [
                {
                    "image": image,
                    "original_size": (HEIGHT, WIDTH),
                    "point_coords": torch.tensor([[[30.0, 40.0]]]),
                    "point_labels": torch.ones(1, 1),
                }
            ],
            multimask_output=True,
        )
    assert outputs[0]["masks"].shape == (1, 3, HEIGHT, WIDTH)
    assert outputs[0]["iou_predictions"].shape == (1, 3)
    assert outputs[0]["low_res_logits"].shape == (1, 3, IMAGE_SIZE // 2, IMAGE_SIZE // 2)


def test_generator_settings__are_settings() -> None:
    assert isinstance(GENERATOR_SETTINGS, GeneratorSettings)


def test_weights__find_objects_and_parts_of_unseen_scenes() -> None:
    generator = MaskGenerator(proposer_of(build_tiny_sam(weights_path())), GENERATOR_SETTINGS)
    whole_ious, part_ious = [], []
    for index in range(20):
        scene = make_scene("sam_check", 0, index)
        candidates = generator.generate(index, scene.image).masks()
        whole_ious += [best_iou(mask, candidates) for mask in scene.object_masks]
        is_part = np.bincount(scene.part_owner)[scene.part_owner] > 1
        part_ious += [best_iou(mask, candidates) for mask in scene.part_masks[is_part]]
    assert np.mean(np.array(whole_ious) >= 0.8) >= 0.9
    assert np.mean(np.array(part_ious) >= 0.8) >= 0.7


def best_iou(mask: np.ndarray, candidates: np.ndarray) -> float:
    """The highest IoU of a mask with any candidate, bool [M, H, W]; 0 without candidates."""
    intersections = (candidates & mask).sum(axis=(1, 2))
    unions = (candidates | mask).sum(axis=(1, 2))
    return max((intersections / unions).tolist(), default=0.0)
