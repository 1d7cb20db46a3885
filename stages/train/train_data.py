"""The samples of a run, and the batches that its steps see."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.samples import Batch, RefSamples, load_batches, training_plan


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The samples of a run; `unlabeled` carries the candidates and is None in supervised training."""

    labeled: RefSamples
    unlabeled: RefSamples | None
    val: RefSamples

    def batches(
        self, config: TrainConfig, num_steps: int, start: int, ranks: Ranks
    ) -> tuple[Iterator[Batch], Iterator[Batch | None]]:
        """A rank's labeled and unlabeled rows of the batches from step `start` on; in supervised training the unlabeled
        ones are None over and over.

        What is in a batch, and in which order, depends on the seed alone, not on the number of ranks.
        """

        def batches(samples: RefSamples, batch_size: int, seed: int) -> Iterator[Batch]:
            plan = training_plan(samples.refs, batch_size, num_steps, seed)
            rows = ranks.rows(batch_size)
            return load_batches(samples, [batch[rows] for batch in plan[start:]], config.num_workers)

        if self.unlabeled is None:
            return batches(self.labeled, config.batch_burn_in, config.seed * 2), repeat(None)
        return (
            batches(self.labeled, config.batch_labeled, config.seed * 2),
            batches(self.unlabeled, config.batch_unlabeled, config.seed * 2 + 1),
        )
