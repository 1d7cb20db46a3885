"""SAM 2's own mask generator, of the package `sam2`, with the weights of transformers' `Sam2Model`.

The package is in no extra of ours: its build asks for a torch of its own. `INSTALL` is how it goes beside the one here.
"""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

INSTALL = (
    "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2 hydra-core omegaconf iopath portalocker "
    "antlr4-python3-runtime==4.9.3 tqdm"
)
"""Commands that install it."""

# From transformers' names to sam2's, all that fit, in this order.
_RENAMES = (
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (
        r"^shared_image_embedding\.positional_embedding$",
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.o_proj\.", ".out_proj."),
)

# What only a video needs; transformers' model of photographs has none of it.
_OF_VIDEO = {"maskmem_tpos_enc", "no_mem_pos_enc"}


def is_installed() -> bool:
    """Whether the package `sam2` is here."""
    return find_spec("sam2") is not None


def sam2_original(model: Any) -> Any:
    """sam2's `SAM2Base` of the shape of `model`, a `Sam2Model`, with copies of its weights, in eval mode beside it.

    It segments photographs: where SAM 2 keeps its memory of a video, it has nothing. RuntimeError, torch's, for a shape
    that sam2's classes fix otherwise: heads, layers and MLPs of the decoder.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its configuration library is said to be old
        from sam2.modeling.backbones.hieradet import Hiera
        from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
        from sam2.modeling.position_encoding import PositionEmbeddingSine
        from sam2.modeling.sam2_base import SAM2Base
    vision, decoder = model.config.vision_config, model.config.mask_decoder_config
    hiera = vision.backbone_config
    trunk = Hiera(
        embed_dim=hiera.hidden_size,
        num_heads=hiera.num_attention_heads,
        q_pool=hiera.num_query_pool_stages,
        stages=tuple(hiera.blocks_per_stage),
        window_pos_embed_bkg_spatial_size=tuple(hiera.window_positional_embedding_background_size),
        window_spec=tuple(hiera.window_size_per_stage),
        global_att_blocks=tuple(hiera.global_attention_blocks),
    )
    neck = FpnNeck(
        PositionEmbeddingSine(vision.fpn_hidden_size),
        d_model=vision.fpn_hidden_size,
        backbone_channel_list=list(vision.backbone_channel_list),
        fpn_top_down_levels=list(vision.fpn_top_down_levels),
        fpn_interp_model="nearest",
    )
    original = SAM2Base(
        ImageEncoder(trunk, neck, scalp=len(hiera.blocks_per_stage) - vision.num_feature_levels),
        memory_attention=nn.Identity(),
        memory_encoder=nn.Identity(),
        image_size=model.prompt_encoder.input_image_size,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        sam_mask_decoder_extra_args={
            name: getattr(decoder, name)
            for name in (
                "dynamic_multimask_via_stability",
                "dynamic_multimask_stability_delta",
                "dynamic_multimask_stability_thresh",
            )
        },
    )
    found = original.load_state_dict(original_weights(model), strict=False)
    assert not found.unexpected_keys, found
    assert set(found.missing_keys) == _OF_VIDEO, found
    return original.eval().to(model.device)


def original_weights(model: Any) -> dict[str, Tensor]:
    """The weights of a `Sam2Model` under sam2's names."""
    weights: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        if name == "prompt_encoder.shared_embedding.positional_embedding":
            continue  # in sam2 one with the image's
        if name == "prompt_encoder.point_embed.weight":
            weights |= {
                f"sam_prompt_encoder.point_embeddings.{row}.weight": each[None] for row, each in enumerate(weight)
            }
            continue
        renamed = _mlp_name(name, model)
        for pattern, replacement in _RENAMES:
            renamed = re.sub(pattern, replacement, renamed)
        weights[renamed] = weight
    return weights


def _mlp_name(name: str, model: nn.Module) -> str:
    """transformers names the first and the last layer of an MLP apart, and counts those between from 0."""
    found = re.fullmatch(r"(.*)\.(proj_in|proj_out|layers\.\d+)\.(weight|bias)", name)
    if found is None:
        return name
    parent, layer, parameter = found.groups()
    module: Any = model.get_submodule(parent)
    if not hasattr(module, "proj_in"):
        return name  # layers of the transformer
    if layer.startswith("proj"):
        number = 0 if layer == "proj_in" else module.num_layers - 1
    else:
        number = int(layer.removeprefix("layers.")) + 1
    return f"{parent}.layers.{number}.{parameter}"


def sam2s_generator(original: Any, **settings: Any) -> Any:
    """`SAM2AutomaticMaskGenerator` of `sam2_original`, for any size of its input, also where no mask is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    class Sam2sGenerator(SAM2AutomaticMaskGenerator):
        """It fails where no crop holds a mask: it gives their boxes the shape [0] and reads [0, 4]."""

        def _process_crop(self, *args: Any) -> Any:
            data = super()._process_crop(*args)
            data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
            return data

    generator = Sam2sGenerator(original, **settings)
    grid = original.sam_image_embedding_size
    generator.predictor._bb_feat_sizes = [(4 * grid, 4 * grid), (2 * grid, 2 * grid), (grid, grid)]
    return generator
