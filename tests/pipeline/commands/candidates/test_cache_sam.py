"""`semires cache-sam` on photographs of one's own, from the outside: whose they are, and whether they are the same."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.cache.reader import CandidateStore
from semires.stages.data.images import image_id_of

Semires = Callable[..., Any]
Refused = Callable[..., str]
Run = Callable[..., Any]

# Every mask is kept, however bad.
SETTINGS = ("--points-per-side", 2, "--pred-iou-thresh", 0, "--stability-score-thresh", 0)
STORE = Path("data/cache/photos.zarr")


@pytest.fixture
def run(semires: Semires, sam_file: Path) -> Run:
    """Run cache-sam with a tiny SAM of random weights."""
    return lambda *given: semires("cache-sam", "--sam", "tiny", "--sam-checkpoint", sam_file, *SETTINGS, *given)


def photograph(path: Path, seed: int, size: tuple[int, int] = (10, 20), **save: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path, **save)


def held(*names: str) -> dict[str, bytes]:
    store = CandidateStore(STORE)
    return {name: store[image_id_of(name)].bits.tobytes() for name in names}


def sizes(*names: str) -> list[tuple[int, int]]:
    store = CandidateStore(STORE)
    return [(store[image_id_of(name)].height, store[image_id_of(name)].width) for name in names]


def test_cache_sam__a_photograph_replaced_under_its_name(run: Run, tmp_path: Path) -> None:
    for number in range(3):
        photograph(tmp_path / "photos" / f"{number}.png", number)
    assert run("--images", "photos").code == 0
    before = held("0.png", "1.png", "2.png")
    assert run("--images", "photos").out.count("images have changed") == 0

    photograph(tmp_path / "photos" / "1.png", 99, size=(14, 20))
    os.utime(tmp_path / "photos" / "0.png")  # the same content
    finished = run("--images", "photos")
    assert finished.code == 0, finished.err
    assert "1 images have changed since they were cached (1.png): done anew" in finished.out
    assert "1 image added" in finished.out
    assert "2 were there" in finished.out
    after = held("0.png", "1.png", "2.png")
    assert [name for name in before if before[name] != after[name]] == ["1.png"]
    assert sizes("1.png") == [(14, 20)]

    photograph(tmp_path / "photos" / "1.png", 98, size=(14, 20))
    assert "(1.png): done anew" in run("--images", "photos", "--overwrite").out
    assert held("0.png") == {"0.png": after["0.png"]}
    assert held("1.png") != {"1.png": after["1.png"]}


def test_cache_sam__a_changed_photograph_that_is_broken(run: Run, tmp_path: Path) -> None:
    photograph(tmp_path / "photos" / "a.png", 1)
    photograph(tmp_path / "photos" / "b.png", 2)
    assert run("--images", "photos").code == 0
    (tmp_path / "photos" / "b.png").write_bytes(b"half")
    finished = run("--images", "photos")
    assert finished.code == 1
    assert "b.png: expected an image" in finished.err
    assert CandidateStore(STORE).image_ids.tolist() == [image_id_of("a.png")]  # what it had is of another picture


def test_cache_sam__another_folder_of_the_same_name(run: Run, assert_refused: Refused, tmp_path: Path) -> None:
    for number in range(3):
        photograph(tmp_path / "cam1" / "photos" / f"{number}.png", number)
        photograph(tmp_path / "cam2" / "photos" / f"{number}.png", 10 + number)
    assert run("--images", "cam1/photos").code == 0
    before = held("0.png", "1.png", "2.png")
    # Refused before SAM is loaded, whose weights are none.
    (tmp_path / "none.pth").write_bytes(b"")
    text = "found one of another folder of photographs, 3 of whose 3 images are missing here or differ"
    assert_refused(run("--images", "cam2/photos", "--sam-checkpoint", "none.pth"), str(STORE), text, "--store")
    assert held("0.png", "1.png", "2.png") == before
    assert run("--images", "cam2/photos", "--store", "cam2.zarr").code == 0
    finished = run("--images", "cam2/photos", "--overwrite")
    assert "3 images added" in finished.out
    assert held("0.png") != {"0.png": before["0.png"]}


@pytest.mark.parametrize("whole_seconds", [False, True])
def test_cache_sam__a_folder_that_was_moved(run: Run, tmp_path: Path, whole_seconds: bool) -> None:
    for number in range(3):
        photograph(tmp_path / "one" / "photos" / f"{number}.png", number)
        if whole_seconds:
            os.utime(tmp_path / "one" / "photos" / f"{number}.png", (10**9, 10**9))
    assert run("--images", "one/photos").code == 0
    shutil.move(tmp_path / "one", tmp_path / "two")
    photograph(tmp_path / "two" / "photos" / "more.png", 5)
    finished = run("--images", "two/photos")
    assert finished.code == 0, finished.err
    assert "1 image added" in finished.out
    assert "3 were there" in finished.out
    assert ("comparing images: 3/3" in finished.out) == whole_seconds
    # It is known there from now on: a photograph that changes is done anew.
    photograph(tmp_path / "two" / "photos" / "1.png", 9)
    assert "(1.png): done anew" in run("--images", "two/photos").out


def test_cache_sam__a_folder_named_as_a_data_set(
    run: Run, assert_refused: Refused, write_refer: Callable[..., Any], tmp_path: Path
) -> None:
    fake = write_refer("refcoco", num_train=1)
    given = ("--split", "refcoco", "--data", fake.root)
    assert run(*given).code == 0
    photograph(tmp_path / "refcoco" / "a.png", 1)
    text = "found one of a data set's images"
    (tmp_path / "none.pth").write_bytes(b"")
    assert_refused(run("--images", "refcoco", "--data", fake.root, "--sam-checkpoint", "none.pth"), text)
    assert run("--images", "refcoco", "--data", fake.root, "--overwrite").code == 0
    assert_refused(run(*given, "--sam-checkpoint", "none.pth"), "found one of another folder of photographs")


def test_cache_sam__a_store_of_an_earlier_release(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upright_photograph: Callable[[Path], None]
) -> None:
    """Its parts know no files, and its photographs are as they were stored: it goes on so."""
    upright_photograph(tmp_path / "photos" / "a.jpg")
    with monkeypatch.context() as earlier:
        earlier.setattr("semires.cache.parts.PartIndex.to_attributes", forgetful())
        assert run("--images", "photos", "--as-stored").code == 0
    upright_photograph(tmp_path / "photos" / "b.jpg")
    finished = run("--images", "photos")
    assert finished.code == 0, finished.err
    assert "made of photographs as they are stored, and goes on so; --overwrite takes them upright" in finished.out
    assert "1 of 1 images in the store have no record of their files" in finished.out
    assert sizes("a.jpg", "b.jpg") == [(10, 20), (10, 20)]
    assert run("--images", "photos", "--overwrite").code == 0
    assert sizes("a.jpg", "b.jpg") == [(20, 10), (20, 10)]


def forgetful() -> Callable[[Any], dict[str, Any]]:
    from dataclasses import replace

    from semires.cache.parts import PartIndex

    original = PartIndex.to_attributes
    return lambda index: original(replace(index, files=None, origin=""))


@pytest.fixture
def upright_photograph() -> Callable[[Path], None]:
    """Writes 20 x 10 pixels that EXIF turns by a quarter."""

    def write(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        photograph(path, 3, exif=exif)

    return write


def test_cache_sam__photographs_are_upright(
    run: Run, semires: Semires, assert_refused: Refused, tmp_path: Path, upright_photograph: Callable[[Path], None]
) -> None:
    upright_photograph(tmp_path / "photos" / "a.jpg")
    assert run("--images", "photos").code == 0
    assert sizes("a.jpg") == [(20, 10)]
    assert "orientation upright" in semires("cache", "info", STORE).out
    assert_refused(run("--images", "photos", "--as-stored"), "generator.orientation 'upright'")
    shown = semires("cache", "show", STORE, "photos/a.jpg")
    assert shown.code == 0, shown.err
    assert semires("cache", "show", STORE, "a.jpg", "--images", "photos", "--html", "a.html").code == 0
    assert run("--images", "photos", "--as-stored", "--store", "stored.zarr").code == 0
    assert not CandidateStore("stored.zarr").manifest.is_upright
    assert_refused(run("--split", "refcoco", "--as-stored"), "--as-stored: expected --images FOLDER")


def test_cache_sam__own_data_of_an_earlier_release_is_turned(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upright_photograph: Callable[[Path], None]
) -> None:
    upright_photograph(tmp_path / "a.jpg")
    photograph(tmp_path / "b.png", 1)
    lines = [f'{{"image": "{name}", "split": "train", "expressions": ["x"]}}' for name in ("a.jpg", "b.png")]
    (tmp_path / "my.jsonl").write_text("\n".join(lines))
    given = ("--split", "my.jsonl", "--store", STORE)
    with monkeypatch.context() as earlier:
        earlier.setattr("semires.cache.parts.PartIndex.to_attributes", forgetful())
        earlier.setattr("semires.stages.data.images._orientation", lambda image: 1)
        earlier.setattr("semires.stages.cache_sam.held.stored_orientation", lambda location: False)
        assert run(*given).code == 0
    assert sizes("a.jpg", "b.png") == [(10, 20), (10, 20)]
    finished = run(*given)
    assert finished.code == 0, finished.err
    assert "1 images have changed since they were cached (a.jpg): done anew" in finished.out
    assert sizes("a.jpg", "b.png") == [(20, 10), (10, 20)]
    assert "images have changed" not in run(*given).out


def test_cache_sam__says_what_it_scales_and_leaves_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        grey = np.random.default_rng(number).integers(0, 1024, (10, 20)).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "._0.png").write_bytes(b"junk")
    (tmp_path / "photos" / "notes.txt").touch()
    finished = run("--images", "photos")
    assert finished.code == 0, finished.err
    assert "2 images of more than 8 bits a pixel: each was scaled by its own range" in finished.out
    assert "left out: 1 file of no picture format (1 .txt), 1 hidden or system entry" in finished.out


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_cache_sam__names_of_any_bytes(run: Run, semires: Semires, tmp_path: Path) -> None:
    photograph(tmp_path / "photos" / "a.png", 1)
    name = os.fsdecode(b"bl\xfcte.png")
    (tmp_path / "photos" / "a.png").rename(tmp_path / "photos" / name)
    (tmp_path / "photos" / os.fsdecode(b"bad\xfc.png")).write_bytes(b"")
    finished = run("--images", "photos")
    assert finished.code == 1
    assert "photos/bad\\udcfc.png: expected an image" in finished.err
    assert "bad\\udcfc.png: expected an image" in semires("cache", "info", STORE).out
    assert CandidateStore(STORE).image_ids.tolist() == [image_id_of(name)]
    assert semires("cache", "show", STORE, f"photos/{name}").code == 0


def test_drop_and_compact(run: Run, semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        photograph(tmp_path / "photos" / folder / "1.png", ord(folder))
        assert run("--images", "photos").code == 0
    before = held("a/1.png", "b/1.png")
    finished = semires("cache", "compact", STORE)
    assert finished.code == 0, finished.err
    assert "2 parts became 1; 0 second copies of images dropped" in finished.out
    assert held("a/1.png", "b/1.png") == before

    assert_refused(semires("cache", "drop", STORE, "c/1.png"), "expected an image id, found 'c/1.png'")
    assert_refused(semires("cache", "drop", STORE, 7, "a/1.png"), "'7', which it does not hold; nothing was dropped")
    finished = semires("cache", "drop", STORE, "photos/a/1.png")
    assert finished.code == 0, finished.err
    assert "1 image dropped, 1 stay" in finished.out
    assert CandidateStore(STORE).image_ids.tolist() == [image_id_of("b/1.png")]
    assert "1 image added" in run("--images", "photos").out
    assert held("a/1.png", "b/1.png") == before
    exported = semires("cache", "export", STORE, "out", "--images", "photos")
    assert exported.code == 0, exported.err
    texts = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert '"file_name": "a/1.png"' in texts
    assert '"file_name": "b/1.png"' in texts
