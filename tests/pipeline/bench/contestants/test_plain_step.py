"""The plain step computes what ours does, where nothing is left to chance."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from semires.pipeline.bench.contestants.plain_lavt import PlainLavt
from semires.pipeline.bench.contestants.plain_step import PlainSamples, PlainStep, ema_by_loop
from semires.pipeline.bench.inputs import step_data
from semires.pipeline.bench.inputs.step_data import StepData, write_step_data
from semires.pipeline.recipes import train_recipe
from semires.stages.train.config import TrainConfig
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.matching import MatchConfig
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LavtConfig
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import Batch, RefSamples, collate
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.trainer import Trainer
from semires.stages.train.views import ViewConfig

SIZE = 96
CPU = torch.device("cpu")
NO_VIEWS = ViewConfig(blur_probability=0.0, jitter_probability=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StepData:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step_data, "NUM_SCENES", 4)
        return write_step_data(tmp_path_factory.mktemp("data"), SIZE, is_small=True)


@pytest.fixture
def lavt(tiny_lavt: LavtConfig) -> Lavt:
    torch.manual_seed(0)
    sizes = dataclasses.replace(tiny_lavt, drop_path=0.0, fusion_dropout=0.0)
    lavt = Lavt(sizes, Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt"))
    assert lavt.decoder.classify.bias is not None
    with torch.no_grad():  # sees the referent nearly everywhere
        lavt.decoder.classify.bias.copy_(torch.tensor([-1.0, 1.0]))
    for module in lavt.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    lavt.text.bert.config.attention_probs_dropout_prob = 0.0
    for layer in lavt.text.bert.encoder.layer:
        layer.attention.self.dropout_prob = 0.0
    return lavt


def of_ours(samples: RefSamples | None, num: int) -> Batch:
    assert samples is not None
    return collate([samples[index, 0] for index in range(num)])


@pytest.mark.parametrize("mean", ["weighted", "plain"])
@pytest.mark.parametrize(("inter1", "rtol"), [(1.0, 1e-4), (0.05, 2e-2)])
def test_step__losses_are_ours(
    data: StepData, lavt: Lavt, tmp_path: Path, mean: str, inter1: float, rtol: float
) -> None:
    """With labels as they are (PWA), and refined, of candidates that are resized by another rule."""
    config: TrainConfig = dataclasses.replace(
        train_recipe("refshapes"),
        precision="fp32",
        views=NO_VIEWS,
        match=MatchConfig(inter1=inter1),
        mutual_loss_mean=mean,
    )
    samples = data.samples(lavt.tokenizer, SIZE)
    plain = PlainStep(config, PlainLavt(lavt), CPU, 100, lambda name: nullcontext())
    labeled, unlabeled = (
        PlainSamples(data, refs, lavt.tokenizer, SIZE, config, is_labeled=is_labeled)
        for refs, is_labeled in ((data.labeled, True), (data.unlabeled, False))
    )
    losses = plain(
        labeled._collate([labeled[n] for n in range(3)]), unlabeled._collate([unlabeled[n] for n in range(4)])
    )
    trainer = Trainer(config, lavt, samples, RunFolder(tmp_path / "run"), CPU)
    batches = of_ours(samples.labeled, 3), of_ours(samples.unlabeled, 4)
    sums = trainer.gradients(*batches, trainer.gradients.draw(*batches, trainer.generator))
    assert bool(sums["matched"] > 0) == (inter1 < 1)
    assert losses[0] == pytest.approx(float(sums["loss_sup"]), rel=1e-4)
    assert losses[1] == pytest.approx(float(sums["loss_unsup"]), rel=rtol)


def test_samples__views_by_chance(data: StepData, lavt: Lavt) -> None:
    always = ViewConfig(blur_probability=1.0, jitter_probability=1.0, brightness=0.5)
    config = dataclasses.replace(train_recipe("refshapes"), views=always, blur_labeled=False)
    samples = PlainSamples(data, data.unlabeled, lavt.tokenizer, SIZE, config, is_labeled=False)
    batch = next(samples.batches(2))
    assert batch.images.shape == batch.strong.shape == (2, 3, SIZE, SIZE)
    assert not torch.equal(batch.images, batch.strong)
    assert batch.masks.dtype == batch.input_ids.dtype == torch.int64
    assert [candidates.dtype for candidates in batch.candidates] == 2 * [torch.bool]
    plain = PlainSamples(data, data.labeled, lavt.tokenizer, SIZE, config, is_labeled=True)
    assert torch.equal(plain[0][0], plain[0][0])  # labeled images are not blurred here


def test_ema_by_loop__is_ours(lavt: Lavt) -> None:
    teacher, other = EmaTeacher(lavt, alpha=0.9), EmaTeacher(lavt, alpha=0.9)
    with torch.no_grad():
        for tensor in [*lavt.parameters(), *lavt.buffers()]:
            tensor.add_(torch.ones_like(tensor))
    teacher.update(lavt)
    ema_by_loop(other.model, lavt, 0.9)
    for ours, theirs in zip(teacher.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)
