"""The tiny SAM that the package brings: segment-anything's own modules, small, for RefShapes scenes.

It runs through the same code as ViT-H; `python -m semires.stages.cache_sam.models.train_tiny_sam` trains its weights.
"""

from importlib import resources
from pathlib import Path

from safetensors.torch import load_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from semires.stages.cache_sam.generator.settings import GeneratorSettings

IMAGE_SIZE = 128  # longest side in pixels; shorter sides are padded
PATCH_SIZE = 8
EMBED_DIM = 128
PROMPT_DIM = 64

# Settings of the automatic mask generator for images this small, in place of SAM's own defaults (32 points a side,
# predicted IoU 0.88, stability 0.95): an object's rim is a larger share of it, so its stability is lower.
GENERATOR_SETTINGS = GeneratorSettings(
    points_per_side=12,
    points_per_batch=72,
    pred_iou_thresh=0.7,
    stability_score_thresh=0.7,
)


def weights_path() -> Path:
    """Where the shipped weights lie (safetensors)."""
    return Path(str(resources.files("semires.stages.cache_sam.models") / "weights" / "tiny_sam.safetensors"))


def build_tiny_sam(checkpoint: Path | None = None) -> Sam:
    """A `Sam` of 1.1 M parameters on CPU in eval mode; random weights if `checkpoint` (safetensors) is None."""
    grid = IMAGE_SIZE // PATCH_SIZE
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            embed_dim=EMBED_DIM,
            depth=4,
            num_heads=4,
            out_chans=PROMPT_DIM,
            use_rel_pos=True,
            window_size=8,
            global_attn_indexes=(1, 3),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=PROMPT_DIM,
            image_embedding_size=(grid, grid),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=PROMPT_DIM, mlp_dim=256, num_heads=4),
            transformer_dim=PROMPT_DIM,
            iou_head_depth=3,
            iou_head_hidden_dim=PROMPT_DIM,
            activation=nn.GELU,
        ),
    )
    if checkpoint is not None:
        sam.load_state_dict(load_file(checkpoint))
    return sam.eval()
