"""The example of docs/own-data.md, as it is typed there."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.stages.data.refshapes.writer import RefShapesConfig, write_refshapes
from semires.stages.train.run_folder import RunFolder

DOCS = (Path(__file__).parents[3] / "docs" / "own-data.md").read_text(encoding="utf-8").partition("## Ten lines")[2]
(LINES,) = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
(DRAW,), COMMANDS = (block.splitlines() for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL))


def test_docs__ten_lines_through_both_stages_to_predict(
    semires: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_refshapes(tmp_path / "data", RefShapesConfig(num_train=6, num_val=3, num_test=1))
    file = tmp_path / "data" / "refshapes" / "ten.jsonl"
    file.write_text(LINES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(DRAW)[2])
    printed = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        finished = semires(*arguments)
        assert (program, finished.code) == ("semires", 0), finished.err
        printed.append(" ".join(finished.out.split()))
    checked, cached, trained, evaluated, predicted = printed

    assert "train: 7 refs of 6 images, 12 expressions, 3 with a mask (labeled), 4 without (unlabeled)" in checked
    assert "10 lines, every one can be used" in checked
    assert "data/refshapes/ten.zarr: 6 images added" in cached
    assert "1 train images have refs with a mask and refs without one ('images/train_000000.png')" in cached
    assert "best val oIoU" in trained
    assert "ten.jsonl: SemiRES, per cent" in evaluated
    assert "val: 2 refs of 2 images" in evaluated
    assert "testA: 1 refs of 1 images" in evaluated
    run = RunFolder(tmp_path / "runs" / "ten")
    assert (run.read_config().split, run.read_config().labeled) == ("data/refshapes/ten.jsonl", 1.0)
    assert len(run.read_labeled_images()) == 3
    (*_, last) = run.read_metrics()
    assert "matched" in last
    assert "label_iou_before" not in last  # no unlabeled ref has a mask to measure against
    with Image.open(tmp_path / "reports" / "testA_000000_mask.png") as mask:
        assert np.asarray(mask).shape == (96, 128)
    assert "of the image; written" in predicted


def test_docs__masks_are_of_the_things_that_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example with wrong masks would teach people wrongly."""
    from semires.stages.data.datasets import open_dataset

    write_refshapes(tmp_path / "data", RefShapesConfig(num_train=6, num_val=3, num_test=1))
    (tmp_path / "data" / "refshapes" / "ten.jsonl").write_text(LINES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(DRAW)[2])
    own, truth = open_dataset("data", "data/refshapes/ten.jsonl"), open_dataset("data", "refshapes")
    for ref in own.refs:
        name = own.image_path(ref.image_id).name
        (meant,) = (
            other
            for other in truth.refs
            if truth.image_path(other.image_id).name == name and set(ref.expressions) <= set(other.expressions)
        )
        if ref.has_mask:
            mask, true = own.mask(ref), truth.mask(meant)
            assert (mask & true).sum() / (mask | true).sum() > 0.9, ref
    assert [json.loads(line)["split"] for line in LINES.splitlines()] == [ref.split for ref in own.refs]
