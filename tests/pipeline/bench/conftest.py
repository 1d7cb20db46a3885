import dataclasses
from typing import Any

import pytest

from semires.stages.train.models.lavt.config import LAVT_NANO, LavtConfig


@pytest.fixture(scope="session")
def tiny_lavt() -> LavtConfig:
    """A LAVT that computes in no time."""
    return dataclasses.replace(
        LAVT_NANO,
        swin_embed_dim=12,
        swin_depths=(1, 2, 1, 1),
        swin_heads=(1, 2, 4, 8),
        swin_window=3,
        drop_path=0.5,
        text_hidden=16,
        decoder_width=8,
    )


@pytest.fixture
def small_sam2_config() -> Any:
    """A SAM 2 that computes in no time, of transformers'."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    widths = [8, 16, 32, 64]
    hiera = Sam2HieraDetConfig(
        hidden_size=8, blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=widths, global_attention_blocks=[3]
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=128),
        mask_decoder_config=Sam2MaskDecoderConfig(hidden_size=32),
    )
