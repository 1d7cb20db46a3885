"""The course of a run: the learning rate's polynomial decay, stepped every iteration, and when it is evaluated."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from semires.stages.data.errors import InputError

POWER = 0.9


def poly_factor(step: int, total: int, *, power: float = POWER) -> float:
    """(1 - step / total)^power, the factor on the base learning rate after ``step`` of ``total`` iterations.

    1 at step 0, 0 from step ``total`` on: a run resumed past its end gets no complex number. Raises InputError unless
    total is positive.
    """
    if total <= 0:
        raise InputError(f"expected a schedule of at least one iteration, found {total}: raise the number of epochs")
    return (1.0 - min(step, total) / total) ** power


def poly_schedule(optimizer: Optimizer, total: int, *, power: float = POWER) -> LambdaLR:
    """Poly decay of every parameter group over ``total`` iterations; call ``step()`` after each optimizer step."""
    return LambdaLR(optimizer, lambda step: poly_factor(step, total, power=power))


def evenly_spaced(num_steps: int, count: int) -> set[int]:
    """`count` steps (fewer if there are fewer), evenly spaced, the last one among them: those that are evaluated."""
    return {max(num_steps * n // count, 1) for n in range(1, count + 1)}
