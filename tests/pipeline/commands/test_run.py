"""`semires predict` and `figure` from the outside."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]


def write_run(path: Path) -> Path:
    """A run with random weights."""
    config = TrainConfig(split="refshapes", model="nano", method="supervised", labeled=0.25)
    folder = RunFolder(path)
    folder.start(config, [1])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    return path


def test_predict__refusals(semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "one.png")
    (tmp_path / "text.jpg").write_text("no image")
    run = write_run(tmp_path / "run")
    assert_refused(semires("predict", "text.jpg", "left", "--run", run), "text.jpg: expected an image, found")
    assert_refused(semires("predict", "one.png", "left", "--run", "other"), "expected a run of `semires train`")
    assert_refused(semires("predict", "one.png", " ", "--run", run), "found an empty one")
    assert not (tmp_path / "reports").exists()


def test_predict__writes_mask_and_overlay_at_the_images_size(semires: Semires, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (57, 91, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    finished = semires("predict", "one.png", "left circle", "--run", write_run(tmp_path / "run"), "--output", "out")
    assert finished.code == 0, finished.err
    with (
        Image.open(tmp_path / "out" / "one_mask.png") as mask,
        Image.open(tmp_path / "out" / "one_overlay.png") as both,
    ):
        assert mask.size == both.size == (91, 57)
        assert mask.mode == "1"
        share = np.asarray(mask).mean() * 100
    assert finished.out.startswith(f"{share:.1f}% of the image")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "same.jpg")
    Image.fromarray(pixels[:, ::-1]).save(tmp_path / "same.png")
    return tmp_path / "same.jpg"


def test_predict__nothing_is_overwritten_unasked(semires: Semires, picture: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert semires("predict", "same.jpg", "left", "--run", run).code == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "reports").iterdir()}
    assert first.keys() == {"same_mask.png", "same_overlay.png"}
    finished = semires("predict", "same.jpg", "the red one on the right", "--run", run)
    assert "written: reports/same-2_mask.png, reports/same-2_overlay.png" in finished.out
    assert semires("predict", "same.png", "left", "--run", run).code == 0
    assert {name: (tmp_path / "reports" / name).read_bytes() for name in first} == first
    assert names_in(tmp_path / "reports") == [
        *("same-2_mask.png", "same-2_overlay.png", "same-3_mask.png", "same-3_overlay.png"),
        *("same_mask.png", "same_overlay.png"),
    ]
    assert semires("predict", "same.png", "left", "--run", run, "--overwrite").code == 0
    assert (tmp_path / "reports" / "same_overlay.png").read_bytes() != first["same_overlay.png"]
    assert len(names_in(tmp_path / "reports")) == 6


def test_predict__output_that_is_a_file_name(
    semires: Semires, assert_refused: Refused, picture: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    arguments = ("predict", "same.jpg", "left", "--run", run, "--output")
    finished = semires(*arguments, "out/x.png")
    assert "written: out/x.png, out/x_overlay.png" in finished.out
    assert names_in(tmp_path / "out") == ["x.png", "x_overlay.png"]
    before = (tmp_path / "out" / "x.png").read_bytes()
    assert_refused(semires(*arguments, "out/x.png"), "--output: expected a new file, found out/x.png there")
    (tmp_path / "out" / "x.png").unlink()
    assert_refused(semires(*arguments, "out/x.png"), "found out/x_overlay.png there", "--overwrite")
    assert semires(*arguments, "out/x.png", "--overwrite").code == 0
    assert (tmp_path / "out" / "x.png").read_bytes() == before
    assert_refused(semires(*arguments, "x.jpg"), "expected a folder, or a file name ending in .png, found x.jpg")
    (tmp_path / "folder.png").mkdir()
    assert semires(*arguments, "folder.png").code == 0
    assert names_in(tmp_path / "folder.png") == ["same_mask.png", "same_overlay.png"]


def test_predict__photographs_are_upright(semires: Semires, tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right: what is stored on the left is on top
    Image.fromarray(pixels).save(tmp_path / "phone.png", exif=exif)
    assert semires("predict", "phone.png", "left", "--run", write_run(tmp_path / "run"), "--output", "out").code == 0
    with Image.open(tmp_path / "out" / "phone_mask.png") as mask:
        assert mask.size == (40, 60)
    with Image.open(tmp_path / "out" / "phone_overlay.png") as overlay:
        grey = np.asarray(overlay.convert("L")).astype(int)
    assert overlay.size == (40, 60)
    assert grey[:20].mean() > grey[-20:].mean() + 50


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are Unicode")
def test_predict__arguments_that_are_no_utf_8(semires: Semires, assert_refused: Refused, picture: Path) -> None:
    run = write_run(picture.parent / "run")
    name = os.fsdecode(b"caf\xe9.jpg")
    picture.rename(picture.with_name(name))
    finished = semires("predict", name, "left", "--run", run)
    assert finished.code == 0, finished.err
    assert "written: reports/caf\\udce9_mask.png" in finished.out
    line = assert_refused(semires("predict", name, os.fsdecode(b"caf\xe9"), "--run", run))
    assert "expected an expression in UTF-8, found 'caf\\udce9'" in line
    assert "caf\\udcea.jpg: expected an image file" in assert_refused(
        semires("predict", os.fsdecode(b"caf\xea.jpg"), "left", "--run", run)
    )


def test_figure__a_name_of_no_picture_is_refused_first(
    semires: Semires, assert_refused: Refused, tmp_path: Path
) -> None:
    for name in ("x", "x.txt", "."):
        assert_refused(semires("figure", "run", "--output", name), "--output: expected the name of a picture file")
    assert names_in(tmp_path) == []
