from pathlib import Path

from semires.pipeline.doctor.next_steps import look_at_next_steps
from semires.pipeline.paths import Paths
from semires.stages.data.download.sources import SOURCES, Source


def make(source: Source, root: Path) -> None:
    """Files of the published sizes, with holes."""
    for file in source.files:
        path = root / source.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            opened.truncate(file.size)


def test_next_steps__one_after_the_other(tmp_path: Path) -> None:
    """Of RefCOCO: the data, weights, a SAM, candidates, and training."""
    paths = Paths(data=tmp_path)

    def remedy() -> str:
        found = {one.what: one for one in look_at_next_steps(paths, can_train=True)}
        return found["train --split refcoco"].remedy

    assert remedy() == "semires data download refcoco coco-train2014"
    for path in paths.missing_files("refcoco"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if path.suffix == "" else path.write_bytes(b"")
    assert remedy() == "semires data download swin-base bert"
    for name in ("swin-base", "bert"):
        make(SOURCES[name], tmp_path)
    assert remedy() == "semires data download sam-vit-h"
    make(SOURCES["sam-vit-h"], tmp_path)
    assert remedy().startswith("semires cache-sam --split refcoco --sam-checkpoint ")
    paths.store("refcoco").mkdir(parents=True)
    assert remedy().startswith("semires train --split refcoco --swin ")
