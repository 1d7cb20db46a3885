import dataclasses

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
