"""Stage two: burn-in on the labeled refs, then mutual learning of student and teacher (paper.md, "Stage two").

    trainer = Trainer(config, model, data, folder, device)
    trainer.train()          # goes on where an interrupted run stopped; the result lies in the run's folder

One loop serves both phases: a phase is a number of steps and the model that it evaluates; step.py has what a step is.
Under torchrun every rank runs the loop, with its rows of each batch; rank 0 writes and reports.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from semires.stages.data.errors import InputError
from semires.stages.processes.ranks import Ranks
from semires.stages.processes.stopping import SIGNALS, StopRequested, StopSignals
from semires.stages.train.config import TrainConfig
from semires.stages.train.engine.clock import Clock
from semires.stages.train.engine.distributed import distributed
from semires.stages.train.engine.loss_watch import LossWatch, SeenLoss
from semires.stages.train.engine.memory import keep_freed_memory
from semires.stages.train.engine.precision import multiply_fast
from semires.stages.train.engine.rng import rng_state, seed_rank, set_rng_state
from semires.stages.train.engine.schedule import evenly_spaced, poly_schedule
from semires.stages.train.engine.sums import StepSums
from semires.stages.train.evaluation import evaluate
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.metrics import SegmentationScores
from semires.stages.train.models.interface import ResModel
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import Batch
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.step import TrainStep
from semires.stages.train.train_data import TrainData

OnProgress = Callable[..., None]  # (what is being done, done, total, a note of text)
OnMetrics = Callable[[Mapping[str, Any]], None]  # a line of metrics.jsonl
Say = Callable[[str], None]  # a line for the user
SECONDS_BETWEEN_NOTES = 10.0


class Trainer:
    """Trains one run. `model` is the student; `teacher` its moving average, None in supervised training.

    A supervised run *is* the burn-in; a run of another method starts from the weights of one. on_metrics: told each
    line of metrics.jsonl. say: told, in a line each, what the user must know. Both, and on_progress, in rank 0 only.
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
        *,
        ranks: Ranks | None = None,
        on_metrics: OnMetrics | None = None,
        say: Say | None = None,
    ) -> None:
        self.config = config.resolved(device)
        self.data = data
        self.folder = folder
        self.device = device
        self.ranks = ranks or Ranks()
        is_supervised = config.method == "supervised"
        self.model = model.to(device).train()
        if is_supervised and not config.text_dropout_burn_in:
            for module in self.model.text_modules():
                module.eval()
        self.teacher = None if is_supervised else EmaTeacher(self.model, alpha=config.alpha)
        self.plan = data.plan(config)
        self.num_steps = self.plan.num_steps
        groups = self.model.parameter_groups(
            weight_decay=config.weight_decay,
            learning_rate=config.learning_rate,
            trunk_rate=config.trunk_rate,
        )
        # One kernel for all parameters, on the CPU too.
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        schedule_length = 1.0 if is_supervised else config.mutual_schedule
        self.schedule = poly_schedule(self.optimizer, round(self.num_steps * schedule_length))
        self.generator = torch.Generator().manual_seed(config.seed)  # of the views
        multiply_fast(device)
        keep_freed_memory(device)
        self.gradients = TrainStep(self.config, self._student(), self.teacher, self.ranks, device)
        self.step = 0
        self.best_oiou = -1.0
        self.num_stale = 0
        self._val_loader = Loader(data.val, config.num_workers, pin_memory=device.type == "cuda")
        self._watch = LossWatch()
        self._late_loss: SeenLoss | None = None
        self._clock = Clock(config.save_minutes)
        self._sums = StepSums(device)
        self._noted = time.monotonic()
        self._on_progress = on_progress or (lambda *what: None)
        self._on_metrics = on_metrics or (lambda line: None)
        self._say = say or (lambda text: None)

    def _student(self) -> nn.Module:
        """What the student's forward passes go through: the model, of several ranks inside DistributedDataParallel."""
        if self.config.compile:
            self.model.compile()
            if self.teacher is not None:
                self.teacher.model.compile()
        if not self.ranks.is_many:
            return self.model
        return distributed(self.model, self.device, has_idle_parameters=self.model.has_idle_parameters)

    def train(self) -> dict[str, Any]:
        """Train to the end, or until patience ends, evaluating and saving on the way.

        Returns what `result.json` holds: `steps` of `num_steps` were taken, fewer where it `stopped_early`. SIGTERM,
        SIGINT and SIGHUP save a state after the current step and raise StopRequested. InputError for a loss that is not
        finite.
        """
        self._resume()
        evaluate_at = evenly_spaced(self.num_steps, self.config.num_evaluations)
        labeled, unlabeled = self.data.batches(self.config, self.plan, self.step, self.ranks, self.device)
        with StopSignals() as stop:
            while self.step < self.num_steps and not self.is_out_of_patience:  # perhaps since before this process
                with self._clock.waiting():
                    batch_l, batch_u = next(labeled), next(unlabeled)
                self.train_step(batch_l.to(self.device), None if batch_u is None else batch_u.to(self.device))
                self._show_step()
                stop_for, is_save_due = self._agree(stop)
                is_evaluated = self.step in evaluate_at
                if is_evaluated or is_save_due or stop_for is not None:
                    self._clock.read()
                    self._require_finite()
                    if is_evaluated:
                        self._evaluate()
                    self._save()
                    self._clock.restart_counts()
                if stop_for is not None:
                    raise StopRequested(stop_for)
        result = {
            "val_oiou": self.best_oiou,
            "steps": self.step,
            "num_steps": self.num_steps,
            "stopped_early": self.step < self.num_steps,
            "seconds": round(self._clock.seconds, 1),
            "dropped_refs": self.data.dropped_refs,
        }
        self.ranks.first(lambda: self.folder.finish(result))
        return result

    def train_step(self, labeled: Batch, unlabeled: Batch | None) -> None:
        """One optimizer step on this rank's samples, which are on the device; `unlabeled` is None in burn-in."""
        draws = self.gradients.draw(labeled, unlabeled, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        sums = self.gradients(labeled, unlabeled, draws)
        with self.gradients.phase("optimizer"):
            self.optimizer.step()
            self.schedule.step()
        if self.teacher is not None:
            with self.gradients.phase("EMA"):
                self.teacher.update(self.model)
        self.step += 1
        self._clock.count_step()
        self._sums.add(sums)
        self._late_loss = self._watch.take()
        ref_ids = [batch.ref_ids for batch in (labeled, unlabeled) if batch is not None]
        losses = [value for name, value in sums.items() if name.startswith("loss")]
        self._watch.put(self.step, torch.stack(losses).sum(), ref_ids)

    def _agree(self, stop: StopSignals) -> tuple[int | None, bool]:
        """What all ranks do after a step: (the signal to stop for, if there was one; whether to save a state).

        The hosts meet here, for four numbers; their devices need not. InputError where a rank has met a loss that is
        not finite.
        """
        is_save_due = self.ranks.is_main and self._clock.is_save_due
        wishes = [*(stop.requested == signum for signum in SIGNALS), is_save_due, self._late_loss is not None]
        *for_signals, num_saves, num_not_finite = self.ranks.sum(torch.tensor(wishes).long()).tolist()
        if num_not_finite:
            raise self._not_finite(self._late_loss)
        signals = [signum for signum, num in zip(SIGNALS, for_signals, strict=True) if num]
        return (signals[0] if signals else None), num_saves > 0

    def _require_finite(self) -> None:
        """InputError where a rank's last loss is not finite: nothing is kept of weights that have met one."""
        late = self._watch.take()
        if any(self.ranks.gather(late is not None)):
            raise self._not_finite(late)

    def _not_finite(self, late: SeenLoss | None) -> InputError:
        found = [seen for seen in self.ranks.gather(None if late is None else (late.step, late.refs())) if seen]
        step = found[0][0]
        ref_ids = ", ".join(str(ref_id) for of_step, ids in found for ref_id in ids if of_step == step)
        latest = self._states.latest_step
        last = "there is no earlier state" if latest is None else f"the last good state is that of step {latest}"
        return InputError(
            f"{self.folder.path}: expected a finite loss, found none at step {step} of {self.num_steps} (ref ids "
            f"{ref_ids}); {last}: look at these images, lower --learning-rate, or give --precision fp32"
        )

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept: the teacher, in burn-in the student."""
        return self.model if self.teacher is None else self.teacher.model

    @property
    def is_out_of_patience(self) -> bool:
        """Whether mutual learning ends here: the last `patience` evaluations brought no gain."""
        patience = self.config.patience
        return self.teacher is not None and patience is not None and self.num_stale >= patience

    def _evaluate(self) -> None:
        steps_per_second, share_waited = self._clock.speed()
        scores = evaluate(
            self.evaluated,
            self.data.val,
            self.device,
            precision=self.config.precision,
            loader=self._val_loader,
            ranks=self.ranks,
            on_progress=lambda done, total: self._on_progress("evaluation", done, total),
        )
        line = self._metrics_line(scores, steps_per_second, share_waited)
        self.num_stale += 1
        is_best = scores.oiou > self.best_oiou
        if is_best:
            self.best_oiou, self.num_stale = scores.oiou, 0
        self.ranks.first(lambda: self._keep(line, is_best=is_best))
        self._sums.clear()

    def _keep(self, line: Mapping[str, Any], *, is_best: bool) -> None:
        if is_best:
            self.folder.save_best(self.evaluated.state_dict())
        self.folder.log(line)
        self._on_metrics(line)

    def _metrics_line(self, scores: SegmentationScores, steps_per_second: float, share_waited: float) -> dict[str, Any]:
        line: dict[str, Any] = {
            "phase": "burn-in" if self.teacher is None else "mutual",
            "step": self.step,
            "num_steps": self.num_steps,
            "seconds": round(self._clock.seconds, 1),
            "samples_per_second": round(steps_per_second * self.plan.samples_per_step, 2),
            "data_wait": round(share_waited, 4),
            "learning_rate": max(self.schedule.get_last_lr()),
        }
        line |= {name: round(mean, 5) for name, mean in self._sums.means(self.ranks).items()}
        line["val"] = asdict(scores)
        return line

    def _show_step(self) -> None:
        """Tell what is shown while training; the numbers, which the host waits for, now and then only."""
        if not self.ranks.is_main or time.monotonic() - self._noted < SECONDS_BETWEEN_NOTES:
            self._on_progress(self.config.method, self.step, self.num_steps)
            return
        self._noted = time.monotonic()
        steps_per_second, share_waited = self._clock.speed()
        texts = [
            self._sums.note(),
            f"best val oIoU {self.best_oiou:.2f}" if self.best_oiou >= 0 else "",
            f"{steps_per_second * self.plan.samples_per_step:.1f} samples/s",
            f"data wait {100 * share_waited:.1f}%",
        ]
        self._on_progress(self.config.method, self.step, self.num_steps, " · ".join(text for text in texts if text))

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on at the current step: tensors and plain values only. All ranks call it together."""
        own = {"rng": rng_state(self.device), "sums": self._sums.state_dict()}
        return {
            "step": self.step,
            "best_oiou": self.best_oiou,
            "num_stale": self.num_stale,
            "seconds": self._clock.seconds,
            "model": self.model.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "ranks": self.ranks.gather(own),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, also with another number of ranks."""
        self.step, self.best_oiou = state["step"], state["best_oiou"]
        self.num_stale = state.get("num_stale", 0)  # states from before there was patience do not say
        self.model.load_state_dict(state["model"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])
        for group in state["optimizer"]["param_groups"]:  # of runs begun with another of torch's kernels
            group |= {"fused": True, "foreach": None}
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self._clock.start(state["seconds"])
        # States from before there were ranks hold one, without sums: they were written at evaluations only.
        of_ranks = state.get("ranks") or [{"rng": {"torch": state["torch_rng"], "cuda": state["cuda_rng"]}, "sums": {}}]
        self._sums.load([of_rank["sums"] for of_rank in of_ranks[self.ranks.rank :: self.ranks.world_size]])
        if self.ranks.rank < len(of_ranks):
            set_rng_state(of_ranks[self.ranks.rank]["rng"], self.device)
        else:
            seed_rank(self.config.seed, self.ranks.rank, self.step)

    def _save(self) -> None:
        """Write a state, rank 0 for all; a disk that is full is said, and training goes on."""
        state = self.state_dict()
        if self.ranks.is_main:
            try:
                self._states.save(self.step, state)
            except OSError as error:
                self._say(
                    f"{self.folder.path}: the state of step {self.step} could not be written ({error}); training goes "
                    f"on, the last state is that of step {self._states.latest_step}: free space there"
                )
        self._clock.saved()

    def _resume(self) -> None:
        """Go on from the last state; what a rank draws beside the first's numbers is its own."""
        if self.ranks.rank > 0:
            seed_rank(self.config.seed, self.ranks.rank, 0)
        self._clock.start(0.0)
        self._states = self.folder.states()
        state = self._states.load(self._say if self.ranks.is_main else lambda text: None)
        if state is not None:
            self.load_state_dict(state)
            self._say(f"{self.folder.path}: going on from step {self.step} of {self.num_steps}")
        steps = self.ranks.gather(self.step)
        if len(set(steps)) > 1:
            raise InputError(
                f"{self.folder.path}: expected one state for all processes, found those of steps {steps}: put the run "
                "on a file system that all machines share"
            )
        self.ranks.first(lambda: self.folder.rewind(self.step))
