import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semires.cache.candidates import Candidates
from semires.cache.files import FileRecord
from semires.cache.schema import IMPORTED, ORIENTATION, UPRIGHT, Manifest
from semires.cache.writer import StoreWriter
from semires.stages.cache_sam.concepts import digest_of
from semires.stages.cache_sam.held import (
    SPLIT,
    Held,
    check_upright,
    file_record,
    folder_origin,
    look_at_store,
    split_origin,
    stored_orientation,
)
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.errors import InputError

MANIFEST = Manifest(split="photos", sam="none", sam_sha256="0" * 64)


@pytest.fixture
def sources(tmp_path: Path) -> list[ImageSource]:
    """Four files, with ids from 1."""
    found = []
    for number in range(1, 5):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 50)
        found.append(ImageSource(image_id=number, path=path))
    return found


def record(source: ImageSource) -> FileRecord:
    with source.path.open("rb") as file:
        return file_record(file)


def write(location: Path, sources: list[ImageSource], origin: str, *, known: bool = True) -> Path:
    with StoreWriter(location, MANIFEST, origin=origin) as writer:
        for source in sources:
            masks = np.ones((1, 4, 6), dtype=bool)
            candidates = Candidates.from_masks(source.image_id, masks, [1], [1], [[0, 0]])
            writer.add(candidates, record(source) if known else None)
    return location


def test_file_record(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(5, 7))
    with (tmp_path / "a").open("rb") as file:
        file.read(2)
        found = file_record(file)
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found == FileRecord(num_bytes=3, mtime_ns=7, sha256=sha256)


def test_look_at_store__nothing_there(tmp_path: Path, sources: list[ImageSource]) -> None:
    assert look_at_store(sources, tmp_path / "s.zarr", "folder-1") == Held()
    assert stored_orientation(tmp_path / "s.zarr") is None


def test_look_at_store__only_what_changed_is_stale(tmp_path: Path, sources: list[ImageSource]) -> None:
    store = write(tmp_path / "s.zarr", sources[:3], "folder-1")
    compared: list[tuple[int, int]] = []

    def look() -> list[int]:
        held = look_at_store(sources, store, "folder-1", on_progress=lambda *counts: compared.append(counts))
        assert (held.num_held, held.num_unrecorded) == (3, 0)
        return [source.image_id for source in held.stale]

    assert look() == []
    sources[0].path.write_bytes(b"longer" * 50)
    assert look() == [1]
    assert compared == []  # no content was read so far
    sources[1].path.write_bytes(b"x" * 50)
    os.utime(sources[2].path, ns=(1, 1))  # touched
    assert look() == [1, 2]
    assert compared == [(1, 2), (2, 2)]
    sources[0].path.unlink()  # of what is gone nothing could be made anew
    assert look() == [2]


def test_look_at_store__says_what_cannot_be_told(tmp_path: Path, sources: list[ImageSource]) -> None:
    store = write(tmp_path / "s.zarr", sources[:2], "", known=False)
    write(store, sources[2:], "folder-1")
    sources[0].path.write_bytes(b"x")
    held = look_at_store(sources, store, "folder-1")
    assert held == Held(num_held=4, num_unrecorded=2)
    (line,) = held.lines()
    assert line.startswith("2 of 4 images in the store have no record of their files")


def test_look_at_store__names_a_few_stale_ones(sources: list[ImageSource]) -> None:
    odd = replace(sources[0], path=Path("a\n\udcfc.png"))
    (line,) = Held(stale=(odd, *sources), num_held=5).lines()
    assert line == (
        "5 images have changed since they were cached (a\\n\\udcfc.png, 1.png, 2.png and 2 more): done anew"
    )


@pytest.mark.parametrize("whole_seconds", [False, True])
def test_look_at_store__another_folder(tmp_path: Path, sources: list[ImageSource], whole_seconds: bool) -> None:
    """Files of equal size, and of equal time where an archive gave it to all of them."""
    for source in sources:
        os.utime(source.path, ns=(10**9, 10**9) if whole_seconds else (10**9 + source.image_id,) * 2)
    store = write(tmp_path / "s.zarr", sources, "folder-1")
    assert not look_at_store(sources, store, "folder-2").stale  # the same folder, moved
    sources[2].path.write_bytes(b"y" * 50)
    os.utime(sources[2].path, ns=(10**9, 10**9))
    with pytest.raises(InputError, match="1 of whose 4 images are missing here or differ; give another --store"):
        look_at_store(sources, store, "folder-2")
    assert look_at_store(sources, store, "folder-2", overwrite=True).is_foreign
    with pytest.raises(InputError, match="1 of whose 4 images are missing"):
        look_at_store(sources[1:2] + sources[:1] + sources[3:], store, "folder-2")
    for origin in (SPLIT, "own-1"):
        with pytest.raises(InputError, match="expected a store of these images, found one of another folder"):
            look_at_store(sources, store, origin)


def test_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "photos").mkdir(parents=True)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    origin = folder_origin(Path("a/photos"))
    assert origin == folder_origin(tmp_path / "b" / "photos")
    assert origin != folder_origin(tmp_path / "a")
    assert "photos" not in origin
    assert split_origin("refcoco") == SPLIT
    assert split_origin("a/x.jsonl") == split_origin("b/y.jsonl")
    assert split_origin("a/x.jsonl") != split_origin("x.jsonl")
    assert split_origin("a/x.jsonl").startswith("own-")


def test_check_upright(tmp_path: Path, sources: list[ImageSource]) -> None:
    turned = [replace(source, size=(4, 6), is_turned=True) for source in sources]
    check_upright(turned, write(tmp_path / "new.zarr", sources[:2], "own-1"))
    old = write(tmp_path / "old.zarr", sources[:2], "", known=False)
    check_upright([replace(source, is_turned=False) for source in turned], old)
    with pytest.raises(InputError, match=r"found others of 2 \(1\.png, 2\.png\); run `semires cache-sam`"):
        check_upright(turned, old)
    assert [source.image_id for source in look_at_store(turned, old, "own-1").stale] == [1, 2]
    with pytest.raises(InputError, match=r"found others of 2 \(1\.png, 2\.png\)"):
        check_upright([replace(source, size=(6, 4)) for source in turned], tmp_path / "new.zarr")
    imported = replace(MANIFEST, sam=IMPORTED, generator={ORIENTATION: UPRIGHT})
    with StoreWriter(tmp_path / "i.zarr", imported) as writer:
        writer.add(Candidates.from_masks(1, np.ones((1, 4, 6), dtype=bool), [1], [1], [[0, 0]]))
    check_upright(turned, tmp_path / "i.zarr")
    assert stored_orientation(tmp_path / "i.zarr") is True
    assert look_at_store(turned, tmp_path / "i.zarr", "own-1").stale == ()


def test_look_at_store__other_concepts_are_stale(tmp_path: Path, sources: list[ImageSource]) -> None:
    with StoreWriter(tmp_path / "s.zarr", MANIFEST, origin="split") as writer:
        for source, concepts in zip(sources, [("man",), ("man", "hat"), (), None], strict=True):
            masks = np.ones((1, 4, 6), dtype=bool)
            words = "" if concepts is None else digest_of(concepts)
            file = replace(record(source), words=words)
            writer.add(Candidates.from_masks(source.image_id, masks, [1], [1], [[0, 0]]), file)

    def look(concepts: list[tuple[str, ...] | None]) -> Held:
        asked = [replace(source, concepts=words) for source, words in zip(sources, concepts, strict=True)]
        return look_at_store(asked, tmp_path / "s.zarr", "split")

    assert look([("man",), ("man", "hat"), (), ()]).stale == ()
    assert look([None] * 4).stale == ()  # another manifest's business
    sources[0].path.write_bytes(b"another")
    found = look([("woman",), ("man",), (), ("cat",)])
    assert [source.image_id for source in found.stale] == [1, 2]
    assert found.num_reworded == 2
    assert found.lines() == [
        "2 images have changed, 2 of them in the nouns of their expressions, since they were cached (1.png, 2.png): "
        "done anew"
    ]
    assert look([("man",), ("man", "hat"), (), ()]).lines() == [
        "1 images have changed since they were cached (1.png): done anew"
    ]
