"""SAM 2, EdgeTAM, SAM 3's two models and SAM-HQ as transformers' own modules, from a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from semires.stages.cache_sam.models.loading.transformers_folder import (
    CONFIG,
    PROCESSOR,
    PROCESSOR_BEFORE,
    class_of,
    first_line,
    read_pixel_statistics,
    weight_files,
)
from semires.stages.data.errors import InputError
from semires.stages.data.files.hub import without_bars


def load_transformers_model(folder: Path, *, words: bool = False) -> Any:
    """The model in `folder`, of the class that `class_of` names: float32, CPU, eval mode.

    Where the folder has a processor, the model's `pixel_mean` and `pixel_std` are what it says, for pixels from 0 to 1.
    What the weights of a video's model have beside is left out. InputError where the folder holds no such model, no
    safetensors, weights that are not finite, or others than its config asks for.
    """
    import transformers  # a second, and more for the class itself

    name = class_of(folder, words=words)
    weight_files(folder)  # what is missing is said before anything is read
    try:
        with without_bars(), _unheard_warnings():
            model, info = getattr(transformers, name).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except InputError:
        raise
    except Exception as error:  # what a wrong shape, config or file raises differs between versions
        remedy = "install timm (`pip install timm`)" if "timm" in str(error).lower() else "fetch it again"
        raise InputError(
            f"--sam: expected a {name} in {folder}, found one that cannot be read ({first_line(error)}): {remedy}"
        ) from error
    # transformers draws what is missing at random, and says so in a table only.
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"--sam: expected the weights that {folder / CONFIG} asks for, found {len(missing)} missing, e.g. "
            f"{missing[0]}: fetch it again"
        )
    if bad := [key for key, value in model.state_dict().items() if not bool(value.isfinite().all())]:
        raise InputError(f"--sam: expected finite weights in {folder}, found others, e.g. in {bad[0]}: fetch it again")
    if any((folder / file).is_file() for file in (PROCESSOR, PROCESSOR_BEFORE)):
        mean, std = read_pixel_statistics(folder)
        model.pixel_mean, model.pixel_std = ([value / 255 for value in values] for values in (mean, std))
    return model.eval()


@contextmanager
def _unheard_warnings() -> Iterator[None]:
    """Keep transformers from warnings of a screen's length, of a video's folder for one; what matters is looked at."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
