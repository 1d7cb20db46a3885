"""From a loaded model to what the generator asks: one place that knows all kinds of proposers."""

from typing import Any

from segment_anything.modeling import Sam

from semires.stages.cache_sam.generator.proposer import Proposer
from semires.stages.cache_sam.generator.settings import precision_of
from semires.stages.cache_sam.models.sam2_proposer import Sam2Proposer
from semires.stages.cache_sam.models.sam_hq_proposer import SamHqProposer
from semires.stages.cache_sam.models.sam_proposer import SamProposer
from semires.stages.data.errors import InputError

# transformers' classes by name: to import them takes a second, and who has such a model has imported them.
LIKE_SAM2 = ("Sam2Model", "EdgeTamModel", "Sam3TrackerModel")


def proposer_of(model: Any, precision: str | None = None, *, compiled: bool = False) -> Proposer:
    """`model`, in eval mode on its device, as a `Proposer`; a `Proposer` of the user's own is returned as it is.

    `model` is segment-anything's `Sam`, or transformers' `SamHQModel`, `Sam2Model`, `EdgeTamModel` or
    `Sam3TrackerModel`. `precision` is fp32, bf16 or fp16; by default bf16 on CUDA, else fp32. With `compiled` encoder
    and decoder are handed to torch.compile. InputError for an unknown precision, and where a `Proposer` is asked for
    another than its own; TypeError for a model of another kind.
    """
    if isinstance(model, Proposer):
        if precision not in (None, model.precision):
            raise InputError(f"--precision: expected {model.precision}, which --sam's own code has, found {precision}")
        if compiled and not model.compiled:
            raise InputError("--compile: expected a proposer that says it can be compiled, found none: leave it out")
        return model
    kind = type(model).__name__
    if isinstance(model, Sam):
        return SamProposer(model, precision_of(precision, model.device), compiled=compiled)
    if kind == "SamHQModel":
        return SamHqProposer(model, precision_of(precision, model.device), compiled=compiled)
    if kind in LIKE_SAM2:
        return Sam2Proposer(model, precision_of(precision, model.device), compiled=compiled)
    raise TypeError(f"expected a model that proposes masks, such as a Sam, found a {kind}")
