import copy

import pytest
import torch
from torch import nn

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt_config import LAVT_BASE
from semires.stages.train.models.parameter_groups import parameter_groups


@pytest.mark.parametrize(("batch", "size"), [(2, 48), (1, 48), (2, 33), (1, 90)])
@pytest.mark.parametrize("training", [True, False])
def test_forward__shape_at_any_size(make_lavt, make_batch, batch, size, training):
    lavt = make_lavt().train(training)
    logits = lavt(*make_batch(batch, size))
    assert logits.shape == (batch, 2, size, size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_forward__too_small_image(make_lavt, make_batch):
    with pytest.raises(InputError, match="more than 32 pixels"):
        make_lavt()(*make_batch(1, 32))


@torch.no_grad()
def test_forward__is_language_aware_and_ignores_padding(make_lavt, make_batch):
    lavt = make_lavt().eval()
    images, ids, mask = make_batch()
    logits = lavt(images, ids, mask)
    torch.testing.assert_close(lavt(images, torch.where(mask == 1, ids, 9), mask.bool()), logits)
    torch.testing.assert_close(lavt(images[1:], ids[1:], mask[1:]), logits[1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(lavt(images, ids.flip(0), mask.flip(0)), logits, atol=1e-4)


def test_forward__every_trained_parameter_gets_a_gradient(make_lavt, make_batch):
    lavt = make_lavt()
    groups = parameter_groups(lavt, weight_decay=0.01, learning_rate=5e-5)
    lavt(*make_batch()).square().mean().backward()
    # DistributedDataParallel stops at a trained parameter that the loss does not reach.
    assert [name for name, p in lavt.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.requires_grad for group in groups for p in group["params"])


def test_copy__teacher_is_independent(make_lavt, make_batch):
    lavt = make_lavt().eval()
    teacher = copy.deepcopy(lavt)
    batch = make_batch()
    before = teacher(*batch)
    nn.init.zeros_(lavt.decoder.classify.weight)
    assert torch.equal(teacher(*batch), before)


def test_base__sizes():
    with torch.device("meta"):
        lavt = Lavt(LAVT_BASE)
    assert [f.fusion.project_fused[0].weight.shape[0] for f in lavt.fusion] == [128, 256, 512, 1024]
    assert sum(p.numel() for p in lavt.visual.parameters()) == 86_878_584 - 2 * 1024  # Swin-B without its last norm
    assert sum(p.numel() for p in lavt.text.parameters()) == 108_891_648  # BERT-base without its pooler
    tables = [b.attention.relative_position_bias.relative_position_bias_table for b in lavt.visual.layers[2].blocks]
    assert [tuple(t.shape) for t in tables] == [(23 * 23, 16)] * 18
    parameter_groups(lavt, weight_decay=0.01, learning_rate=5e-5)
    assert [all(p.requires_grad for p in layer.parameters()) for layer in lavt.text.bert.encoder.layer] == (
        [True] * 10 + [False] * 2
    )
