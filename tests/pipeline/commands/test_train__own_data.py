"""The example of docs/own-data.md, as it is typed there."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from semires.stages.data.refshapes.writer import RefShapesConfig, write_refshapes
from semires.stages.train.run_folder import RunFolder


class TenLines(NamedTuple):
    """The page's file, and the commands that are typed then."""

    file: Path
    commands: list[str]


@pytest.fixture
def ten_lines(fenced: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TenLines:
    """RefShapes' pictures, and the ten lines beside them with the mask that the page draws, in the working folder."""
    (lines,) = fenced("docs/own-data.md", "json", section="Ten lines")
    draw, commands = fenced("docs/own-data.md", "sh", section="Ten lines")
    write_refshapes(tmp_path / "data", RefShapesConfig(num_train=6, num_val=3, num_test=1))
    file = tmp_path / "data" / "refshapes" / "ten.jsonl"
    file.write_text(lines.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(shlex.split(draw.text)[2])
    return TenLines(file, commands.text.splitlines())


def test_docs__ten_lines_through_both_stages_to_predict(
    semires: Callable[..., Any], ten_lines: TenLines, tmp_path: Path
) -> None:
    printed = []
    for command in ten_lines.commands:
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
    assert re.search(r"val: 2 refs of 2 images .* testA: 1 refs of 1 images", evaluated)
    run = RunFolder(tmp_path / "runs" / "ten")
    assert (run.read_config().split, run.read_config().labeled) == ("data/refshapes/ten.jsonl", 1.0)
    assert len(run.read_labeled_images()) == 3
    (*_, last) = run.read_metrics()
    assert "matched" in last
    assert "label_iou_before" not in last  # no unlabeled ref has a mask to measure against
    with Image.open(tmp_path / "reports" / "testA_000000_mask.png") as mask:
        assert np.asarray(mask).shape == (96, 128)
    assert "of the image; written" in predicted


def test_docs__masks_are_of_the_things_that_are_meant(ten_lines: TenLines) -> None:
    """An example with wrong masks would teach people wrongly."""
    from semires.stages.data.datasets import open_dataset

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
    lines = ten_lines.file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["split"] for line in lines] == [ref.split for ref in own.refs]


def test_commands__bad_lines_are_named_before_anything_is_made(
    semires: Callable[..., Any], write_own: Callable[..., Any], tmp_path: Path
) -> None:
    def change(lines: list[dict[str, Any]]) -> None:
        lines[1]["mask"] = [[0, 0, 1000, 0, 1, 1]]
        lines[4]["image"] = "gone.png"

    write_own(change=change)
    before = sorted(tmp_path.iterdir())
    for command in (
        ("cache-sam", "--split", "my.jsonl", "--sam", "tiny"),
        ("train", "--split", "my.jsonl", "--model", "nano"),
        ("train", "--split", "my.jsonl", "--plan", "--plan-device", "h100"),
        ("cache", "export", "x.zarr", "x", "--split", "my.jsonl"),
    ):
        finished = semires(*command)
        assert finished.code == 2
        first, *named = finished.err.splitlines()
        assert first == "error: my.jsonl: 2 of 24 lines cannot be used, mend them:"
        assert [line.partition(":")[0] for line in named] == ["  line 2", "  line 5"]
        assert "Traceback" not in finished.err
    assert sorted(tmp_path.iterdir()) == before
    checked = semires("data", "check", "my.jsonl")
    assert (checked.code, checked.err) == (1, "")
    assert "line 2: expected polygon points near the 24x32" in checked.out
    assert checked.out.splitlines()[-1] == "my.jsonl: 2 of 24 lines cannot be used: mend them"


def test_commands__own_data_from_its_labels_to_a_picture(
    semires: Callable[..., Any],
    assert_refused: Callable[..., str],
    write_own: Callable[..., Any],
    write_store: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Half of the masks hidden: what they measure, a run's folder, the same file by another path, an edited one."""
    short = ("--model", "nano", "--burn-in-epochs", 1, "--mutual-epochs", 1, "--batch-unlabeled", 6, "--device", "cpu")
    own = write_own()
    assert_refused(
        semires("train", "--split", "my.jsonl", *short), "my.zarr: expected a candidate store, found nothing"
    )
    write_store(tmp_path / "my.zarr", "my.jsonl", own.train_ids)
    trained = semires("train", "--split", "my.jsonl", "--labeled", 0.5, *short)
    assert trained.code == 0, trained.err
    run = RunFolder(tmp_path / "runs" / "my-0.5-semires-cpi-u-seed0")
    labeled = set(run.read_labeled_images())
    assert len(labeled) == 2
    assert labeled < set(own.train_ids[:4])
    assert 0 <= run.read_metrics()[-1]["label_iou_before"] <= 1
    again = semires("train", "--split", tmp_path / "my.jsonl", "--labeled", 0.5, *short)
    assert (again.code, again.err) == (0, "")

    for arguments in ((), ("--split", "./my.jsonl"), ("--on", tmp_path / "my.jsonl", "--split", "val")):
        evaluated = semires("evaluate", run.path, *arguments, "--device", "cpu")
        assert evaluated.code == 0, evaluated.err
        assert evaluated.out.splitlines()[-1 if "--on" in arguments else -2].startswith("val: 4 refs of 2 images")
        assert "my.jsonl: SemiRES, per cent" in evaluated.out
    assert_refused(
        semires("evaluate", run.path, "--split", "train"),
        "my.jsonl: expected a mask of every ref of train, found 8 of 16 without one",
    )

    studied = semires("study", "labels", run.path)
    assert studied.code == 0, studied.err
    found = json.loads((tmp_path / "reports" / "labels.json").read_text())
    assert (found["num_refs"], found["without_mask"]) == (4, 8)
    name = json.loads((tmp_path / "my.jsonl").read_text().partition("\n")[0])["image"]
    for image in (name, own.train_ids[0]):
        shown = semires("cache", "show", "my.zarr", image, "--split", "my.jsonl", "--output", "sheet.png")
        assert shown.code == 0, shown.err

    (tmp_path / "my.jsonl").write_text((tmp_path / "my.jsonl").read_text() + "\n", encoding="utf-8")
    assert_refused(
        semires("train", "--split", "my.jsonl", "--labeled", 0.5, *short),
        "holds a run with the data my.jsonl (sha256",
        "begin anew with --restart",
    )


def test_commands__every_mask_is_used_unless_asked(
    semires: Callable[..., Any], assert_refused: Callable[..., str], write_own: Callable[..., Any]
) -> None:
    write_own(num_labeled=8)
    short = ("--split", "my.jsonl", "--model", "nano", "--device", "cpu")
    assert_refused(semires("train", *short), "--labeled 1.0 leaves no unlabeled image: give a smaller share")
    write_own(num_labeled=0)
    assert_refused(semires("train", *short), "the split has no train refs with masks")
    own = write_own()
    first, second = (json.loads(line)["image"] for line in own.file.read_text().splitlines()[:4:2])
    (own.file.parent / "list.txt").write_text(f"{first}\n{own.train_ids[1]}\n{second}\n", encoding="utf-8")
    trained = semires("train", *short, "--labeled-list", "list.txt", "--method", "supervised", "--burn-in-epochs", 1)
    assert trained.code == 0, trained.err
    (run,) = (own.file.parent / "runs").glob("*supervised*")
    assert RunFolder(run).read_labeled_images() == sorted(own.train_ids[:2])
    checked = semires("data", "check", "my.jsonl")
    assert checked.code == 0, checked.out
    assert "have several refs: 2.00 in the mean, 2 at most ('data/images/" in checked.out  # names, for ids say nothing
    assert_refused(semires("train", "--split", "none.jsonl"), "none.jsonl: expected a JSON-lines file, could not read")
