"""The samples of a run, and the batches that its steps see."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch

from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.loading import Loader, choose_num_workers
from semires.stages.train.samples import Batch, RefSamples, training_plan


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The samples of a run; `unlabeled` carries the candidates and is None in supervised training."""

    labeled: RefSamples
    unlabeled: RefSamples | None
    val: RefSamples
    dropped_refs: int = 0  # that the data set lost on loading

    def batches(
        self, config: TrainConfig, num_steps: int, start: int, ranks: Ranks, device: torch.device
    ) -> tuple[Iterator[Batch], Iterator[Batch | None]]:
        """A rank's labeled and unlabeled rows of the batches from step `start` on; in supervised training the unlabeled
        ones are None over and over.

        What is in a batch, and in which order, depends on the seed alone, not on the number of ranks. device: where the
        batches go to.
        """
        from_disk = [samples for samples in (self.labeled, self.unlabeled) if samples is not None and not samples.keeps]

        def batches(samples: RefSamples, batch_size: int, seed: int) -> Iterator[Batch]:
            plan = training_plan(samples.num_expressions, batch_size, num_steps, seed)
            num_workers = config.num_workers
            if num_workers is None:
                num_workers = choose_num_workers(samples, num_loaders=len(from_disk))
            loader = Loader(samples, num_workers, pin_memory=device.type == "cuda")
            return loader.read(plan[start:, ranks.rows(batch_size)])

        if self.unlabeled is None:
            return batches(self.labeled, config.batch_burn_in, config.seed * 2), repeat(None)
        return (
            batches(self.labeled, config.batch_labeled, config.seed * 2),
            batches(self.unlabeled, config.batch_unlabeled, config.seed * 2 + 1),
        )
