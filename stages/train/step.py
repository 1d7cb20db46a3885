"""One step of burn-in or mutual learning up to the gradients (eqs. 1, 3, 4).

    step = TrainStep(config, student, teacher, ranks, device)
    sums = step(labeled, unlabeled, step.draw(labeled, unlabeled, generator))

The batch is the config's whatever computes it: each rank has its rows, and puts them through the student in as many
parts as `micro_batch` asks for. Losses are sums divided by totals of the whole batch, so the gradients that add up over
parts and ranks are the whole batch's. Nothing in a step makes the host wait for a device; of several ranks the hosts
meet where the totals do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from semires.stages.data.errors import InputError
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.engine.precision import autocast
from semires.stages.train.labels.confidence import confident_pixels
from semires.stages.train.labels.group_labels import expression_probs, group_labels, mean_over_expressions
from semires.stages.train.labels.pwa import pwa_weights
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.losses import (
    mean_of_kinds,
    mean_of_labels,
    supervised_sum,
    supervised_total,
    unsupervised_sums,
    unsupervised_totals,
)
from semires.stages.train.matching import match
from semires.stages.train.metrics import ious_from_counts
from semires.stages.train.models.normalization import normalize
from semires.stages.train.reading.samples import Batch
from semires.stages.train.views import Jitter, draw_blurred, draw_jitter, strong_view, weak_view

Phase = Callable[[str], AbstractContextManager[None]]
PHASES = ("views", "teacher", "match", "student forward", "student backward", "optimizer", "EMA")


@dataclass(frozen=True, kw_only=True)
class StepDraws:
    """What chance decides in a step: which labeled and which unlabeled samples are blurred, how the latter are
    jittered (None in burn-in)."""

    blurred_labeled: list[int]
    blurred_unlabeled: list[int]
    jitter: Jitter | None


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The teacher's labels of the unlabeled samples: `refined` bool [B, S, S], `matched` bool [B], `weights` of PWA
    float32 [B, S, S] or None, `kept` by the confidence filter bool [B, S, S] or None."""

    refined: Tensor
    matched: Tensor
    weights: Tensor | None
    kept: Tensor | None


@dataclass(frozen=True, kw_only=True)
class _Totals:
    """What the losses' sums are divided by, over the whole batch; of labels None in burn-in."""

    supervised: Tensor
    labels: tuple[Tensor, Tensor] | None


class TrainStep:
    """Computes a step's gradients and leaves them in the student's parameters.

    student: the model, or DistributedDataParallel around it. phase: a context entered for each of `PHASES`, for those
    who measure; the last two are the trainer's.
    """

    def __init__(
        self,
        config: TrainConfig,
        student: nn.Module,
        teacher: EmaTeacher | None,
        ranks: Ranks,
        device: torch.device,
        phase: Phase = lambda name: nullcontext(),
    ) -> None:
        self.config = config
        self.student = student
        self.teacher = teacher
        self.ranks = ranks
        self.device = device
        self.phase = phase
        self._is_burn_in = config.method == "supervised"
        of_batch = (config.batch_burn_in, 0) if self._is_burn_in else (config.batch_labeled, config.batch_unlabeled)
        self._batch_labeled, self._batch_unlabeled = of_batch
        self._check_shares()

    def draw(self, labeled: Batch, unlabeled: Batch | None, generator: torch.Generator) -> StepDraws:
        """What chance decides for this rank's samples; the generator, on the CPU, advances alike on every rank."""
        views = self.config.views
        num_labeled, rows_l = _whole(labeled, self.ranks)
        num_unlabeled, rows_u = (0, slice(0, 0)) if unlabeled is None else _whole(unlabeled, self.ranks)
        blurred_labeled = draw_blurred(num_labeled, generator, views) if self.config.blur_labeled else []
        blurred_unlabeled: list[int] = []
        jitter = None
        if unlabeled is not None:
            blurred_unlabeled = draw_blurred(num_unlabeled, generator, views)
            jitter = draw_jitter(num_unlabeled, generator, views).part(rows_u)
        return StepDraws(
            blurred_labeled=_part(blurred_labeled, rows_l),
            blurred_unlabeled=_part(blurred_unlabeled, rows_u),
            jitter=jitter,
        )

    def __call__(self, labeled: Batch, unlabeled: Batch | None, draws: StepDraws) -> dict[str, Tensor]:
        """Gradients of the loss on this rank's samples, which are on the device; `unlabeled` is None in burn-in.

        Returns scalars that add up over ranks: loss_sup, loss_unsup, and of the labels num_labels, matched,
        num_measured (those whose hidden mask is known), and of these label_iou_before, label_iou_after, improved,
        worsened (figure 6).
        """
        config = self.config
        sums: dict[str, Tensor] = {}
        with self.phase("views"):
            images = weak_view(labeled.images, draws.blurred_labeled, config.views)
        labels = None
        if unlabeled is not None:
            assert draws.jitter is not None
            with self.phase("views"):
                weak = weak_view(unlabeled.images, draws.blurred_unlabeled, config.views)
                images = torch.cat([images, strong_view(weak, draws.jitter)])
            labels = self._labels(weak, unlabeled, sums)
        totals = self._totals(labeled, labels)
        parts = _even_parts(
            len(labeled), 0 if unlabeled is None else len(unlabeled), self._num_parts(labeled, unlabeled)
        )
        for number, (rows_l, rows_u) in enumerate(parts):
            with self._gradients_meet(number == len(parts) - 1):
                with self.phase("student forward"):
                    loss = self._part_loss(images, labeled, unlabeled, labels, totals, rows_l, rows_u, sums)
                with self.phase("student backward"):
                    # DistributedDataParallel divides what it adds up by the number of ranks.
                    (loss * self.ranks.world_size).backward()
        return sums

    def _labels(self, weak: Tensor, unlabeled: Batch, sums: dict[str, Tensor]) -> _Labels:
        """The teacher labels the weak view, the refs of an image are told apart, matching refines."""
        config = self.config
        assert self.teacher is not None
        with self.phase("teacher"), autocast(config.precision, self.device):
            label, prob, other_prob = expression_probs(self.teacher, weak, unlabeled, config.micro_batch)
            if len(other_prob):
                prob = mean_over_expressions(prob, other_prob, unlabeled.other_of)
        if config.is_grouped:
            with self.phase("match"):
                label = group_labels(
                    prob,
                    unlabeled.image_ids,
                    unlabeled.ann_ids,
                    compete=config.group.compete,
                    label_floor=config.group.label_floor,
                )
        refined, weights, kept = label, None, None
        matched = torch.zeros(len(unlabeled), dtype=torch.bool, device=self.device)
        with self.phase("match"):
            if config.is_refined:
                found = match(unlabeled.candidates, unlabeled.offsets, label, config.match)
                refined, matched = found.refined, found.matched
            if config.is_weighted:
                weights = pwa_weights(prob)
            if config.method == "baseline" and config.confidence_filter:
                kept = confident_pixels(prob, config.confidence_filter)
            _count_labels(sums, label, refined, matched, unlabeled)
        return _Labels(refined=refined, matched=matched, weights=weights, kept=kept)

    def _totals(self, labeled: Batch, labels: _Labels | None) -> _Totals:
        """What the losses are divided by, over the whole batch: the labels of all ranks."""
        config = self.config
        mean = "weighted" if labels is None else config.mutual_loss_mean
        supervised = supervised_total(labeled.masks, class_weights=config.class_weights, mean=mean)
        if labels is None:
            return _Totals(supervised=self.ranks.sum(supervised), labels=None)
        matched, unmatched = unsupervised_totals(
            labels.refined,
            labels.matched,
            pwa=labels.weights is not None,
            kept=labels.kept,
            class_weights=config.class_weights,
            mean=mean,
        )
        supervised, matched, unmatched = self.ranks.sum(torch.stack([supervised, matched, unmatched])).unbind()
        return _Totals(supervised=supervised, labels=(matched, unmatched))

    def _part_loss(
        self,
        images: Tensor,
        labeled: Batch,
        unlabeled: Batch | None,
        labels: _Labels | None,
        totals: _Totals,
        rows_l: slice,
        rows_u: slice,
        sums: dict[str, Tensor],
    ) -> Tensor:
        """The share of some samples in the loss: one pass for both kinds, so that batch norm sees them alike."""
        config = self.config
        if unlabeled is None:
            part, input_ids, attention_mask = images[rows_l], labeled.input_ids[rows_l], labeled.attention_mask[rows_l]
        else:
            strong = images[len(labeled) :]
            part = torch.cat([images[: len(labeled)][rows_l], strong[rows_u]])
            input_ids = torch.cat([labeled.input_ids[rows_l], unlabeled.input_ids[rows_u]])
            attention_mask = torch.cat([labeled.attention_mask[rows_l], unlabeled.attention_mask[rows_u]])
        with autocast(config.precision, self.device):
            logits = self.student(normalize(part), input_ids, attention_mask)
        num_labeled = len(range(*rows_l.indices(len(labeled))))
        total = supervised_sum(logits[:num_labeled], labeled.masks[rows_l], class_weights=config.class_weights)
        loss = total / totals.supervised.to(total.dtype)
        _add(sums, "loss_sup", loss)
        if labels is None:
            return loss
        assert totals.labels is not None
        of_kinds = unsupervised_sums(
            logits[num_labeled:],
            labels.refined[rows_u],
            labels.matched[rows_u],
            None if labels.weights is None else labels.weights[rows_u],
            kept=None if labels.kept is None else labels.kept[rows_u],
            class_weights=config.class_weights,
        )
        mean = mean_of_labels if config.is_grouped and config.group.label_mean == "labels" else mean_of_kinds
        loss_unsup = mean(of_kinds, totals.labels)
        _add(sums, "loss_unsup", loss_unsup)
        return config.lambda_sup * loss + config.lambda_unsup * loss_unsup

    def _gradients_meet(self, is_last: bool) -> AbstractContextManager[None]:
        """Of several parts only the last exchanges gradients with the other ranks, those of all parts together."""
        if isinstance(self.student, DistributedDataParallel) and not is_last:
            no_sync: AbstractContextManager[None] = self.student.no_sync()
            return no_sync
        return nullcontext()

    def _num_parts(self, labeled: Batch, unlabeled: Batch | None) -> int:
        """Parts of this rank's samples, as many on each rank: that of the largest shares decides."""
        if self.config.micro_batch is None:
            return 1
        largest = _largest_share(labeled) + (0 if unlabeled is None else _largest_share(unlabeled))
        return -(-largest // self.config.micro_batch)

    def _check_shares(self) -> None:
        """InputError where a rank has no sample of a kind, or fewer samples than parts."""
        world_size = self.ranks.world_size
        names = {"--batch-burn-in": self._batch_labeled}
        if not self._is_burn_in:
            names = {"--batch-labeled": self._batch_labeled, "--batch-unlabeled": self._batch_unlabeled}
        for name, num in names.items():
            if num < world_size:
                raise InputError(
                    f"{name}: expected a sample for each of the {world_size} processes, found {num} in the whole "
                    "batch; raise it, or start fewer processes"
                )
        if world_size == 1 or self.config.micro_batch is None:
            return
        least, most = (sum(share(num) for num in names.values()) for share in (self._least_share, self._most_share))
        if self.config.is_grouped:
            # Images are not cut: a rank may have none.
            group = self.config.group.most_refs or self._batch_unlabeled
            least -= self._least_share(self._batch_unlabeled)
            most += min(group, self._batch_unlabeled - self._most_share(self._batch_unlabeled))
        if -(-most // self.config.micro_batch) > least:
            raise InputError(
                f"--micro-batch {self.config.micro_batch}: expected parts that every process has samples for, found "
                f"some with {least}; give batches that the {world_size} processes share evenly, or larger parts"
            )

    def _least_share(self, num: int) -> int:
        return num // self.ranks.world_size

    def _most_share(self, num: int) -> int:
        return -(-num // self.ranks.world_size)


def _whole(batch: Batch, ranks: Ranks) -> tuple[int, slice]:
    """How many samples the whole batch has, and which of them this rank's are."""
    if batch.bounds is None:
        return len(batch), slice(0, len(batch))
    return batch.bounds[-1], slice(*batch.bounds[ranks.rank : ranks.rank + 2])


def _largest_share(batch: Batch) -> int:
    return len(batch) if batch.bounds is None else max(high - low for low, high in pairwise(batch.bounds))


def _part(rows: list[int], part: slice) -> list[int]:
    """Of row numbers of the whole batch those in a part, counted from its start."""
    return [row - part.start for row in rows if part.start <= row < part.stop]


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value.detach() if name in sums else value.detach()


def _even_parts(num_labeled: int, num_unlabeled: int, num_parts: int) -> list[tuple[slice, slice]]:
    """Rows of labeled and unlabeled samples for each part: of one size to a sample, each mixed as the whole."""
    order = sorted(
        [((row + 0.5) / num_labeled, 0) for row in range(num_labeled)]
        + [((row + 0.5) / num_unlabeled, 1) for row in range(num_unlabeled)]
    )
    parts = []
    done = [0, 0]
    for number in range(num_parts):
        kinds = [kind for _, kind in order[len(order) * number // num_parts : len(order) * (number + 1) // num_parts]]
        ends = [done[kind] + kinds.count(kind) for kind in (0, 1)]
        parts.append((slice(done[0], ends[0]), slice(done[1], ends[1])))
        done = ends
    return parts


def _count_labels(sums: dict[str, Tensor], label: Tensor, refined: Tensor, matched: Tensor, unlabeled: Batch) -> None:
    """How good pseudo-labels are before and after refinement, against those hidden masks that are known (figure 6)."""
    truth, is_measured = unlabeled.masks, unlabeled.has_mask
    before, after = (
        ious_from_counts((found & truth).sum(dim=(1, 2)), (found | truth).sum(dim=(1, 2))) for found in (label, refined)
    )
    sums["num_labels"] = torch.full((), len(label), device=label.device)
    sums["num_measured"] = is_measured.sum()
    sums["matched"] = matched.sum()
    # Products, as rows that are picked out would make the host wait.
    sums["label_iou_before"] = (before * is_measured).sum()
    sums["label_iou_after"] = (after * is_measured).sum()
    sums["improved"] = (matched & is_measured & (after > before)).sum()
    sums["worsened"] = (matched & is_measured & (after < before)).sum()
