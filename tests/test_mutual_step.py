"""Whole steps of mutual learning against a plain transcription of the paper's equations, in float64.

Of ours the transcription takes the network itself, the reference matching and the two views, which have tests of their
own; labels, losses, means, AdamW, its schedule and the moving average are written out.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semires.pipeline.recipes import train_recipe
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.labels.group_labels import GroupConfig
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.matching import pack_bits
from semires.stages.train.matching.reference import match_reference
from semires.stages.train.models.interface import ResModel
from semires.stages.train.reading.samples import Batch
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.step import TrainStep
from semires.stages.train.train_data import TrainData
from semires.stages.train.trainer import Trainer
from semires.stages.train.views import draw_blurred, draw_jitter, strong_view, weak_view

SIZE = 16
CHANNELS = 6
NUM_TOKENS = 5
NUM_STEPS = 3


class TinyRes(ResModel):
    """Words added to convolved pixels: batch norm, dropout of the text, and a table of indices as Swin has one."""

    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.image_size = SIZE
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.text = nn.Sequential(nn.Embedding(50, CHANNELS), nn.Dropout(0.3))
        self.register_buffer("order", torch.randperm(CHANNELS))
        self.classify = nn.Conv2d(CHANNELS, 2, 1)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.text(input_ids) * attention_mask[..., None]
        pooled = words.sum(dim=1) / attention_mask.sum(dim=1)[:, None]
        pixels = self.norm(self.conv(images.double()))  # views come in float32, as the interface says
        return self.classify((pixels + pooled[:, self.order, None, None]).relu())

    def text_modules(self) -> Iterable[nn.Module]:
        return (self.text,)


class Transcription:
    """Student and teacher as the equations have them, a step at a time."""

    def __init__(self, config: TrainConfig, model: TinyRes) -> None:
        self.config = config
        self.student = copy.deepcopy(model).train()
        self.teacher = copy.deepcopy(model).eval()  # eq. 2
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self.mean_gradient = {name: torch.zeros_like(p) for name, p in self.student.named_parameters()}
        self.mean_square = {name: torch.zeros_like(p) for name, p in self.student.named_parameters()}

    def train_step(self, labeled: Batch, unlabeled: Batch, candidates: Tensor) -> tuple[float, float, list[bool]]:
        """The two losses before the step, and which samples were refined. candidates: bool [M, S, S]."""
        config = self.config
        image_l = labeled.images.float() / 255
        if config.blur_labeled:
            blurred = draw_blurred(len(labeled.images), self.generator, config.views)
            image_l = weak_view(labeled.images, blurred, config.views)
        blurred = draw_blurred(len(unlabeled.images), self.generator, config.views)
        image_u_weak = weak_view(unlabeled.images, blurred, config.views)
        jitter = draw_jitter(len(unlabeled.images), self.generator, config.views)
        image_u_strong = strong_view(image_u_weak, jitter)

        with torch.no_grad():
            logits = self.teacher(imagenet(image_u_weak), unlabeled.input_ids, unlabeled.attention_mask)
        prob = logits[:, 1].exp() / (logits[:, 0].exp() + logits[:, 1].exp())
        label = logits.argmax(dim=1).bool()
        if config.method == "semires-cc":
            prob = self.consensus(image_u_weak, unlabeled, prob)
            own = prob.clone()
            for b, c in itertools.permutations(range(len(unlabeled)), 2):
                is_rival = unlabeled.ann_ids[b] != unlabeled.ann_ids[c]
                if is_rival and unlabeled.image_ids[b] == unlabeled.image_ids[c]:
                    own[b] = torch.where(prob[b] >= prob[c], own[b], 0.0)
            label = torch.stack([of_ref > min(0.5, 0.7 * of_ref.max().item()) for of_ref in own])
        assert not label.all()
        if config.method == "baseline" or not config.refine:
            candidates = candidates & False  # which match nothing
        found = match_reference(candidates, unlabeled.offsets, label, config.match)
        gamma, sigma2, mu = 1.3, 0.1, 0.5
        pwa = gamma - (-((prob - mu) ** 2) / (2 * sigma2)).exp() / (math.sqrt(2 * math.pi) * math.sqrt(sigma2))

        logits = self.student(
            imagenet(torch.cat([image_l, image_u_strong])),
            torch.cat([labeled.input_ids, unlabeled.input_ids]),
            torch.cat([labeled.attention_mask, unlabeled.attention_mask]),
        )
        loss_sup = self.class_weighted(list(zip(logits[: len(labeled)], labeled.masks, strict=True)))
        refined, unmatched = [], []
        for b, logits_b in enumerate(logits[len(labeled) :]):
            if config.method == "baseline":
                sure = (prob[b] - 0.5).abs()
                kept = sure >= sure.flatten().sort().values[int(config.confidence_filter * sure.numel())]
                refined.append((logits_b[:, kept], label[b][kept]))
            elif found.matched[b]:
                refined.append((logits_b, found.refined[b]))
            else:
                unmatched.append((pwa[b] * cross_entropy(logits_b, label[b])).mean())
        means = [self.class_weighted(refined)] if refined else []
        means += [cast(Tensor, sum(unmatched)) / len(unmatched)] if unmatched else []
        if config.method == "semires-cc":  # the two together, every label for itself
            of_refined = torch.stack([class_weights(target).sum() for _, target in refined]).sum() if refined else 0
            of_unmatched = len(unmatched) * SIZE * SIZE
            totals = [of_refined] * bool(refined) + [of_unmatched] * bool(unmatched)
            loss_unsup = cast(
                Tensor, sum(mean * total for mean, total in zip(means, totals, strict=True)) / sum(totals)
            )
        else:
            loss_unsup = cast(Tensor, sum(means)) / len(means)

        self.student.zero_grad()
        (config.lambda_sup * loss_sup + config.lambda_unsup * loss_unsup).backward()  # eq. 4
        self.adamw()
        self.step += 1
        self.follow()
        return loss_sup.item(), loss_unsup.item(), found.matched.tolist()

    @torch.no_grad()
    def consensus(self, images: Tensor, unlabeled: Batch, prob: Tensor) -> Tensor:
        """The mean of the probabilities of each sample's expressions; `prob` is that of the first."""
        probs = [[prob_b] for prob_b in prob]
        others = zip(unlabeled.other_of, unlabeled.other_input_ids, unlabeled.other_attention_mask, strict=True)
        for b, input_ids, attention_mask in others:
            logits = self.teacher(imagenet(images[b : b + 1]), input_ids[None], attention_mask[None])
            probs[b].append(logits[0, 1].exp() / (logits[0, 0].exp() + logits[0, 1].exp()))
        return torch.stack([torch.stack(of_sample).mean(dim=0) for of_sample in probs])

    def class_weighted(self, samples: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Cross-entropy with the class weights 0.9 and 1.1, in the recipe's mean over all pixels of the samples."""
        total, divisor = torch.zeros((), dtype=torch.float64), 0.0
        for logits, target in samples:
            weights = class_weights(target)
            total = total + (weights * cross_entropy(logits, target)).sum()
            divisor += weights.sum().item() if self.config.mutual_loss_mean == "weighted" else target.numel()
        return total / divisor

    @torch.no_grad()
    def adamw(self) -> None:
        """Decoupled weight decay of matrices and kernels only; the rate of this iteration."""
        config = self.config
        rate = config.learning_rate * (1 - self.step / (config.mutual_schedule * NUM_STEPS)) ** 0.9
        beta1, beta2, eps = 0.9, 0.999, 1e-8
        for name, parameter in self.student.named_parameters():
            assert parameter.grad is not None
            gradient = parameter.grad
            if parameter.ndim > 1:
                parameter -= rate * config.weight_decay * parameter
            mean, square = self.mean_gradient[name], self.mean_square[name]
            mean += (1 - beta1) * (gradient - mean)
            square += (1 - beta2) * (gradient**2 - square)
            unbiased_mean = mean / (1 - beta1 ** (self.step + 1))
            unbiased_square = square / (1 - beta2 ** (self.step + 1))
            parameter -= rate * unbiased_mean / (unbiased_square.sqrt() + eps)

    @torch.no_grad()
    def follow(self) -> None:
        """Eq. 5; what is no number of a scale, a count or an index, is the student's."""
        alpha, student = self.config.alpha, self.student.state_dict()
        for name, own in self.teacher.state_dict().items():
            is_whole = own.dtype == torch.int64
            own.copy_(student[name] if is_whole else alpha * own + (1 - alpha) * student[name])


def imagenet(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images - mean) / std


def class_weights(target: Tensor) -> Tensor:
    return target.double() * 1.1 + (~target).double() * 0.9


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of each pixel: logits [2, ...], target bool [...]."""
    log_sum = (logits[0].exp() + logits[1].exp()).log()
    return log_sum - torch.where(target, logits[1], logits[0])


def make_batch(
    generator: torch.Generator, num_samples: int, candidates: list[Tensor], *, with_others: bool = False
) -> Batch:
    """Random images, masks and words; sample b has the candidates `candidates[b]`, bool [M, S, S].

    All but the last three are of images of their own; of those three the last two are one annotation. with_others: the
    first and the last of the three come with two further expressions.
    """
    num_others = torch.tensor([2, 0, 2][-num_samples:]) * with_others
    other_words = torch.Generator().manual_seed(3)
    trio = torch.arange(num_samples).clamp(max=max(num_samples - 3, 0))
    patches = torch.randint(0, 256, (num_samples, 3, SIZE // 4, SIZE // 4), dtype=torch.uint8, generator=generator)
    num_words = torch.randint(1, NUM_TOKENS + 1, (num_samples, 1), generator=generator)
    return Batch(
        ref_ids=torch.arange(num_samples),
        image_ids=trio,
        ann_ids=torch.arange(num_samples).clamp(max=max(num_samples - 2, 0)),
        other_input_ids=torch.randint(0, 50, (int(num_others.sum()), NUM_TOKENS), generator=other_words),
        other_attention_mask=torch.ones(int(num_others.sum()), NUM_TOKENS, dtype=torch.int64),
        other_of=torch.arange(max(num_samples - 3, 0), num_samples).repeat_interleave(num_others),
        images=patches.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3),  # which a blur does not wipe out
        masks=torch.rand(num_samples, SIZE, SIZE, generator=generator) < 0.3,
        has_mask=torch.ones(num_samples, dtype=torch.bool),
        input_ids=torch.randint(0, 50, (num_samples, NUM_TOKENS), generator=generator),
        attention_mask=(torch.arange(NUM_TOKENS) < num_words).long(),
        candidates=pack_bits(torch.cat(candidates)),
        offsets=torch.tensor([0, *(len(of_image) for of_image in candidates)]).cumsum(0),
    )


class OnlyCounted:
    """Refs that are planned with and never read."""

    def __init__(self, num_refs: int) -> None:
        self.num_expressions = np.ones(num_refs, dtype=np.int64)
        self.image_ids = torch.arange(num_refs)

    def __len__(self) -> int:
        return len(self.image_ids)


def make_model() -> TinyRes:
    """A model in float64 whose labels are mostly foreground."""
    torch.manual_seed(1)
    model = TinyRes().double()
    batch = make_batch(torch.Generator().manual_seed(1), 8, [torch.zeros(0, SIZE, SIZE, dtype=torch.bool)] * 8)
    with torch.no_grad():
        model.text[0].weight.mul_(0.2)
        logits = model.eval()(imagenet(batch.images / 255), batch.input_ids, batch.attention_mask)
        assert model.classify.bias is not None
        model.classify.bias[1] -= (logits[:, 1] - logits[:, 0]).quantile(0.15)
    return model


def make_candidates(is_matched: bool) -> Tensor:
    """For a label that is mostly foreground: a corner, and where it is to be matched most of the image too."""
    corner, most = (torch.zeros(SIZE, SIZE, dtype=torch.bool) for _ in range(2))
    corner[:3, :4] = True
    most[:-1] = True
    return torch.stack([corner, most] if is_matched else [corner])


@pytest.mark.parametrize("matched", [[True] * 3, [False] * 3, [True, False, True]], ids=["all", "none", "some"])
@pytest.mark.parametrize("strategy", ["iom", "cpi-u"])
@pytest.mark.parametrize(
    ("split", "recipe", "method", "refine"),
    [
        ("refcoco", "paper", "semires", True),
        ("refcoco", "public-code", "semires", True),
        ("refshapes", "paper", "semires", True),
        ("refcoco", "paper", "semires", False),
        ("refcoco", "paper", "semires-cc", True),
        ("refcoco", "paper", "baseline", True),
        ("refcoco", "public-code", "baseline", True),
    ],
)
def test_train_step__equals_a_plain_transcription(
    tmp_path: Path, split: str, recipe: str, method: Any, refine: bool, strategy: Any, matched: list[bool]
) -> None:
    config = dataclasses.replace(
        train_recipe(split, recipe, strategy=strategy),
        method=method,
        refine=refine,
        group=GroupConfig(expressions=3),
        confidence_filter=0.3,
        mutual_epochs=1,
        batch_labeled=2,
        batch_unlabeled=len(matched),
        precision="fp32",
    )
    model = make_model()
    plain = Transcription(config, model)
    refs = cast(Any, OnlyCounted(NUM_STEPS * len(matched)))
    data = TrainData(labeled=refs, unlabeled=refs, val=refs)
    trainer = Trainer(config, model, data, RunFolder(tmp_path), torch.device("cpu"))
    assert trainer.num_steps == NUM_STEPS
    assert trainer.teacher is not None

    generator = torch.Generator().manual_seed(2)
    candidates = [make_candidates(is_matched) for is_matched in matched]
    for step in range(NUM_STEPS):
        labeled = make_batch(generator, 2, [torch.zeros(0, SIZE, SIZE, dtype=torch.bool)] * 2)
        unlabeled = make_batch(generator, len(matched), candidates, with_others=config.is_grouped)
        torch.manual_seed(step)  # of the dropout
        loss_sup, loss_unsup, found = plain.train_step(labeled, unlabeled, torch.cat(candidates))
        if method == "semires":  # what competition leaves of a label may match nothing
            assert found == [refine and is_matched for is_matched in matched]
        torch.manual_seed(step)
        trainer._sums.clear()
        trainer.train_step(labeled, unlabeled)
        means = trainer._sums.means(trainer.ranks)
        assert means["loss_sup"] == pytest.approx(loss_sup, abs=1e-12, rel=0)
        assert means["loss_unsup"] == pytest.approx(loss_unsup, abs=1e-12, rel=0)
        for ours, theirs in ((trainer.model, plain.student), (trainer.teacher.model, plain.teacher)):
            expected = theirs.state_dict()
            for name, tensor in ours.state_dict().items():
                torch.testing.assert_close(tensor, expected[name], atol=1e-10, rtol=0)
    # The schedule has gone all the way, or half of it.
    last = config.learning_rate * (0.5**0.9 if recipe == "public-code" else 0)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [pytest.approx(last)] * 2


@pytest.mark.parametrize("method", ["semires", "semires-cc", "baseline"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("matched", [[True] * 3, [True, False, True]], ids=["all", "some"])
def test_train_step__parts_of_a_batch_add_up_to_it(matched: list[bool], micro_batch: int, method: Any) -> None:
    # Batch norm sees a part alone and dropout draws for each, so both are in evaluation mode.
    config = dataclasses.replace(
        train_recipe("refcoco"), method=method, confidence_filter=0.3, precision="fp32", mutual_loss_mean="weighted"
    )
    model = make_model().eval()
    generator = torch.Generator().manual_seed(2)
    labeled = make_batch(generator, 2, [torch.zeros(0, SIZE, SIZE, dtype=torch.bool)] * 2)
    candidates = [make_candidates(is_matched) for is_matched in matched]
    unlabeled = make_batch(generator, 3, candidates, with_others=config.is_grouped)
    found = []
    for at_once in (None, micro_batch):
        student = copy.deepcopy(model)
        config = dataclasses.replace(config, micro_batch=at_once)
        step = TrainStep(config, student, EmaTeacher(model), Ranks(), torch.device("cpu"))
        sums = step(labeled, unlabeled, step.draw(labeled, unlabeled, torch.Generator().manual_seed(5)))
        gradients = [cast(Tensor, parameter.grad) for parameter in student.parameters()]
        found.append([*gradients, *(sums[name].double() for name in sorted(sums))])
    for parts, whole in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-12, rtol=1e-9)


def test_train_step__labels_that_nobody_can_measure_are_learned_from_and_not_counted() -> None:
    config = dataclasses.replace(train_recipe("refcoco"), method="semires", precision="fp32")
    model = make_model().eval()
    generator = torch.Generator().manual_seed(2)
    labeled = make_batch(generator, 2, [torch.zeros(0, SIZE, SIZE, dtype=torch.bool)] * 2)
    unlabeled = make_batch(generator, 3, [make_candidates(True)] * 3)

    def step_with(*has_mask: bool) -> tuple[dict[str, float], list[Tensor]]:
        known = torch.tensor(has_mask)
        batch = dataclasses.replace(unlabeled, has_mask=known, masks=unlabeled.masks & known[:, None, None])
        student = copy.deepcopy(model)
        step = TrainStep(config, student, EmaTeacher(model), Ranks(), torch.device("cpu"))
        sums = step(labeled, batch, step.draw(labeled, batch, torch.Generator().manual_seed(5)))
        gradients = [cast(Tensor, parameter.grad) for parameter in student.parameters()]
        return {name: float(value) for name, value in sums.items()}, gradients

    every, expected = step_with(True, True, True)
    apart = [step_with(*(number == known for number in range(3)))[0] for known in range(3)]
    none, gradients = step_with(False, False, False)
    for one, other in zip(gradients, expected, strict=True):
        assert torch.equal(one, other)
    measured = ("label_iou_before", "label_iou_after", "improved", "worsened", "num_measured")
    for name, value in every.items():
        if name in measured:
            assert value == pytest.approx(sum(sums[name] for sums in apart), abs=1e-12)
            assert none[name] == 0
        else:  # losses, num_labels, matched
            assert value == none[name] == apart[0][name]
    assert (every["num_measured"], every["num_labels"], every["matched"]) == (3, 3, 3)
    assert every["label_iou_before"] > 0
