"""Data sets by the name or the path that a user typed."""

from pathlib import Path

from semires.stages.data.json_lines.reading import load_json_lines, opened
from semires.stages.data.refer import ReferDataset, require_files
from semires.stages.data.splits import is_own_data, own_path, spec_of


def open_dataset(root: Path | str, split: str, images: Path | str | None = None) -> ReferDataset:
    """The data set of a name in `SPLITS`, read below the data root, or of the path of a JSON-lines file.

    images: see `ReferDataset.load`; own data names its images itself. Raises `InputError` as `ReferDataset.load` and
    `load_json_lines` do.
    """
    return load_json_lines(split) if is_own_data(split) else ReferDataset.load(root, split, images)


def require_dataset(root: Path | str, split: str, images: Path | str | None = None) -> None:
    """InputError, that of `open_dataset`, where the name is none or a file is missing; nothing is read."""
    if is_own_data(split):
        with opened(own_path(split)):
            return
    require_files(root, spec_of(split), images)
