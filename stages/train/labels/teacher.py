"""The teacher: an exponential moving average of the student, the model that is evaluated and shipped."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from semires.stages.data.errors import InputError


class EmaTeacher:
    """A copy of the student (eq. 2) that follows it slowly (eq. 5) and labels the unlabeled images.

    student: the bare model, not wrapped for distributed training. alpha: the share of itself the teacher keeps at each
    update, 0.996 in the paper, 0.9996 in the public code; InputError outside [0, 1].

    ``model`` is in evaluation mode and takes no gradient. The class is no nn.Module, so nothing that walks the
    student's side (optimizer, train mode, DistributedDataParallel) can reach it.

    torch's AveragedModel holds a copy too, but its first update copies the student instead of averaging, which breaks
    eq. 5 for a teacher that starts from burn-in; it also averages integer buffers and waits for its step counter on
    each update. Only its averaging function is used here.
    """

    model: nn.Module
    alpha: float

    def __init__(self, student: nn.Module, *, alpha: float = 0.996) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise InputError(f"expected the teacher's alpha between 0 and 1, found {alpha}: the paper's is 0.996")
        self.alpha = alpha
        self.model = copy.deepcopy(student).eval().requires_grad_(False)
        self._average = get_ema_multi_avg_fn(alpha)
        self._pairs: _Pairs | None = None

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """theta_t <- alpha theta_t + (1 - alpha) theta_s (eq. 5), in place, one fused call for each dtype.

        Floating-point buffers (BatchNorm's running statistics) are averaged like parameters, integer ones copied.
        """
        # Walking through two models takes longer than averaging a small one.
        if self._pairs is None or not self._pairs.are_of(self.model, student):
            self._pairs = _Pairs(self.model, student)
        for own, theirs in self._pairs.whole:
            own.copy_(theirs)
        for own_list, their_list in self._pairs.floats.values():
            self._average(own_list, their_list, 0)

    @torch.no_grad()
    def pseudo_label(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Label a batch: (label bool [B, S, S], foreground probability float32 [B, S, S], of float64 logits float64).

        images: float32 [B, 3, S, S], the normalised weak view. input_ids, attention_mask: int64 [B, T]. The model gives
        logits [B, 2, S, S]; the label is their argmax, ties to the background, which is probability above 0.5.
        """
        logits = self.model(images, input_ids, attention_mask)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # Of two classes the softmax is the sigmoid of their difference. no_grad, not inference_mode: what is computed
        # from the probability goes into the student's loss, and autograd refuses to save inference tensors.
        margin = logits[:, 1] - logits[:, 0]
        return margin > 0, margin.sigmoid()

    def state_dict(self) -> dict[str, Any]:
        """The model's state dict, interchangeable with the student's."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state dict of teacher or student, strictly."""
        self.model.load_state_dict(state)


class _Pairs:
    """The tensors of teacher and student, two by two: `floats` by dtype, `whole` those of integers."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        self._of = teacher, student
        self._first = _first_tensors(teacher), _first_tensors(student)
        self.floats: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        self.whole: list[tuple[Tensor, Tensor]] = []
        for own, theirs in zip(_tensors(teacher), _tensors(student), strict=True):
            if own.is_floating_point():
                own_list, their_list = self.floats.setdefault(own.dtype, ([], []))
                own_list.append(own)
                their_list.append(theirs)
            else:
                self.whole.append((own, theirs))

    def are_of(self, teacher: nn.Module, student: nn.Module) -> bool:
        """Whether they are these models' still: one that has moved to another device has other buffers."""
        now = _first_tensors(teacher), _first_tensors(student)
        return self._of == (teacher, student) and all(
            before is after
            for befores, afters in zip(self._first, now, strict=True)
            for before, after in zip(befores, afters, strict=True)
        )


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters, then buffers, in the module's order: the same for two copies of one model."""
    return [*model.parameters(), *model.buffers()]


def _first_tensors(model: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """The first parameter and the first buffer."""
    return next(model.parameters(), None), next(model.buffers(), None)
