import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semires.pipeline.audit.pictures.gallery import Gallery, GalleryRow
from semires.pipeline.paths import Paths
from semires.pipeline.report import examples
from semires.pipeline.report.examples import chosen_runs, gallery_view
from semires.pipeline.report.runs import read_run
from semires.stages.data.errors import InputError
from semires.stages.train.matching import MatchConfig

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_chosen_runs__the_papers_method_first_and_one_of_each_data_set(write_run: Callable[..., Path]) -> None:
    runs = [
        read_run(write_run("sup", method="supervised"), "Supervised"),
        read_run(write_run("iom", match=MatchConfig(strategy="iom")), "IOM"),
        read_run(write_run("cc", method="semires-cc"), "SemiRES-CC"),
        read_run(write_run("weights", pwa=False), "no PWA"),
        read_run(write_run("begun", finished=False), "SemiRES"),
        read_run(write_run("ours"), "SemiRES"),
        read_run(write_run("again", seed=1), "SemiRES"),
        read_run(write_run("other", split="refcoco", method="supervised"), "Supervised"),
    ]
    assert [run.folder.name for run in chosen_runs(runs)] == ["ours", "other"]
    assert [run.folder.name for run in chosen_runs(runs[:5])] == ["weights"]
    assert [run.folder.name for run in chosen_runs(runs[:3])] == ["iom"]


def test_gallery_view__words_and_filters(write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    label = GalleryRow(
        group="largest gain",
        ref_id=7,
        image_id=3,
        split="train",
        expression="small red house",
        outcome="positive",
        size="small",
        iou_before=0.41,
        iou_after=0.8,
        pictures=(examples_picture("image"), examples_picture("label"), examples_picture("refined")),
        num_candidates=9,
    )
    predicted = dataclasses.replace(
        label, group="best prediction", outcome="prediction", split="val", iou_before=None, pictures=()
    )
    found = Gallery(run="run", rows=(label, predicted), notes=("something is missing",))
    monkeypatch.setattr(examples, "gallery", lambda *arguments, **options: found)
    run = read_run(write_run("run"), "SemiRES")
    view = gallery_view([run], Paths(), CPU, ignore, 60, fail)
    assert view is not None
    first, second = view.examples
    assert first.about == ("largest gain", "IoU 0.41 → 0.80", "0 of 9 candidates", "small object", "ref 7 of train")
    assert second.about[:2] == ("best prediction", "IoU 0.80")
    assert [picture.caption for picture in first.pictures] == ["image", "teacher's label, 0.41", "refined label, 0.80"]
    assert first.pictures[1].alt == "“small red house”: the label"
    assert first.pictures[0].source == "data:image/webp;base64,cGljdHVyZQ=="
    assert [field for field, _, _ in view.filters] == ["group", "outcome", "split"]
    assert view.notes == ("something is missing.",)


def test_gallery_view__what_cannot_be_shown_is_said(
    write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> Gallery:
        raise InputError("no data")

    monkeypatch.setattr(examples, "gallery", refuse)
    run, said = read_run(write_run("run"), "SemiRES"), list[str]()
    assert gallery_view([run], Paths(), CPU, ignore, 60, said.append) is None
    assert said == [f"gallery of {run.folder}: no data"]
    assert gallery_view([run], Paths(), CPU, ignore, 0, fail) is None


def test_gallery_view__names_the_runs_that_it_shows(
    write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(run: Path, *arguments: object, **options: object) -> Gallery:
        if run.name == "gone":
            raise InputError("no data")
        row = GalleryRow(
            group="random prediction",
            ref_id=7,
            image_id=3,
            split="val",
            expression="a",
            outcome="prediction",
            size="small",
            iou_before=None,
            iou_after=0.8,
            pictures=(),
        )
        return Gallery(run="run", rows=(row,), notes=())

    monkeypatch.setattr(examples, "gallery", found)
    runs = [read_run(write_run("gone", split="refcoco"), "SemiRES"), read_run(write_run("here"), "SemiRES")]
    view = gallery_view(runs, Paths(), CPU, ignore, 60, list[str]().append)
    assert view is not None
    assert view.about.startswith("Of SemiRES, seed 0 (RefShapes): ")


def fail(text: str) -> None:
    raise AssertionError(text)


def examples_picture(kind: str) -> object:
    from semires.pipeline.audit.pictures.picture import Picture

    return Picture(kind=kind, mime="image/webp", content=b"picture", alt=f"the {kind}")  # type: ignore[arg-type]
