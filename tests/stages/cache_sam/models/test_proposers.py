from types import SimpleNamespace

import pytest
import torch
from segment_anything.modeling import Sam

from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam_proposer import SamProposer
from semires.stages.data.errors import InputError


def test_proposer_of__a_sam_in_its_precision(random_sam: Sam) -> None:
    assert proposer_of(random_sam).precision == "fp32"
    proposer = proposer_of(random_sam, "bf16", compiled=True)
    assert isinstance(proposer, SamProposer)
    assert (proposer.precision, proposer.compiled, proposer.side) == ("bf16", True, random_sam.image_encoder.img_size)
    assert proposer.bytes_a_prompt == 16 * 16 * 64 * 2  # image tokens of 64 channels, two bytes each


def test_proposer_of__one_of_the_users_own(random_sam: Sam) -> None:
    own = proposer_of(random_sam, "bf16")
    assert proposer_of(own) is own
    assert proposer_of(own, "bf16") is own
    with pytest.raises(InputError, match="--precision: expected bf16, which --sam's own code has, found fp32"):
        proposer_of(own, "fp32")
    with pytest.raises(InputError, match="--compile: expected a proposer that says it can be compiled"):
        proposer_of(own, compiled=True)


def test_proposer_of__another_kind() -> None:
    with pytest.raises(TypeError, match="found a SimpleNamespace"):
        proposer_of(SimpleNamespace(device=torch.device("cpu")))
