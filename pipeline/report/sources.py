"""What `semires report` is given: folders of runs, and studies by name or file."""

from collections.abc import Sequence
from pathlib import Path

from semires.pipeline.trained import is_run
from semires.stages.data.errors import InputError


def read_sources(sources: Sequence[str]) -> list[Path]:
    """The folders of runs. InputError for what is neither a run nor a study."""
    runs = []
    for source in sources:
        if not is_run(Path(source)):
            raise InputError(
                f"expected the folder of a run, or a study (a recipe's name, a .toml file), found {source}"
            )
        runs.append(Path(source))
    return runs
