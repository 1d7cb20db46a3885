"""The Hugging Face hub, whose every failure is one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.replacing import MODEL_FILES


def download_model(name: str, **options: Any) -> Path:
    """The local copy of a model's files; InputError where there is no such model or no way to it.

    options: as of `huggingface_hub.snapshot_download`, such as `revision` and `token`.
    """
    what = f"expected a model folder, or a name on the Hugging Face hub such as me/my-model, found neither at {name}"
    if name.startswith(("/", ".", "~")) or Path(name).is_file():
        raise InputError(f"{what}: check the path")
    with _one_line(what, "check the name or the network"):
        return Path(snapshot_download(name, allow_patterns=sorted(MODEL_FILES), **options))


@contextmanager
def pushing(name: str) -> Iterator[None]:
    """Turn what uploading raises into an InputError."""
    with _one_line(
        f"could not push to {name} on the Hugging Face hub", "check the name, `hf auth login` and the network"
    ):
        yield


@contextmanager
def _one_line(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    # The hub's client, its HTTP library and the file system each have errors of their own.
    except Exception as error:
        reason = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
        raise InputError(f"{what} ({reason}): {remedy}") from error
