"""The samples of a run, and the batches that its steps see."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat

import torch

from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.reading.loading import Loader, choose_num_workers
from semires.stages.train.reading.samples import Batch, RefSamples
from semires.stages.train.reading.sampling import BatchKeys, even_bounds, image_bounds, image_plan, training_plan


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """The keys of each step's labeled and unlabeled batch (sampling.py), the latter None in supervised training;
    `samples_per_step` is a mean."""

    labeled: BatchKeys
    unlabeled: BatchKeys | None
    samples_per_step: float

    @property
    def num_steps(self) -> int:
        """The steps of the phase."""
        return len(self.labeled)


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The samples of a run; `unlabeled` carries the candidates and is None in supervised training."""

    labeled: RefSamples
    unlabeled: RefSamples | None
    val: RefSamples
    dropped_refs: int = 0  # that the data set lost on loading

    def plan(self, config: TrainConfig) -> TrainPlan:
        """What the steps of a run of `config` read, and how many there are."""
        seed, num_labeled = config.seed * 2, config.batch_labeled
        unlabeled: BatchKeys | None = None
        if self.unlabeled is None:
            num_labeled = config.batch_burn_in
            num_steps = max(len(self.labeled) * config.burn_in_epochs // num_labeled, 1)
            num_samples = 0
        elif config.is_grouped:
            unlabeled = image_plan(
                self.unlabeled.num_expressions,
                self.unlabeled.image_ids.numpy(),
                batch_size=config.batch_unlabeled,
                num_passes=config.mutual_epochs,
                most_refs=config.group.most_refs,
                most_expressions=config.group.expressions,
                seed=seed + 1,
            )
            num_steps, num_samples = len(unlabeled), sum(map(len, unlabeled))
        else:
            num_steps = max(len(self.unlabeled) * config.mutual_epochs // config.batch_unlabeled, 1)
            num_samples = num_steps * config.batch_unlabeled
            unlabeled = training_plan(self.unlabeled.num_expressions, config.batch_unlabeled, num_steps, seed + 1)
        return TrainPlan(
            labeled=training_plan(self.labeled.num_expressions, num_labeled, num_steps, seed),
            unlabeled=unlabeled,
            samples_per_step=num_labeled + num_samples / num_steps,
        )

    def batches(
        self, config: TrainConfig, plan: TrainPlan, start: int, ranks: Ranks, device: torch.device
    ) -> tuple[Iterator[Batch], Iterator[Batch | None]]:
        """A rank's labeled and unlabeled rows of the batches from step `start` on; in supervised training the unlabeled
        ones are None over and over.

        What is in a batch, and in which order, depends on the seed alone, not on the number of ranks. device: where the
        batches go to.
        """
        from_disk = [samples for samples in (self.labeled, self.unlabeled) if samples is not None and not samples.keeps]

        def read(samples: RefSamples, keys: BatchKeys, *, in_images: bool) -> Iterator[Batch]:
            num_workers = config.num_workers
            if num_workers is None:
                num_workers = choose_num_workers(samples, num_loaders=len(from_disk))
            loader = Loader(samples, num_workers, pin_memory=device.type == "cuda")
            keys = keys[start:]
            if not ranks.is_many:
                return loader.read(keys)
            bounds = [
                image_bounds(samples.image_ids.numpy()[of_batch[:, 0]], ranks.world_size)
                if in_images
                else even_bounds(len(of_batch), ranks.world_size)
                for of_batch in keys
            ]
            rank = ranks.rank
            own = [
                of_batch[of_ranks[rank] : of_ranks[rank + 1]] for of_batch, of_ranks in zip(keys, bounds, strict=True)
            ]
            return map(lambda batch, of_ranks: replace(batch, bounds=of_ranks), loader.read(own), bounds)

        labeled = read(self.labeled, plan.labeled, in_images=False)
        if self.unlabeled is None or plan.unlabeled is None:
            return labeled, repeat(None)
        return labeled, read(self.unlabeled, plan.unlabeled, in_images=config.is_grouped)
