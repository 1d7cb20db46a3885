"""SAMs in transformers' format (`SamModel`), from a folder or the Hugging Face hub, as segment-anything's modules.

The two packages hold the same network under different names: sizes come from the folder's config.json, every weight
is renamed, none is left over. Only safetensors are read, never a pickle. The format is that of
`SamModel.save_pretrained`, with the key names of transformers 5.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from transformers import SamConfig

from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import load_tensors

CONFIG = "config.json"
PROCESSOR, PROCESSOR_BEFORE = "processor_config.json", "preprocessor_config.json"  # transformers 5, and before
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}

# One matrix of random frequencies serves the image tokens and the points; transformers has two names for it, tied.
FREQUENCIES = "shared_image_embedding.positional_embedding"
FREQUENCIES_TWIN = "prompt_encoder.shared_embedding.positional_embedding"

# segment-anything's names (a pattern for their beginning) and transformers'; a name without a rule is the same in both.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"image_encoder\.pos_embed", "vision_encoder.pos_embed"),
    (r"image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"image_encoder\.blocks\.(\d+)\.norm(\d)\.", r"vision_encoder.layers.\1.layer_norm\2."),
    (r"image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", FREQUENCIES),
    (r"prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"mask_decoder\.transformer\.layers\.(\d+)\.norm(\d)\.", r"mask_decoder.transformer.layers.\1.layer_norm\2."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "mask_decoder.transformer.layer_norm_final_attn."),
)


def download_sam(name: str) -> Path:
    """The folder in the hub's cache that holds the SAM `name`, e.g. "facebook/sam-vit-huge"; fetched where missing.

    Needs no network for what the cache holds. InputError where the hub is out of reach, knows no such model, or has
    a model of another type there, found before its weights are fetched.
    """
    try:
        folder = Path(snapshot_download(name, allow_patterns=[CONFIG, PROCESSOR, PROCESSOR_BEFORE]))
        read_config(folder)
        # A snapshot's folder is named by its commit: the weights are of the same one, whatever is pushed meanwhile.
        snapshot_download(name, revision=folder.name, allow_patterns=[WEIGHTS, SHARDS, "model-*-of-*.safetensors"])
    except InputError as error:
        raise InputError(f"{error} (the hub's {name})") from error
    except Exception as error:  # no network, no such name, no access, no space: each raises something of its own
        raise InputError(
            f"--sam: expected a folder here or a model on the Hugging Face hub, found neither at {name} "
            f"({_first_line(error)}): check the name and the network, or fetch the model elsewhere and give its folder"
        ) from error
    return folder


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder: `model.safetensors`, or the shards of its index, sorted by name.

    InputError where there are none, or where a shard is missing; pickled weights (`pytorch_model.bin`) do not count.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / SHARDS).is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        found = f"only {pickles[0]}, a pickle, which can run code" if pickles else "none"
        raise InputError(f"--sam: expected {WEIGHTS} in {folder}, found {found}: use SamModel's save_pretrained")
    weight_map = _read_json(folder / SHARDS).get("weight_map")
    # As text: a name that is none then has the wrong ending.
    names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
    # A shard lies in the folder itself; a path in an index could point anywhere.
    if not names or not all(Path(name).name == name and name.endswith(".safetensors") for name in names):
        raise InputError(
            f"--sam: expected safetensors files in the weight_map of {folder / SHARDS}, found others or none: "
            "write the folder anew with SamModel's save_pretrained"
        )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(
            f"--sam: expected {len(names)} files of weights in {folder}, found {missing[0]} missing: fetch it again"
        )
    return tuple(folder / name for name in names)


def load_transformers_sam(folder: Path) -> Sam:
    """The `SamModel` in `folder` as segment-anything's `Sam`: float32, on the CPU, in eval mode.

    Its outputs are those of `SamModel` up to float rounding, with the config's epsilons: for Meta's weights the mask
    decoder's is 1e-6 in transformers and 1e-5 in segment-anything. Pixels are normalized as the folder's
    processor says, by SAM's own constants where it has none; the two are the same numbers. InputError where the
    folder holds no `SamModel`, no safetensors, or other weights than its config asks for.
    """
    config = read_config(folder)
    files = weight_files(folder)
    mean, std = read_pixel_statistics(folder)
    sam = build_sam(config, mean, std, folder)
    weights: dict[str, Tensor] = {}
    for path in files:
        try:
            weights |= load_tensors(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"--sam: expected safetensors, found a file that cannot be read as such: {path} "
                f"({_first_line(error)}): fetch it again"
            ) from error
    sam.load_state_dict(convert_weights(weights, sam, folder))
    return sam.eval()


def read_config(folder: Path) -> SamConfig:
    """The `SamConfig` of a folder's config.json; InputError where it is missing, unreadable or of another model."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"--sam: expected a folder in transformers' format ({CONFIG}, {WEIGHTS}), found no {CONFIG} in {folder}: "
            "give the folder that SamModel's save_pretrained wrote"
        )
    content = _read_json(path)
    if content.get("model_type") != "sam":
        raise InputError(
            f"--sam: expected model_type 'sam' in {path}, found {content.get('model_type')!r}: "
            "give a SamModel (SAM 1, not SAM-HQ, SAM 2 or 3)"
        )
    try:
        return SamConfig.from_dict(content)
    except Exception as error:  # the validation's exceptions differ between versions
        raise InputError(
            f"--sam: expected a SamModel's config in {path}, found one that cannot be read ({_first_line(error)}): "
            "fetch it again"
        ) from error


def read_pixel_statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each colour, for pixels of 0 to 255, from a folder's processor, else SAM's.

    A processor scales by `rescale_factor`, then normalizes: (s * x - mean) / std = (x - mean / s) / (std / s).
    """
    path = folder / PROCESSOR
    # Beside a file of the format before, this one names the processor's class only.
    is_nested = path.is_file() and "image_processor" in _read_json(path)
    path = path if is_nested else folder / PROCESSOR_BEFORE
    content = _read_json(path) if path.is_file() else {}
    settings = content["image_processor"] if is_nested else content
    try:
        scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
        mean, std = settings.get("image_mean", [0.485, 0.456, 0.406]), settings.get("image_std", [0.229, 0.224, 0.225])
        if not settings.get("do_normalize", True):
            mean, std = [0.0] * 3, [1.0] * 3
        found = torch.tensor([mean, std], dtype=torch.float64) / scale
        if found.shape != (2, 3) or not bool(found.isfinite().all()) or not bool((found[1] > 0).all()):
            raise ValueError(f"mean {mean}, standard deviation {std}, rescale factor {scale}")
    except (AttributeError, TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise InputError(
            f"--sam: expected image_mean and image_std of three colours and a rescale_factor in {path}, found others "
            f"({_first_line(error)}): write it with SamProcessor's save_pretrained"
        ) from error
    return found[0].tolist(), found[1].tolist()


def build_sam(config: SamConfig, pixel_mean: list[float], pixel_std: list[float], source: Path) -> Sam:
    """A `Sam` with random weights and the sizes of `config`; InputError, naming `source`, where it has no such SAM."""
    vision, prompt, decoder = config.vision_config, config.prompt_encoder_config, config.mask_decoder_config
    _check_config(config, source)
    grid = vision.image_size // vision.patch_size
    try:
        transformer = TwoWayTransformer(
            depth=decoder.num_hidden_layers,
            embedding_dim=decoder.hidden_size,
            mlp_dim=decoder.mlp_dim,
            num_heads=decoder.num_attention_heads,
            activation=ACTIVATIONS[decoder.hidden_act],
        )
        # transformers follows `attention_downsample_rate` in the last attention only; the layers' own rate is 2.
        transformer.final_attn_token_to_image = Attention(
            decoder.hidden_size, decoder.num_attention_heads, downsample_rate=decoder.attention_downsample_rate
        )
        sam = Sam(
            image_encoder=ImageEncoderViT(
                img_size=vision.image_size,
                patch_size=vision.patch_size,
                embed_dim=vision.hidden_size,
                depth=vision.num_hidden_layers,
                num_heads=vision.num_attention_heads,
                # segment-anything rounds hidden_size * mlp_ratio down: half a unit more gives mlp_dim exactly.
                mlp_ratio=(vision.mlp_dim + 0.5) / vision.hidden_size,
                out_chans=vision.output_channels,
                qkv_bias=vision.qkv_bias,
                norm_layer=partial(nn.LayerNorm, eps=vision.layer_norm_eps),
                act_layer=ACTIVATIONS[vision.hidden_act],
                use_abs_pos=vision.use_abs_pos,
                use_rel_pos=vision.use_rel_pos,
                window_size=vision.window_size,
                global_attn_indexes=tuple(vision.global_attn_indexes),
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=prompt.hidden_size,
                image_embedding_size=(grid, grid),
                input_image_size=(vision.image_size, vision.image_size),
                mask_in_chans=prompt.mask_input_channels,
                activation=ACTIVATIONS[prompt.hidden_act],
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=decoder.num_multimask_outputs,
                transformer=transformer,
                transformer_dim=decoder.hidden_size,
                # transformers' head has a layer in and a layer out, however small the depth.
                iou_head_depth=max(2, decoder.iou_head_depth),
                iou_head_hidden_dim=decoder.iou_head_hidden_dim,
            ),
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"--sam: expected the sizes of a SAM in {source / CONFIG}, found some that none can be built of "
            f"({_first_line(error)}): fetch it again"
        ) from error
    for layer in transformer.layers:
        for norm in (layer.norm1, layer.norm2, layer.norm3, layer.norm4):
            norm.eps = decoder.layer_norm_eps
    for index in (1, 4):
        sam.prompt_encoder.mask_downscaling[index].eps = prompt.layer_norm_eps
    return sam


def transformers_names(sam: Sam) -> dict[str, str]:
    """transformers' name of each weight in `sam.state_dict()`, in its order; no two are the same."""
    last_layers = {name: module.num_layers - 1 for name, module in sam.named_modules() if isinstance(module, MLP)}
    return {key: _transformers_name(key, last_layers) for key in sam.state_dict()}


def convert_weights(weights: dict[str, Tensor], sam: Sam, source: Path) -> dict[str, Tensor]:
    """`SamModel`'s weights under segment-anything's names, to be loaded into `sam`; each is used exactly once.

    The two names of the positional frequencies count as one weight: either is enough, both must be equal. InputError
    names the weights that are missing or left over, the first whose shape differs, or one that holds no floats.
    """
    weights = dict(weights)
    twin = weights.pop(FREQUENCIES_TWIN, None)
    if twin is not None and not torch.equal(weights.setdefault(FREQUENCIES, twin), twin):
        raise InputError(
            f"--sam: expected one matrix as {FREQUENCIES} and {FREQUENCIES_TWIN} in {source}, found two: "
            "segment-anything has one for both, use a SamModel with tied embeddings"
        )
    names, shapes = transformers_names(sam), {key: tuple(value.shape) for key, value in sam.state_dict().items()}
    missing, unexpected = sorted(set(names.values()) - weights.keys()), sorted(weights.keys() - set(names.values()))
    if missing or unexpected:
        raise InputError(
            f"--sam: expected the {len(names)} weights that {source / CONFIG} asks for, found "
            f"{len(missing)} missing{_listed(missing)} and {len(unexpected)} unexpected{_listed(unexpected)}: "
            "give config and weights of the same SamModel"
        )
    for key, name in names.items():
        value = weights[name]
        if value.shape != shapes[key] or not value.is_floating_point():
            raise InputError(
                f"--sam: expected {name} of floats, shape {shapes[key]}, in {source}, found {value.dtype}, shape "
                f"{tuple(value.shape)}: give config and weights of the same SamModel"
            )
    return {key: weights[name] for key, name in names.items()}


def _transformers_name(key: str, last_layers: dict[str, int]) -> str:
    # transformers names the first and the last layer of a small MLP apart, and counts the ones between from 0.
    parent, _, rest = key.partition(".layers.")
    if parent in last_layers:
        layer, _, parameter = rest.partition(".")
        place = {0: "proj_in", last_layers[parent]: "proj_out"}.get(int(layer), f"layers.{int(layer) - 1}")
        return f"{parent}.{place}.{parameter}"
    for pattern, replacement in RENAMES:
        renamed, count = re.subn(rf"\A{pattern}", replacement, key)
        if count:
            return renamed
    return key


def _check_config(config: SamConfig, source: Path) -> None:
    """InputError for sizes that fit no image, or not each other: segment-anything has one number for each of them."""
    vision, prompt, decoder = config.vision_config, config.prompt_encoder_config, config.mask_decoder_config
    for name in ("image_size", "patch_size", "hidden_size", "num_attention_heads"):
        found = getattr(vision, name)
        if type(found) is not int or found < 1:
            raise InputError(f"--sam: expected vision_config.{name} as a number in {source / CONFIG}, found {found}")
    rules = (
        ("vision_config.num_channels", vision.num_channels, 3),
        ("prompt_encoder_config.image_size", prompt.image_size, vision.image_size),
        ("prompt_encoder_config.patch_size", prompt.patch_size, vision.patch_size),
        ("prompt_encoder_config.num_point_embeddings", prompt.num_point_embeddings, 4),
        ("prompt_encoder_config.hidden_size", prompt.hidden_size, vision.output_channels),
        ("mask_decoder_config.hidden_size", decoder.hidden_size, vision.output_channels),
        ("twice vision_config.num_pos_feats", 2 * vision.num_pos_feats, vision.output_channels),
        ("image_size modulo patch_size", vision.image_size % vision.patch_size, 0),
        ("hidden_size modulo num_attention_heads", vision.hidden_size % vision.num_attention_heads, 0),
    )
    for name, found, expected in rules:
        if found != expected:
            raise InputError(f"--sam: expected {name} {expected} in {source / CONFIG}, found {found}: fetch it again")
    for part in (vision, prompt, decoder):
        if part.hidden_act not in ACTIVATIONS:
            raise InputError(
                f"--sam: expected hidden_act {', '.join(ACTIVATIONS)} in {source / CONFIG}, found {part.hidden_act!r}: "
                "give a SamModel with one of these"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--sam: expected a JSON object in {path}, found none ({_first_line(error)}): fetch it again"
        ) from error
    return content


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
