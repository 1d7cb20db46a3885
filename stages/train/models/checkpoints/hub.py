"""Models on the Hugging Face hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from semires.stages.data.errors import InputError
from semires.stages.data.files.hub import one_line
from semires.stages.train.models.checkpoints.replacing import MODEL_FILES


def download_model(name: str, **options: Any) -> Path:
    """The local copy of a model's files; InputError where there is no such model or no way to it.

    options: as of `huggingface_hub.snapshot_download`, such as `revision` and `token`.
    """
    what = f"expected a model folder, or a name on the Hugging Face hub such as me/my-model, found neither at {name}"
    if name.startswith(("/", ".", "~")) or Path(name).is_file():
        raise InputError(f"{what}: check the path")
    with one_line(what, "check the name or the network"):
        return Path(snapshot_download(name, allow_patterns=sorted(MODEL_FILES), **options))


@contextmanager
def pushing(name: str) -> Iterator[None]:
    """Turn what uploading raises into an InputError."""
    with one_line(
        f"could not push to {name} on the Hugging Face hub", "check the name, `hf auth login` and the network"
    ):
        yield
