"""From a loaded model to what the generator asks: one place that knows all kinds of proposers."""

from segment_anything.modeling import Sam
from torch import nn

from semires.stages.cache_sam.generator.proposer import Proposer
from semires.stages.cache_sam.generator.settings import precision_of
from semires.stages.cache_sam.models.sam_proposer import SamProposer


def proposer_of(model: nn.Module, precision: str | None = None, *, compiled: bool = False) -> Proposer:
    """`model`, in eval mode on its device, as a `Proposer`.

    `precision` is fp32, bf16 or fp16; by default bf16 on CUDA, else fp32. With `compiled` encoder and decoder are
    handed to torch.compile. InputError for an unknown precision; TypeError for a model of another kind.
    """
    if isinstance(model, Sam):
        return SamProposer(model, precision_of(precision, model.device), compiled=compiled)
    raise TypeError(f"expected a model that proposes masks, such as a Sam, found a {type(model).__name__}")
