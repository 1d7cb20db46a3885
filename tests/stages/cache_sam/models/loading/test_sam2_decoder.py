from collections.abc import Callable
from typing import Any

import pytest
import torch

from semires.stages.cache_sam.models.loading.sam2_decoder import sams_decoder


@pytest.mark.parametrize("seed", range(3))
def test_sams_decoder__has_the_models_own_weights(small_sam2: Callable[[int], Any], seed: int) -> None:
    """Shared, not copied, and all but those that segment-anything's decoder has no place for."""
    theirs = small_sam2(seed).mask_decoder
    places = {weight.data_ptr(): name for name, weight in theirs.named_parameters()}
    ours = sams_decoder(theirs)
    used = {places.pop(weight.data_ptr()) for weight in ours.parameters()}
    assert {name.split(".")[0] for name in places.values()} == {
        *("conv_s0", "conv_s1", "obj_score_token", "pred_obj_score_head")
    }
    assert len(used) == len(list(ours.parameters()))
    assert not ours.training


def test_sams_decoder__a_third_layer(small_sam2: Callable[[int], Any]) -> None:
    decoder = small_sam2(0).mask_decoder
    mlp = decoder.transformer.layers[0].mlp
    mlp.layers.append(torch.nn.Linear(1, 1))
    try:
        with pytest.raises(ValueError, match="expected two layers in each MLP"):
            sams_decoder(decoder)
    finally:
        del mlp.layers[0]
