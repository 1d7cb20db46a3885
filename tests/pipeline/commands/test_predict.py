"""`semires predict` from the outside."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from semires.pipeline.predicting import writing
from semires.stages.data.masks import decode_segmentation, parse_segmentation
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.prediction import overlay
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


def test_predict__the_shipped_model_knows_its_shapes(semires: Semires, tmp_path: Path, refshapes: ReferDataset) -> None:
    """It never saw these scenes' masks; a model that were not trained would hit none."""
    refs = refshapes.refs_of("val")
    lines = [{"image": str(refshapes.image_path(ref.image_id)), "expression": ref.raw_expressions[0]} for ref in refs]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    finished = semires("predict", "--input", "asked.jsonl", "--stdout")
    assert finished.code == 0, finished.err
    assert "never a photograph" in finished.err
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [(one["image"], one["expression"]) for one in records] == [tuple(line.values()) for line in lines]
    ious = []
    for ref, record in zip(refs, records, strict=True):
        segmentation = parse_segmentation(record["mask"], *record["size"])
        assert segmentation is not None
        mask, truth = decode_segmentation(segmentation, *record["size"]), refshapes.mask(ref)
        assert record["area"] == mask.sum()
        assert record["box_xywh"] == coco_mask.toBbox(record["mask"]).astype(int).tolist()
        ious.append((mask & truth).sum() / (mask | truth).sum())
    assert np.mean(ious) > 0.4
    assert not (tmp_path / "reports").exists()


def test_predict__folders_and_several_expressions(semires: Semires, tmp_path: Path) -> None:
    for name in ("photos/a/1.png", "photos/b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (30, 20), "red").save(tmp_path / name)
    (tmp_path / "photos" / "a" / "notes.txt").write_text("")
    run = write_run(tmp_path / "run")
    arguments = ("predict", "photos", "left dog", "-e", "photos", "--run", run, "--output", "photos/out")
    finished = semires(*arguments, "--jsonl", "x.jsonl")
    assert finished.code == 0, finished.err
    assert "left out: 1 file of no picture format" in finished.out
    names = ("1-left-dog", "1-left-dog-2", "1-photos", "1-photos-2")
    pictures = sorted(f"{name}_{kind}.png" for name in names for kind in ("mask", "overlay"))
    assert names_in(tmp_path / "photos" / "out") == pictures
    records = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    asked = [(f"photos/{folder}/1.png", text) for folder in "ab" for text in ("left dog", "photos")]
    assert [(record["image"], record["expression"]) for record in records] == asked
    assert records[2]["mask_file"] == "photos/out/1-left-dog-2_mask.png"
    # What a command wrote is no photograph to the next one, which replaces it, each by its own.
    before = {path: path.read_bytes() for path in (tmp_path / "photos" / "out").iterdir()}
    again = semires(*arguments, "--overwrite")
    assert "left out: 8 pictures in photos/out, where masks are written" in again.out
    assert {path: path.read_bytes() for path in (tmp_path / "photos" / "out").iterdir()} == before


def test_predict__an_image_that_cannot_be_read_ends_nothing(semires: Semires, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(picture.read_bytes()[:200])
    finished = semires("predict", "bad.jpg", "same.jpg", "left", "--run", write_run(tmp_path / "run"), "--stdout")
    assert finished.code == 1
    assert "error: 1 of 2 images cannot be read; the others are done" in finished.err
    bad, good = map(json.loads, finished.out.splitlines())
    assert bad["image"] == "bad.jpg"
    assert bad["error"].startswith("expected an image")
    assert good["size"] == [40, 60]


def test_predict__stopped(semires: Semires, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written stays, whole; nothing is half there."""
    made = list[Image.Image]()

    def stopping(pixels: Any, mask: Any) -> Image.Image:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(overlay(pixels, mask))
        return made[-1]

    monkeypatch.setattr(writing, "overlay", stopping)
    arguments = ("predict", "same.jpg", "a", "b", "c", "--run", write_run(tmp_path / "run"), "--output", "out")
    finished = semires(*arguments, "--jsonl", "x.jsonl")
    assert finished.code == 130
    assert finished.err == "stopped; 2 of 3 masks are written\n"
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["expression"] for line in lines] == ["a", "b"]
    pictures = sorted(f"same-{name}_{kind}.png" for name in "ab" for kind in ("mask", "overlay"))
    assert names_in(tmp_path / "out") == pictures
    for line in lines:
        with Image.open(line["mask_file"]) as mask:
            assert np.asarray(mask).sum() == line["area"]


def test_predict__masks_made_of_candidates(
    semires: Semires, tmp_path: Path, refshapes: ReferDataset, refshapes_store: Path
) -> None:
    """Each mask is then a union of candidates of its image; images are found in the store by name or content."""
    ref = refshapes.refs_of("train")[0]
    image = refshapes.image_path(ref.image_id)
    arguments = ("predict", image, *ref.raw_expressions[:2], "--stdout", "--matching", "cpi")
    finished = semires(*arguments, "--sam", "tiny")
    assert finished.code == 0, finished.err
    assert {json.loads(line)["refined"] for line in finished.out.splitlines()} <= {True, False}
    missing = semires(*arguments, "--refine", refshapes_store)
    assert "no candidates in" in missing.err
    assert {json.loads(line)["refined"] for line in missing.out.splitlines()} == {None}


def test_predict__options_that_contradict(
    semires: Semires, assert_refused: Refused, picture: Path, tmp_path: Path
) -> None:
    assert_refused(semires("predict", "same.jpg", "x", "--run", "a", "--model", "b"), "found both")
    assert_refused(semires("predict", "same.jpg"), "expected an expression")
    assert_refused(semires("predict"), "found neither")
    assert_refused(semires("predict", "same.jpg", "x", "--input", "y.jsonl"), "found both")
    assert_refused(semires("predict", "same.jpg", "none.jpg", "x"), "none.jpg: expected an image file, found none")
    assert_refused(semires("predict", "same.jpg", "x", "--matching", "iom"), "--matching: expected --refine")
    assert_refused(semires("predict", "same.jpg", "x", "--threshold", "1"), "threshold: expected a probability")
    assert_refused(semires("predict", "same.jpg", "x", "y", "--output", "x.png"), "expected a folder for several masks")
    (tmp_path / "x.jsonl").write_text("mine")
    # Before a model is looked for, which may take long.
    with_lines = ("predict", "same.jpg", "x", "--model", "none", "--jsonl")
    assert_refused(semires(*with_lines, "x.jsonl"), "--jsonl: expected a new file")
    assert_refused(semires(*with_lines, "x.jsonl/y"), "--jsonl: expected a file that can be written")
    (tmp_path / "bad.jsonl").write_text('\n{"image": "same.jpg"}\n')
    assert_refused(semires("predict", "--input", "bad.jsonl"), "bad.jsonl: expected", "in line 2")
    assert (tmp_path / "x.jsonl").read_text() == "mine"
    assert not (tmp_path / "reports").exists()
