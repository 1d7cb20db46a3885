import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageDraw

from semires.pipeline.paths import Paths
from semires.pipeline.reporting import figure as figure_module
from semires.pipeline.reporting.figure import HEADINGS, MARGIN, TEXT, TILE, refinement_figure
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
WIDTH = len(HEADINGS) * (TILE + MARGIN) - MARGIN


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def paths(tmp_path: Path, refshapes: ReferDataset, refshapes_store: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = Paths(data=tmp_path / "data")
    paths.store("refshapes").parent.mkdir(parents=True)
    shutil.copytree(refshapes_store, paths.store("refshapes"))
    monkeypatch.setattr(figure_module, "load_dataset", lambda paths, split, on_progress: refshapes)
    return paths


def run_of(path: Path, labeled: list[int], *, margin: float, inter: float = 0.0) -> Path:
    """A run whose teacher calls everything foreground (margin above 0) or nothing."""
    match = MatchConfig(strategy="cpi", inter1=inter, inter2=inter)
    config = TrainConfig(split="refshapes", model="nano", labeled=0.25, match=match)
    folder = RunFolder(path)
    folder.start(config, labeled)
    torch.manual_seed(0)
    model = config.build_model(pretrained=False)
    with torch.no_grad():
        assert model.decoder.classify.bias is not None
        model.decoder.classify.bias.copy_(torch.tensor([-margin, margin]))
    folder.save_best(model.state_dict())
    return path


@pytest.mark.parametrize("num_examples", [1, 2, 3])
def test_refinement_figure__a_row_a_ref(tmp_path: Path, paths: Paths, num_examples: int) -> None:
    run = run_of(tmp_path / "run", [1, 2], margin=50.0)
    picture = refinement_figure(run, paths, CPU, ignore, num_examples=num_examples)
    assert picture.size == (WIDTH, TEXT + num_examples * (TILE + TEXT + MARGIN))
    pixels = np.asarray(picture)
    for row in range(num_examples):
        top = TEXT + row * (TILE + TEXT + MARGIN)
        for column in range(len(HEADINGS)):
            left = column * (TILE + MARGIN)
            assert np.ptp(pixels[top : top + TILE, left : left + TILE]) > 50  # no tile is blank


@pytest.mark.parametrize("text", ["raw", "sent"])
def test_refinement_figure__reads_and_shows_the_training_text(
    tmp_path: Path, paths: Paths, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch, text: Any
) -> None:
    run = run_of(tmp_path / "run", [1, 2], margin=50.0)
    config = dataclasses.replace(RunFolder(run).read_config(), text=text, eval_text="raw" if text == "sent" else "sent")
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    dataset = copy.copy(refshapes)
    dataset.refs = tuple(
        dataclasses.replace(ref, raw_expressions=("Raw",) * len(ref.expressions)) for ref in dataset.refs
    )
    monkeypatch.setattr(figure_module, "load_dataset", lambda paths, split, on_progress: dataset)
    read: list[str] = []
    samples, draw = figure_module.RefSamples, ImageDraw.ImageDraw.text
    monkeypatch.setattr(figure_module, "RefSamples", lambda *rest, text: read.append(text) or samples(*rest, text=text))
    shown: list[str] = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, words, **rest: shown.append(words) or draw(self, at, words, **rest),
    )
    refinement_figure(run, paths, CPU, ignore, num_examples=2)
    assert read == [text]
    captions = [words for words in shown if words.startswith('"')]
    assert len(captions) == 2
    assert (set(captions) == {'"Raw"'}) == (text == "raw")


def test_refinement_figure__batches_do_not_change_it(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", [1], margin=50.0)
    expected = np.asarray(refinement_figure(run, paths, CPU, ignore, num_examples=3))
    monkeypatch.setattr(figure_module, "BATCH_SIZE", 5)
    assert (np.asarray(refinement_figure(run, paths, CPU, ignore, num_examples=3)) == expected).all()


def test_refinement_figure__fewer_refs_than_rows_are_shown_once_each(
    tmp_path: Path, paths: Paths, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted({ref.image_id for ref in refshapes.refs_of("train")})
    run = run_of(tmp_path / "run", images[1:], margin=50.0)  # one unlabeled image is left
    num_refs = sum(ref.image_id == images[0] for ref in refshapes.refs_of("train"))
    drawn: list[Any] = []
    overlay = figure_module.overlay
    monkeypatch.setattr(figure_module, "overlay", lambda image, mask: drawn.append(mask) or overlay(image, mask))
    picture = refinement_figure(run, paths, CPU, ignore, num_examples=num_refs + 4)
    assert picture.size == (WIDTH, TEXT + num_refs * (TILE + TEXT + MARGIN))
    truths = {mask.tobytes() for mask in drawn[2::3]}
    assert len(truths) == num_refs


def test_refinement_figure__rows_fall_from_the_largest_gain_to_the_largest_loss(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", [1], margin=50.0)
    drawn: list[Any] = []
    overlay = figure_module.overlay
    monkeypatch.setattr(figure_module, "overlay", lambda image, mask: drawn.append(mask) or overlay(image, mask))
    refinement_figure(run, paths, CPU, ignore, num_examples=5)

    def iou(a: Any, b: Any) -> float:
        return float((a & b).sum() / (a | b).sum())

    gains = [iou(drawn[n + 1], drawn[n + 2]) - iou(drawn[n], drawn[n + 2]) for n in range(0, len(drawn), 3)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > gains[-1]


@pytest.mark.parametrize(("margin", "inter"), [(-50.0, 0.0), (50.0, 1.0)])
def test_refinement_figure__no_label_changed(tmp_path: Path, paths: Paths, margin: float, inter: float) -> None:
    # Empty labels match nothing, and no share is above 1.
    run = run_of(tmp_path / "run", [1], margin=margin, inter=inter)
    with pytest.raises(InputError, match=r"none of the first \d+ pseudo-labels of .* was changed"):
        refinement_figure(run, paths, CPU, ignore)


def test_refinement_figure__all_images_labeled(tmp_path: Path, paths: Paths, refshapes: ReferDataset) -> None:
    run = run_of(tmp_path / "run", sorted({ref.image_id for ref in refshapes.refs}), margin=50.0)
    with pytest.raises(InputError, match="none of the first 0 pseudo-labels"):
        refinement_figure(run, paths, CPU, ignore)


def drawn_masks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    drawn: list[Any] = []
    overlay = figure_module.overlay
    monkeypatch.setattr(figure_module, "overlay", lambda image, mask: drawn.append(mask) or overlay(image, mask))
    return drawn


def test_refinement_figure__refs_whose_masks_are_known_come_first(
    tmp_path: Path, paths: Paths, without_masks: Callable[..., ReferDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", [1, 2], margin=50.0)
    unlabeled = [ref for ref in without_masks([]).refs_of("train") if ref.image_id not in (1, 2)]
    own = without_masks([ref.ref_id for ref in unlabeled[:-2]])
    monkeypatch.setattr(figure_module, "load_dataset", lambda paths, split, on_progress: own)
    drawn = drawn_masks(monkeypatch)
    assert refinement_figure(run, paths, CPU, ignore).size == (WIDTH, TEXT + 2 * (TILE + TEXT + MARGIN))
    assert all(truth.any() for truth in drawn[2::3])


def test_refinement_figure__no_mask_is_known(
    tmp_path: Path, paths: Paths, without_masks: Callable[..., ReferDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No truth is drawn, none stands in a caption; rows run from labels that changed most to those that changed
    least."""
    run = run_of(tmp_path / "run", [1, 2], margin=50.0)
    own = without_masks([ref.ref_id for ref in without_masks([]).refs_of("train") if ref.image_id not in (1, 2)])
    monkeypatch.setattr(figure_module, "load_dataset", lambda paths, split, on_progress: own)
    drawn = drawn_masks(monkeypatch)
    picture = refinement_figure(run, paths, CPU, ignore, num_examples=5)
    assert picture.size == (WIDTH - TILE - MARGIN, TEXT + 5 * (TILE + TEXT + MARGIN))
    assert len(drawn) == 2 * 5
    kept = [
        (before & after).sum() / (before | after).sum() for before, after in zip(drawn[::2], drawn[1::2], strict=True)
    ]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1] < 1
