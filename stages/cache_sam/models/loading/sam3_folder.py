"""A SAM 3 that is asked for words, from a folder in transformers' format, and the tracker that lies in it as well."""

from pathlib import Path

from semires.stages.cache_sam.models.loading.transformers_folder import (
    CONFIG,
    TOKENIZER_FILES,
    class_of,
    first_line,
    read_json,
)
from semires.stages.cache_sam.models.loading.transformers_models import load_transformers_model
from semires.stages.cache_sam.models.sam3_concepts import Sam3
from semires.stages.data.errors import InputError


def read_sam3(folder: Path, *, with_tracker: bool) -> Sam3:
    """The `Sam3Model` in `folder` with its tokenizer: float32, on the CPU, in eval mode; with the tracker also the
    `Sam3TrackerModel` of the same weights, as facebook/sam3 has both.

    InputError as `load_transformers_model`, and where there is no tokenizer, none that fits the model, or no tracker.
    """
    from transformers import AutoTokenizer

    class_of(folder, words=True)
    model_type = read_json(folder / CONFIG)["model_type"]
    if with_tracker and model_type != "sam3_video":
        raise InputError(
            f"--concepts beside: expected model_type 'sam3_video' in {folder / CONFIG}, a SAM 3 with its tracker, "
            f"found {model_type!r}: give one as facebook/sam3 is, or --concepts only"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES[:2]):
        raise InputError(
            f"--concepts: expected a tokenizer ({' or '.join(TOKENIZER_FILES[:2])}) in {folder}, found none: write "
            "them with Sam3Processor's save_pretrained"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what a wrong file raises differs between versions
        raise InputError(
            f"--concepts: expected a tokenizer in {folder}, found one that cannot be read ({first_line(error)}): fetch "
            "it again"
        ) from error
    text = load_transformers_model(folder, words=True)
    if len(tokenizer) > text.vocab_size:
        raise InputError(
            f"--concepts: expected a tokenizer of {text.vocab_size} tokens in {folder}, as the model has, found one of "
            f"{len(tokenizer)}: give the model's own"
        )
    return Sam3(text=text, tokenizer=tokenizer, tracker=load_transformers_model(folder) if with_tracker else None)
