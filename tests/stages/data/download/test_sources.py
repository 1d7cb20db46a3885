import re
from pathlib import Path

import pytest

from semires.stages.cache_sam.models.naming import CHECKPOINT_FILES
from semires.stages.data.download.sources import SOURCES, Source
from semires.stages.data.splits import SPLITS


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_sources__are_whole(source: Source) -> None:
    for file in source.files:
        assert file.urls
        for url in file.urls:
            assert re.match(r"https?://", url)
            assert url.endswith("/" + file.path.rpartition("/")[2])
        assert file.size > 0
        # A size that is known belongs to a file that somebody has measured.
        assert file.is_size_known == (file.sha256 is not None)
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert source.unpacking is None or len(source.files) == 1
    assert ("{}" in source.option) == (source.unpacking is None)


def test_sources__data_sets_go_where_their_readers_look() -> None:
    for name in ("refcoco", "refcoco+", "refcocog", "refcocog-google"):
        spec = SPLITS[name]
        unpacking = SOURCES[spec.folder].unpacking
        assert unpacking is not None
        assert unpacking.folder == spec.folder
        assert {f"refs({spec.by}).p", "instances.json"} <= set(unpacking.needed)
        images = SOURCES["coco-train2014"].unpacking
        assert images is not None
        assert images.folder == spec.images


def test_sources__sams_files_have_their_names() -> None:
    for name in ("vit_h", "vit_l", "vit_b"):
        source = SOURCES[f"sam-{name.replace('_', '-')}"]
        assert source.target(Path("data")) == Path("data/weights") / CHECKPOINT_FILES[name]
        assert f"--sam {name} " in source.option
    assert SOURCES["bert"].target(Path("data")) == Path("data/weights/bert-base-uncased")
