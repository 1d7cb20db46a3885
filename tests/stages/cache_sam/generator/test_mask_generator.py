import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator import mask_generator as generator_module
from semires.stages.cache_sam.generator.mask_generator import GeneratorSettings, MaskGenerator
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.tiny_sam import GENERATOR_SETTINGS, build_tiny_sam, weights_path
from semires.stages.data.errors import InputError
from semires.stages.data.refshapes.scene import make_scene

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class ReferenceGenerator(SamAutomaticMaskGenerator):
    """SAM's generator, which fails where no crop holds a mask: it gives their boxes the shape [0] and reads [0, 4]."""

    def _process_crop(self, *args: Any) -> Any:
        data = super()._process_crop(*args)
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
        return data


SameAsSams = Callable[[Sam, GeneratorSettings, np.ndarray], int]


@pytest.fixture
def assert_same_as_sams(assert_same_records: Callable[..., None]) -> SameAsSams:
    """Ours against the installed generator; returns how many masks there were."""

    def check(sam: Sam, settings: GeneratorSettings, image: np.ndarray) -> int:
        candidates = MaskGenerator(proposer_of(sam, "fp32"), settings).generate(42, image)
        sams_own = ReferenceGenerator(sam, **settings.recorded(), points_per_batch=settings.points_per_batch)
        records = sams_own.generate(image)
        assert (candidates.image_id, candidates.height, candidates.width) == (42, *image.shape[:2])
        assert_same_records(candidates, records)
        return len(records)

    return check


@pytest.fixture
def set_num_threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads for the length of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene("sam_check", 0, 0).image


@pytest.fixture(scope="module")
def shipped_sam() -> Sam:
    return build_tiny_sam(weights_path())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"box_nms_thresh": 0.9},
        {"crop_n_layers": 1, "points_per_side": 2, "crop_nms_thresh": 0.9},
        {"pred_iou_thresh": 0.05},
        {"stability_score_thresh": 0.1, "stability_score_offset": 0.005},
        {"points_per_batch": 2},
    ],
    ids=["open", "nms", "crops", "iou", "stability", "two at a time"],
)
def test_generate__same_as_sams_on_random_weights(
    random_sam: Sam,
    open_settings: GeneratorSettings,
    image: np.ndarray,
    changes: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    assert_same_as_sams: SameAsSams,
) -> None:
    # At its own threshold of 0 random masks cover the image; above it they differ in size, some are empty.
    monkeypatch.setattr(random_sam, "mask_threshold", 0.1)
    assert assert_same_as_sams(random_sam, replace(open_settings, **changes), image) > 3


@pytest.mark.parametrize("size", [(40, 70), (90, 41), (33, 33), (200, 150), (7, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_generate__same_as_sams_on_small_sams(
    small_sam: Callable[[int], Sam],
    seed: int,
    size: tuple[int, int],
    open_settings: GeneratorSettings,
    assert_same_as_sams: SameAsSams,
) -> None:
    """SAMs of four shapes; images portrait, landscape, odd, larger than the SAM's input and tiny."""
    photograph = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    settings = replace(open_settings, crop_n_layers=seed % 2, crop_nms_thresh=0.99, points_per_side=2)
    assert assert_same_as_sams(small_sam(seed), settings, photograph) > 0


@pytest.mark.parametrize("index", range(2))
def test_generate__same_as_sams_on_scenes(shipped_sam: Sam, index: int, assert_same_as_sams: SameAsSams) -> None:
    """The tiny SAM with its settings, as `semires cache-sam --split refshapes` runs it."""
    assert assert_same_as_sams(shipped_sam, GENERATOR_SETTINGS, make_scene("sam_check", 0, index).image) > 3


@pytest.mark.parametrize(
    ("changes", "area"),
    [
        ({"crop_n_layers": 1, "crop_n_points_downscale_factor": 2}, (slice(None), slice(None))),
        ({"pred_iou_thresh": 0.9, "stability_score_thresh": 0.8}, (slice(None), slice(0, 61))),
        ({"box_nms_thresh": 0.5, "stability_score_thresh": 0.0}, (slice(3, 80), slice(20, 127))),
    ],
    ids=["crops", "thresholds, portrait", "nms, odd"],
)
def test_generate__same_as_sams_by_settings(
    shipped_sam: Sam,
    image: np.ndarray,
    changes: dict[str, float],
    area: tuple[slice, slice],
    assert_same_as_sams: SameAsSams,
) -> None:
    settings = replace(GENERATOR_SETTINGS, points_per_side=6, **changes)
    assert assert_same_as_sams(shipped_sam, settings, np.ascontiguousarray(image[area])) > 0


def test_generate__same_as_sams_on_enlarged_scene(
    shipped_sam: Sam, image: np.ndarray, assert_same_as_sams: SameAsSams
) -> None:
    """An image larger than the SAM's input, whose masks are upsampled twice."""
    large = image.repeat(2, axis=0).repeat(2, axis=1)[:170, :201]
    assert assert_same_as_sams(shipped_sam, replace(GENERATOR_SETTINGS, points_per_side=5), large) > 3


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_generate__image_without_masks(
    random_sam: Sam, image: np.ndarray, crop_n_layers: int, assert_same_as_sams: SameAsSams
) -> None:
    settings = GeneratorSettings(points_per_side=2, pred_iou_thresh=1.0, crop_n_layers=crop_n_layers)
    assert assert_same_as_sams(random_sam, settings, image) == 0
    candidates = MaskGenerator(proposer_of(random_sam), settings).generate(7, image)
    assert candidates.bits.shape == (0, image.shape[0], image.shape[1] // 8)
    assert candidates.points_xy.shape == (0, 2)


def test_generate__any_image_size(random_sam: Sam, open_settings: GeneratorSettings) -> None:
    """Native resolution, wider or narrower than the SAM's input, is what comes back."""
    rng = np.random.default_rng(0)
    for height, width in ((33, 70), (150, 61), (1, 1)):
        photograph = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        candidates = MaskGenerator(proposer_of(random_sam), open_settings).generate(0, photograph)
        assert candidates.masks().shape == (candidates.num_masks, height, width)
        assert (candidates.points_xy <= [width, height]).all()


def assert_equal_candidates(one: Candidates, other: Candidates) -> None:
    assert one.image_id == other.image_id
    assert np.array_equal(one.bits, other.bits)
    np.testing.assert_allclose(one.predicted_iou, other.predicted_iou, atol=1e-5)


def test_generate_batch__same_as_one_by_one(shipped_sam: Sam, image: np.ndarray) -> None:
    generator = MaskGenerator(proposer_of(shipped_sam), replace(GENERATOR_SETTINGS, points_per_side=5))
    images = [image, image[:, :60], image[10:50]]
    together = generator.generate_batch([3, 1, 2], images)
    assert sum(candidates.num_masks for candidates in together) > 5
    for image_id, photograph, candidates in zip([3, 1, 2], images, together, strict=True):
        assert_equal_candidates(candidates, generator.generate(image_id, photograph))
    assert generator.generate_batch([], []) == []


def test_generate__same_twice_and_leaves_grad_mode(
    random_sam: Sam, open_settings: GeneratorSettings, image: np.ndarray
) -> None:
    generator = MaskGenerator(proposer_of(random_sam), open_settings)
    one, other = generator.generate(0, image), generator.generate(0, image)
    assert np.array_equal(one.bits, other.bits)
    assert torch.is_grad_enabled()


def test_generator__small_regions_without_opencv(random_sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"min_mask_region_area: expected OpenCV for 20, found no module cv2"):
        MaskGenerator(proposer_of(random_sam), GeneratorSettings(min_mask_region_area=20))


def test_generator__a_second_prompt_that_the_model_does_not_have(random_sam: Sam) -> None:
    with pytest.raises(InputError, match="use_m2m: expected a SAM 2, which refines a mask by a second prompt"):
        MaskGenerator(proposer_of(random_sam), GeneratorSettings(use_m2m=True))


def connected_components(mask: np.ndarray, connectivity: int) -> tuple[int, np.ndarray, np.ndarray, None]:
    """What OpenCV's connectedComponentsWithStats gives, as far as SAM reads it: labels and, last, areas."""
    assert connectivity == 8
    labels = np.arange(1, mask.size + 1).reshape(mask.shape) * (mask > 0)
    while True:  # the largest label spreads to all neighbours
        padded = np.pad(labels, 1)
        height, width = mask.shape
        shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        spread = np.maximum.reduce(shifted) * (mask > 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    values, regions = np.unique(np.append(labels, 0), return_inverse=True)
    regions = regions[:-1].reshape(mask.shape)
    return len(values), regions, np.bincount(regions.ravel(), minlength=len(values))[:, None], None


def test_generate__small_regions_same_as_sams(
    small_sam: Callable[[int], Sam],
    open_settings: GeneratorSettings,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_as_sams: SameAsSams,
) -> None:
    """With a stand-in for OpenCV, which both generators then use."""
    opencv = ModuleType("cv2")
    opencv.connectedComponentsWithStats = connected_components  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    monkeypatch.setattr(generator_module, "find_spec", lambda name: opencv)
    photograph = np.random.default_rng(0).integers(0, 256, size=(40, 52, 3), dtype=np.uint8)
    settings = replace(open_settings, min_mask_region_area=30, box_nms_thresh=0.95, crop_nms_thresh=0.9)
    num_masks = assert_same_as_sams(small_sam(0), settings, photograph)
    plain, cleaned = (
        MaskGenerator(proposer_of(small_sam(0)), replace(settings, min_mask_region_area=area)).generate(0, photograph)
        for area in (0, 30)
    )
    assert 0 < num_masks <= plain.num_masks
    assert set(map(bytes, cleaned.bits)) - set(map(bytes, plain.bits))


def test_generate__bf16_is_close(small_sam: Callable[[int], Sam], open_settings: GeneratorSettings) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, size=(30, 40, 3), dtype=np.uint8)
    exact, half = (
        MaskGenerator(proposer_of(small_sam(0), precision), replace(open_settings, points_per_side=2))
        for precision in (None, "bf16")
    )
    assert (exact.precision, half.precision) == ("fp32", "bf16")
    expected, candidates = exact.generate(0, photograph), half.generate(0, photograph)
    assert candidates.num_masks == expected.num_masks > 0
    masks, others = expected.masks()[:, None], candidates.masks()[None]
    ious = (masks & others).sum((2, 3)) / np.maximum(1, (masks | others).sum((2, 3)))
    assert ious.max(axis=1).mean() > 0.9


@pytest.fixture(scope="module")
def cuda_sam() -> Sam:
    return build_tiny_sam(weights_path()).cuda()


@pytest.mark.gpu
@needs_cuda
@pytest.mark.filterwarnings("ignore:Please use the new API")
@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_generate__same_as_sams_on_cuda(
    cuda_sam: Sam,
    image: np.ndarray,
    crop_n_layers: int,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_as_sams: SameAsSams,
) -> None:
    """In float32 throughout: cuDNN would compute SAM's transposed convolutions, ours are none, in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    settings = replace(GENERATOR_SETTINGS, crop_n_layers=crop_n_layers)
    assert assert_same_as_sams(cuda_sam, settings, image) > 3


@pytest.mark.gpu
@needs_cuda
def test_generate__bf16_agrees_with_fp32_on_cuda(cuda_sam: Sam) -> None:
    exact = MaskGenerator(proposer_of(cuda_sam, "fp32"), GENERATOR_SETTINGS)
    half = MaskGenerator(proposer_of(cuda_sam), GENERATOR_SETTINGS)
    assert half.precision == "bf16"
    best_ious, counts = [], np.zeros(2)
    for index in range(16):
        photograph = make_scene("sam_check", 0, index).image
        expected, candidates = exact.generate(0, photograph), half.generate(0, photograph)
        counts += expected.num_masks, candidates.num_masks
        masks, others = expected.masks()[:, None], candidates.masks()[None]
        ious = (masks & others).sum((2, 3)) / np.maximum(1, (masks | others).sum((2, 3)))
        best_ious.extend(ious.max(axis=1))
    assert np.mean(best_ious) >= 0.99
    assert abs(counts[1] / counts[0] - 1) <= 0.02


@pytest.mark.gpu
@needs_cuda
def test_generate__out_of_memory_halves_the_batch_on_cuda(
    cuda_sam: Sam, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(GENERATOR_SETTINGS, points_per_batch=36)
    expected = MaskGenerator(proposer_of(cuda_sam, "fp32"), settings).generate(0, image)
    generator = MaskGenerator(proposer_of(cuda_sam, "fp32"), settings)
    decode = generator._decode

    def decode_few(shared: Any, tokens: torch.Tensor, attended: torch.Tensor) -> Any:
        if len(tokens) > 9:
            torch.empty(2**46, dtype=torch.uint8, device="cuda")  # 64 TiB
        return decode(shared, tokens, attended)

    monkeypatch.setattr(generator, "_decode", decode_few)
    assert_equal_candidates(generator.generate(0, image), expected)
    assert generator.points_per_batch == 9


def test_generator__unknown_precision(random_sam: Sam) -> None:
    with pytest.raises(InputError, match="--precision: expected one of"):
        MaskGenerator(proposer_of(random_sam, "fp8"), GeneratorSettings())


def test_generate__compiled_is_the_same(shipped_sam: Sam, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and decoder are what is compiled, and the decoder sees full batches only: one shape to compile."""
    compiled, batch_sizes = [], []

    def compile_nothing(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(function.__name__)

        def call(*args: Any) -> Any:
            batch_sizes.append(len(args[-1]))
            return function(*args)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    settings = replace(GENERATOR_SETTINGS, points_per_side=5, points_per_batch=10)
    generator = MaskGenerator(proposer_of(shipped_sam, compiled=True), settings)
    assert generator.warm_up(96, 128) > 0
    assert compiled == ["encode", "decode"]
    assert batch_sizes == [1, 10, 10, 10]
    assert_equal_candidates(
        generator.generate(0, image), MaskGenerator(proposer_of(shipped_sam), settings).generate(0, image)
    )


def test_generate__out_of_memory_halves_the_batch(
    shipped_sam: Sam, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, set_num_threads: Callable[[int], None]
) -> None:
    set_num_threads(1)  # with more the next batch may have begun before the first one fails
    settings = replace(GENERATOR_SETTINGS, points_per_side=5, points_per_batch=12)
    expected = MaskGenerator(proposer_of(shipped_sam), settings).generate(0, image)
    generator = MaskGenerator(proposer_of(shipped_sam), settings)
    decode, batch_sizes = generator._decode, []

    def decode_few(shared: Any, tokens: torch.Tensor, attended: torch.Tensor) -> Any:
        batch_sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(shared, tokens, attended)

    monkeypatch.setattr(generator, "_decode", decode_few)
    assert_equal_candidates(generator.generate(0, image), expected)
    assert (batch_sizes[:3], generator.points_per_batch) == ([12, 6, 3], 3)
    generator.generate(0, image)
    assert max(batch_sizes[3:]) == 3  # the lower value stays


def test_generate__same_bits_with_any_number_of_threads(
    shipped_sam: Sam, image: np.ndarray, set_num_threads: Callable[[int], None]
) -> None:
    settings = replace(GENERATOR_SETTINGS, points_per_side=6, points_per_batch=7)
    generator = MaskGenerator(proposer_of(shipped_sam), settings, profile=True)
    set_num_threads(1)
    expected = generator.generate(0, image)
    assert expected.num_masks > 3
    set_num_threads(2)
    assert_equal_candidates(generator.generate(0, image), expected)
    assert min(generator.timings.values()) > 0
    plain = MaskGenerator(proposer_of(shipped_sam), settings)
    for candidates in [plain.generate(0, image), *plain.generate_batch([0, 0, 0], [image, image, image])]:
        assert_equal_candidates(candidates, expected)
    assert torch.get_num_threads() == 2


def test_generate__out_of_memory_with_one_prompt(
    shipped_sam: Sam, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode_nothing(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    generator = MaskGenerator(proposer_of(shipped_sam), replace(GENERATOR_SETTINGS, points_per_side=2))
    monkeypatch.setattr(generator, "_decode", decode_nothing)
    with pytest.raises(torch.OutOfMemoryError):
        generator.generate(0, image)
    assert generator.points_per_batch == 1


def test_generate_batch__out_of_memory_encodes_fewer_images(
    shipped_sam: Sam, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = MaskGenerator(proposer_of(shipped_sam), replace(GENERATOR_SETTINGS, points_per_side=3))
    expected = generator.generate(1, image)
    encode, batch_sizes = generator._encode, []

    def encode_one(pixels: torch.Tensor) -> torch.Tensor:
        batch_sizes.append(len(pixels))
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(pixels)

    monkeypatch.setattr(generator._threads, "_enabled", False)  # as on CUDA: all images at once
    monkeypatch.setattr(generator, "_encode", encode_one)
    for candidates in generator.generate_batch([1, 1, 1], [image] * 3):
        assert_equal_candidates(candidates, expected)
    assert batch_sizes == [3, 1, 2, 1, 1]


def test_timings__by_phase_when_asked(shipped_sam: Sam, image: np.ndarray) -> None:
    settings = replace(GENERATOR_SETTINGS, points_per_side=3)
    timed, plain = (MaskGenerator(proposer_of(shipped_sam), settings, profile=profile) for profile in (True, False))
    for generator in (timed, plain):
        generator.generate(0, image)
    assert list(timed.timings) == ["encode", "decode", "select", "pack"]
    assert min(timed.timings.values()) > 0
    assert set(plain.timings.values()) == {0.0}
    timed.warm_up(20, 30)
    assert set(timed.timings.values()) == {0.0}
