import hashlib
from pathlib import Path

import pytest

from semires.cache.reader import CandidateStore, StoreInfo
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.pipeline.doctor import belongings
from semires.pipeline.paths import Paths
from semires.stages.data.download.sources import Source, SourceFile


def test_weights__compared_with_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    files = {"right": b"abc", "wrong": b"abd", "short": b"ab", "unknown": b"abc"}
    sources = {}
    for name, content in files.items():
        (tmp_path / "weights" / name).write_bytes(content)
        sha256 = None if name == "unknown" else hashlib.sha256(b"abc").hexdigest()
        file = SourceFile(path=name, urls=(), size=3, sha256=sha256)
        sources[name] = Source(name=name, what="", folder="weights", files=(file,))
    monkeypatch.setattr(belongings, "SOURCES", sources)
    looked = belongings.look_at_weights(Paths(data=tmp_path), lambda *told: None, thorough=True)
    found = {one.what: one for one in looked}
    assert found["right"].found.endswith("of the published sha256")
    assert "another sha256 in wrong" in found["wrong"].found
    assert found["short"].remedy == "semires data download short"
    assert found["unknown"].found.endswith("of a sha256 that nobody has published")


def test_stores__whole_half_and_damaged(tmp_path: Path) -> None:
    for name, num_images in (("a", 0), ("b", 5)):
        manifest = Manifest(split=name, sam="tiny", sam_sha256="0" * 64, num_images=num_images)
        StoreWriter(tmp_path / "cache" / f"{name}.zarr", manifest).close()
    (tmp_path / "cache" / "c.zarr").mkdir()
    found = {one.what: one for one in belongings.look_at_stores(Paths(data=tmp_path))}
    assert (found["a.zarr"].found, found["a.zarr"].state) == ("0 of 0 images, 0 candidates of SAM tiny", "good")
    assert found["b.zarr"].remedy == "type the semires cache-sam that made it again"
    assert found["c.zarr"].remedy.startswith("semires cache verify ")


def test_stores_and_data__whatever_is_wrong_with_one_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error of what is read keeps anybody from training on RefShapes."""
    for name in ("a", "b"):
        StoreWriter(tmp_path / "cache" / f"{name}.zarr", Manifest(split=name, sam="tiny", sam_sha256="0" * 64)).close()

    def info(store: CandidateStore) -> StoreInfo:
        if "a.zarr" in store.location:
            raise PermissionError(13, "Permission denied")
        return whole(store)

    whole = CandidateStore.info
    monkeypatch.setattr(CandidateStore, "info", info)
    first, second = belongings.look_at_stores(Paths(data=tmp_path))
    assert (first.what, first.state) == ("a.zarr", "missing")
    assert "Permission denied" in first.found
    assert second.state == "good"
