"""The mask decoder of transformers' SAM 2, EdgeTAM and SAM 3 as segment-anything's module, which it has in common."""

from typing import Any

from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from segment_anything.modeling.transformer import Attention
from torch import nn

from semires.stages.cache_sam.models.loading.transformers_sam import transformers_names

# What transformers calls otherwise than in its SAM.
_RENAMES = ((".out_proj.", ".o_proj."), (".mlp.lin1.", ".mlp.proj_in."), (".mlp.lin2.", ".mlp.proj_out."))


def sams_decoder(module: Any) -> MaskDecoder:
    """transformers' mask decoder of SAM 2's kind as segment-anything's module; the two share their weights.

    What segment-anything's does not have stays behind: the object token and its head, the features' projections.
    ValueError where the sizes are some that segment-anything's cannot have.
    """
    config = module.config
    if config.num_hidden_layers != len(module.transformer.layers) or module.transformer.layers[0].mlp.layers:
        raise ValueError("expected two layers in each MLP of the mask decoder's transformer")
    transformer = TwoWayTransformer(
        depth=config.num_hidden_layers,
        embedding_dim=config.hidden_size,
        mlp_dim=config.mlp_dim,
        num_heads=config.num_attention_heads,
        attention_downsample_rate=config.attention_downsample_rate,
    )
    # transformers' layers have the configured rate, and so has the last attention.
    transformer.final_attn_token_to_image = Attention(
        config.hidden_size, config.num_attention_heads, downsample_rate=config.attention_downsample_rate
    )
    decoder = MaskDecoder(
        transformer_dim=config.hidden_size,
        transformer=transformer,
        num_multimask_outputs=config.num_multimask_outputs,
        iou_head_depth=max(2, config.iou_head_depth),
        iou_head_hidden_dim=config.iou_head_hidden_dim,
    )
    weights, wanted = module.state_dict(), {}
    # Under its name in a whole SAM.
    for key, name in transformers_names(nn.ModuleDict({"mask_decoder": decoder})).items():
        for ours, theirs in _RENAMES:
            name = name.replace(ours, theirs)
        wanted[key.removeprefix("mask_decoder.")] = weights[name.removeprefix("mask_decoder.")]
    decoder.load_state_dict(wanted, assign=True)
    return decoder.eval()
