import copy
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import httpx
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from torch import Tensor
from transformers import SamConfig, SamModel

from semires.stages.cache_sam.models.loading import transformers_folder
from semires.stages.cache_sam.models.loading.transformers_folder import (
    download_model,
    read_pixel_statistics,
    weight_files,
)
from semires.stages.cache_sam.models.loading.transformers_sam import (
    FREQUENCIES,
    FREQUENCIES_TWIN,
    build_sam,
    convert_weights,
    load_transformers_sam,
    transformers_names,
)
from semires.stages.data.errors import InputError

SAM_MEAN, SAM_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

# No size is a default, and no two that could be mistaken for each other are equal.
SMALL: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 64,
        "patch_size": 8,
        "output_channels": 16,
        "num_pos_feats": 8,
        "window_size": 3,
        "global_attn_indexes": [1],
        "mlp_dim": 41,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 8},
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 28,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "iou_head_depth": 4,
        "iou_head_hidden_dim": 12,
        "num_multimask_outputs": 4,
    },
}
OTHER: dict[str, dict[str, Any]] = {
    "small": {},
    "no windows": {"vision_config": {"window_size": 0}},
    "no positions": {"vision_config": {"use_abs_pos": False, "use_rel_pos": False, "qkv_bias": False}},
    "other activations": {
        "vision_config": {"hidden_act": "relu"},
        "prompt_encoder_config": {"hidden_act": "silu"},
        "mask_decoder_config": {"hidden_act": "gelu"},
    },
    "epsilons": {
        "vision_config": {"layer_norm_eps": 0.3},
        "prompt_encoder_config": {"layer_norm_eps": 0.2},
        "mask_decoder_config": {"layer_norm_eps": 0.1},
    },
    "last attention narrower": {"mask_decoder_config": {"attention_downsample_rate": 4}},
    "shallow iou head": {"mask_decoder_config": {"iou_head_depth": 1}},
}


def small_config(**changes: dict[str, Any]) -> dict[str, Any]:
    return {part: {**settings, **changes.get(part, {})} for part, settings in SMALL.items()}


def random_model(config: dict[str, Any]) -> SamModel:
    """A SamModel whose weights all matter: transformers starts some at zero, which would hide a mistake."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SamModel(SamConfig(**copy.deepcopy(config)))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def save_model(model: SamModel, folder: Path) -> Path:
    model.config.save_pretrained(folder)
    weights = {key: value.clone() for key, value in model.state_dict().items() if key != FREQUENCIES_TWIN}
    save_file(weights, folder / "model.safetensors")
    return folder


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    edit(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def model() -> SamModel:
    return random_model(SMALL)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, model: SamModel) -> Path:
    return save_model(model, tmp_path_factory.mktemp("sam"))


@pytest.fixture
def folder(tmp_path: Path, saved: Path) -> Path:
    """A copy of `saved` that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "sam-small"))


def assert_one_line(error: pytest.ExceptionInfo[InputError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in ("--sam: expected", *parts)), text


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER.keys())
@torch.no_grad()
def test_load_transformers_sam__outputs_of_both(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = random_model(small_config(**changes))
    ours = load_transformers_sam(save_model(theirs, tmp_path))
    assert not ours.training
    generator = torch.Generator().manual_seed(1)
    size = theirs.config.vision_config.image_size
    image = torch.randn(2, 3, size, size, generator=generator)
    embeddings = ours.image_encoder(image)
    expected = theirs.get_image_embeddings(image)
    torch.testing.assert_close(embeddings, expected, rtol=1e-5, atol=1e-5)
    points = torch.rand(5, 2, 2, generator=generator) * size  # five prompts of two points
    labels = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 0], [0, 0]])
    low_res = torch.randn(1, 1, 4 * size // 8, 4 * size // 8, generator=generator)
    for masks, multimask in ((None, True), (None, False), (low_res, True)):
        sparse, dense = ours.prompt_encoder(points=(points, labels), boxes=None, masks=masks)
        logits, ious = ours.mask_decoder(
            image_embeddings=embeddings[:1],
            image_pe=ours.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        output = theirs(
            image_embeddings=expected[:1],
            input_points=points[None],
            input_labels=labels[None],
            input_masks=masks,
            multimask_output=multimask,
        )
        assert logits.std() > 0.01
        torch.testing.assert_close(logits, output.pred_masks[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ious, output.iou_scores[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_load_transformers_sam__boxes(saved: Path, model: SamModel) -> None:
    boxes = torch.tensor([[3.0, 4.0, 40.0, 50.0], [0.0, 0.0, 63.0, 9.0]])
    sparse, dense = load_transformers_sam(saved).prompt_encoder(points=None, boxes=boxes, masks=None)
    expected_sparse, expected_dense = model.get_prompt_embeddings(input_boxes=boxes[None])
    torch.testing.assert_close(sparse, expected_sparse[0])
    torch.testing.assert_close(dense[:1], expected_dense)


def test_load_transformers_sam__folder_of_save_pretrained(tmp_path: Path, model: SamModel, saved: Path) -> None:
    """What transformers itself writes, in one file and in shards: guards the key names of its version."""
    expected = load_transformers_sam(saved).state_dict()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(weight_files(tmp_path / "one")) == 1
    assert len(weight_files(tmp_path / "shards")) > 2
    for name in ("one", "shards"):
        found = load_transformers_sam(tmp_path / name).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_load_transformers_sam__half_precision_becomes_float32(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({key: value.bfloat16() for key, value in weights.items()}, folder / "model.safetensors")
    sam = load_transformers_sam(folder)
    assert {value.dtype for value in sam.state_dict().values()} == {torch.float32}
    assert torch.equal(sam.mask_decoder.iou_token.weight, weights["mask_decoder.iou_token.weight"].bfloat16().float())


def test_load_transformers_sam__file_that_is_no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError) as caught:
        load_transformers_sam(folder)
    assert_one_line(caught, "cannot be read as such", str(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("name", "sizes", "global_layers"),
    [
        ("vit_b", {}, None),
        ("vit_l", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}, [5, 11, 17, 23]),
        ("vit_h", {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16}, [7, 15, 23, 31]),
    ],
)
def test_build_sam__the_registrys(name: str, sizes: dict[str, Any], global_layers: list[int] | None) -> None:
    """transformers' configs of Meta's three give segment-anything's three, shape by shape."""
    vision = sizes if global_layers is None else {**sizes, "global_attn_indexes": global_layers}
    with torch.device("meta"):
        built = build_sam(SamConfig(vision_config=vision), SAM_MEAN, SAM_STD, Path("sam"))
        registered = sam_model_registry[name]()
    shapes = {key: value.shape for key, value in built.state_dict().items()}
    assert shapes == {key: value.shape for key, value in registered.state_dict().items()}
    for ours, theirs in zip(built.modules(), registered.modules(), strict=True):
        assert type(ours) is type(theirs)
    assert built.image_encoder.blocks[0].norm1.eps == registered.image_encoder.blocks[0].norm1.eps
    assert [block.window_size for block in built.image_encoder.blocks] == [
        block.window_size for block in registered.image_encoder.blocks
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vision_config": {"num_channels": 4}}, "vision_config.num_channels 3"),
        ({"prompt_encoder_config": {"image_size": 128}}, "prompt_encoder_config.image_size 64"),
        ({"prompt_encoder_config": {"hidden_size": 32}}, "prompt_encoder_config.hidden_size 16"),
        ({"mask_decoder_config": {"hidden_size": 32}}, "mask_decoder_config.hidden_size 16"),
        ({"vision_config": {"num_pos_feats": 9}}, "num_pos_feats 16"),
        ({"vision_config": {"num_attention_heads": 5}}, "modulo num_attention_heads 0"),
        ({"vision_config": {"num_attention_heads": 0}}, "vision_config.num_attention_heads as a number"),
        ({"vision_config": {"image_size": [64, 64]}}, "vision_config.image_size as a number"),
        ({"vision_config": {"hidden_act": "quick_gelu"}}, "hidden_act gelu, relu, silu"),
        ({"mask_decoder_config": {"num_attention_heads": 3}}, "the sizes of a SAM"),
        ({"mask_decoder_config": {"mlp_dim": -1}}, "the sizes of a SAM"),
    ],
)
def test_build_sam__sizes_that_do_not_fit(changes: dict[str, Any], expected: str) -> None:
    config = SamConfig(**small_config(**changes))
    with pytest.raises(InputError) as caught:
        build_sam(config, SAM_MEAN, SAM_STD, Path("folder"))
    assert_one_line(caught, expected, "folder/config.json")


def test_transformers_names__every_weight_of_sam_model_once(model: SamModel, saved: Path) -> None:
    names = transformers_names(load_transformers_sam(saved))
    assert len(set(names.values())) == len(names)
    assert set(names.values()) | {FREQUENCIES_TWIN} == model.state_dict().keys()


def test_convert_weights__each_value_where_it_belongs(saved: Path) -> None:
    """Every weight carries a number of its own: none may be used twice, dropped or changed."""
    sam = load_transformers_sam(saved)
    file = load_file(saved / "model.safetensors")
    numbered = {key: torch.full_like(value, index) for index, (key, value) in enumerate(sorted(file.items()))}
    converted = convert_weights(numbered, sam, saved)
    assert sorted(int(value.flatten()[0]) for value in converted.values()) == list(range(len(file)))
    assert converted.keys() == sam.state_dict().keys()


@pytest.mark.parametrize("kept", [{FREQUENCIES}, {FREQUENCIES_TWIN}, {FREQUENCIES, FREQUENCIES_TWIN}])
def test_convert_weights__either_name_of_the_frequencies(saved: Path, kept: set[str]) -> None:
    weights = load_file(saved / "model.safetensors")
    frequencies = weights.pop(FREQUENCIES)
    given = {**weights, **{name: frequencies.clone() for name in kept}}
    converted = convert_weights(given, load_transformers_sam(saved), saved)
    assert torch.equal(converted["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"], frequencies)
    assert given.keys() == weights.keys() | kept


def test_convert_weights__two_frequencies(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    with pytest.raises(InputError) as caught:
        convert_weights({**weights, FREQUENCIES_TWIN: weights[FREQUENCIES] + 1}, load_transformers_sam(saved), saved)
    assert_one_line(caught, "found two", FREQUENCIES, FREQUENCIES_TWIN)


def test_convert_weights__missing_and_unexpected(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["vision_encoder.neck.conv1.weight"]
    weights["vision_encoder.neck.conv9.weight"] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        convert_weights(weights, load_transformers_sam(saved), saved)
    assert_one_line(
        caught,
        "1 missing (vision_encoder.neck.conv1.weight)",
        "1 unexpected (vision_encoder.neck.conv9.weight)",
    )
    many = {key: value for key, value in weights.items() if not key.startswith("mask_decoder.")}
    with pytest.raises(InputError, match=r"missing \(mask_decoder\.iou_prediction_head.*, \.\.\.\)"):
        convert_weights(many, load_transformers_sam(saved), saved)


@pytest.mark.parametrize("value", [torch.zeros(1, 15), torch.zeros(1, 16, dtype=torch.int8)])
def test_convert_weights__other_shape_or_type(saved: Path, value: Tensor) -> None:
    weights = load_file(saved / "model.safetensors") | {"mask_decoder.iou_token.weight": value}
    with pytest.raises(InputError) as caught:
        convert_weights(weights, load_transformers_sam(saved), saved)
    assert_one_line(caught, "mask_decoder.iou_token.weight of floats, shape (1, 16)", str(value.dtype))


def test_weight_files__pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load_transformers_sam(folder)
    assert_one_line(caught, "model.safetensors", "only pytorch_model.bin, a pickle")


def test_weight_files__none(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        weight_files(folder)
    assert_one_line(caught, "model.safetensors", "found none")


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({"a": "model-2.safetensors", "b": "model-1.safetensors"}, "found model-1.safetensors missing"),
        ({"a": "../other/model.safetensors"}, "found others or none"),
        ({"a": "pytorch_model.bin"}, "found others or none"),
        ({"a": "model-2.safetensors", "b": ["model-2.safetensors"], "c": 3}, "found others or none"),
        ({}, "found others or none"),
        (None, "found others or none"),
    ],
)
def test_weight_files__index(folder: Path, weight_map: object, expected: str) -> None:
    (folder / "model.safetensors").rename(folder / "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InputError) as caught:
        weight_files(folder)
    assert_one_line(caught, expected)


def test_read_config__folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_transformers_sam(tmp_path)
    assert_one_line(caught, f"found no config.json in {tmp_path}")


@pytest.mark.parametrize("model_type", ["sam_vision_model", "bert", "sam3", None, 3])
def test_class_of__another_model(folder: Path, model_type: object) -> None:
    edit_config(folder, lambda content: content.update(model_type=model_type))
    with pytest.raises(InputError) as caught:
        load_transformers_sam(folder)
    assert_one_line(caught, "a model_type of edgetam, ", "sam2", f"found {model_type!r}")


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"model_type": "sam", "vision_config": {"hidden_size": "x"}}'])
def test_read_config__unreadable(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load_transformers_sam(folder)
    assert_one_line(caught, str(folder / "config.json"))


def test_read_config__of_an_old_transformers(folder: Path) -> None:
    """Configs of 2023 carry keys that no longer mean anything, and leave out some that are the default."""

    def age(content: dict[str, Any]) -> None:
        content.update(transformers_version="4.29.0.dev0", torch_dtype="float32", _commit_hash=None)
        content["vision_config"].update(projection_dim=512, dropout=0.0, initializer_factor=1.0, model_type="")
        content["vision_config"].update(torchscript=False, top_k=50, output_attentions=False)
        for part, key in (("vision_config", "qkv_bias"), ("mask_decoder_config", "hidden_act")):
            del content[part][key]

    expected = load_transformers_sam(folder).state_dict()
    edit_config(folder, age)
    found = load_transformers_sam(folder).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_read_pixel_statistics__without_a_processor(saved: Path) -> None:
    """transformers' rescale and normalize come to segment-anything's constants, to the bit in float32."""
    sam, registered = load_transformers_sam(saved), sam_model_registry["vit_b"]
    with torch.device("meta"):
        assert registered().pixel_mean.shape == sam.pixel_mean.shape
    assert torch.equal(sam.pixel_mean.flatten(), torch.tensor(SAM_MEAN))
    assert torch.equal(sam.pixel_std.flatten(), torch.tensor(SAM_STD))


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_read_pixel_statistics__of_the_processor(folder: Path, name: str) -> None:
    content = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 0.5}
    (folder / name).write_text(json.dumps({"image_processor": content} if name.startswith("processor") else content))
    sam = load_transformers_sam(folder)
    torch.testing.assert_close(sam.pixel_mean.flatten(), torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(sam.pixel_std.flatten(), torch.tensor([0.8, 1.0, 1.2]))
    pixels = torch.arange(12.0).reshape(3, 2, 2)
    expected = (0.5 * pixels - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.4, 0.5, 0.6])[
        :, None, None
    ]
    torch.testing.assert_close(sam.preprocess(pixels)[:, :2, :2], expected)


def test_read_pixel_statistics__both_files(folder: Path) -> None:
    """Older folders hold both: one names the class, the other has the numbers."""
    (folder / "processor_config.json").write_text('{"processor_class": "SamProcessor"}')
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "do_rescale": false}')
    assert read_pixel_statistics(folder) == ([0.0, 0.0, 0.0], [0.229, 0.224, 0.225])
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "rescale_factor": 0.5}')
    assert read_pixel_statistics(folder) == ([0.0, 0.0, 0.0], [2.0, 2.0, 2.0])


@pytest.mark.parametrize(
    "content",
    [
        {"image_mean": 0.5},
        {"image_std": [0.1, 0.0, 0.1]},
        {"image_mean": ["a", "b", "c"]},
        {"rescale_factor": 0},
        {"rescale_factor": "x"},
    ],
)
def test_read_pixel_statistics__nonsense(folder: Path, content: dict[str, Any]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_pixel_statistics(folder)
    assert_one_line(caught, "preprocessor_config.json")
    (folder / "processor_config.json").write_text('{"image_processor": 3}')
    with pytest.raises(InputError) as caught:
        read_pixel_statistics(folder)
    assert_one_line(caught, "processor_config.json")


def test_download_model__config_before_weights(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        calls.append({"name": name, **options})
        return str(saved)

    monkeypatch.setattr(transformers_folder, "snapshot_download", snapshot_download)
    assert download_model("someone/sam-small") == saved
    first, second = calls
    assert first["name"] == second["name"] == "someone/sam-small"
    assert "config.json" in first["allow_patterns"]
    assert "model.safetensors" in second["allow_patterns"]
    assert second["revision"] == saved.name
    assert not any(".bin" in pattern for call in calls for pattern in call["allow_patterns"])


def test_download_model__another_model_before_its_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_config(folder, lambda content: content.update(model_type="bert"))
    monkeypatch.setattr(transformers_folder, "snapshot_download", lambda name, allow_patterns: str(folder))
    with pytest.raises(InputError) as caught:
        download_model("someone/bert")
    assert_one_line(caught, "a model_type of", "found 'bert'", "the hub's someone/bert")


def test_download_model__gated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub answers who has not asked for SAM 3's weights."""

    def refuse(name: str, **options: Any) -> str:
        response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co/facebook/sam3"))
        raise GatedRepoError("403 Client Error", response=response)

    monkeypatch.setattr(transformers_folder, "snapshot_download", refuse)
    with pytest.raises(InputError) as caught:
        download_model("facebook/sam3")
    assert_one_line(
        caught, "given on request only: ask for it at https://huggingface.co/facebook/sam3", "hf auth login"
    )


def test_download_model__hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub itself, at an address where nothing listens, with an empty cache."""
    real = transformers_folder.snapshot_download
    monkeypatch.setattr(
        transformers_folder,
        "snapshot_download",
        lambda name, **options: real(name, **options, endpoint="http://127.0.0.1:9", cache_dir=tmp_path),
    )
    with pytest.raises(InputError) as caught:
        download_model("facebook/sam-vit-huge")
    assert_one_line(caught, "found neither at facebook/sam-vit-huge", "check the name and the network")
    assert re.search(r"\(.+\): check", str(caught.value))
