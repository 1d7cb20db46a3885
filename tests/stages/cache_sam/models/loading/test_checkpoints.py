import argparse
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from semires.stages.cache_sam.models.loading.checkpoints import check_weights, for_grid, read_checkpoint
from semires.stages.data.errors import InputError

Weights = Mapping[str, Tensor]
Refused = Callable[..., str]


@pytest.fixture
def weights(random_sam: Sam) -> dict[str, Tensor]:
    return dict(random_sam.state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sam [bold].pth"


@pytest.fixture
def refused(path: Path, weights: Weights) -> Refused:
    """What reading `content`, and holding it against the tiny SAM's weights, is refused with, in a line."""

    def refuse(content: object) -> str:
        torch.save(content, path)
        with pytest.raises(InputError) as caught:
            check_weights(read_checkpoint(path), weights, "tiny", path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse


def assert_read(path: Path, weights: Weights, *notes: str) -> None:
    found = read_checkpoint(path)
    assert found.notes == notes
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in found.weights.items())
    check_weights(found, weights, "tiny", path)


def prefixed(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def test_read_checkpoint__as_meta_saves_it(path: Path, weights: Weights) -> None:
    torch.save(weights, path)
    assert_read(path, weights)
    torch.save(OrderedDict(weights), path, _use_new_zipfile_serialization=False)
    assert_read(path, weights)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "model_state", "net"])
def test_read_checkpoint__with_what_training_needed(path: Path, weights: Weights, key: str) -> None:
    step = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(step.parameters())
    step(torch.ones(2)).sum().backward()
    optimizer.step()
    torch.save({key: weights, "optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.5}, path)
    assert_read(path, weights, f"stripped off its names: '{key}.'", "left out: epoch, loss, optimizer")


@pytest.mark.parametrize(
    ("prefix", "told"),
    [
        ("module.", "'module.'"),
        ("model.", "'model.'"),
        ("sam.", "'sam.'"),
        ("module.sam.", "'sam.', 'module.'"),
        ("_orig_mod.module.model.sam_model.", "'model.sam_model.', '_orig_mod.', 'module.'"),
    ],
)
def test_read_checkpoint__names_with_something_before_them(
    path: Path, weights: Weights, prefix: str, told: str
) -> None:
    torch.save(prefixed(prefix, weights), path)
    assert_read(path, weights, f"stripped off its names: {told}")


def test_read_checkpoint__as_lightning_saves_it(path: Path, weights: Weights) -> None:
    """With a loss that has weights, beside the SAM in the same dict."""
    state = prefixed("model.", weights) | {"model.head.weight": torch.ones(2), "loss.weight": torch.ones(3)}
    content = {"epoch": 1, "pytorch-lightning_version": "2.5", "state_dict": state, "callbacks": {"a": {"b": None}}}
    torch.save(content, path)
    left_out = "callbacks, epoch, pytorch-lightning_version, state_dict.loss, state_dict.model.head"
    assert_read(path, weights, "stripped off its names: 'state_dict.model.'", f"left out: {left_out}")


def test_read_checkpoint__one_part_of_it_wrapped(path: Path, weights: Weights) -> None:
    """torch.compile of the encoder alone, parts in dicts of their own."""
    compiled = {name.replace("image_encoder.", "image_encoder._orig_mod."): value for name, value in weights.items()}
    torch.save(compiled, path)
    assert_read(path, weights, "stripped off its names: '_orig_mod.'")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    torch.save(parts, path)
    assert_read(path, weights)


def test_read_checkpoint__a_namespace_inside(path: Path, weights: Weights) -> None:
    arguments = argparse.Namespace(lr=1e-4, sizes=[1, 2], name="a", inner=argparse.Namespace(b=1))
    for zipped in (True, False):
        torch.save({"model": weights, "args": arguments}, path, _use_new_zipfile_serialization=zipped)
        assert_read(path, weights, "stripped off its names: 'model.'", "left out: args")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_read_checkpoint__other_objects_inside_are_named(refused: Refused, weights: Weights) -> None:
    line = refused({"model": weights, "args": argparse.Namespace(path=Path("a"))})
    assert re.search(r"found pathlib[\w.]*\.PosixPath beside them", line)
    assert "torch.save(model.state_dict(), FILE)" in line


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".bin", ""])
def test_read_checkpoint__told_by_its_bytes(tmp_path: Path, weights: Weights, ending: str) -> None:
    path = tmp_path / f"sam{ending}"
    save_file(dict(weights), path)
    assert_read(path, weights)
    torch.save(weights, path)
    assert_read(path, weights)


def test_read_checkpoint__half_precision_is_taken(path: Path, weights: Weights) -> None:
    half = {name: value.half() for name, value in weights.items()}
    torch.save(half, path)
    assert_read(path, half)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404: not found</html>\n",
        b"(no weights)",
        b"0123",
        b"PK\x03\x04 no zip",
        b"\x80\x02}q\x00.",
        b"\x05\0\0\0\0\0\0\0{no_json",
    ],
    ids=["empty", "html", "list-index", "digits", "zip", "dict", "safetensors"],
)
def test_read_checkpoint__no_checkpoint(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"sam{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"--sam-checkpoint: ") as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_checkpoint__cut_off(path: Path, weights: Weights) -> None:
    torch.save(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="found a file that is no checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"model": {"a": torch.zeros(2)}}, {"epoch": 3}, torch.zeros(2)])
def test_read_checkpoint__something_else_saved_by_torch(refused: Refused, content: object) -> None:
    assert "expected SAM weights by name, found something else" in refused(content)


def test_read_checkpoint__a_dict_that_holds_itself(refused: Refused) -> None:
    content: dict[str, Any] = {"a": {"b": 1}}
    content["a"]["again"] = content
    assert "no tensor by name" in refused(content)


class Touch:
    """Creates a folder when it is unpickled by an unpickler that runs what a pickle asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_read_checkpoint__code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    content = {"a": argparse.Namespace(b=Touch(trap))}
    torch.save(content, tmp_path / "zip.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content))
    for name in ("zip", "old", "plain"):
        with pytest.raises(InputError, match=r"found .*mkdir beside them|found a file that is no checkpoint"):
            read_checkpoint(tmp_path / f"{name}.pth")
        assert not trap.exists()
    # The trap works: the standard unpickler falls into it.
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert trap.exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("mask_decoder.hf_token.weight", "a SAM-HQ"),
        ("image_encoder.patch_embed.seq.0.c.weight", "a MobileSAM"),
        ("image_encoder.blocks.0.Adapter.channel.0.weight", "a SAM with adapters, such as SAM-Med2D"),
        ("image_encoder.blocks.0.attn.qkv.lora_A.default.weight", "a SAM's LoRA additions"),
        ("w_a_000", "a SAM's LoRA additions"),
        ("prompt_encoder.invalid_points.weight", "an EfficientSAM"),
        ("sam_mask_decoder.iou_token.weight", "a SAM 2"),
        ("detector.backbone.vision_backbone.trunk.pos_embed", "a SAM 3"),
    ],
)
def test_read_checkpoint__another_model_is_called_what_it_is(
    refused: Refused, weights: Weights, name: str, what: str
) -> None:
    for content in ({name: torch.zeros(2)}, {"model": {**weights, name: torch.zeros(2)}}):
        line = refused(content)
        assert f"found {what} in " in line
        assert name in line


def test_read_checkpoint__transformers_state_dict(refused: Refused) -> None:
    sizes = {"hidden_size": 16, "image_size": 32, "patch_size": 8}
    vision = {**sizes, "num_hidden_layers": 1, "num_attention_heads": 2, "output_channels": 16, "num_pos_feats": 8}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=sizes, mask_decoder_config=decoder))
    line = refused(model.state_dict())
    assert "a model of transformers" in line
    assert "save_pretrained writes as --sam" in line


def test_read_checkpoint__two_sams(refused: Refused, weights: Weights) -> None:
    line = refused({"model": weights, "ema": prefixed("module.", weights)})
    assert "expected one SAM" in line
    assert "found 2, in 'ema', 'model'" in line
    assert "twice" in refused({"model": weights, "model.module": dict(weights)})


def test_read_checkpoint__part_of_a_sam(refused: Refused, weights: Weights) -> None:
    some = {name: value for name, value in weights.items() if name.startswith("image_encoder.")}
    assert "found its image_encoder alone" in refused(some)


def test_check_weights__missing_and_unknown(refused: Refused, weights: Weights) -> None:
    name = "mask_decoder.transformer.layers.0.norm1.weight"
    line = refused({key: value for key, value in weights.items() if key != name})
    assert f"is no SAM tiny: expected its {len(weights)} weights, found 1 missing ({name}); give the file" in line
    line = refused(prefixed("model.", weights) | {"model.image_encoder.extra": torch.zeros(3)})
    assert "found 1 unknown (image_encoder.extra)" in line


def test_check_weights__not_finite(refused: Refused, weights: dict[str, Tensor]) -> None:
    for number in (float("nan"), float("inf")):
        bad = weights["mask_decoder.iou_token.weight"].clone()
        bad[0, 3] = number
        line = refused({**weights, "mask_decoder.iou_token.weight": bad})
        assert "expected finite numbers" in line
        assert f"found 1 of {bad.numel()} in mask_decoder.iou_token.weight" in line


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_check_weights__no_floats(refused: Refused, weights: Weights, dtype: torch.dtype) -> None:
    name = "image_encoder.pos_embed"
    assert f"found {name} of {dtype}" in refused({**weights, name: weights[name].to(dtype)})


@pytest.mark.parametrize("name", ["pixel_mean", "pixel_std"])
@pytest.mark.parametrize("value", [torch.zeros(2), torch.full((3, 1, 1), torch.nan), torch.zeros(3, 3)])
def test_read_checkpoint__pixel_constants_that_are_none(
    refused: Refused, weights: Weights, name: str, value: Tensor
) -> None:
    assert f"expected {name} of three colours" in refused({**weights, name: value})


def test_for_grid__vit_b_for_256_pixels() -> None:
    """Shapes as segment-anything's own encoder has them at that size."""
    with torch.device("meta"):
        found = for_grid(sam_model_registry["vit_b"](), 16)
        expected = ImageEncoderViT(
            img_size=256, depth=12, use_rel_pos=True, window_size=14, global_attn_indexes=(2, 5, 8, 11)
        )
    shapes = {name: value.shape for name, value in expected.state_dict().items()}
    assert {name: value.shape for name, value in found.image_encoder.state_dict().items()} == shapes
    assert for_grid(found, 16) is found
