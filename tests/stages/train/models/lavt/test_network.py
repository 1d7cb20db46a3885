import copy
import dataclasses
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.fx.experimental._config as symbolic_config
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_NANO, LavtConfig
from semires.stages.train.models.lavt.parameter_groups import parameter_groups

# A transcription of the papers' formulas beside this file; tests are no package to import it from.
_SPEC: Any = importlib.util.spec_from_file_location("plain_lavt", Path(__file__).with_name("plain_lavt.py"))
plain = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plain)

NANO = dataclasses.replace(LAVT_NANO, drop_path=0.0, fusion_dropout=0.0, text_layers=1, trained_text_layers=1)
# The layouts of Swin-T and Swin-B, narrow and short: windows of 7 and 12, and maps that are no multiple of them.
WINDOW_7 = dataclasses.replace(
    NANO, swin_embed_dim=12, swin_depths=(2, 2, 2, 1), swin_heads=(3, 6, 12, 24), swin_window=7, decoder_width=8
)
WINDOW_12 = dataclasses.replace(WINDOW_7, swin_embed_dim=8, swin_heads=(4, 8, 16, 32), swin_window=12)
SIZES = [
    pytest.param(NANO, (48, 48), id="nano"),
    pytest.param(WINDOW_7, (40, 56), id="window 7, padded, oblong"),
    pytest.param(WINDOW_7, (112, 57), id="window 7, in part whole"),
    pytest.param(WINDOW_12, (48, 96), id="window 12, whole"),
    pytest.param(WINDOW_12, (61, 50), id="window 12, padded"),
]


def make_random(config: LavtConfig, **changes: object) -> Lavt:
    """Weights of a size that every part counts, no dropout."""
    torch.manual_seed(0)
    lavt = Lavt(dataclasses.replace(config, **changes))
    for name, tensor in lavt.state_dict().items():
        if name.endswith(("bias", "bias_table", "running_mean")):
            nn.init.normal_(tensor, std=0.5)
        elif name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2.0)
        elif "gate" in name:
            nn.init.xavier_normal_(tensor)
    lavt.text.bert.config.attention_probs_dropout_prob = 0.0
    for module in lavt.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return lavt


def batch_of(images: int, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = (torch.arange(20) < torch.tensor([4, 20, 9])[:images, None]).long()
    return torch.randn(images, 3, *size, dtype=dtype), torch.randint(5, 500, (images, 20)), mask


@torch.no_grad()
@pytest.mark.parametrize(("config", "size"), SIZES)
@pytest.mark.parametrize("training", [False, True])
def test_forward__is_the_papers(config: LavtConfig, size: tuple[int, int], training: bool) -> None:
    lavt = make_random(config).double().train(training)
    batch = batch_of(2, size, torch.float64)
    expected = plain.plain_lavt(lavt, *batch)
    torch.testing.assert_close(lavt(*batch), expected, rtol=0, atol=1e-10)
    # Another path on the CPU takes gradients.
    with torch.enable_grad():
        torch.testing.assert_close(lavt(*batch).detach(), expected, rtol=0, atol=1e-10)
    found = make_random(config).train(training)(batch[0].float(), *batch[1:])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    sure = (expected[:, 1] - expected[:, 0]).abs() > 2e-4  # elsewhere rounding may decide
    assert torch.equal(found.argmax(1)[sure], expected.argmax(1)[sure])
    assert sure.float().mean() > 0.99


@pytest.mark.parametrize(
    ("config", "size", "training"),
    [(NANO, (48, 48), False), (WINDOW_7, (40, 56), True)],
    ids=["nano, evaluated", "window 7, trained"],
)
def test_compile__one_graph(config: LavtConfig, size: tuple[int, int], training: bool) -> None:
    lavt = make_random(config, swin_depths=(1, 2, 1, 1)).train(training)
    batch = batch_of(2, size)
    torch.compiler.reset()
    with torch.set_grad_enabled(training):
        # fullgraph: a graph break is an error.
        found = torch.compile(copy.deepcopy(lavt), backend="eager", fullgraph=True)(*batch)
        torch.testing.assert_close(found, lavt(*batch))


@pytest.mark.slow  # the exported programs that `semires export` writes are held to the same in test_export.py
@torch.no_grad()
def test_export__batch_and_size_stay_free() -> None:
    # Windows of 7: these images have two rows of one window in stage 2 and a single window in the last two.
    lavt = make_random(WINDOW_7, swin_depths=(1, 2, 1, 1)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    sides = {2: torch.export.Dim("height", min=33, max=2048), 3: torch.export.Dim("width", min=33, max=2048)}
    shapes = ({0: batch, **sides}, {0: batch}, {0: batch})
    # Numbers of windows may be 1 and may be more: torch is not to fix which from the example.
    with symbolic_config.patch(backed_size_oblivious=True):
        program = torch.export.export(lavt, batch_of(2, (80, 48)), dynamic_shapes=shapes, strict=False)
    # torch itself asks for more than one image where it chooses a kernel for the convolutions.
    run = program.module(check_guards=False)
    for images, size in ((3, (40, 56)), (1, (33, 128)), (2, (112, 61))):
        inputs = batch_of(images, size)
        torch.testing.assert_close(run(*inputs), lavt(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_autocast__bfloat16_is_close(training: bool) -> None:
    lavt = make_random(WINDOW_7).train(training)
    images, ids, mask = batch_of(3, (40, 56))
    mask[2] = 0  # no word at all
    expected = lavt(images, ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lavt(images, ids, mask)
    found.float().square().mean().backward()
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in lavt.parameters() if p.grad is not None)
    # In training the batch norms of a few positions enlarge the rounding.
    tolerance = 0.15 if training else 0.03
    assert (found - expected).square().mean().sqrt() < tolerance * expected.square().mean().sqrt()


def test_gradient_checkpointing__same_loss_gradients_and_random_numbers() -> None:
    torch.manual_seed(0)
    lavt = Lavt(dataclasses.replace(WINDOW_7, drop_path=0.5, fusion_dropout=0.3))  # BERT's dropout is on as well
    other = copy.deepcopy(lavt)
    other.gradient_checkpointing = True
    batch = batch_of(3, (40, 56))
    losses, kept = [], []
    for model in (lavt, other):
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            losses.append(model(*batch).square().mean())
        kept.append(sum(sizes.values()))
        losses[-1].backward()
    assert torch.equal(*losses)
    for (name, one), two in zip(lavt.named_parameters(), other.parameters(), strict=True):
        assert (one.grad is None and two.grad is None) or torch.equal(one.grad, two.grad), name
    assert all(torch.equal(one, two) for one, two in zip(lavt.buffers(), other.buffers(), strict=True))
    assert kept[1] < 0.7 * kept[0]
    assert lavt.gradient_checkpointing is False


def test_copies__hold_no_more_than_weights() -> None:
    lavt = make_random(WINDOW_7).eval()
    fresh = pickle.dumps(lavt)
    batch = batch_of(1, (40, 56))
    logits = lavt(*batch)
    assert len(pickle.dumps(lavt)) == len(fresh)
    assert torch.equal(pickle.loads(fresh)(*batch), logits)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert lavt(*(mode.from_tensor(tensor) for tensor in batch)).shape == (1, 2, 40, 56)
    assert torch.equal(lavt(*batch), logits)


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
