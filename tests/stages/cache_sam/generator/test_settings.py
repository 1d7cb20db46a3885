from dataclasses import asdict, replace

import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.amg import build_all_layer_point_grids

from semires.stages.cache_sam.generator.settings import GeneratorSettings, precision_of
from semires.stages.data.errors import InputError


def test_settings__defaults_are_sams() -> None:
    """The published recipe is segment-anything's own defaults."""
    defaults = SamAutomaticMaskGenerator.__init__.__kwdefaults__ or {}
    names = SamAutomaticMaskGenerator.__init__.__code__.co_varnames
    positional = SamAutomaticMaskGenerator.__init__.__defaults__
    count = SamAutomaticMaskGenerator.__init__.__code__.co_argcount
    defaults = defaults | dict(zip(names[count - len(positional) : count], positional, strict=True))
    ours = asdict(GeneratorSettings())
    assert ours.pop("use_m2m") is False  # SAM 2's step, which SAM does not have
    assert {name: defaults[name] for name in ours} == ours


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
        ("crop_overlap_ratio", 1.0),
        ("crop_overlap_ratio", -0.1),
        ("crop_overlap_ratio", float("nan")),
        ("stability_score_offset", -1.0),
        ("stability_score_offset", float("inf")),
        ("stability_score_offset", float("nan")),
    ],
)
def test_settings__out_of_range(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name}: expected .*, found {value}"):
        GeneratorSettings(**{name: value})


@pytest.mark.parametrize(
    ("side", "layers", "factor", "most"), [(4, 2, 4, 1), (15, 2, 4, 1), (32, 6, 2, 5), (1, 1, 2, 0), (32, 10**6, 2, 5)]
)
def test_settings__crops_without_a_prompt(side: int, layers: int, factor: int, most: int) -> None:
    """segment-anything divides by the number of prompts of each layer."""
    with pytest.raises(ZeroDivisionError):
        build_all_layer_point_grids(side, layers, factor)
    settings = GeneratorSettings(points_per_side=side, crop_n_layers=most, crop_n_points_downscale_factor=factor)
    assert len(build_all_layer_point_grids(side, most, factor)[-1]) >= 1
    expected = f"crop_n_layers: expected {most} or fewer with points_per_side {side} .*, found {layers}; change one"
    with pytest.raises(InputError, match=expected):
        replace(settings, crop_n_layers=layers)


@pytest.mark.parametrize("name", ["crop_n_layers", "points_per_side"])
def test_settings__more_prompts_than_any_run_ends(name: str) -> None:
    """Of the one, the crops of an image have no end; of the other, the grid fits no memory."""
    with pytest.raises(InputError, match=r"points_per_side .*crop_n_layers .*: expected .* prompts .*; give fewer"):
        GeneratorSettings(**{name: 100_000})


def test_recorded__all_that_changes_a_candidate() -> None:
    settings = GeneratorSettings()
    recorded = settings.recorded()
    assert set(recorded) == set(asdict(settings)) - {"points_per_batch", "use_m2m"}
    assert replace(settings, use_m2m=True).recorded() == recorded | {"use_m2m": 1}
    assert recorded == replace(settings, points_per_batch=7).recorded()
    assert recorded != replace(settings, points_per_side=16).recorded()


def test_on__fills_the_device_and_changes_no_candidate() -> None:
    settings = GeneratorSettings(points_per_side=5, points_per_batch=36)
    assert settings.on(torch.device("cpu")) == settings
    assert settings.on(torch.device("cuda:1")) == replace(settings, points_per_batch=256)
    assert settings.on(torch.device("cuda")).recorded() == settings.recorded()


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [(None, "cpu", "fp32"), (None, "cuda", "bf16"), ("fp16", "cpu", "fp16"), ("fp32", "cuda", "fp32")],
)
def test_precision_of__default_by_device(name: str | None, device: str, expected: str) -> None:
    assert precision_of(name, torch.device(device)) == expected


def test_precision_of__unknown() -> None:
    with pytest.raises(InputError, match="--precision: expected one of fp32, bf16, fp16, found 'int8'"):
        precision_of("int8", torch.device("cpu"))
