import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2Config, Sam2Model
from transformers.utils import logging

from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.loading.transformers_models import load_transformers_model
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import load_sam
from semires.stages.cache_sam.models.sam2_proposer import GENERATOR_SETTINGS, Sam2Proposer
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")

SMALL: dict[str, Any] = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [64, 64],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 12},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sam2-small"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Sam2Model(Sam2Config(**SMALL)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, saved: Path) -> Path:
    """A copy of `saved` that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "sam2-small"))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_load_sam__folder_of_a_sam_2(saved: Path) -> None:
    loaded = load_sam(str(saved), None, CPU)
    assert loaded.name == "sam2-small"
    assert loaded.settings == GENERATOR_SETTINGS != GeneratorSettings()
    assert not loaded.sam.training
    assert isinstance(proposer_of(loaded.sam), Sam2Proposer)
    weights = load_file(saved / "model.safetensors")
    state = loaded.sam.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())


def test_load__says_nothing(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """transformers draws a bar of its own, which a log or our own bar has no place for."""
    assert logging.is_progress_bar_enabled()
    load_transformers_model(saved)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


def test_load__a_video_models_folder(folder: Path) -> None:
    """As the hub's SAM 2.1 has them: another model_type, and weights of a memory beside."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "sam2_video"}))
    edit_weights(folder, lambda weights: weights.update({"memory_attention.layer_norm.weight": torch.ones(16)}))
    model = load_transformers_model(folder)
    assert type(model) is Sam2Model


def test_load__pixels_as_the_processor_says(folder: Path) -> None:
    assert not hasattr(load_transformers_model(folder), "pixel_mean")
    content = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    model = load_transformers_model(folder)
    assert model.pixel_mean == pytest.approx([0.1, 0.2, 0.3])
    grey = torch.full((8, 8, 3), 255, dtype=torch.uint8).numpy()
    loaded = Sam2Proposer(model, "fp32").load([grey])
    torch.testing.assert_close(loaded[0, :, 3, 3], torch.tensor([2.25, 1.6, 7 / 6]))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda weights: weights.pop("mask_decoder.iou_token.weight"), "1 missing, e.g. mask_decoder.iou_token.weight"),
        (lambda weights: weights["mask_decoder.iou_token.weight"].fill_(float("nan")), "expected finite weights"),
        (lambda weights: weights.update({"mask_decoder.iou_token.weight": torch.zeros(1, 3)}), "cannot be read"),
    ],
    ids=["missing", "nan", "shape"],
)
def test_load__weights_that_do_not_fit(folder: Path, edit: Callable[..., object], expected: str) -> None:
    edit_weights(folder, edit)
    with pytest.raises(InputError) as caught:
        load_transformers_model(folder)
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
