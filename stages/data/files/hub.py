"""The Hugging Face hub, whose every failure is one line; data sets of it, and models loaded quietly."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from semires.stages.data.errors import InputError


def is_hub_name(text: str) -> bool:
    """Whether a text has the form `owner/name` of the hub and is no path that is there."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None and not Path(text).exists()


def download_dataset(name: str, patterns: Sequence[str]) -> Path:
    """The local copy of those files of a data set that fit the patterns, taken from the hub where they are not here.

    InputError where there is no such data set or no way to it.
    """
    from huggingface_hub import snapshot_download

    what = f"expected a file, a folder or the name of a data set on the Hugging Face hub, found none of them at {name}"
    with one_line(what, "check the name or the network"):
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns)))


@contextmanager
def one_line(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    # The hub's client, its HTTP library and the file system each have errors of their own.
    except Exception as error:
        reason = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
        raise InputError(f"{what} ({reason}): {remedy}") from None  # a page of its calls says no more


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing its progress bars over ours, and into logs, while it loads a model."""
    from transformers.utils import logging

    was_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            logging.enable_progress_bar()
