from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from semires.stages.cache_sam import generator as generator_module
from semires.stages.cache_sam.generator import GeneratorSettings, MaskGenerator
from semires.stages.data.errors import InputError
from semires.stages.data.refshapes.scene import make_scene


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene("sam_check", 0, 0).image


def test_settings__defaults_are_sams() -> None:
    """The published recipe is segment-anything's own defaults."""
    defaults = SamAutomaticMaskGenerator.__init__.__kwdefaults__ or {}
    names = SamAutomaticMaskGenerator.__init__.__code__.co_varnames
    positional = SamAutomaticMaskGenerator.__init__.__defaults__
    count = SamAutomaticMaskGenerator.__init__.__code__.co_argcount
    defaults = defaults | dict(zip(names[count - len(positional) : count], positional, strict=True))
    assert {name: defaults[name] for name in asdict(GeneratorSettings())} == asdict(GeneratorSettings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points_per_side", 0),
        ("points_per_batch", 0),
        ("crop_n_points_downscale_factor", 0),
        ("crop_n_layers", -1),
        ("min_mask_region_area", -1),
        ("pred_iou_thresh", 1.1),
        ("stability_score_thresh", -0.1),
        ("box_nms_thresh", float("nan")),
        ("crop_nms_thresh", 2),
    ],
)
def test_settings__out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name}: expected .*, found {value}"):
        GeneratorSettings(**{name: value})


def test_recorded__all_that_changes_a_candidate() -> None:
    settings = GeneratorSettings()
    recorded = settings.recorded()
    assert set(recorded) == set(asdict(settings)) - {"points_per_batch"}
    assert recorded == replace(settings, points_per_batch=7).recorded()
    assert recorded != replace(settings, points_per_side=16).recorded()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"box_nms_thresh": 0.9},
        {"crop_n_layers": 1, "points_per_side": 2, "crop_nms_thresh": 0.9},
    ],
    ids=["open", "nms", "crops"],
)
def test_generate__same_as_sams_generator(
    random_sam: Sam,
    open_settings: GeneratorSettings,
    image: np.ndarray,
    changes: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # At its own threshold of 0 random masks cover the image; above it they differ in size, some are empty.
    monkeypatch.setattr(random_sam, "mask_threshold", 0.1)
    settings = replace(open_settings, **changes)
    candidates = MaskGenerator(random_sam, settings).generate(42, image)
    records = SamAutomaticMaskGenerator(random_sam, **asdict(settings)).generate(image)
    assert candidates.image_id == 42
    assert (candidates.height, candidates.width) == image.shape[:2]
    assert candidates.num_masks == len(records) > 10
    assert np.array_equal(candidates.masks(), np.stack([record["segmentation"] for record in records]))
    assert candidates.area.tolist() == [record["area"] for record in records]
    for name, key in (("predicted_iou", "predicted_iou"), ("stability_score", "stability_score")):
        assert np.array_equal(
            getattr(candidates, name), np.float32([record[key] for record in records]), equal_nan=True
        )
    assert np.array_equal(candidates.points_xy, np.float32([record["point_coords"][0] for record in records]))
    for box, record in zip(candidates.boxes_xyxy, records, strict=True):
        x, y, width, height = record["bbox"]
        # SAM's boxes end at the last pixel, ours behind it; both are zero for an empty mask.
        assert box.tolist() == ([x, y, x + width + 1, y + height + 1] if record["area"] else [0, 0, 0, 0])


def test_generate__points_per_batch_changes_no_mask(
    random_sam: Sam, open_settings: GeneratorSettings, image: np.ndarray
) -> None:
    one, other = (
        MaskGenerator(random_sam, replace(open_settings, points_per_batch=size)).generate(0, image) for size in (2, 64)
    )
    assert one.num_masks == other.num_masks
    # Scores agree to rounding only: matrix products of other shapes add in another order.
    assert np.allclose(np.sort(one.predicted_iou), np.sort(other.predicted_iou), atol=1e-5)


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_generate__image_without_masks(random_sam: Sam, image: np.ndarray, crop_n_layers: int) -> None:
    settings = GeneratorSettings(points_per_side=2, pred_iou_thresh=1.0, crop_n_layers=crop_n_layers)
    candidates = MaskGenerator(random_sam, settings).generate(7, image)
    assert candidates.num_masks == 0
    assert candidates.bits.shape == (0, image.shape[0], image.shape[1] // 8)
    assert candidates.points_xy.shape == (0, 2)


def test_generate__any_image_size(random_sam: Sam, open_settings: GeneratorSettings) -> None:
    """Native resolution, wider or narrower than the SAM's input, is what comes back."""
    rng = np.random.default_rng(0)
    for height, width in ((33, 70), (150, 61), (1, 1)):
        photograph = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        candidates = MaskGenerator(random_sam, open_settings).generate(0, photograph)
        assert candidates.masks().shape == (candidates.num_masks, height, width)
        assert (candidates.points_xy <= [width, height]).all()


def test_generate__same_twice_and_leaves_grad_mode(
    random_sam: Sam, open_settings: GeneratorSettings, image: np.ndarray
) -> None:
    generator = MaskGenerator(random_sam, open_settings)
    one, other = generator.generate(0, image), generator.generate(0, image)
    assert np.array_equal(one.bits, other.bits)
    assert torch.is_grad_enabled()


def test_generator__small_regions_without_opencv(random_sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"min_mask_region_area: expected OpenCV for 20, found no module cv2"):
        MaskGenerator(random_sam, GeneratorSettings(min_mask_region_area=20))
