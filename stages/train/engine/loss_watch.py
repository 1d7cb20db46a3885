"""Sees that losses are finite without making the host wait for the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SeenLoss:
    """The loss of a step on its way to the host, and the refs that it is of."""

    step: int
    batches: Sequence[Tensor]
    value: Tensor
    arrived: torch.cuda.Event | None

    def refs(self) -> list[int]:
        """The ids of the refs."""
        return [ref_id for ref_ids in self.batches for ref_id in ref_ids.tolist()]


class LossWatch:
    """Looks at each step's loss when the next step is already under way: on CUDA its value has then arrived by itself.

    `put` after a step, `take` before the next: the step that was found, if its loss is not finite.
    """

    def __init__(self) -> None:
        self._seen: SeenLoss | None = None

    def put(self, step: int, loss: Tensor, ref_ids: Sequence[Tensor]) -> None:
        """loss: a scalar, on any device. ref_ids: int64 [B] of each batch that went into it, on the CPU."""
        # To the CPU without waiting, torch copies into pinned memory of its own.
        value = loss.detach().to("cpu", non_blocking=True)
        arrived = None
        if loss.device.type == "cuda":
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(loss.device))
        elif loss.device.type != "cpu":
            value = loss.detach().cpu()
        self._seen = SeenLoss(step=step, batches=ref_ids, value=value, arrived=arrived)

    def take(self) -> SeenLoss | None:
        """What was put last if it is not finite, None where it is, or where nothing was put since."""
        seen, self._seen = self._seen, None
        if seen is None:
            return None
        if seen.arrived is not None:
            seen.arrived.synchronize()
        return None if bool(seen.value.isfinite()) else seen
