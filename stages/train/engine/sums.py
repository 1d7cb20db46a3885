"""What steps add up to between two evaluations: losses, and how good the pseudo-labels were."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semires.stages.processes.ranks import Ranks


class StepSums:
    """Sums of scalars on the device: adding never makes the host wait. Those of `TrainStep`, by their names."""

    def __init__(self, device: torch.device) -> None:
        self._dtype = torch.float32 if device.type == "mps" else torch.float64  # which MPS has not
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self.num_steps = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count a step with its scalars."""
        self.num_steps += 1
        for name, value in values.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros((), dtype=self._dtype, device=self._device)
            self._sums[name] += value

    def clear(self) -> None:
        """Begin anew."""
        self._sums, self.num_steps = {}, 0

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Losses a step, matches a label, and everything else a label that was measured, over all ranks; what was
        measured of none is left out. The host waits for the device and the ranks."""
        if not self._sums:
            return {}
        names = sorted(self._sums)  # in one order on all ranks, whatever each has gone on from
        totals = ranks.sum(torch.stack([self._sums[name] for name in names])).tolist()
        sums = dict(zip(names, totals, strict=True))
        of_labels = {"matched": sums.pop("num_labels", 0.0)}
        num_measured = sums.pop("num_measured", 0.0)
        means = {}
        for name, value in sums.items():
            number = self.num_steps if name.startswith("loss") else of_labels.get(name, num_measured)
            if number:
                means[name] = value / number
        return means

    def state_dict(self) -> dict[str, Any]:
        """What was added so far, this rank's, for a state that is saved between two evaluations."""
        return {"num_steps": self.num_steps, "sums": {name: value.cpu() for name, value in self._sums.items()}}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `state_dict` gave, on several ranks where fewer go on than stopped; {} stands for nothing."""
        self.clear()
        for state in states:
            self.num_steps = max(self.num_steps, state.get("num_steps", 0))
            sums = state.get("sums", {})
            if "num_labels" in sums:  # of before there were labels that nothing measures
                sums = {"num_measured": sums["num_labels"].clone(), **sums}
            for name, value in sums.items():
                value = value.to(self._device)
                self._sums[name] = self._sums[name] + value if name in self._sums else value

    def note(self) -> str:
        """Losses and labels of this rank in words, for a display; the host waits for the device."""
        means = self.means(Ranks())
        if not means:
            return ""
        texts = [f"loss {means['loss_sup']:.3f}" + (f" + {means['loss_unsup']:.3f}" if "loss_unsup" in means else "")]
        if means.get("matched"):
            texts.append(f"matched {100 * means['matched']:.0f}%")
        if "label_iou_before" in means:
            after = f" → {means['label_iou_after']:.2f}" if means["matched"] else ""
            texts.append(f"label IoU {means['label_iou_before']:.2f}{after}")
        return " · ".join(texts)
