from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.cache.interchange.importing import ImportReport, import_masks, imported_manifest
from semires.cache.reader import CandidateStore
from semires.stages.data.files.json_records import load_records

ImportFrom = Callable[..., tuple[ImportReport, CandidateStore]]


@pytest.fixture
def import_from(tmp_path: Path) -> ImportFrom:
    """`import_from(source, format, …)` imports into `store.zarr`, of which there is none after a refusal."""

    def run(source: Path, format: str = "coco", **options: Any) -> tuple[ImportReport, CandidateStore]:
        location = tmp_path / options.pop("name", "store.zarr")
        manifest = options.pop("manifest", imported_manifest("refcoco"))
        report = import_masks(source, location, manifest, format=format, load_records=load_records, **options)
        return report, CandidateStore(location)

    return run
