"""Stage two: burn-in on the labeled refs, then mutual learning of student and teacher (paper.md, "Stage two").

    trainer = Trainer(config, data, folder, device)
    trainer.train()          # goes on where an interrupted run stopped; the result lies in the run's folder

One loop serves both phases: a phase is a number of steps, a way to compute the loss of one, and the model it evaluates.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import evaluate
from semires.stages.train.losses import supervised_loss, unsupervised_loss
from semires.stages.train.matching import match
from semires.stages.train.metrics import SegmentationScores, ious_from_counts
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.normalization import normalize
from semires.stages.train.pwa import pwa_weights
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.samples import Batch, RefSamples, load_batches, training_plan
from semires.stages.train.schedule import poly_schedule
from semires.stages.train.teacher import EmaTeacher
from semires.stages.train.views import plain_view, strong_view, weak_view

OnProgress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The samples of a run; `unlabeled` carries the candidates and is None in supervised training."""

    labeled: RefSamples
    unlabeled: RefSamples | None
    val: RefSamples


class Trainer:
    """Trains one run. `model` is the student; `teacher` its moving average, None in supervised training.

    A supervised run *is* the burn-in; a run of another method starts from the weights of one.
    """

    config: TrainConfig
    model: ResModel
    teacher: EmaTeacher | None
    best_oiou: float
    num_stale: int  # the latest evaluations in a row without a gain

    def __init__(
        self,
        config: TrainConfig,
        model: ResModel,
        data: TrainData,
        folder: RunFolder,
        device: torch.device,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.device = device
        is_supervised = config.method == "supervised"
        self.model = model.to(device).train()
        if is_supervised and not config.text_dropout_burn_in:
            for module in self.model.text_modules():
                module.eval()
        self.teacher = None if is_supervised else EmaTeacher(self.model, alpha=config.alpha)
        self.batch_labeled = config.batch_burn_in if is_supervised else config.batch_labeled
        if is_supervised:
            samples_per_epoch, epochs, per_step = len(data.labeled), config.burn_in_epochs, config.batch_burn_in
        else:
            assert data.unlabeled is not None
            samples_per_epoch, epochs, per_step = len(data.unlabeled), config.mutual_epochs, config.batch_unlabeled
        self.num_steps = max(samples_per_epoch * epochs // per_step, 1)
        groups = self.model.parameter_groups(
            weight_decay=config.weight_decay,
            learning_rate=config.learning_rate,
            trunk_rate=config.trunk_rate,
        )
        self.optimizer = torch.optim.AdamW(groups)
        schedule_length = 1.0 if is_supervised else config.mutual_schedule
        self.schedule = poly_schedule(self.optimizer, round(self.num_steps * schedule_length))
        self.generator = torch.Generator().manual_seed(config.seed)  # of the views
        self.step = 0
        self.best_oiou = -1.0
        self.num_stale = 0
        self._seconds = 0.0  # spent by earlier processes on this run
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=device))
        self._on_progress = on_progress or (lambda what, done, total: None)

    def train(self) -> dict[str, Any]:
        """Train to the end, or until patience ends, evaluating and saving on the way.

        Returns what `result.json` holds: `steps` of `num_steps` were taken, fewer where it `stopped_early`.
        """
        self._resume()
        started = time.perf_counter() - self._seconds
        evaluate_at = _evenly_spaced(self.num_steps, self.config.num_evaluations)
        labeled, unlabeled = self._batches()
        for batch_l, batch_u in zip(labeled, unlabeled, strict=False):
            if self.is_out_of_patience:  # perhaps since before this process
                break
            self.train_step(batch_l.to(self.device), None if batch_u is None else batch_u.to(self.device))
            self.step += 1
            self._on_progress(self.config.method, self.step, self.num_steps)
            if self.step in evaluate_at:
                self._seconds = time.perf_counter() - started
                self._evaluate_and_save()
        result = {
            "val_oiou": self.best_oiou,
            "steps": self.step,
            "num_steps": self.num_steps,
            "stopped_early": self.step < self.num_steps,
            "seconds": round(self._seconds, 1),
        }
        self.folder.finish(result)
        return result

    def train_step(self, labeled: Batch, unlabeled: Batch | None) -> None:
        """One optimizer step: eq. 1 in burn-in, eq. 4 in mutual learning."""
        loss = self._burn_in_loss(labeled) if unlabeled is None else self._mutual_loss(labeled, unlabeled)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        if self.teacher is not None:
            self.teacher.update(self.model)
        self._sums["num_steps"] += 1

    def _burn_in_loss(self, labeled: Batch) -> Tensor:
        """Supervised loss (eq. 1)."""
        images = normalize(self._labeled_view(labeled.images))
        with self._autocast():
            logits = self.model(images, labeled.input_ids, labeled.attention_mask)
        loss = supervised_loss(logits, labeled.masks, class_weights=self.config.class_weights)
        self._sums["loss_sup"] += loss.detach()
        return loss

    def _mutual_loss(self, labeled: Batch, unlabeled: Batch) -> Tensor:
        """Teacher labels the weak view, matching refines, the student learns the strong view (eq. 3, 4)."""
        config = self.config
        assert self.teacher is not None
        image_l = self._labeled_view(labeled.images)
        image_u_weak = weak_view(unlabeled.images, self.generator, config.views)
        image_u_strong = strong_view(image_u_weak, self.generator, config.views)

        with self._autocast():
            label, prob = self.teacher.pseudo_label(
                normalize(image_u_weak), unlabeled.input_ids, unlabeled.attention_mask
            )
        refined, weights = label, None
        matched = torch.zeros(len(unlabeled), dtype=torch.bool, device=self.device)
        if config.method == "semires":
            found = match(unlabeled.candidates, unlabeled.offsets, label, config.match)
            refined, matched = found.refined, found.matched
            weights = pwa_weights(prob) if config.pwa else None
        self._count_labels(label, refined, matched, unlabeled.masks)

        # One pass for both halves: batch norm then sees labeled and unlabeled images alike.
        with self._autocast():
            logits = self.model(
                normalize(torch.cat([image_l, image_u_strong])),
                torch.cat([labeled.input_ids, unlabeled.input_ids]),
                torch.cat([labeled.attention_mask, unlabeled.attention_mask]),
            )
        logits_l, logits_u = logits.split([len(labeled), len(unlabeled)])
        loss_sup = supervised_loss(
            logits_l, labeled.masks, class_weights=config.class_weights, mean=config.mutual_loss_mean
        )
        loss_unsup = unsupervised_loss(
            logits_u, refined, matched, weights, class_weights=config.class_weights, mean=config.mutual_loss_mean
        )
        self._sums["loss_sup"] += loss_sup.detach()
        self._sums["loss_unsup"] += loss_unsup.detach()
        return config.lambda_sup * loss_sup + config.lambda_unsup * loss_unsup

    def _labeled_view(self, images: Tensor) -> Tensor:
        if self.config.blur_labeled:
            return weak_view(images, self.generator, self.config.views)
        return plain_view(images)

    def _autocast(self) -> torch.autocast:
        """For the models alone: views and losses stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _count_labels(self, label: Tensor, refined: Tensor, matched: Tensor, truth: Tensor) -> None:
        """How good pseudo-labels are before and after refinement, against the hidden masks (figure 6)."""
        before, after = (
            ious_from_counts((found & truth).sum(dim=(1, 2)), (found | truth).sum(dim=(1, 2)))
            for found in (label, refined)
        )
        self._sums["num_labels"] += len(label)
        self._sums["matched"] += matched.sum()
        self._sums["label_iou_before"] += before.sum()
        self._sums["label_iou_after"] += after.sum()
        self._sums["improved"] += (matched & (after > before)).sum()
        self._sums["worsened"] += (matched & (after < before)).sum()

    @property
    def evaluated(self) -> torch.nn.Module:
        """The model that is evaluated and kept: the teacher, in burn-in the student."""
        return self.model if self.teacher is None else self.teacher.model

    @property
    def is_out_of_patience(self) -> bool:
        """Whether mutual learning ends here: the last `patience` evaluations brought no gain."""
        patience = self.config.patience
        return self.teacher is not None and patience is not None and self.num_stale >= patience

    def _evaluate_and_save(self) -> None:
        def on_progress(done: int, total: int) -> None:
            self._on_progress("evaluation", done, total)

        scores = evaluate(
            self.evaluated, self.data.val, self.device, num_workers=self.config.num_workers, on_progress=on_progress
        )
        self.num_stale += 1
        if scores.oiou > self.best_oiou:
            self.best_oiou, self.num_stale = scores.oiou, 0
            self.folder.save_best(self.evaluated.state_dict())
        self.folder.log(self._metrics_line(scores))
        self._sums.clear()
        self.folder.save_state(self.state_dict())

    def _metrics_line(self, scores: SegmentationScores) -> dict[str, Any]:
        sums = {name: value.item() for name, value in self._sums.items()}
        num_steps, num_labels = sums.pop("num_steps"), sums.pop("num_labels", 0)
        line: dict[str, Any] = {
            "phase": "burn-in" if self.teacher is None else "mutual",
            "step": self.step,
            "num_steps": self.num_steps,
            "seconds": round(self._seconds, 1),
        }
        for name, value in sums.items():
            line[name] = round(value / (num_steps if name.startswith("loss") else num_labels), 5)
        line["val"] = asdict(scores)
        return line

    def _batches(self) -> tuple[Iterator[Batch], Iterator[Batch | None]]:
        """Labeled and unlabeled batches from the current step on; unlabeled is None over and over in burn-in."""
        config, data = self.config, self.data

        def batches(samples: RefSamples, batch_size: int, seed: int) -> Iterator[Batch]:
            plan = training_plan(samples.refs, batch_size, self.num_steps, seed)
            return load_batches(samples, plan[self.step :], config.num_workers)

        labeled = batches(data.labeled, self.batch_labeled, config.seed * 2)
        if data.unlabeled is None or self.teacher is None:
            return labeled, repeat(None)
        return labeled, batches(data.unlabeled, config.batch_unlabeled, config.seed * 2 + 1)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on at the current step: tensors and plain values only."""
        return {
            "step": self.step,
            "best_oiou": self.best_oiou,
            "num_stale": self.num_stale,
            "seconds": self._seconds,
            "model": self.model.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            # Dropout draws on the device.
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.step, self.best_oiou, self._seconds = state["step"], state["best_oiou"], state["seconds"]
        self.num_stale = state.get("num_stale", 0)  # states from before there was patience do not say
        self.model.load_state_dict(state["model"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _resume(self) -> None:
        state = self.folder.load_state()
        if state is not None:
            self.load_state_dict(state)
        self.folder.rewind(self.step)


def _evenly_spaced(num_steps: int, count: int) -> set[int]:
    """`count` steps (fewer if there are fewer), evenly spaced, the last one among them."""
    return {max(num_steps * n // count, 1) for n in range(1, count + 1)}
