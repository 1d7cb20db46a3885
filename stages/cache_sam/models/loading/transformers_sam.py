"""SAMs in transformers' format (`SamModel`) as segment-anything's modules.

The two packages hold the same network under different names: sizes come from the folder's config.json, every weight
is renamed, none is left over. The key names are those of transformers 5.
"""

import re
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from transformers import SamConfig

from semires.stages.cache_sam.models.loading.transformers_folder import (
    CONFIG,
    class_of,
    first_line,
    read_json,
    read_pixel_statistics,
    weight_files,
)
from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import load_tensors

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
                f"({first_line(error)}): fetch it again"
            ) from error
    sam.load_state_dict(convert_weights(weights, sam, folder))
    return sam.eval()


def read_config(folder: Path) -> SamConfig:
    """The `SamConfig` of a folder's config.json; InputError where it is missing, unreadable or of another model."""
    if class_of(folder) != "SamModel":
        raise InputError(f"--sam: expected model_type 'sam' in {folder / CONFIG}, found a {class_of(folder)}'s")
    try:
        return SamConfig.from_dict(read_json(folder / CONFIG))
    except Exception as error:  # the validation's exceptions differ between versions
        raise InputError(
            f"--sam: expected a SamModel's config in {folder / CONFIG}, found one that cannot be read "
            f"({first_line(error)}): fetch it again"
        ) from error


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
            f"({first_line(error)}): fetch it again"
        ) from error
    for layer in transformer.layers:
        for norm in (layer.norm1, layer.norm2, layer.norm3, layer.norm4):
            norm.eps = decoder.layer_norm_eps
    for index in (1, 4):
        sam.prompt_encoder.mask_downscaling[index].eps = prompt.layer_norm_eps
    return sam


def transformers_names(sam: nn.Module) -> dict[str, str]:
    """transformers' name of each weight in `sam.state_dict()`, in its order; no two are the same.

    `sam` is a `Sam`, or holds some of its parts under their names there.
    """
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


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
