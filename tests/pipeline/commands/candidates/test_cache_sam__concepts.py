"""`semires cache-sam --concepts`, from the outside, with a small SAM 3 of random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.cache.candidates import Candidates
from semires.cache.reader import CandidateStore
from semires.stages.cache_sam.concepts import RULE

Semires = Callable[..., Any]
Refused = Callable[..., str]
Run = Callable[..., Any]

STORE = Path("words.zarr")
GRID = ("--points-per-side", 2, "--pred-iou-thresh", 0, "--stability-score-thresh", 0)
EXPRESSIONS = {"a.png": ["left man", "man in hat"], "b.png": ["taller"], "c.png": ["a zebra"]}


def write_data(expressions: dict[str, list[str]] = EXPRESSIONS) -> None:
    lines = [{"image": name, "split": "train", "expressions": texts} for name, texts in expressions.items()]
    Path("my.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def run(semires: Semires, sam3_folder: Path, tmp_path: Path) -> Run:
    """Run cache-sam on own data of three pictures, one of them with no noun in its expressions."""
    for seed, name in enumerate(EXPRESSIONS):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    write_data()
    options = ("cache-sam", "--split", "my.jsonl", "--store", STORE, "--sam", sam3_folder)
    return lambda *given: semires(*options, *given)


def candidates(store: Path = STORE) -> list[Candidates]:
    opened = CandidateStore(store)
    return opened.read(opened.image_ids.tolist())


def test_only__masks_of_the_nouns(run: Run, semires: Semires, tmp_path: Path) -> None:
    finished = run("--concepts", "only", "--concept-thresh", 0.4)
    assert finished.code == 0, finished.err
    assert "concepts: 3 nouns in the expressions of 3 images, 1.0 an image; 1 images have none" in finished.out
    assert "3 images added" in finished.out
    found = candidates()
    assert sorted(each.num_masks > 0 for each in found) == [False, True, True]
    assert all(np.isnan(each.points_xy).all() for each in found)
    generator = CandidateStore(STORE).manifest.generator
    assert (generator["concepts"], generator["concept_rule"], generator["concept_thresh"]) == ("only", RULE, 0.4)
    assert "points_per_side" not in generator

    assert "3 were there" in run("--concepts", "only", "--concept-thresh", 0.4).out
    assert "intact" in semires("cache", "verify", STORE).out
    # Masks without a point go out and come back.
    assert semires("cache", "export", STORE, "out").code == 0
    assert semires("cache", "import", "out", "--split", "my.jsonl", "--store", "back.zarr").code == 0
    for one, other in zip(found, candidates(Path("back.zarr")), strict=True):
        np.testing.assert_array_equal(one.bits, other.bits)
        np.testing.assert_array_equal(one.points_xy, other.points_xy)


def test_only__expressions_that_change(run: Run) -> None:
    options = ("--concepts", "only", "--concept-thresh", 0.4)
    assert run(*options).code == 0
    before = {each.image_id: each.bits.tobytes() for each in candidates()}
    write_data(EXPRESSIONS | {"a.png": ["man in the hat, left"], "c.png": ["giraffe"]})  # of a.png the nouns stay
    finished = run(*options)
    assert finished.code == 0, finished.err
    text = (
        "1 images have changed, 1 of them in the nouns of their expressions, since they were cached (c.png): done anew"
    )
    assert text in finished.out
    assert "1 image added" in finished.out
    after = {each.image_id: each.bits.tobytes() for each in candidates()}
    assert sum(before[image_id] != after[image_id] for image_id in before) == 1


def test_beside__the_grid_s_masks_and_more(run: Run, assert_refused: Refused) -> None:
    assert run(*GRID, "--store", "grid.zarr").code == 0
    finished = run(*GRID, "--concepts", "beside", "--concept-thresh", 0.4, "--box-nms-thresh", 1)
    assert finished.code == 0, finished.err
    grid, both = candidates(Path("grid.zarr")), candidates()
    assert all(one.num_masks >= other.num_masks for one, other in zip(both, grid, strict=True))
    with_points = [int((~np.isnan(each.points_xy[:, 0])).sum()) for each in both]
    assert min(with_points) > 0
    assert sum(each.num_masks for each in both) > sum(with_points)
    # Stores of different sources are never mixed.
    assert_refused(run(*GRID, "--box-nms-thresh", 1), "generator.concept_rule 'textblob-nouns-1', asked for None")
    assert_refused(run("--concepts", "only"), "store was made with generator.")
    assert_refused(run(*GRID, "--concepts", "beside", "--store", "grid.zarr"), "generator.concept_rule None")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("--concepts", "instead"), "--concepts: expected only or beside, found 'instead'"),
        (("--concept-thresh", 0.4), "--concept-thresh: expected --concepts with it"),
        (("--concepts", "only", "--concept-thresh", 2), "--concept-thresh: expected a number from 0 to 1"),
        (("--concepts", "only", "--points-per-side", 4), "--points-per-side: expected none with --concepts only"),
        (("--concepts", "only", "--compile"), "--compile: expected a grid of points"),
        (("--concepts", "only", "--sam-checkpoint", "x.pth"), "--sam-checkpoint: expected none with --concepts"),
        (("--concepts", "only", "--sam", "vit_h"), "--concepts: expected --sam with a folder of a SAM 3"),
    ],
)
def test_refused(run: Run, assert_refused: Refused, given: tuple[object, ...], expected: str) -> None:
    assert_refused(run(*given), expected)
    assert not STORE.exists()


def test_refused__a_folder_of_photographs(semires: Semires, assert_refused: Refused, sam3_folder: Path) -> None:
    finished = semires("cache-sam", "--images", ".", "--sam", sam3_folder, "--concepts", "only")
    assert_refused(finished, "--concepts: expected --split, found --images: a folder has no expressions")


def test_only__nothing_found_names_the_threshold(run: Run) -> None:
    finished = run("--concepts", "only", "--concept-thresh", 1)
    assert finished.code == 0
    assert "(score of a concept 1) do not fit the weights: try lower --concept-thresh, or other weights" in finished.err
