"""CLIPSeg-nano, which trains on RefShapes on a CPU: transformers' CLIPSeg, small, with no published weights.

In the published CLIPSeg, CLIP was trained on pictures and texts, and only the decoder is trained here. Nano's vision
encoder is pre-trained on attributes of scenes as LAVT-nano's Swin is (pretrain_nano.py), which knows no words; so its
text encoder starts at random and is trained with the decoder, and the vision encoder at the run's `trunk_rate`. That
is 0 on RefShapes, so that it stays as in CLIPSeg: with it val oIoU is 23.0 after the first 150 of 600 burn-in steps
(seed 5), at 0.3 it is 0.5.
"""

from pathlib import Path

from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from semires.stages.train.models.clipseg import ClipSeg
from semires.stages.train.models.tokenization import Tokenizer

IMAGE_SIZE = 96
PATCH = 8
MAX_TOKENS = 20


def clipseg_nano(vocabulary: Path, image_size: int | None = None) -> ClipSeg:
    """CLIPSeg-nano with random weights, in training mode.

    vocabulary: the file of its words. image_size: as of `ClipSeg`.
    """
    tokenizer = Tokenizer.from_vocab(vocabulary, max_tokens=MAX_TOKENS)
    config = CLIPSegConfig(
        attn_implementation="eager",
        text_config={
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "hidden_act": "gelu",
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,  # [SEP], where the text is read off
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "hidden_act": "gelu",
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
        },
        # Else the decoder's own layers, which transformers makes to be loaded over, start at a deviation of 1.
        initializer_range=0.1,
        projection_dim=64,
        extract_layers=[1, 2, 3],
        reduce_dim=64,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=256,
    )
    return ClipSeg(CLIPSegForImageSegmentation(config).train(), tokenizer, image_size, trains_clip=True)
