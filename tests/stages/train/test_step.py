"""Parts of a batch are its whole: rows, gradients, losses; and no step waits for a device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from semires.stages.data.errors import InputError
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.engine.sums import StepSums
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.matching import dispatch
from semires.stages.train.matching.torch_ops import match_torch
from semires.stages.train.reading.samples import Batch
from semires.stages.train.step import StepDraws, TrainStep, _even_parts
from semires.stages.train.views import Jitter


@pytest.mark.parametrize("num_labeled", [1, 3, 4, 16])
@pytest.mark.parametrize("num_unlabeled", [0, 3, 12])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 4])
def test_even_parts__each_sample_once_in_parts_alike(num_labeled: int, num_unlabeled: int, num_parts: int) -> None:
    if num_parts > num_labeled + num_unlabeled:
        return
    parts = _even_parts(num_labeled, num_unlabeled, num_parts)
    assert len(parts) == num_parts
    for kind, num in ((0, num_labeled), (1, num_unlabeled)):
        assert [row for part in parts for row in range(num)[part[kind]]] == list(range(num))
    sizes = [sum(part.stop - part.start for part in both) for both in parts]
    assert max(sizes) - min(sizes) <= 1
    labeled = [part.stop - part.start for part, _ in parts]
    assert max(labeled) - min(labeled) <= 2


def test_even_parts__mixed_as_the_whole() -> None:
    assert _even_parts(4, 12, 4) == [(slice(n, n + 1), slice(3 * n, 3 * n + 3)) for n in range(4)]


CUDA = torch.device("cuda")


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """While entered, tensors without values, on a CUDA device that need not be there: an operator that mixes devices
    raises, and so does whatever would make the host wait for a value.

    Their backward pass needs a device; Triton's kernels need values, so torch's operators match in their place.
    """
    monkeypatch.setattr(Tensor, "backward", lambda self: None)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *args, **kwargs: True)
    monkeypatch.setattr(dispatch, "backend_of", lambda device_type: match_torch)
    return FakeTensorMode(allow_non_fake_inputs=True)  # real ones are the host's: offsets


def on_fake_cuda(model: nn.Module, mode: FakeTensorMode) -> None:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fake = nn.Parameter(mode.from_tensor(parameter.detach()).to(CUDA), requires_grad=parameter.requires_grad)
            setattr(module, name, fake)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, mode.from_tensor(buffer).to(CUDA))


HOST = {
    num_samples: {
        "ref_ids": torch.arange(num_samples),
        "image_ids": torch.zeros(num_samples, dtype=torch.int64),
        "ann_ids": torch.arange(num_samples),
        "other_of": torch.arange(2),
    }
    for num_samples in (2, 4)
}
"""What stays on the host, where its values are known: made before tensors are without them."""


def fake_batch(num_samples: int, size: int, offsets: Tensor) -> Batch:
    return Batch(
        images=torch.zeros(num_samples, 3, size, size, dtype=torch.uint8, device=CUDA),
        masks=torch.zeros(num_samples, size, size, dtype=torch.bool, device=CUDA),
        has_mask=torch.ones(num_samples, dtype=torch.bool, device=CUDA),
        input_ids=torch.zeros(num_samples, 20, dtype=torch.int64, device=CUDA),
        attention_mask=torch.ones(num_samples, 20, dtype=torch.int64, device=CUDA),
        candidates=torch.zeros(40, size * size // 8, dtype=torch.uint8, device=CUDA),
        offsets=offsets,
        other_input_ids=torch.zeros(2, 20, dtype=torch.int64, device=CUDA),
        other_attention_mask=torch.ones(2, 20, dtype=torch.int64, device=CUDA),
        **HOST[num_samples],
    )


@pytest.mark.parametrize(
    ("method", "precision", "micro_batch"),
    [("semires", "fp32", None), ("semires", "bf16", 2), ("semires-cc", "bf16", None)],
)
def test_step__waits_for_no_gpu_and_mixes_no_devices(
    fake_cuda: FakeTensorMode,
    nano_config: Callable[..., TrainConfig],
    method: str,
    precision: str,
    micro_batch: int | None,
) -> None:
    config = nano_config(method=method, precision=precision, micro_batch=micro_batch, blur_labeled=True)
    model = config.build_model(pretrained=False).train()
    teacher = EmaTeacher(model)
    draws = StepDraws(
        blurred_labeled=[0, 1],
        blurred_unlabeled=[1, 3],
        jitter=Jitter(rows=[0, 2], changes=torch.zeros(4, 2), order=[2, 0, 3, 1]),
    )
    offsets_l, offsets_u = torch.tensor([0, 0, 0]), torch.tensor([0, 9, 9, 30, 40])
    with fake_cuda:
        for network in (model, teacher.model):
            on_fake_cuda(network, fake_cuda)
        step = TrainStep(config, model, teacher, Ranks(), CUDA)
        size = model.image_size
        sums = step(fake_batch(2, size, offsets_l), fake_batch(4, size, offsets_u), draws)
        teacher.update(model)
        so_far = StepSums(CUDA)
        so_far.add(sums)
        assert sums.keys() >= {"loss_sup", "loss_unsup", "matched", "label_iou_after"}
        assert {value.device.type for value in sums.values()} == {"cuda"}
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            so_far.means(Ranks())  # what this test is there to find


def test_step__the_test_above_finds_what_the_views_once_did(fake_cuda: FakeTensorMode) -> None:
    with fake_cuda, pytest.raises(DynamicOutputShapeException):
        torch.rand(4, device=CUDA).lt(0.5).nonzero()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "baseline", "batch_labeled": 2, "batch_unlabeled": 8}, "--batch-labeled: expected a sample for"),
        ({"method": "baseline", "batch_labeled": 4, "batch_unlabeled": 3}, "--batch-unlabeled: expected a sample for"),
        ({"method": "supervised", "batch_burn_in": 3}, "--batch-burn-in: expected a sample for each of the 4"),
        ({"method": "supervised", "batch_burn_in": 5, "micro_batch": 1}, "--micro-batch 1: expected parts that every"),
    ],
)
def test_init__batches_that_processes_cannot_share(
    nano_config: Callable[..., TrainConfig], settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        TrainStep(nano_config(**settings), nn.Identity(), None, Ranks(None, 0, 4), torch.device("cpu"))
