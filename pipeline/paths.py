"""Where things lie: data sets, candidate stores, runs and reports."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from semires.stages.data.errors import InputError
from semires.stages.data.splits import is_own_data, own_path, short_name, spec_of


def _data_root() -> Path:
    # An empty variable is how many scripts say that there is none.
    found = os.environ.get("SEMIRES_DATA") or "data"
    try:
        return Path(found).expanduser()
    except RuntimeError as error:
        raise InputError(f"SEMIRES_DATA: expected a path, found {found!r}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Folders of a working directory; `data` also from the environment variable SEMIRES_DATA."""

    data: Path = field(default_factory=_data_root)
    """Data root: REFER folders, and the stores in `cache/`."""
    images: Path | None = None
    """Folder of COCO's train2014 images where it is not `<data>/images/mscoco/images/train2014`."""
    runs: Path = Path("runs")
    """A folder a training run."""
    reports: Path = Path("reports")
    """Tables and pictures."""
    allow_missing: bool = False
    """Whether work may begin on a data set that lost more than 1% of a split's refs (`datasets.require_whole`)."""

    def store(self, name: str) -> Path:
        """The candidate store of a split; that of own data lies beside its file, as one name may be many files'."""
        folder = own_path(name).parent if is_own_data(name) else self.data / "cache"
        return folder / f"{short_name(name)}.zarr"

    def images_of(self, split: str) -> Path | None:
        """The image folder to hand to `open_dataset`; None for the data set's own default."""
        return None if is_own_data(split) or spec_of(split).brings_images else self.images

    def has_annotations(self, split: str) -> bool:
        """Whether any annotation file of a split is here."""
        return any(path.exists() for path in self._annotations(split))

    def missing_files(self, split: str) -> list[Path]:
        """What a split needs and lacks: annotation files, image folder; of own data its file."""
        if is_own_data(split):
            return [] if own_path(split).is_file() else [own_path(split)]
        missing = [path for path in self._annotations(split) if not path.is_file()]
        images = self.images_of(split) or self.data / spec_of(split).images
        return missing + ([] if images.is_dir() else [images])

    def _annotations(self, split: str) -> list[Path]:
        spec = spec_of(split)
        folder = self.data / spec.folder
        return [folder / f"refs({spec.by}).p", folder / "instances.json"]
